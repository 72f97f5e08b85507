//! What the integration tests share: a host with netd on it, and netd's API without a shell
//! between. The tests themselves stand in the folders beside this file, by kind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod port_guest;
pub mod timeline;

use std::future::Future;
use std::path::PathBuf;

use tempfile::TempDir;
use vnet_api::client::{Client, ClientError, Guests, Run};
use vnet_api::model::{AnyNetwork, Changed, CreateIpv6, CreateNetwork, ErrorKind, Lease, Network};
use vnet_api::paths::Paths;
use vnet_testkit::{Lan, Netd, Netns};
use vnet_types::{Limits, Mode, NetworkName};

/// A host with an uplink, and a directory for a netd.
pub struct Host {
    /// The host, and the outside beyond it.
    pub lan: Lan,
    /// Under which netd keeps everything.
    pub root: TempDir,
}

impl Host {
    /// A host without a netd.
    #[expect(clippy::new_without_default, reason = "a host is no plain value")]
    pub fn new() -> Self {
        Self::with(Lan::new())
    }

    /// A host without a netd, with IPv6 on its uplink and outside.
    pub fn dual_stack() -> Self {
        Self::with(Lan::dual_stack())
    }

    fn with(lan: Lan) -> Self {
        let host = Self { lan, root: tempfile::tempdir().unwrap() };
        std::fs::write(host.resolv_conf(), format!("nameserver {}\n", Lan::SERVER)).unwrap();
        host
    }

    /// The host's network namespace.
    pub fn ns(&self) -> &Netns {
        &self.lan.host
    }

    /// Where netd keeps what.
    pub fn paths(&self) -> Paths {
        Paths::new(self.root.path())
    }

    /// Where the host's own DNS servers are named.
    pub fn resolv_conf(&self) -> PathBuf {
        self.root.path().join("resolv.conf")
    }

    /// Starts netd; the outside's server is the host's DNS server.
    pub fn netd(&self) -> Netd {
        self.try_netd(&[]).unwrap()
    }

    /// Starts netd with these variables in its environment.
    pub fn try_netd(&self, environment: &[(&str, &str)]) -> anyhow::Result<Netd> {
        Netd::try_start_with(self.ns(), self.root.path(), |command| {
            command.arg("--resolv-conf").arg(self.resolv_conf());
            command.args(["--log", "debug"]);
            command.envs(environment.iter().copied());
        })
    }

    /// A client of netd.
    pub fn client(&self) -> Client {
        Client::new(self.paths().api_socket())
    }

    /// Creates a network.
    pub fn create(&self, request: &CreateNetwork) -> Result<Changed, ClientError> {
        wait(self.client().create(request, Run::Real))
    }

    /// Makes the network `default`, as `vnet create nat default` does.
    pub fn create_default(&self) -> Network {
        self.create(&nat("default")).unwrap().network.unwrap()
    }

    /// Starts a network.
    pub fn start(&self, name: &str) -> Result<Changed<AnyNetwork>, ClientError> {
        wait(self.client().start(&network(name), Run::Real))
    }

    /// Stops a network without guests.
    pub fn stop(&self, name: &str) -> Result<Changed<AnyNetwork>, ClientError> {
        wait(self.client().stop(&network(name), Guests::Respect, Run::Real))
    }

    /// Stops a network, whoever is on it.
    pub fn cut_off(&self, name: &str) {
        wait(self.client().stop(&network(name), Guests::CutOff, Run::Real)).unwrap();
    }

    /// Deletes a network without guests.
    pub fn delete(&self, name: &str) -> Result<Changed<AnyNetwork>, ClientError> {
        wait(self.client().delete(&network(name), Guests::Respect, Run::Real))
    }

    /// A network as netd shows it.
    pub fn network(&self, name: &str) -> Network {
        wait(self.client().network(&network(name))).unwrap().into_network().unwrap()
    }

    /// All leases.
    pub fn leases(&self) -> Vec<Lease> {
        wait(self.client().leases(None)).unwrap()
    }

    /// Writes a definition by hand.
    pub fn define(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.paths().networks()).unwrap();
        std::fs::write(self.paths().network(&network(name)), text).unwrap();
    }
}

/// A network's name.
pub fn network(name: &str) -> NetworkName {
    name.parse().unwrap()
}

/// A request for a network in this mode, with everything else left to netd.
pub fn request(mode: Mode, name: &str) -> CreateNetwork {
    CreateNetwork {
        name: network(name),
        mode,
        subnet: None,
        range: None,
        dhcp: true,
        domain: None,
        bridge: None,
        uplink: None,
        mtu: None,
        ipv6: None,
        limits: Limits::default(),
    }
}

/// A request for a NAT network.
pub fn nat(name: &str) -> CreateNetwork {
    request(Mode::Nat, name)
}

/// A request for a network in this mode with IPv6, of this prefix.
pub fn request6(mode: Mode, name: &str, prefix: &str) -> CreateNetwork {
    let ipv6 = CreateIpv6 { prefix: Some(prefix.parse().unwrap()), ..CreateIpv6::default() };
    CreateNetwork { ipv6: Some(ipv6), ..request(mode, name) }
}

/// Runs a future to its end.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Does several things of which netd is to see only the end: it does not run meanwhile.
pub fn behind_its_back(netd: &Netd, damage: impl FnOnce()) {
    let pid = nix::unistd::Pid::from_raw(netd.pid().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    damage();
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
}

/// What netd said no with.
pub fn refusal<T: std::fmt::Debug>(result: Result<T, ClientError>) -> (ErrorKind, String) {
    match result.unwrap_err() {
        ClientError::Refused(body) => (body.kind, body.message),
        other => panic!("netd was to refuse, but: {other}"),
    }
}
