//! What the kernel says by itself: that links, addresses, forwarding, queues, default routes or
//! nftables have changed.
//!
//! A notice is only the reason to look. Those about links and addresses are read by the
//! [mirror](crate::mirror), those of nftables by [`Nftables`](crate::nftables::Nftables), at the
//! look; of the others nothing is but, of one about a route, the length of its prefix: a router learns routes all the time, and only a default route can be the
//! way to the outside. So nothing is lost when the kernel drops notices because too many wait
//! (ENOBUFS).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt,
    socket, sockopt,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

/// `RTNLGRP_IPV4_NETCONF` and `RTNLGRP_IPV6_NETCONF` (linux/rtnetlink.h): say, among others, that
/// a link's forwarding has changed.
const NETCONF: u32 = 1 << (24 - 1) | 1 << (25 - 1);
/// Links, addresses, forwarding.
pub(crate) const HOST: u32 =
    (libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR).cast_unsigned()
        | NETCONF;
/// `RTNLGRP_IPV4_ROUTE` and `RTNLGRP_IPV6_ROUTE`.
pub(crate) const ROUTES: u32 = 1 << (7 - 1) | 1 << (11 - 1);
/// `nlmsghdr`.
const HEADER: usize = 16;
/// `RTNLGRP_TC`: queueing disciplines, which limit rates.
pub(crate) const TC: u32 = 1 << (4 - 1);
/// `RTNLGRP_IPV4_ROUTE`.
const ROUTES4: u32 = 1 << (7 - 1);
/// Room for notices that wait, in bytes.
const ROOM: usize = 4 << 20;
/// Notices that are thrown away in one go, at most: the task must come to an end.
const DRAIN: usize = 4096;

/// Listens to the kernel's notices in one network namespace.
#[derive(Debug)]
pub struct Watch {
    host: AsyncFd<OwnedFd>,
    queues: AsyncFd<OwnedFd>,
    routes: AsyncFd<OwnedFd>,
    nftables: AsyncFd<OwnedFd>,
    missed: Arc<Notify>,
}

impl Watch {
    /// `host` becomes readable when links, addresses or forwarding change, and is read by others.
    /// So does `nftables` when rules change; `missed` tells of changes that were not heard.
    pub(crate) fn new(host: OwnedFd, nftables: OwnedFd, missed: Arc<Notify>) -> io::Result<Self> {
        Ok(Self {
            host: register(host)?,
            queues: register(subscribe(SockProtocol::NetlinkRoute, TC)?)?,
            routes: register(subscribe(SockProtocol::NetlinkRoute, ROUTES4)?)?,
            nftables: register(nftables)?,
            missed,
        })
    }

    /// Waits until something may have changed since the last call, whoever did it.
    ///
    /// # Errors
    /// The sockets are broken.
    pub async fn changed(&self) -> io::Result<()> {
        tokio::select! {
            ready = self.host.readable() => {
                ready?.clear_ready();
                Ok(())
            }
            result = drain(&self.queues, |_| true) => result,
            ready = self.nftables.readable() => {
                ready?.clear_ready();
                Ok(())
            }
            result = drain(&self.routes, is_default_route) => result,
            () = self.missed.notified() => Ok(()),
        }
    }
}

/// A socket that hears these groups, given as bits, and does not block.
pub(crate) fn subscribe(protocol: SockProtocol, groups: u32) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    // As much as we may have: what does not fit costs a look at everything.
    if setsockopt(&fd, sockopt::RcvBufForce, &ROOM).is_err() {
        setsockopt(&fd, sockopt::RcvBuf, &ROOM)?;
    }
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(fd)
}

fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
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

/// One notice.
pub(crate) enum Notice<'a> {
    /// Its type, and its body.
    Message(u16, &'a [u8]),
    /// There were some that were lost.
    Lost,
}

/// The next notice that waits, if there is one.
pub(crate) fn next<'a>(socket: &OwnedFd, buffer: &'a mut [u8]) -> io::Result<Option<Notice<'a>>> {
    let length = loop {
        // The length is that of the notice, even if the buffer is too short for it.
        match recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC) {
            Ok(length) => break length,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(Errno::ENOBUFS) => return Ok(Some(Notice::Lost)),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    };
    let kind = buffer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    Ok(match (kind, buffer.get(HEADER..length)) {
        (Some(kind), Some(body)) => Some(Notice::Message(kind, body)),
        _ => Some(Notice::Lost),
    })
}
