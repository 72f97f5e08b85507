//! Names that are answered here whatever the network, and never forwarded: the locally served
//! reverse zones (RFC 6303 §4, RFC 7793) and the special-use names (RFC 6761, RFC 7686,
//! RFC 9462 §6.5).
//!
//! `example` is not special for a DNS server (RFC 6761 §6.5); `local` is left alone, because
//! Active Directory sites do use it in unicast DNS.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::{Cut, HOST_TTL, Node, ancestors, apex, soa};
use crate::name::Key;

/// The zones and their nodes. The names are constants, so all of them parse.
pub(super) struct Special {
    pub(super) cuts: HashMap<Box<[u8]>, Cut>,
    pub(super) nodes: HashMap<Box<[u8]>, Node>,
    /// For the absence of a top-level name, which is nobody's zone of ours.
    pub(super) root_soa: Record,
}

pub(super) static SPECIAL: LazyLock<Special> = LazyLock::new(Special::new);

const NAMES: &[&str] = &[
    // RFC 6761 §6.2, §6.3, §6.4
    "test",
    "localhost",
    "invalid",
    // RFC 7686 §2
    "onion",
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
pub(super) fn is_infrastructure(rtype: RecordType) -> bool {
    // SOA, NS, DS, RRSIG, NSEC, DNSKEY, NSEC3, NSEC3PARAM, CDS, CDNSKEY, ZONEMD
    matches!(u16::from(rtype), 2 | 6 | 43 | 46 | 47 | 48 | 50 | 51 | 59 | 60 | 63)
}

/// The addresses of `localhost` and of all that is beneath it (RFC 6761 §6.3).
pub(super) fn localhost(name: &Name, rtype: RecordType) -> Option<Record> {
    let data = match rtype {
        RecordType::A | RecordType::ANY => RData::A(A(Ipv4Addr::LOCALHOST)),
        RecordType::AAAA => RData::AAAA(AAAA(Ipv6Addr::LOCALHOST)),
        _ => return None,
    };
    Some(Record::from_rdata(name.clone(), HOST_TTL, data))
}

impl Special {
    fn new() -> Self {
        // RFC 6303 §4.1: 16.172 to 31.172; RFC 7793 §2.1: 64.100 to 127.100.
        let names = NAMES
            .iter()
            .map(|&name| name.to_owned())
            .chain((16..=31).map(|octet| format!("{octet}.172.in-addr.arpa")))
            .chain((64..=127).map(|octet| format!("{octet}.100.in-addr.arpa")));
        let mut special = Self {
            cuts: HashMap::new(),
            nodes: HashMap::new(),
            root_soa: soa(&Name::root(), &Name::root(), 1),
        };
        for name in names.filter_map(|name| Name::from_ascii(name + ".").ok()) {
            let key = Key::new(&name);
            // RFC 6303 §3: the zone's own name is its name server's.
            let (cut, node) = apex(&name, &name, 1, None);
            special.cuts.insert(key.as_bytes().into(), cut);
            special.nodes.insert(key.as_bytes().into(), node);
        }
        for addr in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
            let name = super::reverse_name(addr);
            let Ok(localhost) = Name::from_ascii("localhost.") else { continue };
            let ptr = Record::from_rdata(name.clone(), HOST_TTL, RData::PTR(PTR(localhost)));
            ancestors(&mut special.nodes, &name).add(ptr);
        }
        special
    }
}
