//! The thin layer between plans and the kernel: it observes, and does what an operation says.
//! Nothing is decided here.
//!
//! | module | speaks to the kernel through |
//! |---|---|
//! | `mirror` | rtnetlink's notices: links, addresses, foreign routes as they are |
//! | `netlink` | rtnetlink: links, addresses, routes, read and changed |
//! | `neighbours` | rtnetlink: who has answered at an IPv6 address |
//! | `outlet` | rtnetlink: one lookup of a route |
//! | `uplink`, `move_uplink` | rtnetlink as bytes: a host's own network, moved in one burst |
//! | `resolved` | D-Bus, through busctl: what systemd-resolved has for a link |
//! | `nft` | libnftables, one transaction a run |
//! | `nftables` | nfnetlink's notices: are our tables as we left them? |
//! | `nfnetlink` | nfnetlink: does anybody else decide about packets? has anybody changed a rule? |
//! | `shape` | rtnetlink as bytes: queues with a rate |
//! | `sysctl` | `/proc/sys` |
//! | `ledger` | a file: what is ours |
//! | `notices` | rtnetlink and nfnetlink: somebody has changed something |
//!
//! A [`Kernel`] belongs to the network namespace in which it was opened.

mod attributes;
mod execute;
mod ledger;
mod mirror;
mod move_uplink;
mod neighbours;
mod netlink;
mod nfnetlink;
mod nft;
mod nftables;
mod notices;
mod observe;
mod outlet;
mod resolved;
mod shape;
mod sysctl;
mod uplink;

use std::path::PathBuf;

use vnet_plan::Ledger;

pub use execute::{ExecuteError, milestone};
pub use ledger::LedgerError;
pub use move_uplink::{FoundJournal, MoveError, read_journal, read_journals};
pub use netlink::NetlinkError;
pub use nft::NftError;
pub use notices::Watch;
pub use observe::{ForeignError, ObserveError, Routes};
pub use resolved::{ResolvedError, set as set_resolver};

/// The kernel's side of the loop: observe, execute, observe again.
#[derive(Debug)]
pub struct Kernel {
    rtnetlink: uplink::Rtnetlink,
    mirror: mirror::Mirror,
    nfnetlink: nfnetlink::Nfnetlink,
    nftables: nftables::Nftables,
    nft: nft::Nft,
    ledger: ledger::LedgerFile,
}

/// Why the kernel cannot be spoken to at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No netlink socket.
    #[error("cannot open a netlink socket")]
    Netlink(#[source] std::io::Error),
    /// No thread for the firewall.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    /// The ledger cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Kernel {
    /// Opens the kernel of this thread's network namespace, with the ledger in the file
    /// `ledger`, which need not exist yet.
    ///
    /// # Errors
    /// No netlink, or a ledger that is there and cannot be read.
    pub fn open(ledger: PathBuf) -> Result<Self, OpenError> {
        Ok(Self {
            rtnetlink: uplink::Rtnetlink::open().map_err(OpenError::Netlink)?,
            mirror: mirror::Mirror::open().map_err(OpenError::Netlink)?,
            nfnetlink: nfnetlink::Nfnetlink::open().map_err(OpenError::Netlink)?,
            nftables: nftables::Nftables::open().map_err(OpenError::Netlink)?,
            nft: nft::Nft::new().map_err(OpenError::Thread)?,
            ledger: ledger::LedgerFile::open(ledger)?,
        })
    }

    /// Listens to what changes from now on. To be called within a tokio runtime.
    ///
    /// # Errors
    /// A netlink socket cannot be had.
    pub fn watch(&self) -> std::io::Result<Watch> {
        let (nftables, missed) = self.nftables.wakes()?;
        Watch::new(self.mirror.wakes()?, nftables, missed)
    }

    /// What we remember to be ours.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        self.ledger.get()
    }

    /// Sees whether the ledger can be written, before something is begun that has to.
    ///
    /// # Errors
    /// It cannot.
    pub fn probe_ledger(&mut self) -> Result<(), LedgerError> {
        self.ledger.probe()
    }

    /// Changes the ledger, on disk before in memory.
    ///
    /// # Errors
    /// The file cannot be written; the ledger is as it was.
    pub fn change_ledger(&mut self, change: impl FnOnce(&mut Ledger)) -> Result<(), LedgerError> {
        self.ledger.change(change)
    }
}
