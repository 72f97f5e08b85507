//! The kernel's news of links: a guest's port goes with its VMM, whoever is told; and a port with
//! another MTU is its owner's to know.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Weak;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use vnet_plan::uplink::LinkFacts;
use vnet_types::IfName;

use crate::daemon::Shared;
use crate::watch::watch;

/// `RTMGRP_LINK` (linux/rtnetlink.h).
const LINKS: u32 = 1;
/// Bytes that are read at a time; a message about one link has some 1,500.
const BUFFER: usize = 16 << 10;
/// `nlmsghdr`.
const HEADER: usize = 16;

/// What the news is of.
#[derive(Debug, Default, PartialEq, Eq)]
struct News {
    /// A link is gone.
    gone: bool,
    /// These have an MTU, which may be another than before.
    mtus: Vec<(IfName, u32)>,
    /// There was more, which was lost.
    lost: bool,
}

/// Tells the daemon of links that are gone, and their owners of ports with another MTU, until the
/// daemon is gone itself.
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
            match ready.try_io(|socket| read(socket.get_ref())) {
                Err(_) => {}
                Ok(Ok(news)) => {
                    let Some(daemon) = daemon.upgrade() else { return };
                    if news.gone || news.lost {
                        daemon.sweep_ports().await;
                    }
                    let is_news = |(link, mtu): &(_, _)| daemon.owners.is_news(link, *mtu);
                    if news.lost || news.mtus.iter().any(is_news) {
                        daemon.tell_owners().await;
                    }
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

/// Reads all news that wait.
fn read(socket: &OwnedFd) -> io::Result<News> {
    let mut bytes = [0; BUFFER];
    let mut news = News::default();
    let mut reads = 0;
    loop {
        match recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
            Ok(length) => news.take(&bytes[..length]),
            Err(Errno::ENOBUFS) => news.lost = true,
            Err(Errno::EAGAIN) if reads > 0 => return Ok(news),
            Err(error) => return Err(error.into()),
        }
        reads += 1;
    }
}

impl News {
    /// Takes what some messages of rtnetlink say.
    fn take(&mut self, mut messages: &[u8]) {
        while let (Some(length), Some(kind)) = (messages.get(..4), messages.get(4..6)) {
            let (Ok(length), Ok(kind)) = (length.try_into(), kind.try_into()) else { return };
            let length = usize::try_from(u32::from_ne_bytes(length)).unwrap_or(usize::MAX);
            match u16::from_ne_bytes(kind) {
                libc::RTM_DELLINK => self.gone = true,
                libc::RTM_NEWLINK => {
                    let link = messages.get(HEADER..length).and_then(LinkFacts::parse);
                    self.mtus.extend(link.map(|link| (link.id.name, link.mtu)));
                }
                _ => {}
            }
            // At least a header: a length of 0 must not be looked at for ever.
            let next = length.max(HEADER).checked_next_multiple_of(4);
            let Some(rest) = next.and_then(|next| messages.get(next..)) else { return };
            messages = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, length: u32) -> Vec<u8> {
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10]].concat();
        bytes.resize(bytes.len().max(length.try_into().unwrap()), 0);
        bytes
    }

    fn news(bytes: &[u8]) -> News {
        let mut news = News::default();
        news.take(bytes);
        news
    }

    /// RTM_NEWLINK of `eth0` with an MTU of 1400.
    fn eth0() -> Vec<u8> {
        let mut bytes = message(libc::RTM_NEWLINK, 52);
        bytes[32..41].copy_from_slice(b"\x09\0\x03\0eth0\0");
        bytes[44..48].copy_from_slice(&[8, 0, 4, 0]);
        bytes[48..].copy_from_slice(&1400_u32.to_ne_bytes());
        bytes
    }

    #[test]
    fn the_end_of_a_link_and_an_mtu_are_found_among_other_news() {
        let other = message(libc::RTM_NEWLINK, 32);
        assert_eq!(news(&other), News::default());
        let gone = message(libc::RTM_DELLINK, 32);
        let all = news(&[other, gone, eth0()].concat());
        assert!(all.gone);
        assert_eq!(all.mtus, [("eth0".parse().unwrap(), 1400)]);
    }

    #[test]
    fn broken_lengths_end() {
        assert_eq!(news(&[]), News::default());
        assert_eq!(news(&[0; 64]), News::default());
        assert_eq!(news(&message(libc::RTM_NEWLINK, 16)[..7]), News::default());
        let mut endless = message(libc::RTM_NEWLINK, 16);
        endless[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(news(&endless), News::default());
    }
}
