//! The move itself, there and back: the bridge, the burst, the gateway's answer.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use vnet_api::model::{ErrorBody, ErrorKind};
use vnet_plan::uplink::{
    Both, Journal, LinkFacts, LinkId, Phase, Step, give_back, prepare, relocate, remove,
};
use vnet_types::IfName;

use super::clock::{boot_id, since_boot};
use super::{Daemon, managers};
use crate::failure::{failed, refuse};

/// How long a gateway may take to answer: some more than the kernel's three tries.
const GATEWAY_PATIENCE: Duration = Duration::from_secs(5);
/// How often the kernel is asked whether it has.
const GATEWAY_LOOK: Duration = Duration::from_millis(5);
/// Bursts after which both sides must be as they should: the second has what the kernel adds by
/// itself, the third what that displaces.
const BURSTS: usize = 4;

impl Daemon {
    /// Moves the host's network to the bridge, and asks the gateway. On failure, all is back.
    pub(super) async fn move_there(
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

    pub(super) async fn try_move_there(
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
    pub(super) async fn relocate(
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
    pub(super) async fn probe(
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

    pub(super) fn answers(
        &mut self,
        bridge: &LinkId,
        gateways: &[&IpAddr],
    ) -> Result<bool, ErrorBody> {
        for gateway in gateways {
            if self.kernel.is_reachable(bridge, **gateway).map_err(|error| failed(&error))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Puts everything back as the journal has it.
    pub(super) async fn put_all_back(&mut self, journal: &Journal) -> Result<(), ErrorBody> {
        if journal.boot == boot_id() {
            self.move_back(journal).await?;
        }
        if journal.files.iter().any(|file| managers::is_in_place(self.paths.root(), file)) {
            // They are from an earlier boot, and what was before them must not be lost.
            let settled = Journal { phase: Phase::Settled, ..journal.clone() };
            return self.step(&Step::Note(Box::new(settled))).await;
        }
        self.step(&Step::Forget { bridge: journal.network.bridge.clone() }).await
    }

    pub(super) async fn move_back(&mut self, journal: &Journal) -> Result<(), ErrorBody> {
        let links = self.kernel.uplink_links().map_err(|error| failed(&error))?;
        let find = |name: &IfName| links.iter().find(|link| link.id.name == *name);
        let bridge = find(&journal.network.bridge);
        // An uplink that was unplugged has nothing to be put back.
        if let (Some(uplink), Some(bridge)) = (find(&journal.uplink.name), bridge) {
            let wanted = back(journal, &uplink.id);
            let (uplink, bridge) = (uplink.id.clone(), bridge.id.clone());
            self.relocate(&uplink, &bridge, &wanted).await?;
            if let Some(step) = give_back(journal) {
                self.step(&step).await?;
            }
        }
        for step in remove(journal, bridge) {
            self.step(&step).await?;
        }
        Ok(())
    }
}

/// How it should be under the bridge: what was on the uplink is on the bridge.
pub(super) fn there(journal: &Journal, bridge: &LinkId) -> Both {
    let on_bridge = journal.on_bridge.iter().cloned();
    let moved = journal.on_uplink.iter().filter_map(|record| record.moved(&journal.uplink, bridge));
    Both { port: true, records: on_bridge.chain(moved).collect() }
}

/// How it should be without: each has what it had, as time has gone on.
pub(super) fn back(journal: &Journal, uplink: &LinkId) -> Both {
    let now = since_boot();
    let on_uplink = journal.on_uplink_at(now);
    let own = on_uplink.iter().filter_map(|record| record.moved(&journal.uplink, uplink));
    let records = journal.on_bridge_at(now).into_iter().chain(own).collect();
    Both { port: false, records }
}
