//! Services of a network whose definition changes while they run.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use vnet_dhcp::{Server, ServerConfig, journal};
use vnet_dns::Upstreams;
use vnet_types::{Limits, MacAddr, Mode, NetworkDefinition};

use super::six::{self, Unservable};
use super::{Farewell, ServiceError, Services, dns};

/// What a change of a definition asks of the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServiceChange {
    /// Nothing that they look at is different.
    None,
    /// They take it over between two requests; their sockets stay, and no request is lost.
    Reconfigure,
    /// Their sockets, or which of them there are, are others: they end and start anew. Leases are
    /// read from the journal.
    Restart,
}

/// Whether guests of `old` are told that it is gone before the services of `new` start.
pub(crate) fn farewell(old: &NetworkDefinition, new: &NetworkDefinition) -> Farewell {
    let prefix = |network: &NetworkDefinition| network.ipv6.as_ref().map(|ipv6| ipv6.prefix);
    if prefix(old) == prefix(new) { Farewell::Omit } else { Farewell::Say }
}

impl ServiceChange {
    /// What leads from the services of `old` to those of `new`.
    pub(crate) fn between(old: &NetworkDefinition, new: &NetworkDefinition) -> Self {
        let sockets = |network: &NetworkDefinition| {
            let closed = network.mode == Mode::Hostonly;
            let dhcp = network.dhcp.is_some();
            let prefix = network.ipv6.as_ref().map(|ipv6| ipv6.prefix);
            let subnet = (network.subnet, prefix);
            let probes = vnet_dhcp::probes(network);
            (network.bridge.clone(), subnet, closed, dhcp, network.anti_spoofing, probes)
        };
        if sockets(old) != sockets(new) {
            return Self::Restart;
        }
        let served = |network: &NetworkDefinition| NetworkDefinition {
            autostart: true,
            uplink: None,
            limits: Limits::default(),
            forwards: Vec::new(),
            ..network.clone()
        };
        if served(old) == served(new) { Self::None } else { Self::Reconfigure }
    }
}

/// Whether `network` can be served at all.
///
/// # Errors
/// A value fits in no DHCP option, or in no router advertisement.
pub(crate) fn check(network: &NetworkDefinition) -> Result<(), Unservable> {
    six::check(network)?;
    match ServerConfig::for_network(network, MacAddr::BROADCAST) {
        Some(config) => Ok(Server::new(config, []).map(drop)?),
        None => Ok(()),
    }
}

impl Services {
    /// Takes over `network`, which [`ServiceChange::Reconfigure`] is enough for. Leases stay, and
    /// those that do not fit any more are told so when they renew.
    ///
    /// # Errors
    /// A value fits in no DHCP option; nothing has changed then.
    pub(crate) fn reconfigure(
        &self,
        network: &NetworkDefinition,
        upstreams: &Upstreams,
    ) -> Result<(), ServiceError> {
        if let Some((server, _)) = &self.dhcp {
            let mut server = server.lock().unwrap_or_else(PoisonError::into_inner);
            let mac = server.config().server_mac;
            if let Some(config) = ServerConfig::for_network(network, mac) {
                let bridge = network.bridge.to_string();
                server
                    .reconfigure(config)
                    .map_err(|source| ServiceError::Config { bridge, source })?;
            }
        }
        self.mtu.store(network.mtu(), Ordering::Relaxed);
        if let Some(six) = &self.six {
            six.reconfigure(network)?;
        }
        self.dns.set_rules(dns::rules_of(network, upstreams));
        let mut zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        zones.reconfigure(network.clone());
        dns::tell_host(network);
        Ok(())
    }

    /// Puts the leases that there are now in place of the journal, so that what is of a subnet of
    /// before is gone for good.
    ///
    /// # Errors
    /// The journal cannot be written; it is as it was then.
    pub(crate) async fn write_snapshot(&self) -> std::io::Result<()> {
        if let Some(six) = &self.six {
            six.write_snapshot().await?;
        }
        if self.dhcp.is_none() {
            return Ok(());
        }
        // Nothing is awaited between the look at the leases and the place in the writer's queue:
        // a record that is appended later is of a lease that came later, or is there twice.
        self.journal.replace(journal::snapshot(&self.leases())).await
    }
}
