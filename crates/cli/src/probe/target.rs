//! What a guest is to connect to, to show that it reaches the outside.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;
use std::str::FromStr;

use vnet_api::model::Network;
use vnet_types::{DnsName, Mode};

/// The port of a name server, which answers over TCP as well (RFC 7766 §5).
const DNS_PORT: u16 = 53;

/// Where a host's own name servers are named. Where systemd-resolved stands in between, the first
/// file names only its stub, and the second one the servers behind it.
const RESOLV_CONF: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// `HOST:PORT`, in IPv4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    host: String,
    port: u16,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| format!("`{text}` names no port: write HOST:PORT, as in {text}:80"))?;
        let port = port.parse().ok().filter(|port| *port != 0);
        let port = port.ok_or_else(|| format!("`{text}` has no port from 1 to 65535"))?;
        if host.parse::<Ipv4Addr>().is_err() {
            host.parse::<DnsName>().map_err(|error| error.to_string())?;
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Target {
    /// Whether whoever answers there should answer HTTP, too.
    pub(crate) fn is_http(&self) -> bool {
        self.port == 80
    }

    /// A target that needs no configuration: a server that the network's names come from. None
    /// where that is this host itself, or where this host is offline; a host-only network is to
    /// be tried all the same.
    pub(crate) fn usual(network: &Network) -> Option<Self> {
        let definition = &network.definition;
        let read = |path: &&str| std::fs::read_to_string(Path::new(path)).ok();
        let files: Vec<String> = RESOLV_CONF.iter().filter_map(read).collect();
        let hosts = files.iter().flat_map(|text| servers_in(text));
        // What speaks TLS on another port has its own way; the probe asks for the address.
        let upstreams = definition.dns.upstreams.iter().map(|upstream| upstream.addr.ip());
        let mut servers = upstreams.chain(hosts).filter_map(outside);
        let address =
            servers.find(|address| definition.mode == Mode::Hostonly || has_route(*address))?;
        Some(Self { host: address.to_string(), port: DNS_PORT })
    }
}

/// Whether this host itself has a route to `address`: connecting a datagram socket looks for one
/// and sends nothing (udp(7)).
fn has_route(address: Ipv4Addr) -> bool {
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.connect((address, DNS_PORT)))
        .is_ok()
}

/// An address that a guest may connect to beyond this host.
fn outside(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) if !v4.is_loopback() && !v4.is_unspecified() => Some(v4),
        _ => None,
    }
}

/// The name servers in a `resolv.conf` (resolv.conf(5)).
fn servers_in(text: &str) -> impl Iterator<Item = IpAddr> {
    text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let address = (words.next() == Some("nameserver")).then(|| words.next())??;
        address.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_names_or_addresses_with_a_port() {
        for good in ["www.outside.test:80", "198.51.100.10:443"] {
            assert_eq!(good.parse::<Target>().unwrap().to_string(), good);
        }
        for bad in ["www.outside.test", "a:0", "a:x", ":80", "a b:80", "[::1]:80", "a:99999"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_hosts_own_stub_is_not_outside() {
        let text = "# made by hand\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 192.0.2.53\n";
        let servers = |text| servers_in(text).filter_map(outside).collect::<Vec<_>>();
        assert_eq!(servers(text), [Ipv4Addr::new(192, 0, 2, 53)]);
        assert!(servers("nameserver 127.0.0.53\nsearch lan\nnameserver\n").is_empty());
    }
}
