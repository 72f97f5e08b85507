//! netd's start: moves that were broken off are brought to one of their two ends, and uplinks are
//! put under their bridges.

use vnet_api::model::ErrorBody;
use vnet_kernel::FoundJournal;
use vnet_plan::uplink::{Journal, Phase, check_release};
use vnet_types::BridgedDefinition;

use super::Daemon;
use crate::failure::failed;

impl Daemon {
    /// Brings moves that were broken off to one of their two ends, and puts the uplinks of the
    /// networks that should be up under their bridges. What is wrong with one of them hinders no
    /// other, and no network of another sort.
    pub(in crate::daemon) async fn start_bridged(&mut self) -> Result<(), ErrorBody> {
        let found = vnet_kernel::read_journals(&self.journals()).map_err(|error| failed(&error))?;
        for journal in found {
            match journal {
                FoundJournal::Whole(journal) => {
                    if let Err(error) = self.finish(&journal).await {
                        tracing::error!("{}", error.message);
                    }
                }
                // What it was to put back is not known any more, and not guessed at.
                FoundJournal::SetAside { path, reason } => tracing::error!(
                    "a journal of an uplink was damaged, and is set aside as {path} ({reason}): if \
                     the host's addresses are on the wrong interface, `vnet bridge BRIDGE \
                     --release UPLINK` moves them back"
                ),
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

    async fn finish(&mut self, journal: &Journal) -> Result<(), ErrorBody> {
        match journal.phase {
            Phase::Moving => {
                let bridge = &journal.network.bridge;
                tracing::warn!("the move to {bridge} was broken off: all is put back");
                self.put_all_back(journal).await
            }
            Phase::Committed => self.finish_commit(journal).await,
            Phase::Settled => Ok(()),
            Phase::Stopping | Phase::Releasing => self.finish_release(journal).await.map(drop),
        }
    }

    /// Sees to it that the network is up: it is already, or its uplink is put under its bridge.
    async fn establish(&mut self, network: &BridgedDefinition) -> Result<(), ErrorBody> {
        let links = self.kernel.uplink_links().map_err(|error| failed(&error))?;
        if check_release(&network.bridge, &network.uplink, &links).is_ok() {
            self.bridged.active.insert(network.name.clone());
            return self.converge(network).await;
        }
        let wanted = self.kernel.ledger().wanted.get(&network.name).copied();
        if !wanted.unwrap_or(network.autostart) {
            return Ok(());
        }
        let (journal, present, mtu) = self.journal_for(network, &links, None).await?;
        self.move_there(&journal, present.as_ref(), mtu).await?;
        self.commit(journal).await.map(drop)
    }
}
