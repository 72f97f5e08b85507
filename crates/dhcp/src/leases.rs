//! The table of leases: by address, by client, by name.
//!
//! Trees rather than hash tables: a hash table of 100,000 leases that grows holds up the clients
//! behind it for tens of milliseconds; a tree costs every message two microseconds more instead.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use vnet_types::DnsName;

use crate::lease::{ClientKey, Lease, LeaseState};

/// Leases, each address and each client at most once.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    by_ip: BTreeMap<Ipv4Addr, Lease>,
    /// Where the client is, or was last. Declined addresses are no client's.
    by_client: BTreeMap<ClientKey, Ipv4Addr>,
    by_name: BTreeMap<DnsName, Ipv4Addr>,
}

impl Leases {
    pub(crate) fn get(&self, ip: Ipv4Addr) -> Option<&Lease> {
        self.by_ip.get(&ip)
    }

    /// The lease that `client` has or had last.
    pub(crate) fn of_client(&self, client: &ClientKey) -> Option<&Lease> {
        self.by_client.get(client).and_then(|ip| self.by_ip.get(ip))
    }

    /// The lease that has `name`, or had it last.
    pub(crate) fn of_name(&self, name: &DnsName) -> Option<&Lease> {
        self.by_name.get(name).and_then(|ip| self.by_ip.get(ip))
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Lease> {
        self.by_ip.values()
    }

    pub(crate) fn remove(&mut self, ip: Ipv4Addr) -> Option<Lease> {
        let lease = self.by_ip.remove(&ip)?;
        if self.by_client.get(&lease.client) == Some(&ip) {
            self.by_client.remove(&lease.client);
        }
        if let Some(name) = &lease.hostname
            && self.by_name.get(name) == Some(&ip)
        {
            self.by_name.remove(name);
        }
        Some(lease)
    }

    /// Puts `lease` in the place of whatever was known of its address. The caller has removed
    /// the client's lease of another address.
    pub(crate) fn insert(&mut self, lease: Lease) {
        self.remove(lease.ip);
        if lease.state != LeaseState::Declined {
            self.by_client.insert(lease.client.clone(), lease.ip);
        }
        // Leases come in any order at a start: the name is the latest one's.
        if let Some(name) = &lease.hostname
            && self.of_name(name).is_none_or(|holder| holder.expires <= lease.expires)
        {
            self.by_name.insert(name.clone(), lease.ip);
        }
        self.by_ip.insert(lease.ip, lease);
    }
}
