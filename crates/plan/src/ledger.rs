//! What netd must remember across a crash, and nothing more: what it made, and what it found
//! where it changed something. The ledger counts until the host's next boot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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
    pub network: Arc<NetworkDefinition>,
}

/// One change of a [`Ledger`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LedgerChange {
    /// A bridge is ours from now on, or no longer.
    Bridge(IfName, Option<BridgeClaim>),
    /// What a person wants of a network, if anything.
    Wanted(NetworkName, Option<bool>),
    /// [`Ledger::sysctls`] as a whole.
    Sysctls(BTreeMap<String, String>),
    /// [`Ledger::forwarding6`] as a whole.
    Forwarding6(BTreeMap<String, String>),
    /// [`Ledger::accept_ra`] as a whole.
    AcceptRa(BTreeSet<String>),
}

impl Ledger {
    /// What leads from this ledger to `to`.
    #[must_use]
    pub fn changes(&self, to: &Self) -> Vec<LedgerChange> {
        // A claim that was not touched shares its network, so this looks at none of them.
        let bridges = differing(&self.bridges, &to.bridges);
        let bridges = bridges.map(|(name, claim)| LedgerChange::Bridge(name, claim));
        let wanted = differing(&self.wanted, &to.wanted);
        let wanted = wanted.map(|(name, wanted)| LedgerChange::Wanted(name, wanted));
        let mut changes: Vec<_> = bridges.chain(wanted).collect();
        if self.sysctls != to.sysctls {
            changes.push(LedgerChange::Sysctls(to.sysctls.clone()));
        }
        if self.forwarding6 != to.forwarding6 {
            changes.push(LedgerChange::Forwarding6(to.forwarding6.clone()));
        }
        if self.accept_ra != to.accept_ra {
            changes.push(LedgerChange::AcceptRa(to.accept_ra.clone()));
        }
        changes
    }

    /// Makes a change.
    pub fn apply(&mut self, change: LedgerChange) {
        match change {
            LedgerChange::Bridge(name, claim) => put(&mut self.bridges, name, claim),
            LedgerChange::Wanted(name, wanted) => put(&mut self.wanted, name, wanted),
            LedgerChange::Sysctls(values) => self.sysctls = values,
            LedgerChange::Forwarding6(values) => self.forwarding6 = values,
            LedgerChange::AcceptRa(links) => self.accept_ra = links,
        }
    }
}

/// The entries of `to` that are not so in `from`, and those that are in `from` alone.
fn differing<'a, K: Ord + Clone, V: PartialEq + Clone>(
    from: &'a BTreeMap<K, V>,
    to: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (K, Option<V>)> {
    let gone = from.keys().filter(|key| !to.contains_key(*key)).map(|key| (key.clone(), None));
    let new = to.iter().filter(|(key, value)| from.get(*key) != Some(value));
    gone.chain(new.map(|(key, value)| (key.clone(), Some(value.clone()))))
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_lead_from_any_ledger_to_any_other() {
        let text = r#"{"bridges": {"virbr0": {"mac": "02:00:00:00:00:01", "network": {"name": "a",
            "mode": "nat", "bridge": "virbr0", "subnet": "10.0.0.0/24", "domain": "a.vnet"}}},
            "sysctls": {"a": "0"}, "forwarding6": {"b": "0"}, "accept_ra": ["eth0"],
            "wanted": {"a": true, "b": false}}"#;
        let full: Ledger = serde_json::from_str(text).unwrap();
        let mut other = full.clone();
        other.wanted.insert("b".parse().unwrap(), true);
        other.bridges.values_mut().for_each(|claim| claim.mac = MacAddr([2, 0, 0, 0, 0, 9]));
        let all = [Ledger::default(), full, other];
        for (from, to) in all.iter().flat_map(|from| all.iter().map(move |to| (from, to))) {
            let mut ledger = from.clone();
            let changes = from.changes(to);
            assert_eq!(changes.is_empty(), from == to);
            for change in changes {
                // As it is read back from a file.
                let line = serde_json::to_string(&change).unwrap();
                ledger.apply(serde_json::from_str(&line).unwrap());
            }
            assert_eq!(&ledger, to);
        }
    }
}
