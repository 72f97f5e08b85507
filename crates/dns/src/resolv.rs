//! `resolv.conf` as text (resolv.conf(5)): pure.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// The port of a name server.
pub const DNS_PORT: u16 = 53;

/// What a `resolv.conf` says that concerns a forwarder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResolvConf {
    /// The name servers in their order, each once. More than libc's three are kept.
    pub nameservers: Vec<Nameserver>,
    /// The search list: the last `search` or `domain` line counts.
    pub search: Vec<String>,
}

/// The address of a name server, with the zone of a link-local one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nameserver {
    /// The address.
    pub addr: IpAddr,
    /// What stood behind `%`: an interface's name or its index.
    pub scope: Option<String>,
}

impl ResolvConf {
    /// Reads the text of a `resolv.conf`. Lines that make no sense are skipped, as libc does.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            // A keyword starts its line; `#` and `;` in the first column are comments.
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    if let Some(server) = words.next().and_then(Nameserver::parse)
                        && !found.nameservers.contains(&server)
                    {
                        found.nameservers.push(server);
                    }
                }
                Some("search") => {
                    found.search =
                        words.take_while(|word| !word.starts_with(['#', ';'])).map(trim).collect();
                }
                Some("domain") => found.search = words.take(1).map(trim).collect(),
                _ => {}
            }
        }
        found
    }

    /// Whether the servers are systemd-resolved's own stubs, 127.0.0.53 or 127.0.0.54: the file
    /// then says nothing about the servers behind them.
    #[must_use]
    pub fn is_resolved_stub(&self) -> bool {
        !self.nameservers.is_empty()
            && self.nameservers.iter().all(|server| {
                matches!(server.addr, IpAddr::V4(v4) if matches!(v4.octets(), [127, 0, 0, 53 | 54]))
            })
    }
}

fn trim(word: &str) -> String {
    word.trim_end_matches('.').to_owned()
}

impl Nameserver {
    fn parse(text: &str) -> Option<Self> {
        let (addr, scope) = match text.split_once('%') {
            Some((addr, scope)) => (addr, Some(scope).filter(|scope| !scope.is_empty())),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().ok()?;
        // 0.0.0.0 and :: mean this host for connect(2) and for libc: say so.
        let addr = match addr {
            IpAddr::V4(v4) if v4.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            addr => addr,
        };
        Some(Self { addr, scope: scope.filter(|_| addr.is_ipv6()).map(str::to_owned) })
    }

    /// The socket address to ask it at. `index` finds an interface's index by its name; a server
    /// whose interface is not there is none.
    pub fn socket_addr(&self, index: impl Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
        match (self.addr, &self.scope) {
            (IpAddr::V6(v6), Some(scope)) => {
                let index = scope.parse().ok().or_else(|| index(scope))?;
                Some(SocketAddrV6::new(v6, DNS_PORT, 0, index).into())
            }
            (addr, _) => Some(SocketAddr::new(addr, DNS_PORT)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_keep_their_order_and_their_scope() {
        let conf = ResolvConf::parse(
            "# made by hand\nsearch a.example. b.example # why\n\
             nameserver 192.0.2.1\nnameserver\tfe80::1%eth0\n;nameserver 192.0.2.9\n\
             nameserver 192.0.2.1\nnameserver junk\nnameserver\noptions edns0\n",
        );
        let addrs: Vec<_> =
            conf.nameservers.iter().map(|s| s.socket_addr(|_| Some(7)).unwrap()).collect();
        assert_eq!(addrs, ["192.0.2.1:53".parse().unwrap(), "[fe80::1%7]:53".parse().unwrap()]);
        assert_eq!(conf.search, ["a.example", "b.example"]);
        assert!(conf.nameservers[1].socket_addr(|_| None).is_none());
    }

    #[test]
    fn resolveds_stub_is_recognised() {
        assert!(ResolvConf::parse("nameserver 127.0.0.53\n").is_resolved_stub());
        assert!(!ResolvConf::parse("nameserver 127.0.0.1\n").is_resolved_stub());
        assert!(
            !ResolvConf::parse("nameserver 127.0.0.53\nnameserver 1.1.1.1\n").is_resolved_stub()
        );
        assert!(!ResolvConf::parse("").is_resolved_stub());
    }

    #[test]
    fn the_last_of_search_and_domain_counts() {
        assert_eq!(ResolvConf::parse("search a b\ndomain c\n").search, ["c"]);
        assert_eq!(ResolvConf::parse("domain c\nsearch a b\n").search, ["a", "b"]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_can_be_read(text in ".*") {
            for server in ResolvConf::parse(&text).nameservers {
                let _ = server.socket_addr(|_| None);
            }
        }
    }
}
