//! Which ports are guarded, and with which addresses.

use std::collections::{BTreeMap, BTreeSet};

use vnet_api::model::ErrorBody;
use vnet_kernel::Routes;
use vnet_plan::{
    Alias, Firewall, FirewallState, Leased, Leased6, Link, LinkKind, Observed, Operation, allowed,
    allowed6, diff_firewall, diff_intakes,
};
use vnet_types::{IfName, NetworkName};

use super::{Daemon, Shared};
use crate::failure::failed;
use crate::services::{self, unix_now};

impl Shared {
    /// Has the ports of these networks guarded by the leases that run now.
    pub(crate) async fn guard_leases(&self, networks: &BTreeSet<NetworkName>) {
        if let Err(error) = self.daemon.lock().await.guard_leases(networks).await {
            tracing::error!("guests may not be able to use their addresses: {}", error.message);
        }
    }

    /// Strikes off the guard what is no port any more.
    pub(crate) async fn sweep_ports(&self) {
        if let Err(error) = self.daemon.lock().await.sweep_ports().await {
            tracing::warn!("ports that are gone are still guarded: {}", error.message);
        }
    }
}

impl Daemon {
    /// The running leases of a network; of one that is not up yet, those that it will have.
    pub(crate) fn leased(&self, network: &NetworkName) -> Leased {
        let now = unix_now();
        match self.running.get(network) {
            Some(services) => services.leased(now),
            None => services::stored_leases(&self.paths.leases(network), now),
        }
    }

    /// The same in IPv6.
    pub(crate) fn leased6(&self, network: &NetworkName) -> Leased6 {
        let now = unix_now();
        match self.running.get(network) {
            Some(services) => services.leased6(now),
            None => services::stored_leases6(&self.paths.leases6(network), now),
        }
    }

    async fn guard_leases(&mut self, networks: &BTreeSet<NetworkName>) -> Result<(), ErrorBody> {
        // Most leases change nothing: they are of guests whose ports are not netd's. What others
        // have done to the tables is for `repair` to find.
        if self.kernel.firewall_as_left().is_some_and(|left| self.knows(left, networks)) {
            return Ok(());
        }
        let state = self.kernel.firewall_state().await.map_err(|error| failed(&error))?;
        let FirewallState::Holds(from) = state else { return self.sweep_ports().await };
        let to = self.with_leases(&from, networks);
        if to == from {
            return Ok(());
        }
        let update = Operation::UpdateFirewall { from, to };
        self.kernel.execute(&update).await.map_err(|error| failed(&error))
    }

    /// Whether `firewall` has the present leases of these networks already.
    fn knows(&self, firewall: &Firewall, networks: &BTreeSet<NetworkName>) -> bool {
        let mut ports = firewall.ports().filter(|port| networks.contains(&port.network));
        ports.next().is_none() || self.with_leases(firewall, networks) == *firewall
    }

    /// `firewall` with the present leases of these networks.
    fn with_leases(&self, firewall: &Firewall, networks: &BTreeSet<NetworkName>) -> Firewall {
        let mut cards: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for port in firewall.ports().filter(|port| networks.contains(&port.network)) {
            cards.entry(port.network.clone()).or_default().insert(port.mac);
        }
        let now = unix_now();
        let running = |name| self.running.get(name);
        let leases: BTreeMap<_, _> = cards
            .iter()
            .filter_map(|(name, cards)| Some((name, running(name)?.leased_by(cards, now))))
            .collect();
        firewall.clone().with_allowed(|port| {
            let definition = self.networks.get(&port.network)?;
            let (leased, leased6) = leases.get(&port.network)?;
            let ipv6 = allowed6(definition, leased6, port.mac);
            Some((allowed(definition, leased, port.mac), ipv6))
        })
    }

    async fn sweep_ports(&mut self) -> Result<(), ErrorBody> {
        let observed = self.observe(Routes::Skip).await?;
        for operation in diff_intakes(&self.desired(&self.up(), &observed), &observed).operations {
            self.kernel.execute(&operation).await.map_err(|error| failed(&error))?;
        }
        self.listen_at_ports(&observed);
        // What others have damaged is put back, and said, by `repair`.
        if !matches!(observed.firewall, FirewallState::Holds(_)) {
            return Ok(());
        }
        self.firewall_for(&observed).await
    }

    /// Has `port`, which is there and about to go on its bridge, guarded.
    pub(super) async fn guard_port(
        &mut self,
        port: &IfName,
        alias: &Alias,
        mut observed: Observed,
    ) -> Result<(), ErrorBody> {
        let alias = Some(alias.clone());
        let link = Link { kind: LinkKind::Tun, alias, ..Link::default() };
        observed.links.insert(port.to_string(), link);
        self.firewall_for(&observed).await
    }

    pub(super) async fn firewall_for(&mut self, observed: &Observed) -> Result<(), ErrorBody> {
        self.listen_at_ports(observed);
        let desired = self.desired(&self.up(), observed);
        for operation in &diff_firewall(&desired, observed).operations {
            self.kernel.execute(operation).await.map_err(|error| failed(&error))?;
        }
        Ok(())
    }
}
