//! The chains of the table.
//!
//! ```text
//! forward ─┬─ back to the bridge it came from: accept
//!          ├─ to a bridge of ours:   to_nat, to_hostonly, to_routed
//!          └─ from a bridge of ours: from_nat, from_hostonly, from_routed
//! postrouting ── from a masqueraded subnet, to neither a bridge of ours nor the host: masquerade
//! ```
//!
//! What neither comes from a bridge of ours nor goes to one passes untouched. An accept here is
//! no accept in other tables: a foreign chain that drops still drops.

use std::collections::HashSet;

use nftables::expr::{
    CT, Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField, Range, SetItem,
};
use nftables::schema::{Chain, NfListObject, Rule};
use nftables::stmt::{
    Accept, Drop, Match, NAT, Operator, Reject, RejectType, Return, Statement, VerdictMap,
};
use nftables::types::{NfChainPolicy, NfChainType, NfHook, RejectCode};

use super::elements::{BRIDGES, FROM, INSIDE, MASQUERADED, RESTRICTED, SOURCES, TO, UPLINKS};
use super::{FAMILY, TABLE};

type Rules = Vec<Vec<Statement<'static>>>;

/// `filter` and `srcnat` in the words of nft.
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
        (chain("to_routed"), vec![]),
        (chain("from_nat"), from_open()),
        (chain("from_hostonly"), vec![vec![reject()]]),
        (chain("from_routed"), from_open()),
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

fn forward() -> Rules {
    vec![
        vec![is(concat(iifname(), oifname()), set(INSIDE)), accept()],
        vec![vmap(oifname(), TO)],
        vec![vmap(iifname(), FROM)],
    ]
}

/// What may go to a network behind NAT: answers.
fn to_nat() -> Rules {
    let states =
        ["established", "related"].map(|state| SetItem::Element(Expression::String(state.into())));
    let answers = Expression::Named(NamedExpression::Set(states.into()));
    let state =
        Expression::Named(NamedExpression::CT(CT { key: "state".into(), family: None, dir: None }));
    vec![vec![matches(state, Operator::IN, answers), accept()], vec![reject()]]
}

/// What may leave a network for the outside: packets with an address of that network, not to
/// other networks of ours, through the uplink that it is bound to, if it is.
fn from_open() -> Rules {
    vec![
        vec![is_not(concat(iifname(), ip("saddr")), set(SOURCES)), Statement::Drop(Some(Drop {}))],
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
    let group = |addr: &'static str, len| {
        SetItem::Element(Expression::Named(NamedExpression::Prefix(nftables::expr::Prefix {
            addr: Box::new(Expression::String(addr.into())),
            len,
        })))
    };
    let not_routed = Expression::Named(NamedExpression::Set(vec![
        group("224.0.0.0", 24),
        SetItem::Element(Expression::String("255.255.255.255".into())),
    ]));
    let with_ports = Expression::Named(NamedExpression::Set(
        ["tcp", "udp"].map(|name| SetItem::Element(Expression::String(name.into()))).into(),
    ));
    let from_network = || is(ip("saddr"), set(MASQUERADED));
    vec![
        vec![is(oifname(), set(BRIDGES)), Statement::Return(Some(Return {}))],
        // The host talks to its own address on a bridge: it must not see another one there.
        vec![is(oifname(), Expression::String("lo".into())), Statement::Return(Some(Return {}))],
        vec![from_network(), is(ip("daddr"), not_routed), Statement::Return(Some(Return {}))],
        vec![from_network(), is(meta(MetaKey::L4proto), with_ports), masquerade_to_high_ports()],
        vec![from_network(), Statement::Masquerade(None)],
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

fn iifname() -> Expression<'static> {
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

fn concat(first: Expression<'static>, second: Expression<'static>) -> Expression<'static> {
    Expression::Named(NamedExpression::Concat(vec![first, second]))
}

fn set(name: &str) -> Expression<'static> {
    Expression::String(format!("@{name}").into())
}

fn vmap(key: Expression<'static>, map: &str) -> Statement<'static> {
    Statement::VerdictMap(VerdictMap { key, data: set(map) })
}

fn matches(
    left: Expression<'static>,
    op: Operator,
    right: Expression<'static>,
) -> Statement<'static> {
    Statement::Match(Match { left, right, op })
}

fn is(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    matches(left, Operator::EQ, right)
}

fn is_not(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    matches(left, Operator::NEQ, right)
}

fn accept() -> Statement<'static> {
    Statement::Accept(Some(Accept {}))
}

/// The sender learns at once that it may not, rather than waiting for an answer.
fn reject() -> Statement<'static> {
    Statement::Reject(Some(Reject::new(Some(RejectType::ICMPX), Some(RejectCode::AdminProhibited))))
}
