//! What netd serves on a network: DHCP and DNS.

mod dhcp;
mod dns;
mod edit;
mod packet;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use vnet_dns::{DnsServer, Upstreams};
use vnet_types::{MacAddr, NetworkDefinition};

pub(crate) use edit::{ServiceChange, check};

use crate::leases::Journal;

/// The services of one network. They run until [`Services::stop`].
pub(crate) struct Services {
    dhcp: Option<(Arc<Mutex<vnet_dhcp::Server>>, JoinHandle<()>)>,
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
    #[error("cannot read the leases in {path}")]
    Leases {
        path: String,
        #[source]
        source: std::io::Error,
    },
}

impl Services {
    /// Starts DHCP and DNS for `network`, whose bridge is up and has the address `mac`. `changed`
    /// is told whenever a lease may have changed.
    pub(crate) async fn start(
        network: &NetworkDefinition,
        mac: MacAddr,
        journal: Journal,
        upstreams: &Upstreams,
        changed: &Arc<Notify>,
    ) -> Result<Self, ServiceError> {
        let dns = dns::start(network, upstreams)?;
        let zones =
            Arc::new(Mutex::new(dns::Zones::new(network.clone(), dns.clone(), changed.clone())));
        let Some(config) = vnet_dhcp::ServerConfig::for_network(network, mac) else {
            return Ok(Self { dhcp: None, journal, zones, dns });
        };
        let bridge = network.bridge.to_string();
        let (leases, records) = dhcp::load(&journal).await?;
        let server = vnet_dhcp::Server::new(config, leases.into_values())
            .map_err(|source| ServiceError::Config { bridge: bridge.clone(), source })?;
        let server = Arc::new(Mutex::new(server));
        let service =
            dhcp::Service::open(network, server.clone(), journal.clone(), records, zones.clone())
                .map_err(|source| ServiceError::Dhcp { bridge, source })?;
        let dhcp = Some((server, tokio::spawn(service.run())));
        Ok(Self { dhcp, journal, zones, dns })
    }

    /// All that is known of the network's addresses.
    pub(crate) fn leases(&self) -> Vec<vnet_dhcp::Lease> {
        self.dhcp.as_ref().map_or_else(Vec::new, |(server, _)| {
            server.lock().unwrap_or_else(PoisonError::into_inner).leases().cloned().collect()
        })
    }

    /// How many leases are bound.
    pub(crate) fn bound(&self) -> usize {
        let now = unix_now();
        self.dhcp.as_ref().map_or(0, |(server, _)| {
            let server = server.lock().unwrap_or_else(PoisonError::into_inner);
            server.leases().filter(|lease| lease.is_live(now)).count()
        })
    }

    /// Stops both, and returns when their sockets are closed.
    pub(crate) async fn stop(mut self) {
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

/// Unix seconds.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
