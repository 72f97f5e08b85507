//! `edit` and `autostart` of a bridged network: its MTU, its start and its guard change while it
//! is up, its bridge and its uplink while it is not.
//!
//! The file is replaced first. A netd that dies then makes the network what it says at its next
//! start, as after `create`.

use vnet_api::client::Run;
use vnet_api::model::{BridgeChanged, ErrorBody, ErrorKind};
use vnet_types::{BridgedDefinition, NetworkName};

use super::Daemon;
use crate::failure::{failed, invalid, refuse};
use crate::{definition, store};

impl Daemon {
    pub(crate) async fn edit_bridged(
        &mut self,
        old: &BridgedDefinition,
        text: String,
        run: Run,
    ) -> Result<BridgeChanged, ErrorBody> {
        let name = &old.name;
        let new = definition::parse_bridged(&text)
            .map_err(|reason| refuse(ErrorKind::Invalid, reason))?;
        self.check_edit(old, &new)?;
        let old_text = store::read_text(&self.paths, name).map_err(|error| failed(&error))?;
        let mut plan = self.edit_in_words(&new).await?;
        if old_text.as_ref() != Some(&text) {
            plan.push(format!("write {}", self.paths.network(name).display()));
        }
        if run == Run::Dry {
            return Ok(BridgeChanged { network: None, plan, notes: Vec::new() });
        }
        self.replace_text(name, &text)?;
        self.bridged.networks.insert(name.clone(), new.clone());
        vnet_kernel::milestone();
        if self.bridged.active.contains(name)
            && let Err(error) = self.converge(&new).await
        {
            self.bridged.networks.insert(name.clone(), old.clone());
            if let Some(text) = old_text {
                self.replace_text(name, &text)?;
            }
            if let Err(error) = self.converge(old).await {
                tracing::error!("the state of before cannot be restored: {}", error.message);
            }
            return Err(error);
        }
        let mut notes = Vec::new();
        if self.bridged.failed.remove(name).is_some() {
            notes.push(format!("the network {name} is not up: `vnet start {name}`"));
        }
        self.view_changed(name, plan, notes).await
    }

    pub(in crate::daemon) async fn autostart_bridged(
        &mut self,
        network: &BridgedDefinition,
        on: bool,
    ) -> Result<BridgeChanged, ErrorBody> {
        let text = store::with_autostart(&self.paths, &network.name, on)
            .map_err(|error| failed(&error))?;
        self.edit_bridged(network, text, Run::Real).await
    }

    fn check_edit(
        &self,
        old: &BridgedDefinition,
        new: &BridgedDefinition,
    ) -> Result<(), ErrorBody> {
        let BridgedDefinition { name, bridge, uplink, .. } = old;
        if new.name != *name {
            let message = format!(
                "`name` is {}, but a network cannot be renamed by editing it: keep `name = \
                 \"{name}\"`, or delete the network ({name}) and make it under the new name",
                new.name
            );
            return Err(refuse(ErrorKind::Invalid, message));
        }
        if self.bridged.pending.contains_key(bridge) {
            let message = format!("{bridge} waits to be confirmed: `vnet confirm {bridge}` first");
            return Err(refuse(ErrorKind::Conflict, message));
        }
        if (&new.bridge, &new.uplink) == (bridge, uplink) {
            return Ok(());
        }
        if self.bridged.active.contains(name) {
            let message = format!(
                "the host's own network is on {bridge} over {uplink}: `vnet stop {name}` before \
                 you change `bridge` or `uplink`, and `vnet start {name}` afterwards"
            );
            return Err(refuse(ErrorKind::Conflict, message));
        }
        self.check_is_free(new)
    }

    /// What an edit would do to a network that is up, in words.
    async fn edit_in_words(&mut self, new: &BridgedDefinition) -> Result<Vec<String>, ErrorBody> {
        if !self.bridged.active.contains(&new.name) {
            return Ok(Vec::new());
        }
        let links = self.kernel.uplink_links().map_err(|error| failed(&error))?;
        if let Some(uplink) = links.iter().find(|link| link.id.name == new.uplink) {
            super::enslave::check_mtu(new, uplink)?;
        }
        let mut plan: Vec<_> = self.lacks(new).await?.iter().map(ToString::to_string).collect();
        let old = self.bridged.networks.insert(new.name.clone(), new.clone());
        let observed = self.observe(vnet_kernel::Routes::Skip).await;
        let guard = observed.map(|observed| {
            let desired = self.desired(&self.up(), &observed);
            vnet_plan::diff_firewall(&desired, &observed)
        });
        match old {
            Some(old) => drop(self.bridged.networks.insert(new.name.clone(), old)),
            None => drop(self.bridged.networks.remove(&new.name)),
        }
        plan.extend(guard?.operations.iter().map(ToString::to_string));
        Ok(plan)
    }

    fn replace_text(&self, name: &NetworkName, text: &str) -> Result<(), ErrorBody> {
        store::prepare(&self.paths, name, text)
            .and_then(store::Prepared::commit)
            .map_err(|error| failed(&error))
    }
}

impl Daemon {
    /// Whether no other network has the bridge or the uplink.
    pub(super) fn check_is_free(&self, network: &BridgedDefinition) -> Result<(), ErrorBody> {
        let BridgedDefinition { name, bridge, uplink, .. } = network;
        network.validate().map_err(|error| invalid(&error))?;
        let mut others = self.bridged.networks.values().filter(|other| other.name != *name);
        if let Some(other) = others.find(|other| other.bridge == *bridge || other.uplink == *uplink)
        {
            let message = format!(
                "the bridged network {} has the bridge {} over {}: `vnet delete {}` first",
                other.name, other.bridge, other.uplink, other.name
            );
            return Err(refuse(ErrorKind::Conflict, message));
        }
        if let Some(other) = self.networks.values().find(|other| other.bridge == *bridge) {
            let message = format!(
                "the bridge {bridge} is that of the network {}: give another name",
                other.name
            );
            return Err(refuse(ErrorKind::Conflict, message));
        }
        Ok(())
    }
}
