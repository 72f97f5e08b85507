//! Tap devices: a network interface whose other end is a file descriptor.
//!
//! All ioctls on `/dev/net/tun` in the tree are here. netd makes taps ([`Tap::create`]) and hands
//! their descriptors to a VMM, which sets the offloads that its guest has accepted
//! ([`set_offloads`]). Every frame that is read or written is preceded by a `virtio_net_hdr_v1`
//! of [`VNET_HDR_LEN`] bytes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use vnet_types::IfName;

/// Bytes in the header before each frame: `virtio_net_hdr_v1` (virtio 1.2 §5.1.6), with
/// `num_buffers`.
pub const VNET_HDR_LEN: usize = 12;

/// Queue pairs that one tap can have (`MAX_TAP_QUEUES` of the kernel).
pub const MAX_QUEUES: usize = 256;

const DEVICE: &str = "/dev/net/tun";

mod ioctl {
    use nix::{ioctl_write_int, ioctl_write_ptr};
    // linux/if_tun.h
    ioctl_write_int!(tunsetiff, b'T', 202);
    ioctl_write_int!(tunsetoffload, b'T', 208);
    ioctl_write_int!(tunsetqueue, b'T', 217);
    ioctl_write_ptr!(tunsetvnethdrsz, b'T', 216, libc::c_int);
}

/// Why a tap could not be made or set up.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// `/dev/net/tun` cannot be opened.
    #[error("cannot open {DEVICE}: load the module tun, and run as root or with CAP_NET_ADMIN")]
    Open(#[source] io::Error),
    /// The kernel refused the interface.
    #[error("cannot make the tap {name}")]
    Create {
        /// The name, or the pattern, that was asked for.
        name: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a setting.
    #[error("cannot set {what} of a tap")]
    Set {
        /// What was to be set.
        what: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// More queues, or fewer, than a tap can have.
    #[error("a tap has 1 to {MAX_QUEUES} queues, not {0}")]
    Queues(usize),
}

/// Which work the reader of the tap takes off the kernel's hands (`TUN_F_*`): a packet may then
/// come with a partial checksum, or larger than the MTU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offloads {
    /// Partial checksums; all others need this one.
    pub csum: bool,
    /// TCP segmentation over IPv4.
    pub tso4: bool,
    /// TCP segmentation over IPv6.
    pub tso6: bool,
    /// TCP segmentation with the ECN bits.
    pub ecn: bool,
    /// UDP segmentation over IPv4 and IPv6 (Linux 6.2).
    pub uso: bool,
}

impl Offloads {
    fn bits(self) -> libc::c_uint {
        // linux/if_tun.h
        const TUN_F_CSUM: libc::c_uint = 0x01;
        const TUN_F_TSO4: libc::c_uint = 0x02;
        const TUN_F_TSO6: libc::c_uint = 0x04;
        const TUN_F_TSO_ECN: libc::c_uint = 0x08;
        const TUN_F_USO4: libc::c_uint = 0x20;
        const TUN_F_USO6: libc::c_uint = 0x40;
        [
            (self.csum, TUN_F_CSUM),
            (self.tso4, TUN_F_TSO4),
            (self.tso6, TUN_F_TSO6),
            (self.ecn, TUN_F_TSO_ECN),
            (self.uso, TUN_F_USO4 | TUN_F_USO6),
        ]
        .into_iter()
        .filter_map(|(on, bits)| on.then_some(bits))
        .fold(0, |all, bits| all | bits)
    }
}

/// A tap that lives as long as its descriptors, or their duplicates in another process.
#[derive(Debug)]
pub struct Tap {
    name: IfName,
    queues: Vec<OwnedFd>,
}

impl Tap {
    /// Makes a tap with `queues` queue pairs in this thread's network namespace. In `pattern` the
    /// kernel replaces `%d` by the first free number. The descriptors do not block.
    ///
    /// # Errors
    /// `/dev/net/tun` is missing, the privilege is, or the name is taken.
    pub fn create(pattern: &str, queues: usize) -> Result<Self, TapError> {
        if !(1..=MAX_QUEUES).contains(&queues) {
            return Err(TapError::Queues(queues));
        }
        let (first, name) = attach(pattern, queues > 1)?;
        let mut fds = vec![first];
        for _ in 1..queues {
            fds.push(attach(name.as_str(), true)?.0);
        }
        Ok(Self { name, queues: fds })
    }

    /// The interface's name as the kernel gave it.
    #[must_use]
    pub fn name(&self) -> &IfName {
        &self.name
    }

    /// The descriptors, one a queue pair.
    #[must_use]
    pub fn queues(&self) -> &[OwnedFd] {
        &self.queues
    }

    /// Gives up the tap for its descriptors.
    #[must_use]
    pub fn into_queues(self) -> Vec<OwnedFd> {
        self.queues
    }
}

fn attach(pattern: &str, multi_queue: bool) -> Result<(OwnedFd, IfName), TapError> {
    let create = |source| TapError::Create { name: pattern.to_owned(), source };
    let tun: File = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(DEVICE)
        .map_err(TapError::Open)?;
    // SAFETY: ifreq is plain old data, for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if pattern.len() >= request.ifr_name.len() {
        return Err(create(io::ErrorKind::InvalidInput.into()));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(pattern.bytes()) {
        *to = from.cast_signed();
    }
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if multi_queue {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the argument is the address of an ifreq that outlives the call; the kernel writes
    // the interface's name into it and nothing beyond it.
    unsafe { ioctl::tunsetiff(tun.as_raw_fd(), &raw mut request as libc::c_ulong) }
        .map_err(|errno| create(errno.into()))?;
    let length = VNET_HDR_LEN as libc::c_int;
    // SAFETY: the argument is the address of an int that outlives the call.
    unsafe { ioctl::tunsetvnethdrsz(tun.as_raw_fd(), &raw const length) }
        .map_err(|errno| TapError::Set { what: "the vnet header's size", source: errno.into() })?;
    let name: String = request
        .ifr_name
        .iter()
        .map(|&c| c.cast_unsigned())
        .take_while(|&b| b != 0)
        .map(char::from)
        .collect();
    let name = name.parse().map_err(|error| create(io::Error::other(error)))?;
    Ok((tun.into(), name))
}

/// Sets which offloads the holder of `queue` accepts; it counts for all queues of the tap.
///
/// # Errors
/// `queue` is no tap, or the kernel does not know one of the offloads.
pub fn set_offloads(queue: BorrowedFd<'_>, offloads: Offloads) -> Result<(), TapError> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    unsafe { ioctl::tunsetoffload(queue.as_raw_fd(), libc::c_ulong::from(offloads.bits())) }
        .map_err(|errno| TapError::Set { what: "the offloads", source: errno.into() })?;
    Ok(())
}

/// Whether frames go through a queue of a tap that has several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueState {
    /// The kernel spreads frames over it.
    Attached,
    /// The kernel leaves it out.
    Detached,
}

/// Lets the kernel use `queue`, or leave it out. Nothing changes if that is so already.
///
/// # Errors
/// `queue` is no tap, or its tap has one queue only.
pub fn set_queue(queue: BorrowedFd<'_>, state: QueueState) -> Result<(), TapError> {
    // linux/if_tun.h
    const IFF_ATTACH_QUEUE: libc::c_short = 0x0200;
    const IFF_DETACH_QUEUE: libc::c_short = 0x0400;
    // SAFETY: ifreq is plain old data, for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_ifru.ifru_flags = match state {
        QueueState::Attached => IFF_ATTACH_QUEUE,
        QueueState::Detached => IFF_DETACH_QUEUE,
    };
    // SAFETY: the argument is the address of an ifreq that outlives the call.
    match unsafe { ioctl::tunsetqueue(queue.as_raw_fd(), &raw mut request as libc::c_ulong) } {
        // Attached to the state that it is in.
        Ok(_) | Err(nix::errno::Errno::EINVAL) => Ok(()),
        Err(errno) => Err(TapError::Set { what: "a queue", source: errno.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offloads_are_the_kernels_bits() {
        assert_eq!(Offloads::default().bits(), 0);
        let all = Offloads { csum: true, tso4: true, tso6: true, ecn: true, uso: true };
        assert_eq!(all.bits(), 0x6f);
    }

    #[test]
    fn a_tap_has_at_least_one_queue() {
        assert!(matches!(Tap::create("x%d", 0), Err(TapError::Queues(0))));
    }
}
