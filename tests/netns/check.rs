//! `vnet check` on real hosts, with and without netd.

use serde_json::Value;
use vnet_testkit::{HostState, vnet};

use vnet_tests::Host;

fn rows(host: &Host) -> Vec<Value> {
    let output = vnet(host.ns(), host.root.path(), ["check", "--json"]);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn row(rows: &[Value], name: &str) -> Value {
    rows.iter()
        .find(|row| row["name"] == name)
        .unwrap_or_else(|| panic!("{name}: {rows:?}"))
        .clone()
}

#[test]
fn without_netd_it_says_so_and_looks_at_everything_else() {
    let host = Host::new();
    let before = HostState::of(host.ns());
    let rows = rows(&host);
    let netd = row(&rows, "netd");
    assert_eq!(netd["state"], "failed");
    assert!(netd["fix"][0].as_str().unwrap().contains("systemctl"), "{netd}");
    for name in ["tun", "nft", "forwarding", "foreign rules", "subnets"] {
        assert_eq!(row(&rows, name)["state"], "ok", "{rows:?}");
    }
    // A look changes nothing.
    before.assert_same(&HostState::of(host.ns()));
    let output = vnet(host.ns(), host.root.path(), ["check"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("CHECK "), "{text}");
}

#[test]
fn a_working_network_has_no_failed_row() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let rows = rows(&host);
    let failed: Vec<_> =
        rows.iter().filter(|row| row["state"] == "failed" && row["name"] != "kvm").collect();
    assert!(failed.is_empty(), "{failed:?}");
    for row in &rows {
        for field in ["name", "state", "found"] {
            assert!(row[field].is_string(), "{row}");
        }
        // Whatever is wrong has a way out.
        assert_eq!(row["fix"].as_array().unwrap().is_empty(), row["state"] == "ok", "{row}");
    }
}

#[test]
fn a_server_on_all_addresses_is_named() {
    let host = Host::new();
    let _server = host.ns().enter(|| std::net::UdpSocket::bind("0.0.0.0:53").unwrap());
    let ports = row(&rows(&host), "ports");
    assert_eq!(ports["state"], "warning");
    assert!(ports["found"].as_str().unwrap().contains("udp port 53"), "{ports}");
}

#[test]
fn a_subnet_that_has_come_to_overlap_is_named() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    host.ns().address("eth0", "192.168.122.77/24");
    let subnets = row(&rows(&host), "subnets");
    assert_eq!(subnets["state"], "warning", "{subnets}");
    assert!(subnets["found"].as_str().unwrap().contains("192.168.122.0/24 of default"));
}
