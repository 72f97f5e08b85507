//! How a bridged network is shown.

use vnet_api::model::{BridgedNetwork, PortView, State};
use vnet_plan::Observed;
use vnet_types::{BridgedDefinition, NetworkName};

use super::Daemon;
use super::clock::since_boot;
use crate::network_view;

impl Daemon {
    pub(super) fn view_bridged(
        &self,
        network: &BridgedDefinition,
        observed: &Observed,
    ) -> BridgedNetwork {
        let name = &network.name;
        let pending = self.bridged.pending.get(&network.bridge);
        let until = pending.and_then(|journal| journal.confirm_until);
        BridgedNetwork {
            bridge_mac: observed.links.get(network.bridge.as_str()).and_then(|link| link.mac),
            ports: self.ports_with_addresses(name, observed),
            confirm_within: until.map(|until| until.saturating_sub(since_boot())),
            definition: network.clone(),
            state: self.state_of(network, observed),
        }
    }

    fn ports_with_addresses(&self, name: &NetworkName, observed: &Observed) -> Vec<PortView> {
        let mut ports = network_view::ports(name, observed);
        for port in &mut ports {
            port.addresses = self.sightings.of(&port.interface);
        }
        ports
    }

    fn state_of(&self, network: &BridgedDefinition, observed: &Observed) -> State {
        let BridgedDefinition { name, bridge, uplink, .. } = network;
        if !self.bridged.active.contains(name) {
            return match self.bridged.failed.get(name) {
                Some(reason) => State::Failed { reason: reason.clone() },
                None => State::Stopped,
            };
        }
        let link = |name: &str| observed.links.get(name);
        let master = link(uplink.as_str()).and_then(|link| link.master);
        let is_port = link(bridge.as_str()).is_some_and(|link| master == Some(link.index));
        if is_port {
            return State::Active;
        }
        State::Failed {
            reason: format!(
                "something else on this host has taken {uplink} from {bridge}: `vnet start {name}` \
                 puts it back"
            ),
        }
    }
}
