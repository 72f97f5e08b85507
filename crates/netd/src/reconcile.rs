//! The loop: observe, plan, execute, observe again.

use std::sync::Arc;

use vnet_api::model::ErrorBody;
use vnet_kernel::{Kernel, Routes};
use vnet_plan::{Desired, Observed, Plan, diff, free_mac, with_mtu};
use vnet_types::NetworkDefinition;

use crate::failure::{conflict, failed, refuse};
use vnet_api::model::ErrorKind;

/// What should be, if these networks should be up, but for where their forwards lead.
pub(crate) fn desired<'a>(
    networks: impl Iterator<Item = &'a Arc<NetworkDefinition>>,
    observed: &Observed,
) -> Desired {
    let with_mac = |network: &Arc<NetworkDefinition>| {
        let mac = free_mac(network, observed);
        (network.name.clone(), (with_mtu(network, observed), mac))
    };
    Desired { networks: networks.map(with_mac).collect(), ..Desired::default() }
}

/// The plan that leads from `observed` to `desired`.
pub(crate) fn plan(desired: &Desired, observed: &Observed) -> Result<Plan, ErrorBody> {
    diff(desired, observed).map_err(|error| conflict(&error))
}

/// Executes `plan`, sees to it that afterwards nothing is left to do for `desired`, and returns
/// what is there then.
///
/// # Errors
/// An operation failed; those before it have happened, and the caller decides where to go from
/// there.
pub(crate) async fn execute(
    kernel: &mut Kernel,
    plan: &Plan,
    desired: &Desired,
) -> Result<Observed, ErrorBody> {
    for operation in &plan.operations {
        kernel.execute(operation).await.map_err(|error| failed(&error))?;
    }
    let observed = kernel.observe(Routes::Skip).await.map_err(|error| failed(&error))?;
    if self::plan(desired, &observed)?.is_empty() {
        return Ok(observed);
    }
    // What no notice has told may be right for all that.
    kernel.forget();
    let observed = kernel.observe(Routes::Skip).await.map_err(|error| failed(&error))?;
    let rest = self::plan(desired, &observed)?;
    if rest.is_empty() {
        return Ok(observed);
    }
    let rest: Vec<_> = rest.operations.iter().map(ToString::to_string).collect();
    Err(refuse(
        ErrorKind::Failed,
        format!(
            "the host did not stay as it was made: something else on it undid this: {}",
            rest.join("; ")
        ),
    ))
}
