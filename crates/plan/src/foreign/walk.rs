//! A packet's way through one base chain.

use serde_json::Value;

use super::listing::{Place, Rule};
use super::matches::{Matches, both, either, interface, is, within};
use super::{Certainty, Connection, Flow, Hook, Ruleset, Version};

/// Rules that are looked at for one packet, at most; a listing may be of any size.
const RULES: u32 = 200_000;
/// Jumps within jumps, at most: the kernel allows 16.
const DEPTH: u32 = 32;

/// What drops a packet.
pub(super) struct Drop {
    pub(super) chain: String,
    pub(super) handle: Option<u64>,
    pub(super) certainty: Certainty,
}

/// How the way through one chain ends.
enum End {
    Accepted,
    Dropped {
        chain: String,
        handle: Option<u64>,
    },
    /// Back to where the chain was called from.
    Returned,
}

struct Walk<'a> {
    ruleset: &'a Ruleset,
    base: &'a Place,
    flow: &'a Flow,
    rules_left: u32,
    /// A rule that could not be read may have accepted the packet.
    doubt: bool,
    /// A rule that could not be read may have led the packet out of the chain that it is in.
    may_have_left: bool,
}

/// What drops `flow` in the base chain at `base`; none if it passes.
pub(super) fn dropped(ruleset: &Ruleset, base: &Place, flow: &Flow) -> Option<Drop> {
    let mut walk =
        Walk { ruleset, base, flow, rules_left: RULES, doubt: false, may_have_left: false };
    let end = walk.chain(&base.name, 0);
    let certainty = if walk.doubt { Certainty::Possible } else { Certainty::Sure };
    match end {
        End::Dropped { chain, handle } => Some(Drop { chain, handle, certainty }),
        End::Returned if ruleset.chain(base)?.drops => {
            Some(Drop { chain: base.name.clone(), handle: None, certainty })
        }
        End::Accepted | End::Returned => None,
    }
}

impl<'a> Walk<'a> {
    fn place(&self, name: &str) -> Place {
        let Place { family, table, .. } = self.base;
        Place { family: family.clone(), table: table.clone(), name: name.to_owned() }
    }

    fn chain(&mut self, name: &str, depth: u32) -> End {
        let ruleset = self.ruleset;
        let Some(chain) = ruleset.chain(&self.place(name)) else { return End::Returned };
        if depth > DEPTH {
            return End::Returned;
        }
        let outer = std::mem::replace(&mut self.may_have_left, false);
        let end = self.rules(name, &chain.rules, depth);
        // Had it left, it might not have been dropped.
        self.doubt |= self.may_have_left && matches!(end, End::Dropped { .. });
        self.may_have_left = outer;
        end
    }

    fn rules(&mut self, name: &str, rules: &[Rule], depth: u32) -> End {
        for rule in rules {
            let Some(left) = self.rules_left.checked_sub(1) else { return End::Returned };
            self.rules_left = left;
            if let Some(end) = self.rule(name, rule, depth) {
                return end;
            }
        }
        End::Returned
    }

    /// Where the packet goes from this rule; none: to the next one.
    fn rule(&mut self, chain: &str, rule: &Rule, depth: u32) -> Option<End> {
        let mut matches = Matches::Yes;
        let (mut conntrack, mut address_type) = (false, false);
        for statement in &rule.statements {
            let (kind, body) = statement.as_object()?.iter().next()?;
            let verdict = match kind.as_str() {
                "match" => {
                    matches = both(matches, self.matches(body));
                    continue;
                }
                "xt" => match extension(body) {
                    Extension::Nothing => continue,
                    Extension::Conntrack => {
                        conntrack = true;
                        continue;
                    }
                    Extension::AddressType => {
                        address_type = true;
                        continue;
                    }
                    Extension::Unknown => {
                        matches = both(matches, Matches::Unknown);
                        continue;
                    }
                    Extension::Reject => ("reject", &Value::Null),
                },
                "limit" | "quota" => {
                    matches = both(matches, Matches::Unknown);
                    continue;
                }
                "vmap" => match self.mapped(body) {
                    (Some(verdict), found) => {
                        matches = both(matches, found);
                        verdict
                    }
                    (None, _) => continue,
                },
                "accept" | "drop" | "reject" | "jump" | "goto" | "return" | "queue" => {
                    (kind.as_str(), body)
                }
                _ => continue,
            };
            if conntrack {
                matches = both(matches, self.conntrack(verdict.0));
            }
            if address_type {
                matches = both(matches, self.address_type(verdict.0));
            }
            return match matches {
                Matches::No => None,
                Matches::Unknown => {
                    self.perhaps(verdict, depth);
                    None
                }
                Matches::Yes => self.verdict(chain, rule, verdict, depth),
            };
        }
        None
    }

    fn verdict(
        &mut self,
        chain: &str,
        rule: &Rule,
        (kind, body): (&str, &Value),
        depth: u32,
    ) -> Option<End> {
        let target = body.get("target").and_then(Value::as_str).unwrap_or_default();
        match kind {
            // Whom it is handed to decides about it.
            "accept" | "queue" => Some(End::Accepted),
            "drop" | "reject" => {
                Some(End::Dropped { chain: chain.to_owned(), handle: rule.handle })
            }
            "return" => Some(End::Returned),
            "goto" => Some(self.chain(target, depth + 1)),
            _ => match self.chain(target, depth + 1) {
                End::Returned => None,
                end => Some(end),
            },
        }
    }

    /// A rule of which it isn't known whether it matches: what matters is if it could accept.
    fn perhaps(&mut self, (kind, body): (&str, &Value), depth: u32) {
        match kind {
            "accept" | "queue" => self.doubt = true,
            "return" => self.may_have_left = true,
            "jump" | "goto" => {
                let target = body.get("target").and_then(Value::as_str).unwrap_or_default();
                match self.chain(target, depth + 1) {
                    End::Accepted => self.doubt = true,
                    End::Returned if kind == "goto" => self.may_have_left = true,
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// nft doesn't say what iptables' `conntrack` compares with. Nearly always it accepts what is
    /// established and drops what is invalid.
    fn conntrack(&self, verdict: &str) -> Matches {
        match (verdict, self.flow.connection) {
            ("accept", Connection::Established) => Matches::Yes,
            ("accept" | "drop" | "reject", _) => Matches::No,
            _ => Matches::Unknown,
        }
    }

    /// Nor with which type of address `addrtype` compares. What is for the host itself is nearly
    /// always let go on because its destination is local (ufw's `ufw-not-local`).
    fn address_type(&self, verdict: &str) -> Matches {
        match (verdict, self.flow.hook) {
            ("accept" | "return", Hook::Input) => Matches::Yes,
            _ => Matches::Unknown,
        }
    }

    fn matches(&self, body: &Value) -> Matches {
        let (Some(left), Some(right)) = (body.get("left"), body.get("right")) else {
            return Matches::Unknown;
        };
        match (body.get("op").and_then(Value::as_str), self.compare(left, right)) {
            (Some("==" | "in"), found) => found,
            (Some("!="), Matches::Yes) => Matches::No,
            (Some("!="), Matches::No) => Matches::Yes,
            _ => Matches::Unknown,
        }
    }

    /// The verdict of a map for this packet. Where that cannot be told, an accept counts that is
    /// among those that it may be.
    fn mapped<'v>(&self, body: &'v Value) -> (Option<(&'v str, &'v Value)>, Matches)
    where
        'a: 'v,
    {
        let data = match (body.get("data").and_then(|data| data.get("set")), body.get("data")) {
            (Some(Value::Array(elements)), _) => elements.as_slice(),
            (None, Some(Value::String(name))) => self.named(name).unwrap_or_default(),
            _ => &[],
        };
        let mut unknown = None;
        for element in data {
            let (Some(key), Some(verdict)) = (element.get(0), element.get(1)) else { continue };
            let verdict = match verdict.as_object().and_then(|verdict| verdict.iter().next()) {
                Some((kind, body)) => (kind.as_str(), body),
                None => continue,
            };
            match body.get("key").map_or(Matches::Unknown, |left| self.compare(left, key)) {
                Matches::Yes => return (Some(verdict), Matches::Yes),
                Matches::Unknown if verdict.0 == "accept" => unknown = Some(verdict),
                _ => {}
            }
        }
        (unknown, Matches::Unknown)
    }

    fn named(&self, reference: &str) -> Option<&'a [Value]> {
        self.ruleset.set(&self.place(reference.strip_prefix('@')?))
    }

    fn compare(&self, left: &Value, right: &Value) -> Matches {
        let any = |values: &[Value]| {
            values.iter().map(|value| self.compare(left, value)).fold(Matches::No, either)
        };
        match right {
            Value::Array(values) => return any(values),
            Value::String(name) if name.starts_with('@') => {
                return self.named(name).map_or(Matches::Unknown, any);
            }
            Value::Object(fields) => {
                if let Some(Value::Array(values)) = fields.get("set") {
                    return any(values);
                }
                if let Some(value) = fields.get("elem").and_then(|element| element.get("val")) {
                    return self.compare(left, value);
                }
            }
            _ => {}
        }
        let flow = self.flow;
        let field = |kind: &str, name: &str| left.get(kind)?.get(name)?.as_str();
        match (field("meta", "key"), field("ct", "key")) {
            (Some("iif" | "iifname"), _) => interface(flow.from.as_deref(), right),
            (Some("oif" | "oifname"), _) => interface(flow.to.as_deref(), right),
            (Some("nfproto"), _) => is(right == of(flow.version, "ipv4", "ipv6")),
            (Some("protocol"), _) => is(right == of(flow.version, "ip", "ip6")),
            (Some("l4proto"), _) => self.protocol(right),
            (None, Some("state")) => is(right
                == match flow.connection {
                    Connection::New => "new",
                    Connection::Established => "established",
                }),
            // Nobody has changed the addresses of these packets.
            (None, Some("status")) if right == "dnat" || right == "snat" => Matches::No,
            (None, None) => match (field("payload", "protocol"), field("payload", "field")) {
                (Some(header @ ("ip" | "ip6")), _) if header != of(flow.version, "ip", "ip6") => {
                    Matches::No
                }
                (Some("ip" | "ip6"), Some("saddr")) => within(flow.source, right),
                (Some("ip" | "ip6"), Some("daddr")) => within(flow.destination, right),
                (Some("ip"), Some("protocol")) | (Some("ip6"), Some("nexthdr")) => {
                    self.protocol(right)
                }
                (Some(protocol @ ("tcp" | "udp" | "th")), Some("dport")) => {
                    self.port(protocol, right)
                }
                (Some(protocol @ ("icmp" | "icmpv6" | "tcp" | "udp" | "sctp" | "dccp")), _) => {
                    both(self.protocol(&Value::from(protocol)), Matches::Unknown)
                }
                _ => Matches::Unknown,
            },
            _ => Matches::Unknown,
        }
    }

    fn protocol(&self, right: &Value) -> Matches {
        self.flow.service.map_or(Matches::Unknown, |(protocol, _)| is(right == protocol))
    }

    fn port(&self, protocol: &str, right: &Value) -> Matches {
        let Some((ours, port)) = self.flow.service else { return Matches::Unknown };
        let range = right.get("range").and_then(Value::as_array);
        let number = |value: &Value| value.as_u64();
        let found = match (number(right), range.map(Vec::as_slice)) {
            (Some(number), _) => is(number == u64::from(port)),
            (None, Some([low, high])) => match (number(low), number(high)) {
                (Some(low), Some(high)) => is((low..=high).contains(&u64::from(port))),
                _ => Matches::Unknown,
            },
            _ => Matches::Unknown,
        };
        both(is(protocol == "th" || protocol == ours), found)
    }
}

/// What a match or target of iptables is to us; nft gives its name only.
enum Extension {
    Nothing,
    Conntrack,
    AddressType,
    Reject,
    Unknown,
}

fn extension(body: &Value) -> Extension {
    let field = |name: &str| body.get(name).and_then(Value::as_str);
    match (field("type"), field("name")) {
        (Some("match"), Some("comment")) => Extension::Nothing,
        (Some("match"), Some("conntrack" | "state")) => Extension::Conntrack,
        (Some("match"), Some("addrtype")) => Extension::AddressType,
        (Some("target"), Some("REJECT")) => Extension::Reject,
        (Some("target"), _) => Extension::Nothing,
        _ => Extension::Unknown,
    }
}

fn of(version: Version, four: &'static str, six: &'static str) -> &'static str {
    match version {
        Version::Four => four,
        Version::Six => six,
    }
}
