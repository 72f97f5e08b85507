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

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use vnet_api::client::{Guests, Run};
use vnet_api::model::{BridgeChanged, BridgedNetwork, EnslaveUplink, ErrorBody, ErrorKind, State};
use vnet_kernel::Routes;
use vnet_plan::uplink::{
    Both, Journal, LinkFacts, LinkId, Phase, Record, Step, check, check_release, prepare, relocate,
    remove,
};
use vnet_plan::{Observed, persist};
use vnet_types::{BridgedDefinition, BridgedMode, IfName, NetworkName};

use super::{Daemon, Shared, managers};
use crate::failure::{conflict, failed, invalid, refuse};
use crate::{network_view, store};

/// How long a gateway may take to answer: some more than the kernel's three tries.
const GATEWAY_PATIENCE: Duration = Duration::from_secs(5);
/// How often the kernel is asked whether it has.
const GATEWAY_LOOK: Duration = Duration::from_millis(5);
/// Bursts after which both sides must be as they should: the second has what the kernel adds by
/// itself, the third what that displaces.
const BURSTS: usize = 4;
/// The longest time to confirm, in seconds: a day.
const LONGEST_CONFIRM: u64 = 86_400;

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
    fn journals(&self) -> PathBuf {
        self.paths.uplinks()
    }

    /// Brings moves that were broken off to one of their two ends, and puts the uplinks of the
    /// networks that should be up under their bridges.
    pub(super) async fn start_bridged(&mut self) -> Result<(), ErrorBody> {
        let journals =
            vnet_kernel::read_journals(&self.journals()).map_err(|error| failed(&error))?;
        for journal in journals {
            let bridge = journal.network.bridge.clone();
            let result = match journal.phase {
                Phase::Moving => {
                    tracing::warn!("the move to {bridge} was broken off: all is put back");
                    self.put_all_back(&journal).await
                }
                Phase::Committed => self.finish_commit(&journal).await,
                Phase::Releasing => self.finish_release(&journal).await.map(drop),
            };
            if let Err(error) = result {
                tracing::error!("{}", error.message);
            }
        }
        self.read_definitions()?;
        let networks: Vec<_> = self.bridged.networks.values().cloned().collect();
        for network in networks {
            if let Err(error) = self.establish(&network).await {
                tracing::error!("network {} cannot be started: {}", network.name, error.message);
                self.bridged.failed.insert(network.name, error.message);
            }
        }
        Ok(())
    }

    /// Sees to it that the network is up: it is already, or its uplink is put under its bridge.
    async fn establish(&mut self, network: &BridgedDefinition) -> Result<(), ErrorBody> {
        let links = self.kernel.uplink_links().map_err(|error| failed(&error))?;
        if check_release(&network.bridge, &network.uplink, &links).is_ok() {
            self.bridged.active.insert(network.name.clone());
            return Ok(());
        }
        if !network.autostart {
            return Ok(());
        }
        let (journal, present, mtu) = self.journal_for(network, &links, None)?;
        self.move_there(&journal, present.as_ref(), mtu).await?;
        self.commit(journal).await.map(drop)
    }

    async fn enslave(
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

    fn definition_for(&self, request: &EnslaveUplink) -> Result<BridgedDefinition, ErrorBody> {
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
    fn journal_for(
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

    fn manager_facts(&self, journal: &Journal) -> persist::ManagerFacts {
        managers::facts(self.paths.root(), &journal.uplink)
    }

    fn records(&mut self, links: &[&LinkId]) -> Result<Vec<Record>, ErrorBody> {
        self.kernel.uplink_records(links).map_err(|error| failed(&error))
    }

    async fn step(&mut self, step: &Step) -> Result<(), ErrorBody> {
        let journals = self.journals();
        self.kernel.step(step, &journals).await.map_err(|error| failed(&error))
    }

    /// Moves the host's network to the bridge, and asks the gateway. On failure, all is back.
    async fn move_there(
        &mut self,
        journal: &Journal,
        present: Option<&LinkFacts>,
        mtu: u32,
    ) -> Result<(), ErrorBody> {
        let Err(error) = self.try_move_there(journal, present, mtu).await else { return Ok(()) };
        match self.put_all_back(journal).await {
            Ok(()) => Err(refuse(
                error.kind,
                format!("{}; {} is as it was", error.message, journal.uplink.name),
            )),
            Err(again) => Err(refuse(
                ErrorKind::Failed,
                format!("{}; and it cannot be put back: {}", error.message, again.message),
            )),
        }
    }

    async fn try_move_there(
        &mut self,
        journal: &Journal,
        present: Option<&LinkFacts>,
        mtu: u32,
    ) -> Result<(), ErrorBody> {
        for step in prepare(journal, present, mtu) {
            self.step(&step).await?;
        }
        let links = self.kernel.uplink_links().map_err(|error| failed(&error))?;
        let Some(bridge) = links.iter().find(|link| link.id.name == journal.network.bridge) else {
            let message = format!("the bridge {} is gone", journal.network.bridge);
            return Err(refuse(ErrorKind::Failed, message));
        };
        let wanted = there(journal, &bridge.id);
        self.relocate(&journal.uplink, &bridge.id, &wanted).await?;
        let gateways: BTreeSet<IpAddr> =
            wanted.records.iter().flat_map(|record| record.default_gateways(&bridge.id)).collect();
        self.probe(&bridge.id, &gateways).await
    }

    /// Makes both links as `wanted`.
    async fn relocate(
        &mut self,
        uplink: &LinkId,
        bridge: &LinkId,
        wanted: &Both,
    ) -> Result<(), ErrorBody> {
        for _ in 0..BURSTS {
            let now = self.kernel.both(uplink, bridge).map_err(|error| failed(&error))?;
            let requests = relocate(uplink, bridge, &now, wanted);
            if requests.is_empty() {
                return Ok(());
            }
            self.step(&Step::Burst(requests)).await?;
        }
        let now = self.kernel.both(uplink, bridge).map_err(|error| failed(&error))?;
        let rest: Vec<_> =
            relocate(uplink, bridge, &now, wanted).iter().map(ToString::to_string).collect();
        if rest.is_empty() {
            return Ok(());
        }
        Err(refuse(
            ErrorKind::Failed,
            format!("the host did not become as it was to be; left to do: {}", rest.join("; ")),
        ))
    }

    /// Waits until a gateway of each IP version that has one answers on the bridge.
    async fn probe(
        &mut self,
        bridge: &LinkId,
        gateways: &BTreeSet<IpAddr>,
    ) -> Result<(), ErrorBody> {
        for six in [false, true] {
            let asked: Vec<_> = gateways.iter().filter(|ip| ip.is_ipv6() == six).collect();
            if asked.is_empty() {
                continue;
            }
            for gateway in &asked {
                self.kernel.solicit(bridge, **gateway).map_err(|error| failed(&error))?;
            }
            let deadline = tokio::time::Instant::now() + GATEWAY_PATIENCE;
            while !self.answers(bridge, &asked)? {
                if tokio::time::Instant::now() > deadline {
                    let asked: Vec<_> = asked.iter().map(ToString::to_string).collect();
                    let message = format!(
                        "the gateway {} does not answer on {}",
                        asked.join(" or "),
                        bridge.name
                    );
                    return Err(refuse(ErrorKind::Failed, message));
                }
                tokio::time::sleep(GATEWAY_LOOK).await;
            }
        }
        Ok(())
    }

    fn answers(&mut self, bridge: &LinkId, gateways: &[&IpAddr]) -> Result<bool, ErrorBody> {
        for gateway in gateways {
            if self.kernel.is_reachable(bridge, **gateway).map_err(|error| failed(&error))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Puts everything back as the journal has it.
    async fn put_all_back(&mut self, journal: &Journal) -> Result<(), ErrorBody> {
        if journal.boot == boot_id() {
            self.move_back(journal).await?;
        }
        self.step(&Step::Forget { bridge: journal.network.bridge.clone() }).await
    }

    async fn move_back(&mut self, journal: &Journal) -> Result<(), ErrorBody> {
        let links = self.kernel.uplink_links().map_err(|error| failed(&error))?;
        let find = |name: &IfName| links.iter().find(|link| link.id.name == *name);
        let bridge = find(&journal.network.bridge);
        // An uplink that was unplugged has nothing to be put back.
        if let (Some(uplink), Some(bridge)) = (find(&journal.uplink.name), bridge) {
            let wanted = back(journal, &uplink.id);
            let (uplink, bridge) = (uplink.id.clone(), bridge.id.clone());
            self.relocate(&uplink, &bridge, &wanted).await?;
        }
        for step in remove(journal, bridge) {
            self.step(&step).await?;
        }
        Ok(())
    }

    /// Keeps the bridge for good: from here on, everything leads on.
    async fn commit(&mut self, mut journal: Journal) -> Result<Vec<String>, ErrorBody> {
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
    async fn finish_commit(&mut self, journal: &Journal) -> Result<(), ErrorBody> {
        let path = self.paths.network(&journal.network.name);
        if !path.exists() {
            store::write_bridged(&self.paths, &journal.network).map_err(|error| failed(&error))?;
            managers::write(self.paths.root(), &journal.files).map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    /// Puts back what waits to be confirmed.
    async fn give_up(&mut self, bridge: &IfName) -> Result<(), ErrorBody> {
        let Some(journal) = self.bridged.pending.remove(bridge) else { return Ok(()) };
        self.bridged.active.remove(&journal.network.name);
        self.put_all_back(&journal).await?;
        self.read_definitions()
    }

    async fn release(
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
    fn release_journal(
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

    async fn finish_release(&mut self, journal: &Journal) -> Result<Vec<String>, ErrorBody> {
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

    /// The bridge on which a port of this network is to be, and its MTU.
    pub(super) async fn place_for_ports(
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
        let definition = self.definition(name)?;
        match self.running.contains_key(name) {
            true => Ok((definition.bridge.clone(), definition.mtu)),
            false => Err(down()),
        }
    }

    fn view_bridged(&self, network: &BridgedDefinition, observed: &Observed) -> BridgedNetwork {
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

/// How it should be under the bridge: what was on the uplink is on the bridge.
fn there(journal: &Journal, bridge: &LinkId) -> Both {
    let on_bridge = journal.on_bridge.iter().cloned();
    let moved = journal.on_uplink.iter().filter_map(|record| record.moved(&journal.uplink, bridge));
    Both { port: true, records: on_bridge.chain(moved).collect() }
}

/// How it should be without: each has what it had, as time has gone on.
fn back(journal: &Journal, uplink: &LinkId) -> Both {
    let now = since_boot();
    let on_uplink = journal.on_uplink_at(now);
    let own = on_uplink.iter().filter_map(|record| record.moved(&journal.uplink, uplink));
    let records = journal.on_bridge_at(now).into_iter().chain(own).collect();
    Both { port: false, records }
}

fn plan_in_words(
    journal: &Journal,
    present: Option<&LinkFacts>,
    mtu: u32,
    confirm: Option<u64>,
) -> Vec<String> {
    // A bridge that is not there has no number yet.
    let bridge = present.map_or_else(
        || LinkId { name: journal.network.bridge.clone(), index: u32::MAX },
        |present| present.id.clone(),
    );
    let wanted = there(journal, &bridge);
    let records = journal.on_uplink.iter().chain(&journal.on_bridge).cloned().collect();
    let now = Both { port: false, records };
    let burst = Step::Burst(relocate(&journal.uplink, &bridge, &now, &wanted));
    let steps = prepare(journal, present, mtu).into_iter().chain([burst]);
    let mut plan: Vec<String> = steps.map(|step| step.to_string()).collect();
    let gateways: BTreeSet<String> = wanted
        .records
        .iter()
        .flat_map(|record| record.default_gateways(&bridge))
        .map(|gateway| gateway.to_string())
        .collect();
    for gateway in gateways {
        plan.push(format!(
            "ask the gateway {gateway} on {}; put everything back unless it answers",
            bridge.name
        ));
    }
    if let Some(seconds) = confirm {
        plan.push(format!(
            "wait for `vnet confirm {}`; put everything back after {seconds} s",
            bridge.name
        ));
    }
    plan.push(format!("write the definition of the network {}", journal.network.name));
    plan.extend(files_in_words(journal.files.iter().map(|file| (&file.path, &file.after))));
    plan
}

fn release_in_words(journal: &Journal, uplink: &LinkFacts, bridge: &LinkFacts) -> Vec<String> {
    let wanted = back(journal, &uplink.id);
    let on_bridge = journal.on_uplink.iter();
    let records = on_bridge
        .filter_map(|record| record.moved(&uplink.id, &bridge.id))
        .chain(journal.on_bridge.iter().cloned())
        .collect();
    let now = Both { port: true, records };
    let mut steps = vec![
        Step::Note(Box::new(journal.clone())),
        Step::Burst(relocate(&uplink.id, &bridge.id, &now, &wanted)),
    ];
    steps.extend(remove(journal, Some(bridge)));
    let mut plan: Vec<String> = steps.iter().map(ToString::to_string).collect();
    plan.extend(files_in_words(journal.files.iter().map(|file| (&file.path, &file.before))));
    plan.push(format!("remove the definition of the network {}", journal.network.name));
    plan
}

fn files_in_words<'a>(
    files: impl Iterator<Item = (&'a String, &'a Option<String>)>,
) -> Vec<String> {
    let one = |(path, text): (&String, &Option<String>)| match text {
        None => format!("remove /{path}"),
        Some(text) => {
            let lines: Vec<_> = text.lines().map(|line| format!("    {line}")).collect();
            format!("write /{path}:\n{}", lines.join("\n"))
        }
    };
    files.map(one).collect()
}

/// Which boot of the host this is.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// Seconds since the boot, sleep included: the clock that lifetimes of addresses go by.
fn since_boot() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
        .map_or(0, |time| u64::try_from(time.tv_sec()).unwrap_or_default())
}
