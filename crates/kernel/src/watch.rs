//! What the kernel says by itself: that links, addresses, forwarding, queues, default routes or
//! nftables have changed.
//!
//! A notice is only the reason to look: what it says is not read. So nothing is lost when the
//! kernel drops notices because too many wait (ENOBUFS), and a forged one does no harm. Of a
//! notice about a route, only the length of its prefix is: a router learns routes all the time,
//! and only a default route can be the way to the outside.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::unix::AsyncFd;

/// `RTNLGRP_IPV4_NETCONF` (linux/rtnetlink.h): says, among others, that `ip_forward` has changed.
const IPV4_NETCONF: u32 = 1 << (24 - 1);
/// `RTNLGRP_TC`: queueing disciplines, which limit rates.
const TC: u32 = 1 << (4 - 1);
/// `RTNLGRP_IPV4_ROUTE`.
const ROUTES: u32 = 1 << (7 - 1);
/// `RTNLGRP_IPV6_NETCONF`: the same for IPv6.
const IPV6_NETCONF: u32 = 1 << (25 - 1);
/// `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h).
const NFTABLES: u32 = 1 << (7 - 1);
/// Notices that are thrown away in one go, at most: the task must come to an end.
const DRAIN: usize = 4096;

/// Listens to the kernel's notices in one network namespace.
#[derive(Debug)]
pub struct Watch {
    route: AsyncFd<OwnedFd>,
    netfilter: AsyncFd<OwnedFd>,
    routes: AsyncFd<OwnedFd>,
}

impl Watch {
    /// Begins to listen in this thread's network namespace. To be called within a tokio runtime.
    ///
    /// # Errors
    /// A netlink socket cannot be had.
    pub fn open() -> io::Result<Self> {
        let addresses = libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        let route = (libc::RTMGRP_LINK | addresses).cast_unsigned();
        let route = route | IPV4_NETCONF | IPV6_NETCONF | TC;
        Ok(Self {
            route: subscribe(SockProtocol::NetlinkRoute, route)?,
            netfilter: subscribe(SockProtocol::NetlinkNetFilter, NFTABLES)?,
            routes: subscribe(SockProtocol::NetlinkRoute, ROUTES)?,
        })
    }

    /// Waits until something may have changed since the last call, whoever did it.
    ///
    /// # Errors
    /// The sockets are broken.
    pub async fn changed(&self) -> io::Result<()> {
        tokio::select! {
            result = drain(&self.route, |_| true) => result,
            result = drain(&self.netfilter, |_| true) => result,
            result = drain(&self.routes, is_default_route) => result,
        }
    }
}

fn subscribe(protocol: SockProtocol, groups: u32) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    // SAFETY: an OwnedFd is always the same open descriptor, and lives as long as the AsyncFd that
    // owns it.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

/// Whether the notice is about a route to everywhere.
fn is_default_route(notice: &[u8]) -> bool {
    // The byte behind the family, the first of `rtmsg` behind `nlmsghdr`.
    notice.get(17) == Some(&0)
}

/// Waits for a notice that `counts`, and throws away all that wait.
async fn drain(socket: &AsyncFd<OwnedFd>, counts: impl Fn(&[u8]) -> bool) -> io::Result<()> {
    loop {
        let mut ready = socket.readable().await?;
        match ready.try_io(|socket| discard(socket.as_raw_fd(), &counts)) {
            Ok(Ok(true)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            // None of them counted, or nothing was there after all.
            Ok(Ok(false)) | Err(_) => {}
        }
    }
}

/// Throws away the notices that wait, and says whether one of them counted; `WouldBlock` if there
/// were none.
fn discard(socket: i32, counts: impl Fn(&[u8]) -> bool) -> io::Result<bool> {
    // The beginning of each is enough: the rest of the datagram goes with it.
    let mut beginning = [0; 18];
    let mut any = false;
    for round in 0..DRAIN {
        match recv(socket, &mut beginning, MsgFlags::empty()) {
            Ok(length) => any |= counts(&beginning[..length]),
            // There were too many to keep, and so there has been a change.
            Err(Errno::ENOBUFS) => any = true,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if round > 0 => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(any)
}
