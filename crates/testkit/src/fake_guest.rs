//! A guest that is nothing but a frame in, a frame out: on a tap, as a VMM's guest is, or on an
//! interface that exists, beside the kernel's own stack.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, bind, recv,
    send, socket,
};
use tun_tap::{Iface, Mode};
use vnet_types::MacAddr;

use crate::Netns;
use crate::process::poll_any;

/// The longest frame that is read whole.
const FRAME_BYTES: usize = 65_550;

/// Sends and receives raw Ethernet frames.
#[derive(Debug)]
pub struct FakeGuest {
    port: Port,
    mac: MacAddr,
}

#[derive(Debug)]
enum Port {
    Tap(Iface),
    Packet(OwnedFd),
}

impl FakeGuest {
    /// A guest behind a new tap `name` of `host`, up, and a port of `bridge` where one is named.
    /// The guest's own address is a random one under 52:54:00 (the tap's end on the host has
    /// another). The tap lives as long as the guest.
    ///
    /// # Panics
    /// `/dev/net/tun` is missing, the name is taken, or there is no such bridge.
    #[must_use]
    #[track_caller]
    pub fn on_tap(host: &Netns, name: &str, bridge: Option<&str>) -> Self {
        let tap = host
            .enter(|| Iface::without_packet_info(name, Mode::Tap))
            .unwrap_or_else(|error| panic!("cannot make the tap {name}: {error}"));
        // SAFETY: the descriptor is the tap's, which is open for as long as `tap` lives.
        let fd = unsafe { BorrowedFd::borrow_raw(tap.as_raw_fd()) };
        // Children must not keep the tap alive; the crate opens it without O_CLOEXEC.
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("a tap can be closed on exec");
        fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a tap can be made non-blocking");
        host.up(tap.name());
        if let Some(bridge) = bridge {
            host.enslave(tap.name(), bridge);
        }
        Self { port: Port::Tap(tap), mac: random_mac() }
    }

    /// A guest on the interface `ifname` of `ns`, with its address. The kernel's stack in `ns` sees
    /// the same frames and may answer too. Frames that it sends are seen as well.
    ///
    /// # Panics
    /// There is no such interface.
    #[must_use]
    #[track_caller]
    pub fn on(ns: &Netns, ifname: &str) -> Self {
        let opened = ns.enter(|| packet_socket(ifname));
        let fd = opened.unwrap_or_else(|error| panic!("cannot listen on {ifname}: {error}"));
        Self { port: Port::Packet(fd), mac: ns.mac(ifname) }
    }

    /// The guest's own address.
    #[must_use]
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    /// Sends a frame as it is, whatever it claims.
    ///
    /// # Panics
    /// The interface is down or gone, or the frame is longer than its MTU.
    #[track_caller]
    pub fn send(&self, frame: &[u8]) {
        let sent = match &self.port {
            Port::Tap(tap) => tap.send(frame),
            Port::Packet(fd) => {
                send(fd.as_raw_fd(), frame, MsgFlags::empty()).map_err(io::Error::from)
            }
        };
        match sent {
            Ok(length) => assert_eq!(length, frame.len(), "the frame was cut"),
            Err(error) => panic!("the frame cannot be sent: {error}"),
        }
    }

    /// The next frame that arrives before `deadline`.
    ///
    /// # Panics
    /// The interface is gone.
    pub fn receive(&self, deadline: Instant) -> Option<Vec<u8>> {
        let mut buffer = vec![0; FRAME_BYTES];
        loop {
            let received = match &self.port {
                Port::Tap(tap) => tap.recv(&mut buffer),
                Port::Packet(fd) => {
                    recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty()).map_err(io::Error::from)
                }
            };
            match received {
                Ok(length) => {
                    buffer.truncate(length);
                    return Some(buffer);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll_any([self.fd()], deadline).expect("a descriptor of ours can be polled")?;
                }
                Err(error) => panic!("no frames can be received: {error}"),
            }
        }
    }

    /// The first frame within `patience` of which `wanted` says so; others before it are dropped.
    pub fn seen(
        &self,
        patience: Duration,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> Option<Vec<u8>> {
        let deadline = Instant::now() + patience;
        loop {
            let frame = self.receive(deadline)?;
            if wanted(&frame) {
                return Some(frame);
            }
            // A flood of other frames must not keep us here for ever.
            if Instant::now() >= deadline {
                return None;
            }
        }
    }

    /// Waits for a frame that `read` can make something of, and gives that back.
    ///
    /// # Panics
    /// There is none within `patience`; the message has `what`.
    #[track_caller]
    pub fn wait_for<T>(
        &self,
        what: &str,
        patience: Duration,
        mut read: impl FnMut(&[u8]) -> Option<T>,
    ) -> T {
        let mut found = None;
        self.seen(patience, |frame| {
            found = read(frame);
            found.is_some()
        });
        match found {
            Some(value) => value,
            None => panic!("no {what} within {patience:?}"),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match &self.port {
            // SAFETY: the descriptor is the tap's, which lives as long as the borrow of `self`.
            Port::Tap(tap) => unsafe { BorrowedFd::borrow_raw(tap.as_raw_fd()) },
            Port::Packet(fd) => fd.as_fd(),
        }
    }
}

/// A unicast address under 52:54:00. Random, not counted: servers that derive addresses from MACs
/// give neighbouring ones to neighbours, and may offer one address twice.
#[must_use]
pub fn random_mac() -> MacAddr {
    use std::hash::{BuildHasher, RandomState};
    let bytes = RandomState::new().hash_one(Instant::now()).to_le_bytes();
    MacAddr([0x52, 0x54, 0, bytes[0], bytes[1], bytes[2]])
}

/// A socket for all frames on an interface of this thread's namespace.
fn packet_socket(ifname: &str) -> io::Result<OwnedFd> {
    let index = if_nametoindex(ifname)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET.try_into().map_err(io::Error::other)?,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: index.try_into().map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of::<libc::sockaddr_ll>().try_into().map_err(io::Error::other)?;
    // SAFETY: the pointer is to a whole sockaddr_ll of this length with its family set; it is read
    // and copied, nothing else.
    let address = unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(length)) }
        .ok_or_else(|| io::Error::other("no address of AF_PACKET"))?;
    bind(fd.as_raw_fd(), &address)?;
    Ok(fd)
}
