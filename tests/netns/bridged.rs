//! Bridged networks as networks: started, stopped, edited, with guests of the LAN on them.

use std::net::Ipv4Addr;
use std::time::Duration;

use vnet_api::client::{ClientError, Guests, Run};
use vnet_api::model::{AnyNetwork, BridgedNetwork, Changed, EnslaveUplink, ErrorKind, State};
use vnet_testkit::frames::{self, Arp, DhcpMessage, Udp};
use vnet_testkit::{FakeGuest, HostState, Lan, LanDhcp};
use vnet_types::MacAddr;

use vnet_tests::port_guest::{PortGuest, until};
use vnet_tests::{Host, behind_its_back, network, refusal, wait};

const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 9]);
const PATIENCE: Duration = Duration::from_secs(20);

fn enslave(host: &Host, name: &str) -> BridgedNetwork {
    let request = EnslaveUplink {
        bridge: "br0".parse().unwrap(),
        uplink: "eth0".parse().unwrap(),
        name: Some(network(name)),
        mtu: None,
        confirm_seconds: None,
    };
    wait(host.client().enslave(&request, Run::Real)).unwrap().network.unwrap()
}

fn show(host: &Host, name: &str) -> BridgedNetwork {
    match wait(host.client().network(&network(name))).unwrap() {
        AnyNetwork::Bridged(network) => *network,
        AnyNetwork::Network(network) => panic!("{network:?} is not bridged"),
    }
}

fn edit(
    host: &Host,
    name: &str,
    change: impl Fn(&str) -> String,
    run: Run,
) -> Result<Changed<AnyNetwork>, ClientError> {
    let text = wait(host.client().definition(&network(name)))?;
    wait(host.client().edit(&network(name), change(&text), run))
}

#[test]
fn a_stopped_network_is_as_before_and_starts_again() {
    let host = Host::new();
    let netd = host.netd();
    let before = HostState::of(host.ns());
    enslave(&host, "lan");
    let up = HostState::of(host.ns());
    let dry = wait(host.client().stop(&network("lan"), Guests::Respect, Run::Dry)).unwrap();
    assert!(dry.plan.iter().any(|step| step.contains("take eth0 from its bridge")), "{dry:?}");
    up.assert_same(&HostState::of(host.ns()));

    let stopped = host.stop("lan").unwrap().network.unwrap();
    assert_eq!(*stopped.state(), State::Stopped);
    before.assert_same(&HostState::of(host.ns()));
    netd.kill9();
    let _netd = host.netd();
    assert_eq!(show(&host, "lan").state, State::Stopped, "it stays stopped over a restart");
    before.assert_same(&HostState::of(host.ns()));

    let dry = wait(host.client().start(&network("lan"), Run::Dry)).unwrap();
    assert!(dry.plan.iter().any(|step| step.contains("create bridge br0")), "{dry:?}");
    before.assert_same(&HostState::of(host.ns()));
    assert_eq!(*host.start("lan").unwrap().network.unwrap().state(), State::Active);
    assert!(host.ns().ip("addr show dev br0").contains("203.0.113.2/24"));
    let again = host.start("lan").unwrap();
    assert!(again.plan.is_empty() && again.notes[0].contains("already"), "{again:?}");

    host.delete("lan").unwrap();
    before.assert_same(&HostState::of(host.ns()));
    let (kind, _) = refusal(wait(host.client().network(&network("lan"))));
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(!host.paths().network(&network("lan")).exists());
}

#[test]
fn a_stopped_network_can_be_deleted_and_one_that_does_not_start_by_itself_does_not() {
    let host = Host::new();
    let netd = host.netd();
    enslave(&host, "lan");
    wait(host.client().autostart(&network("lan"), false)).unwrap();
    assert!(!show(&host, "lan").definition.autostart);
    host.stop("lan").unwrap();
    // As after a boot: what a person wanted last is forgotten.
    netd.kill9();
    std::fs::remove_file(host.paths().ledger()).unwrap();
    let _netd = host.netd();
    assert_eq!(show(&host, "lan").state, State::Stopped);
    host.delete("lan").unwrap();
    assert_eq!(wait(host.client().bridges()).unwrap(), []);
}

#[test]
fn the_managers_files_go_with_the_network_and_with_its_autostart() {
    let host = Host::new();
    let path = host.root.path().join("etc/network/interfaces");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let text = "auto eth0\niface eth0 inet static\n    address 203.0.113.2/24\n";
    std::fs::write(&path, text).unwrap();
    let is_ours = || match std::fs::read_to_string(&path).unwrap() {
        now if now == text => false,
        now if now.contains("iface br0 inet static") => true,
        now => panic!("{now}"),
    };
    let _netd = host.netd();
    enslave(&host, "lan");
    assert!(is_ours());
    let lan = network("lan");
    wait(host.client().autostart(&lan, false)).unwrap();
    assert!(!is_ours());
    let dry =
        edit(&host, "lan", |text| text.replace("autostart = false", "autostart = true"), Run::Dry);
    assert!(dry.unwrap().plan[0].contains("write /etc/network/interfaces"));
    assert!(!is_ours());
    wait(host.client().autostart(&lan, true)).unwrap();
    assert!(is_ours());
    host.stop("lan").unwrap();
    assert!(!is_ours());
    host.start("lan").unwrap();
    assert!(is_ours());
    // What a person has changed since is kept, and said.
    std::fs::write(&path, "# mine\n").unwrap();
    let stopped = host.stop("lan").unwrap();
    assert!(stopped.notes[0].contains("has been changed since"), "{stopped:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "# mine\n");
}

#[test]
fn an_edit_changes_a_network_that_is_up_and_refuses_what_needs_it_down() {
    let host = Host::new();
    let _netd = host.netd();
    enslave(&host, "lan");
    let guest = attach(&host);
    let with_mtu = |text: &str| format!("{text}mtu = 1400 # for the tunnel\n");
    let state = HostState::of(host.ns());
    let dry = edit(&host, "lan", with_mtu, Run::Dry).unwrap();
    assert_eq!(dry.plan.len(), 3, "{dry:?}");
    state.assert_same(&HostState::of(host.ns()));
    edit(&host, "lan", with_mtu, Run::Real).unwrap();
    for link in ["br0", guest.port.name.as_str()] {
        assert_eq!(host.ns().json(&format!("link show {link}"))[0]["mtu"], 1400, "{link}");
    }
    let text = std::fs::read_to_string(host.paths().network(&network("lan"))).unwrap();
    assert!(text.contains("# for the tunnel"), "{text}");

    let state = HostState::of(host.ns());
    for (from, to, reason) in [
        ("bridge = \"br0\"", "bridge = \"br1\"", "`vnet stop lan`"),
        ("uplink = \"eth0\"", "uplink = \"eth1\"", "`vnet stop lan`"),
        ("name = \"lan\"", "name = \"wan\"", "cannot be renamed"),
        ("mtu = 1400", "mtu = 9000", "no packet of more than 1500 bytes"),
        ("mtu = 1400", "mtu = 1", "line"),
        ("mode = \"bridged\"", "mode = \"nat\"", "mode"),
    ] {
        let (_, text) = refusal(edit(&host, "lan", |text| text.replace(from, to), Run::Real));
        assert!(text.contains(reason), "{to}: {text}");
        state.assert_same(&HostState::of(host.ns()));
        assert_eq!(show(&host, "lan").definition.mtu, Some(1400));
    }
    edit(&host, "lan", |text| text.replace("mtu = 1400 # for the tunnel\n", ""), Run::Real)
        .unwrap();
    assert_eq!(host.ns().json("link show br0")[0]["mtu"], 1500);

    let (_, text) = refusal(host.stop("lan"));
    assert!(text.contains("web") && text.contains("--force"), "{text}");
    host.cut_off("lan");
    edit(&host, "lan", |text| text.replace("\"br0\"", "\"br7\""), Run::Real).unwrap();
    host.start("lan").unwrap();
    // The guest comes back to its network, whatever the bridge is called now.
    let port = &host.ns().json(&format!("link show {}", guest.port.name))[0];
    assert_eq!(port["master"], "br7");
}

#[test]
fn what_is_no_request_for_a_bridged_network_is_refused_with_the_reason() {
    let host = Host::new();
    let _netd = host.netd();
    enslave(&host, "lan");
    let lan = network("lan");
    let forward =
        vnet_types::Forward::new("8080".parse().unwrap(), "203.0.113.50:80".parse().unwrap());
    let (_, text) = refusal(wait(host.client().add_forward(&lan, &forward, Run::Real)));
    assert!(text.contains("machines of the LAN behind eth0"), "{text}");
    let (_, text) = refusal(wait(host.client().leases(Some(&lan))));
    assert!(text.contains("`vnet show lan`"), "{text}");
    let (_, text) = refusal(host.create(&vnet_tests::nat("lan")));
    assert!(text.contains("is a bridged network"), "{text}");
}

#[test]
fn an_uplink_that_something_takes_away_is_put_back() {
    let host = Host::new();
    let netd = host.netd();
    let before = HostState::of(host.ns());
    enslave(&host, "lan");
    let guest = attach(&host);
    let up = HostState::of(host.ns());
    behind_its_back(&netd, || drop(host.ns().ip("link set eth0 nomaster")));
    netd.wait_for_log("has taken eth0 from br0; it is back", PATIENCE);
    until("an uplink under its bridge", || show(&host, "lan").state == State::Active);
    vnet_testkit::ping(host.ns(), Lan::SERVER.to_string().parse().unwrap()).unwrap();
    up.assert_same(&HostState::of(host.ns()));
    drop(guest);
    host.delete("lan").unwrap();
    before.assert_same(&HostState::of(host.ns()));
}

#[test]
fn an_uplink_that_something_has_another_use_for_is_named_and_not_fought_for() {
    let host = Host::new();
    let netd = host.netd();
    enslave(&host, "lan");
    let up = HostState::of(host.ns());
    behind_its_back(&netd, || {
        host.ns().ip("link add br9 type bridge");
        host.ns().ip("link set eth0 master br9");
    });
    let State::Failed { reason } = show(&host, "lan").state else { panic!("it is not up") };
    assert!(reason.contains("has taken eth0 from br0"), "{reason}");
    let (_, text) = refusal(host.start("lan"));
    assert!(text.contains("a port of the bridge br9 already"), "{text}");
    assert_eq!(host.ns().json("link show eth0")[0]["master"], "br9");
    behind_its_back(&netd, || drop(host.ns().ip("link del br9")));
    until("an uplink under its bridge", || show(&host, "lan").state == State::Active);
    up.assert_same(&HostState::of(host.ns()));
}

#[test]
fn a_damaged_journal_stops_nothing_and_its_bridge_can_still_be_released() {
    for kept in [0, 1, 500] {
        let host = Host::new();
        let before = HostState::of(host.ns());
        let netd = host.netd();
        host.create_default();
        let with_default = HostState::of(host.ns());
        enslave(&host, "lan");
        netd.kill9();
        let journal = host.paths().uplinks().join("br0.json");
        let bytes = std::fs::read(&journal).unwrap();
        std::fs::write(&journal, &bytes[..kept]).unwrap();
        let netd = host.netd();
        let said = netd.wait_for_log("was damaged, and is set aside", PATIENCE);
        assert!(said.contains("br0.json.damaged"), "{said}");
        assert_eq!(host.network("default").state, State::Active);
        assert_eq!(show(&host, "lan").state, State::Active);
        // Should the definition be gone as well, there is what we wrote on the bridge.
        std::fs::remove_file(host.paths().network(&network("lan"))).unwrap();
        netd.kill9();
        let _netd = host.netd();
        let (bridge, uplink) = ("br0".parse().unwrap(), "eth0".parse().unwrap());
        wait(host.client().release(&bridge, &uplink, Guests::Respect, Run::Real)).unwrap();
        with_default.assert_same(&HostState::of(host.ns()));
        host.delete("default").unwrap();
        before.assert_same(&HostState::of(host.ns()));
    }
}

/// A guest on the network `lan`, once the bridge passes its frames.
fn attach(host: &Host) -> PortGuest {
    let guest = PortGuest::attach(host, "lan", "web", MAC);
    host.ns().settle("br0");
    guest
}

/// Whether `frame` comes out at the LAN.
fn comes_out(guest: &PortGuest, lan: &FakeGuest, frame: &[u8]) -> bool {
    let marker = guest.send_and_mark(frame);
    let mut seen = false;
    let end = lan.seen(PATIENCE, |came| {
        // Short frames are padded.
        seen |= came.starts_with(frame) || frame.starts_with(came);
        Arp::parse(came) == Some(marker)
    });
    assert!(end.is_some(), "the marker always comes out");
    seen
}

#[test]
fn a_guest_gets_its_address_from_the_lan_and_it_is_shown() {
    let host = Host::new();
    let netd = host.netd();
    let _dhcp = LanDhcp::start(&host.lan.outside);
    enslave(&host, "lan");
    let guest = attach(&host);
    let offer = guest.dhcp(&DhcpMessage::discover(7, MAC), 2);
    let server = Lan::ROUTER;
    let ack = guest.dhcp(&DhcpMessage::request(8, MAC, offer.yiaddr, server), 5);
    let [first, last] = LanDhcp::RANGE;
    let address = ack.yiaddr;
    assert!((first..=last).contains(&address), "{address}");
    // It asks for its router, as guests do, and is heard on its port and answered from the LAN.
    guest.send(&Arp::request(MAC, address, Lan::ROUTER).frame(MacAddr::BROADCAST, MAC));
    let router = guest.wait_for("answer of the router", |frame| {
        Arp::parse(frame).filter(|arp| arp.sender == Lan::ROUTER && arp.target == address)
    });
    assert_eq!(router.sender_mac, host.lan.outside.mac("eth0"));
    let shows_it = || {
        let ports = show(&host, "lan").ports;
        ports.iter().any(|port| port.domain.as_str() == "web" && port.addresses == [address])
    };
    until("the address of the guest in `vnet show`", shows_it);
    assert!(netd.vnet_ok(["show", "lan"]).contains(&format!("{MAC}, {address}")));
    // The next netd learns it again.
    netd.kill9();
    let _netd = host.netd();
    until("the address of the guest in `vnet show`", || {
        guest.send(&Arp::request(MAC, address, Lan::ROUTER).frame(MacAddr::BROADCAST, MAC));
        shows_it()
    });
}

#[test]
fn a_guest_on_the_lan_is_held_to_its_mac_address_and_serves_nobody() {
    let host = Host::new();
    let _netd = host.netd();
    enslave(&host, "lan");
    let guest = attach(&host);
    let lan = FakeGuest::on(&host.lan.outside, "eth0");
    let other = MacAddr([0x52, 0x54, 0, 0, 0, 0xa]);
    let own = Ipv4Addr::new(203, 0, 113, 77);
    let datagram = |from_port, to_port| Udp {
        from: own,
        to: Ipv4Addr::BROADCAST,
        from_port,
        to_port,
        payload: vec![1, 2, 3, 4],
    };
    let offer = DhcpMessage::offer(9, other, own, own);
    let served = Udp { payload: offer.bytes(), ..datagram(67, 68) };
    let frames = [
        (
            "an ARP request from any address",
            true,
            Arp::request(MAC, own, Lan::ROUTER).frame(MacAddr::BROADCAST, MAC),
        ),
        ("a datagram from any address", true, datagram(5000, 5000).frame(MacAddr::BROADCAST, MAC)),
        ("a DISCOVER", true, DhcpMessage::discover(5, MAC).client_frame(MAC)),
        (
            "a frame from another station",
            false,
            datagram(5000, 5001).frame(MacAddr::BROADCAST, other),
        ),
        (
            "ARP for another station",
            false,
            Arp::request(other, own, Lan::ROUTER).frame(MacAddr::BROADCAST, MAC),
        ),
        ("a DHCP server's offer", false, served.frame(MacAddr::BROADCAST, MAC)),
        ("a router advertisement", false, frames::router_advertisement(MAC)),
        ("a BPDU", false, frames::bpdu(MAC)),
    ];
    for (what, passes, frame) in &frames {
        assert_eq!(comes_out(&guest, &lan, frame), *passes, "{what}");
    }
    // What the definition allows, passes; at once.
    edit(
        &host,
        "lan",
        |text| text.replace("anti_spoofing = true", "anti_spoofing = false"),
        Run::Real,
    )
    .unwrap();
    for (what, _, frame) in &frames {
        assert!(comes_out(&guest, &lan, frame), "{what}, without a guard");
    }
    edit(
        &host,
        "lan",
        |text| text.replace("anti_spoofing = false", "anti_spoofing = true"),
        Run::Real,
    )
    .unwrap();
    assert!(!comes_out(&guest, &lan, &frames::bpdu(MAC)));
}

#[test]
fn the_guard_of_a_bridged_network_comes_back_and_leaves_nothing() {
    let host = Host::new();
    let netd = host.netd();
    let before = HostState::of(host.ns());
    enslave(&host, "lan");
    let guest = attach(&host);
    let rules = host.ns().run(["nft", "-s", "list", "ruleset"]);
    assert!(rules.contains("lan_ports"), "{rules}");
    netd.kill9();
    let _netd = host.netd();
    assert_eq!(host.ns().run(["nft", "-s", "list", "ruleset"]), rules);
    host.ns().run(["nft", "delete", "table", "bridge", "vnet"]);
    until("the guard that somebody has deleted", || {
        host.ns().run(["nft", "-s", "list", "ruleset"]) == rules
    });
    drop(guest);
    until("a host without rules of ours", || host.ns().run(["nft", "list", "ruleset"]).is_empty());
    host.delete("lan").unwrap();
    before.assert_same(&HostState::of(host.ns()));
}
