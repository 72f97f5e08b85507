//! The packets that a network needs to pass.

use ipnet::IpNet;
use vnet_types::Mode;

use super::{Connection, Flow, Hook, Version};

/// What a network is to the rules of others.
#[derive(Debug, Clone, Copy)]
pub struct Needs<'a> {
    /// Its bridge.
    pub bridge: &'a str,
    /// The addresses of its guests, of one version of IP.
    pub subnet: IpNet,
    /// Whom they talk to.
    pub mode: Mode,
    /// The link by which they reach the outside, if that is known.
    pub uplink: Option<&'a str>,
    /// Whether frames between its guests pass the rules for packets (br_netfilter).
    pub bridge_netfilter: bool,
}

impl Needs<'_> {
    /// Everything that must pass for the network to work.
    #[must_use]
    pub fn flows(&self) -> Vec<Flow> {
        let Self { bridge, subnet, mode, bridge_netfilter, .. } = *self;
        let uplink = self.uplink.map(str::to_owned);
        let (version, ip) = match subnet {
            IpNet::V4(_) => (Version::Four, ""),
            IpNet::V6(_) => (Version::Six, "IPv6 "),
        };
        let base = Flow {
            name: format!("{ip}packets from {bridge} to the outside"),
            bridge: bridge.to_owned(),
            version,
            hook: Hook::Forward,
            from: Some(bridge.to_owned()),
            to: uplink.clone(),
            source: Some(subnet),
            destination: None,
            connection: Connection::New,
            service: Some(("tcp", 443)),
        };
        let back = Flow {
            name: format!("{ip}answers from the outside to {bridge}"),
            from: uplink,
            to: Some(bridge.to_owned()),
            source: None,
            destination: Some(subnet),
            connection: Connection::Established,
            service: Some(("tcp", 40_000)),
            ..base.clone()
        };
        let mut flows = Vec::new();
        if mode == Mode::Routed {
            flows.push(Flow {
                name: format!("{ip}packets from the outside to {bridge}"),
                connection: Connection::New,
                service: Some(("tcp", 443)),
                ..back.clone()
            });
        }
        if bridge_netfilter {
            flows.push(Flow {
                name: format!("{ip}frames between guests on {bridge}"),
                to: Some(bridge.to_owned()),
                destination: Some(subnet),
                ..base.clone()
            });
        }
        flows.push(Flow {
            name: format!("{ip}DNS requests on {bridge}"),
            hook: Hook::Input,
            to: None,
            service: Some(("udp", 53)),
            ..base.clone()
        });
        if mode != Mode::Hostonly {
            flows.extend([base, back]);
        }
        flows
    }
}
