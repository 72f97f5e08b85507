//! What a client was given, read off the environment of its hook.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};

/// What a client was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientLease {
    /// The address (`yiaddr`).
    pub address: Ipv4Addr,
    /// The length of the subnet's prefix (option 1).
    pub prefix: u8,
    /// The first router (option 3).
    pub router: Option<Ipv4Addr>,
    /// The name servers (option 6).
    pub dns: Vec<Ipv4Addr>,
    /// The lease time in seconds (option 51).
    pub lease_seconds: u32,
    /// The server's identifier (option 54).
    pub server: Option<Ipv4Addr>,
    /// The domain (option 15).
    pub domain: Option<String>,
    /// The host name that the server gave (option 12).
    pub hostname: Option<String>,
    /// The MTU (option 26).
    pub mtu: Option<u32>,
    /// Domains in which short names are looked for.
    pub search: Vec<String>,
}

/// The lease in a hook's environment, where the event is that there is one.
pub(crate) fn lease_of(event: &BTreeMap<String, String>) -> Result<Option<ClientLease>> {
    const LEASED: [&str; 8] =
        ["bound", "renew", "BOUND", "RENEW", "REBIND", "REBOOT", "INFORM", "REPLY"];
    if !event.get("event").is_some_and(|name| LEASED.contains(&name.as_str())) {
        return Ok(None);
    }
    // dhclient and dhcpcd share their names; udhcpc has its own.
    let text = |udhcpc: &str, isc: &str| {
        let found = event.get(&format!("new_{isc}")).or_else(|| event.get(udhcpc));
        found.map(|value| value.trim()).filter(|value| !value.is_empty())
    };
    let list = |udhcpc: &str, isc: &str| -> Result<Vec<Ipv4Addr>> {
        let words = text(udhcpc, isc).unwrap_or_default().split_whitespace();
        words.map(|word| word.parse().with_context(|| format!("{isc} {word:?}"))).collect()
    };
    let one = |udhcpc, isc| Ok::<_, anyhow::Error>(list(udhcpc, isc)?.into_iter().next());
    let mask = one("subnet", "subnet_mask")?.context("a lease without a subnet mask")?;
    let prefix = mask.to_bits().leading_ones();
    ensure!(prefix == mask.to_bits().count_ones(), "{mask} is no subnet mask");
    Ok(Some(ClientLease {
        address: one("ip", "ip_address")?.context("a lease without an address")?,
        prefix: u8::try_from(prefix)?,
        router: one("router", "routers")?,
        dns: list("dns", "domain_name_servers")?,
        lease_seconds: text("lease", "dhcp_lease_time").context("no lease time")?.parse()?,
        server: one("serverid", "dhcp_server_identifier")?,
        domain: text("domain", "domain_name").map(str::to_owned),
        hostname: text("hostname", "host_name").map(str::to_owned),
        mtu: text("mtu", "interface_mtu").map(str::parse).transpose()?,
        search: text("search", "domain_search")
            .unwrap_or_default()
            .split_whitespace()
            .map(|name| name.trim_end_matches('.').to_owned())
            .collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn the_environment_of_udhcpc_is_understood() {
        let bound = event(&[
            ("event", "bound"),
            ("ip", "192.168.122.7"),
            ("subnet", "255.255.255.0"),
            ("router", "192.168.122.1"),
            ("dns", "192.168.122.1 9.9.9.9"),
            ("lease", "3600"),
            ("serverid", "192.168.122.1"),
            ("mtu", "1400"),
        ]);
        let lease = lease_of(&bound).unwrap().unwrap();
        assert_eq!((lease.prefix, lease.mtu, lease.dns.len()), (24, Some(1400), 2));
        assert_eq!(lease_of(&event(&[("event", "deconfig")])).unwrap(), None);
    }

    #[test]
    fn a_lease_without_a_mask_is_an_error() {
        assert!(lease_of(&event(&[("event", "BOUND"), ("new_ip_address", "10.0.0.1")])).is_err());
    }
}
