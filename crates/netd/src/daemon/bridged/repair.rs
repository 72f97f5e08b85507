//! An uplink that something else has taken from its bridge is put back, as `vnet start` does it.

use vnet_api::client::Run;
use vnet_api::model::ErrorBody;
use vnet_plan::uplink::LinkFacts;
use vnet_types::BridgedDefinition;

use super::Daemon;
use crate::failure::failed;
use crate::repair::{Outcome, Patience};

impl Daemon {
    /// Puts uplinks back under the bridges that they have been taken from. Where that fails, all of
    /// the host's network is on the uplink, and the network is shown as failed.
    pub(in crate::daemon) async fn repair_bridged(&mut self, patience: Patience) -> Outcome {
        let stolen = match self.without_uplink() {
            Ok(stolen) => stolen,
            Err(error) => {
                tracing::error!("{}", error.message);
                return Outcome::Failed;
            }
        };
        let mut outcome = Outcome::Whole;
        for network in stolen {
            let BridgedDefinition { name, bridge, uplink, .. } = &network;
            if patience == Patience::Lost {
                tracing::error!(
                    "something else on this host takes {uplink} from {bridge} again and again: find \
                     out what does (`ip monitor link` shows when)"
                );
            }
            match self.bring_up_bridged(&network, None, Run::Real).await {
                Ok(_) => {
                    tracing::warn!(
                        "something else on this host has taken {uplink} from {bridge}; it is back"
                    );
                    outcome = outcome.max(Outcome::Repaired);
                }
                Err(error) => {
                    tracing::error!("network {name} cannot be repaired: {}", error.message);
                    self.bridged.active.remove(name);
                    self.bridged.failed.insert(name.clone(), error.message);
                    outcome = Outcome::Failed;
                }
            }
        }
        outcome
    }

    /// Networks that should be up, whose bridge is there and whose uplink is free. One that is on
    /// another bridge now has been given another use; that is said, and is for a person to settle.
    fn without_uplink(&mut self) -> Result<Vec<BridgedDefinition>, ErrorBody> {
        if self.bridged.is_idle() {
            return Ok(Vec::new());
        }
        let links = self.kernel.uplink_links().map_err(|error| failed(&error))?;
        let is = |name: &str, what: fn(&LinkFacts) -> bool| {
            links.iter().any(|link| link.id.name.as_str() == name && what(link))
        };
        let up = self.bridged.up().into_values();
        let stolen = up.filter(|network| {
            !self.bridged.pending.contains_key(&network.bridge)
                && is(network.bridge.as_str(), |link| link.is("bridge"))
                && is(network.uplink.as_str(), |link| link.up && link.master.is_none())
        });
        Ok(stolen.collect())
    }
}
