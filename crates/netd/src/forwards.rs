//! Published ports: added and removed while the network is up, and kept at the guests' addresses.
//!
//! ```text
//! add, remove ──► definition (file, then memory) ──► plan ──► elements of the firewall's maps
//! a lease changes ──► DHCP's task signals ──► follow ─────────────┘
//! ```
//!
//! The definition says what is desired, so what was begun is finished by the next netd.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};

use tokio::sync::Notify;
use vnet_api::client::Run;
use vnet_api::model::{Changed, ErrorBody, ErrorKind, ForwardView};
use vnet_kernel::Routes;
use vnet_listeners::{Sockets, holders};
use vnet_plan::{Addresses, Desired, FirewallState, GuestAddresses, Observed, Tenant, addresses};
use vnet_types::{Forward, Listen, NetworkDefinition, NetworkName, TargetHost};

use crate::daemon::{Daemon, Shared};
use crate::failure::{failed, invalid, refuse};
use crate::services::unix_now;
use crate::{reconcile, store};

impl Shared {
    /// The forwards of one network, or of all.
    ///
    /// # Errors
    /// The network is not there, or the host's state cannot be read.
    pub async fn forwards(
        &self,
        network: Option<&NetworkName>,
    ) -> Result<Vec<ForwardView>, ErrorBody> {
        let mut daemon = self.daemon.lock().await;
        if let Some(name) = network {
            daemon.definition(name)?;
        }
        let observed = daemon.observe(Routes::Skip).await?;
        let wanted = |name: &NetworkName| network.is_none_or(|network| network == name);
        let all = daemon.networks.values().filter(|network| wanted(&network.name));
        Ok(all.flat_map(|network| daemon.forward_views(network, &observed)).collect())
    }

    /// Publishes a port of a guest.
    ///
    /// # Errors
    /// The port is taken, the network is not there, or the host refuses; nothing has changed then.
    pub async fn add_forward(
        &self,
        name: &NetworkName,
        forward: Forward,
        run: Run,
    ) -> Result<Changed, ErrorBody> {
        self.daemon.lock().await.add_forward(name, forward, run).await
    }

    /// Publishes a port no more. Connections that there are go on.
    ///
    /// # Errors
    /// There is no such forward, or the host refuses; nothing has changed then.
    pub async fn remove_forward(
        &self,
        name: &NetworkName,
        listen: Listen,
        run: Run,
    ) -> Result<Changed, ErrorBody> {
        self.daemon.lock().await.remove_forward(name, listen, run).await
    }
}

/// Keeps forwards at their guests' addresses, whenever `changed` says that a lease may have.
pub(crate) async fn follow(shared: Weak<Shared>, changed: Arc<Notify>) {
    loop {
        changed.notified().await;
        let Some(shared) = shared.upgrade() else { return };
        if let Err(error) = shared.daemon.lock().await.follow().await {
            tracing::error!("forwards cannot follow their guests: {}", error.message);
        }
    }
}

impl Daemon {
    /// What should be, if these networks should be up.
    pub(crate) fn desired(&self, names: &BTreeSet<NetworkName>, observed: &Observed) -> Desired {
        let mut desired = reconcile::desired(self.definitions_of(names), observed);
        desired.addresses = self
            .definitions_of(names)
            .map(|network| (network.name.clone(), self.addresses(network, observed)))
            .collect();
        desired.bridged = self.bridged.up();
        desired.leases = names.iter().map(|name| (name.clone(), self.leased(name))).collect();
        desired.leases6 = names.iter().map(|name| (name.clone(), self.leased6(name))).collect();
        desired
    }

    /// Where the guests are that the network's forwards name: before its DHCP server runs, by the
    /// leases that it is going to read.
    fn addresses(&self, network: &NetworkDefinition, observed: &Observed) -> Addresses {
        if !follows_a_name(network) {
            return Addresses::new();
        }
        let leases = match self.running.get(&network.name) {
            Some(services) => services.leases(),
            None => {
                // Services::start says what is wrong with a file that cannot be read.
                let bytes = std::fs::read(self.paths.leases(&network.name)).unwrap_or_default();
                let replay = vnet_dhcp::journal::replay::<vnet_dhcp::Lease>(&bytes);
                replay.leases.into_values().collect()
            }
        };
        let now = unix_now();
        let tenant = |lease: vnet_dhcp::Lease| {
            let live = lease.is_live(now);
            let ip = lease.ip.into();
            live.then_some(Tenant { mac: lease.mac, ip, hostname: lease.hostname })
        };
        let mut tenants: Vec<_> = leases.into_iter().filter_map(tenant).collect();
        tenants.extend(self.tenants6(&network.name, now));
        self.add_made(network, observed, &mut tenants);
        addresses(network, &tenants, observed)
    }

    /// Those who have an IPv6 address, likewise.
    fn tenants6(&self, network: &NetworkName, now: u64) -> Vec<Tenant> {
        let leases = match self.running.get(network) {
            Some(services) => services.leases6(),
            None => {
                let bytes = std::fs::read(self.paths.leases6(network)).unwrap_or_default();
                let replay = vnet_dhcp::journal::replay::<vnet_dhcp::v6::Lease>(&bytes);
                replay.leases.into_values().collect()
            }
        };
        let live = leases.into_iter().filter(|lease| lease.is_live(now));
        let tenant = |lease: vnet_dhcp::v6::Lease| {
            let (mac, ip) = (lease.mac?, lease.ip.into());
            Some(Tenant { mac, ip, hostname: lease.hostname })
        };
        live.filter_map(tenant).collect()
    }

    fn forward_views(&self, network: &NetworkDefinition, observed: &Observed) -> Vec<ForwardView> {
        let up = self.running.contains_key(&network.name);
        let addresses = self.addresses(network, observed);
        let view = |forward: &Forward| {
            let listen = forward.listen();
            let to = match &forward.target.host {
                TargetHost::Address(IpAddr::V4(v4)) => GuestAddresses { v4: Some(*v4), v6: None },
                TargetHost::Address(IpAddr::V6(v6)) => GuestAddresses { v4: None, v6: Some(*v6) },
                TargetHost::Name(name) => addresses.get(name).copied().unwrap_or_default(),
            };
            ForwardView {
                network: network.name.clone(),
                forward: forward.clone(),
                to: to.v4.filter(|_| up && listen.takes_v4()),
                to6: to.v6.filter(|_| up && listen.takes_v6()),
            }
        };
        network.forwards.iter().map(view).collect()
    }

    async fn follow(&mut self) -> Result<(), ErrorBody> {
        let running = self.up();
        let follows = self.definitions_of(&running).any(|network| follows_a_name(network));
        if !follows && !self.has_makers() {
            return Ok(());
        }
        let observed = self.observe(Routes::Skip).await?;
        self.name_made(&observed);
        if !follows {
            return Ok(());
        }
        let firewall = self.desired(&running, &observed).firewall(&observed);
        if observed.firewall == FirewallState::Holds(firewall) {
            return Ok(());
        }
        let (changed, _) = self.try_switch(&running, &observed).await?;
        for step in changed.plan {
            tracing::info!("forwards follow their guests: {step}");
        }
        Ok(())
    }

    async fn add_forward(
        &mut self,
        name: &NetworkName,
        forward: Forward,
        run: Run,
    ) -> Result<Changed, ErrorBody> {
        self.read_definitions()?;
        let mut definition = NetworkDefinition::clone(self.definition(name)?);
        definition.forwards.push(forward.clone());
        definition.validate().map_err(|error| invalid(&error))?;
        self.check_forwards_of_others(name, std::slice::from_ref(&forward), |_| true)?;
        check_ports_are_free(&definition, std::slice::from_ref(&forward))?;
        let changed = self
            .change_forwards(definition, run, |paths| store::add_forward(paths, name, &forward))
            .await?;
        let notes = self.notes_on(name, &forward, run).await?;
        Ok(Changed { notes, ..changed })
    }

    /// What a person should know who has published this.
    async fn notes_on(
        &mut self,
        name: &NetworkName,
        forward: &Forward,
        run: Run,
    ) -> Result<Vec<String>, ErrorBody> {
        let Some(guest) = forward.target_name().filter(|_| run == Run::Real) else {
            return Ok(Vec::new());
        };
        if !self.running.contains_key(name) {
            return Ok(Vec::new());
        }
        let observed = self.observe(Routes::Skip).await?;
        let found = self.addresses(self.definition(name)?, &observed).contains_key(guest);
        let note =
            || format!("{guest} has no address on {name} yet: the forward waits for its lease");
        Ok(if found { Vec::new() } else { vec![note()] })
    }

    async fn remove_forward(
        &mut self,
        name: &NetworkName,
        listen: Listen,
        run: Run,
    ) -> Result<Changed, ErrorBody> {
        self.read_definitions()?;
        let mut definition = NetworkDefinition::clone(self.definition(name)?);
        let before = definition.forwards.len();
        definition.forwards.retain(|forward| forward.listen() != listen);
        if definition.forwards.len() == before {
            let message = format!(
                "{listen} is not forwarded into {name}: `vnet forward list {name}` shows what is"
            );
            return Err(refuse(ErrorKind::NotFound, message));
        }
        self.change_forwards(definition, run, |paths| store::remove_forward(paths, name, &listen))
            .await
    }

    /// Puts `definition`, which differs from the present one in its forwards, in its place: in the
    /// file, which `write` does, in memory, and, if the network is up, in the firewall.
    async fn change_forwards(
        &mut self,
        definition: NetworkDefinition,
        run: Run,
        write: impl FnOnce(&vnet_api::paths::Paths) -> Result<store::Before, store::StoreError>,
    ) -> Result<Changed, ErrorBody> {
        let name = definition.name.clone();
        let running = self.up();
        let observed = self.observe(Routes::Skip).await?;
        let file = match run {
            Run::Dry => None,
            // The file first: netd, should it die now, finishes what was begun.
            Run::Real => Some(write(&self.paths).map_err(|error| failed(&error))?),
        };
        let before = self.networks.insert(name.clone(), Arc::new(definition));
        let result = match run {
            Run::Dry => self.plan_for(&running, &observed).map(|changed| (changed, observed)),
            Run::Real => self.try_switch(&running, &observed).await,
        };
        if run == Run::Dry || result.is_err() {
            before.and_then(|before| self.networks.insert(name.clone(), before));
        }
        let (mut changed, observed) = match (result, file) {
            (Ok(done), _) => done,
            (Err(error), file) => {
                if let Some(Err(again)) = file.map(store::Before::put_back) {
                    tracing::error!("{}", crate::failure::chain(&again));
                }
                if run == Run::Real
                    && let Err(again) = self.restore(&running).await
                {
                    tracing::error!("the state of before cannot be restored: {}", again.message);
                }
                return Err(error);
            }
        };
        if run == Run::Real {
            changed.network = Some(self.view(self.definition(&name)?, &observed));
        }
        Ok(changed)
    }

    /// Whether all that `network` publishes can be had: no other network that is up publishes it,
    /// and nobody on the host listens there.
    pub(crate) fn check_forwards(&self, network: &NetworkDefinition) -> Result<(), ErrorBody> {
        let running = |other: &NetworkName| self.running.contains_key(other);
        self.check_forwards_of_others(&network.name, &network.forwards, running)?;
        check_ports_are_free(network, &network.forwards)
    }

    pub(crate) fn check_forwards_of_others(
        &self,
        name: &NetworkName,
        forwards: &[Forward],
        counts: impl Fn(&NetworkName) -> bool,
    ) -> Result<(), ErrorBody> {
        let others: Vec<_> = self
            .networks
            .values()
            .filter(|other| other.name != *name && counts(&other.name))
            .map(|network| &**network)
            .collect();
        check_overlap(name, forwards, &others)
    }
}

/// Whether none of `others` publishes what `name` is to publish.
pub(crate) fn check_overlap(
    name: &NetworkName,
    forwards: &[Forward],
    others: &[&NetworkDefinition],
) -> Result<(), ErrorBody> {
    for other in others {
        for theirs in &other.forwards {
            let overlaps = |ours: &&Forward| ours.listen().overlaps(&theirs.listen());
            if let Some(ours) = forwards.iter().find(overlaps) {
                let message = format!(
                    "{ours} of network {name} overlaps {theirs} of network {}: choose another port, \
                     or an address for each",
                    other.name
                );
                return Err(refuse(ErrorKind::Conflict, message));
            }
        }
    }
    Ok(())
}

pub(crate) fn check_ports_are_free(
    network: &NetworkDefinition,
    forwards: &[Forward],
) -> Result<(), ErrorBody> {
    let name = &network.name;
    let mut sockets = Sockets::default();
    for forward in forwards {
        let mut listen = forward.listen();
        if network.ipv6.is_none() {
            // Nothing of IPv6 is taken for a network without it.
            listen.address = listen.address.or(Some(Ipv4Addr::UNSPECIFIED.into()));
        }
        let taken = sockets.in_the_way(&listen);
        let Some(first) = taken.first() else { continue };
        let same: Vec<_> = taken.iter().filter(|other| other.port == first.port).copied().collect();
        let holder = holders(&same).unwrap_or_else(|| "another process".to_owned());
        let message = format!(
            "{} cannot be forwarded into {name}: {holder} listens at {}; stop it, or forward \
             another port, or at another address of the host",
            forward.listen(),
            SocketAddr::new(first.address, first.port)
        );
        return Err(refuse(ErrorKind::Conflict, message));
    }
    Ok(())
}

fn follows_a_name(network: &NetworkDefinition) -> bool {
    network.forwards.iter().any(|forward| forward.target_name().is_some())
}
