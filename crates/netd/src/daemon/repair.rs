//! One look at the networks that should be up, and the repair of what is missing of them.

use std::collections::BTreeSet;

use vnet_api::model::ErrorBody;
use vnet_kernel::Routes;
use vnet_plan::{Desired, Observed, Operation, Plan, conflicts};
use vnet_types::NetworkName;

use super::{Daemon, Shared};
use crate::failure::failed;
use crate::reconcile;
use crate::repair::{Outcome, Patience};
use crate::services::Farewell;

/// What has to be done.
struct Damage {
    plan: Plan,
    /// Networks whose services have died.
    dead: BTreeSet<NetworkName>,
    /// Networks that the damage is to.
    networks: BTreeSet<NetworkName>,
}

impl Shared {
    /// Looks whether all networks that should be up are whole, and puts back what is missing.
    /// Where patience is lost, that is to be seen from the outside.
    pub(crate) async fn repair(&self, patience: Patience) -> Outcome {
        self.daemon.lock().await.repair(patience).await
    }
}

impl Daemon {
    async fn repair(&mut self, patience: Patience) -> Outcome {
        let bridged = self.repair_bridged(patience).await;
        self.repair_others(patience).await.max(bridged)
    }

    async fn repair_others(&mut self, patience: Patience) -> Outcome {
        self.damaged.extend(self.unserved.iter().cloned());
        // Whom a person has stopped or started meanwhile is no longer among the failed.
        self.damaged.retain(|name| self.failed.contains_key(name));
        let mut up = self.up();
        up.extend(self.damaged.iter().cloned());
        if up.is_empty() && self.bridged.is_idle() {
            return Outcome::Whole;
        }
        let observed = match self.observe(Routes::Skip).await {
            Ok(observed) => observed,
            Err(error) => {
                self.declare_damaged(&up, &error.message);
                return Outcome::Failed;
            }
        };
        // What others have put in a network's way isn't ours to remove.
        let conflicts = conflicts(&self.desired(&up, &observed), &observed);
        for (name, conflict) in &conflicts {
            self.declare_damaged(&BTreeSet::from([name.clone()]), &conflict.to_string());
            up.remove(name);
        }
        let outcome = self.repair_all(&up, &observed, patience).await;
        if conflicts.is_empty() { outcome } else { Outcome::Failed }
    }

    async fn repair_all(
        &mut self,
        up: &BTreeSet<NetworkName>,
        observed: &Observed,
        patience: Patience,
    ) -> Outcome {
        let damage = match self.damage(up, observed) {
            Ok(Some(damage)) => damage,
            Ok(None) => {
                if let Err(error) = self.adapt(up, observed).await {
                    tracing::error!("networks cannot follow their uplink: {}", error.message);
                    return Outcome::Failed;
                }
                // In the middle of a fight, a moment without damage says nothing.
                if patience == Patience::Left {
                    self.declare_whole(up);
                }
                return Outcome::Whole;
            }
            Err(error) => {
                self.declare_damaged(up, &error.message);
                return Outcome::Failed;
            }
        };
        if let Err(error) = self.put_up_again(up, observed).await {
            tracing::warn!("something else on this host has undone this: {damage}");
            self.declare_damaged(&damage.networks, &error.message);
            return Outcome::Failed;
        }
        tracing::warn!("something else on this host has undone this, now done again: {damage}");
        match patience {
            Patience::Left => self.declare_whole(up),
            Patience::Lost => {
                let reason = format!(
                    "something else on this host undoes again and again what vnet puts back \
                     ({damage}): find out what does (`nft monitor` and `ip monitor` show when); \
                     vnet tries on, once a minute in the end"
                );
                self.declare_damaged(&damage.networks, &reason);
            }
        }
        Outcome::Repaired
    }

    /// What the host has become needs no repair, but other values in places.
    async fn adapt(
        &mut self,
        up: &BTreeSet<NetworkName>,
        observed: &Observed,
    ) -> Result<(), ErrorBody> {
        let plan = reconcile::plan(&self.desired(up, observed), observed)?;
        if has_other_mtu(&plan, observed) {
            tracing::info!("an uplink has changed: {}", in_words(&plan.operations));
            self.shape(up, observed).await?;
            return Ok(());
        }
        // A link that has come lately, and lives on router advertisements.
        for step in plan.operations.iter().filter(|step| is_for_advertisements(step)) {
            tracing::info!("a link has come: {step}");
            self.kernel.execute(step).await.map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    async fn put_up_again(
        &mut self,
        up: &BTreeSet<NetworkName>,
        observed: &Observed,
    ) -> Result<(), ErrorBody> {
        let (_, observed) = self.shape(up, observed).await?;
        let dead = self.dead_services(&self.desired(up, &observed), &observed);
        for name in &dead {
            if let Some(services) = self.running.remove(name) {
                services.stop(Farewell::Omit).await;
            }
            // Until they run, they are among those that are to.
            self.unserved.insert(name.clone());
            self.serve(name, &observed).await?;
            self.unserved.remove(name);
        }
        Ok(())
    }

    fn damage(
        &self,
        up: &BTreeSet<NetworkName>,
        observed: &Observed,
    ) -> Result<Option<Damage>, ErrorBody> {
        let desired = self.desired(up, observed);
        let plan = reconcile::plan(&desired, observed)?;
        let dead = self.dead_services(&desired, observed);
        // A table that only wants an update is as we left it: forwards follow their guests. So do
        // networks their uplink's MTU.
        let moved = has_other_mtu(&plan, observed);
        let is_damage = |step: &Operation| !is_adaptation(step, moved);
        if !plan.operations.iter().any(is_damage) && dead.is_empty() {
            return Ok(None);
        }
        let networks = affected(&plan, &desired).union(&dead).cloned().collect();
        Ok(Some(Damage { plan, dead, networks }))
    }

    fn dead_services(&self, desired: &Desired, observed: &Observed) -> BTreeSet<NetworkName> {
        let index = |bridge: &str| observed.links.get(bridge).map(|link| link.index);
        desired
            .networks
            .iter()
            .filter(|(name, (network, _))| match index(network.bridge.as_str()) {
                Some(index) => {
                    self.running.get(*name).is_none_or(|services| !services.are_alive(index))
                }
                // The bridge is to be made first, and that is said.
                None => false,
            })
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn declare_damaged(&mut self, networks: &BTreeSet<NetworkName>, reason: &str) {
        for name in networks {
            if self.failed.get(name).is_none_or(|present| present != reason) {
                tracing::error!("network {name} does not stay whole: {reason}");
            }
            self.failed.insert(name.clone(), reason.to_owned());
            self.damaged.insert(name.clone());
        }
    }

    fn declare_whole(&mut self, up: &BTreeSet<NetworkName>) {
        for name in up.iter().filter(|name| self.damaged.remove(*name)) {
            tracing::info!("network {name} is whole again");
            self.failed.remove(name);
        }
    }
}

/// Whether the step follows a change of the host that is nobody's mistake. `moved` says whether
/// an uplink has another MTU.
fn is_adaptation(step: &Operation, moved: bool) -> bool {
    match step {
        Operation::UpdateFirewall { .. } => true,
        step if is_for_advertisements(step) => true,
        Operation::SetMtu { .. } | Operation::Claim { .. } => moved,
        _ => false,
    }
}

fn is_for_advertisements(step: &Operation) -> bool {
    matches!(step, Operation::RememberAcceptRa { .. } | Operation::RaiseAcceptRa { .. })
}

/// Whether a bridge that is there is to be claimed anew, for its MTU alone.
fn has_other_mtu(plan: &Plan, observed: &Observed) -> bool {
    plan.operations.iter().any(|step| {
        let Operation::Claim { bridge, claim } = step else { return false };
        observed
            .ledger
            .bridges
            .get(bridge)
            .is_some_and(|before| before.network.is_but_for_mtu(&claim.network))
    })
}

fn in_words(operations: &[Operation]) -> String {
    operations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The networks that an operation is about: by their bridges, or else all.
fn affected(plan: &Plan, desired: &Desired) -> BTreeSet<NetworkName> {
    let link = |operation: &Operation| match operation {
        Operation::Claim { bridge, .. } | Operation::Enslave { bridge, .. } => Some(bridge.clone()),
        Operation::CreateBridge { name, .. } => Some(name.clone()),
        Operation::SetAlias { link, .. }
        | Operation::SetMtu { link, .. }
        | Operation::AddAddress { link, .. }
        | Operation::SetUp { link }
        | Operation::Forward6On { link }
        | Operation::EnableIpv6 { link }
        | Operation::DisableIpv6 { link } => Some(link.clone()),
        _ => None,
    };
    let links: Vec<_> = plan.operations.iter().map(link).collect();
    desired
        .networks
        .values()
        .filter(|(network, _)| {
            links.iter().any(|link| link.as_ref().is_none_or(|link| *link == network.bridge))
        })
        .map(|(network, _)| network.name.clone())
        .collect()
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let services = self.dead.iter().map(|name| format!("serve DHCP and DNS on {name}"));
        let steps = self.plan.operations.iter().map(ToString::to_string).chain(services);
        f.write_str(&steps.collect::<Vec<_>>().join("; "))
    }
}
