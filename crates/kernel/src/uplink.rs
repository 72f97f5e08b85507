//! Dumps and bursts over a plain rtnetlink socket: messages as bytes, so that nothing of them is
//! lost, and many in one system call, so that no time passes between them.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;
use vnet_plan::uplink::{LinkFacts, LinkId, Record, Request, What};
use vnet_types::IfName;

use crate::attributes::append as attribute;

/// `nlmsghdr`.
const HEADER: usize = 16;
/// Larger than any message that the kernel dumps into (`NLMSG_GOODSIZE` and more).
const BUFFER: usize = 128 << 10;
/// How long the kernel may take for an answer.
const PATIENCE: TimeVal = TimeVal::new(10, 0);
/// Room for a burst, in bytes.
const SEND_BUFFER: usize = 4 << 20;

const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const ACK: u16 = libc::NLM_F_ACK as u16;
const DUMP: u16 = libc::NLM_F_DUMP as u16;
const CREATE: u16 = libc::NLM_F_CREATE as u16;
const EXCL: u16 = libc::NLM_F_EXCL as u16;
const REPLACE: u16 = libc::NLM_F_REPLACE as u16;
const APPEND: u16 = libc::NLM_F_APPEND as u16;

/// `IFLA_MASTER`, `NDA_DST`, `NTF_USE`, `NTF_PROXY`, `NUD_VALID`-like states.
const IFLA_MASTER: u16 = 10;
const NDA_DST: u16 = 1;
const NTF_USE: u8 = 1;
const NTF_PROXY: u8 = 8;
const NUD_REACHABLE: u16 = 0x02;
const NUD_PERMANENT: u16 = 0x80;
const FAMILIES: [u8; 2] = [libc::AF_INET as u8, libc::AF_INET6 as u8];
/// What is dumped: the request, bytes in its header, and the neighbour flags in that.
const DUMPS: [(What, u16, usize, u8); 5] = [
    (What::Address, libc::RTM_GETADDR, 8, 0),
    (What::Route, libc::RTM_GETROUTE, 12, 0),
    (What::Rule, libc::RTM_GETRULE, 12, 0),
    (What::Neighbour, libc::RTM_GETNEIGH, 12, 0),
    (What::Neighbour, libc::RTM_GETNEIGH, 12, NTF_PROXY),
];

/// A socket for dumps and bursts. It blocks: the kernel answers at once.
#[derive(Debug)]
pub(crate) struct Rtnetlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Rtnetlink {
    pub(crate) fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &PATIENCE)?;
        setsockopt(&socket, sockopt::RcvBuf, &SEND_BUFFER)?;
        setsockopt(&socket, sockopt::SndBuf, &SEND_BUFFER)?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// All links that have a name that we would give.
    pub(crate) fn links(&mut self) -> io::Result<Vec<LinkFacts>> {
        let bodies = self.dump(libc::RTM_GETLINK, &[0; 16])?;
        let mut links: Vec<_> = bodies.iter().filter_map(|body| LinkFacts::parse(body)).collect();
        for link in &mut links {
            link.wireless = is_wireless(&link.id);
        }
        Ok(links)
    }

    /// Every address, route, rule and lasting neighbour of these links, in the kernel's order.
    pub(crate) fn records(&mut self, links: &[&LinkId]) -> io::Result<Vec<Record>> {
        let mut found = Vec::new();
        for family in FAMILIES {
            for (what, request, length, flags) in DUMPS {
                let mut header = vec![0; length];
                header[0] = family;
                if flags != 0 {
                    header[10] = flags;
                }
                let bodies = match self.dump(request, &header) {
                    // A kernel without IPv6, or without rules.
                    Err(error)
                        if matches!(
                            error.raw_os_error(),
                            Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)
                        ) =>
                    {
                        continue;
                    }
                    other => other?,
                };
                let records = bodies.iter().filter_map(|body| Record::parse(what, body));
                found.extend(records.filter(|record| links.iter().any(|link| record.is_on(link))));
            }
        }
        Ok(found)
    }

    /// Sends all `requests` in one system call, in which the kernel does them one after the
    /// other, and returns which of them it refused.
    pub(crate) fn burst(&mut self, requests: &[Request]) -> io::Result<Vec<(usize, io::Error)>> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        for request in requests {
            let (kind, flags, body) = message(request);
            self.append(&mut bytes, kind, flags | REQUEST | ACK, &body)?;
        }
        if bytes.is_empty() {
            return Ok(Vec::new());
        }
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let mut refused = Vec::new();
        let mut left = requests.len();
        while left > 0 {
            self.receive(|sequence, kind, body| {
                let at = usize::try_from(sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                if i32::from(kind) == libc::NLMSG_ERROR && at < requests.len() {
                    left -= 1;
                    if let Some(error) = error_of(body) {
                        refused.push((at, error));
                    }
                }
                Ok(())
            })?;
        }
        refused.retain(|(at, error)| !is_harmless(&requests[*at], error));
        Ok(refused)
    }

    /// Has the kernel ask for `neighbour`'s address on `link`, by ARP or neighbour discovery, as
    /// for a packet.
    pub(crate) fn solicit(&mut self, link: &LinkId, neighbour: IpAddr) -> io::Result<()> {
        let mut body = vec![0; 12];
        body[0] = family_of(neighbour);
        body[4..8].copy_from_slice(&link.index.to_ne_bytes());
        body[10] = NTF_USE;
        match neighbour {
            IpAddr::V4(address) => attribute(&mut body, NDA_DST, &address.octets()),
            IpAddr::V6(address) => attribute(&mut body, NDA_DST, &address.octets()),
        }
        self.ask(libc::RTM_NEWNEIGH, CREATE, &body)
    }

    /// Whether `neighbour` has answered on `link` of late.
    pub(crate) fn is_reachable(&mut self, link: &LinkId, neighbour: IpAddr) -> io::Result<bool> {
        let mut header = vec![0; 12];
        header[0] = family_of(neighbour);
        let bodies = self.dump(libc::RTM_GETNEIGH, &header)?;
        Ok(bodies.iter().any(|body| {
            let on = body.get(4..8) == Some(&link.index.to_ne_bytes());
            let state = body.get(8..10).map_or(0, |s| u16::from_ne_bytes([s[0], s[1]]));
            let octets = match neighbour {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            let length = u16::try_from(octets.len() + 4).unwrap_or_default().to_ne_bytes();
            let mut wanted = length.to_vec();
            wanted.extend(NDA_DST.to_ne_bytes());
            wanted.extend(octets);
            let its = body.get(12..).is_some_and(|rest| rest.starts_with(&wanted));
            on && its && state & (NUD_REACHABLE | NUD_PERMANENT) != 0
        }))
    }

    pub(crate) fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.append(&mut bytes, kind, flags | REQUEST | ACK, body)?;
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let mut answer = None;
        let wanted = self.sequence;
        while answer.is_none() {
            self.receive(|sequence, kind, body| {
                if i32::from(kind) == libc::NLMSG_ERROR && sequence == wanted {
                    answer = Some(error_of(body));
                }
                Ok(())
            })?;
        }
        answer.flatten().map_or(Ok(()), Err)
    }

    /// The one object that `body` names.
    pub(crate) fn get(&mut self, kind: u16, body: &[u8]) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.append(&mut bytes, kind, REQUEST, body)?;
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let mut answer = None;
        let wanted = self.sequence;
        while answer.is_none() {
            self.receive(|sequence, kind, body| {
                if sequence == wanted {
                    answer = Some(match i32::from(kind) {
                        libc::NLMSG_ERROR => Err(error_of(body).unwrap_or_else(broken)),
                        _ => Ok(body.to_vec()),
                    });
                }
                Ok(())
            })?;
        }
        answer.unwrap_or_else(|| Err(broken()))
    }

    pub(crate) fn dump(&mut self, kind: u16, header: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let mut bytes = Vec::new();
        self.append(&mut bytes, kind, REQUEST | DUMP, header)?;
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let (mut found, mut done) = (Vec::new(), false);
        let wanted = self.sequence;
        while !done {
            self.receive(|sequence, kind, body| {
                if sequence != wanted {
                    return Ok(());
                }
                match i32::from(kind) {
                    libc::NLMSG_DONE => done = true,
                    libc::NLMSG_ERROR => return Err(error_of(body).unwrap_or_else(broken)),
                    _ => found.push(body.to_vec()),
                }
                Ok(())
            })?;
        }
        Ok(found)
    }

    /// Adds a message to `bytes`, under the next number.
    fn append(
        &mut self,
        bytes: &mut Vec<u8>,
        kind: u16,
        flags: u16,
        body: &[u8],
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(HEADER + body.len()).map_err(io::Error::other)?;
        bytes.extend(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(self.sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        Ok(())
    }

    /// Hands each message of the next packet to `take`, as its number, type and body.
    fn receive(
        &mut self,
        mut take: impl FnMut(u32, u16, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let length = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
        let mut rest = self.buffer.get(..length).unwrap_or_default();
        while rest.len() >= HEADER {
            let word = |at: usize| {
                u32::from_ne_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]])
            };
            let length = usize::try_from(word(0)).map_err(io::Error::other)?;
            let body = rest.get(HEADER..length).ok_or_else(broken)?;
            take(word(8), u16::from_ne_bytes([rest[4], rest[5]]), body)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(())
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an answer that is none")
}

/// What an `nlmsgerr` says; none where it says that all is well.
fn error_of(body: &[u8]) -> Option<io::Error> {
    let number = body.get(..4).and_then(|bytes| Some(i32::from_ne_bytes(bytes.try_into().ok()?)));
    match number {
        Some(0) => None,
        Some(number) => Some(io::Error::from_raw_os_error(number.saturating_neg())),
        None => Some(broken()),
    }
}

fn family_of(address: IpAddr) -> u8 {
    FAMILIES[usize::from(address.is_ipv6())]
}

/// The type, flags and body of the message for a request.
fn message(request: &Request) -> (u16, u16, Vec<u8>) {
    let membership = |uplink: &LinkId, master: u32| {
        let mut body = vec![0; 16];
        body[4..8].copy_from_slice(&uplink.index.to_ne_bytes());
        attribute(&mut body, IFLA_MASTER, &master.to_ne_bytes());
        (libc::RTM_NEWLINK, 0, body)
    };
    match request {
        Request::Enslave { uplink, bridge } => membership(uplink, bridge.index),
        Request::Free { uplink } => membership(uplink, 0),
        Request::Add { record, .. } => match record.what() {
            What::Address => (libc::RTM_NEWADDR, CREATE | EXCL, record.body_without_dad()),
            // Routes to one place by several links differ in nothing but the link: each is added
            // to those that are there.
            What::Route => (libc::RTM_NEWROUTE, CREATE | APPEND, record.body()),
            What::Rule => (libc::RTM_NEWRULE, CREATE | EXCL, record.body()),
            What::Neighbour => (libc::RTM_NEWNEIGH, CREATE | REPLACE, record.body()),
        },
        Request::Replace { record, .. } => (libc::RTM_NEWADDR, REPLACE, record.body()),
        Request::Delete { record, .. } => {
            let kind = match record.what() {
                What::Address => libc::RTM_DELADDR,
                What::Route => libc::RTM_DELROUTE,
                What::Rule => libc::RTM_DELRULE,
                What::Neighbour => libc::RTM_DELNEIGH,
            };
            (kind, 0, record.body())
        }
    }
}

/// What the kernel has done by itself: the route to a subnet comes and goes with its address.
fn is_harmless(request: &Request, error: &io::Error) -> bool {
    match (request, error.raw_os_error()) {
        (Request::Add { .. }, Some(libc::EEXIST)) => true,
        (Request::Delete { .. }, Some(number)) => {
            [libc::ESRCH, libc::ENOENT, libc::EADDRNOTAVAIL].contains(&number)
        }
        _ => false,
    }
}

/// Whether the link is wireless, as sysfs says; if that is of our namespace, and not of the one
/// in which somebody mounted it.
fn is_wireless(link: &LinkId) -> bool {
    let path = Path::new("/sys/class/net").join(link.name.as_str());
    let index = std::fs::read_to_string(path.join("ifindex")).unwrap_or_default();
    index.trim() == link.index.to_string()
        && (path.join("wireless").exists() || path.join("phy80211").exists())
}

/// Gives `to` the sysctls of `from`, for both IP versions. Some cannot be read or written, and
/// none is worth failing for.
pub(crate) fn copy_settings(from: &IfName, to: &IfName) {
    for version in ["ipv4", "ipv6"] {
        for kind in ["conf", "neigh"] {
            let folder = |name: &IfName| {
                Path::new("/proc/sys/net").join(version).join(kind).join(name.as_str())
            };
            let Ok(entries) = std::fs::read_dir(folder(from)) else { continue };
            for entry in entries.flatten() {
                let value = std::fs::read_to_string(entry.path());
                let target = folder(to).join(entry.file_name());
                // The uplink's own link-local address comes along: the bridge makes none.
                let value = match entry.file_name().to_str() {
                    Some("addr_gen_mode") => Ok("1\n".to_owned()),
                    Some("mtu" | "stable_secret") => continue,
                    _ => value,
                };
                let Ok(value) = value else { continue };
                if std::fs::read_to_string(&target).is_ok_and(|present| present != value) {
                    let _ = std::fs::write(&target, value);
                }
            }
        }
    }
}
