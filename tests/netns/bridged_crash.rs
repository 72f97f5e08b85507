//! netd killed after every single step of whatever is done with a bridged network: the next one
//! leaves one of two whole states, with the files of the uplink's manager as they belong to it.

use vnet_api::client::{ClientError, Guests, Run};
use vnet_api::model::{EnslaveUplink, State};
use vnet_testkit::HostState;

use crate::enslave::{facts, furnish};
use vnet_tests::{Host, network, wait};

/// More steps than anything here has.
const MANY: u32 = 60;
const INTERFACES: &str = "auto eth0\niface eth0 inet static\n    address 203.0.113.2/24\n";

fn eth0(confirm_seconds: Option<u64>) -> EnslaveUplink {
    EnslaveUplink {
        bridge: "br0".parse().unwrap(),
        uplink: "eth0".parse().unwrap(),
        name: Some(network("lan")),
        mtu: None,
        confirm_seconds,
    }
}

fn enslave(host: &Host, confirm_seconds: Option<u64>) -> Result<(), ClientError> {
    wait(host.client().enslave(&eth0(confirm_seconds), Run::Real)).map(drop)
}

fn release(host: &Host) -> Result<(), ClientError> {
    let (bridge, uplink) = ("br0".parse().unwrap(), "eth0".parse().unwrap());
    wait(host.client().release(&bridge, &uplink, Guests::Respect, Run::Real)).map(drop)
}

/// Runs `act` against a netd that dies after 1, 2, 3… steps, until it survives.
fn dies_at_every_step(
    prepare: impl Fn(&Host),
    act: impl Fn(&Host) -> Result<(), ClientError>,
) -> u32 {
    for survived in 1..MANY {
        let host = crate::enslave::dual_stack();
        furnish(&host);
        let interfaces = host.root.path().join("etc/network/interfaces");
        std::fs::create_dir_all(interfaces.parent().unwrap()).unwrap();
        std::fs::write(&interfaces, INTERFACES).unwrap();
        let untouched = HostState::of(host.ns());
        let was = facts(&host, "eth0");
        {
            let _netd = host.netd();
            prepare(&host);
        }
        let netd = host.try_netd(&[("VNET_CRASH_AFTER", &survived.to_string())]);
        let acted = netd.as_ref().ok().map(|_| act(&host));
        drop(netd);
        let _netd = host.netd();
        let networks = wait(host.client().bridges()).unwrap();
        let text = std::fs::read_to_string(&interfaces).unwrap();
        match networks.first() {
            Some(network) if network.state == State::Active => {
                assert_eq!(facts(&host, "br0"), was, "after {survived} steps");
                assert_eq!(network.confirm_within, None);
                let has_bridge = text.contains("iface br0 inet static");
                assert_eq!(has_bridge, network.definition.autostart, "after {survived}: {text}");
                let mtu = host.ns().json("link show br0")[0]["mtu"].clone();
                assert_eq!(mtu, network.definition.mtu.unwrap_or(1450), "after {survived} steps");
            }
            other => {
                if let Some(network) = other {
                    assert_eq!(network.state, State::Stopped, "after {survived} steps");
                }
                assert_eq!(facts(&host, "eth0"), was, "after {survived} steps");
                assert_eq!(text, INTERFACES, "after {survived} steps");
            }
        }
        if !networks.is_empty() {
            host.delete("lan").unwrap();
        }
        untouched.assert_same(&HostState::of(host.ns()));
        assert_eq!(std::fs::read_to_string(&interfaces).unwrap(), INTERFACES);
        let left = std::fs::read_dir(host.paths().uplinks()).map_or(0, Iterator::count);
        assert_eq!(left, 0, "a journal is left after {survived} steps");
        if matches!(acted, Some(Ok(()))) {
            return survived;
        }
    }
    panic!("netd died {MANY} times");
}

#[test]
fn while_it_enslaves() {
    let steps = dies_at_every_step(|_| {}, |host| enslave(host, None));
    assert!(steps > 9, "only {steps} steps");
}

#[test]
fn while_it_enslaves_and_is_confirmed() {
    let steps = dies_at_every_step(
        |_| {},
        |host| {
            enslave(host, Some(600))?;
            wait(host.client().confirm(&"br0".parse().unwrap())).map(drop)
        },
    );
    assert!(steps > 9, "only {steps} steps");
}

#[test]
fn while_it_rolls_back() {
    let steps = dies_at_every_step(
        |_| {},
        |host| {
            enslave(host, Some(600))?;
            release(host)
        },
    );
    assert!(steps > 8, "only {steps} steps");
}

#[test]
fn while_it_releases() {
    let steps = dies_at_every_step(|host| enslave(host, None).unwrap(), release);
    assert!(steps > 5, "only {steps} steps");
}

#[test]
fn while_it_stops_a_bridged_network() {
    dies_at_every_step(|host| enslave(host, None).unwrap(), |host| host.stop("lan").map(drop));
}

#[test]
fn while_it_starts_a_bridged_network() {
    dies_at_every_step(
        |host| {
            enslave(host, None).unwrap();
            host.stop("lan").unwrap();
        },
        |host| host.start("lan").map(drop),
    );
}

#[test]
fn while_it_applies_an_edit_of_a_bridged_network() {
    let edit = |host: &Host, change: fn(&str) -> String| {
        let text = wait(host.client().definition(&network("lan")))?;
        wait(host.client().edit(&network("lan"), change(&text), Run::Real)).map(drop)
    };
    for change in [
        |text: &str| {
            format!("{}mtu = 1400\n", text.replace("autostart = true", "autostart = false"))
        },
        |text: &str| text.replace("anti_spoofing = true", "anti_spoofing = false"),
    ] {
        dies_at_every_step(|host| enslave(host, None).unwrap(), |host| edit(host, change));
    }
    dies_at_every_step(
        |host| {
            enslave(host, None).unwrap();
            wait(host.client().autostart(&network("lan"), false)).unwrap();
        },
        |host| wait(host.client().autostart(&network("lan"), true)).map(drop),
    );
}
