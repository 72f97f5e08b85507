//! Changing a definition while its network is up.
//!
//! ```text
//! text ─► parse, validate ─► clashes? ─► plan ─► new file beside the old one
//!         ─► execute the plan ─► services take it over ─► the new file in place of the old one
//! ```
//!
//! The file is replaced last, in one step. Until then it is the old one that counts: a netd that
//! dies on the way, or an operation that fails, leads back to the old state, and afterwards the
//! new one holds, whole. The other way round, a definition that the host then refuses would be
//! what the next netd starts with.

use std::collections::BTreeSet;
use std::sync::Arc;

use vnet_api::client::Run;
use vnet_api::model::{AnyNetwork, Changed, ErrorBody, ErrorKind, Reserve};
use vnet_kernel::Routes;
use vnet_plan::{Observed, with_mtu};
use vnet_types::{Forward, MacAddr, NetworkDefinition, NetworkName};

use crate::daemon::{Daemon, Shared};
use crate::failure::{failed, invalid, no_network, refuse};
use crate::services::{self, ServiceChange};
use crate::{definition, forwards, network_view, request, reservation, store};

/// A change of one definition.
struct Edit {
    /// None where the file could not be used until now.
    old: Option<Arc<NetworkDefinition>>,
    new: Arc<NetworkDefinition>,
    text: String,
    old_text: String,
    /// For the services of a network that is up.
    services: ServiceChange,
}

impl Shared {
    /// The text of a definition, as a person wrote it.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub async fn definition_text(&self, name: &NetworkName) -> Result<String, ErrorBody> {
        self.daemon.lock().await.text(name)
    }

    /// Puts `text` in place of a definition, and makes the network what it says, while it is up.
    ///
    /// # Errors
    /// There is no such network, the text is no definition or contradicts itself (with line and
    /// column), it clashes with something, or the host refuses; nothing has changed then.
    pub async fn edit(
        &self,
        name: &NetworkName,
        text: String,
        run: Run,
    ) -> Result<Changed<AnyNetwork>, ErrorBody> {
        let mut daemon = self.daemon.lock().await;
        if let Some(network) = daemon.bridged_network(name)? {
            return Ok(daemon.edit_bridged(&network, text, run).await?.of_any());
        }
        Ok(daemon.edit(name, text, run).await?.of_any())
    }

    /// Keeps an address for a guest.
    ///
    /// # Errors
    /// As [`Shared::edit`], or the network has no DHCP.
    pub async fn reserve(
        &self,
        name: &NetworkName,
        mac: MacAddr,
        request: Reserve,
        run: Run,
    ) -> Result<Changed, ErrorBody> {
        let mut daemon = self.daemon.lock().await;
        let text = reservation::reserve(&daemon.text(name)?, mac, &request)
            .map_err(|error| invalid(&error))?;
        daemon.edit(name, text, run).await
    }

    /// Keeps no address for a guest any more.
    ///
    /// # Errors
    /// As [`Shared::edit`], or nothing is reserved for `mac`.
    pub async fn unreserve(
        &self,
        name: &NetworkName,
        mac: MacAddr,
        run: Run,
    ) -> Result<Changed, ErrorBody> {
        let mut daemon = self.daemon.lock().await;
        let text = daemon.text(name)?;
        let text = reservation::unreserve(&text, mac)
            .map_err(|error| refuse(ErrorKind::NotFound, error.to_string()))?;
        daemon.edit(name, text, run).await
    }
}

impl Daemon {
    fn text(&self, name: &NetworkName) -> Result<String, ErrorBody> {
        let text = store::read_text(&self.paths, name).map_err(|error| failed(&error))?;
        match (text, self.networks.get(name)) {
            (Some(text), _) => Ok(text),
            // Somebody has removed the file of a network that is up.
            (None, Some(network)) => store::encode(network).map_err(|error| failed(&error)),
            (None, None) => Err(self.bridged.refusal(name).unwrap_or_else(|| no_network(name))),
        }
    }

    async fn edit(
        &mut self,
        name: &NetworkName,
        text: String,
        run: Run,
    ) -> Result<Changed, ErrorBody> {
        self.read_definitions()?;
        let edit = self.prepare_edit(name, text)?;
        let observed = self.observe(Routes::Read).await?;
        let others = self.networks.values().filter(|other| other.name != *name);
        let others: Vec<_> = others.map(|network| &**network).collect();
        check_clashes(&edit, &observed, &others)?;
        self.check_new_forwards(&edit)?;
        let up = self.up().contains(name);
        self.networks.insert(name.clone(), edit.new.clone());
        let result = match (run, up) {
            (Run::Dry, true) => self.plan_for(&self.with(name), &observed),
            (Run::Dry, false) => Ok(Changed::default()),
            (Run::Real, true) => self.change_running(&edit, observed).await,
            (Run::Real, false) => self.replace_file(&edit).map(|()| Changed::default()),
        };
        if result.is_err() || run == Run::Dry {
            self.put_back(name, edit.old.as_ref());
        }
        let mut changed = result?;
        changed.plan.extend(self.further_steps(&edit, up));
        if run == Run::Real {
            let observed = self.observe(Routes::Skip).await?;
            if !up && self.failed.remove(name).is_some() {
                changed.notes.push(format!("the network {name} is not up: `vnet start {name}`"));
            }
            changed.network = Some(self.view(&edit.new, &observed));
            changed.notes.extend(what_guests_notice(&edit, up, &observed));
        }
        Ok(changed)
    }

    fn prepare_edit(&self, name: &NetworkName, text: String) -> Result<Edit, ErrorBody> {
        let old_text = self.text(name)?;
        let new = definition::parse(&text).map_err(|reason| refuse(ErrorKind::Invalid, reason))?;
        if new.name != *name {
            let message = format!(
                "`name` is {}, but a network cannot be renamed by editing it: keep `name = \
                 \"{name}\"`, or delete the network ({name}) and create it under the new name",
                new.name
            );
            return Err(refuse(ErrorKind::Invalid, message));
        }
        services::check(&new).map_err(|error| invalid(&error))?;
        let old = self.networks.get(name).cloned();
        let services = match &old {
            Some(old) if self.running.contains_key(name) => ServiceChange::between(old, &new),
            // They could not be started, or the old definition could not be used: perhaps these can.
            _ => ServiceChange::Restart,
        };
        Ok(Edit { old, new: Arc::new(new), text, old_text, services })
    }

    /// What is published anew must be free.
    fn check_new_forwards(&self, edit: &Edit) -> Result<(), ErrorBody> {
        let is_new = |forward: &&Forward| {
            !edit.old.as_ref().is_some_and(|old| old.forwards.contains(forward))
        };
        let forwards: Vec<_> = edit.new.forwards.iter().filter(is_new).cloned().collect();
        self.check_forwards_of_others(&edit.new.name, &forwards, |_| true)?;
        forwards::check_ports_are_free(&edit.new, &forwards)
    }

    fn put_back(&mut self, name: &NetworkName, old: Option<&Arc<NetworkDefinition>>) {
        match old {
            Some(old) => drop(self.networks.insert(name.clone(), old.clone())),
            None => drop(self.networks.remove(name)),
        }
    }

    /// What is done beside the plan, in words.
    fn further_steps(&self, edit: &Edit, up: bool) -> Vec<String> {
        let Edit { new, services, .. } = edit;
        let mut steps = Vec::new();
        match services {
            ServiceChange::Reconfigure if up => {
                steps.push(format!("tell DHCP and DNS of {} what has changed", new.name));
            }
            ServiceChange::Restart if up => {
                steps.push(format!("restart DHCP and DNS of {}", new.name));
            }
            _ => {}
        }
        if edit.text != edit.old_text {
            steps.push(format!("write {}", self.paths.network(&new.name).display()));
        }
        steps
    }

    fn replace_file(&self, edit: &Edit) -> Result<(), ErrorBody> {
        store::prepare(&self.paths, &edit.new.name, &edit.text)
            .and_then(store::Prepared::commit)
            .map_err(|error| failed(&error))
    }

    async fn change_running(
        &mut self,
        edit: &Edit,
        observed: Observed,
    ) -> Result<Changed, ErrorBody> {
        let name = &edit.new.name;
        let up = self.with(name);
        // A plan that cannot be made is no reason to interrupt the services.
        self.plan_for(&up, &observed)?;
        let file = store::prepare(&self.paths, name, &edit.text).map_err(|error| failed(&error))?;
        let failed = self.failed.remove(name);
        let result = self.try_change_running(edit, &up, &observed, file).await;
        match &result {
            Ok(_) => self.forget_old_leases(edit).await,
            Err(_) => {
                self.failed.extend(failed.map(|reason| (name.clone(), reason)));
                self.roll_back(edit, &up).await;
            }
        }
        result
    }

    async fn try_change_running(
        &mut self,
        edit: &Edit,
        up: &BTreeSet<NetworkName>,
        observed: &Observed,
        file: store::Prepared,
    ) -> Result<Changed, ErrorBody> {
        let name = &edit.new.name;
        if edit.services == ServiceChange::Restart
            && let Some(services) = self.running.remove(name)
        {
            let old = edit.old.as_ref().unwrap_or(&edit.new);
            services.stop(services::farewell(old, &edit.new)).await;
        }
        let (changed, observed) = self.try_switch(up, observed).await?;
        if edit.services == ServiceChange::Reconfigure
            && let Some(services) = self.running.get(name)
        {
            let network = with_mtu(&edit.new, &observed);
            services.reconfigure(&network, &self.upstreams).map_err(|error| failed(&error))?;
        }
        file.commit().map_err(|error| failed(&error))?;
        Ok(changed)
    }

    /// Back to the definition of before, with its services. What cannot be undone is logged: the
    /// reason why it had to be is the answer.
    async fn roll_back(&mut self, edit: &Edit, up: &BTreeSet<NetworkName>) {
        let Some(old) = &edit.old else { return };
        let name = &old.name;
        self.put_back(name, Some(old));
        if let Err(error) = self.put_back_file(edit) {
            tracing::error!("{}", error.message);
        }
        match edit.services {
            ServiceChange::Restart => {
                if let Some(services) = self.running.remove(name) {
                    services.stop(services::farewell(&edit.new, old)).await;
                }
            }
            ServiceChange::Reconfigure => {
                if let Some(services) = self.running.get(name)
                    && let Err(error) = services.reconfigure(old, &self.upstreams)
                {
                    tracing::error!("network {name}: {error}");
                }
            }
            ServiceChange::None => {}
        }
        if let Err(error) = self.restore(up).await {
            tracing::error!("the state of before cannot be restored: {}", error.message);
        }
    }

    /// Should the new file be in place already, though not for sure on stable storage, the old
    /// one comes back.
    fn put_back_file(&self, edit: &Edit) -> Result<(), ErrorBody> {
        let name = &edit.new.name;
        let present = store::read_text(&self.paths, name).map_err(|error| failed(&error))?;
        if present.as_deref() != Some(&edit.text) || edit.text == edit.old_text {
            return Ok(());
        }
        store::prepare(&self.paths, name, &edit.old_text)
            .and_then(store::Prepared::commit)
            .map_err(|error| failed(&error))
    }

    /// Leases of a subnet that the network has no longer are nobody's; they are not to come back
    /// should it have that subnet again.
    async fn forget_old_leases(&self, edit: &Edit) {
        let prefix = |network: &NetworkDefinition| network.ipv6.as_ref().map(|ipv6| ipv6.prefix);
        let moved = edit
            .old
            .as_ref()
            .is_some_and(|old| old.subnet != edit.new.subnet || prefix(old) != prefix(&edit.new));
        if let Some(services) = self.running.get(&edit.new.name).filter(|_| moved)
            && let Err(error) = services.write_snapshot().await
        {
            tracing::warn!("network {}: cannot rewrite its leases: {error}", edit.new.name);
        }
    }
}

/// What the new definition asks for and the old one did not have must be free.
fn check_clashes(
    edit: &Edit,
    observed: &Observed,
    others: &[&NetworkDefinition],
) -> Result<(), ErrorBody> {
    let (old, new) = (edit.old.as_ref(), &edit.new);
    if old.is_none_or(|old| old.bridge != new.bridge) {
        request::check_bridge(&new.bridge, observed, others)?;
    }
    let nets = |network: &NetworkDefinition| {
        (network.subnet, network.ipv6.as_ref().map(|ipv6| ipv6.prefix))
    };
    if old.is_none_or(|old| nets(old) != nets(new)) {
        request::check_clash(new, observed, others)?;
    }
    if old.is_none_or(|old| old.domain != new.domain) {
        request::check_domain(&new.domain, others)?;
    }
    if let Some(uplink) = &new.uplink
        && old.is_none_or(|old| old.uplink != new.uplink)
    {
        request::check_uplink(uplink, &new.bridge, observed)?;
    }
    Ok(())
}

/// What does not reach guests at once.
fn what_guests_notice(edit: &Edit, up: bool, observed: &Observed) -> Vec<String> {
    let (Some(old), new) = (edit.old.as_ref().filter(|_| up), &edit.new) else {
        return Vec::new();
    };
    let mut notes = Vec::new();
    let mut note = |what: &str| {
        let within = old.dhcp.as_ref().map_or(0, |dhcp| dhcp.lease_seconds.div_ceil(120));
        notes.push(format!("{what} when they renew their leases, within {within} min"));
    };
    if let (Some(was), Some(is)) = (&old.dhcp, &new.dhcp) {
        if old.subnet != new.subnet {
            note("guests that are up get an address of the new subnet");
        } else if was.range != is.range || was.reservations != is.reservations {
            note("guests that are up get the address that is now theirs, if it is another,");
        }
        if old.mtu != new.mtu && !network_view::ports(&new.name, observed).is_empty() {
            note("guests that are up learn the new MTU");
        }
    }
    notes
}
