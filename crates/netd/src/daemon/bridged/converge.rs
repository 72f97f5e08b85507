//! A bridged network that is up is made what its definition says: its MTU, its ports, and the
//! files of the uplink's manager.

use std::fmt;

use vnet_api::model::ErrorBody;
use vnet_kernel::Routes;
use vnet_plan::persist::{self, FileChange};
use vnet_plan::uplink::{Journal, LinkFacts, Phase, Step};
use vnet_plan::{Alias, LinkKind, Observed, Operation};
use vnet_types::{BridgedDefinition, IfName};

use super::words::files_in_words;
use super::{Daemon, managers};
use crate::failure::failed;

/// One thing that a network that is up lacks.
pub(super) enum Lack {
    /// Something of the bridge.
    Bridge(Step),
    /// Something of a guest's port.
    Port(Operation),
    /// The manager is to bring the bridge up at boot.
    Files(Vec<FileChange>),
    /// It is not to any more.
    NoFiles(Vec<FileChange>),
}

impl Daemon {
    /// Makes a network that is up what `network` says.
    pub(super) async fn converge(&mut self, network: &BridgedDefinition) -> Result<(), ErrorBody> {
        for lack in self.lacks(network).await? {
            self.supply(network, lack).await?;
        }
        self.guard_bridged().await
    }

    /// What the network lacks, in the order in which it is to get it.
    pub(super) async fn lacks(
        &mut self,
        network: &BridgedDefinition,
    ) -> Result<Vec<Lack>, ErrorBody> {
        let links = self.kernel.uplink_links().map_err(|error| failed(&error))?;
        let find = |name: &IfName| links.iter().find(|link| link.id.name == *name);
        let (Some(uplink), Some(bridge)) = (find(&network.uplink), find(&network.bridge)) else {
            return Ok(Vec::new());
        };
        let journal = self.journal_of(&network.bridge)?;
        let mtu = wanted_mtu(network, journal.as_ref(), uplink, bridge);
        let mut lacks = Vec::new();
        if bridge.mtu != mtu {
            lacks.push(Lack::Bridge(Step::SetMtu { link: network.bridge.clone(), mtu }));
        }
        let observed = self.observe(Routes::Skip).await?;
        lacks.extend(ports(network, bridge, mtu, &observed).into_iter().map(Lack::Port));
        if let Some(journal) = journal.filter(|journal| journal.phase == Phase::Settled) {
            lacks.extend(self.files(network, &journal));
        }
        Ok(lacks)
    }

    fn files(&self, network: &BridgedDefinition, journal: &Journal) -> Option<Lack> {
        match (network.autostart, journal.files.is_empty()) {
            (true, true) => {
                let facts = self.manager_facts(&journal.uplink);
                let files = persist::persist(network, journal.mac, &facts).files;
                (!files.is_empty()).then_some(Lack::Files(files))
            }
            (false, false) => Some(Lack::NoFiles(journal.files.clone())),
            _ => None,
        }
    }

    async fn supply(&mut self, network: &BridgedDefinition, lack: Lack) -> Result<(), ErrorBody> {
        match lack {
            Lack::Bridge(step) => self.step(&step).await,
            Lack::Port(operation) => {
                self.kernel.execute(&operation).await.map_err(|error| failed(&error))
            }
            Lack::Files(files) => {
                let Some(journal) = self.journal_of(&network.bridge)? else { return Ok(()) };
                // Noted first: what stood there before must not be lost.
                let network = network.clone();
                let journal = Journal { phase: Phase::Committed, files, network, ..journal };
                self.step(&Step::Note(Box::new(journal.clone()))).await?;
                self.finish_commit(&journal).await
            }
            Lack::NoFiles(files) => {
                let Some(journal) = self.journal_of(&network.bridge)? else { return Ok(()) };
                let notes =
                    managers::restore(self.paths.root(), &files).map_err(|error| failed(&error))?;
                notes.iter().for_each(|note| tracing::warn!("{note}"));
                vnet_kernel::milestone();
                let (files, network) = (Vec::new(), network.clone());
                self.step(&Step::Note(Box::new(Journal { files, network, ..journal }))).await
            }
        }
    }

    /// Has the ports of bridged networks guarded as their definitions say.
    pub(super) async fn guard_bridged(&mut self) -> Result<(), ErrorBody> {
        let observed = self.observe(Routes::Skip).await?;
        self.firewall_for(&observed).await
    }
}

/// What the bridge's MTU is to be: that of the definition, or else what it would have had.
fn wanted_mtu(
    network: &BridgedDefinition,
    journal: Option<&Journal>,
    uplink: &LinkFacts,
    bridge: &LinkFacts,
) -> u32 {
    let before = match journal {
        Some(journal) if journal.created => uplink.mtu,
        Some(journal) => journal.bridge_mtu.unwrap_or(bridge.mtu),
        // The manager's at boot.
        None => bridge.mtu,
    };
    network.mtu.unwrap_or(before)
}

/// Guests whose bridge was gone for a while come back to it; all have its MTU.
fn ports(
    network: &BridgedDefinition,
    bridge: &LinkFacts,
    mtu: u32,
    observed: &Observed,
) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (name, port) in observed.links.iter() {
        let alias = &port.alias;
        let on_this_network =
            matches!(alias, Some(Alias::Port { network: on, .. }) if *on == network.name);
        let Ok(name) = name.parse::<IfName>() else { continue };
        if !on_this_network || port.kind != LinkKind::Tun {
            continue;
        }
        if port.mtu != mtu {
            operations.push(Operation::SetMtu { link: name.clone(), mtu });
        }
        if port.master != Some(bridge.id.index) {
            let bridge = network.bridge.clone();
            operations.push(Operation::Enslave { port: name, bridge });
        }
    }
    operations
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = |files: Vec<String>| files.join("\n");
        match self {
            Self::Bridge(step) => step.fmt(f),
            Self::Port(operation) => operation.fmt(f),
            Self::Files(changes) => {
                let after = changes.iter().map(|file| (&file.path, &file.after));
                f.write_str(&files(files_in_words(after)))
            }
            Self::NoFiles(changes) => {
                let before = changes.iter().map(|file| (&file.path, &file.before));
                f.write_str(&files(files_in_words(before)))
            }
        }
    }
}
