//! Bridge, ports and what guests are told agree on the size of packets, and follow the uplink.

use std::os::fd::OwnedFd;
use std::time::Duration;

use vnet_api::ports::{Event, Port, PortConnection, Request};
use vnet_testkit::{Netns, Udhcpc};
use vnet_types::Mode;

use vnet_tests::{Host, nat, network, request};

/// Far longer than netd takes to see what has changed.
const PATIENCE: Duration = Duration::from_secs(20);

fn attach(host: &Host, name: &str) -> ((PortConnection, Vec<OwnedFd>), Port) {
    let request = Request::Attach {
        network: network(name),
        domain: "web".parse().unwrap(),
        nic: 0,
        mac: "52:54:00:00:00:09".parse().unwrap(),
        queues: 1,
        limits: vnet_types::LinkLimits::default(),
    };
    let opened = PortConnection::open(&host.paths().ports_socket(), &request);
    let (connection, port, queues) = opened.unwrap();
    ((connection, queues), port)
}

/// The next thing that the owner of a port is told.
fn event(connection: &PortConnection) -> Event {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut ready = [PollFd::new(connection.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut ready, PollTimeout::try_from(PATIENCE).unwrap()).unwrap(), 1);
    connection.next_event().unwrap().unwrap()
}

fn mtu(ns: &Netns, link: &str) -> u64 {
    ns.json(&format!("link show {link}"))[0]["mtu"].as_u64().unwrap()
}

/// Waits until netd has given these links, and what it says of the network `default`, the MTU.
fn all_have(host: &Host, links: &[&str], bytes: u32) {
    let have = || links.iter().all(|link| mtu(host.ns(), link) == u64::from(bytes));
    host.ns().wait_for(&format!("{links:?} with an MTU of {bytes}"), PATIENCE, have);
    assert_eq!(host.network("default").mtu, bytes);
}

#[test]
fn a_network_takes_its_mtu_from_the_uplink_and_follows_it() {
    let host = Host::new();
    host.ns().ip("link set eth0 mtu 1400");
    let netd = host.netd();
    host.create_default();
    let (held, port) = attach(&host, "default");
    assert_eq!(port.mtu, 1400);
    let links = ["virbr0", port.name.as_str()];
    all_have(&host, &links, 1400);
    let guest = host.lan.guest_on("virbr0");
    let mut client = Udhcpc::on(&guest.ns, "eth0").start().unwrap();
    assert_eq!(client.lease().mtu, Some(1400));

    host.ns().ip("link set eth0 mtu 1280");
    all_have(&host, &links, 1280);
    // Its owner, a VMM, hears of it.
    assert_eq!(event(&held.0), Event::Mtu(1280));
    assert_eq!(client.renew().unwrap().mtu, Some(1280));
    assert!(!netd.log().contains("undone"), "{}", netd.log());
    // So it is after a restart, and with the next guest.
    netd.kill9();
    host.ns().ip("link set eth0 mtu 1350");
    let _netd = host.netd();
    all_have(&host, &links, 1350);
    let second = host.lan.guest_on("virbr0");
    assert_eq!(Udhcpc::obtain(&second.ns, "eth0").mtu, Some(1350));
}

#[test]
fn a_network_follows_the_default_route_to_another_uplink() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    all_have(&host, &["virbr0"], 1500);
    let tunnel = Netns::new();
    Netns::veth(host.ns(), "vpn", &tunnel, "eth0");
    host.ns().ip("link set vpn mtu 1420");
    host.ns().address("vpn", "10.99.0.1/24");
    all_have(&host, &["virbr0"], 1500);
    host.ns().ip("route replace default via 10.99.0.2 dev vpn");
    all_have(&host, &["virbr0"], 1420);
    // Without a way out, nothing is to be followed.
    host.ns().ip("route del default");
    all_have(&host, &["virbr0"], 1500);
}

#[test]
fn what_is_given_stays_and_a_network_that_leads_nowhere_follows_nobody() {
    let host = Host::new();
    let _netd = host.netd();
    let given = host.create(&vnet_api::model::CreateNetwork { mtu: Some(1450), ..nat("default") });
    assert_eq!(given.unwrap().network.unwrap().mtu, 1450);
    let closed = host.create(&request(Mode::Hostonly, "closed")).unwrap().network.unwrap();
    // This one follows, so that it can be seen that netd has looked.
    host.create(&nat("open")).unwrap();
    host.ns().ip("link set eth0 mtu 1300");
    let open = host.network("open").definition.bridge;
    host.ns().wait_for("the third to follow", PATIENCE, || mtu(host.ns(), open.as_str()) == 1300);
    all_have(&host, &["virbr0"], 1450);
    assert_eq!(mtu(host.ns(), closed.definition.bridge.as_str()), 1500);
}

#[test]
fn the_only_uplink_of_a_network_is_the_one_that_counts() {
    let host = Host::new();
    let _netd = host.netd();
    let other = Netns::new();
    Netns::veth(host.ns(), "eth1", &other, "eth0");
    host.ns().ip("link set eth1 mtu 9000");
    let mut request = nat("default");
    request.uplink = Some("eth1".parse().unwrap());
    host.create(&request).unwrap();
    all_have(&host, &["virbr0"], 9000);
    host.ns().ip("link set eth1 mtu 1500");
    all_have(&host, &["virbr0"], 1500);
}
