//! The command line against a real netd, each test in a namespace of its own.
// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod api;
mod bridged;
mod changes;
mod edit;
mod exit_codes;
mod guests;
mod json;
mod output;
mod probe;

use tempfile::TempDir;
use vnet_testkit::{Netd, Netns};

/// A host of its own with a netd on it.
struct World {
    netd: Netd,
    root: TempDir,
}

impl World {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        Self { netd: Netd::start(&Netns::new(), root.path()), root }
    }
}
