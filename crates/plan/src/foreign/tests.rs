//! Over listings that were recorded from real rule sets.

use serde_json::{Value, json};

use super::*;

const DOCKER: &str = include_str!("listings/docker.json");
const UFW: &str = include_str!("listings/ufw.json");
const FIREWALLD: &str = include_str!("listings/firewalld.json");
const NIXOS: &str = include_str!("listings/nixos.json");

fn flow(hook: Hook, from: Option<&str>, to: Option<&str>, connection: Connection) -> Flow {
    let subnet = Some("192.168.122.0/24".parse().unwrap());
    Flow {
        name: "packets".into(),
        bridge: "virbr0".into(),
        version: Version::Four,
        hook,
        from: from.map(Into::into),
        to: to.map(Into::into),
        source: subnet.filter(|_| from == Some("virbr0")),
        destination: subnet.filter(|_| to == Some("virbr0")),
        connection,
        service: Some(match (hook, connection) {
            (Hook::Input, _) => ("udp", 53),
            (Hook::Forward, Connection::New) => ("tcp", 443),
            (Hook::Forward, Connection::Established) => ("tcp", 40_000),
        }),
    }
}

fn out() -> Flow {
    flow(Hook::Forward, Some("virbr0"), Some("eth0"), Connection::New)
}

fn answers() -> Flow {
    flow(Hook::Forward, Some("eth0"), Some("virbr0"), Connection::Established)
}

fn dns() -> Flow {
    flow(Hook::Input, Some("virbr0"), None, Connection::New)
}

fn found(listing: &str, flow: Flow) -> Vec<Obstacle> {
    obstacles(&Ruleset::parse(listing).unwrap(), &[flow])
}

fn one(listing: &str, flow: Flow) -> Obstacle {
    let mut all = found(listing, flow);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// The listing with a rule before all others of a chain.
fn with_rule(listing: &str, family: &str, table: &str, chain: &str, expr: Value) -> String {
    let mut listing: Value = serde_json::from_str(listing).unwrap();
    let rule = json!({"rule": {
        "family": family, "table": table, "chain": chain, "handle": 999, "expr": expr
    }});
    listing["nftables"].as_array_mut().unwrap().insert(1, rule);
    listing.to_string()
}

#[test]
fn docker_drops_by_its_policy_and_has_a_place_for_exceptions() {
    for flow in [out(), answers()] {
        let obstacle = one(DOCKER, flow);
        assert_eq!(obstacle.owner, Owner::Docker);
        assert_eq!((obstacle.chain.as_str(), obstacle.handle), ("FORWARD", None));
        assert_eq!(obstacle.certainty, Certainty::Sure);
        assert_eq!(obstacle.fix[0], "iptables -I DOCKER-USER -i virbr0 -j ACCEPT");
        assert_eq!(
            obstacle.to_string(),
            "packets are dropped by Docker, table ip filter chain FORWARD (its policy)"
        );
    }
    // It lets everybody speak to the host itself.
    assert_eq!(found(DOCKER, dns()), []);
}

#[test]
fn an_accept_in_dockers_place_lets_packets_pass() {
    let accept = |key| {
        json!([
            {"match": {"op": "==", "left": {"meta": {"key": key}}, "right": "virbr0"}},
            {"xt": {"type": "match", "name": "comment"}}, {"accept": null}
        ])
    };
    let listing = with_rule(DOCKER, "ip", "filter", "DOCKER-USER", accept("iifname"));
    assert_eq!(found(&listing, out()), []);
    assert_eq!(found(&listing, answers()).len(), 1);
    let listing = with_rule(&listing, "ip", "filter", "DOCKER-USER", accept("oifname"));
    assert_eq!(found(&listing, answers()), []);
}

#[test]
fn ufw_drops_new_connections_and_dns_and_lets_answers_pass() {
    let obstacle = one(UFW, out());
    assert_eq!((obstacle.owner, obstacle.certainty), (Owner::Ufw, Certainty::Sure));
    assert_eq!(obstacle.fix[0], "ufw route allow in on virbr0");
    assert_eq!(found(UFW, answers()), []);
    let obstacle = one(UFW, dns());
    assert_eq!((obstacle.chain.as_str(), obstacle.certainty), ("INPUT", Certainty::Sure));
    assert_eq!(obstacle.fix, ["ufw allow in on virbr0 to any port 53"]);
}

#[test]
fn firewalld_rejects_in_its_default_zone() {
    let obstacle = one(FIREWALLD, out());
    assert_eq!((obstacle.owner, obstacle.certainty), (Owner::Firewalld, Certainty::Sure));
    assert_eq!(obstacle.chain, "filter_FWD_public");
    assert!(obstacle.handle.is_some());
    assert!(obstacle.fix[0].contains("--zone=trusted --add-interface=virbr0"));
    assert_eq!(one(FIREWALLD, dns()).chain, "filter_IN_public");
    assert_eq!(found(FIREWALLD, answers()), []);
}

#[test]
fn maps_of_verdicts_and_named_sets_are_followed() {
    assert_eq!(one(NIXOS, dns()).certainty, Certainty::Sure);
    assert_eq!(found(NIXOS, answers()), []);
    let obstacle = one(NIXOS, out());
    assert_eq!((obstacle.owner, obstacle.handle), (Owner::Nft, None));
    assert_eq!(obstacle.fix[0], "nft insert rule inet nixos-fw forward iifname virbr0 accept");
    let web = Flow { service: Some(("tcp", 80)), ..dns() };
    assert_eq!(found(NIXOS, web), []);
    let ten = Flow { source: Some("10.1.2.0/24".parse().unwrap()), ..out() };
    assert_eq!(found(NIXOS, ten), []);
}

#[test]
fn a_rule_that_may_accept_leaves_a_doubt() {
    let expr = json!([{"xt": {"type": "match", "name": "mac"}}, {"accept": null}]);
    let listing = with_rule(DOCKER, "ip", "filter", "FORWARD", expr);
    assert_eq!(one(&listing, out()).certainty, Certainty::Possible);
}

/// Drops what a rule with this match of iptables does not lead back from.
fn led_back_by(name: &str) -> String {
    let back = json!([{"xt": {"type": "match", "name": name}}, {"return": null}]);
    let listing = with_rule(UFW, "ip", "filter", "ufw-user-input", json!([{"drop": null}]));
    with_rule(&listing, "ip", "filter", "ufw-user-input", back)
}

#[test]
fn a_rule_that_may_lead_out_of_a_chain_leaves_a_doubt() {
    assert_eq!(one(&led_back_by("recent"), dns()).certainty, Certainty::Possible);
}

#[test]
fn what_is_for_the_host_is_let_go_on_for_its_type_of_address() {
    // To the policy of INPUT.
    assert_eq!(one(&led_back_by("addrtype"), dns()), one(UFW, dns()));
}

#[test]
fn a_rule_that_may_drop_is_no_obstacle() {
    let expr = json!([{"xt": {"type": "match", "name": "recent"}}, {"drop": null}]);
    let listing = with_rule(FIREWALLD, "inet", "firewalld", "filter_FORWARD", expr);
    assert_eq!(one(&listing, out()).chain, "filter_FWD_public");
}

fn six(flow: Flow) -> Flow {
    let net = |known: Option<IpNet>| known.map(|_| "fd00:7::/64".parse().unwrap());
    let (source, destination) = (net(flow.source), net(flow.destination));
    Flow { version: Version::Six, source, destination, ..flow }
}

#[test]
fn our_own_table_and_the_other_version_of_ip_are_left_out() {
    let chain = |family: &str, table: &str| {
        json!({"nftables": [{"chain": {
            "family": family, "table": table, "name": "forward", "handle": 1,
            "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"
        }}]})
        .to_string()
    };
    assert_eq!(found(&chain("inet", "vnet"), out()), []);
    assert_eq!(found(&chain("ip6", "filter"), out()), []);
    assert_eq!(found(&chain("ip", "filter"), six(out())), []);
    assert_eq!(found(&chain("ip6", "filter"), six(out())).len(), 1);
    for flow in [out(), six(out())] {
        assert_eq!(found(&chain("inet", "other"), flow).len(), 1);
    }
}

#[test]
fn docker_drops_ipv6_in_its_own_table_and_is_told_by_ip6tables() {
    let listing = DOCKER.replace("\"family\": \"ip\"", "\"family\": \"ip6\"");
    assert_eq!(found(&listing, out()), []);
    let obstacle = one(&listing, six(out()));
    assert_eq!((obstacle.owner, obstacle.table.as_str()), (Owner::Docker, "ip6 filter"));
    assert_eq!(obstacle.fix[0], "ip6tables -I DOCKER-USER -i virbr0 -j ACCEPT");
}

#[test]
fn an_accept_of_one_version_is_none_of_the_other() {
    let accept = |header: &str, net: &str, len: u8| {
        json!([
            {"match": {"op": "==", "left": {"payload": {"protocol": header, "field": "saddr"}},
                       "right": {"prefix": {"addr": net, "len": len}}}},
            {"accept": null}
        ])
    };
    let with = |expr| with_rule(FIREWALLD, "inet", "firewalld", "filter_FORWARD", expr);
    let four = with(accept("ip", "192.168.0.0", 16));
    assert_eq!((found(&four, out()).len(), found(&four, six(out())).len()), (0, 1));
    let only_six = with(accept("ip6", "fd00::", 8));
    assert_eq!((found(&only_six, out()).len(), found(&only_six, six(out())).len()), (1, 0));
}

#[test]
fn a_circle_of_jumps_ends() {
    let jump = |to: &str| json!([{"jump": {"target": to}}]);
    let listing = with_rule(DOCKER, "ip", "filter", "DOCKER-USER", jump("DOCKER-FORWARD"));
    let listing = with_rule(&listing, "ip", "filter", "DOCKER-FORWARD", jump("DOCKER-USER"));
    assert_eq!(found(&listing, out()).len(), 1);
}

#[test]
fn what_is_no_listing_is_refused() {
    assert!(Ruleset::parse("Error: syntax error").is_err());
    assert!(Ruleset::parse("{}").is_err());
    assert!(
        obstacles(&Ruleset::parse("{\"nftables\": [{\"rule\": 3}]}").unwrap(), &[out()]).is_empty()
    );
}
