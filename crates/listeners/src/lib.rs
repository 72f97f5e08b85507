//! Who on this host listens on a port: what `/proc/net` and `/proc/PID/fd` tell this process, in
//! the network namespace that it has started in.
//!
//! ```text
//! /proc/net/{tcp,udp}[6] ──► sockets in the way ──► /proc/*/fd ──► `dnsmasq (pid 812)`
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vnet_types::{Listen, Protocol};

/// A socket that has a port which somebody else wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// Its address; `::` where it listens at all of them, IPv4 included as a rule.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    inode: u64,
}

/// The sockets of this host, read when they are first asked for: an answer costs the kernel a walk
/// through all of its table, so one is kept for all questions of one moment.
#[derive(Debug, Default)]
pub struct Sockets(BTreeMap<Protocol, Vec<String>>);

impl Sockets {
    /// The sockets that have one of the ports, at one of the addresses, that `wanted` names. A
    /// socket that listens at all IPv6 addresses counts for IPv4: most take that too, and `/proc`
    /// does not tell.
    pub fn in_the_way(&mut self, wanted: &Listen) -> Vec<Listener> {
        let lines = self.0.entry(wanted.protocol).or_insert_with(|| lines(wanted.protocol));
        lines.iter().filter_map(|line| conflicting(line, wanted)).collect()
    }
}

fn lines(protocol: Protocol) -> Vec<String> {
    let mut all = Vec::new();
    for table in [format!("/proc/net/{protocol}"), format!("/proc/net/{protocol}6")] {
        let text = fs::read_to_string(table).unwrap_or_default();
        all.extend(text.lines().skip(1).map(str::to_owned));
    }
    all
}

/// The names of the processes that hold any of these sockets, with their pids, as in
/// `dnsmasq (pid 812)`; none if this process may not see them.
#[must_use]
pub fn holders(sockets: &[Listener]) -> Option<String> {
    if sockets.is_empty() {
        return None;
    }
    let mut holders = Vec::new();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(open) = fs::read_dir(process.path().join("fd")) else { continue };
        let holds = open.flatten().any(|fd| {
            fs::read_link(fd.path()).is_ok_and(|to| {
                to.to_str()
                    .and_then(|to| to.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
                    .is_some_and(|inode: u64| sockets.iter().any(|socket| socket.inode == inode))
            })
        });
        if holds {
            let comm = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            holders.push(format!("{} (pid {pid})", comm.trim()));
        }
    }
    (!holders.is_empty()).then(|| holders.join(", "))
}

/// The socket of a line of /proc/net/{tcp,udp}[6] (proc_net(5)), if it is in the way: one of the
/// ports, and the same address or all addresses; for TCP, one that listens.
fn conflicting(line: &str, wanted: &Listen) -> Option<Listener> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (address, port) = fields.get(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    if !wanted.ports.contains(port) {
        return None;
    }
    // TCP_LISTEN, and TCP_CLOSE, which is what an unconnected UDP socket shows.
    let open = match wanted.protocol {
        Protocol::Tcp => "0A",
        Protocol::Udp => "07",
    };
    if *fields.get(3)? != open {
        return None;
    }
    let address = parse(address)?;
    let meets = match (wanted.address, address) {
        // Nothing leads away from there, so what listens there is in nobody's way.
        (_, IpAddr::V6(Ipv6Addr::LOCALHOST)) => wanted.address == Some(Ipv6Addr::LOCALHOST.into()),
        (None, _) => true,
        (Some(IpAddr::V6(_)), IpAddr::V4(_)) => false,
        (Some(_), IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => true,
        (Some(IpAddr::V4(_)), IpAddr::V6(_)) => false,
        (Some(wanted), _) => {
            address.is_unspecified() || wanted.is_unspecified() || wanted == address
        }
    };
    let inode = fields.get(9)?.parse().ok()?;
    meets.then_some(Listener { address, port, inode })
}

/// An address as words in the host's order; an IPv4 address that is mapped into IPv6
/// (RFC 4291 §2.5.5.2) is one of IPv4.
fn parse(address: &str) -> Option<IpAddr> {
    let word = |digits: &str| u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes);
    if !address.is_ascii() {
        return None;
    }
    if address.len() == 8 {
        return word(address).map(|bytes| Ipv4Addr::from(bytes).into());
    }
    if address.len() != 32 {
        return None;
    }
    let mut octets = [0; 16];
    for (place, octet) in octets.chunks_exact_mut(4).enumerate() {
        octet.copy_from_slice(&word(address.get(8 * place..8 * place + 8)?)?);
    }
    let address = Ipv6Addr::from(octets);
    Some(address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn found(local: &str, state: &str, wanted: &str) -> bool {
        let line = format!(
            "  1: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 0 0 4711 2"
        );
        conflicting(&line, &wanted.parse().unwrap()).is_some()
    }

    #[test]
    fn wildcard_and_equal_sockets_are_in_the_way() {
        let ours = format!("{:08X}:0035", u32::from_ne_bytes([127, 0, 0, 1]));
        assert!(found(&ours, "0A", "127.0.0.1:53"));
        assert!(found(&ours, "0A", "50-60"));
        assert!(found("00000000:0035", "07", "127.0.0.1:53/udp"));
        assert!(!found("00000000:0036", "07", "127.0.0.1:53/udp"));
        assert!(!found(&ours, "01", "127.0.0.1:53"));
        assert!(!found(&ours, "0A", "127.0.0.2:53"));
        assert!(!found("junk", "0A", "53"));
    }

    #[test]
    fn ipv6_sockets_that_take_ipv4_are_in_the_way() {
        let all = format!("{}:0035", "0".repeat(32));
        assert!(found(&all, "0A", "127.0.0.1:53"));
        let word = |bytes| format!("{:08X}", u32::from_ne_bytes(bytes));
        let mapped = format!("{:016X}{}{}:0035", 0, word([0, 0, 255, 255]), word([127, 0, 0, 1]));
        assert!(found(&mapped, "0A", "127.0.0.1:53"));
        let loopback = format!("{:024X}{}:0035", 0, word([0, 0, 0, 1]));
        assert!(!found(&loopback, "0A", "53"));
        assert!(!found(&loopback, "0A", "[::]:53"));
        assert!(found(&loopback, "0A", "[::1]:53"));
    }

    #[test]
    fn ipv6_sockets_are_in_the_way_of_ipv6() {
        let four = format!("{:08X}:0035", u32::from_ne_bytes([127, 0, 0, 1]));
        assert!(!found(&four, "0A", "[::]:53"));
        assert!(!found("00000000:0035", "0A", "[2001:db8::2]:53"));
        let word = |bytes| format!("{:08X}", u32::from_ne_bytes(bytes));
        let (head, tail) = (word([0x20, 1, 0xd, 0xb8]), word([0, 0, 0, 2]));
        let one = format!("{head}{:016X}{tail}:0035", 0);
        assert!(found(&one, "0A", "[2001:db8::2]:53"));
        assert!(!found(&one, "0A", "[2001:db8::3]:53"));
        assert!(found(&one, "0A", "[::]:53"));
    }

    #[test]
    fn the_holder_is_named() {
        let socket = std::net::UdpSocket::bind("127.0.0.9:0").unwrap();
        let wanted = format!("{}/udp", socket.local_addr().unwrap()).parse().unwrap();
        let holders = holders(&Sockets::default().in_the_way(&wanted)).unwrap();
        assert!(holders.contains(&format!("(pid {})", std::process::id())), "{holders}");
    }
}
