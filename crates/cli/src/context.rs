//! What every command needs: where vnet stands, netd's client, and how to print.

use std::path::PathBuf;

use vnet_api::client::Client;
use vnet_api::paths::Paths;

/// How the answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) paths: Paths,
    pub(crate) client: Client,
    pub(crate) format: Format,
}

impl Context {
    pub(crate) fn new(root: PathBuf, json: bool) -> Self {
        let paths = Paths::new(root);
        let client = Client::new(paths.api_socket());
        Self { paths, client, format: if json { Format::Json } else { Format::Text } }
    }
}
