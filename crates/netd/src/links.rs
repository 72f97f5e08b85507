//! The kernel's news of links that are gone: a guest's port goes with its VMM, whoever is told.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Weak;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

use crate::daemon::Shared;
use crate::watch::watch;

/// `RTMGRP_LINK` (linux/rtnetlink.h).
const LINKS: u32 = 1;
/// Bytes that are read at a time; a message about one link has some 1,500.
const BUFFER: usize = 16 << 10;

/// Tells the daemon of links that are gone, until it is gone itself.
///
/// # Errors
/// The kernel gives no news.
pub(crate) fn follow(daemon: Weak<Shared>) -> io::Result<()> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkRoute,
    )?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, LINKS))?;
    let socket = watch(socket)?;
    tokio::spawn(async move {
        loop {
            let Ok(mut ready) = socket.readable().await else { return };
            match ready.try_io(|socket| gone(socket.get_ref())) {
                Ok(Ok(false)) | Err(_) => {}
                Ok(Ok(true)) => {
                    let Some(daemon) = daemon.upgrade() else { return };
                    daemon.sweep_ports().await;
                }
                Ok(Err(error)) => {
                    tracing::error!("there is no more news of links: {error}");
                    return;
                }
            }
        }
    });
    Ok(())
}

/// Reads all news that wait: whether any of them is that a link is gone.
fn gone(socket: &OwnedFd) -> io::Result<bool> {
    let mut bytes = [0; BUFFER];
    let mut any = false;
    let mut read = 0;
    loop {
        match recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
            Ok(length) => any |= tells_of_end(&bytes[..length]),
            // News was lost: a link's end may have been among it.
            Err(Errno::ENOBUFS) => any = true,
            Err(Errno::EAGAIN) if read > 0 => return Ok(any),
            Err(error) => return Err(error.into()),
        }
        read += 1;
    }
}

/// Whether one of these messages is an RTM_DELLINK.
fn tells_of_end(mut messages: &[u8]) -> bool {
    while let (Some(length), Some(kind)) = (messages.get(..4), messages.get(4..6)) {
        let (Ok(length), Ok(kind)) = (length.try_into(), kind.try_into()) else { return false };
        if u16::from_ne_bytes(kind) == libc::RTM_DELLINK {
            return true;
        }
        let length = usize::try_from(u32::from_ne_bytes(length)).unwrap_or(usize::MAX);
        // At least a header: a length of 0 must not be looked at for ever.
        let next = length.max(16).checked_next_multiple_of(4);
        let Some(rest) = next.and_then(|next| messages.get(next..)) else { return false };
        messages = rest;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, length: u32) -> Vec<u8> {
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10]].concat();
        bytes.resize(bytes.len().max(length.try_into().unwrap()), 0);
        bytes
    }

    #[test]
    fn the_end_of_a_link_is_found_among_other_news() {
        let other = message(libc::RTM_NEWLINK, 32);
        assert!(!tells_of_end(&other));
        assert!(tells_of_end(&[other, message(libc::RTM_DELLINK, 32)].concat()));
    }

    #[test]
    fn broken_lengths_end() {
        assert!(!tells_of_end(&[]));
        assert!(!tells_of_end(&[0; 64]));
        assert!(!tells_of_end(&message(libc::RTM_NEWLINK, 16)[..7]));
        let mut endless = message(libc::RTM_NEWLINK, 16);
        endless[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(!tells_of_end(&endless));
    }
}
