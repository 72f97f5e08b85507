//! nfnetlink as far as it is asked without libnftables: which chains there are, and how often the
//! rules have changed.

mod chains;
mod generation;
mod tables;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

pub(crate) use generation::{NEW_GENERATION, generation_of};

/// The families of our tables: `NFPROTO_INET` and `NFPROTO_BRIDGE` (linux/netfilter.h).
pub(crate) const FAMILIES_OF_OURS: [u8; 2] = [1, 7];
/// `NFNL_SUBSYS_NFTABLES << 8` (linux/netfilter/nfnetlink.h).
const SUBSYSTEM: u16 = 10 << 8;
const NETLINK_HEADER: usize = 16;
/// `nlmsghdr` and `nfgenmsg`.
const HEADERS: usize = NETLINK_HEADER + 4;
/// How long the kernel may take for an answer.
const PATIENCE: TimeVal = TimeVal::new(10, 0);

/// A socket for questions. It blocks: the kernel answers at once.
#[derive(Debug)]
pub(crate) struct Nfnetlink {
    socket: OwnedFd,
}

impl Nfnetlink {
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let protocol = SockProtocol::NetlinkNetFilter;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &PATIENCE)?;
        Ok(Self { socket })
    }

    /// Asks a question, with these attributes, of a family, or of all with 0.
    fn ask(
        &self,
        question: u16,
        flags: libc::c_int,
        family: u8,
        attributes: &[u8],
    ) -> io::Result<()> {
        let flags = (libc::NLM_F_REQUEST | flags) as u16;
        let mut bytes = Vec::with_capacity(HEADERS + attributes.len());
        bytes.extend(((HEADERS + attributes.len()) as u32).to_ne_bytes());
        bytes.extend((SUBSYSTEM | question).to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.resize(NETLINK_HEADER, 0);
        bytes.extend([family, 0, 0, 0]);
        bytes.extend(attributes);
        sendto(self.socket.as_raw_fd(), &bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        Ok(())
    }

    fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let length = recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty())?;
        Ok(buffer.get(..length).unwrap_or_default())
    }
}
