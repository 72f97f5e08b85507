//! From the kernel to an [`Observed`].

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use vnet_plan::foreign::{Ruleset, RulesetError};
use vnet_plan::{FORWARD6, Firewall, FirewallState, IP_FORWARD, Observed, TABLE, may_be_shaped};

use crate::netlink::NetlinkError;
use crate::nfnetlink::Nfnetlink;
use crate::nft::NftError;
use crate::{Kernel, nftables, sysctl};

/// Why the state cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// Links, addresses or routes.
    #[error("cannot read the host's links, addresses and routes")]
    Netlink(#[from] NetlinkError),
    /// The firewall.
    #[error("cannot use nftables")]
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
        let known = self.nftables.known(&self.nfnetlink).map_err(ObserveError::Generation)?;
        if let Some(firewall) = known {
            return Ok(match firewall.is_empty() {
                true => FirewallState::Absent,
                false => FirewallState::Holds(firewall.clone()),
            });
        }
        // Rather now than in the middle of a plan.
        self.nft.ready().await?;
        let generation = self.nfnetlink.generation().map_err(ObserveError::Generation)?;
        if nftables::is_there(&self.nfnetlink).map_err(ObserveError::Generation)? {
            return Ok(FirewallState::Altered);
        }
        self.nftables.remember(Firewall::default(), generation);
        Ok(FirewallState::Absent)
    }

    /// What our tables held when we last touched them or looked; none where that is not known.
    /// Costs nothing, and may be out of date where somebody else has changed them since.
    #[must_use]
    pub fn firewall_as_left(&self) -> Option<&Firewall> {
        self.nftables.as_left()
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
        match generation == before.wrapping_add(1) {
            true => self.nftables.remember(firewall, generation),
            false => self.nftables.forget(),
        }
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
}
