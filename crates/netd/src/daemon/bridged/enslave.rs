//! An uplink goes under its bridge: what is asked for, what is remembered, and what makes it last.

use vnet_api::client::Run;
use vnet_api::model::{BridgeChanged, EnslaveUplink, ErrorBody, ErrorKind};
use vnet_plan::persist;
use vnet_plan::uplink::{
    Journal, LinkFacts, Phase, Refusal, Step, check, check_release, labelled, settle,
};
use vnet_types::{BridgedDefinition, BridgedMode, IfName};

use super::clock::{boot_id, since_boot};
use super::words::plan_in_words;
use super::{Daemon, managers};
use crate::failure::{conflict, failed, invalid, refuse};
use crate::store;

/// The longest time to confirm, in seconds: a day.
const LONGEST_CONFIRM: u64 = 86_400;

impl Daemon {
    pub(super) async fn enslave(
        &mut self,
        request: EnslaveUplink,
        run: Run,
    ) -> Result<BridgeChanged, ErrorBody> {
        self.read_definitions()?;
        let network = self.definition_for(&request)?;
        self.bring_up_bridged(&network, request.confirm_seconds, run).await
    }

    /// `vnet start`: the same, by a definition that is there.
    pub(in crate::daemon) async fn start_bridged_network(
        &mut self,
        network: &BridgedDefinition,
        run: Run,
    ) -> Result<BridgeChanged, ErrorBody> {
        self.check_is_free(network)?;
        self.bring_up_bridged(network, None, run).await
    }

    pub(super) async fn bring_up_bridged(
        &mut self,
        network: &BridgedDefinition,
        confirm: Option<u64>,
        run: Run,
    ) -> Result<BridgeChanged, ErrorBody> {
        let name = &network.name;
        let links = self.kernel.uplink_links().map_err(|error| failed(&error))?;
        if self.bridged.networks.contains_key(name)
            && check_release(&network.bridge, &network.uplink, &links).is_ok()
        {
            let notes = vec![format!("{} is a port of {} already", network.uplink, network.bridge)];
            if run == Run::Real {
                self.bridged.active.insert(name.clone());
                self.bridged.failed.remove(name);
                self.want(name, Some(true))?;
                self.converge(network).await?;
            }
            return self.view_changed(name, Vec::new(), notes).await;
        }
        let (journal, present, mtu) = self.journal_for(network, &links, confirm).await?;
        let plan = plan_in_words(&journal, present.as_ref(), mtu, confirm);
        let facts = self.manager_facts(&journal.uplink);
        let mut notes = persist::persist(network, journal.mac, &facts).notes;
        if run == Run::Dry {
            return Ok(BridgeChanged { network: None, plan, notes });
        }
        self.move_there(&journal, present.as_ref(), mtu).await?;
        match confirm {
            None => notes = self.commit(journal).await?,
            Some(_) => {
                self.bridged.networks.insert(name.clone(), network.clone());
                self.bridged.active.insert(name.clone());
                self.bridged.pending.insert(network.bridge.clone(), journal);
            }
        }
        self.view_changed(name, plan, notes).await
    }

    fn definition_for(&self, request: &EnslaveUplink) -> Result<BridgedDefinition, ErrorBody> {
        let EnslaveUplink { bridge, uplink, name, mtu, confirm_seconds } = request;
        if confirm_seconds.is_some_and(|seconds| !(1..=LONGEST_CONFIRM).contains(&seconds)) {
            let message = format!("the time to confirm is 1 to {LONGEST_CONFIRM} seconds");
            return Err(refuse(ErrorKind::Invalid, message));
        }
        if let Some(journal) = self.bridged.pending.get(bridge) {
            let uplink = &journal.uplink.name;
            let message = format!(
                "{bridge} over {uplink} waits to be confirmed: `vnet confirm {bridge}`, or `vnet \
                 bridge {bridge} --release {uplink}`"
            );
            return Err(refuse(ErrorKind::Conflict, message));
        }
        // Without a name, it is about the network that has this bridge, whatever it is called.
        let name = match (name, self.bridged.with_bridge(bridge)) {
            (Some(name), _) => name.clone(),
            (None, Some(present)) if present.uplink == *uplink => present.name.clone(),
            (None, _) => bridge.as_str().parse().map_err(|error| invalid(&error))?,
        };
        let network = match self.bridged.networks.get(&name) {
            Some(present) if present.bridge == *bridge && present.uplink == *uplink => {
                present.clone()
            }
            _ => {
                self.check_is_new(&name)?;
                BridgedDefinition {
                    name,
                    mode: BridgedMode::Bridged,
                    bridge: bridge.clone(),
                    uplink: uplink.clone(),
                    mtu: *mtu,
                    autostart: true,
                    anti_spoofing: true,
                }
            }
        };
        if mtu.is_some() && *mtu != network.mtu {
            let message = format!(
                "the network {name} has a definition with another MTU: `vnet edit {name}` changes it",
                name = network.name
            );
            return Err(refuse(ErrorKind::Conflict, message));
        }
        self.check_is_free(&network)?;
        Ok(network)
    }

    /// What is to be remembered of the present state, the bridge if it is there, and the uplink's
    /// MTU.
    pub(super) async fn journal_for(
        &mut self,
        network: &BridgedDefinition,
        links: &[LinkFacts],
        confirm: Option<u64>,
    ) -> Result<(Journal, Option<LinkFacts>, u32), ErrorBody> {
        let find = |name: &IfName| links.iter().find(|link| link.id.name == *name);
        let on_uplink = match find(&network.uplink) {
            Some(link) => self.records(&[&link.id])?,
            None => Vec::new(),
        };
        let (uplink, bridge) = check(&network.bridge, &network.uplink, links, &on_uplink)
            .map_err(|refusal| conflict(&refusal))?;
        check_mtu(network, uplink)?;
        let mac = uplink.mac.ok_or_else(|| {
            refuse(ErrorKind::Failed, format!("{} has no Ethernet address", network.uplink))
        })?;
        let on_bridge = match bridge {
            Some(bridge) => self.records(&[&bridge.id])?,
            None => Vec::new(),
        };
        let files = match self.journal_of(&network.bridge)? {
            // The files are ours since an earlier boot; what was before us is in that journal.
            Some(old) if !old.files.is_empty() => old.files,
            _ if network.autostart => {
                persist::persist(network, mac, &self.manager_facts(&uplink.id)).files
            }
            _ => Vec::new(),
        };
        let now = since_boot();
        let confirm_until = confirm.map(|seconds| now + seconds);
        if let Some(bridge) = bridge
            && self.is_settled(network, bridge)?
        {
            // Somebody has taken the uplink from a bridge that has all of the host's network: what
            // is put back, should it come to that, is the state of before there was a bridge.
            let mut journal =
                self.release_journal(network, Phase::Moving, (uplink, bridge)).await?;
            journal.on_uplink.extend(on_uplink);
            let journal = Journal { files, confirm_until, ..journal };
            return Ok((journal, Some(bridge.clone()), uplink.mtu));
        }
        let journal = Journal {
            phase: Phase::Moving,
            network: network.clone(),
            boot: boot_id(),
            at: now,
            uplink: uplink.id.clone(),
            mac,
            created: bridge.is_none(),
            bridge: bridge.map(|bridge| bridge.id.clone()),
            bridge_mac: bridge.and_then(|bridge| bridge.mac),
            bridge_up: bridge.is_some_and(|bridge| bridge.up),
            bridge_mtu: bridge.map(|bridge| bridge.mtu),
            on_uplink,
            on_bridge,
            resolver: self.kernel.resolver_of(&uplink.id.name).await,
            bridge_resolver: match bridge {
                Some(bridge) => self.kernel.resolver_of(&bridge.id.name).await,
                None => None,
            },
            files,
            confirm_until,
        };
        Ok((journal, bridge.cloned(), uplink.mtu))
    }

    /// Whether the bridge is one that we made, or took over, in this boot.
    fn is_settled(
        &self,
        network: &BridgedDefinition,
        bridge: &LinkFacts,
    ) -> Result<bool, ErrorBody> {
        let journal = self.journal_of(&network.bridge)?;
        Ok(journal.is_some_and(|journal| {
            journal.phase == Phase::Settled
                && journal.boot == boot_id()
                && (!journal.created || labelled(bridge).is_some())
        }))
    }

    /// Keeps the bridge for good: from here on, everything leads on.
    pub(super) async fn commit(&mut self, mut journal: Journal) -> Result<Vec<String>, ErrorBody> {
        journal.phase = Phase::Committed;
        journal.confirm_until = None;
        let facts = self.manager_facts(&journal.uplink);
        if let Err(error) = self.step(&Step::Note(Box::new(journal.clone()))).await {
            self.bridged.active.remove(&journal.network.name);
            self.put_all_back(&journal).await?;
            return Err(error);
        }
        let name = journal.network.name.clone();
        self.bridged.networks.insert(name.clone(), journal.network.clone());
        self.bridged.failed.remove(&name);
        self.bridged.active.insert(name.clone());
        self.finish_commit(&journal).await?;
        self.want(&name, Some(true))?;
        self.converge(&journal.network).await?;
        let mut notes = persist::persist(&journal.network, journal.mac, &facts).notes;
        notes.extend(self.servers_left_behind(&journal).await);
        Ok(notes)
    }

    /// What to do where systemd-resolved has not taken the uplink's DNS servers for the bridge.
    async fn servers_left_behind(&self, journal: &Journal) -> Option<String> {
        let (bridge, uplink) = (&journal.network.bridge, &journal.uplink.name);
        let wanted = journal.resolver.as_ref()?;
        let has = self.kernel.resolver_of(bridge).await.unwrap_or_default();
        if wanted.servers.iter().all(|server| has.servers.contains(server)) {
            return None;
        }
        let servers: Vec<_> = wanted.servers.iter().map(ToString::to_string).collect();
        Some(format!(
            "systemd-resolved asks the DNS servers of {uplink} no more, and has not taken them for \
             {bridge}: `resolvectl dns {bridge} {}`, or, where systemd-networkd configures \
             {bridge}, `DNS=` in its file",
            servers.join(" ")
        ))
    }

    /// Writes what makes the bridge last. A file that somebody has changed since is left alone.
    pub(super) async fn finish_commit(&mut self, journal: &Journal) -> Result<(), ErrorBody> {
        if !self.paths.network(&journal.network.name).exists() {
            store::write_bridged(&self.paths, &journal.network).map_err(|error| failed(&error))?;
            vnet_kernel::milestone();
        }
        for file in &journal.files {
            managers::write(self.paths.root(), file).map_err(|error| failed(&error))?;
            vnet_kernel::milestone();
        }
        if journal.boot == boot_id()
            && let Some(step) = settle(journal)
        {
            self.step(&step).await?;
        }
        let settled = Journal { phase: Phase::Settled, ..journal.clone() };
        self.step(&Step::Note(Box::new(settled))).await
    }

    /// Puts back what waits to be confirmed.
    pub(super) async fn give_up(&mut self, bridge: &IfName) -> Result<(), ErrorBody> {
        let Some(journal) = self.bridged.pending.remove(bridge) else { return Ok(()) };
        self.bridged.active.remove(&journal.network.name);
        self.put_all_back(&journal).await?;
        self.read_definitions()?;
        self.guard_bridged().await
    }
}

/// A bridge takes no larger packets than its uplink.
pub(super) fn check_mtu(network: &BridgedDefinition, uplink: &LinkFacts) -> Result<(), ErrorBody> {
    match network.mtu {
        Some(mtu) if mtu > uplink.mtu => {
            let (uplink, most) = (network.uplink.clone(), uplink.mtu);
            Err(conflict(&Refusal::Mtu { uplink, mtu, most }))
        }
        _ => Ok(()),
    }
}
