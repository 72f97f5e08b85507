//! What systemd-resolved has for one link: its DNS servers, its domains, and how it asks.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `AF_INET` and `AF_INET6`, as resolved writes them.
const INET: u64 = 2;

/// A DNS server, as in `203.0.113.53:5353#dns.example`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Its address.
    pub address: IpAddr,
    /// Its port; 0 for the usual one.
    pub port: u16,
    /// The name that its certificate is to have, or nothing.
    pub name: String,
}

/// A domain that is searched, or only led to the link's servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Domain {
    /// The domain; `.` is all names.
    pub name: String,
    /// Whether it only routes, and is not searched.
    pub route_only: bool,
}

/// The settings of one link (org.freedesktop.resolve1(5), "Link Object").
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolver {
    /// Who is asked, in this order.
    pub servers: Vec<Server>,
    /// About what, before others.
    pub domains: Vec<Domain>,
    /// Whether also about what no other link has a domain for.
    pub default_route: bool,
    /// `yes`, `no` or `resolve`.
    pub llmnr: String,
    /// The same three words.
    pub multicast_dns: String,
    /// `yes`, `no` or `opportunistic`.
    pub dns_over_tls: String,
    /// `yes`, `no` or `allow-downgrade`.
    pub dnssec: String,
    /// Domains in which signatures are not checked.
    pub negative_trust_anchors: Vec<String>,
}

/// One call that sets one of them: a method of `org.freedesktop.resolve1.Manager`, and what follows
/// the link's number among its arguments, in the words of busctl(1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The method.
    pub method: &'static str,
    /// The types of its arguments but the first.
    pub signature: &'static str,
    /// Those arguments.
    pub arguments: Vec<String>,
}

impl Resolver {
    /// From the answer to `GetAll` on the link's object, as busctl prints it with `--json`. None
    /// where it is another one.
    #[must_use]
    pub fn parse(answer: &str) -> Option<Self> {
        let answer: Value = serde_json::from_str(answer).ok()?;
        let of = |property: &str| answer.get("data")?.get(0)?.get(property)?.get("data");
        let text = |property| of(property).and_then(Value::as_str).map(str::to_owned);
        let list = |property| of(property).and_then(Value::as_array);
        Some(Self {
            servers: list("DNSEx")?.iter().map(server).collect::<Option<_>>()?,
            domains: list("Domains")?.iter().map(domain).collect::<Option<_>>()?,
            default_route: of("DefaultRoute")?.as_bool()?,
            llmnr: text("LLMNR")?,
            multicast_dns: text("MulticastDNS")?,
            dns_over_tls: text("DNSOverTLS")?,
            dnssec: text("DNSSEC")?,
            negative_trust_anchors: list("DNSSECNegativeTrustAnchors")?
                .iter()
                .map(|anchor| anchor.as_str().map(str::to_owned))
                .collect::<Option<_>>()?,
        })
    }

    /// Whether it says nothing about whom to ask.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.domains.is_empty()
    }

    /// What a bridge that had `self` is to have with an uplink that had `other` under it: both.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        if self.is_empty() {
            return other.clone();
        }
        let mut both = self.clone();
        let new = other.servers.iter().filter(|server| !self.servers.contains(server));
        both.servers.extend(new.cloned());
        let new = other.domains.iter().filter(|domain| !self.domains.contains(domain));
        both.domains.extend(new.cloned());
        both.default_route |= other.default_route;
        both
    }

    /// The calls that make a link which has `self` have `wanted`. What resolved derives from
    /// servers and domains is only looked at when those are right: to be asked again afterwards.
    #[must_use]
    pub fn calls_to(&self, wanted: &Self) -> Vec<Call> {
        let mut calls = Vec::new();
        if self.servers != wanted.servers {
            calls.push(call("SetLinkDNSEx", "a(iayqs)", servers(&wanted.servers)));
        }
        if self.domains != wanted.domains {
            calls.push(call("SetLinkDomains", "a(sb)", domains(&wanted.domains)));
        }
        if !calls.is_empty() {
            return calls;
        }
        if self.default_route != wanted.default_route {
            let value = vec![wanted.default_route.to_string()];
            calls.push(call("SetLinkDefaultRoute", "b", value));
        }
        for (method, now, wanted) in [
            ("SetLinkLLMNR", &self.llmnr, &wanted.llmnr),
            ("SetLinkMulticastDNS", &self.multicast_dns, &wanted.multicast_dns),
            ("SetLinkDNSOverTLS", &self.dns_over_tls, &wanted.dns_over_tls),
            ("SetLinkDNSSEC", &self.dnssec, &wanted.dnssec),
        ] {
            if now != wanted {
                calls.push(call(method, "s", vec![wanted.clone()]));
            }
        }
        if self.negative_trust_anchors != wanted.negative_trust_anchors {
            let mut arguments = vec![wanted.negative_trust_anchors.len().to_string()];
            arguments.extend(wanted.negative_trust_anchors.iter().cloned());
            calls.push(call("SetLinkDNSSECNegativeTrustAnchors", "as", arguments));
        }
        calls
    }
}

fn call(method: &'static str, signature: &'static str, arguments: Vec<String>) -> Call {
    Call { method, signature, arguments }
}

fn server(value: &Value) -> Option<Server> {
    let octets = value.get(1)?.as_array()?.iter();
    let octets: Vec<u8> =
        octets.map(|octet| u8::try_from(octet.as_u64()?).ok()).collect::<Option<_>>()?;
    let address = match value.get(0)?.as_u64()? {
        INET => IpAddr::from(<[u8; 4]>::try_from(octets).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(octets).ok()?),
    };
    Some(Server {
        address,
        port: value.get(2)?.as_u64()?.try_into().ok()?,
        name: value.get(3)?.as_str()?.to_owned(),
    })
}

fn domain(value: &Value) -> Option<Domain> {
    Some(Domain { name: value.get(0)?.as_str()?.to_owned(), route_only: value.get(1)?.as_bool()? })
}

fn servers(servers: &[Server]) -> Vec<String> {
    let mut arguments = vec![servers.len().to_string()];
    for Server { address, port, name } in servers {
        let (family, octets) = match address {
            IpAddr::V4(address) => ("2", address.octets().to_vec()),
            IpAddr::V6(address) => ("10", address.octets().to_vec()),
        };
        arguments.extend([family.to_owned(), octets.len().to_string()]);
        arguments.extend(octets.iter().map(u8::to_string));
        arguments.extend([port.to_string(), name.clone()]);
    }
    arguments
}

fn domains(domains: &[Domain]) -> Vec<String> {
    let mut arguments = vec![domains.len().to_string()];
    for Domain { name, route_only } in domains {
        arguments.extend([name.clone(), route_only.to_string()]);
    }
    arguments
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.port, self.address) {
            (0, address) => write!(f, "{address}")?,
            (port, IpAddr::V4(address)) => write!(f, "{address}:{port}")?,
            (port, IpAddr::V6(address)) => write!(f, "[{address}]:{port}")?,
        }
        if self.name.is_empty() { Ok(()) } else { write!(f, "#{}", self.name) }
    }
}

impl fmt::Display for Resolver {
    /// As resolvectl(1) takes them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DNS servers")?;
        if self.servers.is_empty() {
            f.write_str(" none")?;
        }
        self.servers.iter().try_for_each(|server| write!(f, " {server}"))?;
        if !self.domains.is_empty() {
            f.write_str(", domains")?;
        }
        self.domains.iter().try_for_each(|Domain { name, route_only }| {
            write!(f, " {}{name}", if *route_only { "~" } else { "" })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"{"type":"a{sv}","data":[{"ScopesMask":{"type":"t","data":3},
        "DNSEx":{"type":"a(iayqs)","data":[[2,[10,0,0,1],0,""],
            [10,[32,1,13,184,0,0,0,0,0,0,0,0,0,0,0,9],5353,"dns.example"]]},
        "Domains":{"type":"a(sb)","data":[["example.org",false],[".",true]]},
        "DefaultRoute":{"type":"b","data":true},"LLMNR":{"type":"s","data":"resolve"},
        "MulticastDNS":{"type":"s","data":"no"},"DNSOverTLS":{"type":"s","data":"opportunistic"},
        "DNSSEC":{"type":"s","data":"no"},
        "DNSSECNegativeTrustAnchors":{"type":"as","data":["lan"]},
        "DNSSECSupported":{"type":"b","data":false}}]}"#;

    fn bare() -> Resolver {
        Resolver {
            llmnr: "yes".into(),
            multicast_dns: "no".into(),
            dns_over_tls: "no".into(),
            dnssec: "no".into(),
            ..Resolver::default()
        }
    }

    fn lines(calls: &[Call]) -> Vec<String> {
        let line = |call: &Call| {
            format!("{} {} {}", call.method, call.signature, call.arguments.join(" "))
        };
        calls.iter().map(line).collect()
    }

    #[test]
    fn an_answer_is_read_and_said_in_resolvectls_words() {
        let resolver = Resolver::parse(ANSWER).unwrap();
        let text = "DNS servers 10.0.0.1 [2001:db8::9]:5353#dns.example, domains example.org ~.";
        assert_eq!(resolver.to_string(), text);
        assert_eq!(bare().to_string(), "DNS servers none");
        assert_eq!(Resolver::parse("{}"), None);
        assert_eq!(Resolver::parse(&ANSWER.replace("[10,0,0,1]", "[10,0,0]")), None);
    }

    #[test]
    fn servers_and_domains_are_set_before_what_follows_from_them() {
        let wanted = Resolver::parse(ANSWER).unwrap();
        assert_eq!(
            lines(&bare().calls_to(&wanted)),
            [
                "SetLinkDNSEx a(iayqs) 2 2 4 10 0 0 1 0  10 16 32 1 13 184 0 0 0 0 0 0 0 0 0 0 0 9 \
                 5353 dns.example",
                "SetLinkDomains a(sb) 2 example.org false . true",
            ]
        );
        let halfway =
            Resolver { servers: wanted.servers.clone(), domains: wanted.domains.clone(), ..bare() };
        assert_eq!(
            lines(&halfway.calls_to(&wanted)),
            [
                "SetLinkDefaultRoute b true",
                "SetLinkLLMNR s resolve",
                "SetLinkDNSOverTLS s opportunistic",
                "SetLinkDNSSECNegativeTrustAnchors as 1 lan",
            ]
        );
        assert_eq!(wanted.calls_to(&wanted), []);
    }

    #[test]
    fn a_bridge_that_has_servers_keeps_them_beside_the_uplinks() {
        let uplink = Resolver::parse(ANSWER).unwrap();
        assert_eq!(bare().with(&uplink), uplink);
        let mut own = bare();
        own.servers.push(Server { address: [10, 0, 0, 7].into(), port: 0, name: String::new() });
        own.servers.push(uplink.servers[0].clone());
        let both = own.with(&uplink);
        let text = "DNS servers 10.0.0.7 10.0.0.1 [2001:db8::9]:5353#dns.example, domains \
                    example.org ~.";
        assert_eq!(both.to_string(), text);
        assert!(both.default_route);
        assert_eq!(both.llmnr, "yes");
    }
}
