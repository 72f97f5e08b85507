//! Names that are answered here whatever the network, and never forwarded: the locally served
//! reverse zones (RFC 6303 §4, RFC 7793) and the special-use names (RFC 6761, RFC 6762 §22.1,
//! RFC 7686, RFC 8375, RFC 9462 §6.5, RFC 9476). `example` is not special for a DNS server
//! (RFC 6761 §6.5).
//!
//! A network's own domain, or a rule for split DNS, beneath one of them counts before it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use super::{Cut, HOST_TTL, Node, Soa, ancestors, apex, soa};
use crate::name;
use crate::wire::rtype;

/// The zones and their nodes. The names are constants, so all of them are names.
pub(super) struct Special {
    pub(super) cuts: HashMap<Box<[u8]>, Cut>,
    pub(super) nodes: HashMap<Box<[u8]>, Node>,
    /// `localhost` and all that is beneath it (RFC 6761 §6.3).
    pub(super) localhost: Node,
    /// For the absence of a top-level name, which is nobody's zone of ours.
    pub(super) root_soa: Soa,
}

pub(super) static SPECIAL: LazyLock<Special> = LazyLock::new(Special::new);

/// The zone that the root's servers delegate, without signature, so that what is beneath it may
/// be anybody's (RFC 8375 §7).
const HOME: &str = "home.arpa";

const NAMES: &[&str] = &[
    // RFC 6761 §6.2, §6.3, §6.4
    "test",
    "localhost",
    "invalid",
    // RFC 6762 §22.1 (5): multicast DNS has its own way
    "local",
    // RFC 7686 §2
    "onion",
    // RFC 9476 §3
    "alt",
    // RFC 8375 §4 (5)
    HOME,
    // RFC 9462 §6.5: a forwarder does not pass on the discovery of its upstream's encryption.
    "resolver.arpa",
    // RFC 6303 §4.1
    "10.in-addr.arpa",
    "168.192.in-addr.arpa",
    // RFC 6303 §4.2
    "0.in-addr.arpa",
    "127.in-addr.arpa",
    "254.169.in-addr.arpa",
    "2.0.192.in-addr.arpa",
    "100.51.198.in-addr.arpa",
    "113.0.203.in-addr.arpa",
    "255.255.255.255.in-addr.arpa",
    // RFC 6303 §4.3
    "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa",
    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa",
    // RFC 6303 §4.4, §4.5, §4.6
    "d.f.ip6.arpa",
    "8.e.f.ip6.arpa",
    "9.e.f.ip6.arpa",
    "a.e.f.ip6.arpa",
    "b.e.f.ip6.arpa",
    "8.b.d.0.1.0.0.2.ip6.arpa",
];

/// Top-level names' own types, which a validating guest asks on its way down from the root
/// (RFC 4035 §5). They are forwarded even though the name has one label.
pub(super) fn is_infrastructure(kind: u16) -> bool {
    // SOA, NS, DS, RRSIG, NSEC, DNSKEY, NSEC3, NSEC3PARAM, CDS, CDNSKEY, ZONEMD
    matches!(kind, 2 | 6 | 43 | 46 | 47 | 48 | 50 | 51 | 59 | 60 | 63)
}

impl Special {
    fn new() -> Self {
        // RFC 6303 §4.1: 16.172 to 31.172; RFC 7793 §2.1: 64.100 to 127.100.
        let names = NAMES
            .iter()
            .map(|&name| name.to_owned())
            .chain((16..=31).map(|octet| format!("{octet}.172.in-addr.arpa")))
            .chain((64..=127).map(|octet| format!("{octet}.100.in-addr.arpa")));
        let (mut cuts, mut nodes) = (HashMap::new(), HashMap::new());
        for name in names {
            // RFC 6303 §3: the zone's own name is its name server's.
            let (mut cut, node) = apex(&name, &name, 1, None);
            if let Cut::Ours { delegated, .. } = &mut cut {
                *delegated = name == HOME;
            }
            cuts.insert(name::key_of(&name), cut);
            nodes.insert(name::key_of(&name), node);
        }
        let mut localhost = Node::default();
        localhost.add(rtype::A, HOST_TTL, &Ipv4Addr::LOCALHOST.octets());
        localhost.add(rtype::AAAA, HOST_TTL, &Ipv6Addr::LOCALHOST.octets());
        for addr in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let node = ancestors(&mut nodes, name::key_of(&name::reverse(addr)));
            node.add(rtype::PTR, HOST_TTL, &name::wire("localhost"));
        }
        let root_soa = soa(".", ".", 1).1;
        Self { cuts, nodes, localhost, root_soa }
    }
}
