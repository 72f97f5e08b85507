//! netd killed after each operation of a plan for a network with IPv6: the next one converges, and
//! the settings of others are as they were.

use vnet_api::client::Run;
use vnet_api::model::State;
use vnet_types::Mode;

use crate::crash::dies_at_every_operation;
use vnet_tests::{Host, network, request6, wait};

const PREFIX: &str = "fd12:3456:789a::/64";

/// Whether what is there for IPv6 is all of it, or nothing.
fn is_whole(host: &Host) -> bool {
    let networks = wait(host.client().networks()).unwrap();
    let with_ipv6 = networks
        .iter()
        .filter(|network| network.state == State::Active)
        .any(|network| network.definition.ipv6.is_some());
    let gateway = host.ns().ip("-6 addr").contains("fd12:3456:789a::1/64");
    let forwards = host.ns().sysctl("net.ipv6.conf.all.forwarding") == "1";
    let raised = host.ns().sysctl("net.ipv6.conf.eth0.accept_ra") == "2";
    with_ipv6 == gateway && with_ipv6 == forwards && with_ipv6 == raised
}

#[test]
fn while_it_creates_a_network_with_ipv6() {
    let operations = dies_at_every_operation(
        |_| {},
        |host| host.create(&request6(Mode::Nat, "default", PREFIX)).map(drop),
        is_whole,
    );
    assert!(operations > 15, "only {operations} operations");
}

#[test]
fn while_it_stops_a_network_with_ipv6() {
    dies_at_every_operation(
        |host| drop(host.create(&request6(Mode::Routed, "default", PREFIX)).unwrap()),
        |host| host.stop("default").map(drop),
        is_whole,
    );
}

fn edit(host: &Host, change: impl Fn(&str) -> String) -> Result<(), vnet_api::client::ClientError> {
    let default = network("default");
    let text = std::fs::read_to_string(host.paths().network(&default)).unwrap();
    wait(host.client().edit(&default, change(&text), Run::Real)).map(drop)
}

#[test]
fn while_an_edit_adds_ipv6() {
    let operations = dies_at_every_operation(
        |host| drop(host.create_default()),
        |host| edit(host, |text| format!("{text}\n[ipv6]\nprefix = \"{PREFIX}\"\n")),
        is_whole,
    );
    assert!(operations > 8, "only {operations} operations");
}

#[test]
fn while_an_edit_removes_ipv6() {
    let operations = dies_at_every_operation(
        |host| drop(host.create(&request6(Mode::Nat, "default", PREFIX)).unwrap()),
        |host| edit(host, |text| text.split("[ipv6]").next().unwrap().to_owned()),
        is_whole,
    );
    assert!(operations > 5, "only {operations} operations");
}
