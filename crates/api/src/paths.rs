//! Where everything stands under a root.

use std::path::{Path, PathBuf};

use vnet_types::NetworkName;

/// The directories and sockets of one vnet on this host. With the root `/` they are the system's;
/// with any other, that vnet is apart from all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    /// The paths under `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The root itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What a person wrote: one file a network.
    #[must_use]
    pub fn networks(&self) -> PathBuf {
        self.root.join("etc/vnet/networks")
    }

    /// The definition of one network.
    #[must_use]
    pub fn network(&self, name: &NetworkName) -> PathBuf {
        self.networks().join(format!("{name}.toml"))
    }

    /// What must survive a reboot: leases.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.root.join("var/lib/vnet")
    }

    /// The leases of one network.
    #[must_use]
    pub fn leases(&self, name: &NetworkName) -> PathBuf {
        self.state().join("leases").join(format!("{name}.leases"))
    }

    /// The leases of one network's IPv6 addresses.
    #[must_use]
    pub fn leases6(&self, name: &NetworkName) -> PathBuf {
        self.state().join("leases").join(format!("{name}.leases6"))
    }

    /// How to put uplinks back that are under a bridge.
    #[must_use]
    pub fn uplinks(&self) -> PathBuf {
        self.state().join("uplinks")
    }

    /// What need not survive a reboot: sockets and the ledger.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.root.join("run/vnet")
    }

    /// netd's record of what is ours.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.run().join("ledger.json")
    }

    /// Locked by the netd that keeps its state here.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.run().join("netd.lock")
    }

    /// The socket of the HTTP API.
    #[must_use]
    pub fn api_socket(&self) -> PathBuf {
        self.run().join("api.sock")
    }

    /// The socket on which a VMM gets its ports.
    #[must_use]
    pub fn ports_socket(&self) -> PathBuf {
        self.run().join("ports.sock")
    }
}
