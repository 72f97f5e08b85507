//! One query to one server: UDP, and TCP where the answer does not fit; or TLS.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use vnet_types::UpstreamTransport;

use super::rules::Server;
use super::tls::{self, Trust};
use crate::resolv::DNS_PORT;
use crate::wire::{self, Query, Stored, flag, rcode};

/// Bytes of the largest answer over UDP that is read whole: more than was asked for.
const MAX_REPLY: usize = 2048;

/// Asks `server`. The caller limits the time.
///
/// # Errors
/// The server cannot be reached, or gave an answer that makes no sense over TCP.
pub(super) async fn ask(server: &Server, query: &Query, trust: &Trust) -> io::Result<Stored> {
    let addr = server.addr();
    match &server.upstream.transport {
        UpstreamTransport::Plain => plain(addr, query).await,
        UpstreamTransport::Strict(name) => {
            let reply = server.connection.ask(addr, Some(name), trust, query).await;
            parse(&reply.map_err(io::Error::from)?)
        }
        UpstreamTransport::Opportunistic => {
            match server.connection.ask(addr, None, trust, query).await {
                Ok(reply) => parse(&reply),
                // RFC 8310 §5.1: there is no TLS to be had, which was not demanded either.
                Err(tls::Failure::NoTls(error)) => {
                    tracing::debug!(server = %addr, %error, "no TLS: asking without");
                    plain(SocketAddr::new(addr.ip(), DNS_PORT), query).await
                }
                Err(tls::Failure::Lost(error)) => Err(error),
            }
        }
    }
}

async fn plain(server: SocketAddr, query: &Query) -> io::Result<Stored> {
    let reply = once(server, query, true).await?;
    if matches!(reply.rcode(), rcode::FORMERR | rcode::NOTIMP) {
        // RFC 6891 §7: perhaps it does not know EDNS; then it is asked without.
        return once(server, query, false).await;
    }
    Ok(reply)
}

async fn once(server: SocketAddr, query: &Query, edns: bool) -> io::Result<Stored> {
    let mut message = Vec::new();
    query.upstream(random_id()?, edns, &mut message);
    let reply = udp(server, &message).await?;
    let reply = if wire::u16_at(&reply, 2).is_some_and(|flags| flags & flag::TC != 0) {
        // RFC 7766 §5
        tcp(server, &message).await?
    } else {
        reply
    };
    parse(&reply)
}

fn parse(reply: &[u8]) -> io::Result<Stored> {
    Stored::parse(reply).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// An id that nobody can guess (RFC 5452 §9.2).
pub(super) fn random_id() -> io::Result<u16> {
    getrandom::u32().map(|random| random as u16).map_err(io::Error::other)
}

/// Whether `reply` answers `message`: id, direction, opcode and question (RFC 5452 §9.1).
pub(super) fn answers(message: &[u8], reply: &[u8]) -> bool {
    let id = |message| wire::u16_at(message, 0);
    let flags = wire::u16_at(reply, 2).unwrap_or(0);
    let one = wire::u16_at(reply, 4) == Some(1);
    let same = match (wire::question(message), wire::question(reply)) {
        (Some(asked), Some(answered)) => wire::same_question(asked, answered),
        _ => false,
    };
    id(message) == id(reply) && flags & (flag::QR | flag::OPCODE) == flag::QR && one && same
}

async fn udp(server: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // A fresh socket has a fresh port, chosen at random by the kernel (RFC 5452 §9.2); connected,
    // it takes nothing from other addresses, and learns that nobody listens.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(message).await?;
    let mut buffer = vec![0; MAX_REPLY];
    loop {
        let len = socket.recv(&mut buffer).await?;
        // What does not answer this query is none of ours: wait on, until the time is up.
        if answers(message, buffer.get(..len).unwrap_or_default()) {
            buffer.truncate(len);
            return Ok(buffer);
        }
    }
}

async fn tcp(server: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&framed(message)).await?;
    let len = stream.read_u16().await?;
    let mut reply = vec![0; usize::from(len)];
    stream.read_exact(&mut reply).await?;
    if answers(message, &reply) { Ok(reply) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Length and message, for one write (RFC 7766 §8).
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = (message.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    framed
}
