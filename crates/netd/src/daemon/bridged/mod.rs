//! Bridged networks: the host's own network on a bridge over its uplink.
//!
//! ```text
//! enslave ─► check ─► note ─► prepare ─► burst ─► gateway answers? ─► confirmed? ─► commit
//!                      │                              │ no               │ no
//!                      └──────── crash ───────────────┴──────────────────┴─► roll back
//! ```
//!
//! Until the journal says `committed`, everything leads back; from then on, everything leads on.
//! The manager's files are written after that, so that a boot in between finds the old ones.

mod clock;
mod enslave;
mod moving;
mod release;
mod start_up;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use vnet_api::client::{Guests, Run};
use vnet_api::model::{BridgeChanged, BridgedNetwork, EnslaveUplink, ErrorBody, ErrorKind, State};
use vnet_kernel::Routes;
use vnet_plan::uplink::{Journal, LinkId, Record, Step};
use vnet_plan::{Observed, persist};
use vnet_types::{BridgedDefinition, IfName, NetworkName};

use self::clock::since_boot;
use super::{Daemon, Shared, managers};
use crate::failure::{failed, refuse};
use crate::network_view;

/// What is known of bridged networks.
#[derive(Debug, Default)]
pub(super) struct Bridged {
    /// As they are on disk.
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

    /// Why another sort of request cannot be about this network; none if it is no bridged one.
    pub(super) fn refusal(&self, name: &NetworkName) -> Option<ErrorBody> {
        let BridgedDefinition { bridge, uplink, .. } = self.networks.get(name)?;
        Some(refuse(
            ErrorKind::Conflict,
            format!(
                "{name} is a bridged network: `vnet list` shows it, `vnet bridge {bridge} \
                 --release {uplink}` takes it down, `vnet bridge {bridge} --enslave {uplink}` \
                 brings it up"
            ),
        ))
    }
}

impl Shared {
    /// All bridged networks, by name.
    ///
    /// # Errors
    /// The host's state cannot be read.
    pub async fn bridges(&self) -> Result<Vec<BridgedNetwork>, ErrorBody> {
        let mut daemon = self.daemon.lock().await;
        let observed = daemon.observe(Routes::Skip).await?;
        let networks = daemon.bridged.networks.values();
        Ok(networks.map(|network| daemon.view_bridged(network, &observed)).collect())
    }

    /// Puts an uplink under a bridge, with all of the host's own network that was on it.
    ///
    /// # Errors
    /// The uplink cannot have a bridge, or its gateway did not answer: all is as it was then.
    pub async fn enslave(
        &self,
        request: EnslaveUplink,
        run: Run,
    ) -> Result<BridgeChanged, ErrorBody> {
        let bridge = request.bridge.clone();
        let mut daemon = self.daemon.lock().await;
        let changed = daemon.enslave(request, run).await?;
        if let Some(until) =
            daemon.bridged.pending.get(&bridge).and_then(|move_| move_.confirm_until)
            && run == Run::Real
        {
            self.expire_at(bridge, until);
        }
        Ok(changed)
    }

    /// Rolls the move to `bridge` back when its time is over, unless it was confirmed before.
    fn expire_at(&self, bridge: IfName, until: u64) {
        let Some(this) = self.this.upgrade() else { return };
        tokio::spawn(async move {
            while until > since_boot() {
                tokio::time::sleep(Duration::from_secs(until - since_boot())).await;
            }
            let mut daemon = this.daemon.lock().await;
            let due = |journal: &Journal| journal.confirm_until == Some(until);
            if !daemon.bridged.pending.get(&bridge).is_some_and(due) {
                return;
            }
            tracing::warn!("{bridge} was not confirmed in time: all is put back");
            if let Err(error) = daemon.give_up(&bridge).await {
                tracing::error!("{}", error.message);
            }
        });
    }

    /// Keeps a bridge that waits to be confirmed.
    ///
    /// # Errors
    /// It doesn't.
    pub async fn confirm(&self, bridge: &IfName) -> Result<BridgeChanged, ErrorBody> {
        let mut daemon = self.daemon.lock().await;
        let Some(journal) = daemon.bridged.pending.remove(bridge) else {
            let message = format!(
                "{bridge} does not wait to be confirmed: `vnet list` shows whether it is up; if \
                 its time was over, all has been put back"
            );
            return Err(refuse(ErrorKind::Conflict, message));
        };
        let name = journal.network.name.clone();
        let notes = daemon.commit(journal).await?;
        let observed = daemon.observe(Routes::Skip).await?;
        let network = daemon.bridged.networks.get(&name);
        let network = network.map(|network| daemon.view_bridged(network, &observed));
        Ok(BridgeChanged { network, plan: Vec::new(), notes })
    }

    /// Takes an uplink from its bridge, and gives it back all of the host's own network.
    ///
    /// # Errors
    /// It is no port of that bridge, or guests are on it.
    pub async fn release(
        &self,
        bridge: &IfName,
        uplink: &IfName,
        guests: Guests,
        run: Run,
    ) -> Result<BridgeChanged, ErrorBody> {
        self.daemon.lock().await.release(bridge, uplink, guests, run).await
    }
}

impl Daemon {
    pub(super) fn journals(&self) -> PathBuf {
        self.paths.uplinks()
    }

    pub(super) fn manager_facts(&self, journal: &Journal) -> persist::ManagerFacts {
        managers::facts(self.paths.root(), &journal.uplink)
    }

    pub(super) fn records(&mut self, links: &[&LinkId]) -> Result<Vec<Record>, ErrorBody> {
        self.kernel.uplink_records(links).map_err(|error| failed(&error))
    }

    pub(super) async fn step(&mut self, step: &Step) -> Result<(), ErrorBody> {
        let journals = self.journals();
        self.kernel.step(step, &journals).await.map_err(|error| failed(&error))
    }

    /// The bridge on which a port of this network is to be, and its MTU.
    pub(in crate::daemon) async fn place_for_ports(
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
                _ => Err(self.bridged.refusal(name).unwrap_or_else(down)),
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

    pub(super) fn view_bridged(
        &self,
        network: &BridgedDefinition,
        observed: &Observed,
    ) -> BridgedNetwork {
        let name = &network.name;
        let state = match self.bridged.failed.get(name) {
            _ if self.bridged.active.contains(name) => State::Active,
            Some(reason) => State::Failed { reason: reason.clone() },
            None => State::Stopped,
        };
        let pending = self.bridged.pending.get(&network.bridge);
        let until = pending.and_then(|journal| journal.confirm_until);
        BridgedNetwork {
            bridge_mac: observed.links.get(network.bridge.as_str()).and_then(|link| link.mac),
            ports: network_view::ports(name, observed),
            confirm_within: until.map(|until| until.saturating_sub(since_boot())),
            definition: network.clone(),
            state,
        }
    }
}
