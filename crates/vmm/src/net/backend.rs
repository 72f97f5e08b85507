//! Getting the taps.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vnet_api::ports::{PortConnection, PortError, Request};
use vnet_types::{DomainName, MacAddr, NetworkName};
use vnet_virtio::net::{Counters, Link, NetDevice};

use super::session::Session;

/// Where netd's port socket is, under the root of all paths.
pub const PORT_SOCKET: &str = "run/vnet/ports.sock";
/// The MTU of a tap of which nothing is known.
const USUAL_MTU: u16 = 1500;

/// Where a card's tap comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A port on one of netd's networks.
    Network(NetworkName),
    /// A tap that our parent has opened and left to us.
    Inherited(RawFd),
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

/// A card and what there is to it beside the device.
pub struct Nic {
    /// The device.
    pub device: NetDevice,
    /// Its address.
    pub mac: MacAddr,
    /// Its cable.
    pub link: Arc<Link>,
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

/// Makes card `number` of `domain`. `root` is where netd's paths begin.
///
/// # Errors
/// See [`NetError`].
pub fn attach(
    config: &NicConfig,
    number: u8,
    domain: &DomainName,
    root: &Path,
) -> Result<Nic, NetError> {
    let mac = config.mac.unwrap_or_else(|| derived_mac(domain, number));
    let (tap, mtu, link_up, session) = match &config.source {
        Source::Inherited(fd) => (inherited(*fd)?, USUAL_MTU, true, None),
        Source::Network(network) => {
            let socket: PathBuf = root.join(PORT_SOCKET);
            let request = Request::Attach {
                network: network.clone(),
                domain: domain.clone(),
                nic: number,
                mac,
                queues: 1,
            };
            let failed = |source| NetError::Port { network: network.clone(), source };
            let (connection, port, taps) =
                PortConnection::open(&socket, &request).map_err(failed)?;
            let no_tap = || NetError::NoTap(network.clone());
            let tap = taps.into_iter().next().ok_or_else(no_tap)?;
            let (mtu, link_up) = (port.mtu, port.link_up);
            (tap, mtu, link_up, Some((connection, port.name, socket)))
        }
    };
    let device = NetDevice::new(mac, tap, mtu, link_up);
    let link = device.link();
    let session =
        session.map(|(open, port, socket)| Session::new(open, port, socket, Arc::clone(&link)));
    Ok(Nic { mac, link, counters: device.counters(), device, session })
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
