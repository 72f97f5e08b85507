//! Bridged networks: the host's own network on a bridge over its uplink.
//!
//! ```text
//! enslave ─► check ─► note ─► prepare ─► burst ─► gateway answers? ─► confirmed? ─► commit
//!                      │                              │ no               │ no         │
//!                      └──────── crash ───────────────┴──────────────────┴─► roll     ▼
//!                                                                            back   settled
//! stop, delete, release ─► note ─► burst ─► the manager's files ─► forget
//! ```
//!
//! Until the journal says `committed`, everything leads back; from then on, everything leads on.
//! The manager's files are written after that, so that a boot in between finds the old ones; when
//! all is written, the journal says `settled`. They are there while the network is up and starts
//! by itself: `stop` and `autostart --off` put back what was there before.

mod clock;
mod converge;
mod edit;
mod enslave;
mod moving;
mod release;
mod repair;
mod requests;
mod start_up;
mod view;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use vnet_api::model::{ErrorBody, ErrorKind};
use vnet_kernel::Routes;
use vnet_plan::persist;
use vnet_plan::uplink::{Journal, LinkId, Record, Step};
use vnet_types::{BridgedDefinition, IfName, NetworkName};

use super::{Daemon, Shared, managers};
use crate::failure::{failed, refuse};

/// What is known of bridged networks.
#[derive(Debug, Default)]
pub(crate) struct Bridged {
    /// As they are on disk; those that wait to be confirmed are not there yet.
    networks: BTreeMap<NetworkName, BridgedDefinition>,
    /// Those that are up, or wait to be confirmed.
    active: BTreeSet<NetworkName>,
    /// Those that should be and aren't, and why.
    failed: BTreeMap<NetworkName, String>,
    /// Moves that wait to be confirmed, by their bridge.
    pending: BTreeMap<IfName, Journal>,
}

impl Bridged {
    /// Takes what is on disk, but for networks that are up: they stay as they were started.
    pub(super) fn define(&mut self, mut networks: BTreeMap<NetworkName, BridgedDefinition>) {
        for name in &self.active {
            if let Some(network) = self.networks.remove(name) {
                networks.insert(name.clone(), network);
            }
        }
        self.networks = networks;
    }

    /// Those that are up: guests are on them, and guarded.
    pub(crate) fn up(&self) -> BTreeMap<NetworkName, BridgedDefinition> {
        let up = self.networks.iter().filter(|(name, _)| self.active.contains(*name));
        up.map(|(name, network)| (name.clone(), network.clone())).collect()
    }

    /// Whether none is up.
    pub(super) fn is_idle(&self) -> bool {
        self.active.is_empty()
    }

    /// Why another sort of request cannot be about this network; none if it is no bridged one.
    pub(crate) fn refusal(&self, name: &NetworkName) -> Option<ErrorBody> {
        let BridgedDefinition { uplink, .. } = self.networks.get(name)?;
        Some(refuse(
            ErrorKind::Conflict,
            format!(
                "{name} is a bridged network, whose guests are machines of the LAN behind \
                 {uplink}: addresses, names and forwards are that LAN's to give; `vnet show \
                 {name}` shows what is known of it"
            ),
        ))
    }

    /// The network whose bridge this is.
    fn with_bridge(&self, bridge: &IfName) -> Option<&BridgedDefinition> {
        self.networks.values().find(|network| network.bridge == *bridge)
    }
}

impl Daemon {
    fn journals(&self) -> PathBuf {
        self.paths.uplinks()
    }

    /// The journal of a bridge, if there is one.
    fn journal_of(&self, bridge: &IfName) -> Result<Option<Journal>, ErrorBody> {
        vnet_kernel::read_journal(&self.journals(), bridge).map_err(|error| failed(&error))
    }

    fn manager_facts(&self, uplink: &LinkId) -> persist::ManagerFacts {
        managers::facts(self.paths.root(), uplink)
    }

    fn records(&mut self, links: &[&LinkId]) -> Result<Vec<Record>, ErrorBody> {
        self.kernel.uplink_records(links).map_err(|error| failed(&error))
    }

    async fn step(&mut self, step: &Step) -> Result<(), ErrorBody> {
        let journals = self.journals();
        self.kernel.step(step, &journals).await.map_err(|error| failed(&error))
    }

    /// The definition of a bridged network as it is on disk now, if it is one.
    pub(crate) fn bridged_network(
        &mut self,
        name: &NetworkName,
    ) -> Result<Option<BridgedDefinition>, ErrorBody> {
        self.read_definitions()?;
        Ok(self.bridged.networks.get(name).cloned())
    }

    /// The bridge on which a port of this network is to be, and its MTU.
    pub(super) async fn place_for_ports(
        &mut self,
        name: &NetworkName,
    ) -> Result<(IfName, u32), ErrorBody> {
        let down = || {
            let message = format!("the network {name} is not up: `vnet start {name}`");
            refuse(ErrorKind::Conflict, message)
        };
        if let Some(network) = self.bridged.networks.get(name) {
            let bridge = network.bridge.clone();
            let observed = self.observe(Routes::Skip).await?;
            return match observed.links.get(bridge.as_str()) {
                Some(link) if self.bridged.active.contains(name) => Ok((bridge, link.mtu)),
                _ => Err(down()),
            };
        }
        let bridge = self.definition(name)?.bridge.clone();
        if !self.running.contains_key(name) {
            return Err(down());
        }
        let observed = self.observe(Routes::Skip).await?;
        let mtu = observed.links.get(bridge.as_str()).map(|link| link.mtu);
        mtu.map(|mtu| (bridge, mtu)).ok_or_else(down)
    }
}
