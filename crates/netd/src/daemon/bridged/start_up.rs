//! netd's start: moves that were broken off are brought to one of their two ends, and uplinks are
//! put under their bridges.

use vnet_api::model::ErrorBody;
use vnet_plan::uplink::{Phase, check_release};
use vnet_types::BridgedDefinition;

use super::Daemon;
use crate::failure::failed;

impl Daemon {
    /// Brings moves that were broken off to one of their two ends, and puts the uplinks of the
    /// networks that should be up under their bridges.
    pub(in crate::daemon) async fn start_bridged(&mut self) -> Result<(), ErrorBody> {
        let journals =
            vnet_kernel::read_journals(&self.journals()).map_err(|error| failed(&error))?;
        for journal in journals {
            let bridge = journal.network.bridge.clone();
            let result = match journal.phase {
                Phase::Moving => {
                    tracing::warn!("the move to {bridge} was broken off: all is put back");
                    self.put_all_back(&journal).await
                }
                Phase::Committed => self.finish_commit(&journal).await,
                Phase::Releasing => self.finish_release(&journal).await.map(drop),
            };
            if let Err(error) = result {
                tracing::error!("{}", error.message);
            }
        }
        self.read_definitions()?;
        let networks: Vec<_> = self.bridged.networks.values().cloned().collect();
        for network in networks {
            if let Err(error) = self.establish(&network).await {
                tracing::error!("network {} cannot be started: {}", network.name, error.message);
                self.bridged.failed.insert(network.name, error.message);
            }
        }
        Ok(())
    }

    /// Sees to it that the network is up: it is already, or its uplink is put under its bridge.
    pub(super) async fn establish(&mut self, network: &BridgedDefinition) -> Result<(), ErrorBody> {
        let links = self.kernel.uplink_links().map_err(|error| failed(&error))?;
        if check_release(&network.bridge, &network.uplink, &links).is_ok() {
            self.bridged.active.insert(network.name.clone());
            return Ok(());
        }
        if !network.autostart {
            return Ok(());
        }
        let (journal, present, mtu) = self.journal_for(network, &links, None)?;
        self.move_there(&journal, present.as_ref(), mtu).await?;
        self.commit(journal).await.map(drop)
    }
}
