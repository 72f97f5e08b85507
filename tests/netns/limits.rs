//! Limits hold, in both directions, for networks and for ports, and leave nothing behind.
//!
//! What is counted is bytes that have arrived while more waited all the time. A bucket lets so many
//! pass as its rate allows, and its burst once: a twentieth here, however busy the machine is.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vnet_api::client::Run;
use vnet_api::model::CreateNetwork;
use vnet_api::ports::{Port, PortConnection, Request};
use vnet_testkit::frames::Udp;
use vnet_testkit::{HostState, Lan, Netd, Netns, http_seen_as};
use vnet_types::{Limits, LinkLimits, MacAddr};

use vnet_tests::{Host, behind_its_back, nat, network, wait};

/// 8 mbit.
const RATE: f64 = 1_000_000.0;
const LIMIT: &str = "8mbit/100kbyte";
/// How long is measured.
const TIME: Duration = Duration::from_secs(3);
/// Between two handfuls of datagrams, so that four times as much is sent as may pass.
const TICK: Duration = Duration::from_millis(2);
const HANDFUL: u32 = 7;
const PAYLOAD: [u8; 1200] = [b'x'; 1200];
/// Far longer than netd takes to see what has changed.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a virtio network header takes on a port.
const HEADER: usize = 12;
const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 9]);
const TAP: Ipv4Addr = Ipv4Addr::new(192, 168, 122, 9);
const GUEST: Ipv4Addr = Ipv4Addr::new(192, 168, 122, 50);

/// A host with the network `default`, with these limits and addresses that guests choose.
fn host_with(limits: Limits) -> (Host, Netd) {
    let host = Host::new();
    let netd = host.netd();
    host.create(&CreateNetwork { limits, dhcp: false, ..nat("default") }).unwrap();
    (host, netd)
}

fn guest(host: &Host) -> Netns {
    let guest = host.lan.guest_on("virbr0");
    guest.ns.address("eth0", &format!("{GUEST}/24"));
    guest.ns.route("default", "192.168.122.1");
    guest.ns
}

struct Tap {
    _connection: PortConnection,
    port: Port,
    queue: OwnedFd,
}

fn attach(host: &Host, limits: LinkLimits) -> Tap {
    let request = Request::Attach {
        network: network("default"),
        domain: "web".parse().unwrap(),
        nic: 0,
        mac: MAC,
        queues: 1,
        limits,
    };
    let opened = PortConnection::open(&host.paths().ports_socket(), &request);
    let (connection, port, mut queues) = opened.unwrap();
    Tap { _connection: connection, port, queue: queues.remove(0) }
}

fn inbound(limit: &str) -> LinkLimits {
    LinkLimits { inbound: Some(limit.parse().unwrap()), outbound: None }
}

fn outbound(limit: &str) -> LinkLimits {
    LinkLimits { inbound: None, outbound: Some(limit.parse().unwrap()) }
}

/// Bytes that have come to `eth0` of a namespace.
fn received(ns: &Netns) -> u64 {
    ns.json("-s link show eth0")[0]["stats64"]["rx"]["bytes"].as_u64().unwrap()
}

/// Sends more than may pass all the time, and asserts that as much has arrived as may.
#[track_caller]
fn passes_at_the_rate(mut send: impl FnMut(), arrived: impl Fn() -> u64) {
    send();
    let (begun, before) = (Instant::now(), arrived());
    while begun.elapsed() < TIME {
        (0..HANDFUL).for_each(|_| send());
        // The pace of the sender: it waits for nothing.
        thread::sleep(TICK);
    }
    let (bytes, time) = (arrived() - before, begun.elapsed());
    let ratio = bytes as f64 / (RATE * time.as_secs_f64());
    assert!((0.9..=1.1).contains(&ratio), "{bytes} bytes in {time:?}: {ratio:.3} of the rate");
}

/// A socket in `ns` that sends to `to`, where somebody listens and does not read.
fn sender(ns: &Netns, to: SocketAddr) -> impl FnMut() + use<> {
    let socket = ns.enter(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    socket.connect(to).unwrap();
    move || drop(socket.send(&PAYLOAD))
}

fn sink(ns: &Netns, address: Ipv4Addr) -> (UdpSocket, SocketAddr) {
    let socket = ns.enter(|| UdpSocket::bind((address, 0)).unwrap());
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[test]
fn what_guests_get_from_beyond_their_network() {
    let (host, _netd) = host_with(Limits { inbound: LIMIT.parse().ok(), ..Limits::default() });
    let guest = guest(&host);
    let (_sink, address) = sink(&guest, GUEST);
    passes_at_the_rate(sender(host.ns(), address), || received(&guest));
}

#[test]
fn what_guests_send_beyond_their_network() {
    let (host, _netd) = host_with(Limits { outbound: LIMIT.parse().ok(), ..Limits::default() });
    let guest = guest(&host);
    let (_sink, address) = sink(&host.lan.outside, Lan::SERVER);
    let mut send = sender(&guest, address);
    // What a network that was quiet may send at once.
    let begun = Instant::now();
    while begun.elapsed() < TIME {
        (0..HANDFUL).for_each(|_| send());
        thread::sleep(TICK);
    }
    passes_at_the_rate(send, || received(&host.lan.outside));
    http_seen_as(&guest, SocketAddr::new(Lan::SERVER.into(), 80)).unwrap();
}

#[test]
fn what_a_port_gets() {
    let (host, _netd) = host_with(Limits::default());
    let guest = guest(&host);
    let tap = attach(&host, inbound(LIMIT));
    guest.ip(&format!("neigh add {TAP} lladdr {MAC} dev eth0"));
    let count = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut frame = vec![0; 65_550];
            // Until the port is gone.
            loop {
                match nix::unistd::read(&tap.queue, &mut frame) {
                    Ok(length) => count.fetch_add((length - HEADER) as u64, Ordering::Relaxed),
                    Err(nix::errno::Errno::EAGAIN) => {
                        wait_readable(&tap.queue);
                        continue;
                    }
                    Err(_) => break,
                };
            }
        });
        let arrived = || count.load(Ordering::Relaxed);
        passes_at_the_rate(sender(&guest, SocketAddr::new(TAP.into(), 9)), arrived);
        // Gone with its network: reading fails from now on.
        host.ns().ip(&format!("link del {}", tap.port.name));
    });
}

fn wait_readable(queue: &OwnedFd) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    poll(&mut [PollFd::new(queue.as_fd(), PollFlags::POLLIN)], PollTimeout::from(1000u16)).unwrap();
}

#[test]
fn what_a_port_sends() {
    // The network's limit for all ports is the stricter one.
    let (host, _netd) = host_with(Limits { port_out: LIMIT.parse().ok(), ..Limits::default() });
    let guest = guest(&host);
    let tap = attach(&host, outbound("1gbit"));
    let frame =
        Udp { from: TAP, from_port: 1000, to: GUEST, to_port: 9, payload: PAYLOAD.to_vec() }
            .frame(guest.mac("eth0"), MAC);
    let bytes = [&[0; HEADER][..], &frame].concat();
    let send = || {
        let _ = nix::unistd::write(&tap.queue, &bytes);
    };
    passes_at_the_rate(send, || received(&guest));
}

/// What traffic control has on the host, without numbers.
fn queues(host: &Host) -> Vec<String> {
    HostState::of(host.ns()).lines_with("queue: ")
}

fn put(host: &Host, change: impl Fn(&str) -> String) {
    let name = network("default");
    let text = std::fs::read_to_string(host.paths().network(&name)).unwrap();
    wait(host.client().edit(&name, change(&text), Run::Real)).unwrap();
}

#[test]
fn limits_come_and_go_with_an_edit_and_leave_nothing() {
    let (host, netd) = host_with(Limits::default());
    let tap = attach(&host, LinkLimits::default());
    host.ns().settle("virbr0");
    let before = HostState::of(host.ns());
    let all = "\n[limits]\nin = \"80mbit\"\nout = \"40mbit/64kbyte\"\nport_in = \"20mbit\"\nport_out = \"10mbit\"\n";
    put(&host, |text| format!("{text}{all}"));
    let limited = queues(&host);
    let with = |link: &str, kind: &str| {
        limited.iter().any(|line| line.contains(&format!("{link} ")) && line.contains(kind))
    };
    let port = tap.port.name.as_str();
    assert!(with("virbr0", "kind=tbf") && with(port, "kind=tbf"), "{limited:#?}");
    assert!(with(port, "kind=ingress"), "{limited:#?}");
    let firewall = host.ns().run(["nft", "list", "map", "inet", "vnet", "rates"]);
    assert!(firewall.contains("\"virbr0\" : \"virbr0/5000000/"), "{firewall}");
    // A new netd finds them as they are to be.
    netd.kill9();
    let netd = host.netd();
    assert_eq!(queues(&host), limited);
    assert!(!netd.log().contains("limit what"), "{}", netd.log());
    put(&host, |text| text.replace("80mbit", "81mbit").replace("10mbit", "11mbit"));
    assert_eq!(queues(&host).len(), limited.len());
    assert_ne!(queues(&host), limited);
    put(&host, |text| text.split("\n[limits]").next().unwrap().to_owned() + "\n");
    before.assert_same(&HostState::of(host.ns()));
}

#[test]
fn what_somebody_takes_away_comes_back() {
    let limits = Limits {
        inbound: "80mbit".parse().ok(),
        outbound: "40mbit".parse().ok(),
        ..Limits::default()
    };
    let (host, netd) = host_with(limits);
    let tap = attach(&host, outbound("10mbit"));
    let port = &tap.port.name;
    let before = queues(&host);
    let damage: [&[&str]; 3] = [
        &["tc qdisc del dev virbr0 root"],
        &[&format!("tc qdisc del dev {port} ingress")],
        &["ip link del $(ip -o link show type ifb | cut -d: -f2)", "tc qdisc del dev virbr0 root"],
    ];
    for commands in damage {
        behind_its_back(&netd, || {
            host.ns().run(["sh", "-ec", &commands.join("; ")]);
        });
        host.ns().wait_for("the limits of before", PATIENCE, || queues(&host) == before);
    }
    drop(tap);
    host.ns().wait_for("no port", PATIENCE, || host.network("default").ports.is_empty());
    host.delete("default").unwrap();
    assert!(queues(&host).iter().all(|line| !line.contains("tbf")), "{:?}", queues(&host));
    assert_eq!(host.ns().run(["ip", "link", "show", "type", "ifb"]), "");
}

#[test]
fn a_ports_queues_go_with_it_whether_netd_looks_or_not() {
    let (host, netd) = host_with(Limits::default());
    let before = queues(&host);
    let limits = LinkLimits { inbound: "10mbit".parse().ok(), outbound: "5mbit".parse().ok() };
    let ifbs = || host.ns().run(["ip", "-o", "link", "show", "type", "ifb"]).lines().count();
    let tap = attach(&host, limits);
    assert_eq!(ifbs(), 1);
    assert_eq!(host.network("default").ports[0].limits, limits);
    drop(tap);
    host.ns().wait_for("no queue", PATIENCE, || ifbs() == 0);
    let tap = attach(&host, limits);
    netd.kill9();
    drop(tap);
    assert_eq!(ifbs(), 1);
    let _netd = host.netd();
    host.ns().wait_for("no queue", PATIENCE, || ifbs() == 0);
    assert_eq!(queues(&host), before);
}

#[test]
fn somebodys_own_queue_on_a_bridge_without_a_limit_is_left_alone() {
    let (host, _netd) = host_with(Limits::default());
    host.ns().run([
        "tc", "qdisc", "add", "dev", "virbr0", "root", "tbf", "rate", "1mbit", "burst", "9kb",
        "limit", "9kb",
    ]);
    let before = queues(&host);
    host.create(&nat("other")).unwrap();
    host.delete("other").unwrap();
    assert_eq!(queues(&host), before);
}
