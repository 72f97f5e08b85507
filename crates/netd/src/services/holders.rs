//! Who has which address, as the DNS, the guard of ports and those who follow a guest were told:
//! what tells a new guest from one that goes on as before.

use std::collections::BTreeMap;

use vnet_dhcp::journal::Stored;
use vnet_dhcp::{Lease, Record, v6};
use vnet_types::{DnsName, MacAddr};

/// A lease of an address of either kind.
pub(super) trait Leased: Stored {
    /// Whether the guest may use the address at `unix` seconds.
    fn is_live(&self, unix: u64) -> bool;
    /// The guest's card, where it is known, and its name, where it has one.
    fn guest(&self) -> (Option<MacAddr>, Option<&DnsName>);
}

impl Leased for Lease {
    fn is_live(&self, unix: u64) -> bool {
        self.is_live(unix)
    }

    fn guest(&self) -> (Option<MacAddr>, Option<&DnsName>) {
        (Some(self.mac), self.hostname.as_ref())
    }
}

impl Leased for v6::Lease {
    fn is_live(&self, unix: u64) -> bool {
        self.is_live(unix)
    }

    fn guest(&self) -> (Option<MacAddr>, Option<&DnsName>) {
        (self.mac, self.hostname.as_ref())
    }
}

/// The guest that has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) mac: Option<MacAddr>,
    pub(super) name: Option<DnsName>,
}

impl Holder {
    fn of(lease: &impl Leased) -> Self {
        let (mac, name) = lease.guest();
        Self { mac, name: name.cloned() }
    }

    fn is_of(&self, lease: &impl Leased) -> bool {
        (self.mac, self.name.as_ref()) == lease.guest()
    }
}

/// An address that has another holder now, or none.
pub(super) type Change<A> = (A, Option<Holder>);

/// The holders of a network's addresses.
#[derive(Debug)]
pub(super) struct Holders<A>(BTreeMap<A, Holder>);

impl<A> Default for Holders<A> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<A: Copy + Ord> Holders<A> {
    /// Takes over what a record says of a lease at `unix` seconds. None if the address has the
    /// holder that it had.
    pub(super) fn note<L>(&mut self, record: &Record<L>, unix: u64) -> Option<Change<A>>
    where
        L: Leased + Stored<Address = A>,
    {
        match record {
            Record::Put(lease) if lease.is_live(unix) => self.put(lease),
            Record::Put(lease) => self.remove(lease.address()),
            Record::Forget(ip) => self.remove(*ip),
        }
    }

    /// Takes over all leases, in the order of their addresses: what has changed.
    pub(super) fn compare<'a, L>(
        &mut self,
        leases: impl Iterator<Item = &'a L>,
        unix: u64,
    ) -> Vec<Change<A>>
    where
        L: Leased + Stored<Address = A> + 'a,
    {
        let (mut gone, mut other) = (Vec::new(), Vec::new());
        let mut before = self.0.iter().peekable();
        for lease in leases.filter(|lease| lease.is_live(unix)) {
            let ip = lease.address();
            while let Some((passed, _)) = before.next_if(|(passed, _)| **passed < ip) {
                gone.push(*passed);
            }
            let known = before.next_if(|(known, _)| **known == ip);
            if known.is_none_or(|(_, holder)| !holder.is_of(lease)) {
                other.push(lease);
            }
        }
        gone.extend(before.map(|(ip, _)| *ip));
        let gone: Vec<_> = gone.into_iter().filter_map(|ip| self.remove(ip)).collect();
        gone.into_iter().chain(other.into_iter().filter_map(|lease| self.put(lease))).collect()
    }

    fn put<L>(&mut self, lease: &L) -> Option<Change<A>>
    where
        L: Leased + Stored<Address = A>,
    {
        let ip = lease.address();
        if self.0.get(&ip).is_some_and(|holder| holder.is_of(lease)) {
            return None;
        }
        let holder = Holder::of(lease);
        self.0.insert(ip, holder.clone());
        Some((ip, Some(holder)))
    }

    fn remove(&mut self, ip: A) -> Option<Change<A>> {
        self.0.remove(&ip).map(|_| (ip, None))
    }
}

#[cfg(test)]
mod tests {
    use vnet_dhcp::{ClientKey, LeaseState};

    use super::*;

    fn lease(number: u8, card: u8, expires: u64) -> Lease {
        let mac = MacAddr([0x52, 0x54, 0, 0, 0, card]);
        Lease {
            ip: [10, 0, 0, number].into(),
            client: ClientKey::Mac(mac),
            mac,
            hostname: (card == 9).then(|| "nine".parse().unwrap()),
            state: LeaseState::Bound,
            expires,
        }
    }

    fn shape(changes: &[Change<std::net::Ipv4Addr>]) -> Vec<(u8, Option<u8>)> {
        let card = |holder: &Holder| holder.mac.unwrap().octets()[5];
        changes.iter().map(|(ip, holder)| (ip.octets()[3], holder.as_ref().map(card))).collect()
    }

    #[test]
    fn a_renewal_is_no_change() {
        let mut holders = Holders::default();
        let mut note = |record| holders.note(&record, 50).map(|change| shape(&[change])[0]);
        assert_eq!(note(Record::Put(lease(2, 1, 100))), Some((2, Some(1))));
        assert_eq!(note(Record::Put(lease(2, 1, 200))), None);
        assert_eq!(note(Record::Put(lease(2, 3, 200))), Some((2, Some(3))));
        assert_eq!(note(Record::Put(lease(2, 3, 50))), Some((2, None)));
        assert_eq!(note(Record::Forget(lease(2, 3, 50).ip)), None);
    }

    #[test]
    fn all_that_has_changed_is_found() {
        let mut holders = Holders::default();
        let first = [lease(2, 1, 100), lease(3, 2, 100), lease(5, 4, 100), lease(9, 5, 100)];
        assert_eq!(holders.compare(first.iter(), 50).len(), 4);
        assert_eq!(holders.compare(first.iter(), 60), []);
        // 2 has gone, 3 is another's, 4 is new, 5 has ended, 6 had ended before.
        let next = [
            lease(3, 9, 200),
            lease(4, 3, 200),
            lease(5, 4, 100),
            lease(6, 6, 90),
            lease(9, 5, 300),
        ];
        let mut changes = shape(&holders.compare(next.iter(), 100));
        changes.sort_unstable();
        assert_eq!(changes, [(2, None), (3, Some(9)), (4, Some(3)), (5, None)]);
        assert_eq!(holders.compare(next.iter(), 110), []);
    }
}
