//! What a machine reaches, and as whom it is seen there.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6,
    connect as connect_socket, recv, send, socket,
};

use crate::process::poll_readable;
use crate::{Netns, frames};

/// How long an answer may take before the other end counts as out of reach.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest answer that is read.
const ANSWER_BYTES: u64 = 64 << 10;

/// Fetches `/` from an HTTP server of `vnet-outside`, from inside `ns`, and gives back the address
/// and port that the server saw.
///
/// # Errors
/// The server is out of reach within five seconds, or answers something else.
pub fn http_seen_as(ns: &Netns, server: SocketAddr) -> Result<SocketAddr> {
    let mut stream = connect(ns, server)?;
    write!(stream, "GET / HTTP/1.0\r\nHost: {server}\r\n\r\n")?;
    let answer = read_all(stream)?;
    ensure!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{server} answered {answer:?}");
    let (_, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
    you_are(body)
}

/// The address and port as which a TCP connection from `ns` is seen at an echo of `vnet-outside`.
///
/// # Errors
/// As [`http_seen_as`].
pub fn tcp_seen_as(ns: &Netns, server: SocketAddr) -> Result<SocketAddr> {
    you_are(&read_all(connect(ns, server)?)?)
}

/// The address and port as which a datagram from `ns` is seen at an echo of `vnet-outside`.
///
/// # Errors
/// There is no answer within five seconds, or it comes from another address than was asked.
pub fn udp_seen_as(ns: &Netns, server: SocketAddr) -> Result<SocketAddr> {
    let any: SocketAddr = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse()?;
    let socket = ns.enter(|| UdpSocket::bind(any))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // Connected: only the one that was asked can answer.
    socket.connect(server).with_context(|| format!("no way to {server}"))?;
    socket.send(b"who am I?")?;
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).with_context(|| format!("no answer from {server}"))?;
    you_are(&String::from_utf8_lossy(&buffer[..length]))
}

/// Sends an ICMP echo request to `host` from inside `ns` and waits for the answer.
///
/// # Errors
/// There is none within five seconds, or no way there.
pub fn ping(ns: &Netns, host: Ipv4Addr) -> Result<()> {
    let open = || {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Icmp)
    };
    let fd = ns.enter(open).context("no raw socket")?;
    // Raw sockets of a namespace see each other's answers: the id tells them apart.
    let [.., a, b] = crate::random_mac().octets();
    let id = u16::from_be_bytes([a, b]);
    connect_socket(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(host, 0)))
        .with_context(|| format!("no way to {host}"))?;
    send(fd.as_raw_fd(), &frames::echo_request(id), MsgFlags::empty())
        .with_context(|| format!("no way to {host}"))?;
    let deadline = Instant::now() + PATIENCE;
    while poll_readable(&fd, deadline)? {
        let mut packet = [0; 1500];
        let received = recv(fd.as_raw_fd(), &mut packet, MsgFlags::empty());
        let length = received.with_context(|| format!("{host} cannot be reached"))?;
        if frames::is_echo_reply(&packet[..length], id) {
            return Ok(());
        }
    }
    bail!("no answer from {host} within {PATIENCE:?}")
}

/// The same over IPv6.
///
/// # Errors
/// As [`ping`].
pub fn ping6(ns: &Netns, host: Ipv6Addr) -> Result<()> {
    let open = || {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        socket(AddressFamily::Inet6, SockType::Raw, flags, SockProtocol::IcmpV6)
    };
    let fd = ns.enter(open).context("no raw socket")?;
    let [.., a, b] = crate::random_mac().octets();
    connect_socket(fd.as_raw_fd(), &SockaddrIn6::from(SocketAddrV6::new(host, 0, 0, 0)))
        .with_context(|| format!("no way to {host}"))?;
    // The kernel fills in the checksum (RFC 3542 §3.1).
    let request = [128, 0, 0, 0, a, b, 0, 1];
    send(fd.as_raw_fd(), &request, MsgFlags::empty())
        .with_context(|| format!("no way to {host}"))?;
    let deadline = Instant::now() + PATIENCE;
    while poll_readable(&fd, deadline)? {
        let mut packet = [0; 1500];
        let received = recv(fd.as_raw_fd(), &mut packet, MsgFlags::empty());
        let length = received.with_context(|| format!("{host} cannot be reached"))?;
        if length >= 8 && packet[0] == 129 && packet[4..6] == [a, b] {
            return Ok(());
        }
    }
    bail!("no answer from {host} within {PATIENCE:?}")
}

fn connect(ns: &Netns, server: SocketAddr) -> Result<TcpStream> {
    let stream = ns
        .enter(|| TcpStream::connect_timeout(&server, PATIENCE))
        .with_context(|| format!("cannot connect to {server}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn read_all(stream: TcpStream) -> Result<String> {
    let mut text = String::new();
    stream.take(ANSWER_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// Parses `you are ADDRESS:PORT`; an IPv6 address stands there without brackets.
fn you_are(text: &str) -> Result<SocketAddr> {
    let parse = || {
        let (address, port) = text.trim().strip_prefix("you are ")?.rsplit_once(':')?;
        Some(SocketAddr::new(address.parse().ok()?, port.parse().ok()?))
    };
    parse().with_context(|| format!("the answer was {text:?}, not `you are ADDRESS:PORT`"))
}
