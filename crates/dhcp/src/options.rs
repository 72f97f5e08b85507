//! The options that are the same for every client of a network, encoded once.

use std::collections::BTreeMap;

use dhcproto::v4::{DhcpOption, EncodeResult, OptionCode, UnknownOption};
use dhcproto::{Encodable, Name};
use ipnet::Ipv4Net;

use crate::config::ServerConfig;

/// What a client gets that does not say what it wants.
pub(crate) const UNASKED: [u8; 6] = [1, 28, 3, 6, 15, 26];

const IPV6_ONLY_PREFERRED: u8 = 108;

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
        if let Some(boot) = &config.boot {
            table.add(&DhcpOption::TFTPServerName(boot.server.to_string().into_bytes()))?;
            table.add(&DhcpOption::TFTPServerAddress(boot.server))?;
            if !boot.file.is_empty() {
                table.add(&DhcpOption::BootfileName(boot.file.clone().into_bytes()))?;
            }
        }
        if let Some(seconds) = config.ipv6_only_seconds {
            // The library has it as 106; RFC 8925 §3.1 says 108.
            let value = seconds.to_be_bytes().to_vec();
            let option = UnknownOption::new(OptionCode::from(IPV6_ONLY_PREFERRED), value);
            table.add(&DhcpOption::Unknown(option))?;
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
