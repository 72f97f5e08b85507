//! The DHCP server's socket, and that of IPv6's services: whole frames on a bridge.
//!
//! A packet socket rather than a UDP one, because a client without an address yet can only be
//! reached by its MAC address (RFC 2131 §4.1), because each reply then leaves with a complete
//! checksum, and because no firewall on the host can lose a guest's DISCOVER.

mod batch;
mod filter;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use vnet_dhcp::{ra, v6};
use vnet_types::IfName;

pub(crate) use self::batch::{Batch, Frames};
pub(crate) use self::filter::instruction;
use crate::watch::watch_input;

/// Bytes that wait in the kernel while a flush to disk is under way: some thousand DISCOVERs.
const RECEIVE_BUFFER: libc::c_int = 8 << 20;

const SERVER_PORT: u16 = 67;

/// linux/if_packet.h; libc has no name for it.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// A packet socket on one link that sees the frames that are for a service and no others.
pub(crate) struct PacketSocket {
    socket: AsyncFd<OwnedFd>,
    /// Keeps the port: without it, the kernel would answer a renewal by an ICMP error beside our
    /// reply. None where another server has the port, and so keeps it. For IPv6, it is a member of
    /// the groups as well.
    _port: Option<Socket>,
}

/// A packet socket that hears nothing yet, and will hear nothing that the host sends.
fn socket() -> io::Result<OwnedFd> {
    // Protocol 0: nothing arrives before the filter stands.
    // SAFETY: no pointer is passed.
    let fd = unsafe {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        libc::socket(libc::AF_PACKET, kind, 0)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: socket() has just made this descriptor, and nothing else knows its number.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    set(&socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)?;
    Ok(socket)
}

/// A socket that only listens: what comes in at `link` and passes `filter`, with so many bytes
/// that may wait.
pub(crate) fn listen(
    link: &IfName,
    filter: &[libc::sock_filter],
    buffer: libc::c_int,
) -> io::Result<AsyncFd<OwnedFd>> {
    let socket = socket()?;
    filter::attach(&socket, filter)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, buffer)?;
    bind(&socket, link, libc::ETH_P_ALL)?;
    watch_input(socket)
}

impl PacketSocket {
    /// One that sees the frames to UDP port 67 and no others.
    pub(crate) fn open(link: &IfName, address: Ipv4Addr) -> io::Result<Self> {
        let socket = Self::open_for(link, libc::ETH_P_IP, &filter::dhcp_requests())?;
        Ok(Self { socket, _port: hold_port(link, address).ok() })
    }

    /// One that sees router solicitations and the frames to DHCPv6's servers and no others.
    pub(crate) fn open_ipv6(link: &IfName) -> io::Result<Self> {
        let socket = Self::open_for(link, libc::ETH_P_IPV6, &filter::ipv6_requests())?;
        Ok(Self { socket, _port: Some(join_groups(link)?) })
    }

    /// One that sees ARP packets and no others.
    pub(crate) fn open_arp(link: &IfName) -> io::Result<Self> {
        let socket = Self::open_for(link, libc::ETH_P_ARP, &[filter::all()])?;
        Ok(Self { socket, _port: None })
    }

    fn open_for(
        link: &IfName,
        protocol: libc::c_int,
        filter: &[libc::sock_filter],
    ) -> io::Result<AsyncFd<OwnedFd>> {
        let socket = socket()?;
        filter::attach(&socket, filter)?;
        set(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
        set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER)
            .or_else(|_| set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER))?;
        bind(&socket, link, protocol)?;
        watch_input(socket)
    }

    /// Waits until a frame can be read.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await?.retain_ready();
        Ok(())
    }

    /// Reads frames that wait, as many as `batch` has room for. It holds none if none wait.
    pub(crate) fn receive(&self, batch: &mut Batch) -> io::Result<()> {
        batch.clear();
        let read = self.socket.try_io(Interest::READABLE, |socket| {
            batch.fill(socket.as_raw_fd())?;
            // Fewer than there is room for: the queue was empty, and the next frame makes the
            // socket readable anew.
            if batch.is_full() { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
        });
        match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            other => other,
        }
    }

    /// Sends one frame. A full queue loses it, as a wire does.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer and the length are those of a slice that outlives the call.
        let sent =
            unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Sends frames in their order, as [`PacketSocket::send`] does each. Says how many were lost,
    /// and why the last of them.
    pub(crate) fn send_all(&self, frames: &Frames) -> Option<(usize, io::Error)> {
        batch::send(self.socket.as_raw_fd(), frames)
    }
}

fn bind(socket: &OwnedFd, link: &IfName, protocol: libc::c_int) -> io::Result<()> {
    let index = nix::net::if_::if_nametoindex(link.as_str())?;
    // SAFETY: sockaddr_ll is plain old data, for which all zeroes is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (protocol as u16).to_be();
    address.sll_ifindex = index.cast_signed();
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address outlives the call, and its size is given.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn set(
    socket: &OwnedFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the option is an int, which outlives the call.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn hold_port(link: &IfName, address: Ipv4Addr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(link.as_str().as_bytes()))?;
    socket.set_reuse_address(true)?;
    filter::attach(&socket, &[filter::nothing()])?;
    socket.bind(&SocketAddrV4::new(address, SERVER_PORT).into())?;
    Ok(socket)
}

/// A member of the groups that guests ask, so that a bridge which looks who listens passes them to
/// the host; on DHCPv6's port, if that is free.
fn join_groups(link: &IfName) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(true)?;
    socket.bind_device(Some(link.as_str().as_bytes()))?;
    socket.set_reuse_address(true)?;
    filter::attach(&socket, &[filter::nothing()])?;
    let index = nix::net::if_::if_nametoindex(link.as_str())?;
    for group in [ra::ALL_ROUTERS, v6::ALL_AGENTS] {
        socket.join_multicast_v6(&group, index)?;
    }
    let address = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, v6::SERVER_PORT, 0, 0);
    // Where another server has the port, it keeps it.
    let _ = socket.bind(&address.into());
    Ok(socket)
}
