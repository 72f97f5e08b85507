//! The options that are the same for every client of a network, encoded once.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use dhcproto::v4::{DhcpOption, EncodeResult, OptionCode, UnknownOption};
use dhcproto::{Encodable, Name};
use ipnet::Ipv4Net;

use crate::config::ServerConfig;

/// What a client gets that does not say what it wants.
pub(crate) const UNASKED: [u8; 6] = [1, 28, 3, 6, 15, 26];

const IPV6_ONLY_PREFERRED: u8 = 108;
const CLASSLESS_ROUTES: u8 = 121;

/// Encoded options, code and length included, by code.
#[derive(Debug, Default)]
pub(crate) struct OptionTable(BTreeMap<u8, Vec<u8>>);

impl OptionTable {
    /// The options that `config` has values for.
    ///
    /// # Errors
    /// A value that no option can carry.
    pub(crate) fn new(config: &ServerConfig) -> EncodeResult<Self> {
        let mut table = Self::default();
        table.add(&DhcpOption::SubnetMask(config.subnet.netmask()))?;
        table.add(&DhcpOption::BroadcastAddr(config.subnet.broadcast()))?;
        table.add(&DhcpOption::InterfaceMtu(config.mtu))?;
        if !config.routers.is_empty() {
            table.add(&DhcpOption::Router(config.routers.clone()))?;
        }
        if !config.dns_servers.is_empty() {
            table.add(&DhcpOption::DomainNameServer(config.dns_servers.clone()))?;
        }
        if !config.ntp_servers.is_empty() {
            table.add(&DhcpOption::NtpServers(config.ntp_servers.clone()))?;
        }
        if let Some(domain) = &config.domain {
            table.add(&DhcpOption::DomainName(domain.to_string()))?;
        }
        let search: Vec<Name> =
            config.search.iter().filter_map(|name| Name::from_ascii(name.as_str()).ok()).collect();
        if !search.is_empty() {
            table.add(&DhcpOption::DomainSearch(search))?;
        }
        table.add_routes(config)?;
        if let Some(seconds) = config.ipv6_only_seconds {
            // The library has it as 106; RFC 8925 §3.1 says 108.
            let value = seconds.to_be_bytes().to_vec();
            let option = UnknownOption::new(OptionCode::from(IPV6_ONLY_PREFERRED), value);
            table.add(&DhcpOption::Unknown(option))?;
        }
        for (code, value) in config.options.iter() {
            let value = with_default_route(code, value, config.routers.first().copied());
            table.0.remove(&code);
            // Without a value it is not to be sent.
            if !value.is_empty() {
                table.0.insert(code, parts(code, &value));
            }
        }
        Ok(table)
    }

    /// The option with `code`, ready to be written.
    pub(crate) fn get(&self, code: u8) -> Option<&[u8]> {
        self.0.get(&code).map(Vec::as_slice)
    }

    fn add(&mut self, option: &DhcpOption) -> EncodeResult<()> {
        self.0.insert(OptionCode::from(option).into(), option.to_vec()?);
        Ok(())
    }

    fn add_routes(&mut self, config: &ServerConfig) -> EncodeResult<()> {
        if config.routes.is_empty() {
            return Ok(());
        }
        let mut routes: Vec<_> =
            config.routes.iter().map(|route| (route.destination.trunc(), route.router)).collect();
        // A client that takes these takes no router from option 3 (RFC 3442, "DHCP Client
        // Behavior"), so the default route is among them.
        if let Some(&router) = config.routers.first() {
            routes.push((Ipv4Net::default(), router));
        }
        self.add(&DhcpOption::ClasslessStaticRoute(routes))
    }
}

/// An option's bytes: as many options as it takes (RFC 3396 §5).
fn parts(code: u8, value: &[u8]) -> Vec<u8> {
    let part = |part: &[u8]| {
        let length = u8::try_from(part.len()).unwrap_or(u8::MAX);
        [&[code, length], part].concat()
    };
    value.chunks(255).flat_map(part).collect()
}

/// The routes of option 121 with a default one, which clients that take them look for there and
/// not in option 3 (RFC 3442, "DHCP Client Behavior"). Other options are as they are.
pub(crate) fn with_default_route(
    code: u8,
    value: &[u8],
    router: Option<Ipv4Addr>,
) -> Cow<'_, [u8]> {
    let Some(router) = router.filter(|_| code == CLASSLESS_ROUTES && !value.is_empty()) else {
        return Cow::Borrowed(value);
    };
    let mut rest = value;
    while let [bits, tail @ ..] = rest {
        if *bits == 0 {
            return Cow::Borrowed(value);
        }
        rest = tail.get(usize::from(*bits).div_ceil(8) + 4..).unwrap_or_default();
    }
    Cow::Owned([value, &[0], &router.octets()].concat())
}
