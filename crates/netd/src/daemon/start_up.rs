//! netd's start: the networks that should be up are brought up, and those that are up already,
//! with guests on them, lose nothing by what is wrong with others or by what the host has become
//! meanwhile.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use vnet_api::model::{ErrorBody, ErrorKind};
use vnet_kernel::Routes;
use vnet_plan::{Observed, conflicts};
use vnet_types::{NetworkDefinition, NetworkName};

use super::Daemon;
use crate::failure::refuse;
use crate::request;

impl Daemon {
    pub(super) async fn start_up(&mut self) -> Result<(), ErrorBody> {
        self.read_definitions()?;
        self.start_bridged().await?;
        let observed = self.observe(Routes::Read).await?;
        self.keep_broken(&observed);
        // Before forwards are looked at: guests that netd has heard before are where they were.
        self.listen_at_ports(&observed);
        let all = self.acceptable(&observed);
        let observed = match self.shape(&all, &observed).await {
            Ok((_, observed)) => observed,
            Err(error) if all.is_empty() => return Err(error),
            Err(_) => self.without_culprits(all.clone()).await?,
        };
        let failed: BTreeSet<NetworkName> = self.failed.keys().cloned().collect();
        for name in all.difference(&failed) {
            if let Err(error) = self.serve(name, &observed).await {
                self.fail(name, error);
                self.unserved.insert(name.clone());
            }
        }
        let up = self.up();
        self.notes_on_foreign_rules(&up, &observed).await;
        Ok(())
    }

    /// A network that is up stays up as it was started, though somebody has broken its file since.
    fn keep_broken(&mut self, observed: &Observed) {
        for broken in &self.broken {
            let stem = Path::new(&broken.path).file_stem().and_then(|stem| stem.to_str());
            let started = observed
                .ledger
                .bridges
                .keys()
                .filter_map(|bridge| observed.started(bridge.as_str()))
                .find(|network| Some(network.name.as_str()) == stem);
            if let Some(network) = started {
                tracing::warn!("{}: the network stays as it was started", broken.path);
                self.networks.insert(network.name.clone(), network.clone());
            }
        }
    }

    /// The networks that are to be up, and that nothing stands in the way of.
    fn acceptable(&mut self, observed: &Observed) -> BTreeSet<NetworkName> {
        let wanted: Vec<Arc<NetworkDefinition>> = self
            .networks
            .values()
            .filter(|network| {
                // One that is up stays up: guests are on it, whatever is to be at the next boot.
                let is_up = observed
                    .started(network.bridge.as_str())
                    .is_some_and(|started| started.name == network.name);
                let wanted = observed.ledger.wanted.get(&network.name).copied();
                wanted.unwrap_or(network.autostart || is_up)
            })
            .cloned()
            .collect();
        let names = wanted.iter().map(|network| network.name.clone()).collect();
        let mut conflicts = conflicts(&self.desired(&names, observed), observed);
        let mut accepted: Vec<&NetworkDefinition> = Vec::new();
        for network in &wanted {
            let name = &network.name;
            if let Some(conflict) = conflicts.remove(name) {
                self.fail(name, refuse(ErrorKind::Conflict, conflict.to_string()));
                continue;
            }
            let started = observed.started(network.bridge.as_str());
            let is_up = started.is_some_and(|started| started.subnet == network.subnet);
            match request::check_clash(network, observed, &accepted) {
                Ok(()) => accepted.push(network),
                // Its guests live with that already.
                Err(error) if is_up => {
                    tracing::warn!("network {name} stays up, but: {}", error.message);
                    accepted.push(network);
                }
                Err(error) => self.fail(name, error),
            }
        }
        accepted.into_iter().map(|network| network.name.clone()).collect()
    }

    /// Brings up one network after the other, and leaves out those with which it fails. Those that
    /// are up already stay up all the while.
    async fn without_culprits(
        &mut self,
        all: BTreeSet<NetworkName>,
    ) -> Result<Observed, ErrorBody> {
        let mut observed = self.observe(Routes::Skip).await?;
        let mut current: BTreeSet<_> = all
            .iter()
            .filter(|name| {
                let bridge = self.networks.get(*name).map(|network| network.bridge.as_str());
                bridge.is_some_and(|bridge| observed.started(bridge).is_some())
            })
            .cloned()
            .collect();
        for name in all {
            current.insert(name.clone());
            match self.shape(&current, &observed).await {
                Ok((_, now)) => observed = now,
                Err(error) => {
                    self.fail(&name, error);
                    current.remove(&name);
                    observed = self.observe(Routes::Skip).await?;
                }
            }
        }
        // What the last failure has left half done goes.
        self.shape(&current, &observed).await.map(|(_, observed)| observed)
    }
}
