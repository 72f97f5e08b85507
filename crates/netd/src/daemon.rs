//! The one owner of netd's state. Requests are done one after another, each whole or not at all.

mod bridged;
mod explain;
mod foreign;
mod guard;
mod heard;
mod managers;
mod repair;
mod start_up;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::{Mutex, Notify};
use vnet_api::client::{Guests, Run};
use vnet_api::model::{
    AnyNetwork, BrokenDefinition, Changed, CreateNetwork, ErrorBody, ErrorKind, Lease, Network,
    State, Status,
};
use vnet_api::paths::Paths;
use vnet_api::ports;
use vnet_dns::Upstreams;
use vnet_kernel::{Kernel, Routes};
use vnet_plan::{
    Alias, BRIDGE_PORT_PATTERN, Observed, Operation, Plan, conflicts, free_mac, of_link, with_mtu,
};
use vnet_tap::Tap;
use vnet_types::{IfName, LinkLimits, MacAddr, NetworkDefinition, NetworkName};

use crate::failure::{chain, failed, invalid, no_network, refuse};
use crate::guard::{Guard, serve as serve_guard};
use crate::history::History;
use crate::leases::LeaseWriter;
use crate::owners::Owners;
use crate::services::{Changes, Farewell, Services, unix_now};
use crate::sightings::Sightings;
use crate::{forwards, lease_view, links, network_view, reconcile, request, store};

/// What netd knows and does, for any number of askers.
pub struct Shared {
    pub(crate) daemon: Mutex<Daemon>,
    pub(crate) owners: Owners,
    this: std::sync::Weak<Self>,
}

pub(crate) struct Daemon {
    pub(crate) paths: Paths,
    pub(crate) kernel: Kernel,
    pub(crate) writer: LeaseWriter,
    pub(crate) upstreams: Upstreams,
    guard: Guard,
    /// The definitions as they were read last.
    definitions: store::Reader,
    /// As they are on disk, but for running ones: as they were when they were started.
    pub(crate) networks: BTreeMap<NetworkName, Arc<NetworkDefinition>>,
    pub(crate) broken: Vec<BrokenDefinition>,
    /// The networks that are up.
    pub(crate) running: BTreeMap<NetworkName, Services>,
    /// Networks that have their bridge, since guests may be on it, but whose services could not be
    /// started when netd was.
    pub(crate) unserved: BTreeSet<NetworkName>,
    /// Those that should be and aren't, and why; also those that are up and don't stay whole.
    pub(crate) failed: BTreeMap<NetworkName, String>,
    /// Those of the failed that were up and are to be put back.
    damaged: BTreeSet<NetworkName>,
    pub(crate) leases_changed: Arc<Notify>,
    /// What DHCP has heard on each network since netd started.
    histories: BTreeMap<NetworkName, History>,
    /// The networks over an uplink.
    pub(crate) bridged: bridged::Bridged,
    /// The addresses of their guests.
    sightings: Sightings,
}

impl Shared {
    /// Reads the definitions and starts the networks that should be up. One that cannot be
    /// started hinders no other.
    ///
    /// # Errors
    /// The host's state cannot be read, or the definitions cannot.
    pub async fn start_up(
        paths: Paths,
        kernel: Kernel,
        writer: LeaseWriter,
        upstreams: Upstreams,
    ) -> Result<Arc<Self>, ErrorBody> {
        let (guard, requests) = Guard::new();
        let leases_changed: Arc<Notify> = Arc::default();
        let mut daemon = Daemon {
            paths,
            kernel,
            writer,
            upstreams,
            guard,
            definitions: store::Reader::default(),
            networks: BTreeMap::new(),
            broken: Vec::new(),
            running: BTreeMap::new(),
            unserved: BTreeSet::new(),
            failed: BTreeMap::new(),
            damaged: BTreeSet::new(),
            leases_changed: leases_changed.clone(),
            histories: BTreeMap::new(),
            bridged: bridged::Bridged::default(),
            sightings: Sightings::new(leases_changed),
        };
        daemon.start_up().await?;
        let changed = daemon.leases_changed.clone();
        let shared = Arc::new_cyclic(|this| Self {
            daemon: Mutex::new(daemon),
            owners: Owners::default(),
            this: this.clone(),
        });
        tokio::spawn(forwards::follow(Arc::downgrade(&shared), changed));
        tokio::spawn(serve_guard(requests, Arc::downgrade(&shared)));
        links::follow(Arc::downgrade(&shared)).map_err(|error| failed(&error))?;
        // Ports that went while nobody looked.
        shared.sweep_ports().await;
        Ok(shared)
    }

    /// netd itself, and the definitions that it cannot use.
    pub async fn status(&self) -> Status {
        let mut daemon = self.daemon.lock().await;
        if let Err(error) = daemon.read_definitions() {
            tracing::warn!("{}", error.message);
        }
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            broken: daemon.broken.clone(),
        }
    }

    /// All networks, by name.
    ///
    /// # Errors
    /// The host's state cannot be read.
    pub async fn networks(&self) -> Result<Vec<Network>, ErrorBody> {
        let mut daemon = self.daemon.lock().await;
        let observed = daemon.observe(Routes::Skip).await?;
        Ok(daemon.networks.values().map(|network| daemon.view(network, &observed)).collect())
    }

    /// Defines a network and starts it.
    ///
    /// # Errors
    /// It exists, clashes with something, or the host refuses; nothing has changed then.
    pub async fn create(&self, request: CreateNetwork, run: Run) -> Result<Changed, ErrorBody> {
        self.daemon.lock().await.create(request, run).await
    }

    /// Stops a network and removes its definition and its leases.
    ///
    /// # Errors
    /// It is not there, guests are on it, or the host refuses; nothing has changed then.
    pub async fn delete(
        &self,
        name: &NetworkName,
        guests: Guests,
        run: Run,
    ) -> Result<Changed<AnyNetwork>, ErrorBody> {
        let mut daemon = self.daemon.lock().await;
        if let Some(network) = daemon.bridged_network(name)? {
            return Ok(daemon.delete_bridged(&network, guests, run).await?.of_any());
        }
        Ok(daemon.delete(name, guests, run).await?.of_any())
    }

    /// Starts a network.
    ///
    /// # Errors
    /// It is not there, clashes with something, or the host refuses; nothing has changed then.
    pub async fn start(
        &self,
        name: &NetworkName,
        run: Run,
    ) -> Result<Changed<AnyNetwork>, ErrorBody> {
        let mut daemon = self.daemon.lock().await;
        if let Some(network) = daemon.bridged_network(name)? {
            return Ok(daemon.start_bridged_network(&network, run).await?.of_any());
        }
        Ok(daemon.start(name, run).await?.of_any())
    }

    /// Stops a network.
    ///
    /// # Errors
    /// It is not there, guests are on it, or the host refuses; nothing has changed then.
    pub async fn stop(
        &self,
        name: &NetworkName,
        guests: Guests,
        run: Run,
    ) -> Result<Changed<AnyNetwork>, ErrorBody> {
        let mut daemon = self.daemon.lock().await;
        if let Some(network) = daemon.bridged_network(name)? {
            return Ok(daemon.stop_bridged(&network, guests, run).await?.of_any());
        }
        Ok(daemon.stop(name, guests, run).await?.of_any())
    }

    /// Sets whether netd starts a network when it starts itself.
    ///
    /// # Errors
    /// It is not there, or its definition cannot be written.
    pub async fn autostart(
        &self,
        name: &NetworkName,
        on: bool,
    ) -> Result<Changed<AnyNetwork>, ErrorBody> {
        let mut daemon = self.daemon.lock().await;
        if let Some(network) = daemon.bridged_network(name)? {
            return Ok(daemon.autostart_bridged(&network, on).await?.of_any());
        }
        daemon.definition(name)?;
        store::set_autostart(&daemon.paths, name, on).map_err(|error| failed(&error))?;
        if let Some(network) = daemon.networks.get_mut(name) {
            Arc::make_mut(network).autostart = on;
        }
        let observed = daemon.observe(Routes::Skip).await?;
        let network = daemon.view(daemon.definition(name)?, &observed);
        Ok(Changed { network: Some(network.into()), plan: Vec::new(), notes: Vec::new() })
    }

    /// The leases of one network, or of all that are up.
    ///
    /// # Errors
    /// The network is not there.
    pub async fn leases(&self, network: Option<&NetworkName>) -> Result<Vec<Lease>, ErrorBody> {
        let daemon = self.daemon.lock().await;
        if let Some(name) = network {
            daemon.definition(name)?;
        }
        let now = unix_now();
        let wanted = |name: &NetworkName| network.is_none_or(|network| network == name);
        let of_one = |(name, services): (&NetworkName, &Services)| -> Vec<Lease> {
            let v4 = services.leases().into_iter().map(|lease| lease_view::v4(name, &lease, now));
            let v6 = services.leases6().into_iter().map(|lease| lease_view::v6(name, &lease, now));
            v4.chain(v6).collect()
        };
        Ok(daemon.running.iter().filter(|(name, _)| wanted(name)).flat_map(of_one).collect())
    }

    /// Makes a port on a network, and gives its descriptors away.
    ///
    /// # Errors
    /// The network is not up, the port is there already, or the host refuses.
    pub async fn attach(
        &self,
        network: &NetworkName,
        alias: Alias,
        mac: MacAddr,
        queues: u16,
    ) -> Result<(ports::Port, Vec<OwnedFd>), ErrorBody> {
        let mut daemon = self.daemon.lock().await;
        let result = daemon.attach(network, alias, mac, queues).await;
        // The guest will soon ask for its address: nft is made ready now, and the rest later.
        drop(daemon.guard.refresh(network));
        result
    }

    /// The state of a port that was made before netd's last start.
    ///
    /// # Errors
    /// There is no such port.
    pub async fn resume(&self, port: &IfName) -> Result<ports::Port, ErrorBody> {
        let mut daemon = self.daemon.lock().await;
        let observed = daemon.observe(Routes::Skip).await?;
        let link = observed.links.get(port.as_str());
        match link.and_then(|link| Some((link, link.alias.as_ref()?))) {
            Some((link, Alias::Port { .. })) => Ok(ports::Port {
                name: port.clone(),
                mtu: u16::try_from(link.mtu).unwrap_or(u16::MAX),
                link_up: true,
            }),
            _ => Err(refuse(ErrorKind::NotFound, format!("there is no port {port}"))),
        }
    }

    /// Removes a port whose owner has gone, should it still be there.
    pub async fn detach(&self, port: &IfName) {
        let mut daemon = self.daemon.lock().await;
        let Ok(observed) = daemon.observe(Routes::Skip).await else { return };
        let link = observed.links.get(port.as_str());
        if link.is_some_and(|link| matches!(link.alias, Some(Alias::Port { .. }))) {
            let step = Operation::DeleteLink { name: port.clone() };
            // As a rule it goes by itself, and may just have done so.
            if let Err(error) = daemon.kernel.execute(&step).await {
                tracing::debug!("{}", chain(&error));
            }
        }
    }
}

impl Daemon {
    fn fail(&mut self, name: &NetworkName, error: ErrorBody) {
        tracing::error!("network {name} cannot be started: {}", error.message);
        self.failed.insert(name.clone(), error.message);
    }

    async fn create(&mut self, request: CreateNetwork, run: Run) -> Result<Changed, ErrorBody> {
        self.read_definitions()?;
        let name = request.name.clone();
        self.check_is_new(&name)?;
        let observed = self.observe(Routes::Read).await?;
        let others: Vec<_> = self.networks.values().map(|network| &**network).collect();
        let (definition, notes) = request::complete(request, &observed, &others)?;
        let definition = Arc::new(definition);
        self.networks.insert(name.clone(), definition.clone());
        let result = self.define_and_start(&definition, observed, run).await;
        if result.is_err() || run == Run::Dry {
            self.networks.remove(&name);
        }
        result.map(|mut changed| {
            changed.notes.splice(0..0, notes);
            changed
        })
    }

    fn check_is_new(&self, name: &NetworkName) -> Result<(), ErrorBody> {
        if let Some(refusal) = self.bridged.refusal(name) {
            return Err(refusal);
        }
        if self.networks.contains_key(name) {
            let message = format!(
                "there is a network {name} already: `vnet show {name}` shows it, `vnet delete \
                 {name}` removes it"
            );
            return Err(refuse(ErrorKind::Conflict, message));
        }
        let path = self.paths.network(name).display().to_string();
        if let Some(broken) = self.broken.iter().find(|broken| broken.path == path) {
            let message = format!("{path} is there, but cannot be used: {}", broken.reason);
            return Err(refuse(ErrorKind::Conflict, message));
        }
        Ok(())
    }

    async fn define_and_start(
        &mut self,
        definition: &Arc<NetworkDefinition>,
        observed: Observed,
        run: Run,
    ) -> Result<Changed, ErrorBody> {
        let name = &definition.name;
        if run == Run::Dry {
            return self.plan_for(&self.with(name), &observed);
        }
        // The file first: netd, should it die now, finishes what was begun.
        let file = store::write(&self.paths, definition).map_err(|error| failed(&error))?;
        let flushed = file.flush();
        let result = self.bring_up(name, observed).await;
        let flushed = match flushed.await {
            Ok(flushed) => flushed.map_err(|error| failed(&error)),
            Err(error) => Err(failed(&error)),
        };
        if result.is_ok() && flushed.is_err() {
            self.take_down(name, Guests::CutOff, Run::Real).await?;
        }
        let result = flushed.and(result);
        if result.is_err()
            && let Err(error) = store::remove(&self.paths, name)
        {
            tracing::error!("{}", chain(&error));
        }
        result
    }

    async fn start(&mut self, name: &NetworkName, run: Run) -> Result<Changed, ErrorBody> {
        self.read_definitions()?;
        let definition = self.definition(name)?.clone();
        if self.running.contains_key(name) && !self.failed.contains_key(name) {
            let observed = self.observe(Routes::Skip).await?;
            let network = self.view(&definition, &observed);
            let notes = vec![format!("the network {name} is up already")];
            return Ok(Changed { network: Some(network), plan: Vec::new(), notes });
        }
        let observed = self.observe(Routes::Read).await?;
        let is_other = |other: &&Arc<NetworkDefinition>| {
            other.name != *name && self.running.contains_key(&other.name)
        };
        let others = self.networks.values().filter(is_other);
        let others: Vec<_> = others.map(|network| &**network).collect();
        request::check_clash(&definition, &observed, &others)?;
        self.check_forwards(&definition)?;
        match run {
            Run::Dry => self.plan_for(&self.with(name), &observed),
            Run::Real => self.bring_up(name, observed).await,
        }
    }

    async fn bring_up(
        &mut self,
        name: &NetworkName,
        observed: Observed,
    ) -> Result<Changed, ErrorBody> {
        // Before it is so: should this fail, nothing has been done yet.
        self.want(name, Some(true))?;
        let before = self.failed.remove(name);
        let (changed, observed) = match self.switch(self.with(name), observed).await {
            Ok(done) => done,
            Err(error) => {
                self.failed.extend(before.map(|reason| (name.clone(), reason)));
                self.want(name, None)?;
                return Err(error);
            }
        };
        let notes = self.notes_on_foreign_rules([name], &observed).await;
        let network = self.view(self.definition(name)?, &observed);
        Ok(Changed { network: Some(network), notes, ..changed })
    }

    async fn stop(
        &mut self,
        name: &NetworkName,
        guests: Guests,
        run: Run,
    ) -> Result<Changed, ErrorBody> {
        self.definition(name)?;
        let mut changed = self.take_down(name, guests, run).await?;
        if run == Run::Real {
            self.want(name, Some(false))?;
            self.failed.remove(name);
            let observed = self.observe(Routes::Skip).await?;
            changed.network = Some(self.view(self.definition(name)?, &observed));
        }
        Ok(changed)
    }

    async fn delete(
        &mut self,
        name: &NetworkName,
        guests: Guests,
        run: Run,
    ) -> Result<Changed, ErrorBody> {
        self.definition(name)?;
        let was_up = self.running.contains_key(name);
        let changed = self.take_down(name, guests, run).await?;
        if run == Run::Dry {
            return Ok(changed);
        }
        if let Err(error) = store::remove(&self.paths, name) {
            let observed = self.observe(Routes::Skip).await?;
            if was_up && let Err(again) = self.switch(self.with(name), observed).await {
                self.fail(name, again);
            }
            return Err(failed(&error));
        }
        self.histories.remove(name);
        self.networks.remove(name);
        self.failed.remove(name);
        self.want(name, None)?;
        for path in [self.paths.leases(name), self.paths.leases6(name)] {
            let journal = self.writer.journal(path);
            if let Err(error) = journal.remove().await {
                tracing::warn!("cannot remove {}: {error}", journal.path().display());
            }
        }
        Ok(changed)
    }

    async fn take_down(
        &mut self,
        name: &NetworkName,
        guests: Guests,
        run: Run,
    ) -> Result<Changed, ErrorBody> {
        let observed = self.observe(Routes::Skip).await?;
        let ports = network_view::ports(name, &observed);
        if guests == Guests::Respect && !ports.is_empty() {
            let names: BTreeSet<_> = ports.iter().map(|port| port.domain.as_str()).collect();
            let names: Vec<_> = names.into_iter().collect();
            let message = format!(
                "guests are on the network {name}: {}; stop them, or cut them off with --force",
                names.join(", ")
            );
            return Err(refuse(ErrorKind::Conflict, message));
        }
        let rest: BTreeSet<_> = self.up().into_iter().filter(|other| other != name).collect();
        match run {
            Run::Dry => self.plan_for(&rest, &observed),
            Run::Real => {
                // Without it, the plan would fail on the way, and the bridge be made anew.
                self.kernel.probe_ledger().map_err(|error| failed(&error))?;
                Ok(self.switch(rest, observed).await?.0)
            }
        }
    }

    async fn attach(
        &mut self,
        network: &NetworkName,
        alias: Alias,
        mac: MacAddr,
        queues: u16,
    ) -> Result<(ports::Port, Vec<OwnedFd>), ErrorBody> {
        let (bridge, mtu) = self.place_for_ports(network).await?;
        if mac.is_multicast() || mac.octets() == [0; 6] {
            let message = format!("no guest can have the address {mac}: it is no station's");
            return Err(refuse(ErrorKind::Invalid, message));
        }
        if queues > ports::MAX_QUEUES {
            let message = format!("a port has {} queues at most, not {queues}", ports::MAX_QUEUES);
            return Err(refuse(ErrorKind::Invalid, message));
        }
        let observed = self.observe(Routes::Skip).await?;
        check_port_is_new(&alias, mac, network, &observed)?;
        let tap =
            Tap::create(BRIDGE_PORT_PATTERN, queues.into()).map_err(|error| invalid(&error))?;
        let port = tap.name().clone();
        let mut steps = vec![Operation::SetAlias { link: port.clone(), alias: alias.clone() }];
        // Before the MTU: below 1280 bytes a link has no IPv6 settings at all.
        if observed.ipv6 {
            steps.push(Operation::DisableIpv6 { link: port.clone() });
        }
        steps.push(Operation::SetMtu { link: port.clone(), mtu });
        steps.extend(of_link(&port, self.limits_of_port(network, &alias), mtu, &observed));
        self.guard_port(&port, &alias, observed).await?;
        steps.push(Operation::Enslave { port: port.clone(), bridge });
        steps.push(Operation::SetUp { link: port.clone() });
        for step in steps {
            // On failure, the tap goes with its descriptors.
            self.kernel.execute(&step).await.map_err(|error| failed(&error))?;
        }
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        Ok((ports::Port { name: port, mtu, link_up: true }, tap.into_queues()))
    }

    fn limits_of_port(&self, network: &NetworkName, alias: &Alias) -> LinkLimits {
        let of_network = self.networks.get(network).map(|network| network.limits.port());
        match alias {
            Alias::Port { limits, .. } => limits.stricter(of_network.unwrap_or_default()),
            Alias::Bridge(_) => LinkLimits::default(),
        }
    }

    /// Makes `to` the networks that are up, with their services, and returns what was done and
    /// what is there then. On failure, what was up before is up again.
    async fn switch(
        &mut self,
        to: BTreeSet<NetworkName>,
        observed: Observed,
    ) -> Result<(Changed, Observed), ErrorBody> {
        let before = self.up();
        let result = self.try_switch(&to, &observed).await;
        if result.is_err()
            && let Err(error) = self.restore(&before).await
        {
            tracing::error!("the state of before cannot be restored: {}", error.message);
        }
        result
    }

    pub(crate) async fn restore(
        &mut self,
        before: &BTreeSet<NetworkName>,
    ) -> Result<(), ErrorBody> {
        let observed = self.observe(Routes::Skip).await?;
        self.try_switch(before, &observed).await.map(drop)
    }

    pub(crate) async fn try_switch(
        &mut self,
        to: &BTreeSet<NetworkName>,
        observed: &Observed,
    ) -> Result<(Changed, Observed), ErrorBody> {
        let to = self.without_conflicts(to, observed);
        let (changed, observed) = self.shape(&to, observed).await?;
        for name in &to {
            if !self.running.contains_key(name) && !self.failed.contains_key(name) {
                self.serve(name, &observed).await?;
            }
        }
        self.unserved.retain(|name| to.contains(name) && !self.running.contains_key(name));
        Ok((changed, observed))
    }

    /// Networks that were up, and in whose way somebody has put something, hinder no other.
    fn without_conflicts(
        &mut self,
        names: &BTreeSet<NetworkName>,
        observed: &Observed,
    ) -> BTreeSet<NetworkName> {
        let mut names = names.clone();
        for (name, conflict) in conflicts(&self.desired(&names, observed), observed) {
            if self.running.contains_key(&name) {
                self.fail(&name, refuse(ErrorKind::Conflict, conflict.to_string()));
                names.remove(&name);
            }
        }
        names
    }

    /// Gives the networks `to`, and no others, their bridges and rules. Services of others end.
    async fn shape(
        &mut self,
        to: &BTreeSet<NetworkName>,
        observed: &Observed,
    ) -> Result<(Changed, Observed), ErrorBody> {
        let desired = self.desired(to, observed);
        let plan = reconcile::plan(&desired, observed)?;
        let ending: Vec<_> =
            self.running.keys().filter(|name| !to.contains(*name)).cloned().collect();
        for name in ending {
            if let Some(services) = self.running.remove(&name) {
                services.stop(Farewell::Say).await;
            }
        }
        let observed = reconcile::execute(&mut self.kernel, &plan, &desired).await?;
        self.follow_mtu(&observed)?;
        Ok((in_words(&plan), observed))
    }

    /// Tells guests' DHCP of an MTU that has changed with the uplink's.
    fn follow_mtu(&self, observed: &Observed) -> Result<(), ErrorBody> {
        for (name, services) in &self.running {
            let network = with_mtu(self.definition(name)?, observed);
            if services.mtu() != network.mtu() {
                tracing::info!("network {name} has an MTU of {} now", network.mtu());
                services.reconfigure(&network, &self.upstreams).map_err(|error| failed(&error))?;
            }
        }
        Ok(())
    }

    /// Starts the services of a network that has its bridge.
    async fn serve(&mut self, name: &NetworkName, observed: &Observed) -> Result<(), ErrorBody> {
        let network = with_mtu(self.definition(name)?, observed);
        let link = observed.links.get(network.bridge.as_str());
        let mac = link.and_then(|link| link.mac).unwrap_or_else(|| free_mac(&network, observed));
        let journals = [self.paths.leases(name), self.paths.leases6(name)];
        let [journal, journal6] = journals.map(|path| self.writer.journal(path));
        let history = self.histories.entry(name.clone()).or_default();
        let services = Services::start(
            &network,
            mac,
            (journal, journal6),
            &self.upstreams,
            Changes { leases: &self.leases_changed, guard: &self.guard, history },
        )
        .await
        .map_err(|error| failed(&error))?;
        self.running.insert(name.clone(), services);
        Ok(())
    }

    pub(crate) fn plan_for(
        &self,
        up: &BTreeSet<NetworkName>,
        observed: &Observed,
    ) -> Result<Changed, ErrorBody> {
        let desired = self.desired(up, observed);
        Ok(in_words(&reconcile::plan(&desired, observed)?))
    }

    pub(crate) fn definitions_of(
        &self,
        names: &BTreeSet<NetworkName>,
    ) -> impl Iterator<Item = &Arc<NetworkDefinition>> {
        self.networks.values().filter(|network| names.contains(&network.name))
    }

    /// The networks that have their bridge.
    pub(crate) fn up(&self) -> BTreeSet<NetworkName> {
        self.running.keys().chain(&self.unserved).cloned().collect()
    }

    /// The networks that are up, and this one.
    pub(crate) fn with(&self, name: &NetworkName) -> BTreeSet<NetworkName> {
        let mut up = self.up();
        up.insert(name.clone());
        up
    }

    pub(crate) fn want(
        &mut self,
        name: &NetworkName,
        wanted: Option<bool>,
    ) -> Result<(), ErrorBody> {
        let change = |ledger: &mut vnet_plan::Ledger| match wanted {
            Some(wanted) => drop(ledger.wanted.insert(name.clone(), wanted)),
            None => drop(ledger.wanted.remove(name)),
        };
        self.kernel.change_ledger(change).map_err(|error| failed(&error))
    }

    pub(crate) fn definition(
        &self,
        name: &NetworkName,
    ) -> Result<&Arc<NetworkDefinition>, ErrorBody> {
        let path = self.paths.network(name).display().to_string();
        let broken = self.broken.iter().find(|broken| broken.path == path);
        match (self.networks.get(name), broken) {
            (Some(network), _) => Ok(network),
            (None, Some(broken)) => {
                Err(refuse(ErrorKind::Invalid, format!("{path}: {}", broken.reason)))
            }
            (None, None) => Err(self.bridged.refusal(name).unwrap_or_else(|| no_network(name))),
        }
    }

    /// Reads the definitions anew, but for networks that are up: they stay as they were started.
    pub(crate) fn read_definitions(&mut self) -> Result<(), ErrorBody> {
        let store::Definitions { mut networks, bridged, broken } =
            self.definitions.read(&self.paths).map_err(|error| failed(&error))?;
        self.bridged.define(bridged);
        for name in self.up() {
            if let Some(network) = self.networks.remove(&name) {
                networks.insert(name, network);
            }
        }
        self.networks = networks;
        self.broken = broken;
        Ok(())
    }

    pub(crate) async fn observe(&mut self, routes: Routes) -> Result<Observed, ErrorBody> {
        self.kernel.observe(routes).await.map_err(|error| failed(&error))
    }

    pub(crate) fn view(&self, network: &Arc<NetworkDefinition>, observed: &Observed) -> Network {
        let services = self.running.get(&network.name);
        let state = match (services, self.failed.get(&network.name)) {
            (_, Some(reason)) => State::Failed { reason: reason.clone() },
            (Some(_), None) => State::Active,
            (None, None) => State::Stopped,
        };
        let leases = services.map_or(0, Services::bound);
        let mut view = network_view::network(network, state, observed, leases);
        let made = self.made(network, observed);
        for port in &mut view.ports {
            port.addresses = made.get(&port.mac).map(|made| (*made).into()).into_iter().collect();
        }
        view
    }
}

fn in_words(plan: &Plan) -> Changed {
    let plan = plan.operations.iter().map(ToString::to_string).collect();
    Changed { network: None, plan, notes: Vec::new() }
}

fn check_port_is_new(
    alias: &Alias,
    mac: MacAddr,
    network: &NetworkName,
    observed: &Observed,
) -> Result<(), ErrorBody> {
    let taken = |what: String| Err(refuse(ErrorKind::Conflict, what));
    for (name, link) in observed.links.iter() {
        if link.mac == Some(mac) {
            return taken(format!("the address {mac} is that of the host's interface {name}"));
        }
        match (alias, &link.alias) {
            (
                Alias::Port { domain, nic, .. },
                Some(Alias::Port { domain: other, nic: its, .. }),
            ) if domain == other && nic == its => {
                return taken(format!(
                    "the domain {domain} has a port for its network card {nic}: is it running already?"
                ));
            }
            (_, Some(Alias::Port { network: on, domain, mac: its, .. }))
                if *its == mac && on == network =>
            {
                return taken(format!(
                    "the address {mac} is in use on {network} by the domain {domain}"
                ));
            }
            _ => {}
        }
    }
    Ok(())
}
