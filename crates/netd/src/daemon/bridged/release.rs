//! An uplink is taken from its bridge, and gets all of the host's own network back.

use std::collections::BTreeSet;

use vnet_api::client::{Guests, Run};
use vnet_api::model::{BridgeChanged, ErrorBody, ErrorKind};
use vnet_kernel::Routes;
use vnet_plan::uplink::{Journal, LinkFacts, Phase, Record, Step, check_release, labelled};
use vnet_types::{BridgedDefinition, BridgedMode, IfName, NetworkName};

use super::clock::{boot_id, since_boot};
use super::words::{files_in_words, release_in_words};
use super::{Daemon, managers};
use crate::failure::{conflict, failed, refuse};
use crate::{network_view, store};

impl Daemon {
    /// `vnet bridge BRIDGE --release UPLINK`: as `vnet delete`, and also by the journal alone,
    /// should the definition be gone.
    pub(super) async fn release(
        &mut self,
        bridge: &IfName,
        uplink: &IfName,
        guests: Guests,
        run: Run,
    ) -> Result<BridgeChanged, ErrorBody> {
        self.read_definitions()?;
        let links = self.kernel.uplink_links().map_err(|error| failed(&error))?;
        let (_, present) =
            check_release(bridge, uplink, &links).map_err(|refusal| conflict(&refusal))?;
        let known = match self.bridged.with_bridge(bridge).cloned() {
            None => self.journal_of(bridge)?.map(|journal| journal.network),
            known => known,
        };
        let known = known.or_else(|| by_label(present, uplink));
        let Some(network) = known.filter(|network| network.uplink == *uplink) else {
            let message = format!(
                "{uplink} on {bridge} is not vnet's doing: `ip link set {uplink} nomaster` takes \
                 it from there"
            );
            return Err(refuse(ErrorKind::Conflict, message));
        };
        self.take_down_bridged(&network, Phase::Releasing, guests, run).await
    }

    /// `vnet stop`: the uplink gets everything back, and the definition stays.
    pub(in crate::daemon) async fn stop_bridged(
        &mut self,
        network: &BridgedDefinition,
        guests: Guests,
        run: Run,
    ) -> Result<BridgeChanged, ErrorBody> {
        self.take_down_bridged(network, Phase::Stopping, guests, run).await
    }

    /// `vnet delete`: as `vnet stop`, and the definition goes.
    pub(in crate::daemon) async fn delete_bridged(
        &mut self,
        network: &BridgedDefinition,
        guests: Guests,
        run: Run,
    ) -> Result<BridgeChanged, ErrorBody> {
        self.take_down_bridged(network, Phase::Releasing, guests, run).await
    }

    async fn take_down_bridged(
        &mut self,
        network: &BridgedDefinition,
        phase: Phase,
        guests: Guests,
        run: Run,
    ) -> Result<BridgeChanged, ErrorBody> {
        let BridgedDefinition { name, bridge, uplink, .. } = network;
        self.check_guests(network, guests).await?;
        let links = self.kernel.uplink_links().map_err(|error| failed(&error))?;
        let Ok((link, present)) = check_release(bridge, uplink, &links) else {
            return self.forget_bridged(network, phase, run).await;
        };
        let journal = self.release_journal(network, phase, (link, present)).await?;
        let plan = release_in_words(&journal, link, present);
        if run == Run::Dry {
            return Ok(BridgeChanged { network: None, plan, notes: Vec::new() });
        }
        if self.bridged.pending.contains_key(bridge) {
            self.give_up(bridge).await?;
            let notes = vec![format!("{bridge} was not confirmed yet: all is as it was before")];
            return self.view_changed(name, plan, notes).await;
        }
        if phase == Phase::Stopping {
            self.want(name, Some(false))?;
        }
        self.step(&Step::Note(Box::new(journal.clone()))).await?;
        let notes = self.finish_release(&journal).await?;
        self.guard_bridged().await?;
        self.view_changed(name, plan, notes).await
    }

    /// Takes down a network whose uplink is not on its bridge: only files are left of it.
    async fn forget_bridged(
        &mut self,
        network: &BridgedDefinition,
        phase: Phase,
        run: Run,
    ) -> Result<BridgeChanged, ErrorBody> {
        let name = &network.name;
        let journal = self.journal_of(&network.bridge)?;
        let files = journal.as_ref().map(|journal| journal.files.clone()).unwrap_or_default();
        let mut plan = files_in_words(files.iter().map(|file| (&file.path, &file.before)));
        if phase == Phase::Releasing {
            plan.push(format!("remove the definition of the network {name}"));
        }
        if run == Run::Dry {
            return Ok(BridgeChanged { network: None, plan, notes: Vec::new() });
        }
        let notes = managers::restore(self.paths.root(), &files).map_err(|error| failed(&error))?;
        self.forget_definition(name, phase)?;
        if journal.is_some() {
            self.step(&Step::Forget { bridge: network.bridge.clone() }).await?;
        }
        self.view_changed(name, plan, notes).await
    }

    /// What is left of a network that was taken down: its definition, if it was only stopped.
    fn forget_definition(&mut self, name: &NetworkName, phase: Phase) -> Result<(), ErrorBody> {
        self.bridged.active.remove(name);
        self.bridged.failed.remove(name);
        if phase == Phase::Stopping {
            return self.want(name, Some(false));
        }
        store::remove(&self.paths, name).map_err(|error| failed(&error))?;
        self.bridged.networks.remove(name);
        self.want(name, None)
    }

    async fn check_guests(
        &mut self,
        network: &BridgedDefinition,
        guests: Guests,
    ) -> Result<(), ErrorBody> {
        let observed = self.observe(Routes::Skip).await?;
        let ports = network_view::ports(&network.name, &observed);
        if guests == Guests::CutOff || ports.is_empty() {
            return Ok(());
        }
        let names: BTreeSet<_> = ports.iter().map(|port| port.domain.as_str()).collect();
        let names: Vec<_> = names.into_iter().collect();
        Err(refuse(
            ErrorKind::Conflict,
            format!(
                "guests are on the network {}: {}; stop them, or cut them off with --force",
                network.name,
                names.join(", ")
            ),
        ))
    }

    /// What the uplink is to get: all that is on the bridge now, less what the bridge had before.
    pub(super) async fn release_journal(
        &mut self,
        network: &BridgedDefinition,
        phase: Phase,
        (uplink, bridge): (&LinkFacts, &LinkFacts),
    ) -> Result<Journal, ErrorBody> {
        let before = self.journal_of(&network.bridge)?;
        let now = since_boot();
        let ours_alone = before.as_ref().is_none_or(|before| before.created);
        let on_bridge: Vec<Record> = match &before {
            Some(before) if !ours_alone && before.boot == boot_id() => before.on_bridge_at(now),
            // Of an earlier boot: links may have had other numbers then.
            Some(Journal { bridge: Some(old), on_bridge, .. }) if !ours_alone => {
                on_bridge.iter().filter_map(|record| record.moved(old, &bridge.id)).collect()
            }
            _ => Vec::new(),
        };
        let mut kept: BTreeSet<Record> = on_bridge.iter().map(Record::timeless).collect();
        // What both had (the route to link-local addresses), both are to have again.
        for record in before.iter().flat_map(|before| &before.on_uplink) {
            if let Some(moved) = record.moved(&uplink.id, &bridge.id) {
                kept.remove(&moved.timeless());
            }
        }
        let records = self.records(&[&bridge.id])?;
        let moving = records.iter().filter(|record| !kept.contains(&record.timeless()));
        let on_uplink = moving.filter_map(|record| record.moved(&bridge.id, &uplink.id)).collect();
        let resolver = match &before {
            // A bridge with servers of its own has both: those that are not the uplink's stay.
            Some(before) if before.bridge_resolver.is_some() => before.resolver.clone(),
            _ => self.kernel.resolver_of(&bridge.id.name).await,
        };
        let mac = uplink.mac.or(bridge.mac).ok_or_else(|| {
            refuse(ErrorKind::Failed, format!("{} has no Ethernet address", uplink.id.name))
        })?;
        Ok(Journal {
            phase,
            network: network.clone(),
            boot: boot_id(),
            at: now,
            uplink: uplink.id.clone(),
            mac: bridge.mac.unwrap_or(mac),
            created: before
                .as_ref()
                .map_or_else(|| labelled(bridge).is_some(), |before| before.created),
            bridge: before.as_ref().and_then(|before| before.bridge.clone()),
            bridge_mac: before.as_ref().and_then(|before| before.bridge_mac),
            bridge_mtu: before.as_ref().and_then(|before| before.bridge_mtu),
            bridge_up: before.as_ref().is_none_or(|before| before.bridge_up),
            on_uplink,
            on_bridge,
            resolver,
            bridge_resolver: before.as_ref().and_then(|before| before.bridge_resolver.clone()),
            files: before.map(|before| before.files).unwrap_or_default(),
            confirm_until: None,
        })
    }

    pub(super) async fn finish_release(
        &mut self,
        journal: &Journal,
    ) -> Result<Vec<String>, ErrorBody> {
        if journal.boot == boot_id() {
            self.move_back(journal).await?;
        }
        let mut notes =
            managers::restore(self.paths.root(), &journal.files).map_err(|error| failed(&error))?;
        vnet_kernel::milestone();
        if !journal.created {
            notes
                .push(format!("the bridge {} was there before, and stays", journal.network.bridge));
        }
        self.forget_definition(&journal.network.name, journal.phase)?;
        vnet_kernel::milestone();
        self.step(&Step::Forget { bridge: journal.network.bridge.clone() }).await?;
        Ok(notes)
    }
}

/// The network of a bridge of which nothing is left on disk, by what we wrote on the bridge.
fn by_label(bridge: &LinkFacts, uplink: &IfName) -> Option<BridgedDefinition> {
    Some(BridgedDefinition {
        name: labelled(bridge)?,
        mode: BridgedMode::Bridged,
        bridge: bridge.id.name.clone(),
        uplink: uplink.clone(),
        mtu: None,
        autostart: false,
        anti_spoofing: true,
    })
}
