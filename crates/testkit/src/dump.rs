//! The whole network state of a host, for comparison before and after.
//!
//! A dump is one line per fact, in sections: links, addresses, routes of every table, rules,
//! permanent neighbours, queues, settings, and the firewall. What changes by itself is left out: interface
//! and namespace indices, counters, timers, and how much of a lifetime is left. Two dumps of an
//! untouched host are equal.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::Netns;

/// Fields of `ip -j -d` that are no state: the kernel numbers, counts and ages there.
const VOLATILE: [&str; 7] =
    ["ifindex", "link_index", "link_netnsid", "expires", "fdb_n_learned", "tentative", "used"];

/// Queues that links have by themselves.
const USUAL_QUEUES: [&str; 6] = ["noqueue", "pfifo_fast", "fq_codel", "fq", "mq", "pfifo"];

/// Folders of settings that are dumped whole, and single settings.
const SYSCTLS: [&str; 6] = [
    "net/ipv4/conf",
    "net/ipv4/neigh",
    "net/ipv6/conf",
    "net/ipv6/neigh",
    "net/ipv4/ip_forward",
    "net/bridge",
];

/// The network state of a namespace at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostState {
    /// The facts of each section, in order.
    sections: BTreeMap<&'static str, Vec<String>>,
}

impl HostState {
    /// Dumps the namespace.
    ///
    /// # Panics
    /// `ip` or `nft` fails.
    #[must_use]
    pub fn of(ns: &Netns) -> Self {
        let mut sections = BTreeMap::new();
        sections.insert("link", links(&ns.json("link show")));
        sections.insert("address", addresses(&ns.json("addr show")));
        for (section, line) in [
            ("route, IPv4", "-4 route show table all"),
            ("route, IPv6", "-6 route show table all"),
            ("rule, IPv4", "-4 rule show"),
            ("rule, IPv6", "-6 rule show"),
            ("neighbour", "neigh show nud permanent"),
            ("neighbour proxy", "neigh show proxy"),
        ] {
            sections.insert(section, facts(&ns.json(line)));
        }
        sections.insert("queue", queues(ns));
        sections.insert("sysctl", ns.enter(sysctls));
        // As text: nft's JSON leaves out comments on tables. `-s`: without counters.
        sections.insert("nft", ruleset(&ns.run(["nft", "-s", "list", "ruleset"])));
        Self { sections }
    }

    /// The facts that only one of the two states has, one a line, `-` for this one and `+` for
    /// `after`, or nothing where they are equal.
    #[must_use]
    pub fn difference(&self, after: &Self) -> String {
        let mut text = String::new();
        for (section, was) in &self.sections {
            let is = after.sections.get(section).map_or(&[][..], Vec::as_slice);
            for (sign, here, there) in [('-', was.as_slice(), is), ('+', is, was.as_slice())] {
                for fact in surplus(here, there) {
                    let _ = writeln!(text, "{sign} {section}: {fact}");
                }
            }
            if was != is && surplus(was, is).is_empty() && surplus(is, was).is_empty() {
                let _ = writeln!(text, "! {section}: the same facts in another order");
            }
        }
        text
    }

    /// Asserts that nothing differs.
    ///
    /// # Panics
    /// Something does; the message has every difference.
    #[track_caller]
    pub fn assert_same(&self, after: &Self) {
        let difference = self.difference(after);
        assert!(
            difference.is_empty(),
            "the host is not as it was (- before, + after):\n{difference}"
        );
    }

    /// The lines of one section whose text contains `text`: for assertions on what is there.
    #[must_use]
    pub fn lines_with(&self, text: &str) -> Vec<String> {
        self.sections
            .iter()
            .flat_map(|(section, facts)| facts.iter().map(move |fact| format!("{section}: {fact}")))
            .filter(|line| line.contains(text))
            .collect()
    }
}

/// The queues that somebody has set, with their rates and filters. A link's usual one is none.
fn queues(ns: &Netns) -> Vec<String> {
    let tc = |line: &str| -> Value {
        let text = ns.run(["tc", "-j"].into_iter().chain(line.split(' ')));
        serde_json::from_str(text.trim()).unwrap_or_default()
    };
    let mut lines = Vec::new();
    for queue in tc("qdisc show").as_array().into_iter().flatten() {
        let (link, kind) = (queue["dev"].as_str().unwrap_or("?"), queue["kind"].as_str());
        let Some(kind) = kind.filter(|kind| !USUAL_QUEUES.contains(kind)) else { continue };
        lines.push(format!("{link} kind={kind} {}", words(&queue["options"]).join(" ")));
        if kind == "ingress" {
            let filters = tc(&format!("filter show dev {link} ingress"));
            for filter in filters.as_array().into_iter().flatten() {
                let mut filter = words(filter);
                // The kernel numbers filters and actions, and counts who uses them.
                filter.retain(|word| {
                    let key = word.split('=').next().and_then(|key| key.rsplit('.').next());
                    !["fh", "handle", "index", "ref", "bind"].contains(&key.unwrap_or_default())
                });
                lines.push(format!("{link} filter {}", filter.join(" ")));
            }
        }
    }
    lines.sort();
    lines
}

/// What `here` has more often than `there`.
fn surplus<'a>(here: &'a [String], there: &[String]) -> Vec<&'a String> {
    let mut left: BTreeMap<&String, usize> = BTreeMap::new();
    for fact in there {
        *left.entry(fact).or_default() += 1;
    }
    here.iter()
        .filter(|fact| match left.get_mut(fact) {
            Some(count) if *count > 0 => {
                *count -= 1;
                false
            }
            _ => true,
        })
        .collect()
}

/// One line per object of a listing, sorted, because the kernel lists interfaces by index.
fn facts(listing: &Value) -> Vec<String> {
    let mut lines: Vec<String> =
        listing.as_array().into_iter().flatten().map(|object| words(object).join(" ")).collect();
    lines.sort();
    lines
}

/// One line per property of each link: there are some fifty of them.
fn links(listing: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for link in listing.as_array().into_iter().flatten() {
        let name = link["ifname"].as_str().unwrap_or("?");
        lines.extend(words(link).into_iter().map(|word| format!("{name} {word}")));
    }
    lines.sort();
    lines
}

/// One line per address, with its interface.
fn addresses(listing: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for link in listing.as_array().into_iter().flatten() {
        let name = link["ifname"].as_str().unwrap_or("?");
        // Their order is state: the first of a subnet is the primary one.
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        for address in link["addr_info"].as_array().into_iter().flatten() {
            let family = address["family"].as_str().unwrap_or("?");
            let place = places.entry(family).or_default();
            lines.push(format!("{name} {family} #{place} {}", words(address).join(" ")));
            *place += 1;
        }
    }
    lines.sort();
    lines
}

/// The properties of an object as `key=value`, nested ones with dotted keys, without what is
/// volatile.
fn words(object: &Value) -> Vec<String> {
    let mut all = Vec::new();
    for (key, value) in object.as_object().into_iter().flatten() {
        if VOLATILE.contains(&key.as_str()) || key.ends_with("_timer") {
            continue;
        }
        let nested = |inner: &Value| words(inner).into_iter().map(|word| format!("{key}.{word}"));
        match value {
            Value::Object(_) => all.extend(nested(value)),
            Value::Array(items) if items.iter().any(Value::is_object) => {
                for (place, item) in items.iter().enumerate() {
                    all.extend(
                        words(item).into_iter().map(|word| format!("{key}[{place}].{word}")),
                    );
                }
            }
            Value::Number(seconds) if key.ends_with("_life_time") => {
                let forever = seconds.as_u64() == Some(u64::from(u32::MAX));
                all.push(format!("{key}={}", if forever { "forever" } else { "limited" }));
            }
            Value::String(text) => all.push(format!("{key}={text}")),
            other => all.push(format!("{key}={other}")),
        }
    }
    all
}

/// The settings of this thread's namespace.
fn sysctls() -> Vec<String> {
    let mut lines = Vec::new();
    for name in SYSCTLS {
        collect_sysctls(&Path::new("/proc/sys").join(name), &mut lines);
    }
    lines.sort();
    lines
}

fn collect_sysctls(path: &Path, lines: &mut Vec<String>) {
    if let Ok(entries) = fs::read_dir(path) {
        for entry in entries.flatten() {
            collect_sysctls(&entry.path(), lines);
        }
    } else if let Ok(value) = fs::read_to_string(path) {
        // Those that cannot be read (a stable_secret that is not set) have no value.
        let name = path.strip_prefix("/proc/sys").unwrap_or(path);
        lines.push(format!("{} = {}", name.display(), value.trim()));
    }
}

/// The ruleset, one line per line of nft, each with the table and chain that it is in.
fn ruleset(text: &str) -> Vec<String> {
    let mut path: Vec<&str> = Vec::new();
    let mut lines = Vec::new();
    for text in text.lines().map(str::trim).filter(|text| !text.is_empty()) {
        if text == "}" {
            path.pop();
            continue;
        }
        lines.push([&path[..], &[&without_expiry(text)]].concat().join(" / "));
        if let Some(name) = text.strip_suffix('{') {
            path.push(name.trim_end());
        }
    }
    lines
}

/// Without how much longer the elements of a set live, which nft prints as `expires 2m3s4ms`.
fn without_expiry(text: &str) -> String {
    let mut words = Vec::new();
    let mut rest = text.split(' ');
    while let Some(word) = rest.next() {
        if word == "expires" {
            // The time may have the comma of the list, or its end, right behind it.
            if rest.next().is_some_and(|time| time.ends_with(',')) {
                words.push(",");
            }
        } else {
            words.push(word);
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_set_element_has_left_is_not_state() {
        let line =
            |left| without_expiry(&format!("elements = {{ 10.0.0.1 timeout 1m expires {left} }}"));
        assert_eq!(line("59s1ms"), line("2s"));
        assert_ne!(without_expiry("10.0.0.1 expires 2s, 10.0.0.2"), without_expiry("10.0.0.1"));
    }

    #[test]
    fn a_fact_that_is_there_twice_counts_twice() {
        let list = |facts: &[&str]| facts.iter().map(|&fact| fact.to_owned()).collect::<Vec<_>>();
        assert_eq!(surplus(&list(&["a", "a", "b"]), &list(&["a"])), ["a", "b"]);
    }
}
