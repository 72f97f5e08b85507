//! Addresses that were offered and not yet taken: each address and each client at most once,
//! for a short time, in memory only (RFC 2131 §3.1, step 2).

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::lease::ClientKey;
use crate::message::Client;

/// Outstanding offers.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    by_ip: BTreeMap<Ipv4Addr, (Client, Duration)>,
    by_client: BTreeMap<ClientKey, Ipv4Addr>,
    by_end: BTreeSet<(Duration, Ipv4Addr)>,
}

impl Offers {
    pub(crate) fn len(&self) -> usize {
        self.by_ip.len()
    }

    pub(crate) fn of_client(&self, client: &ClientKey) -> Option<Ipv4Addr> {
        self.by_client.get(client).copied()
    }

    pub(crate) fn holder(&self, ip: Ipv4Addr) -> Option<&Client> {
        self.by_ip.get(&ip).map(|(client, _)| client)
    }

    /// Notes an offer until `ends`. The caller has removed those of the address and the client.
    pub(crate) fn insert(&mut self, client: Client, ip: Ipv4Addr, ends: Duration) {
        self.by_client.insert(client.key.clone(), ip);
        self.by_ip.insert(ip, (client, ends));
        self.by_end.insert((ends, ip));
    }

    pub(crate) fn remove(&mut self, ip: Ipv4Addr) {
        if let Some((client, ends)) = self.by_ip.remove(&ip) {
            self.by_client.remove(&client.key);
            self.by_end.remove(&(ends, ip));
        }
    }

    /// An offer that has ended by `now`, if there is one.
    pub(crate) fn ended(&self, now: Duration) -> Option<Ipv4Addr> {
        self.by_end.first().filter(|(ends, _)| *ends <= now).map(|&(_, ip)| ip)
    }
}
