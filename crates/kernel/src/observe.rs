//! From the kernel to an [`Observed`].

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use serde_json::Value;
use vnet_plan::foreign::{Ruleset, RulesetError};
use vnet_plan::{FORWARD6, Firewall, FirewallState, IP_FORWARD, Observed, TABLE, may_be_shaped};

use crate::netlink::NetlinkError;
use crate::nfnetlink::Nfnetlink;
use crate::nft::NftError;
use crate::{Kernel, TableMemory, sysctl};

/// Why the state cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// Links, addresses or routes.
    #[error("cannot read the host's links, addresses and routes")]
    Netlink(#[from] NetlinkError),
    /// The firewall.
    #[error("cannot read the nftables tables inet vnet and bridge vnet")]
    Nft(#[from] NftError),
    /// The number of the last change of the firewall.
    #[error("cannot ask nf_tables for its state: is the module nf_tables loaded?")]
    Generation(#[source] io::Error),
    /// A sysctl.
    #[error("cannot read the sysctl {IP_FORWARD}")]
    Sysctl(#[source] io::Error),
}

/// Why the rules of others cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum ForeignError {
    /// They cannot be listed.
    #[error("cannot list the rules of others")]
    Nft(#[from] NftError),
    /// The listing cannot be read.
    #[error("cannot read the rules of others")]
    Ruleset(#[from] RulesetError),
}

/// Whether the routes are wanted: only choices of subnets look at them, and there can be many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routes {
    /// All of them, but for those by links of ours.
    Read,
    /// None.
    Skip,
}

impl Kernel {
    /// Has the next look see everything, also what no notice tells.
    pub fn forget(&mut self) {
        self.mirror.forget();
    }

    /// The present state.
    ///
    /// # Errors
    /// The kernel does not answer, or nft is missing.
    pub async fn observe(&mut self, routes: Routes) -> Result<Observed, ObserveError> {
        let ledger = self.ledger.get().clone();
        let (links, addresses) =
            self.mirror.look(&mut self.rtnetlink).map_err(NetlinkError::Refused)?;
        let (links, addresses) = (links.clone(), addresses.clone());
        let routes = match routes {
            Routes::Read => {
                self.mirror.routes(&mut self.rtnetlink).map_err(NetlinkError::Refused)?
            }
            Routes::Skip => Arc::default(),
        };
        let ipv6 = sysctl::has_ipv6();
        let forward = sysctl::read(IP_FORWARD).map_err(ObserveError::Sysctl)?;
        let mut sysctls = BTreeMap::from([(IP_FORWARD.to_owned(), forward)]);
        if ipv6 && let Ok(forward) = sysctl::read(FORWARD6) {
            sysctls.insert(FORWARD6.to_owned(), forward);
        }
        let firewall = self.firewall_state().await?;
        let outlet = self.rtnetlink.outlet().map_err(NetlinkError::Refused)?;
        let shapes = match may_be_shaped(&links, &ledger) {
            true => self.mirror.shapes(&mut self.rtnetlink).map_err(NetlinkError::Refused)?,
            false => Arc::default(),
        };
        Ok(Observed { links, addresses, routes, outlet, shapes, ipv6, sysctls, firewall, ledger })
    }

    /// The state of our tables alone.
    ///
    /// # Errors
    /// The kernel does not answer, or nft is missing.
    pub async fn firewall_state(&mut self) -> Result<FirewallState, ObserveError> {
        let generation = self.nfnetlink.generation().map_err(ObserveError::Generation)?;
        if let Some(memory) = &self.table
            && memory.generation == generation
        {
            return Ok(memory.state());
        }
        let Some(listing) = self.list_tables().await? else {
            let firewall = Firewall::default();
            self.table = Some(TableMemory { firewall, generation, listing: None });
            return Ok(FirewallState::Absent);
        };
        match &mut self.table {
            Some(memory) if memory.listing.as_ref() == Some(&listing) => {
                memory.generation = generation;
                Ok(memory.state())
            }
            _ => {
                self.table = None;
                Ok(FirewallState::Altered)
            }
        }
    }

    /// Notes that our tables hold `firewall` since now. `before` is the number of the last change
    /// before the transaction.
    pub(crate) fn remember_table(
        &mut self,
        firewall: Firewall,
        before: u32,
    ) -> Result<(), ObserveError> {
        let generation = self.nfnetlink.generation().map_err(ObserveError::Generation)?;
        // Where somebody else has changed something meanwhile, nobody knows what.
        let alone = generation == before.wrapping_add(1);
        if !alone {
            self.nftables.has_missed();
        }
        self.table = alone.then_some(TableMemory { firewall, generation, listing: None });
        Ok(())
    }

    /// The rules of others, if there are any that decide about packets to or through the host. A
    /// look at the names of all chains is all that it costs where there are none.
    ///
    /// # Errors
    /// nft fails, or prints something else.
    pub async fn foreign_rules(&mut self) -> Result<Option<Ruleset>, ForeignError> {
        // Where the look fails, the listing tells.
        let look = Nfnetlink::open().and_then(|kernel| kernel.has_foreign_filter(TABLE));
        if look.is_ok_and(|any| !any) {
            return Ok(None);
        }
        let rules = self.nft.run(&Firewall::list_everything()).await?;
        Ok(Some(Ruleset::parse(&rules)?))
    }

    /// Does what makes the next request quicker: reads how nft prints our tables, for later
    /// comparison, if that has not been done since the last change. To be called when there is
    /// time.
    ///
    /// # Errors
    /// nft fails.
    pub async fn settle(&mut self) -> Result<(), ObserveError> {
        let unknown =
            |memory: &TableMemory| memory.listing.is_none() && !memory.firewall.is_empty();
        if !self.table.as_ref().is_some_and(unknown) {
            return Ok(());
        }
        let listing = self.list_tables().await?;
        let generation = self.nfnetlink.generation().map_err(ObserveError::Generation)?;
        if let Some(memory) = &mut self.table
            && memory.generation == generation
        {
            memory.listing = listing;
        }
        Ok(())
    }

    /// Both tables as nft prints them, null for one that isn't there; none if neither is.
    async fn list_tables(&mut self) -> Result<Option<Value>, ObserveError> {
        let mut listings = Vec::new();
        for query in Firewall::list() {
            match self.nft.run(&query).await {
                Ok(text) => {
                    let listing = serde_json::from_str(&text)
                        .map_err(|error| NftError::Output(error.to_string()))?;
                    listings.push(normalised(listing));
                }
                Err(NftError::Refused(reason)) if reason.contains("No such file or directory") => {
                    listings.push(Value::Null);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(listings.iter().any(|listing| !listing.is_null()).then_some(Value::Array(listings)))
    }
}

impl TableMemory {
    fn state(&self) -> FirewallState {
        if self.firewall.is_empty() {
            FirewallState::Absent
        } else {
            FirewallState::Holds(self.firewall.clone())
        }
    }
}

/// The listing without what differs between two tables that do the same: handles, and the order
/// in which the kernel happens to print elements.
fn normalised(mut listing: Value) -> Value {
    match &mut listing {
        Value::Object(fields) => {
            fields.remove("handle");
            for (name, value) in fields.iter_mut() {
                let inner = normalised(value.take());
                *value = match inner {
                    Value::Array(mut elements) if name == "elem" => {
                        elements.sort_by_key(Value::to_string);
                        Value::Array(elements)
                    }
                    other => other,
                };
            }
        }
        Value::Array(values) => {
            for value in values {
                *value = normalised(value.take());
            }
        }
        _ => {}
    }
    listing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_of_equal_tables_are_equal() {
        let one = serde_json::json!({"nftables": [{"set": {"handle": 1, "elem": ["b", "a"]}}]});
        let two = serde_json::json!({"nftables": [{"set": {"handle": 9, "elem": ["a", "b"]}}]});
        let other = serde_json::json!({"nftables": [{"set": {"handle": 9, "elem": ["a"]}}]});
        assert_eq!(normalised(one.clone()), normalised(two));
        assert_ne!(normalised(one), normalised(other));
    }
}
