//! From an operation to the kernel.

use std::io;

use vnet_plan::{FORWARD6, Firewall, IP_FORWARD, Ledger, Operation, Transaction};
use vnet_types::IfName;

use crate::ledger::LedgerError;
use crate::netlink::NetlinkError;
use crate::nft::NftError;
use crate::observe::ObserveError;
use crate::{Kernel, sysctl};

/// Why an operation did not happen.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}")]
pub struct ExecuteError {
    /// The operation in words.
    operation: String,
    /// What the kernel said.
    #[source]
    source: Cause,
}

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error(transparent)]
    Rtnetlink(#[from] io::Error),
    #[error(transparent)]
    Nft(#[from] NftError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Observe(#[from] ObserveError),
    #[error("cannot access {path}")]
    Sysctl {
        path: String,
        #[source]
        source: io::Error,
    },
}

impl ExecuteError {
    /// Whether the cause is that a privilege is missing.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        match &self.source {
            Cause::Netlink(NetlinkError::Refused(error))
            | Cause::Rtnetlink(error)
            | Cause::Sysctl { source: error, .. } => {
                error.kind() == io::ErrorKind::PermissionDenied
            }
            Cause::Nft(NftError::Refused(reason)) => reason.contains("not permitted"),
            _ => false,
        }
    }
}

impl Kernel {
    /// Does what `operation` says.
    ///
    /// # Errors
    /// It did not happen.
    pub async fn execute(&mut self, operation: &Operation) -> Result<(), ExecuteError> {
        tracing::debug!("{operation}");
        let result = self.perform(operation).await;
        #[cfg(debug_assertions)]
        crash_here();
        result.map_err(|source| ExecuteError { operation: operation.to_string(), source })
    }

    async fn perform(&mut self, operation: &Operation) -> Result<(), Cause> {
        let kernel = &mut self.rtnetlink;
        match operation {
            Operation::Claim { bridge, claim } => {
                self.ledger.change(|ledger| {
                    ledger.bridges.insert(bridge.clone(), *claim.clone());
                })?;
            }
            Operation::Disclaim { bridge } => self.ledger.change(|ledger| {
                ledger.bridges.remove(bridge);
            })?,
            Operation::CreateBridge { name, mac } => kernel.create_bridge(name, *mac)?,
            Operation::DeleteLink { name } => kernel.delete_link(name)?,
            Operation::SetAlias { link, alias } => kernel.set_alias(link, &alias.to_string())?,
            Operation::SetMtu { link, mtu } => kernel.set_mtu(link, *mtu)?,
            Operation::Enslave { port, bridge } => {
                let bridge = self.index(bridge)?;
                self.rtnetlink.enslave(port, bridge)?;
            }
            Operation::AddAddress { link, address, prefix } => {
                let link = self.index(link)?;
                self.rtnetlink.add_address(link, *address, *prefix)?;
            }
            Operation::DeleteAddress { link, address, prefix } => {
                let link = self.index(link)?;
                self.rtnetlink.delete_address(link, *address, *prefix)?;
            }
            Operation::SetUp { link } => kernel.set_up(link, true)?,
            Operation::DisableIpv6 { link } => {
                write_sysctl(&format!("net/ipv6/conf/{link}/disable_ipv6"), "1")?;
                self.mirror.forget_settings(link.as_str());
            }
            Operation::EnableIpv6 { link } => {
                // Before there is IPv6, lest the kernel make addresses. 1: it makes none.
                for (key, value) in
                    [("addr_gen_mode", "1"), ("accept_ra", "0"), ("disable_ipv6", "0")]
                {
                    write_sysctl(&format!("net/ipv6/conf/{link}/{key}"), value)?;
                }
                self.mirror.forget_settings(link.as_str());
            }
            Operation::ForwardOn { link } => {
                write_sysctl(&format!("net/ipv4/conf/{link}/forwarding"), "1")?;
            }
            Operation::RouteLoopback { link, on } => {
                let value = if *on { "1" } else { "0" };
                write_sysctl(&format!("net/ipv4/conf/{link}/route_localnet"), value)?;
                self.mirror.forget_settings(link.as_str());
            }
            Operation::Shape { link, bucket } => {
                kernel.shape(link, bucket)?;
            }
            Operation::Unshape { link } => {
                kernel.unshape(link)?;
            }
            Operation::CreateIntake { name, mac } => {
                kernel.create_intake(name, *mac)?;
            }
            Operation::Redirect { link, to } => {
                kernel.redirect(link, to)?;
            }
            Operation::Unredirect { link } => {
                kernel.unredirect(link)?;
            }
            Operation::RememberForwarding => {
                let ours = |name: &str| self.ledger.get().bridges.contains_key(name);
                let values = sysctl::forwarding4(ours).map_err(sysctl_error("net/ipv4/conf"))?;
                self.ledger.change(|ledger| ledger.sysctls = values)?;
            }
            Operation::EnableForwarding => write_sysctl(IP_FORWARD, "1")?,
            Operation::RestoreForwarding => {
                let Ledger { sysctls, .. } = &**self.ledger.get();
                sysctl::restore(IP_FORWARD, sysctls).map_err(sysctl_error(IP_FORWARD))?;
            }
            Operation::ForgetForwarding => self.ledger.change(|ledger| ledger.sysctls.clear())?,
            Operation::RememberForwarding6
            | Operation::RememberAcceptRa { .. }
            | Operation::RaiseAcceptRa { .. }
            | Operation::EnableForwarding6
            | Operation::Forward6On { .. }
            | Operation::RestoreForwarding6
            | Operation::RestoreAcceptRa { .. }
            | Operation::ForgetForwarding6 => self.perform_forwarding6(operation)?,
            Operation::InstallFirewall { firewall } => {
                self.transact(&firewall.install(), firewall).await?;
            }
            Operation::ReplaceFirewall { firewall } => {
                self.transact(&firewall.replace(), firewall).await?;
            }
            Operation::UpdateFirewall { from, to } => self.transact(&from.update(to), to).await?,
            Operation::RemoveFirewall => {
                self.transact(&Firewall::remove(), &Firewall::default()).await?;
            }
        }
        Ok(())
    }

    fn perform_forwarding6(&mut self, operation: &Operation) -> Result<(), Cause> {
        match operation {
            Operation::RememberForwarding6 => {
                let ours = |name: &str| self.ledger.get().bridges.contains_key(name);
                let values = sysctl::forwarding6(ours).map_err(sysctl_error("net/ipv6/conf"))?;
                self.ledger.change(|ledger| ledger.forwarding6 = values)?;
            }
            Operation::RememberAcceptRa { link } => self.ledger.change(|ledger| {
                ledger.accept_ra.insert(link.clone());
            })?,
            Operation::RaiseAcceptRa { link } => {
                write_of_link(link, "accept_ra", "2")?;
                self.mirror.forget_settings(link);
            }
            Operation::RestoreAcceptRa { link } => {
                write_of_link(link, "accept_ra", "1")?;
                self.mirror.forget_settings(link);
            }
            Operation::EnableForwarding6 => write_sysctl(FORWARD6, "1")?,
            Operation::Forward6On { link } => {
                write_sysctl(&format!("net/ipv6/conf/{link}/forwarding"), "1")?;
            }
            Operation::RestoreForwarding6 => {
                let Ledger { forwarding6, .. } = &**self.ledger.get();
                sysctl::restore(FORWARD6, forwarding6).map_err(sysctl_error(FORWARD6))?;
            }
            Operation::ForgetForwarding6 => self.ledger.change(|ledger| {
                ledger.forwarding6.clear();
                ledger.accept_ra.clear();
            })?,
            _ => {}
        }
        Ok(())
    }

    async fn transact(&mut self, transaction: &Transaction, goal: &Firewall) -> Result<(), Cause> {
        let deaf = self.nftables.deafen().map_err(ObserveError::Generation)?;
        let before = self.nfnetlink.generation().map_err(ObserveError::Generation)?;
        let result = self.nft.run(transaction).await;
        drop(deaf);
        if let Err(error) = result {
            self.nftables.forget();
            return Err(error.into());
        }
        Ok(self.remember_table(goal.clone(), before)?)
    }

    fn index(&mut self, link: &IfName) -> Result<u32, NetlinkError> {
        let index = self.mirror.index(link.as_str(), &mut self.rtnetlink)?;
        index.ok_or_else(|| NetlinkError::NoLink(link.to_string()))
    }
}

/// Counts as an operation for the tests of crashes: something that was done without the kernel,
/// as a file that was written.
pub fn milestone() {
    #[cfg(debug_assertions)]
    crash_here();
}

/// Dies as by `kill -9` after as many operations as the environment says. Only debug builds do:
/// their tests go through every such point.
#[cfg(debug_assertions)]
pub(crate) fn crash_here() {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};
    static LEFT: LazyLock<Option<AtomicU32>> = LazyLock::new(|| {
        let left = std::env::var("VNET_CRASH_AFTER").ok()?;
        left.parse().ok().map(AtomicU32::new)
    });
    if let Some(left) = &*LEFT
        && left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        // A signal that is raised by the process itself is delivered before this returns.
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
}

fn write_sysctl(key: &str, value: &str) -> Result<(), Cause> {
    sysctl::write(key, value).map_err(sysctl_error(key))
}

/// Writes a setting of IPv6 of a link that isn't ours, and may just have gone.
fn write_of_link(link: &str, key: &str, value: &str) -> Result<(), Cause> {
    let key = format!("net/ipv6/conf/{link}/{key}");
    match sysctl::write(&key, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(sysctl_error(&key)),
    }
}

fn sysctl_error(key: &str) -> impl FnOnce(io::Error) -> Cause {
    let path = format!("/proc/sys/{key}");
    move |source| Cause::Sysctl { path, source }
}
