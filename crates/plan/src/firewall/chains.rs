//! The chains of the table.
//!
//! ```text
//! guard ─── from a bridge of ours, with a loopback address: drop
//! prerouting, output ── to a published port of the host: to the guest's address and port
//! input ─── from a network, faster than its limit: drop
//! forward ─┬─ back to the bridge it came from: accept
//!          ├─ from a network, faster than its limit: drop
//!          ├─ of a connection to a published port: published
//!          ├─ to a bridge of ours:   to_nat, to_hostonly, to_routed
//!          └─ from a bridge of ours: from_nat, from_hostonly, from_routed
//! postrouting ─┬─ to a published port, from its own network or the host: masquerade
//!              └─ from a masqueraded subnet, to neither a bridge of ours nor the host: masquerade
//! ```
//!
//! What is published is looked up for a connection's first packet only; so are the addresses under
//! which it goes on. A connection from outside keeps its source: the guest sees who it is. One from
//! the guest's own network must come back through the host, and one from the host may have a
//! loopback address, so those two come from the gateway.
//!
//! IPv6 goes through the same chains, and there are the same sets for it. A network without IPv6 has
//! nothing in them: its guests can neither send nor be reached. ::1 needs no rule of ours: the kernel
//! takes it from no link but `lo`.
//!
//! What neither comes from a bridge of ours nor goes to one passes untouched. An accept here is
//! no accept in other tables: a foreign chain that drops still drops.

use std::collections::HashSet;

use nftables::expr::{
    CT, Expression, Fib, FibFlag, FibResult, Map, Meta, MetaKey, NamedExpression, Payload,
    PayloadField, Prefix, Range, SetItem,
};
use nftables::schema::{Chain, NfListObject, Rule};
use nftables::stmt::{
    Accept, Drop, JumpTarget, Match, NAT, NATFamily, Operator, Reject, RejectType, Return,
    Statement, VerdictMap,
};
use nftables::types::{NfChainPolicy, NfChainType, NfHook, RejectCode};

use super::elements::{
    ANY, ANY6, AT, AT6, BRIDGES, CLOSED, FROM, INSIDE, MASQUERADED, MASQUERADED6, PUBLISHED,
    PUBLISHED6, RESTRICTED, SOURCES, SOURCES6, TO, UPLINKS,
};
use super::{FAMILY, TABLE, limit, protocol};

type Rules = Vec<Vec<Statement<'static>>>;

/// `raw`, `dstnat`, `filter` and `srcnat` in the words of nft.
const PRIORITY_RAW: i32 = -300;
const PRIORITY_DSTNAT: i32 = -100;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SRCNAT: i32 = 100;

/// All chains, and then their rules: a rule may jump to a chain that stands further down.
pub(super) fn chains() -> Vec<NfListObject<'static>> {
    let base = |name, kind, hook, prio| Chain {
        _type: Some(kind),
        hook: Some(hook),
        prio: Some(prio),
        policy: Some(NfChainPolicy::Accept),
        ..chain(name)
    };
    let all: Vec<(Chain<'static>, Rules)> = vec![
        (chain("to_nat"), to_nat()),
        (chain("to_hostonly"), vec![vec![reject()]]),
        (chain("to_routed"), to_routed()),
        (chain("from_nat"), from_open()),
        (chain("from_hostonly"), vec![vec![reject()]]),
        (chain("from_routed"), from_open()),
        (chain("published"), published()),
        (base("guard", NfChainType::Filter, NfHook::Prerouting, PRIORITY_RAW), guard()),
        (base("prerouting", NfChainType::NAT, NfHook::Prerouting, PRIORITY_DSTNAT), prerouting()),
        (base("output", NfChainType::NAT, NfHook::Output, PRIORITY_DSTNAT), redirect()),
        (base("input", NfChainType::Filter, NfHook::Input, PRIORITY_FILTER), vec![limit::rule()]),
        (base("forward", NfChainType::Filter, NfHook::Forward, PRIORITY_FILTER), forward()),
        (
            base("postrouting", NfChainType::NAT, NfHook::Postrouting, PRIORITY_SRCNAT),
            postrouting(),
        ),
    ];
    let rules: Vec<_> = all
        .iter()
        .flat_map(|(chain, rules)| rules.iter().map(|statements| rule(&chain.name, statements)))
        .collect();
    all.into_iter().map(|(chain, _)| NfListObject::Chain(chain)).chain(rules).collect()
}

/// Where the host is reached at 127.0.0.1, `route_localnet` lets packets with loopback addresses
/// pass a bridge. None that a guest sends may have one: they would reach what listens there. At
/// this place, answers to us still have the address that is on the wire, the gateway's.
fn guard() -> Rules {
    let drop = || Statement::Drop(Some(Drop {}));
    ["daddr", "saddr"]
        .map(|field| vec![is(iifname(), set(BRIDGES)), is(ip(field), loopback()), drop()])
        .into()
}

/// What comes in with a loopback address comes from no honest neighbour: what is published there
/// is for the host alone.
fn prerouting() -> Rules {
    let stranger = vec![is(ip("daddr"), loopback()), Statement::Return(Some(Return {}))];
    std::iter::once(stranger).chain(redirect()).collect()
}

/// To the guest, if a published port of the host is meant: one for this address first, and then
/// one for all addresses of the host.
fn redirect() -> Rules {
    let local = || is(fib_type(FibFlag::Daddr), Expression::String("local".into()));
    let ipv4 = is(meta(MetaKey::Nfproto), Expression::String("ipv4".into()));
    let at = || vec![ip("daddr"), meta(MetaKey::L4proto), port("dport")];
    let at6 = || vec![ip6("daddr"), meta(MetaKey::L4proto), port("dport")];
    let any = || vec![meta(MetaKey::L4proto), port("dport")];
    // The kernel routes nothing from ::1 to elsewhere, nor forwards link-local addresses.
    let nowhere = [prefix("::1", 128), prefix("fe80::", 10)];
    let nowhere = Expression::Named(NamedExpression::Set(nowhere.map(SetItem::Element).into()));
    vec![
        vec![local(), dnat(NATFamily::IP, at, AT)],
        vec![local(), dnat(NATFamily::IP6, at6, AT6)],
        // Without an IPv4 address in the key, nft cannot see what it is about.
        vec![ipv4, local(), dnat(NATFamily::IP, any, ANY)],
        vec![is_not(ip6("daddr"), nowhere), local(), dnat(NATFamily::IP6, any, ANY6)],
    ]
}

fn dnat(
    family: NATFamily,
    key: impl Fn() -> Vec<Expression<'static>>,
    maps: [&str; 2],
) -> Statement<'static> {
    let [addr, port] = maps.map(|map| {
        let key = Expression::Named(NamedExpression::Concat(key()));
        Some(Expression::Named(NamedExpression::Map(Box::new(Map { key, data: set(map) }))))
    });
    Statement::DNAT(Some(NAT { addr, family: Some(family), port, flags: None }))
}

/// A connection to a published port: it was ours to let it in only if the host's port was asked
/// for, not the guest's.
fn redirected() -> Statement<'static> {
    matches(ct("status"), Operator::IN, Expression::String("dnat".into()))
}

/// Who may use a published port of another network: everyone, but for networks that lead nowhere,
/// and those outside behind another uplink than the network's only one.
fn published() -> Rules {
    vec![
        vec![is(iifname(), set(CLOSED)), reject()],
        vec![
            is(oifname(), set(RESTRICTED)),
            is_not(iifname(), set(BRIDGES)),
            is_not(concat(oifname(), iifname()), set(UPLINKS)),
            reject(),
        ],
        vec![accept()],
    ]
}

fn forward() -> Rules {
    let end = |address, side| {
        let parts = vec![address, meta(MetaKey::L4proto), port(side)];
        Expression::Named(NamedExpression::Concat(parts))
    };
    let answer = || is(ct("direction"), Expression::String("reply".into()));
    let published = || Statement::Goto(JumpTarget { target: "published".into() });
    let to = |address, ends| is(end(address, "dport"), set(ends));
    let from = |address, ends| is(end(address, "sport"), set(ends));
    vec![
        vec![is(concat(iifname(), oifname()), set(INSIDE)), accept()],
        limit::rule(),
        vec![redirected(), to(ip("daddr"), PUBLISHED), published()],
        vec![redirected(), to(ip6("daddr"), PUBLISHED6), published()],
        vec![redirected(), answer(), from(ip("saddr"), PUBLISHED), accept()],
        vec![redirected(), answer(), from(ip6("saddr"), PUBLISHED6), accept()],
        vec![vmap(oifname(), TO)],
        vec![vmap(iifname(), FROM)],
    ]
}

/// What may go to a network behind NAT: answers.
fn to_nat() -> Rules {
    let states =
        ["established", "related"].map(|state| SetItem::Element(Expression::String(state.into())));
    let answers = Expression::Named(NamedExpression::Set(states.into()));
    vec![vec![matches(ct("state"), Operator::IN, answers), accept()], vec![reject()]]
}

/// What may go to a routed network in IPv6: what is for its addresses. Others may well lead there by
/// a route that somebody has set.
fn to_routed() -> Rules {
    vec![vec![is_not(concat(oifname(), ip6("daddr")), set(SOURCES6)), reject()]]
}

/// What may leave a network for the outside: packets with an address of that network, not to
/// other networks of ours, through the uplink that it is bound to, if it is.
fn from_open() -> Rules {
    vec![
        vec![is_not(concat(iifname(), ip("saddr")), set(SOURCES)), Statement::Drop(Some(Drop {}))],
        vec![
            is_not(concat(iifname(), ip6("saddr")), set(SOURCES6)),
            Statement::Drop(Some(Drop {})),
        ],
        vec![is(oifname(), set(BRIDGES)), reject()],
        vec![
            is(iifname(), set(RESTRICTED)),
            is_not(concat(iifname(), oifname()), set(UPLINKS)),
            reject(),
        ],
        vec![accept()],
    ]
}

fn postrouting() -> Rules {
    let not_routed = Expression::Named(NamedExpression::Set(vec![
        SetItem::Element(prefix("224.0.0.0", 24)),
        SetItem::Element(Expression::String("255.255.255.255".into())),
    ]));
    let not_routed6 = [prefix("ff00::", 8), prefix("fe80::", 10)];
    let not_routed6 =
        Expression::Named(NamedExpression::Set(not_routed6.map(SetItem::Element).into()));
    let with_ports = || {
        let protocols = [protocol::TCP, protocol::UDP].map(SetItem::Element);
        Expression::Named(NamedExpression::Set(protocols.into()))
    };
    let from_network = || is(ip("saddr"), set(MASQUERADED));
    let from_network6 = || is(ip6("saddr"), set(MASQUERADED6));
    let from_host = is(fib_type(FibFlag::Saddr), Expression::String("local".into()));
    vec![
        vec![
            is(concat(oifname(), ip("saddr")), set(SOURCES)),
            redirected(),
            Statement::Masquerade(None),
        ],
        vec![
            is(concat(oifname(), ip6("saddr")), set(SOURCES6)),
            redirected(),
            Statement::Masquerade(None),
        ],
        vec![is(oifname(), set(BRIDGES)), redirected(), from_host, Statement::Masquerade(None)],
        vec![is(oifname(), set(BRIDGES)), Statement::Return(Some(Return {}))],
        // The host talks to its own address on a bridge: it must not see another one there.
        vec![is(oifname(), Expression::String("lo".into())), Statement::Return(Some(Return {}))],
        vec![from_network(), is(ip("daddr"), not_routed), Statement::Return(Some(Return {}))],
        vec![from_network(), is(meta(MetaKey::L4proto), with_ports()), masquerade_to_high_ports()],
        vec![from_network(), Statement::Masquerade(None)],
        vec![from_network6(), is(ip6("daddr"), not_routed6), Statement::Return(Some(Return {}))],
        vec![from_network6(), is(meta(MetaKey::L4proto), with_ports()), masquerade_to_high_ports()],
        vec![from_network6(), Statement::Masquerade(None)],
    ]
}

/// Ports below 1024 are left to the host, as libvirt does: some servers trust them.
fn masquerade_to_high_ports() -> Statement<'static> {
    let ports = Range { range: [Expression::Number(1024), Expression::Number(65535)] };
    Statement::Masquerade(Some(NAT {
        addr: None,
        family: None,
        port: Some(Expression::Range(Box::new(ports))),
        flags: None::<HashSet<_>>,
    }))
}

fn chain(name: &'static str) -> Chain<'static> {
    Chain { family: FAMILY, table: TABLE.into(), name: name.into(), ..Chain::default() }
}

fn rule(chain: &str, statements: &[Statement<'static>]) -> NfListObject<'static> {
    NfListObject::Rule(Rule {
        family: FAMILY,
        table: TABLE.into(),
        chain: chain.to_owned().into(),
        expr: statements.to_vec().into(),
        ..Rule::default()
    })
}

fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

pub(super) fn iifname() -> Expression<'static> {
    meta(MetaKey::Iifname)
}

fn oifname() -> Expression<'static> {
    meta(MetaKey::Oifname)
}

fn ip(field: &'static str) -> Expression<'static> {
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(PayloadField {
        protocol: "ip".into(),
        field: field.into(),
    })))
}

fn ip6(field: &'static str) -> Expression<'static> {
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(PayloadField {
        protocol: "ip6".into(),
        field: field.into(),
    })))
}

fn port(field: &'static str) -> Expression<'static> {
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(PayloadField {
        protocol: "th".into(),
        field: field.into(),
    })))
}

fn ct(key: &'static str) -> Expression<'static> {
    Expression::Named(NamedExpression::CT(CT { key: key.into(), family: None, dir: None }))
}

/// What kind of address the source or the destination is to the host.
fn fib_type(side: FibFlag) -> Expression<'static> {
    Expression::Named(NamedExpression::Fib(Fib {
        result: FibResult::Type,
        flags: HashSet::from([side]),
    }))
}

fn prefix(address: &'static str, len: u32) -> Expression<'static> {
    let addr = Box::new(Expression::String(address.into()));
    Expression::Named(NamedExpression::Prefix(Prefix { addr, len }))
}

fn loopback() -> Expression<'static> {
    prefix("127.0.0.0", 8)
}

pub(super) fn concat(
    first: Expression<'static>,
    second: Expression<'static>,
) -> Expression<'static> {
    Expression::Named(NamedExpression::Concat(vec![first, second]))
}

pub(super) fn set(name: &str) -> Expression<'static> {
    Expression::String(format!("@{name}").into())
}

fn vmap(key: Expression<'static>, map: &str) -> Statement<'static> {
    Statement::VerdictMap(VerdictMap { key, data: set(map) })
}

pub(super) fn matches(
    left: Expression<'static>,
    op: Operator,
    right: Expression<'static>,
) -> Statement<'static> {
    Statement::Match(Match { left, right, op })
}

pub(super) fn is(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    matches(left, Operator::EQ, right)
}

pub(super) fn is_not(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    matches(left, Operator::NEQ, right)
}

pub(super) fn accept() -> Statement<'static> {
    Statement::Accept(Some(Accept {}))
}

/// The sender learns at once that it may not, rather than waiting for an answer.
fn reject() -> Statement<'static> {
    Statement::Reject(Some(Reject::new(Some(RejectType::ICMPX), Some(RejectCode::AdminProhibited))))
}
