//! The built-in guest on a network, with a tap in a namespace of the test's own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail as loudly as the test"
)]

mod common;

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept, bind, listen, setsockopt, socket,
    sockopt,
};
use serde_json::Value;
use vnet_api::ports::{self, Event, Port, Reply, Request};
use vnet_tap::Tap;
use vnet_testkit::Netns;
use vnet_testkit::frames::DhcpMessage;

const HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 122, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(192, 168, 122, 77);
/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A namespace with a tap, the host's address on it, a DHCP server and a TCP port.
struct Network {
    ns: Netns,
    tap: Option<OwnedFd>,
    name: String,
    tcp: TcpListener,
}

impl Network {
    fn new() -> Self {
        let ns = Netns::new();
        let tap = ns.enter(|| Tap::create("tap%d", 1)).unwrap();
        let name = tap.name().to_string();
        ns.address(&name, "192.168.122.1/24");
        ns.up(&name);
        let (tcp, dhcp) = ns.enter(|| {
            let dhcp = UdpSocket::bind("0.0.0.0:67").unwrap();
            setsockopt(&dhcp, sockopt::BindToDevice, &name.clone().into()).unwrap();
            dhcp.set_broadcast(true).unwrap();
            (TcpListener::bind(SocketAddrV4::new(HOST, 0)).unwrap(), dhcp)
        });
        thread::spawn(move || serve_dhcp(&dhcp));
        let tap = tap.into_queues().pop();
        Self { ns, tap, name, tcp }
    }

    fn command_line(&self) -> String {
        format!("vnet.connect={}", self.tcp.local_addr().unwrap())
    }
}

/// Offers and gives one address to whoever asks.
fn serve_dhcp(socket: &UdpSocket) {
    let mut bytes = [0; 1500];
    while let Ok((count, _)) = socket.recv_from(&mut bytes) {
        let Some(asked) = DhcpMessage::parse(&bytes[..count]) else { continue };
        let kind = if asked.kind() == Some(1) { 2 } else { 5 };
        let mut answer = DhcpMessage::offer(asked.xid, asked.chaddr, GUEST, HOST)
            .with(1, &[255, 255, 255, 0])
            .with(3, &HOST.octets());
        answer.options[0].1 = vec![kind];
        // The client has given up if this fails.
        let _ = socket.send_to(&answer.bytes(), "255.255.255.255:68");
    }
}

/// The built-in guest's file, built if it isn't there: it is another package's, which cargo does
/// not build for this one's tests.
fn guest() -> PathBuf {
    let vmm = Path::new(env!("CARGO_BIN_EXE_vnet-vmm"));
    let target = vmm.parent().unwrap().parent().unwrap();
    let built = Command::new(env!("CARGO"))
        .args(["build", "-q", "-p", "vnet-guest", "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(built.success());
    target.join("debug/vnet-guest")
}

fn vmm() -> Command {
    let mut command = common::command();
    command.env("VNET_GUEST", guest()).args(["--timeout", "30"]);
    command
}

/// The lines that a guest says, as they come.
fn lines(output: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Waits for a line with `text`.
fn wait_for(lines: &mpsc::Receiver<String>, text: &str) -> String {
    let mut before = Vec::new();
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) if line.contains(text) => return line,
            Ok(line) => before.push(line),
            Err(_) => panic!("the guest did not say `{text}`, but {before:#?}"),
        }
    }
}

#[test]
fn the_guest_gets_an_address_and_reaches_the_host_over_an_inherited_tap() {
    let network = Network::new();
    let tap = network.tap.as_ref().unwrap();
    // Leave it open over exec, under its own number.
    nix::fcntl::fcntl(tap, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let report = common::file(b"");
    let output = vmm()
        .args(["--tap-fd", &tap.as_raw_fd().to_string(), "--append", &network.command_line()])
        .args(["--report", report.to_str().unwrap()])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    for step in ["link ok", "dhcp ok", "gateway ok", "outside ok", "address=192.168.122.77/24"] {
        assert!(said.contains(step), "{step}: {said}");
    }
    assert_eq!(output.status.code(), Some(0));
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
    let nic = &report["nics"][0];
    assert_eq!((&nic["malformed"], &nic["tx_dropped"]), (&0.into(), &0.into()), "{report}");
    assert!(nic["rx_frames"].as_u64() >= Some(4), "{report}");
    drop(network.ns);
}

/// netd's part of the port protocol, on a socket under `root`.
struct Netd {
    listener: OwnedFd,
}

impl Netd {
    fn listen(root: &Path) -> Self {
        let directory = root.join("run/vnet");
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("ports.sock");
        // A previous one may have left its name there.
        let _ = std::fs::remove_file(&path);
        let kind = SockType::SeqPacket;
        let listener = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        listen(&listener, Backlog::new(4).unwrap()).unwrap();
        Self { listener }
    }

    /// Takes a connection, and answers its request with `port` and `taps`.
    fn answer(&self, port: Port, taps: &[OwnedFd]) -> (OwnedFd, Request) {
        use std::os::fd::FromRawFd;
        let raw = accept(self.listener.as_raw_fd()).unwrap();
        // SAFETY: the descriptor is new and nobody else's.
        let connection = unsafe { OwnedFd::from_raw_fd(raw) };
        let (request, _) = ports::receive::<Request>(raw).unwrap().unwrap();
        let fds: Vec<_> = taps.iter().map(AsRawFd::as_raw_fd).collect();
        ports::send(raw, &Reply::Attached(port), &fds).unwrap();
        (connection, request)
    }
}

fn stop(mut child: Child) {
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(6));
}

#[test]
fn netds_link_events_reach_the_guest_even_after_netd_has_come_back() {
    let mut network = Network::new();
    let root = tempfile::tempdir().unwrap();
    let netd = Netd::listen(root.path());
    let mut child = vmm()
        .args(["--net", "nat:default", "--name", "web", "--root"])
        .arg(root.path())
        .args(["--append", &format!("vnet.mode=stay {}", network.command_line())])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let port = |link_up| Port { name: network.name.parse().unwrap(), mtu: 1500, link_up };
    let tap = network.tap.take().unwrap();
    let (connection, request) = netd.answer(port(true), &[tap]);
    let Request::Attach { network: asked, domain, nic, queues, .. } = request else {
        panic!("{request:?}")
    };
    assert_eq!((asked.as_str(), domain.as_str(), nic, queues), ("default", "web", 0, 1));
    let lines = lines(child.stdout.take().unwrap());
    wait_for(&lines, "dhcp ok");
    wait_for(&lines, "done ok");
    ports::send(connection.as_raw_fd(), &Event::Link(false), &[]).unwrap();
    wait_for(&lines, "link down");
    // netd goes, and comes back with the link up: the guest hears of it.
    drop((connection, netd));
    let netd = Netd::listen(root.path());
    let (connection, request) = netd.answer(port(true), &[]);
    assert_eq!(request, Request::Resume { port: network.name.parse().unwrap() });
    wait_for(&lines, "link up");
    ports::send(connection.as_raw_fd(), &Event::Link(false), &[]).unwrap();
    wait_for(&lines, "link down");
    stop(child);
}
