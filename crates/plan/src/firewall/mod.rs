//! Our nftables tables, `inet vnet` and `bridge vnet`: what they are to hold, and the transactions
//! that make it so, each over both at once.
//!
//! Their chains are the same whatever networks and ports there are ([`chains`], [`guard`]); a
//! network or a port is a few elements of sets and verdict maps ([`elements`]). So a packet costs
//! the same with one network as with a thousand, and a change adds and removes elements without a
//! look at the rules.

mod chains;
mod elements;
mod guard;
mod limit;
mod protocol;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, LazyLock};

use nftables::schema::{NfCmd, NfListObject, Table};
use nftables::types::NfFamily;
use serde_json::Value;
use vnet_types::{IfName, Limit, Listen, Mode, Prefix6, Subnet};

pub use guard::{Allowed, Allowed6, Port};

/// The name of our tables, in the families `inet` and `bridge`.
pub const TABLE: &str = "vnet";

const FAMILY: NfFamily = NfFamily::INet;

/// What one network is to the firewall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// Whom it may talk to.
    pub mode: Mode,
    /// The addresses that its guests may send from.
    pub subnet: Subnet,
    /// The same in IPv6; none for a network without, which is closed for IPv6.
    pub ipv6: Option<Zone6>,
    /// The only interface through which it reaches the outside, if there is one.
    pub uplink: Option<IfName>,
    /// The ports of the host that lead to its guests.
    pub published: Vec<Published>,
    /// How fast its guests together may send to the host and the outside.
    pub limit: Option<Limit>,
}

impl Zone {
    /// The same network without its forwards.
    fn bare(&self) -> Self {
        Self {
            mode: self.mode,
            subnet: self.subnet,
            ipv6: self.ipv6.clone(),
            uplink: self.uplink.clone(),
            published: Vec::new(),
            limit: self.limit,
        }
    }
}

/// What a network's IPv6 is to the firewall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone6 {
    /// The addresses that its guests may send from.
    pub prefix: Prefix6,
    /// The address from which the host speaks as the router.
    pub link_local: Ipv6Addr,
    /// What is reserved for guests, whether they are there or not.
    pub reserved: BTreeSet<Ipv6Addr>,
}

/// A forward whose guest has an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Published {
    /// Where the host listens.
    pub listen: Listen,
    /// The guest's address, of the sort that this is about: one that listens at all addresses is
    /// there once for either.
    pub to: IpAddr,
    /// The guest's port for the first one that is listened on; the others follow.
    pub first: u16,
}

/// What our tables are to hold. A copy shares it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Firewall {
    /// The networks by bridge.
    zones: Arc<BTreeMap<IfName, Zone>>,
    /// The ports that are guarded.
    ports: Arc<BTreeMap<IfName, Port>>,
}

/// What is known of our tables in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum FirewallState {
    /// There are none.
    #[default]
    Absent,
    /// They are as we left them.
    Holds(Firewall),
    /// There is one at least, and we cannot say what it holds: somebody has changed it, or it
    /// stems from before our start.
    Altered,
}

impl Firewall {
    /// The same networks with these guarded ports.
    #[must_use]
    pub fn with_ports(self, ports: BTreeMap<IfName, Port>) -> Self {
        Self { ports: Arc::new(ports), ..self }
    }

    /// The ports that are guarded.
    pub fn ports(&self) -> impl Iterator<Item = &Port> {
        self.ports.values()
    }

    /// The same with other addresses for those ports for which `allowed` has any.
    #[must_use]
    pub fn with_allowed(
        mut self,
        allowed: impl Fn(&Port) -> Option<(Allowed, Option<Allowed6>)>,
    ) -> Self {
        for port in Arc::make_mut(&mut self.ports).values_mut() {
            if let Some((addresses, ipv6)) = allowed(port) {
                (port.addresses, port.ipv6) = (addresses, ipv6);
            }
        }
        self
    }

    /// Whether there is no network of ours and no port to guard, and so no need for tables.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.zones.is_empty() && self.ports.is_empty()
    }

    /// The transaction that makes the tables. It fails if there is one.
    #[must_use]
    pub fn install(&self) -> Transaction {
        let elements = self.elements().into_values().map(NfCmd::Add);
        Transaction::default().with(&SHAPE).with(&Transaction::new(elements))
    }

    /// The transaction that puts the tables in place of those that are there. No packet sees a
    /// state between the two. It takes longer than [`Firewall::install`]: after a delete, the
    /// kernel lets nft go only when no processor looks at the old rules any more.
    #[must_use]
    pub fn replace(&self) -> Transaction {
        Transaction::new(removal()).with(&self.install())
    }

    /// Has what all tables have in common ready, for the first [`Firewall::install`] to be quick.
    pub fn prepare() {
        LazyLock::force(&SHAPE);
    }

    fn elements(&self) -> BTreeMap<String, NfListObject<'static>> {
        let mut all = elements::of(&self.zones);
        all.extend(limit::elements(&self.zones));
        all.extend(guard::elements(&self.ports, &self.zones));
        all
    }

    /// The transaction that turns tables which hold `self` into ones that hold `to`.
    #[must_use]
    pub fn update(&self, to: &Self) -> Transaction {
        // What is the same on both sides is not looked at, however much it is.
        let (before, after) = (self.unlike(to).elements(), to.unlike(self).elements());
        let mut gone: Vec<_> = before.iter().filter(|(key, _)| !after.contains_key(*key)).collect();
        if gone.iter().any(|(key, _)| is_shared(key)) {
            let stays = to.shared_keys();
            gone.retain(|(key, _)| !stays.contains(*key));
        }
        let new = after.iter().filter(|(key, _)| !before.contains_key(*key));
        // What others refer to is there before them, and goes after.
        let delete = gone.iter().rev().map(|(_, element)| NfCmd::Delete((*element).clone()));
        let add = new.map(|(_, element)| NfCmd::Add(element.clone()));
        Transaction::new(delete.chain(add))
    }

    /// Those networks, forwards and ports that are other ones in `other`, or none.
    fn unlike(&self, other: &Self) -> Self {
        let zone = |(bridge, zone): (&IfName, &Zone)| {
            let Some(its) = other.zones.get(bridge) else {
                return Some((bridge.clone(), zone.clone()));
            };
            if zone == its {
                return None;
            }
            let same: HashSet<&Published> = its.published.iter().collect();
            let published = zone.published.iter().filter(|one| !same.contains(one)).cloned();
            Some((bridge.clone(), Zone { published: published.collect(), ..zone.bare() }))
        };
        let ports = self.ports.iter().filter(|&(name, port)| other.ports.get(name) != Some(port));
        let ports = ports.map(|(name, port)| (name.clone(), port.clone())).collect();
        self.zones.iter().filter_map(zone).collect::<Self>().with_ports(ports)
    }

    /// The keys of those elements that more than one network, port or forward may stand for.
    fn shared_keys(&self) -> HashSet<String> {
        let published = self.zones.values().flat_map(|zone| &zone.published);
        let ends = published.flat_map(elements::ends).map(|(key, _)| key);
        ends.chain(guard::reserved(&self.ports, &self.zones).into_keys()).collect()
    }

    /// The transaction that removes the tables.
    #[must_use]
    pub fn remove() -> Transaction {
        Transaction::new(removal())
    }

    /// The query for all that everybody has.
    #[must_use]
    pub fn list_everything() -> Transaction {
        Transaction(serde_json::json!({ "list": { "ruleset": null } }).to_string())
    }
}

/// Whether an element with this key may stand for more than one network, port or forward.
fn is_shared(key: &str) -> bool {
    elements::is_shared(key) || guard::is_shared(key)
}

/// Removes the tables, whether there are both or one or none: to add one that is there is nothing.
fn removal() -> impl Iterator<Item = NfCmd<'static>> {
    let add = tables().map(NfCmd::Add).into_iter();
    add.chain(tables().map(NfCmd::Delete))
}

fn tables() -> [NfListObject<'static>; 2] {
    [FAMILY, guard::FAMILY]
        .map(|family| NfListObject::Table(Table { family, name: TABLE.into(), handle: None }))
}

/// The tables with all that is the same in them for any networks: sets, chains and rules. They are
/// put into words once.
static SHAPE: LazyLock<Transaction> = LazyLock::new(|| {
    let parts = elements::sets().into_iter().chain([limit::map()]).chain(chains::chains());
    let parts = parts.chain(guard::sets()).chain(guard::chains());
    Transaction::new(tables().map(NfCmd::Create).into_iter().chain(parts.map(NfCmd::Add)))
});

/// A transaction, in the JSON that `nft -j -f -` reads: its commands, with commas between them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transaction(String);

impl Transaction {
    fn new(commands: impl IntoIterator<Item = NfCmd<'static>>) -> Self {
        let value = |command| serde_json::to_value(command).unwrap_or_default();
        let commands = commands.into_iter().map(value).map(declare_verdicts);
        Self(commands.map(|command| command.to_string()).collect::<Vec<_>>().join(","))
    }

    fn with(mut self, more: &Self) -> Self {
        if !self.is_empty() && !more.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(&more.0);
        self
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{\"nftables\":[{}]}}", self.0)
    }
}

/// The crate nftables 0.6 has no word for `verdict` as the type that a map leads to. Those of our
/// maps that lead there say an interface's name instead, to which none leads.
fn declare_verdicts(mut command: Value) -> Value {
    if let Some(kind) = command.pointer_mut("/add/map/map")
        && kind == "ifname"
    {
        *kind = Value::from("verdict");
    }
    limit::declare(&mut command);
    command
}

impl FromIterator<(IfName, Zone)> for Firewall {
    fn from_iter<I: IntoIterator<Item = (IfName, Zone)>>(zones: I) -> Self {
        Self { zones: Arc::new(zones.into_iter().collect()), ports: Arc::default() }
    }
}

impl fmt::Display for Firewall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (bridge, zone)) in self.zones.iter().enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            write!(f, "{comma}{bridge} ({} {}", zone.mode, zone.subnet)?;
            if let Some(ipv6) = &zone.ipv6 {
                write!(f, " and {}", ipv6.prefix)?;
            }
            match zone.published.len() {
                0 => f.write_str(")")?,
                1 => f.write_str(", 1 forward)")?,
                several => write!(f, ", {several} forwards)")?,
            }
        }
        for (name, port) in self.ports.iter() {
            write!(f, ", {name} ({port})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn firewall(zones: &[(&str, Mode, &str)]) -> Firewall {
        zones
            .iter()
            .map(|(bridge, mode, subnet)| {
                let subnet = subnet.parse().unwrap();
                let zone = Zone {
                    mode: *mode,
                    subnet,
                    ipv6: None,
                    uplink: None,
                    published: vec![],
                    limit: None,
                };
                (bridge.parse().unwrap(), zone)
            })
            .collect()
    }

    fn commands(transaction: &Transaction) -> String {
        transaction.to_string()
    }

    #[test]
    fn an_update_touches_only_what_differs() {
        let one = firewall(&[("virbr0", Mode::Nat, "192.168.122.0/24")]);
        let two = firewall(&[
            ("virbr0", Mode::Nat, "192.168.122.0/24"),
            ("virbr1", Mode::Nat, "192.168.123.0/24"),
        ]);
        let text = commands(&one.update(&two));
        assert!(text.contains("virbr1") && !text.contains("virbr0"), "{text}");
        assert!(!text.contains("\"delete\"") && !text.contains("\"chain\""), "{text}");
        let back = commands(&two.update(&one));
        assert!(!back.contains("\"add\"") && back.contains("virbr1"), "{back}");
    }

    #[test]
    fn an_update_to_the_same_does_nothing() {
        let one = firewall(&[("virbr0", Mode::Nat, "192.168.122.0/24")]);
        assert!(one.update(&one).is_empty());
    }

    #[test]
    fn a_change_of_mode_replaces_the_verdicts() {
        let nat = firewall(&[("virbr0", Mode::Nat, "192.168.122.0/24")]);
        let closed = firewall(&[("virbr0", Mode::Hostonly, "192.168.122.0/24")]);
        let text = commands(&nat.update(&closed));
        assert!(text.contains("from_nat") && text.contains("from_hostonly"), "{text}");
        let (delete, add) = (text.find("from_nat"), text.find("from_hostonly"));
        assert!(delete < add, "what goes must come first: {text}");
    }

    fn publishing(listen: &str, to: [u8; 4], first: u16) -> Firewall {
        let mut firewall = firewall(&[("virbr0", Mode::Nat, "192.168.122.0/24")]);
        let (listen, to) = (listen.parse().unwrap(), IpAddr::from(to));
        let published = Published { listen, to, first };
        Arc::make_mut(&mut firewall.zones)
            .values_mut()
            .for_each(|zone| zone.published.push(published.clone()));
        firewall
    }

    #[test]
    fn what_others_need_too_stays() {
        let with6 = |zones: &[(&str, &str)]| -> Firewall {
            let zone = |(bridge, prefix): &(&str, &str)| {
                let ipv6 = Zone6 {
                    prefix: prefix.parse().unwrap(),
                    link_local: "fe80::1:2".parse().unwrap(),
                    reserved: BTreeSet::new(),
                };
                let (mode, subnet) = (Mode::Nat, "10.0.0.0/24".parse().unwrap());
                let (uplink, published, limit) = (None, vec![], None);
                let ipv6 = Some(ipv6);
                (bridge.parse().unwrap(), Zone { mode, subnet, ipv6, uplink, published, limit })
            };
            zones.iter().map(zone).collect()
        };
        let two = with6(&[("virbr0", "fd00:1::/64"), ("virbr1", "fd00:2::/64")]);
        let one = with6(&[("virbr0", "fd00:1::/64")]);
        let text = commands(&two.update(&one));
        // Its own addresses go; the ends of them that the other network has as well do not.
        assert!(text.contains("fd00:2::1") && text.contains("\"delete\""), "{text}");
        assert!(!text.contains("nd_reserved") && !text.contains("fd00:1"), "{text}");
        let text = commands(&one.update(&Firewall::default()));
        assert_eq!(text.matches("nd_reserved").count(), 3, "{text}");
    }

    #[test]
    fn two_forwards_may_lead_to_one_end() {
        let listening = |ports: &[&str]| {
            let mut firewall = firewall(&[("virbr0", Mode::Nat, "192.168.122.0/24")]);
            let to = IpAddr::from([192, 168, 122, 9]);
            let published = ports.iter().map(|port| {
                let listen = port.parse().unwrap();
                Published { listen, to, first: 80 }
            });
            for zone in Arc::make_mut(&mut firewall.zones).values_mut() {
                zone.published = published.clone().collect();
            }
            firewall
        };
        let text = commands(&listening(&["8080", "8081"]).update(&listening(&["8081"])));
        assert!(text.contains("8080") && !text.contains("8081"), "{text}");
        assert!(!text.contains("\"published\""), "{text}");
    }

    #[test]
    fn a_range_of_ports_keeps_its_offsets() {
        let none = firewall(&[("virbr0", Mode::Nat, "192.168.122.0/24")]);
        let some = publishing("8000-8001/udp", [192, 168, 122, 9], 90);
        let text = commands(&none.update(&some));
        for pair in [r#"[{"concat":[17,8000]},90]"#, r#"[{"concat":[17,8001]},91]"#] {
            assert!(text.contains(pair), "{text}");
        }
        assert!(text.contains(r#"{"concat":["192.168.122.9",17,91]}"#), "{text}");
        assert!(commands(&some.update(&none)).matches("delete").count() == 6);
    }

    #[test]
    fn a_guest_that_moves_takes_its_forwards_along() {
        let before = publishing("203.0.113.2:80", [192, 168, 122, 9], 80);
        let after = publishing("203.0.113.2:80", [192, 168, 122, 10], 80);
        let text = commands(&before.update(&after));
        let (delete, add) = text.split_at(text.find("\"add\"").unwrap());
        assert!(delete.contains("122.9") && !delete.contains("122.10"), "{text}");
        assert!(add.contains("122.10") && !add.contains("\"delete\""), "{text}");
    }

    #[test]
    fn the_chains_do_not_depend_on_the_networks() {
        let one = commands(&firewall(&[("virbr0", Mode::Nat, "192.168.122.0/24")]).install());
        let two = commands(
            &firewall(&[
                ("virbr0", Mode::Nat, "192.168.122.0/24"),
                ("virbr1", Mode::Routed, "192.168.123.0/24"),
            ])
            .install(),
        );
        assert_eq!(one.matches("\"rule\"").count(), two.matches("\"rule\"").count());
    }

    #[test]
    fn ipv6_is_a_few_elements_more_and_no_rule() {
        let four = firewall(&[("virbr0", Mode::Nat, "192.168.122.0/24")]);
        let mut six = four.clone();
        for zone in Arc::make_mut(&mut six.zones).values_mut() {
            zone.ipv6 = Some(Zone6 {
                prefix: "fd00:6::/64".parse().unwrap(),
                link_local: "fe80::1:2".parse().unwrap(),
                reserved: BTreeSet::from(["fd00:6::9".parse().unwrap()]),
            });
        }
        let text = commands(&four.update(&six));
        assert!(!text.contains("\"rule\"") && !text.contains("\"delete\""), "{text}");
        for set in ["sources6", "masqueraded6", "reserved6"] {
            assert!(text.contains(set), "{text}");
        }
        // The gateway's, the router's, every router's, and the guest's.
        assert_eq!(text.matches("reserved6").count(), 4, "{text}");
        assert_eq!(commands(&six.update(&four)).matches("\"add\"").count(), 0);
    }
}
