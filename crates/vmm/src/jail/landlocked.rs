//! Landlock: from now on no file can be opened, made, removed or executed, no TCP socket bound or
//! connected, no abstract Unix socket and no process of others reached, as far as the kernel
//! knows how to refuse that.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetError,
    Scope,
};

/// The newest version that we ask for; older kernels do what they can.
const NEWEST: ABI = ABI::V6;

pub(super) fn restrict() -> Result<(), RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .restrict_self()?;
    Ok(())
}
