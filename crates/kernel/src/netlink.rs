//! Links, addresses and routes, from and to the messages of rtnetlink. The crate
//! netlink-packet-route, which reads and writes these, is used in this module only; they travel on
//! our own socket ([`Rtnetlink`]), since the kernel answers within the call and there is nothing
//! to wait for.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};
use netlink_packet_core::{DecodeError, Emitable, Parseable};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, BridgeStpState, In6AddrGenMode, InfoBridge, InfoData,
    InfoKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use vnet_plan::{Address, Ipv6Settings, Link, LinkKind, Route};
use vnet_types::{IfName, MacAddr};

use crate::uplink::Rtnetlink;

const CREATE: u16 = libc::NLM_F_CREATE as u16;
const EXCL: u16 = libc::NLM_F_EXCL as u16;

/// Why the kernel did not do, or say, what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// It refused.
    #[error("{0}")]
    Refused(#[from] io::Error),
    /// There is no link of that name.
    #[error("there is no link {0}")]
    NoLink(String),
}

impl Rtnetlink {
    /// All links with their names.
    pub(crate) fn all_links(&mut self) -> io::Result<Vec<(String, Link)>> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let bodies = self.dump(libc::RTM_GETLINK, &bytes(&request))?;
        Ok(bodies.iter().filter_map(|body| link(body)).collect())
    }

    /// The link of this name, if it is there.
    pub(crate) fn link(&mut self, name: &str) -> io::Result<Option<(String, Link)>> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::IfName(name.to_owned()));
        request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        match self.get(libc::RTM_GETLINK, &bytes(&request)) {
            Ok(body) => Ok(link(&body)),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All addresses of all links.
    pub(crate) fn all_addresses(&mut self) -> io::Result<Vec<Address>> {
        let bodies = self.dump(libc::RTM_GETADDR, &bytes(&AddressMessage::default()))?;
        Ok(bodies.iter().filter_map(|body| address(body)).collect())
    }

    /// All routes but those of the table `local`, which repeat the addresses; those of IPv4 first.
    pub(crate) fn all_routes(&mut self) -> io::Result<Vec<Route>> {
        let mut all = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            match self.dump(libc::RTM_GETROUTE, &bytes(&request)) {
                Ok(bodies) => all.extend(bodies.iter().flat_map(|body| routes(body))),
                // A kernel without IPv6.
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Makes a bridge, which is down.
    pub(crate) fn create_bridge(&mut self, name: &IfName, mac: MacAddr) -> io::Result<()> {
        let how = [InfoBridge::StpState(BridgeStpState::Disabled), InfoBridge::ForwardDelay(0)];
        let kind = LinkInfo::Kind(InfoKind::Bridge);
        let data = LinkInfo::Data(InfoData::Bridge(how.into()));
        let request = named(
            name,
            [
                LinkAttribute::Address(mac.octets().to_vec()),
                LinkAttribute::LinkInfo(vec![kind, data]),
            ],
        );
        self.ask(libc::RTM_NEWLINK, CREATE | EXCL, &bytes(&request))
    }

    pub(crate) fn delete_link(&mut self, name: &IfName) -> io::Result<()> {
        self.ask(libc::RTM_DELLINK, 0, &bytes(&named(name, [])))
    }

    pub(crate) fn set_alias(&mut self, name: &IfName, alias: &str) -> io::Result<()> {
        self.set_link(name, LinkAttribute::IfAlias(alias.to_owned()))
    }

    pub(crate) fn set_mac(&mut self, name: &IfName, mac: MacAddr) -> io::Result<()> {
        self.set_link(name, LinkAttribute::Address(mac.octets().to_vec()))
    }

    pub(crate) fn set_mtu(&mut self, name: &IfName, mtu: u32) -> io::Result<()> {
        self.set_link(name, LinkAttribute::Mtu(mtu))
    }

    /// Puts a link on the bridge with the index `master`.
    pub(crate) fn enslave(&mut self, port: &IfName, master: u32) -> io::Result<()> {
        self.set_link(port, LinkAttribute::Controller(master))
    }

    fn set_link(&mut self, name: &IfName, attribute: LinkAttribute) -> io::Result<()> {
        self.ask(libc::RTM_NEWLINK, 0, &bytes(&named(name, [attribute])))
    }

    pub(crate) fn set_up(&mut self, name: &IfName, up: bool) -> io::Result<()> {
        let mut request = named(name, []);
        request.header.change_mask = LinkFlags::Up;
        request.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        self.ask(libc::RTM_NEWLINK, 0, &bytes(&request))
    }

    /// Gives the link with the index `link` an address. One of IPv6 is used at once.
    pub(crate) fn add_address(&mut self, link: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let mut request = of_link(link, address, prefix);
        match address {
            IpAddr::V4(address) => {
                // On a link with two ends there is none (RFC 3021).
                if let Ok(net) = Ipv4Net::new(address, prefix)
                    && prefix < 31
                {
                    request.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
                }
            }
            IpAddr::V6(_) => {
                request.header.flags |= AddressHeaderFlags::Nodad;
                request.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            }
        }
        self.ask(libc::RTM_NEWADDR, CREATE | EXCL, &bytes(&request))
    }

    pub(crate) fn delete_address(
        &mut self,
        link: u32,
        address: IpAddr,
        prefix: u8,
    ) -> io::Result<()> {
        self.ask(libc::RTM_DELADDR, 0, &bytes(&of_link(link, address, prefix)))
    }
}

fn bytes(message: &impl Emitable) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

fn named(name: &IfName, attributes: impl IntoIterator<Item = LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_string()));
    message.attributes.extend(attributes);
    message
}

fn of_link(link: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = link;
    message.header.prefix_len = prefix;
    message.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    message
}

/// What could not be read is left out, and said: a kernel may know what the library does not.
fn readable<T>(what: &str, message: Result<T, DecodeError>) -> Option<T> {
    message
        .inspect_err(|error| {
            tracing::warn!("the kernel speaks of {what} that cannot be read: {error}");
        })
        .ok()
}

/// A link with its name, from the body of a message; none where it says only a part, as notices of
/// wireless links do.
pub(crate) fn link(body: &[u8]) -> Option<(String, Link)> {
    let message = readable("a link", LinkMessage::parse(body))?;
    // What a bridge, or the switch behind it, says of its ports.
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let mut link = Link {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        ..Link::default()
    };
    let (mut name, mut mtu) = (None, None);
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(found) => name = Some(found),
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(MacAddr),
            LinkAttribute::Mtu(found) => mtu = Some(found),
            LinkAttribute::Controller(index) => link.master = Some(index),
            LinkAttribute::IfAlias(alias) => link.alias = alias.parse().ok(),
            LinkAttribute::LinkInfo(infos) => link.kind = kind(&infos),
            LinkAttribute::AfSpecUnspec(families) => {
                link.ipv6 = ipv6(&families);
                (link.forwarding, link.route_localnet) = ipv4(&families);
            }
            _ => {}
        }
    }
    link.mtu = mtu?;
    Some((name?, link))
}

/// Whether it forwards, and whether it carries loopback addresses.
fn ipv4(families: &[AfSpecUnspec]) -> (bool, bool) {
    let conf = families.iter().find_map(|family| match family {
        AfSpecUnspec::Inet(attributes) => attributes.iter().find_map(|attribute| match attribute {
            AfSpecInet::DevConf(conf) => Some(conf),
            _ => None,
        }),
        _ => None,
    });
    conf.map_or((false, false), |conf| (conf.forwarding != 0, conf.route_localnet != 0))
}

/// A link that has no IPv6 says nothing of it.
fn ipv6(families: &[AfSpecUnspec]) -> Ipv6Settings {
    let mut settings = Ipv6Settings::default();
    let of_ipv6 = families.iter().find_map(|family| match family {
        AfSpecUnspec::Inet6(attributes) => Some(attributes),
        _ => None,
    });
    for attribute in of_ipv6.into_iter().flatten() {
        match attribute {
            AfSpecInet6::DevConf(conf) => {
                settings.on = conf.disable_ipv6 == 0;
                settings.forwarding = conf.forwarding != 0;
                settings.accept_ra = conf.accept_ra;
            }
            AfSpecInet6::AddrGenMode(mode) => settings.link_local = *mode != In6AddrGenMode::None,
            _ => {}
        }
    }
    settings
}

fn kind(infos: &[LinkInfo]) -> LinkKind {
    infos
        .iter()
        .find_map(|info| match info {
            LinkInfo::Kind(InfoKind::Bridge) => Some(LinkKind::Bridge),
            LinkInfo::Kind(InfoKind::Tun) => Some(LinkKind::Tun),
            LinkInfo::Kind(InfoKind::Ifb) => Some(LinkKind::Intake),
            _ => None,
        })
        .unwrap_or(LinkKind::Other)
}

/// An address, from the body of a message.
pub(crate) fn address(body: &[u8]) -> Option<Address> {
    let message = readable("an address", AddressMessage::parse(body))?;
    // On a point-to-point link Address is the peer's, and Local ours.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let any = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    let own = local.or(any)?;
    let net = IpNet::new(own, message.header.prefix_len).ok()?;
    Some(Address { link: message.header.index, net, peer: any.filter(|peer| *peer != own) })
}

/// Where a route leads, once for each link that it leaves by, from the body of a message.
pub(crate) fn routes(body: &[u8]) -> Vec<Route> {
    let Some(message) = readable("a route", RouteMessage::parse(body)) else { return Vec::new() };
    let (mut address, leads) = match (message.header.address_family, message.header.kind) {
        (AddressFamily::Inet, RouteType::Local | RouteType::Broadcast | RouteType::Multicast) => {
            return Vec::new();
        }
        (AddressFamily::Inet, _) => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), true),
        // Many hosts have one that says that all other unique local prefixes lead nowhere.
        (AddressFamily::Inet6, kind) => {
            (IpAddr::V6(Ipv6Addr::UNSPECIFIED), kind == RouteType::Unicast)
        }
        _ => return Vec::new(),
    };
    if !leads {
        return Vec::new();
    }
    let mut links = Vec::new();
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(found)) => address = found.into(),
            RouteAttribute::Destination(RouteAddress::Inet6(found)) => address = found.into(),
            RouteAttribute::Oif(index) => links.push(Some(index)),
            RouteAttribute::MultiPath(hops) => {
                links.extend(hops.iter().map(|hop| Some(hop.interface_index)));
            }
            _ => {}
        }
    }
    if links.is_empty() {
        links.push(None);
    }
    let Ok(destination) = IpNet::new(address, message.header.destination_prefix_length) else {
        return Vec::new();
    };
    links.into_iter().map(|link| Route { destination, link }).collect()
}
