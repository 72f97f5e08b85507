//! What should be.

use std::collections::BTreeMap;

use vnet_types::{MacAddr, Mode, NetworkDefinition, NetworkName};

use crate::firewall::{Firewall, Zone};

/// The networks that should be up, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    /// Each with the MAC address of its bridge, which no change of ports may alter.
    pub networks: BTreeMap<NetworkName, (NetworkDefinition, MacAddr)>,
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
                };
                (network.bridge.clone(), zone)
            })
            .collect()
    }
}
