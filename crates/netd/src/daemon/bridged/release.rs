//! An uplink is taken from its bridge, and gets all of the host's own network back.

use std::collections::BTreeSet;

use vnet_api::client::{Guests, Run};
use vnet_api::model::{BridgeChanged, ErrorBody, ErrorKind};
use vnet_kernel::Routes;
use vnet_plan::uplink::{Journal, LinkFacts, Phase, Record, Step, check_release};
use vnet_types::{BridgedDefinition, IfName};

use super::clock::{boot_id, since_boot};
use super::words::release_in_words;
use super::{Daemon, managers};
use crate::failure::{conflict, failed, refuse};
use crate::{network_view, store};

impl Daemon {
    pub(super) async fn release(
        &mut self,
        bridge: &IfName,
        uplink: &IfName,
        guests: Guests,
        run: Run,
    ) -> Result<BridgeChanged, ErrorBody> {
        self.read_definitions()?;
        let links = self.kernel.uplink_links().map_err(|error| failed(&error))?;
        let (link, present) =
            check_release(bridge, uplink, &links).map_err(|refusal| conflict(&refusal))?;
        let known = self.bridged.networks.values().find(|network| network.bridge == *bridge);
        let Some(network) = known.cloned() else {
            let message = format!(
                "{bridge} is not vnet's: `ip link set {uplink} nomaster` takes {uplink} from it"
            );
            return Err(refuse(ErrorKind::Conflict, message));
        };
        self.check_guests(&network, guests).await?;
        let journal = self.release_journal(&network, link, present)?;
        let plan = release_in_words(&journal, link, present);
        if run == Run::Dry {
            return Ok(BridgeChanged { network: None, plan, notes: Vec::new() });
        }
        if self.bridged.pending.contains_key(bridge) {
            self.give_up(bridge).await?;
            let notes = vec![format!("{bridge} was not confirmed yet: all is as it was before")];
            return Ok(BridgeChanged { network: None, plan, notes });
        }
        self.step(&Step::Note(Box::new(journal.clone()))).await?;
        let notes = self.finish_release(&journal).await?;
        Ok(BridgeChanged { network: None, plan, notes })
    }

    pub(super) async fn check_guests(
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
    pub(super) fn release_journal(
        &mut self,
        network: &BridgedDefinition,
        uplink: &LinkFacts,
        bridge: &LinkFacts,
    ) -> Result<Journal, ErrorBody> {
        let journals = vnet_kernel::read_journals(&self.journals()).map_err(|e| failed(&e))?;
        let before = journals.into_iter().find(|journal| journal.network.bridge == network.bridge);
        let now = since_boot();
        let ours_alone = before.as_ref().is_none_or(|before| before.created);
        let on_bridge = match &before {
            Some(before) if !ours_alone => before.on_bridge_at(now),
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
        let mac = uplink.mac.or(bridge.mac).ok_or_else(|| {
            refuse(ErrorKind::Failed, format!("{} has no Ethernet address", uplink.id.name))
        })?;
        Ok(Journal {
            phase: Phase::Releasing,
            network: network.clone(),
            boot: boot_id(),
            at: now,
            uplink: uplink.id.clone(),
            mac: bridge.mac.unwrap_or(mac),
            created: before.as_ref().is_some_and(|before| before.created),
            bridge_mac: before.as_ref().and_then(|before| before.bridge_mac),
            bridge_up: before.as_ref().is_none_or(|before| before.bridge_up),
            on_uplink,
            on_bridge,
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
        if !journal.created {
            notes
                .push(format!("the bridge {} was there before, and stays", journal.network.bridge));
        }
        let name = &journal.network.name;
        store::remove(&self.paths, name).map_err(|error| failed(&error))?;
        self.bridged.networks.remove(name);
        self.bridged.active.remove(name);
        self.bridged.failed.remove(name);
        self.step(&Step::Forget { bridge: journal.network.bridge.clone() }).await?;
        Ok(notes)
    }
}
