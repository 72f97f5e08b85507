//! How a network's names are resolved: records that are not guests, and whom to ask for the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{DnsName, RecordName};

/// The port of DNS (RFC 1035 §4.2).
const DNS_PORT: u16 = 53;
/// The port of DNS over TLS (RFC 7858 §3.1).
const TLS_PORT: u16 = 853;
/// Bytes in the longest text that fits an answer with some room to spare.
const MAX_TEXT: usize = 4096;

/// How a network's names are resolved.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// Servers asked for everything outside the network's domain; the host's own where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<Upstream>,
    /// Domains for which other servers are asked: `domain = [servers]`. A domain with none is
    /// asked of nobody: nothing is in it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, Vec<String>>))]
    pub split: BTreeMap<DnsName, Vec<Upstream>>,
    /// Whether answers from outside with private addresses are refused, so that a web page from
    /// outside cannot reach what is inside under its own name (DNS rebinding).
    #[serde(default, skip_serializing_if = "is_no")]
    pub rebind_protection: bool,
    /// Domains whose names may have private addresses nevertheless; those of `split` may, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rebind_allowed: Vec<DnsName>,
    /// Names that are not guests: `name = [addresses]`, within the network's domain.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, Vec<String>>))]
    pub hosts: BTreeMap<DnsName, Vec<IpAddr>>,
    /// Aliases: `name = target`, both within the network's domain.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub cname: BTreeMap<RecordName, DnsName>,
    /// Texts: `name = [texts]`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, Vec<String>>))]
    pub txt: BTreeMap<RecordName, Vec<String>>,
    /// Mail exchangers: `name = [{ preference, target }]`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, Vec<Mx>>))]
    pub mx: BTreeMap<RecordName, Vec<Mx>>,
    /// Services: `_service._protocol = [{ priority, weight, port, target }]`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, Vec<Srv>>))]
    pub srv: BTreeMap<RecordName, Vec<Srv>>,
}

/// A mail exchanger (RFC 1035 §3.3.9).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Mx {
    /// The lowest one is tried first.
    #[serde(default)]
    pub preference: u16,
    /// The host: without a dot one of the network's domain, else a full name.
    pub target: DnsName,
}

/// Where a service is (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Srv {
    /// The lowest one is tried first.
    #[serde(default)]
    pub priority: u16,
    /// The share among those of the same priority.
    #[serde(default)]
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// The host: without a dot one of the network's domain, else a full name.
    pub target: DnsName,
}

/// A server to ask: `ADDR`, `ADDR:PORT`, `[ADDR6]:PORT`; over TLS (RFC 7858) `tls://ADDR` or
/// `tls://ADDR:PORT`, with `#NAME` if it is to prove that name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Upstream {
    /// Where it listens.
    pub addr: SocketAddr,
    /// How it is spoken to.
    pub transport: UpstreamTransport,
}

/// How a server is spoken to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UpstreamTransport {
    /// UDP, and TCP where an answer does not fit.
    Plain,
    /// TLS without proof of who it is, or plain at port 53 where there is no TLS: the
    /// opportunistic profile (RFC 8310 §5).
    Opportunistic,
    /// TLS with a certificate for this name, or not at all: the strict profile (RFC 8310 §5).
    Strict(DnsName),
}

/// A text is no server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no server: use ADDR, ADDR:PORT or [ADDR6]:PORT; for TLS, tls://ADDR, with #NAME for \
     the name that it is to prove"
)]
pub struct UpstreamError(String);

impl Upstream {
    /// The server at this address, port 53, without encryption.
    #[must_use]
    pub fn plain(addr: IpAddr) -> Self {
        Self { addr: SocketAddr::new(addr, DNS_PORT), transport: UpstreamTransport::Plain }
    }

    fn default_port(&self) -> u16 {
        if self.transport == UpstreamTransport::Plain { DNS_PORT } else { TLS_PORT }
    }
}

impl FromStr for Upstream {
    type Err = UpstreamError;

    fn from_str(text: &str) -> Result<Self, UpstreamError> {
        let read = || {
            let (rest, tls) = match text.strip_prefix("tls://") {
                Some(rest) => (rest, true),
                None => (text, false),
            };
            let (place, name) = match rest.split_once('#') {
                Some((place, name)) => (place, Some(name.parse().ok()?)),
                None => (rest, None),
            };
            let transport = match (tls, name) {
                (false, None) => UpstreamTransport::Plain,
                (false, Some(_)) => return None,
                (true, None) => UpstreamTransport::Opportunistic,
                (true, Some(name)) => UpstreamTransport::Strict(name),
            };
            let bare = place.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let port = if tls { TLS_PORT } else { DNS_PORT };
            let addr = match bare.unwrap_or(place).parse::<IpAddr>() {
                Ok(addr) => SocketAddr::new(addr, port),
                Err(_) => place.parse().ok()?,
            };
            let ip = addr.ip();
            let sensible = addr.port() != 0 && !ip.is_unspecified() && !ip.is_multicast();
            sensible.then_some(Self { addr, transport })
        };
        read().ok_or_else(|| UpstreamError(text.to_owned()))
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.transport != UpstreamTransport::Plain {
            f.write_str("tls://")?;
        }
        if self.addr.port() == self.default_port() {
            write!(f, "{}", self.addr.ip())?;
        } else {
            write!(f, "{}", self.addr)?;
        }
        match &self.transport {
            UpstreamTransport::Strict(name) => write!(f, "#{name}"),
            _ => Ok(()),
        }
    }
}

impl TryFrom<String> for Upstream {
    type Error = UpstreamError;

    fn try_from(text: String) -> Result<Self, UpstreamError> {
        text.parse()
    }
}

impl From<Upstream> for String {
    fn from(upstream: Upstream) -> Self {
        upstream.to_string()
    }
}

/// Why the names of a definition contradict each other, though each is well formed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// An alias with other records beside it.
    #[error(
        "`{0}` is an alias and has other records as well, which no name can have both of \
         (RFC 1034 §3.6.2): keep one of the two"
    )]
    AliasAndMore(RecordName),
    /// An alias in place of the domain itself.
    #[error("the domain itself cannot be an alias: it has records of its own")]
    AliasOfDomain,
    /// An alias for a name of somebody else.
    #[error(
        "the alias `{name}` leads to {target}, which is not in {domain}: name a host of this \
         network, or give `{name}` the addresses under dns.hosts"
    )]
    AliasOutside {
        /// As defined.
        name: RecordName,
        /// As defined.
        target: DnsName,
        /// The network's.
        domain: DnsName,
    },
    /// Aliases in a circle.
    #[error("the alias `{0}` leads back to itself: let one of the aliases on its way name a host")]
    AliasLoop(RecordName),
    /// A text that no answer can hold.
    #[error("a text of `{name}` has {len} bytes: {MAX_TEXT} is the most")]
    LongText {
        /// As defined.
        name: RecordName,
        /// Its bytes.
        len: usize,
    },
    /// A name without a record.
    #[error("`{0}` has no records: give it some, or leave it out")]
    Empty(RecordName),
    /// A rule for the network's own domain.
    #[error("{0} is the network's own domain, which it answers by itself: leave the rule out")]
    SplitOwn(DnsName),
}

impl DnsError {
    /// The table and the key that it is about; the table is empty where it may be any.
    #[must_use]
    pub fn place(&self) -> (&'static str, &str) {
        match self {
            Self::AliasAndMore(name) | Self::AliasLoop(name) => ("cname", name.as_str()),
            Self::AliasOutside { name, .. } => ("cname", name.as_str()),
            Self::AliasOfDomain => ("cname", RecordName::DOMAIN),
            Self::LongText { name, .. } => ("txt", name.as_str()),
            Self::Empty(name) => ("", name.as_str()),
            Self::SplitOwn(name) => ("split", name.as_str()),
        }
    }
}

impl Dns {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Checks that the parts fit each other and the network's domain.
    ///
    /// # Errors
    /// The first contradiction found.
    pub(crate) fn validate(&self, domain: &DnsName) -> Result<(), DnsError> {
        let full = |name: &str| in_domain(name, domain);
        if let Some(own) =
            self.split.keys().find(|name| name.as_str().eq_ignore_ascii_case(domain.as_str()))
        {
            return Err(DnsError::SplitOwn(own.clone()));
        }
        let aliases: BTreeMap<String, (&RecordName, String)> = self
            .cname
            .iter()
            .map(|(name, target)| {
                let target = if target.as_str().contains('.') {
                    target.as_str().to_ascii_lowercase()
                } else {
                    full(target.as_str())
                };
                (full(name.as_str()), (name, target))
            })
            .collect();
        let texts = self.txt.iter().map(|(name, all)| (name, all.is_empty()));
        let exchangers = self.mx.iter().map(|(name, all)| (name, all.is_empty()));
        let services = self.srv.iter().map(|(name, all)| (name, all.is_empty()));
        for (name, is_empty) in texts.chain(exchangers).chain(services) {
            if is_empty {
                return Err(DnsError::Empty(name.clone()));
            }
            if let Some((alias, _)) = aliases.get(&full(name.as_str())) {
                return Err(DnsError::AliasAndMore((*alias).clone()));
            }
        }
        for name in self.hosts.keys() {
            if let Some((alias, _)) = aliases.get(&full(name.as_str())) {
                return Err(DnsError::AliasAndMore((*alias).clone()));
            }
        }
        for (name, texts) in &self.txt {
            if let Some(text) = texts.iter().find(|text| text.len() > MAX_TEXT) {
                return Err(DnsError::LongText { name: name.clone(), len: text.len() });
            }
        }
        let suffix = format!(".{}", domain.as_str().to_ascii_lowercase());
        for (owner, (name, target)) in &aliases {
            if owner.as_str() == full(RecordName::DOMAIN) {
                return Err(DnsError::AliasOfDomain);
            }
            if !target.ends_with(&suffix) {
                let (name, target) = ((*name).clone(), self.cname.get(*name).cloned());
                let target = target.unwrap_or_else(|| domain.clone());
                return Err(DnsError::AliasOutside { name, target, domain: domain.clone() });
            }
            let mut seen = BTreeSet::from([owner]);
            let mut next = target;
            while let Some((_, target)) = aliases.get(next) {
                if !seen.insert(next) {
                    return Err(DnsError::AliasLoop((*name).clone()));
                }
                next = target;
            }
        }
        Ok(())
    }
}

/// The full name, in lower case, of one that is relative to the domain unless it ends in it.
fn in_domain(name: &str, domain: &DnsName) -> String {
    let (name, domain) = (name.to_ascii_lowercase(), domain.as_str().to_ascii_lowercase());
    if name == RecordName::DOMAIN {
        domain
    } else if name.strip_suffix(&domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')) {
        name
    } else {
        format!("{name}.{domain}")
    }
}

fn is_no(value: &bool) -> bool {
    !*value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_and_written_alike() {
        for text in [
            "192.0.2.53",
            "192.0.2.53:5353",
            "2001:db8::53",
            "[2001:db8::53]:5353",
            "tls://192.0.2.53",
            "tls://192.0.2.53#dns.example",
            "tls://192.0.2.53:8853#dns.example",
            "tls://[2001:db8::53]:8853",
        ] {
            assert_eq!(text.parse::<Upstream>().unwrap().to_string(), text);
        }
        let bracketed: Upstream = "tls://[2001:db8::53]".parse().unwrap();
        assert_eq!(bracketed.addr.port(), 853);
        for bad in [
            "",
            "dns.example",
            "192.0.2.53#dns.example",
            "192.0.2.53:0",
            "0.0.0.0",
            "tls://",
            "tls://192.0.2.53#",
            "udp://192.0.2.53",
            "224.0.0.1",
        ] {
            let error = bad.parse::<Upstream>().unwrap_err().to_string();
            assert!(error.contains("ADDR:PORT"), "{error}");
        }
    }

    #[test]
    fn records_that_contradict_each_other_are_refused_by_name() {
        let wrong = |text: &str| {
            let dns: Dns = toml::from_str(text).unwrap();
            let result = dns.validate(&"lab.vnet".parse().unwrap());
            result.map_or_else(|error| error.to_string(), |()| String::new())
        };
        assert_eq!(
            wrong("[cname]\nwww = \"web\"\nftp = \"www.lab.vnet\"\n[hosts]\nweb = []\n"),
            ""
        );
        for (text, words) in [
            ("[cname]\nwww = \"web\"\n[hosts]\nWWW = [\"10.0.0.2\"]\n", "`www` is an alias"),
            ("[cname]\nwww = \"web\"\n[txt]\n\"www.lab.vnet\" = [\"x\"]\n", "`www` is an alias"),
            ("[cname]\n\"@\" = \"web\"\n", "the domain itself"),
            ("[cname]\nwww = \"www.example.com\"\n", "which is not in lab.vnet"),
            ("[cname]\na = \"b\"\nb = \"c\"\nc = \"b\"\n", "leads back to itself"),
            ("[cname]\na = \"a\"\n", "leads back to itself"),
            ("[mx]\n\"@\" = []\n", "`@` has no records"),
            ("[split]\n\"LAB.vnet\" = []\n", "own domain"),
        ] {
            let found = wrong(text);
            assert!(found.contains(words), "{text}: {found}");
        }
        let long = format!("[txt]\nx = [\"{}\"]\n", "a".repeat(5000));
        assert!(wrong(&long).contains("5000 bytes"));
    }
}
