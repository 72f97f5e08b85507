//! What the services have done, as text that Prometheus reads (its exposition format, version
//! 0.0.4).

use std::fmt::{Display, Write};

use vnet_dns::{Counters, LATENCY_BOUNDS, QUERY_TYPES, RESPONSE_CODES};
use vnet_types::NetworkName;

use crate::daemon::Shared;

/// The content type of [`Shared::metrics`].
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Shared {
    /// What the services of all networks have done since they were started.
    pub(crate) async fn metrics(&self) -> String {
        let daemon = self.daemon.lock().await;
        let dns: Vec<_> =
            daemon.running.iter().map(|(name, one)| (name.clone(), one.dns_counters())).collect();
        let leases: Vec<_> =
            daemon.running.iter().map(|(name, one)| (name.clone(), one.bound())).collect();
        drop(daemon);
        let mut text = Text::default();
        text.family("vnet_leases", "gauge", "Addresses that guests have by DHCP or DHCPv6.");
        for (network, bound) in leases {
            text.line("vnet_leases", &network, "", bound);
        }
        text.dns(&dns);
        text.0
    }
}

/// The values of a family, each with what tells it apart.
type Values = Vec<(&'static str, u64)>;

/// A family's name, its help, and the label that tells its values apart.
type Description = (&'static str, &'static str, &'static str);

/// A family, and where its values are.
type Family = (Description, fn(&Counters) -> Values);

/// The text as far as it is written. Writing to a string cannot fail.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One value; `labels` are more than the network's, each with a comma before it. The name of
    /// a network has no character that would have to be escaped.
    fn line(&mut self, name: &str, network: &NetworkName, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "{name}{{network=\"{network}\"{labels}}} {value}");
    }

    /// A family of counters that is told apart by one label.
    fn counters(
        &mut self,
        (name, help, label): Description,
        networks: &[(NetworkName, Counters)],
        values: impl Fn(&Counters) -> Values,
    ) {
        self.family(name, "counter", help);
        for (network, counters) in networks {
            for (which, value) in values(counters) {
                let labels =
                    if label.is_empty() { String::new() } else { format!(",{label}=\"{which}\"") };
                self.line(name, network, &labels, value);
            }
        }
    }

    fn dns(&mut self, networks: &[(NetworkName, Counters)]) {
        let families: [Family; 6] = [
            (("vnet_dns_queries_total", "DNS queries by transport.", "transport"), |c| {
                vec![("udp", c.queries.saturating_sub(c.tcp)), ("tcp", c.tcp)]
            }),
            (("vnet_dns_query_types_total", "DNS queries by type.", "type"), |c| {
                QUERY_TYPES.into_iter().zip(c.types).collect()
            }),
            (("vnet_dns_responses_total", "DNS responses by code.", "rcode"), |c| {
                RESPONSE_CODES.into_iter().zip(c.codes).collect()
            }),
            (("vnet_dns_answers_total", "DNS answers by where they are from.", "source"), |c| {
                vec![
                    ("zone", c.local),
                    ("cache", c.cache_hits),
                    ("stale", c.stale),
                    ("upstream", c.forwarded),
                ]
            }),
            (("vnet_dns_refused_total", "DNS queries refused, by reason.", "reason"), |c| {
                vec![("rebinding", c.blocked), ("overload", c.overloads)]
            }),
            (("vnet_dns_connections_total", "TCP connections for DNS.", "event"), |c| {
                vec![("accepted", c.connections), ("evicted", c.evicted)]
            }),
        ];
        for (family, values) in families {
            self.counters(family, networks, values);
        }
        self.family("vnet_dns_cache_bytes", "gauge", "Memory of cached DNS answers.");
        for (network, counters) in networks {
            self.line("vnet_dns_cache_bytes", network, "", counters.cache_bytes);
        }
        self.family("vnet_dns_cache_entries", "gauge", "Cached DNS answers.");
        for (network, counters) in networks {
            self.line("vnet_dns_cache_entries", network, "", counters.cache_entries);
        }
        let name = "vnet_dns_response_seconds";
        self.family(name, "histogram", "Time from a DNS query to its answer.");
        for (network, counters) in networks {
            let mut sum = 0;
            for (bound, count) in LATENCY_BOUNDS.iter().zip(counters.latency) {
                sum += count;
                let labels = format!(",le=\"{}\"", *bound as f64 / 1e6);
                self.line(&format!("{name}_bucket"), network, &labels, sum);
            }
            let all: u64 = counters.latency.iter().sum();
            self.line(&format!("{name}_bucket"), network, ",le=\"+Inf\"", all);
            let seconds = counters.latency_sum as f64 / 1e6;
            self.line(&format!("{name}_sum"), network, "", seconds);
            self.line(&format!("{name}_count"), network, "", all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up_and_families_are_described_once() {
        let mut counters = Counters { queries: 5, tcp: 2, ..Counters::default() };
        counters.latency[0] = 3;
        counters.latency[1] = 1;
        counters.latency[12] = 1;
        counters.latency_sum = 3_000_150;
        let (a, b): (NetworkName, NetworkName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let mut text = Text::default();
        text.dns(&[(a, counters), (b, Counters::default())]);
        for line in [
            "vnet_dns_queries_total{network=\"a\",transport=\"udp\"} 3",
            "vnet_dns_response_seconds_bucket{network=\"a\",le=\"0.00005\"} 3",
            "vnet_dns_response_seconds_bucket{network=\"a\",le=\"0.0001\"} 4",
            "vnet_dns_response_seconds_bucket{network=\"a\",le=\"2.5\"} 4",
            "vnet_dns_response_seconds_bucket{network=\"a\",le=\"+Inf\"} 5",
            "vnet_dns_response_seconds_sum{network=\"a\"} 3.00015",
            "vnet_dns_response_seconds_count{network=\"b\"} 0",
        ] {
            assert!(text.0.lines().any(|found| found == line), "{line} is not in\n{}", text.0);
        }
        assert_eq!(text.0.matches("# TYPE vnet_dns_queries_total counter").count(), 1);
    }
}
