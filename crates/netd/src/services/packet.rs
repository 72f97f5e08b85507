//! The DHCP server's socket, and that of IPv6's services: whole frames on a bridge.
//!
//! A packet socket rather than a UDP one, because a client without an address yet can only be
//! reached by its MAC address (RFC 2131 §4.1), because each reply then leaves with a complete
//! checksum, and because no firewall on the host can lose a guest's DISCOVER.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;
use vnet_dhcp::frame::Checksum;
use vnet_dhcp::{ra, v6};
use vnet_types::IfName;

use crate::watch::watch;

/// Bytes in the largest frame that is read; a DHCP message is far smaller.
pub(crate) const MAX_FRAME: usize = 9216;
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
    attach(&socket, filter)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, buffer)?;
    bind(&socket, link, libc::ETH_P_ALL)?;
    watch(socket)
}

impl PacketSocket {
    /// One that sees the frames to UDP port 67 and no others.
    pub(crate) fn open(link: &IfName, address: Ipv4Addr) -> io::Result<Self> {
        let socket = Self::open_for(link, libc::ETH_P_IP, &dhcp_requests())?;
        Ok(Self { socket, _port: hold_port(link, address).ok() })
    }

    /// One that sees router solicitations and the frames to DHCPv6's servers and no others.
    pub(crate) fn open_ipv6(link: &IfName) -> io::Result<Self> {
        let socket = Self::open_for(link, libc::ETH_P_IPV6, &ipv6_requests())?;
        Ok(Self { socket, _port: Some(join_groups(link)?) })
    }

    /// One that sees ARP packets and no others.
    pub(crate) fn open_arp(link: &IfName) -> io::Result<Self> {
        let all = instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX);
        Ok(Self { socket: Self::open_for(link, libc::ETH_P_ARP, &[all])?, _port: None })
    }

    fn open_for(
        link: &IfName,
        protocol: libc::c_int,
        filter: &[libc::sock_filter],
    ) -> io::Result<AsyncFd<OwnedFd>> {
        let socket = socket()?;
        attach(&socket, filter)?;
        set(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
        set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER)
            .or_else(|_| set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER))?;
        bind(&socket, link, protocol)?;
        watch(socket)
    }

    /// Waits until a frame can be read.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await?.retain_ready();
        Ok(())
    }

    /// Reads one frame into `frame`: its length, and whether its checksum is complete. None when
    /// there is no more at the moment.
    pub(crate) async fn receive(&self, frame: &mut [u8]) -> io::Result<Option<(usize, Checksum)>> {
        let mut ready = self.socket.readable().await?;
        match ready.try_io(|socket| receive(socket.as_raw_fd(), frame)) {
            Ok(result) => result.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Reads one frame that is there already; None when there is none.
    pub(crate) async fn receive_now(
        &self,
        frame: &mut [u8],
    ) -> io::Result<Option<(usize, Checksum)>> {
        tokio::select! {
            biased;
            received = self.receive(frame) => received,
            () = std::future::ready(()) => Ok(None),
        }
    }

    /// Sends one frame. A full queue loses it, as a wire does.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer and the length are those of a slice that outlives the call.
        let sent =
            unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn receive(socket: libc::c_int, frame: &mut [u8]) -> io::Result<(usize, Checksum)> {
    let mut part = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() };
    // One tpacket_auxdata with its header; 8-byte units for the alignment of cmsghdr.
    let mut control = [0u64; 8];
    // SAFETY: msghdr is plain old data, for which all zeroes is a valid value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: the message points to a buffer, an iovec and a control buffer that outlive the
    // call, with their true sizes.
    let length = unsafe { libc::recvmsg(socket, &raw mut message, 0) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has filled in the control buffer and its length, by which
    // CMSG_FIRSTHDR goes; the data is read as bytes of the size that was checked.
    let status = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        let length = libc::CMSG_LEN(size_of::<libc::tpacket_auxdata>() as u32) as usize;
        if !header.is_null()
            && (*header).cmsg_level == libc::SOL_PACKET
            && (*header).cmsg_type == libc::PACKET_AUXDATA
            && (*header).cmsg_len >= length
        {
            libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned().tp_status
        } else {
            0
        }
    };
    // A frame from another guest of this host may never have had its checksum filled in.
    let partial = status & libc::TP_STATUS_CSUMNOTREADY != 0;
    Ok((length, if partial { Checksum::Trust } else { Checksum::Verify }))
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
    attach(&socket, &[instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0)])?;
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
    attach(&socket, &[instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0)])?;
    let index = nix::net::if_::if_nametoindex(link.as_str())?;
    for group in [ra::ALL_ROUTERS, v6::ALL_AGENTS] {
        socket.join_multicast_v6(&group, index)?;
    }
    let address = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, v6::SERVER_PORT, 0, 0);
    // Where another server has the port, it keeps it.
    let _ = socket.bind(&address.into());
    Ok(socket)
}

/// IPv6, and ICMPv6 of the type router solicitation, or UDP to port 547.
fn ipv6_requests() -> [libc::sock_filter; 11] {
    use libc::{BPF_ABS, BPF_B, BPF_H, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET};
    const ETHERNET: u32 = 14;
    const ETHERTYPE: u32 = 12;
    const NEXT_HEADER: u32 = ETHERNET + 6;
    const CONTENT: u32 = ETHERNET + 40;
    [
        instruction(BPF_LD | BPF_H | BPF_ABS, 0, 0, ETHERTYPE),
        instruction(BPF_JMP | BPF_JEQ | BPF_K, 0, 7, libc::ETH_P_IPV6 as u32),
        instruction(BPF_LD | BPF_B | BPF_ABS, 0, 0, NEXT_HEADER),
        instruction(BPF_JMP | BPF_JEQ | BPF_K, 3, 0, libc::IPPROTO_UDP as u32),
        instruction(BPF_JMP | BPF_JEQ | BPF_K, 0, 4, libc::IPPROTO_ICMPV6 as u32),
        instruction(BPF_LD | BPF_B | BPF_ABS, 0, 0, CONTENT),
        instruction(BPF_JMP | BPF_JEQ | BPF_K, 3, 2, ra::SOLICITATION.into()),
        instruction(BPF_LD | BPF_H | BPF_ABS, 0, 0, CONTENT + 2),
        instruction(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, v6::SERVER_PORT.into()),
        instruction(BPF_RET | BPF_K, 0, 0, 0),
        instruction(BPF_RET | BPF_K, 0, 0, u32::MAX),
    ]
}

pub(crate) fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// IPv4, UDP, no later fragment, to port 67.
fn dhcp_requests() -> [libc::sock_filter; 11] {
    use libc::{
        BPF_ABS, BPF_B, BPF_H, BPF_IND, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_LDX,
        BPF_MSH, BPF_RET,
    };
    const ETHERNET: u32 = 14;
    const ETHERTYPE: u32 = 12;
    const IP_FRAGMENT: u32 = ETHERNET + 6;
    const IP_PROTOCOL: u32 = ETHERNET + 9;
    const UDP_DESTINATION: u32 = ETHERNET + 2;
    [
        instruction(BPF_LD | BPF_H | BPF_ABS, 0, 0, ETHERTYPE),
        instruction(BPF_JMP | BPF_JEQ | BPF_K, 0, 7, libc::ETH_P_IP as u32),
        instruction(BPF_LD | BPF_B | BPF_ABS, 0, 0, IP_PROTOCOL),
        instruction(BPF_JMP | BPF_JEQ | BPF_K, 0, 5, libc::IPPROTO_UDP as u32),
        instruction(BPF_LD | BPF_H | BPF_ABS, 0, 0, IP_FRAGMENT),
        instruction(BPF_JMP | BPF_JSET | BPF_K, 3, 0, 0x1fff),
        instruction(BPF_LDX | BPF_B | BPF_MSH, 0, 0, ETHERNET),
        instruction(BPF_LD | BPF_H | BPF_IND, 0, 0, UDP_DESTINATION),
        instruction(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, SERVER_PORT.into()),
        instruction(BPF_RET | BPF_K, 0, 0, 0),
        instruction(BPF_RET | BPF_K, 0, 0, u32::MAX),
    ]
}

fn attach(socket: &impl AsRawFd, filter: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        // The kernel only reads; the type is older than const.
        filter: filter.as_ptr().cast_mut(),
    };
    let length = size_of_val(&program) as libc::socklen_t;
    // SAFETY: the program and the instructions that it points to outlive the call, which copies
    // them; the length is theirs.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
