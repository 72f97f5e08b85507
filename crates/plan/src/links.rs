//! The host's links and their addresses, found by name, number or content: with a thousand
//! networks, none of these may cost a walk over all of them. A copy is cheap: it shares what is
//! the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use vnet_types::MacAddr;

use crate::{Address, Link};

/// All links of one network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Links(Arc<Index>);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Index {
    // A name that the kernel has is not always one that we would choose, hence the plain text.
    by_name: BTreeMap<String, Link>,
    names: BTreeMap<u32, String>,
    macs: BTreeSet<(MacAddr, String)>,
}

impl Links {
    /// The link of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Link> {
        self.0.by_name.get(name)
    }

    /// The link with this number, and its name.
    #[must_use]
    pub fn at(&self, index: u32) -> Option<(&str, &Link)> {
        let (name, link) = self.0.by_name.get_key_value(self.0.names.get(&index)?)?;
        Some((name, link))
    }

    /// The names of the links with this Ethernet address.
    pub fn with_mac(&self, mac: MacAddr) -> impl Iterator<Item = &str> {
        let all = self.0.macs.range((mac, String::new())..);
        all.take_while(move |(its, _)| *its == mac).map(|(_, name)| name.as_str())
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Link)> {
        self.0.by_name.iter().map(|(name, link)| (name.as_str(), link))
    }

    /// Adds a link, in place of one of the same name or number.
    pub fn insert(&mut self, name: String, link: Link) {
        let all = Arc::make_mut(&mut self.0);
        all.remove(&name);
        if let Some(before) = all.names.get(&link.index).cloned() {
            all.remove(&before);
        }
        all.names.insert(link.index, name.clone());
        all.macs.extend(link.mac.map(|mac| (mac, name.clone())));
        all.by_name.insert(name, link);
    }

    /// Takes the link of this name away.
    pub fn remove(&mut self, name: &str) -> Option<Link> {
        // One that is not there is no reason for a copy.
        self.get(name)?;
        Arc::make_mut(&mut self.0).remove(name)
    }

    /// Changes the link of this name, if it is there.
    pub fn change(&mut self, name: &str, change: impl FnOnce(&mut Link)) {
        if let Some(mut link) = self.remove(name) {
            change(&mut link);
            self.insert(name.to_owned(), link);
        }
    }
}

impl Index {
    fn remove(&mut self, name: &str) -> Option<Link> {
        let link = self.by_name.remove(name)?;
        self.names.remove(&link.index);
        if let Some(mac) = link.mac {
            self.macs.remove(&(mac, name.to_owned()));
        }
        Some(link)
    }
}

impl FromIterator<(String, Link)> for Links {
    fn from_iter<I: IntoIterator<Item = (String, Link)>>(links: I) -> Self {
        let mut all = Self::default();
        links.into_iter().for_each(|(name, link)| all.insert(name, link));
        all
    }
}

/// All addresses of all links of one network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Addresses(Arc<BTreeSet<Address>>);

impl Addresses {
    /// Whether the link with this number has exactly this address with this prefix.
    #[must_use]
    pub fn contains(&self, link: u32, address: IpAddr, prefix: u8) -> bool {
        let Ok(net) = IpNet::new(address, prefix) else { return false };
        let first = self.0.range(Address { link, net, peer: None }..).next();
        first.is_some_and(|found| (found.link, found.net) == (link, net))
    }

    /// All of them, by link.
    pub fn iter(&self) -> impl Iterator<Item = &Address> {
        self.0.iter()
    }

    /// Adds one.
    pub fn insert(&mut self, address: Address) {
        if !self.0.contains(&address) {
            Arc::make_mut(&mut self.0).insert(address);
        }
    }

    /// Takes one away.
    pub fn remove(&mut self, address: &Address) {
        if self.0.contains(address) {
            Arc::make_mut(&mut self.0).remove(address);
        }
    }

    /// Takes away those that `stays` is not true of.
    pub fn retain(&mut self, stays: impl FnMut(&Address) -> bool) {
        Arc::make_mut(&mut self.0).retain(stays);
    }

    /// Takes away all of a link.
    pub fn remove_all_of(&mut self, link: u32) {
        let lowest = Address { link, net: IpNet::default(), peer: None };
        let of_it = |address: &&Address| address.link == link;
        let gone: Vec<_> = self.0.range(lowest..).take_while(of_it).cloned().collect();
        gone.iter().for_each(|address| self.remove(address));
    }
}

impl FromIterator<Address> for Addresses {
    fn from_iter<I: IntoIterator<Item = Address>>(addresses: I) -> Self {
        Self(Arc::new(addresses.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, mac: u8) -> Link {
        Link { index, mac: Some(MacAddr([2, 0, 0, 0, 0, mac])), ..Link::default() }
    }

    fn names(links: &Links, mac: u8) -> Vec<&str> {
        links.with_mac(MacAddr([2, 0, 0, 0, 0, mac])).collect()
    }

    #[test]
    fn links_are_found_by_each_of_their_marks() {
        let all = [("eth0", link(2, 7)), ("eth1", link(3, 7)), ("lo", link(1, 0))];
        let mut links: Links =
            all.map(|(name, link)| (name.to_owned(), link)).into_iter().collect();
        let before = links.clone();
        assert_eq!(names(&links, 7), ["eth0", "eth1"]);
        assert_eq!(links.at(3).unwrap().0, "eth1");
        // It gets another address, and then another name.
        links.insert("eth0".into(), link(2, 9));
        assert_eq!((names(&links, 7), names(&links, 9)), (vec!["eth1"], vec!["eth0"]));
        links.insert("wan".into(), link(2, 9));
        assert!(links.get("eth0").is_none());
        assert_eq!((links.at(2).unwrap().0, names(&links, 9)), ("wan", vec!["wan"]));
        links.remove("wan");
        assert!(links.at(2).is_none() && names(&links, 9).is_empty());
        assert_eq!(links.iter().count(), 2);
        // A link of another name and number may have taken the name of one that is gone.
        links.insert("eth1".into(), link(9, 7));
        assert!(links.at(3).is_none() && links.at(9).unwrap().0 == "eth1");
        assert_eq!(before.iter().count(), 3);
    }

    #[test]
    fn addresses_go_with_their_link() {
        let address = |link, net: &str| Address { link, net: net.parse().unwrap(), peer: None };
        let peer = Some("10.0.0.2".parse().unwrap());
        let all = [
            address(1, "127.0.0.1/8"),
            address(2, "10.0.0.1/24"),
            Address { peer, ..address(2, "10.0.0.1/32") },
            address(2, "::1/128"),
            address(3, "fe80::1/64"),
        ];
        let mut addresses: Addresses = all.into_iter().collect();
        assert!(addresses.contains(2, "10.0.0.1".parse().unwrap(), 24));
        assert!(addresses.contains(2, "10.0.0.1".parse().unwrap(), 32));
        assert!(!addresses.contains(2, "10.0.0.1".parse().unwrap(), 8));
        assert!(!addresses.contains(3, "10.0.0.1".parse().unwrap(), 24));
        addresses.remove_all_of(2);
        let left: Vec<_> = addresses.iter().map(|address| address.link).collect();
        assert_eq!(left, [1, 3]);
    }
}
