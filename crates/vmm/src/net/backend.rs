//! Getting the taps.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vnet_api::ports::{PortConnection, PortError, Request};
use vnet_types::{DomainName, IfName, LinkLimits, MacAddr, NetworkName};
use vnet_virtio::limit::Limits;
use vnet_virtio::net::{Counters, NetConfig, NetDevice};
use vnet_virtio::worker::Threads;

use super::session::Session;

/// Where netd's port socket is, under the root of all paths.
pub const PORT_SOCKET: &str = "run/vnet/ports.sock";
/// The MTU of a tap of which nothing is known.
const USUAL_MTU: u16 = 1500;

/// Where a card's tap comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A port on one of netd's networks, and how fast netd is to let it be.
    Network(NetworkName, LinkLimits),
    /// A tap that our parent has opened and left to us, and what the card on it may send, and
    /// receive, in a second: nobody else is there to see to it.
    Inherited(RawFd, Limits),
}

impl Source {
    /// The descriptor that it is, if it is one of ours already.
    #[must_use]
    pub fn descriptor(&self) -> Option<RawFd> {
        match self {
            Self::Network(..) => None,
            Self::Inherited(fd, _) => Some(*fd),
        }
    }
}

/// A card that is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicConfig {
    /// Its tap.
    pub source: Source,
    /// Its address; derived from the domain's name and the card's number if None.
    pub mac: Option<MacAddr>,
}

/// Why there is no tap.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// netd gives none.
    #[error("no port on the network {network}")]
    Port {
        /// The network.
        network: NetworkName,
        /// Why not.
        #[source]
        source: PortError,
    },
    /// netd gave a port without a descriptor.
    #[error("netd gave a port on the network {0} without a tap")]
    NoTap(NetworkName),
    /// The descriptor is not open.
    #[error("descriptor {0} is not open: open a tap, and leave it open for vnet-vmm")]
    NotOpen(RawFd),
}

/// A card's tap, and what is known of it.
pub struct Attached {
    /// The card's address.
    pub mac: MacAddr,
    /// The tap's queues.
    taps: Vec<OwnedFd>,
    mtu: u16,
    is_up: bool,
    limits: Limits,
    /// The connection to netd, if it gave the tap: port and socket.
    connection: Option<(PortConnection, IfName, PathBuf)>,
}

/// A card and what there is to it beside the device.
pub struct Nic {
    /// The device.
    pub device: NetDevice,
    /// Its address.
    pub mac: MacAddr,
    /// What it counts.
    pub counters: Arc<Counters>,
    /// The connection that keeps us informed, if netd gave the tap.
    pub session: Option<Session>,
}

/// The address of card `number` of `domain` where none is given: the same on every start.
#[must_use]
pub fn derived_mac(domain: &DomainName, number: u8) -> MacAddr {
    MacAddr::derived(&format!("domain/{domain}/nic/{number}"), 0)
}

/// Who asks for a tap.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// The domain's name.
    pub domain: &'a DomainName,
    /// Where netd's paths begin.
    pub root: &'a Path,
    /// Pairs of queues that its cards can use.
    pub queues: u16,
}

/// Gets the tap of card `number` of `owner`.
///
/// # Errors
/// See [`NetError`].
pub fn attach(config: &NicConfig, number: u8, owner: Owner<'_>) -> Result<Attached, NetError> {
    let mac = config.mac.unwrap_or_else(|| derived_mac(owner.domain, number));
    let (network, rates) = match &config.source {
        Source::Inherited(fd, limits) => {
            let (taps, limits) = (vec![inherited(*fd)?], *limits);
            let (mtu, is_up, connection) = (USUAL_MTU, true, None);
            return Ok(Attached { mac, taps, mtu, is_up, limits, connection });
        }
        Source::Network(network, rates) => (network, rates),
    };
    let socket: PathBuf = owner.root.join(PORT_SOCKET);
    let request = Request::Attach {
        network: network.clone(),
        domain: owner.domain.clone(),
        nic: number,
        mac,
        queues: owner.queues,
        limits: *rates,
    };
    let failed = |source| NetError::Port { network: network.clone(), source };
    let (connection, port, taps) = PortConnection::open(&socket, &request).map_err(failed)?;
    if taps.is_empty() {
        return Err(NetError::NoTap(network.clone()));
    }
    let (mtu, is_up) = (port.mtu, port.link_up);
    let (connection, limits) = (Some((connection, port.name, socket)), Limits::default());
    Ok(Attached { mac, taps, mtu, is_up, limits, connection })
}

/// The card for a tap.
///
/// # Errors
/// The host has no threads or descriptors left.
pub fn make(attached: Attached, threads: &Threads) -> io::Result<Nic> {
    let Attached { mac, taps, mtu, is_up, limits, connection } = attached;
    let threads = threads.clone();
    let device = NetDevice::new(NetConfig { mac, taps, mtu, is_up, limits, threads })?;
    let link = device.link();
    let session = connection.map(|(open, port, socket)| Session::new(open, port, socket, link));
    Ok(Nic { mac, counters: device.counters(), device, session })
}

fn inherited(fd: RawFd) -> Result<OwnedFd, NetError> {
    // SAFETY: F_GETFL only asks; F_SETFL and F_SETFD set flags, of a descriptor that was left to
    // us for this purpose.
    unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        if fd <= libc::STDERR_FILENO || flags < 0 {
            return Err(NetError::NotOpen(fd));
        }
        libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK);
        libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
    }
    // SAFETY: the descriptor is open, and our parent has given it to us; the command line's
    // parsing sees to it that none is given twice.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
