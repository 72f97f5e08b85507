//! What should be.

use std::collections::BTreeMap;

use vnet_types::{MacAddr, Mode, NetworkDefinition, NetworkName};

use crate::firewall::{Firewall, Zone};
use crate::forward::{Addresses, published};

/// The networks that should be up, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    /// Each with the MAC address of its bridge, which no change of ports may alter.
    pub networks: BTreeMap<NetworkName, (NetworkDefinition, MacAddr)>,
    /// Where the guests are that the networks' forwards name.
    pub addresses: BTreeMap<NetworkName, Addresses>,
}

impl Desired {
    /// Whether the host must forward packets for any of the networks.
    #[must_use]
    pub fn forwards(&self) -> bool {
        self.networks.values().any(|(network, _)| network.mode != Mode::Hostonly)
    }

    /// The firewall that the networks need.
    #[must_use]
    pub fn firewall(&self) -> Firewall {
        self.networks
            .values()
            .map(|(network, _)| {
                let zone = Zone {
                    mode: network.mode,
                    subnet: network.subnet,
                    uplink: network.uplink.clone(),
                    published: published(network, self.addresses.get(&network.name)),
                };
                (network.bridge.clone(), zone)
            })
            .collect()
    }
}
