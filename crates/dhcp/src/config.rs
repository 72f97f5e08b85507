//! What the server of one network gives, and to whom.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use vnet_types::{
    AddrRange, DhcpOptions, DnsName, Firmware, MacAddr, Mode, NetworkDefinition, Reservation,
    Subnet,
};

use crate::lease::ClientKey;
use crate::message::Client;

/// One network as its DHCP server sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// The host's address on the bridge: the server identifier.
    pub server: Ipv4Addr,
    /// The bridge's own MAC address: the source of every reply.
    pub server_mac: MacAddr,
    /// The addresses of the network.
    pub subnet: Subnet,
    /// The addresses that are given to guests without a reservation.
    pub range: AddrRange,
    /// Addresses in the range that are given to nobody.
    pub excluded: Vec<AddrRange>,
    /// How long a lease lasts at most, in seconds.
    pub lease_seconds: u32,
    /// Guests that always get the same address.
    pub reservations: Vec<Reservation>,
    /// Default routers, the preferred one first; none on a network that leads nowhere.
    pub routers: Vec<Ipv4Addr>,
    /// Name servers, the preferred one first.
    pub dns_servers: Vec<Ipv4Addr>,
    /// The domain that guests' names are in.
    pub domain: Option<DnsName>,
    /// Further domains in which guests look for short names.
    pub search: Vec<DnsName>,
    /// Bytes in the largest IP packet on the network.
    pub mtu: u16,
    /// Time servers.
    pub ntp_servers: Vec<Ipv4Addr>,
    /// Routes besides the default one.
    pub routes: Vec<Route>,
    /// What guests boot from, where they boot from the network.
    pub boot: Option<Boot>,
    /// Options in place of those that follow from the above, or besides them.
    pub options: DhcpOptions,
    /// For how many seconds a guest that can do without IPv4 is to do so (RFC 8925); it is
    /// told nothing of the kind where this is absent.
    pub ipv6_only_seconds: Option<u32>,
    /// What makes two messages those of one client.
    pub identity: Identity,
    /// Whether a client that asks for it gets its lease in two messages (RFC 4039).
    pub rapid_commit: bool,
}

/// A route that guests are told of (RFC 3442).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub destination: Ipv4Net,
    /// Through whom.
    pub router: Ipv4Addr,
}

/// Where the boot loader of a guest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// The TFTP server.
    pub server: Ipv4Addr,
    /// The file's path there, or for HTTP its URL, for each kind of firmware.
    pub files: BTreeMap<Firmware, String>,
}

/// What makes two messages those of one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Identity {
    /// The client identifier, and the MAC address where there is none (RFC 2131 §4.2).
    #[default]
    ClientId,
    /// The MAC address alone: for guests cloned with their client identifiers.
    Hardware,
}

impl ServerConfig {
    /// What `network` asks for, served from the bridge with the address `server_mac`. None
    /// where the network has no DHCP.
    #[must_use]
    pub fn for_network(network: &NetworkDefinition, server_mac: MacAddr) -> Option<Self> {
        let dhcp = network.dhcp.as_ref()?;
        let gateway = network.subnet.gateway();
        let routers = match network.mode {
            Mode::Nat | Mode::Routed => vec![gateway],
            // A default route that leads nowhere would win over a guest's second network card.
            Mode::Hostonly => Vec::new(),
        };
        Some(Self {
            server: gateway,
            server_mac,
            subnet: network.subnet,
            range: dhcp.range,
            excluded: dhcp.exclude.iter().map(|excluded| excluded.range()).collect(),
            lease_seconds: dhcp.lease_seconds,
            reservations: dhcp.reservations.clone(),
            routers,
            dns_servers: vec![gateway],
            domain: Some(network.domain.clone()),
            search: vec![network.domain.clone()],
            mtu: u16::try_from(network.mtu()).unwrap_or(u16::MAX),
            ntp_servers: Vec::new(),
            routes: Vec::new(),
            boot: dhcp.boot.as_ref().map(|boot| Boot {
                server: boot.server.unwrap_or(gateway),
                files: boot.files.clone(),
            }),
            options: dhcp.options.clone(),
            ipv6_only_seconds: dhcp.ipv6_only_seconds,
            // Anybody may send anybody's identifier, and so take over its lease. The MAC address
            // is what a guarded port is held to.
            identity: if network.anti_spoofing { Identity::Hardware } else { Identity::ClientId },
            // An address that is to be probed is not given in two messages.
            rapid_commit: !probes(network),
        })
    }

    /// Whether a guest could have `ip` at all: inside the subnet, and neither its network
    /// address, its broadcast address, nor the server's.
    pub(crate) fn is_guest_address(&self, ip: Ipv4Addr) -> bool {
        self.subnet.contains(ip)
            && ip != self.subnet.net().network()
            && ip != self.subnet.broadcast()
            && ip != self.server
            && !self.routers.contains(&ip)
    }
}

/// The reservations of a network, found by card, by address and by name.
#[derive(Debug, Default)]
pub(crate) struct Reservations {
    by_client: BTreeMap<ClientKey, Reservation>,
    by_ip: BTreeMap<Ipv4Addr, ClientKey>,
    names: BTreeSet<DnsName>,
}

impl Reservations {
    /// Those of `config` that can be kept; the first of two that contradict each other wins.
    pub(crate) fn new(config: &ServerConfig) -> Self {
        let mut all = Self::default();
        for reservation in &config.reservations {
            let Reservation { mac, client_id, ip, hostname, .. } = reservation;
            let client = match (mac, client_id) {
                (Some(mac), _) => ClientKey::Mac(*mac),
                (None, Some(id)) => ClientKey::Id(id.as_bytes().into()),
                (None, None) => continue,
            };
            if !config.is_guest_address(*ip)
                || all.by_client.contains_key(&client)
                || all.by_ip.contains_key(ip)
            {
                continue;
            }
            all.by_client.insert(client.clone(), reservation.clone());
            all.by_ip.insert(*ip, client);
            all.names.extend(hostname.clone());
        }
        all
    }

    /// The reservation of `client`: that of its identifier is the more exact one.
    pub(crate) fn of(&self, client: &Client) -> Option<&Reservation> {
        let by_mac = || self.by_client.get(&ClientKey::Mac(client.mac));
        self.by_client.get(&client.key).or_else(by_mac)
    }

    /// For whom `ip` is kept.
    pub(crate) fn holder_of(&self, ip: Ipv4Addr) -> Option<&ClientKey> {
        self.by_ip.get(&ip)
    }

    pub(crate) fn has_name(&self, name: &DnsName) -> bool {
        self.names.contains(name)
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.by_ip.keys().copied()
    }
}

impl ClientKey {
    /// Whether this is `client`, by its identifier or by its card.
    pub(crate) fn is(&self, client: &Client) -> bool {
        *self == client.key || *self == Self::Mac(client.mac)
    }
}

/// Whether an address of `network` is given only once nobody has answered for it. Where ports are
/// guarded nobody can have an address that was not given.
#[must_use]
pub fn probes(network: &NetworkDefinition) -> bool {
    network.dhcp.as_ref().is_some_and(|dhcp| dhcp.probe) && !network.anti_spoofing
}
