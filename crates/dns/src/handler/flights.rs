//! Which queries are on their way to upstreams: so many at once, and so many of one client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// How many queries may be in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FlightLimits {
    pub(crate) total: usize,
    pub(crate) per_client: usize,
}

/// The queries in flight.
#[derive(Debug, Default)]
pub(super) struct Flights {
    pub(super) total: usize,
    pub(super) clients: HashMap<IpAddr, usize>,
}

/// One query's place among those in flight, for as long as it lives.
#[derive(Debug)]
pub(super) struct Ticket {
    flights: Arc<Mutex<Flights>>,
    client: IpAddr,
}

impl Ticket {
    /// A place for a query of `client`, if there is one left.
    pub(super) fn take(
        flights: &Arc<Mutex<Flights>>,
        limits: FlightLimits,
        client: IpAddr,
    ) -> Option<Self> {
        let mut all = flights.lock().unwrap_or_else(PoisonError::into_inner);
        let own = all.clients.get(&client).copied().unwrap_or(0);
        if all.total >= limits.total || own >= limits.per_client {
            return None;
        }
        all.clients.insert(client, own + 1);
        all.total += 1;
        Some(Self { flights: flights.clone(), client })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut all = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        all.total = all.total.saturating_sub(1);
        if let Some(own) = all.clients.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                all.clients.remove(&self.client);
            }
        }
    }
}
