//! The listing, as far as a walk needs it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Hook, Version};
use crate::firewall::TABLE;

/// Why a listing cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RulesetError {
    /// It is no JSON.
    #[error("nft printed something that is not JSON")]
    Json(#[from] serde_json::Error),
    /// It is JSON of another kind.
    #[error("nft printed JSON without a list `nftables`")]
    Shape,
}

/// The family, the table and the name of a chain or a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) family: String,
    pub(super) table: String,
    pub(super) name: String,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Chain {
    pub(super) hook: Option<String>,
    pub(super) is_filter: bool,
    pub(super) drops: bool,
    pub(super) rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) handle: Option<u64>,
    pub(super) statements: Vec<Value>,
}

/// All chains, rules and sets of a host, but for those of our own table.
#[derive(Debug, Clone, Default)]
pub struct Ruleset {
    chains: BTreeMap<Place, Chain>,
    sets: BTreeMap<Place, Vec<Value>>,
}

impl Ruleset {
    /// Reads what `nft -j -a list ruleset` prints.
    ///
    /// # Errors
    /// It is something else.
    pub fn parse(text: &str) -> Result<Self, RulesetError> {
        let listing: Value = serde_json::from_str(text)?;
        let objects = listing.get("nftables").and_then(Value::as_array);
        let mut ruleset = Self::default();
        for object in objects.ok_or(RulesetError::Shape)? {
            for (kind, object) in object.as_object().into_iter().flatten() {
                ruleset.add(kind, object);
            }
        }
        Ok(ruleset)
    }

    fn add(&mut self, kind: &str, object: &Value) {
        let text = |name: &str| object.get(name).and_then(Value::as_str).map(str::to_owned);
        let name = if kind == "rule" { text("chain") } else { text("name") };
        let (Some(family), Some(table), Some(name)) = (text("family"), text("table"), name) else {
            return;
        };
        if family == "inet" && table == TABLE {
            return;
        }
        let place = Place { family, table, name };
        match kind {
            "chain" => {
                let chain = self.chains.entry(place).or_default();
                chain.hook = text("hook");
                chain.is_filter = text("type").as_deref() == Some("filter");
                chain.drops = text("policy").as_deref() == Some("drop");
            }
            "rule" => {
                let statements =
                    object.get("expr").and_then(Value::as_array).cloned().unwrap_or_default();
                let handle = object.get("handle").and_then(Value::as_u64);
                self.chains.entry(place).or_default().rules.push(Rule { handle, statements });
            }
            "set" | "map" => {
                let elements = object.get("elem").and_then(Value::as_array);
                self.sets.insert(place, elements.cloned().unwrap_or_default());
            }
            _ => {}
        }
    }

    /// The base chains that packets of `version` pass at `hook`.
    pub(super) fn base_chains(&self, hook: Hook, version: Version) -> impl Iterator<Item = &Place> {
        let family = match version {
            Version::Four => "ip",
            Version::Six => "ip6",
        };
        let hook = match hook {
            Hook::Forward => "forward",
            Hook::Input => "input",
        };
        self.chains
            .iter()
            .filter(move |(place, chain)| {
                chain.is_filter
                    && chain.hook.as_deref() == Some(hook)
                    && (place.family == family || place.family == "inet")
            })
            .map(|(place, _)| place)
    }

    pub(super) fn chain(&self, place: &Place) -> Option<&Chain> {
        self.chains.get(place)
    }

    pub(super) fn set(&self, place: &Place) -> Option<&[Value]> {
        self.sets.get(place).map(Vec::as_slice)
    }

    /// Whether a table has a chain whose name begins with `prefix`.
    pub(super) fn has_chain(&self, beside: &Place, prefix: &str) -> bool {
        self.chains.keys().any(|place| {
            place.family == beside.family
                && place.table == beside.table
                && place.name.starts_with(prefix)
        })
    }
}
