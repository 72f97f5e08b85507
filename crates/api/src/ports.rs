//! The port protocol: how a VMM gets a tap on a network, and hears of its link.
//!
//! The socket `<root>/run/vnet/ports.sock` is of type SEQPACKET; each packet is one JSON value.
//! The VMM sends one [`Request`]; netd answers with one [`Reply`], which carries the tap's
//! descriptors as SCM_RIGHTS ancillary data, one a queue pair. From then on netd may send
//! [`Event`]s. The port lives as long as the descriptors do: whoever closes them gives it up.
//! netd may go away and come back: the port keeps working meanwhile, and the VMM connects again
//! with [`Request::Resume`].

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    connect, recvmsg, sendmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vnet_types::{DomainName, IfName, LinkLimits, MacAddr, NetworkName};

/// Bytes in the largest packet of the protocol.
const MAX_PACKET: usize = 4096;
/// Descriptors in the largest packet: Linux' own bound (`SCM_MAX_FD`).
const MAX_FDS: usize = 253;

/// Queue pairs that a port can have: as many as one packet carries descriptors for.
pub const MAX_QUEUES: u16 = MAX_FDS as u16;

/// How long netd may take to answer.
const ANSWER_WITHIN: TimeVal = TimeVal::new(20, 0);
/// A receive timeout of 0 is none (socket(7)).
const FOR_EVER: TimeVal = TimeVal::new(0, 0);

/// What a VMM asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// A new port.
    Attach {
        /// The network that it is to be on.
        network: NetworkName,
        /// The domain that it belongs to, for logs and listings.
        domain: DomainName,
        /// Which of the domain's network cards it is, from 0.
        nic: u8,
        /// The address that the guest will use.
        mac: MacAddr,
        /// Queue pairs, 1 to [`MAX_QUEUES`].
        queues: u16,
        /// How fast it is to be; the network may have stricter limits.
        #[serde(default, skip_serializing_if = "LinkLimits::is_empty")]
        limits: LinkLimits,
    },
    /// Events for a port that this process already has, after netd has come back.
    Resume {
        /// The port's interface.
        port: IfName,
    },
}

/// What netd answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The port is there; its descriptors come with this packet (none on a resume).
    Attached(Port),
    /// It isn't, and why.
    Refused(String),
}

/// A port as its owner needs to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The tap's interface name on the host.
    pub name: IfName,
    /// Bytes in the largest IP packet on the network.
    pub mtu: u16,
    /// Whether the guest is to see a link.
    pub link_up: bool,
}

/// What netd tells the owner of a port later on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The guest is to see its link go up (true) or down (false).
    Link(bool),
    /// The network's MTU has changed.
    Mtu(u16),
}

/// A connection to netd that holds a port.
#[derive(Debug)]
pub struct PortConnection {
    socket: OwnedFd,
}

/// Why there is no port.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Nobody listens.
    #[error("netd cannot be reached at {path}: is it running?")]
    Unreachable {
        /// The socket.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// netd refused, and said why.
    #[error("{0}")]
    Refused(String),
    /// The connection failed or said something that is not the protocol.
    #[error("the connection to netd's port socket failed")]
    Broken(#[source] io::Error),
}

impl PortConnection {
    /// Connects to netd's port socket at `path` and makes `request`. Blocks until netd answers.
    ///
    /// # Errors
    /// netd is not there, refuses, or breaks the protocol.
    pub fn open(path: &Path, request: &Request) -> Result<(Self, Port, Vec<OwnedFd>), PortError> {
        let unreachable =
            |source: io::Error| PortError::Unreachable { path: path.display().to_string(), source };
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
            .map_err(|errno| unreachable(errno.into()))?;
        let address = UnixAddr::new(path).map_err(|errno| unreachable(errno.into()))?;
        connect(socket.as_raw_fd(), &address).map_err(|errno| unreachable(errno.into()))?;
        // A netd that hangs must not hang us.
        let patience = |time| setsockopt(&socket, sockopt::ReceiveTimeout, &time);
        patience(ANSWER_WITHIN).map_err(|errno| unreachable(errno.into()))?;
        send(socket.as_raw_fd(), request, &[]).map_err(PortError::Broken)?;
        let (reply, fds) = receive::<Reply>(socket.as_raw_fd())
            .map_err(PortError::Broken)?
            .ok_or_else(|| PortError::Broken(io::ErrorKind::UnexpectedEof.into()))?;
        patience(FOR_EVER).map_err(|errno| PortError::Broken(errno.into()))?;
        match reply {
            Reply::Attached(port) => Ok((Self { socket }, port, fds)),
            Reply::Refused(reason) => Err(PortError::Refused(reason)),
        }
    }

    /// The socket, to wait on: it is readable when an event has come or netd has gone.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.socket.as_fd()
    }

    /// The next event; blocks unless the socket is readable. None when netd has gone.
    ///
    /// # Errors
    /// The connection failed or said something that is not the protocol.
    pub fn next_event(&self) -> Result<Option<Event>, PortError> {
        receive(self.socket.as_raw_fd())
            .map(|packet| packet.map(|(event, _)| event))
            .map_err(PortError::Broken)
    }
}

/// Sends `value` as one packet on the SEQPACKET socket `socket`, with `fds` attached.
///
/// # Errors
/// Those of `sendmsg(2)`; the other end may be gone.
pub fn send(socket: RawFd, value: &impl Serialize, fds: &[RawFd]) -> io::Result<()> {
    let bytes = serde_json::to_vec(value)?;
    let rights = [ControlMessage::ScmRights(fds)];
    let control = if fds.is_empty() { &[][..] } else { &rights[..] };
    sendmsg::<()>(socket, &[IoSlice::new(&bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Receives one packet and the descriptors that came with it. None at the end of the stream.
///
/// # Errors
/// Those of `recvmsg(2)`, and `InvalidData` for a packet that is too long or no such value.
pub fn receive<T: DeserializeOwned>(socket: RawFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = [0; MAX_PACKET];
    let mut control = nix::cmsg_space!([RawFd; MAX_FDS]);
    let (length, flags, fds) = {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let message =
            recvmsg::<()>(socket, &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let mut fds = Vec::new();
        for item in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = item {
                // SAFETY: the kernel has just made these descriptors for this process, and
                // nothing else knows their numbers.
                fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        (message.bytes, message.flags, fds)
    };
    if length == 0 {
        return Ok(None);
    }
    if flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a packet was too long"));
    }
    let value = serde_json::from_slice(&bytes[..length])
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Some((value, fds)))
}
