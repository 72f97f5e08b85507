//! What the DHCPv6 server of one network gives, and to whom.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;

use ipnet::Ipv6Net;
use vnet_types::{DnsName, MacAddr, NetworkDefinition};

use super::Duid;
use super::message::Client;
use crate::config::Identity;

/// One network as its DHCPv6 server sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// What identifies the server, the same over restarts: [`Duid::of_card`] of a bridge whose
    /// address stays is.
    pub duid: Duid,
    /// The host's own address in the prefix, which no guest gets.
    pub address: Ipv6Addr,
    /// The addresses of the link.
    pub prefix: Ipv6Net,
    /// The addresses that are given to guests without a reservation. None: such guests get
    /// options only, and make their addresses themselves.
    pub range: Option<RangeInclusive<Ipv6Addr>>,
    /// How long an address may be used after it was given, in seconds; `u32::MAX` is for ever.
    pub lease_seconds: u32,
    /// Guests that always get the same address.
    pub reservations: Vec<Reservation>,
    /// Names that are kept for cards without a reservation here: those of DHCPv4's.
    pub names: BTreeMap<DnsName, MacAddr>,
    /// Name servers, the preferred one first.
    pub dns_servers: Vec<Ipv6Addr>,
    /// The domain that guests' names are in.
    pub domain: Option<DnsName>,
    /// Domains in which guests look for short names.
    pub search: Vec<DnsName>,
    /// Time servers.
    pub ntp_servers: Vec<Ipv6Addr>,
    /// After how many seconds a guest without a lease asks for the options again
    /// (RFC 9915 §21.23), 600 at least.
    pub refresh_seconds: Option<u32>,
    /// For how many seconds a guest that got no answer waits at most before it asks again
    /// (RFC 9915 §21.24, §21.25), 60 to 86,400.
    pub max_retry_seconds: Option<u32>,
    /// What makes two messages those of one client.
    pub identity: Identity,
    /// Whether a client that asks for it gets its lease in two messages (RFC 9915 §18.3.1).
    pub rapid_commit: bool,
}

/// An address kept for one guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// Whose it is.
    pub client: ReservedFor,
    /// The address, inside the prefix, in the range or not.
    pub ip: Ipv6Addr,
    /// The guest's name in the network's domain.
    pub hostname: Option<DnsName>,
}

/// Whose a reserved address is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReservedFor {
    /// The guest with this card, under whichever identifier it asks.
    Card(MacAddr),
    /// The guest with this identifier, on whichever card.
    Duid(Duid),
}

impl ServerConfig {
    /// What `network` asks for, served from the bridge with the address `server_mac`. None where
    /// the network has no IPv6. A network whose guests make their addresses themselves gets a
    /// server as well: it gives options.
    #[must_use]
    pub fn for_network(network: &NetworkDefinition, server_mac: MacAddr) -> Option<Self> {
        let ipv6 = network.ipv6.as_ref()?;
        let reservations = ipv6.reservations.iter().map(|reservation| Reservation {
            client: ReservedFor::Card(reservation.mac),
            ip: reservation.ip,
            hostname: reservation.hostname.clone(),
        });
        let named = network.dhcp.iter().flat_map(|dhcp| &dhcp.reservations);
        let named = named.filter_map(|own| Some((own.hostname.clone()?, own.mac?)));
        Some(Self {
            duid: Duid::of_card(server_mac),
            address: ipv6.prefix.gateway(),
            prefix: ipv6.prefix.net(),
            range: ipv6.range.map(|range| range.first()..=range.last()),
            lease_seconds: ipv6.lease_seconds,
            reservations: reservations.collect(),
            names: named.collect(),
            dns_servers: vec![ipv6.prefix.gateway()],
            domain: Some(network.domain.clone()),
            search: vec![network.domain.clone()],
            ntp_servers: Vec::new(),
            refresh_seconds: Some(ipv6.lease_seconds),
            max_retry_seconds: None,
            // As with DHCPv4: the MAC address is what a guarded port is held to.
            identity: if network.anti_spoofing { Identity::Hardware } else { Identity::ClientId },
            rapid_commit: true,
        })
    }

    /// Whether a guest could have `ip` at all.
    pub(super) fn is_guest_address(&self, ip: Ipv6Addr) -> bool {
        // The first address of a prefix is every router's (RFC 4291 §2.6.1).
        self.prefix.contains(&ip) && ip != self.prefix.network() && ip != self.address
    }
}

/// The reservations of a network, found by client, by address and by name.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    by_client: BTreeMap<ReservedFor, Reservation>,
    by_ip: BTreeMap<Ipv6Addr, ReservedFor>,
    names: BTreeMap<DnsName, ReservedFor>,
    /// Names of cards that have no reservation here.
    kept: BTreeMap<MacAddr, DnsName>,
}

impl Reservations {
    /// Those of `config` that can be kept; the first of two that contradict each other wins.
    pub(super) fn new(config: &ServerConfig) -> Self {
        let mut all = Self::default();
        for reservation in &config.reservations {
            let Reservation { client, ip, hostname } = reservation;
            if !config.is_guest_address(*ip)
                || all.by_client.contains_key(client)
                || all.by_ip.contains_key(ip)
            {
                continue;
            }
            all.by_client.insert(client.clone(), reservation.clone());
            all.by_ip.insert(*ip, client.clone());
            if let Some(name) = hostname {
                all.names.entry(name.clone()).or_insert_with(|| client.clone());
            }
        }
        for (name, mac) in &config.names {
            all.names.entry(name.clone()).or_insert(ReservedFor::Card(*mac));
            all.kept.entry(*mac).or_insert_with(|| name.clone());
        }
        all
    }

    /// The reservation of `client`: that of its identifier is the more exact one.
    pub(super) fn of(&self, client: &Client) -> Option<&Reservation> {
        let by_card = || self.by_client.get(&ReservedFor::Card(client.mac?));
        self.by_client.get(&ReservedFor::Duid(client.duid.clone())).or_else(by_card)
    }

    pub(super) fn holder_of(&self, ip: Ipv6Addr) -> Option<&ReservedFor> {
        self.by_ip.get(&ip)
    }

    pub(super) fn holder_of_name(&self, name: &DnsName) -> Option<&ReservedFor> {
        self.names.get(name)
    }

    /// The name that is kept for `client`.
    pub(super) fn name_of(&self, client: &Client) -> Option<&DnsName> {
        let reserved = self.of(client).and_then(|own| own.hostname.as_ref());
        reserved.or_else(|| self.kept.get(&client.mac?))
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.by_ip.keys().copied()
    }
}

impl ReservedFor {
    pub(super) fn is(&self, client: &Client) -> bool {
        match self {
            Self::Card(mac) => client.mac == Some(*mac),
            Self::Duid(duid) => client.duid == *duid,
        }
    }
}
