//! Rules of others that stand in a network's way: said when it is started, not found out by a guest
//! that gets no answer.

use std::collections::BTreeMap;

use vnet_plan::Observed;
use vnet_plan::foreign::{Certainty, Needs, obstacles};
use vnet_types::NetworkName;

use super::Daemon;
use crate::failure::chain;

const BRIDGE_NETFILTER: [&str; 2] = [
    "/proc/sys/net/bridge/bridge-nf-call-iptables",
    "/proc/sys/net/bridge/bridge-nf-call-ip6tables",
];

impl Daemon {
    /// What drops packets of these networks for sure, with the commands that help, as notes for
    /// whoever has started them. They are logged, too.
    pub(super) async fn notes_on_foreign_rules(
        &mut self,
        networks: impl IntoIterator<Item = &NetworkName>,
        observed: &Observed,
    ) -> Vec<String> {
        let rules = match self.kernel.foreign_rules().await {
            Ok(Some(rules)) => rules,
            Ok(None) => return Vec::new(),
            Err(error) => {
                tracing::warn!("{}", chain(&error));
                return Vec::new();
            }
        };
        let [four, six] = BRIDGE_NETFILTER
            .map(|path| std::fs::read_to_string(path).is_ok_and(|value| value.trim() == "1"));
        let outlet = observed.outlet.and_then(|index| observed.link_name(index));
        let mut flows = Vec::new();
        for network in networks.into_iter().filter_map(|name| self.networks.get(name)) {
            let needs = Needs {
                bridge: network.bridge.as_str(),
                subnet: network.subnet.net().into(),
                mode: network.mode,
                uplink: network.uplink.as_ref().map(|uplink| uplink.as_str()).or(outlet),
                bridge_netfilter: four,
            };
            flows.extend(needs.flows());
            if let Some(ipv6) = &network.ipv6 {
                let subnet = ipv6.prefix.net().into();
                flows.extend(Needs { subnet, bridge_netfilter: six, ..needs }.flows());
            }
        }
        // One note for all that the same commands help against.
        let mut found: BTreeMap<Vec<String>, String> = BTreeMap::new();
        for obstacle in obstacles(&rules, &flows) {
            if obstacle.certainty == Certainty::Sure {
                let text = obstacle.to_string();
                found.entry(obstacle.fix).or_insert(text);
            }
        }
        let note = |(fix, what): (Vec<String>, String)| {
            let fix: Vec<_> = fix.iter().map(|command| format!("`{command}`")).collect();
            format!("{what}: {} lets them pass; `vnet check` shows all", fix.join(", "))
        };
        let notes: Vec<_> = found.into_iter().map(note).collect();
        for note in &notes {
            tracing::warn!("{note}");
        }
        notes
    }
}
