//! Why a guest has an address, or none.

use std::collections::BTreeSet;

use vnet_api::model::{ErrorBody, ErrorKind, Explained};
use vnet_kernel::Routes;
use vnet_plan::Observed;
use vnet_types::{DomainName, MacAddr, NetworkName};

use super::{Daemon, Shared};
use crate::failure::refuse;
use crate::services::unix_now;
use crate::{lease_view, network_view};

impl Shared {
    /// What DHCP has heard of `guest`, and what came of it: a domain, a guest's name, an address
    /// or a MAC address. One entry a network card and network.
    ///
    /// # Errors
    /// Nobody is known by that name, or the host's state cannot be read.
    pub async fn explain(&self, guest: &str) -> Result<Vec<Explained>, ErrorBody> {
        let mut daemon = self.daemon.lock().await;
        let observed = daemon.observe(Routes::Skip).await?;
        let cards = daemon.cards_of(guest, &observed);
        if cards.is_empty() && guest.parse::<MacAddr>().is_err() {
            return Err(refuse(
                ErrorKind::NotFound,
                format!(
                    "nobody is known as {guest}: no guest of that name is on a network, and no \
                     lease or reservation has it; give the MAC address of its network card"
                ),
            ));
        }
        let explain = |(network, mac)| daemon.explain(network, mac, &observed);
        Ok(cards.into_iter().map(explain).collect())
    }
}

impl Daemon {
    /// The cards that `guest` means, and the networks on which they are or were heard.
    fn cards_of(&self, guest: &str, observed: &Observed) -> BTreeSet<(NetworkName, MacAddr)> {
        let mut cards = BTreeSet::new();
        for (name, network) in &self.networks {
            let mut add = |mac: MacAddr| {
                cards.insert((name.clone(), mac));
            };
            let leases = self.running.get(name).map(|services| services.leases());
            for lease in leases.iter().flatten() {
                let named = lease.hostname.as_ref().is_some_and(|own| own.as_str() == guest);
                if named || lease.ip.to_string() == guest {
                    add(lease.mac);
                }
            }
            for own in network.dhcp.iter().flat_map(|dhcp| &dhcp.reservations) {
                let named = own.hostname.as_ref().is_some_and(|own| own.as_str() == guest);
                if let Some(mac) = own.mac.filter(|_| named || own.ip.to_string() == guest) {
                    add(mac);
                }
            }
            for port in network_view::ports(name, observed) {
                if port.domain.as_str() == guest || guest.parse() == Ok(port.mac) {
                    add(port.mac);
                }
            }
            if let Ok(mac) = guest.parse::<MacAddr>() {
                let heard = self.histories.get(name).is_some_and(|all| !all.of(mac).is_empty());
                let leased = leases.iter().flatten().any(|lease| lease.mac == mac);
                if heard || leased {
                    add(mac);
                }
            }
        }
        cards
    }

    fn explain(&self, network: NetworkName, mac: MacAddr, observed: &Observed) -> Explained {
        let now = unix_now();
        let leases = self.running.get(&network).map(|services| services.leases());
        let lease = leases.iter().flatten().filter(|lease| lease.mac == mac);
        let lease = lease.max_by_key(|lease| (lease.is_live(now), lease.expires));
        let port = network_view::ports(&network, observed).into_iter().find(|port| port.mac == mac);
        let definition = self.networks.get(&network);
        let reserved = definition.and_then(|network| network.dhcp.as_ref()).and_then(|dhcp| {
            dhcp.reservations.iter().find(|own| own.mac == Some(mac)).map(|own| own.ip)
        });
        let domain: Option<DomainName> = port.as_ref().map(|port| port.domain.clone());
        Explained {
            lease: lease.map(|lease| lease_view::v4(&network, lease, now)),
            exchanges: self.histories.get(&network).map(|all| all.of(mac)).unwrap_or_default(),
            port: port.map(|port| port.interface),
            up: self.running.contains_key(&network),
            dhcp: definition.is_some_and(|network| network.dhcp.is_some()),
            domain,
            reserved,
            network,
            mac,
        }
    }
}
