//! The world beyond the uplink, for tests and the quickstart: HTTP, DNS and an echo that say who
//! asked, so that a masquerade can be seen from where it counts.
//!
//! One thread accepts on each listening socket, one thread serves each connection, at most
//! [`CONNECTIONS`] of them at a time, each for at most [`PATIENCE`] per read. The process ends
//! with the one that started it (the kernel counts the starting thread), or after `--lifetime`.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// Connections that are served at the same time; one more is closed unanswered.
const CONNECTIONS: usize = 64;

/// How long a connection may stay silent.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest HTTP request that is read.
const REQUEST_BYTES: usize = 8192;

/// How long others may remember a record, in seconds: not at all, so that tests do not see
/// yesterday's answer.
const TTL: u32 = 0;

/// Serves HTTP, DNS and an echo that say who asked. Prints `ready` when all sockets are bound.
#[derive(Parser)]
#[command(name = "vnet-outside")]
struct Arguments {
    /// Answer HTTP here with a body that says `you are ADDRESS:PORT`
    #[arg(long, value_name = "ADDR:PORT")]
    http: Vec<SocketAddr>,
    /// Answer DNS queries here, over UDP and TCP
    #[arg(long, value_name = "ADDR:PORT")]
    dns: Vec<SocketAddr>,
    /// Answer any datagram and any connection here with `you are ADDRESS:PORT`
    #[arg(long, value_name = "ADDR:PORT")]
    echo: Vec<SocketAddr>,
    /// A name that DNS knows; may be given several times, several addresses for one name too
    #[arg(long, value_name = "NAME=ADDR")]
    record: Vec<NameRecord>,
    /// End after this many seconds
    #[arg(long, value_name = "SECONDS")]
    lifetime: Option<u64>,
}

#[derive(Clone)]
struct NameRecord {
    name: Name,
    address: IpAddr,
}

impl FromStr for NameRecord {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, address) = text.split_once('=').context("write NAME=ADDR")?;
        let mut name = Name::from_ascii(name)?.to_lowercase();
        name.set_fqdn(true);
        Ok(Self { name, address: address.parse()? })
    }
}

/// What DNS knows; names in lower case.
type Zone = BTreeMap<Name, Vec<IpAddr>>;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    let mut zone = Zone::new();
    for NameRecord { name, address } in arguments.record {
        zone.entry(name).or_default().push(address);
    }
    let zone = Arc::new(zone);
    let open = Arc::new(AtomicUsize::new(0));
    for address in arguments.http {
        serve_tcp(address, &open, http)?;
    }
    for address in arguments.dns {
        let (datagrams, streams) = (Arc::clone(&zone), Arc::clone(&zone));
        serve_udp(address, move |_, query| answer(&datagrams, query))?;
        serve_tcp(address, &open, move |stream, _| dns_stream(&streams, stream))?;
    }
    for address in arguments.echo {
        serve_udp(address, |peer, _| Some(you_are(peer).into_bytes()))?;
        serve_tcp(address, &open, |mut stream, peer| stream.write_all(you_are(peer).as_bytes()))?;
    }
    println!("ready");
    match arguments.lifetime {
        Some(seconds) => thread::sleep(Duration::from_secs(seconds)),
        None => loop {
            thread::park();
        },
    }
    Ok(())
}

fn you_are(peer: SocketAddr) -> String {
    format!("you are {}:{}\n", peer.ip(), peer.port())
}

/// Accepts connections for ever, each served on a thread of its own.
fn serve_tcp<F>(address: SocketAddr, open: &Arc<AtomicUsize>, serve: F) -> Result<()>
where
    F: Fn(TcpStream, SocketAddr) -> std::io::Result<()> + Send + Sync + 'static,
{
    let listener = TcpListener::bind(address).with_context(|| format!("cannot bind {address}"))?;
    let (open, serve) = (Arc::clone(open), Arc::new(serve));
    thread::spawn(move || {
        loop {
            let Ok((stream, peer)) = listener.accept() else { continue };
            if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS {
                open.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let (open, serve) = (Arc::clone(&open), Arc::clone(&serve));
            thread::spawn(move || {
                let patient = stream
                    .set_read_timeout(Some(PATIENCE))
                    .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
                // A client that goes away in the middle is its own affair.
                let _ = patient.and_then(|()| serve(stream, peer));
                open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    Ok(())
}

/// Answers datagrams for ever.
fn serve_udp<F>(address: SocketAddr, reply: F) -> Result<()>
where
    F: Fn(SocketAddr, &[u8]) -> Option<Vec<u8>> + Send + 'static,
{
    let socket = UdpSocket::bind(address).with_context(|| format!("cannot bind {address}"))?;
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            // An error here is an ICMP message about an earlier answer.
            let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
            if let Some(answer) = reply(peer, &buffer[..length]) {
                let _ = socket.send_to(&answer, peer);
            }
        }
    });
    Ok(())
}

/// Reads one request to its empty line and answers it, whatever it asks for.
fn http(mut stream: TcpStream, peer: SocketAddr) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < REQUEST_BYTES {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => request.extend_from_slice(&buffer[..length]),
        }
    }
    let body = you_are(peer);
    write!(
        stream,
        "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Answers the queries of one connection, each with its length before it (RFC 1035 §4.2.2).
fn dns_stream(zone: &Zone, mut stream: TcpStream) -> std::io::Result<()> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query)?;
        let Some(answer) = answer(zone, &query) else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(std::io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat())?;
    }
}

/// The answer to a query, or nothing where it is none (an answer to an answer would loop).
fn answer(zone: &Zone, query: &[u8]) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    if query.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut response = Message::response(query.metadata.id, query.metadata.op_code);
    response.metadata.recursion_desired = query.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.metadata.response_code = match query.queries.as_slice() {
        _ if query.metadata.op_code != OpCode::Query => ResponseCode::NotImp,
        [question] => {
            response.add_query(question.clone());
            // Names compare without regard to case (RFC 4343 §3); the question comes back as sent.
            match zone.get(&question.name().to_lowercase()) {
                Some(addresses) => {
                    let owner = question.name();
                    let data = addresses.iter().filter_map(|a| data(*a, question.query_type()));
                    response
                        .add_answers(data.map(|data| Record::from_rdata(owner.clone(), TTL, data)));
                    ResponseCode::NoError
                }
                None => ResponseCode::NXDomain,
            }
        }
        // One question per message, as everyone does (RFC 9619 §4).
        _ => ResponseCode::FormErr,
    };
    if query.edns.is_some() {
        // RFC 6891 §6.1.1: an OPT record is answered with one.
        let mut ours = hickory_proto::op::Edns::new();
        ours.set_max_payload(1232).set_version(0);
        response.set_edns(ours);
    }
    response.to_vec().ok()
}

/// The record data of `address` where it is of the wanted type.
fn data(address: IpAddr, wanted: RecordType) -> Option<RData> {
    match (address, wanted) {
        (IpAddr::V4(address), RecordType::A | RecordType::ANY) => Some(RData::A(A(address))),
        (IpAddr::V6(address), RecordType::AAAA | RecordType::ANY) => {
            Some(RData::AAAA(AAAA(address)))
        }
        _ => None,
    }
}
