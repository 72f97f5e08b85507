//! What must be known to go back, or to go on, after a crash in the middle of a move. It is on
//! stable storage before the first change.

use serde::{Deserialize, Serialize};
use vnet_types::{BridgedDefinition, MacAddr};

use super::{LinkId, Record, Resolver};
use crate::persist::FileChange;

/// How far a move has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// On its way to the bridge, and not to be kept yet: a crash leads back.
    Moving,
    /// On the bridge, to stay; files may be unwritten yet: a crash leads on.
    Committed,
    /// On the bridge, and everything is written.
    Settled,
    /// On its way back to the uplink, with the definition to stay: a crash leads on.
    Stopping,
    /// On its way back to the uplink, with the definition to go: a crash leads on.
    Releasing,
}

/// One bridge over one uplink: a move in progress, or what was before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    /// How far it has come.
    pub phase: Phase,
    /// The network that the bridge realises.
    pub network: BridgedDefinition,
    /// The host's boot in which this was written: the kernel forgets all of it with the next.
    pub boot: String,
    /// When it was written, in seconds since that boot.
    pub at: u64,
    /// The uplink.
    pub uplink: LinkId,
    /// The uplink's address, which the bridge is given.
    pub mac: MacAddr,
    /// Whether the bridge is made by us, and goes when the uplink is released.
    pub created: bool,
    /// The bridge, if it was there before.
    #[serde(default)]
    pub bridge: Option<LinkId>,
    /// The address of a bridge that was there before.
    pub bridge_mac: Option<MacAddr>,
    /// Whether a bridge that was there before was up.
    pub bridge_up: bool,
    /// The MTU of a bridge that was there before.
    #[serde(default)]
    pub bridge_mtu: Option<u32>,
    /// What was on the uplink.
    pub on_uplink: Vec<Record>,
    /// What was on the bridge, if there was one.
    pub on_bridge: Vec<Record>,
    /// What systemd-resolved had for the uplink; none where it does not run, or has nothing.
    #[serde(default)]
    pub resolver: Option<Resolver>,
    /// What it had for a bridge that was there before.
    #[serde(default)]
    pub bridge_resolver: Option<Resolver>,
    /// What changes in the files of the uplink's manager.
    pub files: Vec<FileChange>,
    /// When the move ends unless it is confirmed before, in seconds since the boot.
    pub confirm_until: Option<u64>,
}

impl Journal {
    /// What was on the uplink, as it is to be put back at `now`, in seconds since the boot:
    /// lifetimes have gone on.
    #[must_use]
    pub fn on_uplink_at(&self, now: u64) -> Vec<Record> {
        aged(&self.on_uplink, self.at, now)
    }

    /// What was on the bridge before, likewise.
    #[must_use]
    pub fn on_bridge_at(&self, now: u64) -> Vec<Record> {
        aged(&self.on_bridge, self.at, now)
    }
}

fn aged(records: &[Record], at: u64, now: u64) -> Vec<Record> {
    let seconds = u32::try_from(now.saturating_sub(at)).unwrap_or(u32::MAX - 1);
    records.iter().filter_map(|record| record.aged(seconds)).collect()
}
