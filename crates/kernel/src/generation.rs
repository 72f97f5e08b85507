//! The number that nf_tables counts up with each change of any rule in this network namespace.
//! Where it stands as we left it, our table does too, and nobody need list it.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN` (linux/netfilter/nfnetlink.h, nf_tables.h).
const GET_GENERATION: u16 = (10 << 8) | 16;
const NEW_GENERATION: u16 = (10 << 8) | 15;
const NFTA_GEN_ID: u16 = 1;
const NETLINK_HEADER: usize = 16;
/// `nlmsghdr` and `nfgenmsg`.
const HEADERS: usize = NETLINK_HEADER + 4;

/// The present number.
pub(crate) fn current() -> io::Result<u32> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    let request = libc::nlmsghdr {
        nlmsg_len: HEADERS as u32,
        nlmsg_type: GET_GENERATION,
        nlmsg_flags: libc::NLM_F_REQUEST as u16,
        nlmsg_seq: 1,
        nlmsg_pid: 0,
    };
    let mut bytes = Vec::with_capacity(HEADERS);
    bytes.extend(request.nlmsg_len.to_ne_bytes());
    bytes.extend(request.nlmsg_type.to_ne_bytes());
    bytes.extend(request.nlmsg_flags.to_ne_bytes());
    bytes.extend(request.nlmsg_seq.to_ne_bytes());
    bytes.extend(request.nlmsg_pid.to_ne_bytes());
    bytes.extend([0; HEADERS - NETLINK_HEADER]);
    sendto(socket.as_raw_fd(), &bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 512];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    parse(&answer[..length])
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no generation in the answer"))
}

fn parse(message: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    if kind != NEW_GENERATION {
        return None;
    }
    let mut rest = message.get(HEADERS..)?;
    while let (Some(length), Some(kind)) = (rest.get(..2), rest.get(2..4)) {
        let length = usize::from(u16::from_ne_bytes(length.try_into().ok()?));
        let kind = u16::from_ne_bytes(kind.try_into().ok()?);
        if kind == NFTA_GEN_ID {
            return Some(u32::from_be_bytes(rest.get(4..8)?.try_into().ok()?));
        }
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_no_generation_is_none() {
        assert_eq!(parse(&[]), None);
        assert_eq!(parse(&[0; HEADERS]), None);
        let mut message = vec![0; HEADERS];
        message[4..6].copy_from_slice(&NEW_GENERATION.to_ne_bytes());
        assert_eq!(parse(&message), None);
        // An attribute of length 0 must not be looked at for ever.
        message.extend([0; 4]);
        assert_eq!(parse(&message), None);
        message.extend([8, 0, 1, 0, 0, 0, 0, 7]);
        assert_eq!(parse(&message), Some(7));
    }
}
