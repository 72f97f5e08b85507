//! Whether a link can be the uplink of a bridge. Nothing is changed where it can't.

use vnet_types::IfName;

use super::{LinkFacts, Record};
use crate::Alias;

/// Why a link is not made an uplink, or not given back. The message names the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Refusal {
    #[error(
        "there is no interface {0} in netd's network namespace: `ip link` lists those that there \
         are; for one in another namespace, run a netd there (`ip netns exec NAME netd --root \
         DIR`), or move it here"
    )]
    Missing(IfName),
    #[error("{0} is down: set it up (`ip link set {0} up`) and give it its addresses first")]
    Down(IfName),
    #[error(
        "{0} is wireless: an access point takes frames from its own stations only, so guests \
         behind a bridge would hear nothing; use a nat or a routed network instead"
    )]
    Wireless(IfName),
    #[error("{0} is the loopback interface, which has no outside: name the interface to the LAN")]
    Loopback(IfName),
    #[error("{0} does not carry Ethernet frames: a bridge needs an Ethernet interface")]
    NotEthernet(IfName),
    #[error(
        "{0} is a bridge itself: `vnet bridge {0} --enslave INTERFACE` takes it as the bridge, \
         with the interface to the LAN as its uplink"
    )]
    Bridge(IfName),
    #[error(
        "{link} is a port of {master} already: take it off (`ip link set {link} nomaster`) first"
    )]
    Port { link: IfName, master: String },
    #[error("{link} is a port of a guest ({alias}): name the interface to the LAN")]
    Guest { link: IfName, alias: String },
    #[error("{0} is a tap or tun of some program: name the interface to the LAN")]
    Tun(IfName),
    #[error(
        "{upper} ({kind}) stands on {link} and takes its frames before a bridge would see them: \
         remove {upper}, or put it on the bridge"
    )]
    Stacked { link: IfName, upper: IfName, kind: String },
    #[error("{link} is a {kind}, which cannot be a bridge's port: name the interface to the LAN")]
    Kind { link: IfName, kind: String },
    #[error("there is an interface {0} which is no bridge: give the bridge another name")]
    NoBridge(IfName),
    #[error(
        "the bridge {0} is that of the network {1}, with addresses of its own: give another name"
    )]
    Ours(IfName, String),
    #[error(
        "the bridge {0} speaks the spanning tree protocol, and its new port would be deaf for some \
         30 seconds: turn it off first (`ip link set {0} type bridge stp_state 0`)"
    )]
    SpanningTree(IfName),
    #[error("the bridge {0} belongs to another interface itself: name another bridge")]
    BridgeIsPort(IfName),
    #[error(
        "`{route}` of {link} uses a next-hop object, which cannot be moved: write its gateway into \
         the route itself"
    )]
    NexthopObject { link: IfName, route: String },
    #[error(
        "the label of `{address}` would be longer than 15 bytes on {bridge}: give a shorter name"
    )]
    Label { address: String, bridge: IfName },
    #[error(
        "{uplink} takes no packet of more than {most} bytes, so a bridge over it cannot have an MTU \
         of {mtu}: give {most} or less, or set that of {uplink} first"
    )]
    Mtu { uplink: IfName, mtu: u32, most: u32 },
    #[error(
        "{uplink} is no port of the bridge {bridge}: `ip link show master {bridge}` lists them"
    )]
    NotEnslaved { bridge: IfName, uplink: IfName },
}

/// Kinds of link that the kernel refuses as ports, or on which a bridge makes no sense.
const UNFIT: [&str; 8] = ["macvtap", "macvlan", "ipvlan", "ipvtap", "vrf", "vcan", "vxcan", "can"];
/// Kinds that take a link's frames for themselves (its receive handler), as a bridge would.
const TAKERS: [&str; 4] = ["macvlan", "macvtap", "ipvlan", "ipvtap"];

/// Whether `uplink` can be put under `bridge`, as things stand in `links` and with these `records`
/// of the uplink; and the two, if they are there.
///
/// # Errors
/// The first reason against it.
pub fn check<'l>(
    bridge: &IfName,
    uplink: &IfName,
    links: &'l [LinkFacts],
    records: &[Record],
) -> Result<(&'l LinkFacts, Option<&'l LinkFacts>), Refusal> {
    let find = |name: &IfName| links.iter().find(|link| link.id.name == *name);
    let link = find(uplink).ok_or_else(|| Refusal::Missing(uplink.clone()))?;
    check_uplink(link, links)?;
    if let Some(route) = records.iter().find(|record| record.has_nexthop_object()) {
        return Err(Refusal::NexthopObject { link: uplink.clone(), route: route.to_string() });
    }
    let to = super::LinkId { name: bridge.clone(), index: 0 };
    if let Some(address) = records.iter().find(|record| record.moved(&link.id, &to).is_none()) {
        return Err(Refusal::Label { address: address.to_string(), bridge: bridge.clone() });
    }
    let present = find(bridge);
    if let Some(present) = present {
        check_bridge(present)?;
    }
    Ok((link, present))
}

fn check_uplink(link: &LinkFacts, links: &[LinkFacts]) -> Result<(), Refusal> {
    let name = || link.id.name.clone();
    if link.loopback {
        return Err(Refusal::Loopback(name()));
    }
    if link.is("bridge") {
        return Err(Refusal::Bridge(name()));
    }
    if link.wireless {
        return Err(Refusal::Wireless(name()));
    }
    if let Some(alias) = &link.alias
        && let Ok(Alias::Port { .. }) = alias.parse::<Alias>()
    {
        return Err(Refusal::Guest { link: name(), alias: alias.clone() });
    }
    if link.is("tun") {
        return Err(Refusal::Tun(name()));
    }
    if let Some(kind) = &link.kind
        && UNFIT.contains(&kind.as_str())
    {
        return Err(Refusal::Kind { link: name(), kind: kind.clone() });
    }
    if !link.ethernet {
        return Err(Refusal::NotEthernet(name()));
    }
    if let Some(master) = link.master {
        let master = links
            .iter()
            .find(|other| other.id.index == master)
            .map_or_else(|| "another interface".to_owned(), describe);
        return Err(Refusal::Port { link: name(), master });
    }
    if !link.up {
        return Err(Refusal::Down(name()));
    }
    let stacked = links.iter().find_map(|upper| {
        let kind = upper.kind.as_deref().filter(|kind| TAKERS.contains(kind))?;
        (upper.lower == Some(link.id.index)).then_some((upper.id.name.clone(), kind.to_owned()))
    });
    match stacked {
        Some((upper, kind)) => Err(Refusal::Stacked { link: name(), upper, kind }),
        None => Ok(()),
    }
}

fn describe(master: &LinkFacts) -> String {
    let kind = master.kind.as_deref().unwrap_or("interface");
    format!("the {kind} {}", master.id.name)
}

fn check_bridge(bridge: &LinkFacts) -> Result<(), Refusal> {
    let name = || bridge.id.name.clone();
    if !bridge.is("bridge") {
        return Err(Refusal::NoBridge(name()));
    }
    if let Some(Ok(Alias::Bridge(network))) = bridge.alias.as_deref().map(str::parse) {
        return Err(Refusal::Ours(name(), network.to_string()));
    }
    if bridge.spanning_tree {
        return Err(Refusal::SpanningTree(name()));
    }
    if bridge.master.is_some() {
        return Err(Refusal::BridgeIsPort(name()));
    }
    Ok(())
}

/// Whether `uplink` is a port of `bridge`, and the two.
///
/// # Errors
/// One of them is not there, or they have nothing to do with each other.
pub fn check_release<'l>(
    bridge: &IfName,
    uplink: &IfName,
    links: &'l [LinkFacts],
) -> Result<(&'l LinkFacts, &'l LinkFacts), Refusal> {
    let find = |name: &IfName| {
        let found = links.iter().find(|link| link.id.name == *name);
        found.ok_or_else(|| Refusal::Missing(name.clone()))
    };
    let (link, present) = (find(uplink)?, find(bridge)?);
    if !present.is("bridge") {
        return Err(Refusal::NoBridge(bridge.clone()));
    }
    if link.master != Some(present.id.index) {
        return Err(Refusal::NotEnslaved { bridge: bridge.clone(), uplink: uplink.clone() });
    }
    Ok((link, present))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::LinkId;

    fn link(name: &str, index: u32, kind: Option<&str>) -> LinkFacts {
        LinkFacts {
            id: LinkId { name: name.parse().unwrap(), index },
            kind: kind.map(str::to_owned),
            ethernet: true,
            loopback: false,
            up: true,
            mac: None,
            mtu: 1500,
            master: None,
            lower: None,
            alias: None,
            spanning_tree: false,
            wireless: false,
        }
    }

    fn refused(change: impl Fn(&mut Vec<LinkFacts>)) -> String {
        let mut links = vec![link("eth0", 2, None)];
        change(&mut links);
        check(&"br0".parse().unwrap(), &"eth0".parse().unwrap(), &links, &[])
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn an_ordinary_interface_can_be_an_uplink() {
        let links = [link("eth0", 2, None), link("br0", 3, Some("bridge"))];
        let (uplink, bridge) =
            check(&"br0".parse().unwrap(), &"eth0".parse().unwrap(), &links, &[]).unwrap();
        assert_eq!((uplink.id.index, bridge.map(|bridge| bridge.id.index)), (2, Some(3)));
    }

    #[test]
    fn what_cannot_be_an_uplink_is_refused_with_the_reason() {
        assert!(refused(Vec::clear).contains("there is no interface eth0"));
        assert!(refused(|l| l[0].up = false).contains("eth0 is down"));
        assert!(refused(|l| l[0].wireless = true).contains("eth0 is wireless"));
        assert!(refused(|l| l[0].loopback = true).contains("loopback"));
        assert!(refused(|l| l[0].ethernet = false).contains("Ethernet"));
        assert!(refused(|l| l[0].kind = Some("bridge".into())).contains("a bridge itself"));
        assert!(refused(|l| l[0].kind = Some("tun".into())).contains("tap or tun"));
        assert!(refused(|l| l[0].kind = Some("macvlan".into())).contains("is a macvlan"));
        let guest = "vnet:default:web:0:52-54-00-00-00-01";
        assert!(refused(|l| l[0].alias = Some(guest.into())).contains("a port of a guest"));
        let text = refused(|l| {
            l[0].master = Some(9);
            l.push(link("bond0", 9, Some("bond")));
        });
        assert!(text.contains("a port of the bond bond0 already"), "{text}");
        let text = refused(|l| {
            l.push(LinkFacts { lower: Some(2), ..link("mac0", 9, Some("macvlan")) });
        });
        assert!(text.contains("mac0 (macvlan) stands on eth0"), "{text}");
    }

    #[test]
    fn a_name_that_cannot_be_the_bridge_is_refused_with_the_reason() {
        let with = |change: fn(&mut LinkFacts)| {
            refused(|links| {
                let mut bridge = link("br0", 3, Some("bridge"));
                change(&mut bridge);
                links.push(bridge);
            })
        };
        assert!(with(|bridge| bridge.kind = None).contains("no bridge"));
        assert!(with(|bridge| bridge.spanning_tree = true).contains("spanning tree"));
        assert!(with(|bridge| bridge.alias = Some("vnet:lab".into())).contains("network lab"));
        assert!(with(|bridge| bridge.master = Some(1)).contains("another interface"));
    }
}
