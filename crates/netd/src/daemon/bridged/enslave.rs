//! An uplink goes under its bridge: what is asked for, what is remembered, and what makes it last.

use vnet_api::client::Run;
use vnet_api::model::{BridgeChanged, EnslaveUplink, ErrorBody, ErrorKind};
use vnet_kernel::Routes;
use vnet_plan::persist;
use vnet_plan::uplink::{Journal, LinkFacts, Phase, Step, check, check_release};
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
        let links = self.kernel.uplink_links().map_err(|error| failed(&error))?;
        if self.bridged.networks.get(&network.name) == Some(&network)
            && check_release(&network.bridge, &network.uplink, &links).is_ok()
        {
            self.bridged.active.insert(network.name.clone());
            let observed = self.observe(Routes::Skip).await?;
            let notes = vec![format!("{} is a port of {} already", network.uplink, network.bridge)];
            let network = Some(self.view_bridged(&network, &observed));
            return Ok(BridgeChanged { network, plan: Vec::new(), notes });
        }
        let (journal, present, mtu) =
            self.journal_for(&network, &links, request.confirm_seconds)?;
        let plan = plan_in_words(&journal, present.as_ref(), mtu, request.confirm_seconds);
        let mut notes =
            persist::persist(&network, journal.mac, &self.manager_facts(&journal)).notes;
        if run == Run::Dry {
            return Ok(BridgeChanged { network: None, plan, notes });
        }
        self.move_there(&journal, present.as_ref(), mtu).await?;
        match request.confirm_seconds {
            None => notes = self.commit(journal).await?,
            Some(_) => {
                self.bridged.networks.insert(network.name.clone(), network.clone());
                self.bridged.active.insert(network.name.clone());
                self.bridged.pending.insert(network.bridge.clone(), journal);
            }
        }
        let observed = self.observe(Routes::Skip).await?;
        let network = Some(self.view_bridged(&network, &observed));
        Ok(BridgeChanged { network, plan, notes })
    }

    pub(super) fn definition_for(
        &self,
        request: &EnslaveUplink,
    ) -> Result<BridgedDefinition, ErrorBody> {
        let EnslaveUplink { bridge, uplink, name, mtu, confirm_seconds } = request;
        if confirm_seconds.is_some_and(|seconds| !(1..=LONGEST_CONFIRM).contains(&seconds)) {
            let message = format!("the time to confirm is 1 to {LONGEST_CONFIRM} seconds");
            return Err(refuse(ErrorKind::Invalid, message));
        }
        let name = match name {
            Some(name) => name.clone(),
            None => bridge.as_str().parse().map_err(|error| invalid(&error))?,
        };
        let network = BridgedDefinition {
            name: name.clone(),
            mode: BridgedMode::Bridged,
            bridge: bridge.clone(),
            uplink: uplink.clone(),
            mtu: *mtu,
            autostart: true,
        };
        network.validate().map_err(|error| invalid(&error))?;
        if let Some(journal) = self.bridged.pending.get(bridge) {
            let uplink = &journal.uplink.name;
            let message = format!(
                "{bridge} over {uplink} waits to be confirmed: `vnet confirm {bridge}`, or `vnet \
                 bridge {bridge} --release {uplink}`"
            );
            return Err(refuse(ErrorKind::Conflict, message));
        }
        let mut others = self.bridged.networks.values().filter(|other| other.name != name);
        if let Some(other) = others.find(|other| other.bridge == *bridge || other.uplink == *uplink)
        {
            let message = format!(
                "the bridged network {} has the bridge {} over {}: `vnet bridge {} --release {}` \
                 first",
                other.name, other.bridge, other.uplink, other.bridge, other.uplink
            );
            return Err(refuse(ErrorKind::Conflict, message));
        }
        match self.bridged.networks.get(&name) {
            Some(present) if present.bridge == *bridge && present.uplink == *uplink => {
                let mtu = mtu.or(present.mtu);
                return Ok(BridgedDefinition { mtu, ..present.clone() });
            }
            _ => self.check_is_new(&name)?,
        }
        if let Some(other) = self.networks.values().find(|other| other.bridge == *bridge) {
            let message = format!(
                "the bridge {bridge} is that of the network {}: give another name",
                other.name
            );
            return Err(refuse(ErrorKind::Conflict, message));
        }
        Ok(network)
    }

    /// What is to be remembered of the present state, the bridge if it is there, and the uplink's
    /// MTU.
    pub(super) fn journal_for(
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
        let mac = uplink.mac.ok_or_else(|| {
            refuse(ErrorKind::Failed, format!("{} has no Ethernet address", network.uplink))
        })?;
        let on_bridge = match bridge {
            Some(bridge) => self.records(&[&bridge.id])?,
            None => Vec::new(),
        };
        let now = since_boot();
        let mut journal = Journal {
            phase: Phase::Moving,
            network: network.clone(),
            boot: boot_id(),
            at: now,
            uplink: uplink.id.clone(),
            mac,
            created: bridge.is_none(),
            bridge_mac: bridge.and_then(|bridge| bridge.mac),
            bridge_up: bridge.is_some_and(|bridge| bridge.up),
            on_uplink,
            on_bridge,
            files: Vec::new(),
            confirm_until: confirm.map(|seconds| now + seconds),
        };
        let before = vnet_kernel::read_journals(&self.journals()).map_err(|e| failed(&e))?;
        journal.files = match before.into_iter().find(|old| old.network.bridge == network.bridge) {
            // The files are ours since an earlier boot; what was before us is in that journal.
            Some(old) if !old.files.is_empty() => old.files,
            _ => persist::persist(network, mac, &self.manager_facts(&journal)).files,
        };
        Ok((journal, bridge.cloned(), uplink.mtu))
    }

    /// Keeps the bridge for good: from here on, everything leads on.
    pub(super) async fn commit(&mut self, mut journal: Journal) -> Result<Vec<String>, ErrorBody> {
        journal.phase = Phase::Committed;
        journal.confirm_until = None;
        let facts = self.manager_facts(&journal);
        if let Err(error) = self.step(&Step::Note(Box::new(journal.clone()))).await {
            self.bridged.active.remove(&journal.network.name);
            self.put_all_back(&journal).await?;
            return Err(error);
        }
        let name = journal.network.name.clone();
        self.bridged.networks.insert(name.clone(), journal.network.clone());
        self.bridged.failed.remove(&name);
        self.bridged.active.insert(name);
        self.finish_commit(&journal).await?;
        Ok(persist::persist(&journal.network, journal.mac, &facts).notes)
    }

    /// Writes what makes the bridge last; once more does no harm.
    pub(super) async fn finish_commit(&mut self, journal: &Journal) -> Result<(), ErrorBody> {
        let path = self.paths.network(&journal.network.name);
        if !path.exists() {
            store::write_bridged(&self.paths, &journal.network).map_err(|error| failed(&error))?;
            managers::write(self.paths.root(), &journal.files).map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    /// Puts back what waits to be confirmed.
    pub(super) async fn give_up(&mut self, bridge: &IfName) -> Result<(), ErrorBody> {
        let Some(journal) = self.bridged.pending.remove(bridge) else { return Ok(()) };
        self.bridged.active.remove(&journal.network.name);
        self.put_all_back(&journal).await?;
        self.read_definitions()
    }
}
