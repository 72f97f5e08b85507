//! What a socket sees: programs that the kernel runs for each frame.

use std::io;
use std::os::fd::AsRawFd;

use vnet_dhcp::{ra, v6};

use super::SERVER_PORT;

pub(crate) fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// Everything.
pub(super) fn all() -> libc::sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX)
}

/// Nothing: for a socket that only keeps a port.
pub(super) fn nothing() -> libc::sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0)
}

/// IPv4, UDP, no later fragment, to port 67.
pub(super) fn dhcp_requests() -> [libc::sock_filter; 11] {
    use libc::{
        BPF_ABS, BPF_B, BPF_H, BPF_IND, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_LDX,
        BPF_MSH, BPF_RET,
    };
    const ETHERNET: u32 = 14;
    const ETHERTYPE: u32 = 12;
    const IP_FRAGMENT: u32 = ETHERNET + 6;
    const IP_PROTOCOL: u32 = ETHERNET + 9;
    const UDP_DESTINATION: u32 = ETHERNET + 2;
    [
        instruction(BPF_LD | BPF_H | BPF_ABS, 0, 0, ETHERTYPE),
        instruction(BPF_JMP | BPF_JEQ | BPF_K, 0, 7, libc::ETH_P_IP as u32),
        instruction(BPF_LD | BPF_B | BPF_ABS, 0, 0, IP_PROTOCOL),
        instruction(BPF_JMP | BPF_JEQ | BPF_K, 0, 5, libc::IPPROTO_UDP as u32),
        instruction(BPF_LD | BPF_H | BPF_ABS, 0, 0, IP_FRAGMENT),
        instruction(BPF_JMP | BPF_JSET | BPF_K, 3, 0, 0x1fff),
        instruction(BPF_LDX | BPF_B | BPF_MSH, 0, 0, ETHERNET),
        instruction(BPF_LD | BPF_H | BPF_IND, 0, 0, UDP_DESTINATION),
        instruction(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, SERVER_PORT.into()),
        instruction(BPF_RET | BPF_K, 0, 0, 0),
        instruction(BPF_RET | BPF_K, 0, 0, u32::MAX),
    ]
}

/// IPv6, and ICMPv6 of the type router solicitation, or UDP to port 547.
pub(super) fn ipv6_requests() -> [libc::sock_filter; 11] {
    use libc::{BPF_ABS, BPF_B, BPF_H, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET};
    const ETHERNET: u32 = 14;
    const ETHERTYPE: u32 = 12;
    const NEXT_HEADER: u32 = ETHERNET + 6;
    const CONTENT: u32 = ETHERNET + 40;
    [
        instruction(BPF_LD | BPF_H | BPF_ABS, 0, 0, ETHERTYPE),
        instruction(BPF_JMP | BPF_JEQ | BPF_K, 0, 7, libc::ETH_P_IPV6 as u32),
        instruction(BPF_LD | BPF_B | BPF_ABS, 0, 0, NEXT_HEADER),
        instruction(BPF_JMP | BPF_JEQ | BPF_K, 3, 0, libc::IPPROTO_UDP as u32),
        instruction(BPF_JMP | BPF_JEQ | BPF_K, 0, 4, libc::IPPROTO_ICMPV6 as u32),
        instruction(BPF_LD | BPF_B | BPF_ABS, 0, 0, CONTENT),
        instruction(BPF_JMP | BPF_JEQ | BPF_K, 3, 2, ra::SOLICITATION.into()),
        instruction(BPF_LD | BPF_H | BPF_ABS, 0, 0, CONTENT + 2),
        instruction(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, v6::SERVER_PORT.into()),
        instruction(BPF_RET | BPF_K, 0, 0, 0),
        instruction(BPF_RET | BPF_K, 0, 0, u32::MAX),
    ]
}

pub(super) fn attach(socket: &impl AsRawFd, filter: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        // The kernel only reads; the type is older than const.
        filter: filter.as_ptr().cast_mut(),
    };
    let length = size_of_val(&program) as libc::socklen_t;
    // SAFETY: the program and the instructions that it points to outlive the call, which copies
    // them; the length is theirs.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
