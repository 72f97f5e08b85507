//! What netd must remember across a crash, and nothing more: what it made, and what it found
//! where it changed something. The ledger counts until the host's next boot.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use vnet_types::{IfName, MacAddr, NetworkDefinition, NetworkName};

/// The record of what is ours.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ledger {
    /// Bridges that we have made, or are about to make.
    pub bridges: BTreeMap<IfName, BridgeClaim>,
    /// Sysctls that we have changed, or are about to change, by their path under `/proc/sys`,
    /// with their values before.
    pub sysctls: BTreeMap<String, String>,
    /// What IPv6 forwarding is made of, by its paths under `/proc/sys`, with the values before we
    /// changed them, or are about to.
    pub forwarding6: BTreeMap<String, String>,
    /// The links of others whose `accept_ra` we have raised from 1 to 2, or are about to.
    pub accept_ra: BTreeSet<String>,
    /// Networks that a person started (true) or stopped (false) since the host's boot; for all
    /// others their definition's `autostart` counts.
    pub wanted: BTreeMap<NetworkName, bool>,
}

/// A bridge of ours, known by its MAC address, which the kernel sets in the same step in which it
/// makes the bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BridgeClaim {
    /// Its address.
    pub mac: MacAddr,
    /// The network that it realises, as it was when it was started.
    pub network: NetworkDefinition,
}
