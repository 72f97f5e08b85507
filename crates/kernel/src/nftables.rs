//! What is known of our tables: they are as we left them until a notice of nftables tells of a
//! change to one of them, so nobody need list them, however large they are.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::SockProtocol;
use tokio::sync::Notify;
use vnet_plan::{Firewall, TABLE};

use crate::attributes::find;
use crate::nfnetlink::{FAMILIES_OF_OURS, NEW_GENERATION, Nfnetlink, generation_of};
use crate::notices::{Notice, next, subscribe};

/// `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h), by its number.
const GROUP: libc::c_int = 7;
/// In every notice but that of a generation: the name of the table (linux/netfilter/nf_tables.h).
const NAME_OF_TABLE: u16 = 1;
/// `nfgenmsg`.
const HEADER: usize = 4;
/// How long the notices of a change that is made may take, in milliseconds.
const PATIENCE: u16 = 200;
/// Larger than a notice of any rule.
const NOTICE: usize = 32 << 10;

/// Our tables, and the socket that hears of changes.
#[derive(Debug)]
pub(crate) struct Nftables {
    socket: OwnedFd,
    missed: Arc<Notify>,
    memory: Option<Memory>,
    buffer: Vec<u8>,
}

/// How we left our tables.
#[derive(Debug)]
struct Memory {
    /// What they hold; empty where there are none.
    firewall: Firewall,
    /// The number of the last change, of any table, after which it was so.
    generation: u32,
}

impl Nftables {
    pub(crate) fn open() -> io::Result<Self> {
        let socket = subscribe(SockProtocol::NetlinkNetFilter, 0)?;
        let all = Self { socket, missed: Arc::default(), memory: None, buffer: vec![0; NOTICE] };
        set_membership(&all.socket, libc::NETLINK_ADD_MEMBERSHIP)?;
        Ok(all)
    }

    /// A descriptor that becomes readable when rules change, and what tells of changes that were
    /// not heard.
    pub(crate) fn wakes(&self) -> io::Result<(OwnedFd, Arc<Notify>)> {
        Ok((self.socket.try_clone()?, self.missed.clone()))
    }

    /// What our tables held when we last touched them or looked.
    pub(crate) fn as_left(&self) -> Option<&Firewall> {
        self.memory.as_ref().map(|memory| &memory.firewall)
    }

    /// What our tables hold, if they are as we left them.
    ///
    /// # Errors
    /// The kernel does not answer, or has no nf_tables.
    pub(crate) fn known(&mut self, kernel: &Nfnetlink) -> io::Result<Option<&Firewall>> {
        let Some(memory) = &mut self.memory else { return Ok(None) };
        let mut untouched = true;
        while untouched && memory.generation != kernel.generation()? {
            // The number comes last of what is said of a change: until it has come, the rest may
            // not have, either.
            let heard = memory.generation;
            while let Some(notice) = next(&self.socket, &mut self.buffer)? {
                match notice {
                    Notice::Message(NEW_GENERATION, body) => {
                        memory.generation = generation_of(body).unwrap_or(heard);
                    }
                    Notice::Message(_, body) => untouched &= !is_of_ours(body),
                    Notice::Lost => untouched = false,
                }
            }
            if memory.generation == heard {
                let socket = PollFd::new(self.socket.as_fd(), PollFlags::POLLIN);
                untouched &= poll(&mut [socket], PATIENCE)? > 0;
            }
        }
        if !untouched {
            self.memory = None;
        }
        Ok(self.memory.as_ref().map(|memory| &memory.firewall))
    }

    /// Notes that our tables hold `firewall` since the change with this number.
    pub(crate) fn remember(&mut self, firewall: Firewall, generation: u32) {
        self.memory = Some(Memory { firewall, generation });
    }

    /// Has it that nothing is known, and says so.
    pub(crate) fn forget(&mut self) {
        self.memory = None;
        self.missed.notify_one();
    }

    /// Hears nothing until what is returned is dropped. The kernel makes a notice of every set,
    /// rule and element, if only one listens; that takes it as long as the change itself.
    pub(crate) fn deafen(&mut self) -> io::Result<Deaf> {
        // Until it is known what has happened, nothing is known.
        self.memory = None;
        let socket = self.socket.try_clone()?;
        // Should it fail, notices are heard that need not have been.
        let _ = set_membership(&socket, libc::NETLINK_DROP_MEMBERSHIP);
        Ok(Deaf(socket))
    }
}

/// See [`Nftables::deafen`].
pub(crate) struct Deaf(OwnedFd);

impl Drop for Deaf {
    fn drop(&mut self) {
        if let Err(error) = set_membership(&self.0, libc::NETLINK_ADD_MEMBERSHIP) {
            tracing::error!("changes of nftables by others are no longer seen: {error}");
        }
    }
}

/// Whether a notice is about one of our tables.
fn is_of_ours(body: &[u8]) -> bool {
    let name = body.get(HEADER..).and_then(|attributes| find(attributes, NAME_OF_TABLE));
    let is_family = body.first().is_some_and(|family| FAMILIES_OF_OURS.contains(family));
    is_family && name.and_then(|name| name.strip_suffix(&[0])) == Some(TABLE.as_bytes())
}

/// Whether one of our tables is there.
pub(crate) fn is_there(kernel: &Nfnetlink) -> io::Result<bool> {
    for family in FAMILIES_OF_OURS {
        if kernel.has_table(family, TABLE)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn set_membership(socket: &OwnedFd, change: libc::c_int) -> io::Result<()> {
    let group = GROUP;
    let length = size_of_val(&group) as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes from `group`, which has that many.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            change,
            (&raw const group).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::append;

    #[test]
    fn only_what_is_of_our_tables_counts() {
        let notice = |family: u8, name: &[u8]| {
            let mut body = vec![family, 0, 0, 0];
            append(&mut body, NAME_OF_TABLE, name);
            body
        };
        assert!(is_of_ours(&notice(1, b"vnet\0")) && is_of_ours(&notice(7, b"vnet\0")));
        assert!(!is_of_ours(&notice(2, b"vnet\0")) && !is_of_ours(&notice(1, b"vnet0\0")));
        let whole = notice(1, b"vnet\0");
        assert!((0..whole.len() - 3).all(|length| !is_of_ours(&whole[..length])));
    }
}
