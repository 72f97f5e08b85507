//! What netd serves on a network: DHCP and DNS, and with IPv6 router advertisements and DHCPv6.

mod desk;
mod dhcp;
mod dns;
mod edit;
mod holders;
pub(crate) mod packet;
mod probing;
mod six;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use vnet_dhcp::{ClientKey, Identity, v6};
use vnet_dns::{DnsServer, Upstreams};
use vnet_plan::{Leased, Leased6};
use vnet_types::{MacAddr, NetworkDefinition};

pub(crate) use edit::{ServiceChange, check, farewell};
pub(crate) use six::Farewell;

use self::holders::Holder;
use self::six::Six;
use crate::guard::{self, Guard};
use crate::history::History;
use crate::leases::Journal;

/// The services of one network. They run until [`Services::stop`].
pub(crate) struct Services {
    /// The index of the bridge: sockets on it die with it, though another gets its name.
    bridge: u32,
    /// What guests are told of it.
    mtu: AtomicU32,
    dhcp: Option<(Arc<Mutex<vnet_dhcp::Server>>, JoinHandle<()>)>,
    six: Option<Six>,
    journal: Journal,
    zones: Arc<Mutex<dns::Zones>>,
    dns: Arc<DnsServer>,
}

/// Why a network's services cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    #[error("cannot serve DNS on {bridge}")]
    Dns {
        bridge: String,
        #[source]
        source: vnet_dns::ServerError,
    },
    #[error("cannot serve DHCP on {bridge}")]
    Dhcp {
        bridge: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot serve DHCP on {bridge}")]
    Config {
        bridge: String,
        #[source]
        source: vnet_dhcp::ConfigError,
    },
    #[error("cannot send router advertisements on {bridge}")]
    Advertisements {
        bridge: String,
        #[source]
        source: vnet_dhcp::ra::ConfigError,
    },
    #[error("cannot read the leases in {path}")]
    Leases {
        path: String,
        #[source]
        source: std::io::Error,
    },
}

/// Who hears of leases that change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Changes<'a> {
    /// Forwards, which follow names.
    pub(crate) leases: &'a Arc<Notify>,
    /// The guard of ports, before a guest hears of it itself.
    pub(crate) guard: &'a Guard,
    /// What is heard of clients.
    pub(crate) history: &'a History,
}

impl Services {
    /// Starts the services of `network`, whose bridge is up and has the address `mac`. `changes`
    /// are told whenever a lease may have changed. The journals are those of IPv4 and of IPv6.
    pub(crate) async fn start(
        network: &NetworkDefinition,
        mac: MacAddr,
        (journal, journal6): (Journal, Journal),
        upstreams: &Upstreams,
        changes: Changes<'_>,
    ) -> Result<Self, ServiceError> {
        let index = nix::net::if_::if_nametoindex(network.bridge.as_str()).unwrap_or(0);
        let mtu = AtomicU32::new(network.mtu());
        let dns = dns::start(network, upstreams)?;
        let zones = dns::Zones::new(network.clone(), dns.clone(), changes.leases.clone());
        let zones = Arc::new(Mutex::new(zones));
        dns::tell_host(network);
        let six = Six::start(network, mac, journal6, zones.clone(), changes).await?;
        let Some(config) = vnet_dhcp::ServerConfig::for_network(network, mac) else {
            return Ok(Self { bridge: index, mtu, dhcp: None, six, journal, zones, dns });
        };
        let bridge = network.bridge.to_string();
        let (mut leases, records) = desk::load::<vnet_dhcp::Lease>(&journal).await?;
        if config.identity == Identity::Hardware {
            // Some may stem from before the network was guarded.
            leases.values_mut().for_each(|lease| lease.client = ClientKey::Mac(lease.mac));
        }
        let server = vnet_dhcp::Server::new(config, leases.into_values())
            .map_err(|source| ServiceError::Config { bridge: bridge.clone(), source })?;
        let server = Arc::new(Mutex::new(server));
        let guard = network
            .anti_spoofing
            .then(|| guard::Leases::new(network.name.clone(), changes.guard.clone()));
        let state = dhcp::State {
            server: server.clone(),
            journal: journal.clone(),
            records,
            zones: zones.clone(),
            history: changes.history.clone(),
        };
        let service = dhcp::Service::open(network, state, guard)
            .map_err(|source| ServiceError::Dhcp { bridge, source })?;
        let dhcp = Some((server, tokio::spawn(service.run())));
        Ok(Self { bridge: index, mtu, dhcp, six, journal, zones, dns })
    }

    /// Whether they serve still, on the bridge with this index.
    pub(crate) fn are_alive(&self, bridge: u32) -> bool {
        self.bridge == bridge
            && self.dhcp.as_ref().is_none_or(|(_, task)| !task.is_finished())
            && self.six.as_ref().is_none_or(|six| !six.is_finished())
    }

    /// What the DNS server has done.
    pub(crate) fn dns_counters(&self) -> vnet_dns::Counters {
        self.dns.counters()
    }

    /// The MTU that guests are told.
    pub(crate) fn mtu(&self) -> u32 {
        self.mtu.load(Ordering::Relaxed)
    }

    /// All that is known of the network's addresses.
    pub(crate) fn leases(&self) -> Vec<vnet_dhcp::Lease> {
        self.dhcp.as_ref().map_or_else(Vec::new, |(server, _)| {
            server.lock().unwrap_or_else(PoisonError::into_inner).leases().cloned().collect()
        })
    }

    /// The same of its IPv6 addresses.
    pub(crate) fn leases6(&self) -> Vec<v6::Lease> {
        self.six.as_ref().map_or_else(Vec::new, Six::leases)
    }

    /// The leases of IPv6 addresses that run at `now` in Unix seconds.
    pub(crate) fn leased6(&self, now: u64) -> Leased6 {
        leased6(self.leases6().iter(), now)
    }

    /// The running leases of these cards alone.
    pub(crate) fn leased_by(&self, cards: &BTreeSet<MacAddr>, now: u64) -> (Leased, Leased6) {
        let v4 = self.dhcp.as_ref().map_or_else(Leased::new, |(server, _)| {
            let server = server.lock().unwrap_or_else(PoisonError::into_inner);
            let of_card = |mac: &MacAddr| server.lease_of(&ClientKey::Mac(*mac));
            leased(cards.iter().filter_map(of_card), now)
        });
        let v6 = self.six.as_ref().map_or_else(Leased6::new, |six| six.leased_by(cards, now));
        (v4, v6)
    }

    /// The leases that run at `now` in Unix seconds.
    pub(crate) fn leased(&self, now: u64) -> Leased {
        let Some((server, _)) = &self.dhcp else { return Leased::new() };
        let server = server.lock().unwrap_or_else(PoisonError::into_inner);
        leased(server.leases(), now)
    }

    /// Has the DNS know these addresses, which guests have made for themselves, by the names that
    /// their cards have by DHCP; and no others that were made.
    pub(crate) fn name_made(&self, made: &BTreeMap<MacAddr, Ipv6Addr>) {
        let Some((server, _)) = &self.dhcp else { return };
        let now = unix_now();
        let server = server.lock().unwrap_or_else(PoisonError::into_inner);
        let named = made.iter().filter_map(|(mac, address)| {
            let lease =
                server.lease_of(&ClientKey::Mac(*mac)).filter(|lease| lease.is_live(now))?;
            let holder = Holder { mac: Some(*mac), name: Some(lease.hostname.clone()?) };
            Some((*address, holder))
        });
        let named = named.collect();
        drop(server);
        dns::publish_made(&self.zones, named);
    }

    /// How many leases are bound.
    pub(crate) fn bound(&self) -> usize {
        let now = unix_now();
        let six = self.leases6().iter().filter(|lease| lease.is_live(now)).count();
        six + self.dhcp.as_ref().map_or(0, |(server, _)| {
            let server = server.lock().unwrap_or_else(PoisonError::into_inner);
            server.leases().filter(|lease| lease.is_live(now)).count()
        })
    }

    /// Stops all, and returns when their sockets are closed.
    pub(crate) async fn stop(mut self, farewell: Farewell) {
        if let Some(six) = self.six.take() {
            six.stop(farewell).await;
        }
        if let Some((_, task)) = self.dhcp.take() {
            task.abort();
            // It ends because it was told to.
            let _ = task.await;
        }
        drop(self.zones);
        if let Some(dns) = Arc::into_inner(self.dns) {
            dns.stop().await;
        }
    }
}

/// The leases in the journal at `path` that run at `now` in Unix seconds: those of a network that
/// is not up yet. A journal that cannot be read is reported when the network's services start.
pub(crate) fn stored_leases(path: &Path, now: u64) -> Leased {
    let bytes = std::fs::read(path).unwrap_or_default();
    leased(vnet_dhcp::journal::replay::<vnet_dhcp::Lease>(&bytes).leases.values(), now)
}

/// The same for IPv6 addresses.
pub(crate) fn stored_leases6(path: &Path, now: u64) -> Leased6 {
    let bytes = std::fs::read(path).unwrap_or_default();
    leased6(vnet_dhcp::journal::replay::<v6::Lease>(&bytes).leases.values(), now)
}

fn leased6<'a>(leases: impl Iterator<Item = &'a v6::Lease>, now: u64) -> Leased6 {
    let live = leases.filter(|lease| lease.is_live(now));
    live.filter_map(|lease| Some((lease.mac?, lease.ip))).collect()
}

fn leased<'a>(leases: impl Iterator<Item = &'a vnet_dhcp::Lease>, now: u64) -> Leased {
    leases.filter(|lease| lease.is_live(now)).map(|lease| (lease.mac, lease.ip)).collect()
}

/// Unix seconds.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
