//! Links, addresses and routes through rtnetlink. The crates rtnetlink and netlink-packet-route
//! are used in this module only.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::{Stream, TryStreamExt};
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, BridgeStpState, In6AddrGenMode, InfoKind, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{
    AddressMessageBuilder, Error, Handle, LinkBridge, LinkMessageBuilder, LinkUnspec,
    RouteMessageBuilder,
};
use vnet_plan::{Address, Ipv6Settings, Link, LinkKind, Route};
use vnet_types::{IfName, MacAddr};

/// Why the kernel did not do, or say, what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// It refused.
    #[error("{0}")]
    Refused(#[source] io::Error),
    /// The conversation failed.
    #[error("the conversation with the kernel over netlink failed: {0}")]
    Broken(String),
    /// There is no link of that name.
    #[error("there is no link {0}")]
    NoLink(String),
}

impl From<Error> for NetlinkError {
    fn from(error: Error) -> Self {
        match error {
            Error::NetlinkError(message) => Self::Refused(message.to_io()),
            other => Self::Broken(other.to_string()),
        }
    }
}

pub(crate) struct Netlink {
    handle: Handle,
    connection: tokio::task::JoinHandle<()>,
}

impl std::fmt::Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Netlink")
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    pub(crate) async fn links(&self) -> Result<BTreeMap<String, Link>, NetlinkError> {
        let messages = collect(self.handle.link().get().execute()).await?;
        Ok(messages.into_iter().filter_map(link).collect())
    }

    pub(crate) async fn addresses(&self) -> Result<Vec<Address>, NetlinkError> {
        let messages = collect(self.handle.address().get().execute()).await?;
        Ok(messages.into_iter().filter_map(address).collect())
    }

    /// All routes but those of the table `local`, which repeat the addresses; those of IPv4 first.
    pub(crate) async fn routes(&self) -> Result<Vec<Route>, NetlinkError> {
        let every = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let mut messages = collect(self.handle.route().get(every).execute()).await?;
        let every = RouteMessageBuilder::<Ipv6Addr>::new().build();
        messages.extend(collect(self.handle.route().get(every).execute()).await?);
        Ok(messages.into_iter().flat_map(routes).collect())
    }

    async fn index(&self, name: &IfName) -> Result<u32, NetlinkError> {
        let request = self.handle.link().get().match_name(name.to_string()).execute();
        match collect(request).await {
            Ok(found) => found
                .first()
                .map(|message| message.header.index)
                .ok_or_else(|| NetlinkError::NoLink(name.to_string())),
            Err(NetlinkError::Refused(error)) if error.raw_os_error() == Some(libc::ENODEV) => {
                Err(NetlinkError::NoLink(name.to_string()))
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn create_bridge(
        &self,
        name: &IfName,
        mac: MacAddr,
    ) -> Result<(), NetlinkError> {
        let bridge = LinkBridge::new(name.as_str())
            .stp_state(BridgeStpState::Disabled)
            .forward_delay(0)
            .address(mac.octets().to_vec())
            .build();
        Ok(self.handle.link().add(bridge).execute().await?)
    }

    async fn set_link(
        &self,
        name: &IfName,
        change: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
    ) -> Result<(), NetlinkError> {
        let message = change(LinkUnspec::new_with_name(name.as_str())).build();
        Ok(self.handle.link().set(message).execute().await?)
    }

    pub(crate) async fn delete_link(&self, name: &IfName) -> Result<(), NetlinkError> {
        let index = self.index(name).await?;
        Ok(self.handle.link().del(index).execute().await?)
    }

    pub(crate) async fn set_alias(&self, name: &IfName, alias: &str) -> Result<(), NetlinkError> {
        self.set_link(name, |link| link.alias(alias)).await
    }

    pub(crate) async fn set_mac(&self, name: &IfName, mac: MacAddr) -> Result<(), NetlinkError> {
        self.set_link(name, |link| link.address(mac.octets().to_vec())).await
    }

    pub(crate) async fn set_down(&self, name: &IfName) -> Result<(), NetlinkError> {
        self.set_link(name, LinkMessageBuilder::down).await
    }

    pub(crate) async fn set_mtu(&self, name: &IfName, mtu: u32) -> Result<(), NetlinkError> {
        self.set_link(name, |link| link.mtu(mtu)).await
    }

    pub(crate) async fn set_up(&self, name: &IfName) -> Result<(), NetlinkError> {
        self.set_link(name, LinkMessageBuilder::up).await
    }

    pub(crate) async fn enslave(&self, port: &IfName, bridge: &IfName) -> Result<(), NetlinkError> {
        let bridge = self.index(bridge).await?;
        self.set_link(port, |link| link.controller(bridge)).await
    }

    pub(crate) async fn add_address(
        &self,
        link: &IfName,
        address: IpAddr,
        prefix: u8,
    ) -> Result<(), NetlinkError> {
        let index = self.index(link).await?;
        let mut request = self.handle.address().add(index, address, prefix);
        if address.is_ipv6() {
            let message = request.message_mut();
            message.header.flags |= AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        Ok(request.execute().await?)
    }

    pub(crate) async fn delete_address(
        &self,
        link: &IfName,
        address: IpAddr,
        prefix: u8,
    ) -> Result<(), NetlinkError> {
        let index = self.index(link).await?;
        let message = match address {
            IpAddr::V4(address) => AddressMessageBuilder::<Ipv4Addr>::new()
                .index(index)
                .address(address, prefix)
                .build(),
            IpAddr::V6(address) => AddressMessageBuilder::<Ipv6Addr>::new()
                .index(index)
                .address(address, prefix)
                .build(),
        };
        Ok(self.handle.address().del(message).execute().await?)
    }
}

async fn collect<T>(stream: impl Stream<Item = Result<T, Error>>) -> Result<Vec<T>, NetlinkError> {
    Ok(stream.try_collect().await?)
}

fn link(message: LinkMessage) -> Option<(String, Link)> {
    let mut link = Link {
        index: message.header.index,
        kind: LinkKind::Other,
        mac: None,
        up: message.header.flags.contains(LinkFlags::Up),
        mtu: 0,
        master: None,
        alias: None,
        ipv6: Ipv6Settings::default(),
        forwarding: false,
        route_localnet: false,
    };
    let mut name = None;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(found) => name = Some(found),
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(MacAddr),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(index) => link.master = Some(index),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::LinkInfo(infos) => link.kind = kind(&infos),
            LinkAttribute::AfSpecUnspec(families) => {
                link.ipv6 = ipv6(&families);
                (link.forwarding, link.route_localnet) = ipv4(&families);
            }
            _ => {}
        }
    }
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

fn address(message: AddressMessage) -> Option<Address> {
    // On a point-to-point link Address is the peer's, and Local ours.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let any = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    let net = IpNet::new(local.or(any)?, message.header.prefix_len).ok()?;
    Some(Address { link: message.header.index, net })
}

fn routes(message: RouteMessage) -> Vec<Route> {
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
