//! Whom to ask for which names, and what answers may say.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use vnet_types::{DnsName, Upstream, UpstreamTransport};

use super::source::HostServers;
use super::stream::Connection;
use crate::name::{self, Key};

/// Where the addresses of upstream servers come from.
#[derive(Debug, Clone)]
pub enum Upstreams {
    /// These servers, in this order of preference. With none, nothing is forwarded: such queries
    /// are refused.
    List(Vec<Upstream>),
    /// The host's own.
    Host(Arc<HostServers>),
}

impl Upstreams {
    /// The servers at these addresses, on port 53.
    #[must_use]
    pub fn list(addrs: impl IntoIterator<Item = IpAddr>) -> Self {
        Self::List(addrs.into_iter().map(Upstream::plain).collect())
    }
}

/// Whom to ask for which names, and what answers may say.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Whom to ask for names that no other rule is for.
    pub upstreams: Upstreams,
    /// Whom to ask for names in these domains.
    pub split: BTreeMap<DnsName, Vec<Upstream>>,
    /// Whether answers with private addresses are refused (DNS rebinding).
    pub rebind_protection: bool,
    /// Domains whose names may have private addresses nevertheless, as those of `split` may.
    pub rebind_allowed: Vec<DnsName>,
}

impl Rules {
    /// These servers for all names, which may have any addresses.
    #[must_use]
    pub fn new(upstreams: Upstreams) -> Self {
        Self {
            upstreams,
            split: BTreeMap::new(),
            rebind_protection: false,
            rebind_allowed: Vec::new(),
        }
    }
}

/// One upstream server and what is remembered about it.
pub(super) struct Server {
    pub(super) upstream: Upstream,
    /// When it is tried again, in milliseconds of the forwarder's clock; 0 while it is well.
    pub(super) retry_at: AtomicU64,
    /// The connection to one that is spoken to over TLS.
    pub(super) connection: Connection,
}

/// The rules in the form in which they are looked up.
#[derive(Default)]
pub(super) struct Table {
    rules: Option<Rules>,
    /// That of the host's servers, where they count.
    generation: u64,
    servers: Vec<Arc<Server>>,
    split: HashMap<Box<[u8]>, Vec<Arc<Server>>>,
    /// Where private addresses are refused: the domains of which they are not.
    public_but_for: Option<HashSet<Box<[u8]>>>,
}

impl Table {
    /// The table of `rules`, less the servers in `never`; what is known of a server in `old` stays.
    pub(super) fn new(rules: Rules, never: &BTreeSet<SocketAddr>, old: &Self) -> Self {
        let serve = |upstream: &Upstream| {
            let known = old.all().find(|server| server.upstream == *upstream).cloned();
            known.unwrap_or_else(|| {
                let (upstream, retry_at) = (upstream.clone(), AtomicU64::new(0));
                Arc::new(Server { upstream, retry_at, connection: Connection::default() })
            })
        };
        let serve_all = |upstreams: &[Upstream]| {
            let mut seen = BTreeSet::new();
            let wanted =
                upstreams.iter().filter(|one| !never.contains(&one.addr) && seen.insert(*one));
            wanted.map(serve).collect::<Vec<_>>()
        };
        let (generation, upstreams) = match &rules.upstreams {
            Upstreams::List(upstreams) => (0, upstreams.clone()),
            Upstreams::Host(host) => {
                let (generation, addrs) = host.current();
                let plain = |addr: &SocketAddr| Upstream {
                    addr: *addr,
                    transport: UpstreamTransport::Plain,
                };
                (generation, addrs.iter().map(plain).collect())
            }
        };
        let split = rules.split.iter();
        let split = split.map(|(domain, all)| (name::key_of(domain.as_str()), serve_all(all)));
        let public_but_for = rules.rebind_protection.then(|| {
            let domains = rules.rebind_allowed.iter().chain(rules.split.keys());
            domains.map(|domain| name::key_of(domain.as_str())).collect()
        });
        Self {
            generation,
            servers: serve_all(&upstreams),
            split: split.collect(),
            public_but_for,
            rules: Some(rules),
        }
    }

    /// Whether the host has other servers by now.
    pub(super) fn is_outdated(&self) -> bool {
        self.host().is_some_and(|host| host.has_changed(self.generation))
    }

    /// Has the host's files looked at, where that was long ago.
    pub(super) fn look(&self) {
        if let Some(host) = self.host() {
            host.look_again();
        }
    }

    /// The host's servers, if they count.
    pub(super) fn host(&self) -> Option<&HostServers> {
        match self.rules.as_ref()?.upstreams {
            Upstreams::Host(ref host) => Some(host),
            Upstreams::List(_) => None,
        }
    }

    pub(super) fn rules(&self) -> Option<&Rules> {
        self.rules.as_ref()
    }

    /// Whom to ask for a name: the servers of the closest domain that has some of its own.
    pub(super) fn servers(&self, key: &Key) -> &[Arc<Server>] {
        if self.split.is_empty() {
            return &self.servers;
        }
        key.suffixes().find_map(|suffix| self.split.get(suffix)).unwrap_or(&self.servers)
    }

    /// Whether the addresses of a name may be private ones.
    pub(super) fn may_be_private(&self, key: &Key) -> bool {
        let Some(domains) = &self.public_but_for else { return true };
        key.suffixes().any(|suffix| domains.contains(suffix))
    }

    /// All servers, those for all names first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.servers.iter().chain(self.split.values().flatten())
    }

    /// Whether the same servers are asked for the same names.
    pub(super) fn asks_as(&self, other: &Self) -> bool {
        let of = |servers: &[Arc<Server>]| {
            servers.iter().map(|server| server.upstream.clone()).collect::<Vec<_>>()
        };
        of(&self.servers) == of(&other.servers)
            && self.split.len() == other.split.len()
            && self.split.iter().all(|(domain, servers)| {
                other.split.get(domain).is_some_and(|others| of(others) == of(servers))
            })
    }
}

impl Server {
    pub(super) fn addr(&self) -> SocketAddr {
        self.upstream.addr
    }

    /// Whether it answers, as far as is known.
    pub(super) fn is_well(&self) -> bool {
        self.retry_at.load(Relaxed) == 0
    }

    pub(super) fn set_well(&self) {
        self.retry_at.store(0, Relaxed);
    }
}
