//! The definition of a network: what a person writes into `/etc/vnet/networks/NAME.toml`.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{
    AddrRange, Boot, ClientId, DhcpOptions, Dns, DnsError, DnsName, Excluded, Forward, IfName,
    Ipv6, Ipv6Error, Limits, Listen, MAX_FORWARDED_PORTS, MacAddr, NetworkName, Prefix6, Subnet,
    TargetHost,
};

/// How long a lease lasts where the definition says nothing, in seconds.
pub const DEFAULT_LEASE_SECONDS: u32 = 3600;

/// Bytes of IP that every host takes (RFC 791 §3.1): the smallest MTU of a network.
pub const MIN_MTU: u32 = 576;

/// The MTU of a network that names none and has no uplink to take it from.
pub const DEFAULT_MTU: u32 = 1500;

/// The largest MTU of a network: that of a tap, whose frames have 65,535 bytes at most.
pub const MAX_MTU: u32 = 65535 - 14;

/// How a network relates to what is outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Guests reach the outside behind the host's address.
    Nat,
    /// Guests reach the host and each other, nothing else.
    Hostonly,
    /// Guests reach the outside, and the outside them, with their own addresses.
    Routed,
}

/// One network as it is desired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NetworkDefinition {
    /// The name, which is the stem of the file as well.
    pub name: NetworkName,
    /// How it relates to the outside.
    pub mode: Mode,
    /// The bridge that realises it.
    pub bridge: IfName,
    /// Its addresses; the first one, `.1`, is the host's.
    pub subnet: Subnet,
    /// The domain of its guests in the DNS.
    pub domain: DnsName,
    /// The only interface through which it reaches the outside; any where this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<IfName>,
    /// Bytes in the largest IP packet, [`MIN_MTU`] to [`MAX_MTU`]; where it is absent, those of
    /// the uplink, whatever they are at the moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// How fast it, and each port on it, may be; as fast as they can where it is left out.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// Whether netd starts it when it starts itself.
    #[serde(default = "yes")]
    pub autostart: bool,
    /// Whether a guest can send only from its own addresses, and no server's messages.
    #[serde(default = "yes")]
    pub anti_spoofing: bool,
    /// What its guests get by DHCP; no DHCP where this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<Dhcp>,
    /// Its IPv6; none where this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6>,
    /// How its names are resolved.
    #[serde(default, skip_serializing_if = "Dns::is_default")]
    pub dns: Dns,
    /// Ports of the host that lead to its guests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forwards: Vec<Forward>,
}

/// What a network's DHCP server gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Dhcp {
    /// The addresses that are given to guests without a reservation.
    pub range: AddrRange,
    /// How long a lease lasts, in seconds.
    #[serde(default = "default_lease_seconds")]
    pub lease_seconds: u32,
    /// Addresses of the range that are given to nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<Excluded>,
    /// Whether an address is given only after nobody has answered for it (ARP). Where ports are
    /// guarded nobody can have an address that was not given, hence only where they are not.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub probe: bool,
    /// For how many seconds a guest that can do without IPv4 is to do so (RFC 8925), 300 at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_only_seconds: Option<u32>,
    /// Options that guests get if they ask for them.
    #[serde(default, skip_serializing_if = "DhcpOptions::is_empty")]
    pub options: DhcpOptions,
    /// What guests boot from, where they boot from the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Boot>,
    /// Guests that always get the same address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reservations: Vec<Reservation>,
}

/// An address kept for one guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Reservation {
    /// Whose it is: the guest's card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// Whose it is, by what the guest calls itself, in place of the card. Only where ports are
    /// not guarded: anybody may call itself so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<ClientId>,
    /// The address, inside the subnet, in the range or not.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Ipv4))]
    pub ip: Ipv4Addr,
    /// The guest's name in the network's domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<DnsName>,
    /// Options for this guest, in place of the network's.
    #[serde(default, skip_serializing_if = "DhcpOptions::is_empty")]
    pub options: DhcpOptions,
}

/// Why a definition cannot be realised, though each of its values is well formed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DefinitionError {
    /// The DHCP range leaves the subnet, or holds an address that is no guest's.
    #[error("the DHCP range {range} does not fit the subnet {subnet}: choose it within {}", subnet.guests())]
    Range {
        /// As defined.
        range: AddrRange,
        /// As defined.
        subnet: Subnet,
    },
    /// A reservation's address is not one that a guest can have here.
    #[error("the reservation of {ip} for {client} does not fit the subnet {subnet}: choose it within {}", subnet.guests())]
    Reservation {
        /// As defined: a MAC address or a client identifier.
        client: String,
        /// As defined.
        ip: Ipv4Addr,
        /// As defined.
        subnet: Subnet,
    },
    /// Two reservations want the same thing.
    #[error("{0} is reserved twice: keep one of the two reservations")]
    ReservedTwice(String),
    /// A reservation for an address that no station can have.
    #[error(
        "{0} is a group address, which no guest can have: reserve for the guest's own MAC address"
    )]
    GroupMac(MacAddr),
    /// A reservation that names nobody, or twice.
    #[error(
        "the reservation of {0} is for nobody in particular: give it either `mac` or `client_id`"
    )]
    ReservedForNobody(Ipv4Addr),
    /// A reservation by an identifier that anybody may send.
    #[error(
        "{0} is reserved by client_id, which any guest may send: reserve it by `mac`, or set \
         `anti_spoofing = false`"
    )]
    UntrustedClientId(Ipv4Addr),
    /// An exclusion that excludes nothing.
    #[error("{} is not in the DHCP range {range}: leave the exclusion out", String::from(*.excluded))]
    Excluded {
        /// As defined.
        excluded: Excluded,
        /// As defined.
        range: AddrRange,
    },
    /// Too short a time without IPv4.
    #[error("ipv6_only_seconds = {0} is too short: choose 300 or more")]
    Ipv6Only(u32),
    /// The MTU is outside what IPv4 allows.
    #[error("an MTU of {0} bytes is not possible: choose {MIN_MTU} to {MAX_MTU}")]
    Mtu(u32),
    /// A forward into a network that nothing but the host may reach.
    #[error(
        "{0} cannot be forwarded: nothing from outside reaches a hostonly network, and the host \
         reaches its guests at their own addresses; make the network nat or routed"
    )]
    ForwardToHostonly(Listen),
    /// A forward's target is not an address that a guest can have here.
    #[error("{forward}: the target does not fit the subnet {subnet}: choose it within {}", subnet.guests())]
    ForwardTarget {
        /// As defined.
        forward: Forward,
        /// As defined.
        subnet: Subnet,
    },
    /// A forward listens at an address that no host can have for itself.
    #[error("{0}: this is no address of a host: leave it out to listen at all of them")]
    ForwardAddress(Listen),
    /// A forward from the IPv6 loopback address.
    #[error(
        "{0}: the kernel leads nothing from ::1 elsewhere (for 127.0.0.1 it does); leave the \
         address out, and reach the port at 127.0.0.1 or at another address of the host"
    )]
    ForwardLoopback6(Listen),
    /// A forward from IPv4 to IPv6, or the other way round.
    #[error(
        "{0}: IPv4 and IPv6 cannot be led to each other: give the host's and the guest's address \
         in the same, or the guest's name"
    )]
    ForwardFamilies(Forward),
    /// A forward's target is not an IPv6 address that a guest can have here.
    #[error("{forward}: the target does not fit the prefix {prefix}: choose it within {}", prefix.guests())]
    ForwardTarget6 {
        /// As defined.
        forward: Forward,
        /// As defined.
        prefix: Prefix6,
    },
    /// A forward over IPv6 to a network without.
    #[error("{0}: the network has no IPv6: give it a table [ipv6] with a prefix")]
    ForwardWithoutIpv6(Forward),
    /// A forward from so many ports to another number of ports.
    #[error(
        "{forward}: {} ports cannot lead to {}: give ranges of the same length",
        forward.port.count(),
        forward.target_ports().count()
    )]
    ForwardLength {
        /// As defined.
        forward: Forward,
    },
    /// Two forwards listen in the same place.
    #[error("{first} and {second} overlap: keep one of the two forwards")]
    ForwardsOverlap {
        /// One of them.
        first: Box<Forward>,
        /// The other one.
        second: Box<Forward>,
    },
    /// More ports than the firewall is to hold for one network.
    #[error("{0} ports are forwarded: {MAX_FORWARDED_PORTS} is the most for one network")]
    TooManyForwards(usize),
    /// A lease too short to be renewed in time.
    #[error("a lease of {0} seconds is too short to be renewed: choose 60 or more")]
    LeaseTooShort(u32),
    /// Its IPv6 contradicts itself, or something else in the definition.
    #[error(transparent)]
    Ipv6(#[from] Ipv6Error),
    /// Its names contradict each other.
    #[error(transparent)]
    Dns(#[from] DnsError),
    /// A bridge over itself.
    #[error("{0} cannot be its own uplink: name the bridge otherwise, as in br0")]
    OwnUplink(IfName),
}

fn default_lease_seconds() -> u32 {
    DEFAULT_LEASE_SECONDS
}

fn yes() -> bool {
    true
}

impl Mode {
    /// The word of the command line and of definitions.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Hostonly => "hostonly",
            Self::Routed => "routed",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "nat" => Ok(Self::Nat),
            "hostonly" => Ok(Self::Hostonly),
            "routed" => Ok(Self::Routed),
            _ => Err(format!("`{text}` is no mode: use nat, hostonly or routed")),
        }
    }
}

fn is_yes(value: &bool) -> bool {
    *value
}

impl Dhcp {
    /// DHCP that gives the addresses of `range`, with all else as it is where nothing is said.
    #[must_use]
    pub fn new(range: AddrRange) -> Self {
        Self {
            range,
            lease_seconds: DEFAULT_LEASE_SECONDS,
            exclude: Vec::new(),
            probe: true,
            ipv6_only_seconds: None,
            options: DhcpOptions::default(),
            boot: None,
            reservations: Vec::new(),
        }
    }
}

impl Reservation {
    /// The address `ip` for the card `mac`.
    #[must_use]
    pub fn new(mac: MacAddr, ip: Ipv4Addr) -> Self {
        let options = DhcpOptions::default();
        Self { mac: Some(mac), client_id: None, ip, hostname: None, options }
    }

    /// Whose it is, in words; None if that is nobody, or not clear.
    fn client(&self) -> Option<String> {
        match (self.mac, &self.client_id) {
            (Some(mac), None) => Some(mac.to_string()),
            (None, Some(id)) => Some(id.to_string()),
            _ => None,
        }
    }
}

impl NetworkDefinition {
    /// Whether the two differ in nothing but their MTU.
    #[must_use]
    pub fn is_but_for_mtu(&self, other: &Self) -> bool {
        // Whoever adds a field is reminded of this place.
        let Self {
            name,
            mode,
            bridge,
            subnet,
            domain,
            uplink,
            mtu: _,
            limits,
            autostart,
            anti_spoofing,
            dhcp,
            ipv6,
            dns,
            forwards,
        } = self;
        (name, mode, bridge, subnet, domain, uplink)
            == (
                &other.name,
                &other.mode,
                &other.bridge,
                &other.subnet,
                &other.domain,
                &other.uplink,
            )
            && (limits, autostart, anti_spoofing)
                == (&other.limits, &other.autostart, &other.anti_spoofing)
            && (dhcp, ipv6, dns, forwards)
                == (&other.dhcp, &other.ipv6, &other.dns, &other.forwards)
    }

    /// Checks what no single value can show: that the parts fit each other.
    ///
    /// # Errors
    /// The first contradiction found.
    pub fn validate(&self) -> Result<(), DefinitionError> {
        if let Some(mtu) = self.mtu
            && !(MIN_MTU..=MAX_MTU).contains(&mtu)
        {
            return Err(DefinitionError::Mtu(mtu));
        }
        self.validate_forwards()?;
        self.dns.validate(&self.domain)?;
        if let Some(ipv6) = &self.ipv6 {
            ipv6.validate(self.mtu())?;
        }
        let Some(dhcp) = &self.dhcp else { return Ok(()) };
        let guests = self.subnet.guests();
        if !guests.contains(dhcp.range.first()) || !guests.contains(dhcp.range.last()) {
            return Err(DefinitionError::Range { range: dhcp.range, subnet: self.subnet });
        }
        if dhcp.lease_seconds < 60 {
            return Err(DefinitionError::LeaseTooShort(dhcp.lease_seconds));
        }
        let outside = |one: &&Excluded| {
            !dhcp.range.contains(one.range().first()) || !dhcp.range.contains(one.range().last())
        };
        if let Some(&excluded) = dhcp.exclude.iter().find(outside) {
            return Err(DefinitionError::Excluded { excluded, range: dhcp.range });
        }
        if let Some(seconds) = dhcp.ipv6_only_seconds.filter(|&seconds| seconds < 300) {
            return Err(DefinitionError::Ipv6Only(seconds));
        }
        let mut seen = BTreeSet::new();
        for reservation in &dhcp.reservations {
            let ip = reservation.ip;
            let client = reservation.client().ok_or(DefinitionError::ReservedForNobody(ip))?;
            if let Some(mac) = reservation.mac.filter(|mac| mac.is_multicast()) {
                return Err(DefinitionError::GroupMac(mac));
            }
            if reservation.client_id.is_some() && self.anti_spoofing {
                return Err(DefinitionError::UntrustedClientId(ip));
            }
            if !guests.contains(ip) {
                return Err(DefinitionError::Reservation { client, ip, subnet: self.subnet });
            }
            for key in [client, ip.to_string()] {
                if !seen.insert(key.clone()) {
                    return Err(DefinitionError::ReservedTwice(key));
                }
            }
        }
        Ok(())
    }

    /// Bytes in the largest IP packet, of a definition in which nothing is left to the uplink.
    #[must_use]
    pub fn mtu(&self) -> u32 {
        self.mtu.unwrap_or(DEFAULT_MTU)
    }

    fn validate_forwards(&self) -> Result<(), DefinitionError> {
        let total: usize = self.forwards.iter().map(|forward| forward.port.count()).sum();
        if total > MAX_FORWARDED_PORTS {
            return Err(DefinitionError::TooManyForwards(total));
        }
        for forward in &self.forwards {
            if self.mode == Mode::Hostonly {
                return Err(DefinitionError::ForwardToHostonly(forward.listen()));
            }
            self.validate_addresses(forward)?;
            if forward.port.count() != forward.target_ports().count() {
                return Err(DefinitionError::ForwardLength { forward: forward.clone() });
            }
        }
        // In the order of their first ports, only those up to a forward's last port can overlap it.
        let mut sorted: Vec<&Forward> = self.forwards.iter().collect();
        sorted.sort_by_key(|forward| (forward.protocol, forward.port));
        for (number, first) in sorted.iter().enumerate() {
            for second in &sorted[number + 1..] {
                if second.protocol != first.protocol || second.port.first() > first.port.last() {
                    break;
                }
                if first.listen().overlaps(&second.listen()) {
                    let [first, second] = [*first, *second].map(|one| Box::new(one.clone()));
                    return Err(DefinitionError::ForwardsOverlap { first, second });
                }
            }
        }
        Ok(())
    }
}

impl NetworkDefinition {
    /// Checks the addresses of one forward.
    fn validate_addresses(&self, forward: &Forward) -> Result<(), DefinitionError> {
        let listen = forward.listen();
        if forward.address == Some(Ipv6Addr::LOCALHOST.into()) {
            return Err(DefinitionError::ForwardLoopback6(listen));
        }
        if forward.address.is_some_and(|address| !is_of_a_host(address)) {
            return Err(DefinitionError::ForwardAddress(listen));
        }
        let prefix = self.ipv6.as_ref().map(|ipv6| ipv6.prefix);
        match (&forward.target.host, prefix) {
            (TargetHost::Address(IpAddr::V4(_)), _) if !listen.takes_v4() => {
                return Err(DefinitionError::ForwardFamilies(forward.clone()));
            }
            (TargetHost::Address(IpAddr::V6(_)), _) if !listen.takes_v6() => {
                return Err(DefinitionError::ForwardFamilies(forward.clone()));
            }
            (TargetHost::Address(IpAddr::V4(address)), _) => {
                if !self.subnet.guests().contains(*address) {
                    let (forward, subnet) = (forward.clone(), self.subnet);
                    return Err(DefinitionError::ForwardTarget { forward, subnet });
                }
            }
            (TargetHost::Address(IpAddr::V6(address)), Some(prefix)) => {
                if !prefix.guests().contains(*address) {
                    let forward = forward.clone();
                    return Err(DefinitionError::ForwardTarget6 { forward, prefix });
                }
            }
            (TargetHost::Address(IpAddr::V6(_)), None) => {
                return Err(DefinitionError::ForwardWithoutIpv6(forward.clone()));
            }
            (TargetHost::Name(_), None) if !listen.takes_v4() => {
                return Err(DefinitionError::ForwardWithoutIpv6(forward.clone()));
            }
            (TargetHost::Name(_), _) => {}
        }
        Ok(())
    }
}

/// Whether a host can listen there, the unspecified address for all of them included. A link-local
/// address does not say on which link.
fn is_of_a_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_multicast() && !address.is_broadcast(),
        IpAddr::V6(address) => {
            let link_local = address.segments()[0] & 0xffc0 == 0xfe80;
            !address.is_multicast() && !link_local && address.to_ipv4_mapped().is_none()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn default_network() -> NetworkDefinition {
        let subnet: Subnet = "192.168.122.0/24".parse().unwrap();
        NetworkDefinition {
            name: "default".parse().unwrap(),
            mode: Mode::Nat,
            bridge: "virbr0".parse().unwrap(),
            subnet,
            domain: "default.vnet".parse().unwrap(),
            uplink: None,
            mtu: None,
            limits: Limits::default(),
            autostart: true,
            anti_spoofing: true,
            dhcp: Some(Dhcp::new(subnet.guests())),
            ipv6: None,
            dns: Dns::default(),
            forwards: vec![],
        }
    }

    #[test]
    fn the_default_network_is_valid() {
        default_network().validate().unwrap();
    }

    #[test]
    fn a_range_outside_the_subnet_is_refused() {
        let mut net = default_network();
        net.dhcp.as_mut().unwrap().range = "192.168.122.1-192.168.122.9".parse().unwrap();
        let error = net.validate().unwrap_err().to_string();
        assert!(error.contains("within 192.168.122.2-192.168.122.254"), "{error}");
    }

    #[test]
    fn reservations_and_exclusions_say_what_they_mean() {
        let with = |toml: &str| {
            let mut net = default_network();
            let dhcp = format!(r#"{{"range":"192.168.122.2-192.168.122.99",{toml}}}"#);
            net.dhcp = Some(serde_json::from_str(&dhcp).unwrap());
            net.validate().map_err(|error| error.to_string())
        };
        let refused = |toml: &str| with(toml).unwrap_err();
        with(r#""exclude":["192.168.122.9","192.168.122.20-192.168.122.29"]"#).unwrap();
        assert!(refused(r#""exclude":["192.168.122.100"]"#).contains("is not in the DHCP range"));
        assert!(refused(r#""ipv6_only_seconds":299"#).contains("choose 300 or more"));
        let nobody = r#""reservations":[{"ip":"192.168.122.9"}]"#;
        assert!(refused(nobody).contains("give it either `mac` or `client_id`"));
        let by_id = r#""reservations":[{"client_id":"ff01","ip":"192.168.122.9"}]"#;
        assert!(refused(by_id).contains("anti_spoofing = false"));
    }

    #[test]
    fn reservations_are_unique_and_inside() {
        let mut net = default_network();
        let mac = |text: &str| text.parse().unwrap();
        let one = Reservation::new(mac("52:54:00:00:00:01"), "192.168.122.9".parse().unwrap());
        let dhcp = net.dhcp.as_mut().unwrap();
        dhcp.reservations =
            vec![one.clone(), Reservation { mac: Some(mac("52:54:00:00:00:02")), ..one.clone() }];
        assert_eq!(net.validate(), Err(DefinitionError::ReservedTwice("192.168.122.9".into())));
        net.dhcp.as_mut().unwrap().reservations =
            vec![Reservation { ip: "10.0.0.1".parse().unwrap(), ..one }];
        assert!(matches!(net.validate(), Err(DefinitionError::Reservation { .. })));
    }

    #[test]
    fn a_forward_that_cannot_be_is_refused_and_named() {
        let forward = |listen: &str, target: &str| {
            Forward::new(listen.parse().unwrap(), target.parse().unwrap())
        };
        let reason = |forwards: &[Forward]| {
            let net = NetworkDefinition { forwards: forwards.to_vec(), ..default_network() };
            net.validate().map_or_else(|error| error.to_string(), |()| String::new())
        };
        assert_eq!(reason(&[forward("80", "web"), forward("80/udp", "web")]), "");
        assert_eq!(reason(&[forward("203.0.113.2:80", "web"), forward("127.0.0.1:80", "db")]), "");
        for (forwards, words) in [
            (vec![forward("80", "10.0.0.1")], "80/tcp to 10.0.0.1: the target does not fit"),
            (vec![forward("80-89", "web:80-88")], "10 ports cannot lead to 9"),
            (vec![forward("224.0.0.1:80", "web")], "no address of a host"),
            (vec![forward("[fe80::1]:80", "web")], "no address of a host"),
            (vec![forward("[::1]:80", "web")], "127.0.0.1"),
            (vec![forward("[::]:80", "web")], "has no IPv6"),
            (vec![forward("80", "[fd00::9]")], "has no IPv6"),
            (vec![forward("[::]:80", "192.168.122.9")], "cannot be led to each other"),
            (
                vec![forward("85", "a"), forward("9", "b"), forward("203.0.113.2:80-90", "c")],
                "203.0.113.2:80-90/tcp to c and 85/tcp to a overlap",
            ),
            (vec![forward("1-20000", "web")], "16384 is the most"),
        ] {
            let reason = reason(&forwards);
            assert!(reason.contains(words), "{reason}");
        }
        let mut net = default_network();
        (net.mode, net.forwards) = (Mode::Hostonly, vec![forward("80", "web")]);
        assert_eq!(net.validate(), Err(DefinitionError::ForwardToHostonly("80".parse().unwrap())));
    }

    #[test]
    fn mtu_and_lease_time_have_bounds() {
        let mut net = default_network();
        net.mtu = Some(575);
        assert_eq!(net.validate(), Err(DefinitionError::Mtu(575)));
        net.mtu = Some(1500);
        net.dhcp.as_mut().unwrap().lease_seconds = 59;
        assert_eq!(net.validate(), Err(DefinitionError::LeaseTooShort(59)));
    }
}
