//! `edit`: each kind of change while the network is up, with a real client before and after.

use std::net::{Ipv4Addr, TcpListener};

use vnet_api::client::{ClientError, Run};
use vnet_api::model::{AnyNetwork, Changed, ErrorKind, Reserve, State};
use vnet_api::ports::{PortConnection, Request};
use vnet_testkit::{Dhcpcd, Guest, HostState, Lan, Udhcpc, http_seen_as};
use vnet_types::MacAddr;

use vnet_tests::{Host, nat, network, refusal, wait};

/// A definition with comments, as a person writes one.
pub(crate) const DEFINITION: &str = r#"# the guests' network
name = "default"
mode = "nat"
bridge = "virbr0"   # as libvirt calls it
subnet = "192.168.122.0/24"
domain = "default.vnet"
mtu = 1500

[dhcp]
range = "192.168.122.100-192.168.122.200"
lease_seconds = 3600
"#;

fn text(host: &Host) -> String {
    std::fs::read_to_string(host.paths().network(&network("default"))).unwrap()
}

fn put(host: &Host, text: &str) -> Result<Changed, ClientError> {
    let changed = wait(host.client().edit(&network("default"), text.to_owned(), Run::Real))?;
    let Changed { network, plan, notes } = changed;
    Ok(Changed { network: network.and_then(AnyNetwork::into_network), plan, notes })
}

/// Replaces `from` by `to` in the definition, which is on disk to the byte afterwards.
fn edit(host: &Host, from: &str, to: &str) -> Changed {
    let new = text(host).replace(from, to);
    assert_ne!(new, text(host), "{from} is not in it");
    let changed = put(host, &new).unwrap();
    assert_eq!(text(host), new);
    assert!(!host.paths().networks().join("default.toml.new").exists());
    assert_eq!(host.network("default").state, State::Active);
    changed
}

fn start() -> (Host, vnet_testkit::Netd) {
    let host = Host::new();
    host.define("default", DEFINITION);
    let netd = host.netd();
    (host, netd)
}

/// The guest's lease is as it was, to netd and to the guest, and a renewal keeps its address.
fn keeps_its_lease(host: &Host, guest: &Guest, client: &mut vnet_testkit::DhcpClient) {
    let before = client.lease().clone();
    let lease = host.leases().into_iter().find(|lease| lease.mac == guest.mac).unwrap();
    assert_eq!((lease.address, lease.state.as_str()), (before.address.into(), "bound"));
    assert_eq!(client.renew().unwrap().address, before.address);
}

fn answer(guest: &Guest, server: &str, name: &str) -> String {
    guest.ns.run(["dig", "+short", "+tries=1", &format!("@{server}"), name]).trim().to_owned()
}

#[test]
fn a_new_range_is_for_new_guests_and_comments_stay() {
    let (host, _netd) = start();
    let guest = host.lan.guest_on("virbr0");
    let mut client = Udhcpc::on(&guest.ns, "eth0").start().unwrap();
    let before = client.lease().address;
    let changed = edit(&host, "122.100-192.168.122.200", "122.100-192.168.122.210");
    let write = format!("write {}", host.paths().network(&network("default")).display());
    assert_eq!(
        changed.plan[1..],
        ["tell DHCP and DNS of default what has changed".to_owned(), write],
        "the first step is a note in the ledger"
    );
    keeps_its_lease(&host, &guest, &mut client);
    // A range without the guest's address: it is told when it renews.
    let changed = edit(&host, "122.100-192.168.122.210", "122.20-192.168.122.30");
    assert!(changed.notes[0].contains("when they renew their leases, within 30 min"));
    let other = host.lan.guest_on("virbr0");
    let lease = Udhcpc::obtain(&other.ns, "eth0");
    assert!((20..=30).contains(&lease.address.octets()[3]), "{}", lease.address);
    let renewed = client.renew().unwrap().address;
    assert!((20..=30).contains(&renewed.octets()[3]), "{before} became {renewed}");
    assert!(text(&host).contains("# the guests' network"));
}

#[test]
fn lease_time_and_domain_reach_guests_at_renewal() {
    let (host, _netd) = start();
    let guest = host.lan.guest_on("virbr0");
    let mut client = Udhcpc::on(&guest.ns, "eth0").hostname("web").start().unwrap();
    let address = client.lease().address.to_string();
    assert_eq!(answer(&guest, "192.168.122.1", "web.default.vnet"), address);
    edit(&host, "lease_seconds = 3600", "lease_seconds = 600");
    edit(&host, "domain = \"default.vnet\"", "domain = \"lab.vnet\"");
    let renewed = client.renew().unwrap().clone();
    assert_eq!((renewed.lease_seconds, renewed.domain.as_deref()), (600, Some("lab.vnet")));
    assert_eq!(renewed.address.to_string(), address);
    assert_eq!(answer(&guest, "192.168.122.1", "web.lab.vnet"), address);
    assert_eq!(answer(&guest, "192.168.122.1", "web.default.vnet"), "");
}

#[test]
fn names_and_upstreams_change_at_once() {
    let (host, _netd) = start();
    let guest = host.lan.guest_on("virbr0");
    let mut client = Udhcpc::on(&guest.ns, "eth0").start().unwrap();
    assert_eq!(answer(&guest, "192.168.122.1", Lan::SERVER_NAME), Lan::SERVER.to_string());
    edit(
        &host,
        "lease_seconds = 3600\n",
        "lease_seconds = 3600\n[dns]\nupstreams = [\"203.0.113.9\"]\nhosts.wiki = [\"192.168.122.9\"]\n",
    );
    assert_eq!(answer(&guest, "192.168.122.1", "wiki.default.vnet"), "192.168.122.9");
    // Nobody answers at the new server, and the old one is not asked any more.
    let asked = ["dig", "+tries=1", "+timeout=1", "@192.168.122.1", "other.example"];
    let answer_of_nobody = guest.ns.try_run(asked).unwrap_or_default();
    assert!(!answer_of_nobody.contains("status: N"), "NOERROR or NXDOMAIN: {answer_of_nobody}");
    edit(&host, "upstreams = [\"203.0.113.9\"]\n", "");
    assert_eq!(answer(&guest, "192.168.122.1", Lan::SERVER_NAME), Lan::SERVER.to_string());
    keeps_its_lease(&host, &guest, &mut client);
}

#[test]
fn a_network_is_closed_and_opened_while_guests_are_on_it() {
    let (host, _netd) = start();
    let guest = host.lan.guest_on("virbr0");
    let mut client = Udhcpc::on(&guest.ns, "eth0").start().unwrap();
    let server = std::net::SocketAddr::from((Lan::SERVER, 80));
    assert_eq!(http_seen_as(&guest.ns, server).unwrap().ip(), Lan::HOST);
    edit(&host, "mode = \"nat\"", "mode = \"hostonly\"");
    assert!(http_seen_as(&guest.ns, server).is_err());
    assert_eq!(host.ns().sysctl("net.ipv4.ip_forward"), "0");
    assert_eq!(client.renew().unwrap().router, None);
    edit(&host, "mode = \"hostonly\"", "mode = \"nat\"");
    assert_eq!(client.renew().unwrap().router, Some(Ipv4Addr::new(192, 168, 122, 1)));
    assert_eq!(http_seen_as(&guest.ns, server).unwrap().ip(), Lan::HOST);
    host.ns().ip("link add eth7 type bridge");
    edit(&host, "subnet =", "uplink = \"eth7\"\nsubnet =");
    assert!(http_seen_as(&guest.ns, server).is_err());
    edit(&host, "eth7", "eth0");
    assert_eq!(http_seen_as(&guest.ns, server).unwrap().ip(), Lan::HOST);
    keeps_its_lease(&host, &guest, &mut client);
}

#[test]
fn another_subnet_is_there_at_once_and_guests_move_to_it() {
    let (host, netd) = start();
    let guest = host.lan.guest_on("virbr0");
    let client = Dhcpcd::on(&guest.ns, "eth0").start().unwrap();
    let changed = edit(&host, "192.168.122.", "10.20.30.");
    assert!(changed.notes[0].contains("an address of the new subnet"), "{:?}", changed.notes);
    assert!(host.ns().ip("-4 addr show virbr0").contains("inet 10.20.30.1/24"));
    assert!(!host.ns().ip("-4 addr show virbr0").contains("192.168.122"));
    assert!(host.leases().is_empty(), "leases of a subnet that is gone");
    // Its old address is none of this network: it is told so, and gets another.
    let client = client.reboot().unwrap();
    let address = client.lease().address;
    assert_eq!(address.octets()[..3], [10, 20, 30]);
    let server = std::net::SocketAddr::from((Lan::SERVER, 80));
    assert_eq!(http_seen_as(&guest.ns, server).unwrap().ip(), Lan::HOST);
    // Neither does a crash bring the old leases back, nor another edit.
    netd.kill9();
    let _netd = host.netd();
    assert_eq!(host.leases().iter().map(|lease| lease.address).collect::<Vec<_>>(), [address]);
    edit(&host, "10.20.30.", "192.168.122.");
    assert!(host.leases().is_empty());
}

#[test]
fn ports_go_with_a_bridge_that_is_renamed_and_learn_the_mtu() {
    let (host, _netd) = start();
    let mac: MacAddr = "52:54:00:00:00:09".parse().unwrap();
    let attach = Request::Attach {
        network: network("default"),
        domain: "web".parse().unwrap(),
        nic: 0,
        mac,
        queues: 1,
        limits: vnet_types::LinkLimits::default(),
    };
    let (_connection, port, _queues) =
        PortConnection::open(&host.paths().ports_socket(), &attach).unwrap();
    let link = |name: &str| host.ns().json(&format!("link show {name}"))[0].clone();
    let index = link(port.name.as_str())["ifindex"].clone();
    let bridge_mac = host.network("default").bridge_mac;
    let plan = edit(&host, "bridge = \"virbr0\"", "bridge = \"br-lab\"").plan;
    assert!(plan.contains(&format!("put port {} on br-lab", port.name)), "{plan:?}");
    assert_eq!(link(port.name.as_str())["master"], "br-lab");
    assert!(host.ns().try_run(["ip", "link", "show", "virbr0"]).is_err());
    // Guests have the gateway's address in their neighbour tables.
    assert_eq!(host.network("default").bridge_mac, bridge_mac);
    let guest = host.lan.guest_on("br-lab");
    let mut client = Udhcpc::on(&guest.ns, "eth0").start().unwrap();
    assert_eq!(client.lease().mtu, Some(1500));
    edit(&host, "mtu = 1500", "mtu = 1400");
    assert_eq!(link(port.name.as_str())["mtu"], 1400);
    assert_eq!(link("br-lab")["mtu"], 1400);
    assert_eq!(client.renew().unwrap().mtu, Some(1400));
    assert_eq!(link(port.name.as_str())["ifindex"], index);
    assert_eq!(host.network("default").ports.len(), 1);
}

#[test]
fn leases_go_along_with_a_bridge_that_is_renamed() {
    let (host, _netd) = start();
    let guest = host.lan.guest_on("virbr0");
    let mut client = Udhcpc::on(&guest.ns, "eth0").hostname("web").start().unwrap();
    edit(&host, "bridge = \"virbr0\"", "bridge = \"br-lab\"");
    // The cable of this guest is none of vnet's ports.
    host.ns().enslave(&guest.port, "br-lab");
    keeps_its_lease(&host, &guest, &mut client);
    let address = client.lease().address.to_string();
    assert_eq!(answer(&guest, "192.168.122.1", "web.default.vnet"), address);
}

#[test]
fn dhcp_is_turned_off_and_on_and_leases_survive_it() {
    let (host, _netd) = start();
    let guest = host.lan.guest_on("virbr0");
    let mut client = Udhcpc::on(&guest.ns, "eth0").start().unwrap();
    let dhcp = DEFINITION.split_once("[dhcp]").unwrap().1;
    edit(&host, &format!("[dhcp]{dhcp}"), "");
    assert!(host.network("default").definition.dhcp.is_none());
    put(&host, DEFINITION).unwrap();
    keeps_its_lease(&host, &guest, &mut client);
}

#[test]
fn a_reservation_that_is_made_while_a_guest_is_up_is_its_at_renewal() {
    let (host, _netd) = start();
    let guest = host.lan.guest_on("virbr0");
    let mut client = Udhcpc::on(&guest.ns, "eth0").start().unwrap();
    let before = client.lease().address;
    let ip = Ipv4Addr::new(192, 168, 122, 7);
    let reserve = Reserve { ip: Some(ip), ip6: None, hostname: Some("db".parse().unwrap()) };
    let name = network("default");
    let request = host.client();
    wait(request.reserve(&name, guest.mac, &reserve, Run::Real)).unwrap();
    let expected = format!(
        "{DEFINITION}\n[[dhcp.reservations]]\nmac = \"{}\"\nip = \"{ip}\"\nhostname = \"db\"\n",
        guest.mac
    );
    assert_eq!(text(&host), expected);
    assert_eq!(answer(&guest, "192.168.122.1", "db.default.vnet"), ip.to_string());
    assert_ne!(before, ip);
    assert_eq!(client.renew().unwrap().address, ip);
    wait(request.unreserve(&name, guest.mac, Run::Real)).unwrap();
    assert_eq!(text(&host), DEFINITION);
    assert_ne!(client.renew().unwrap().address, ip);
    let (kind, text) = refusal(wait(request.unreserve(&name, guest.mac, Run::Real)));
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(text.contains("nothing is reserved"), "{text}");
}

#[test]
fn autostart_is_what_netd_looks_at_after_a_reboot() {
    let (host, netd) = start();
    edit(&host, "mtu = 1500", "mtu = 1500\nautostart = false");
    host.stop("default").unwrap();
    // A reboot forgets what people started and stopped.
    let reboot = |netd: vnet_testkit::Netd| {
        netd.kill9();
        if host.paths().ledger().exists() {
            std::fs::remove_file(host.paths().ledger()).unwrap();
        }
        host.netd()
    };
    let netd = reboot(netd);
    assert_eq!(host.network("default").state, State::Stopped);
    // That of a network that is not up can be edited, too.
    put(&host, DEFINITION).unwrap();
    assert_eq!(host.network("default").state, State::Stopped);
    let _netd = reboot(netd);
    assert_eq!(host.network("default").state, State::Active);
}

#[test]
fn forwards_come_and_go_with_the_text() {
    let (host, _netd) = start();
    let forward = "\n[[forwards]] # the web server\nport = 8080\ntarget = \"192.168.122.9:80\"\n";
    edit(&host, "lease_seconds = 3600\n", &format!("lease_seconds = 3600\n{forward}"));
    assert!(host.ns().run(["nft", "list", "ruleset"]).contains("192.168.122.9"));
    let listener = host.ns().enter(|| TcpListener::bind("0.0.0.0:8081").unwrap());
    refuses(&host, "port = 8080", "port = 8081", ErrorKind::Conflict, &["8081/tcp", "listens"]);
    drop(listener);
    edit(&host, forward, "");
    assert!(!host.ns().run(["nft", "list", "ruleset"]).contains("192.168.122.9"));
}

/// Replacing `from` by `to` is refused with a message that has all of `words`; nothing changes.
fn refuses(host: &Host, from: &str, to: &str, kind: ErrorKind, words: &[&str]) {
    let (old, before, leases) = (text(host), HostState::of(host.ns()), host.leases());
    let new = old.replace(from, to);
    assert_ne!(new, old, "{from} is not in it");
    let (found, message) = refusal(put(host, &new));
    assert_eq!(found, kind, "{message}");
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
    assert_eq!(text(host), old);
    before.assert_same(&HostState::of(host.ns()));
    assert_eq!(host.leases(), leases);
    assert_eq!(host.network("default").state, State::Active);
    let files = std::fs::read_dir(host.paths().networks()).unwrap();
    assert!(files.flatten().all(|file| !file.file_name().to_string_lossy().ends_with(".new")));
}

#[test]
fn what_is_wrong_is_refused_with_its_place_and_nothing_changes() {
    let (host, _netd) = start();
    let mut other = nat("other");
    other.subnet = Some("10.9.9.0/24".parse().unwrap());
    host.create(&other).unwrap();
    host.ns().ip("link add br9 type bridge");
    host.ns().route("10.7.0.0/16", "203.0.113.1");
    let guest = host.lan.guest_on("virbr0");
    let mut client = Udhcpc::on(&guest.ns, "eth0").start().unwrap();
    use ErrorKind::{Conflict, Invalid};
    let refuses = |from, to, kind, words: &[&str]| refuses(&host, from, to, kind, words);
    refuses("mtu = 1500", "mtu = 1500 bytes", Invalid, &["line 7, column 7"]);
    refuses("mtu =", "mut =", Invalid, &["line 7, column 1", "mut"]);
    refuses("mtu = 1500", "mtu = 100", Invalid, &["line 7, column 7", "choose 576 to"]);
    refuses("122.200", "123.200", Invalid, &["line 10, column 9", "does not fit the subnet"]);
    refuses("name = \"default\"", "name = \"new\"", Invalid, &["renamed", "create"]);
    refuses("192.168.122.", "10.9.9.", Conflict, &["network other", "is free"]);
    refuses("192.168.122.", "10.7.1.", Conflict, &["route to 10.7.0.0/16"]);
    refuses("192.168.122.", "203.0.113.", Conflict, &["203.0.113.2/24", "eth0"]);
    refuses("\"virbr0\"", "\"virbr1\"", Conflict, &["virbr1", "other"]);
    refuses("default.vnet", "other.vnet", Conflict, &["other.vnet", "network other"]);
    refuses("mtu =", "uplink = \"eth9\"\nmtu =", Conflict, &["no interface eth9"]);
    refuses("\"virbr0\"", "\"br9\"", Conflict, &["br9", "already"]);
    let (kind, message) =
        refusal(wait(host.client().edit(&network("nope"), DEFINITION.to_owned(), Run::Real)));
    assert_eq!(kind, ErrorKind::NotFound, "{message}");
    keeps_its_lease(&host, &guest, &mut client);
}

#[test]
fn what_the_host_refuses_half_way_is_rolled_back() {
    let (host, _netd) = start();
    let guest = host.lan.guest_on("virbr0");
    let mut client = Udhcpc::on(&guest.ns, "eth0").start().unwrap();
    // The bridge, its address and the firewall can change; the DNS server cannot.
    host.ns().ip("addr add 10.20.30.1/32 dev lo");
    let _taken = host.ns().enter(|| TcpListener::bind("10.20.30.1:53").unwrap());
    host.ns().ip("addr del 10.20.30.1/32 dev lo");
    refuses(&host, "192.168.122.", "10.20.30.", ErrorKind::Failed, &["DNS", "10.20.30.1:53"]);
    keeps_its_lease(&host, &guest, &mut client);
    let server = std::net::SocketAddr::from((Lan::SERVER, 80));
    assert_eq!(http_seen_as(&guest.ns, server).unwrap().ip(), Lan::HOST);
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let (host, _netd) = start();
    let before = HostState::of(host.ns());
    let new = DEFINITION.replace("192.168.122.", "10.20.30.").replace("1500", "1400");
    let changed = wait(host.client().edit(&network("default"), new, Run::Dry)).unwrap();
    for step in [
        "delete address 192.168.122.1/24 from virbr0",
        "set virbr0 mtu 1400",
        "add address 10.20.30.1/24 to virbr0",
        "restart DHCP and DNS of default",
    ] {
        assert!(changed.plan.iter().any(|line| line == step), "{step}: {:?}", changed.plan);
    }
    before.assert_same(&HostState::of(host.ns()));
    assert_eq!(text(&host), DEFINITION);
    assert_eq!(host.network("default").definition.mtu, Some(1500));
}

#[test]
fn the_same_text_changes_nothing() {
    let (host, _netd) = start();
    let before = HostState::of(host.ns());
    assert_eq!(put(&host, DEFINITION).unwrap().plan, <[String; 0]>::default());
    before.assert_same(&HostState::of(host.ns()));
}

#[test]
fn a_definition_that_cannot_be_used_is_mended_by_an_edit() {
    let host = Host::new();
    host.define("default", &DEFINITION.replace("bridge =", "brigde ="));
    let _netd = host.netd();
    let broken = wait(host.client().definition(&network("default"))).unwrap();
    assert!(broken.contains("brigde"));
    let changed = put(&host, DEFINITION).unwrap();
    assert_eq!(changed.network.unwrap().state, State::Stopped);
    host.start("default").unwrap();
    assert_eq!(host.network("default").state, State::Active);
}

#[test]
fn a_file_changed_by_hand_while_its_network_is_up_is_applied_by_an_edit() {
    let (host, _netd) = start();
    let new = DEFINITION.replace("1500", "1400");
    host.define("default", &new);
    assert_eq!(host.network("default").definition.mtu, Some(1500));
    assert!(put(&host, &new).unwrap().plan.contains(&"set virbr0 mtu 1400".to_owned()));
    assert_eq!(host.network("default").definition.mtu, Some(1400));
}
