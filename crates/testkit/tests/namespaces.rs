//! Namespaces are separate, end to end, for threads and children alike.
// Tests fail by panicking.
#![allow(clippy::unwrap_used)]

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use vnet_testkit::Netns;

#[test]
fn each_namespace_has_interfaces_of_its_own() {
    let (a, b) = (Netns::new(), Netns::new());
    a.bridge("br7");
    assert!(a.ip("link").contains("br7"));
    assert!(!b.ip("link").contains("br7"));
    assert!(!a.is(&b) && a.is(&a.clone()));
    assert!(!std::path::Path::new("/sys/class/net/br7").exists());
}

#[test]
fn threads_and_children_see_the_settings_of_their_namespace() {
    let (a, b) = (Netns::new(), Netns::new());
    a.set_sysctl("net.ipv4.ip_forward", "1");
    assert_eq!(a.sysctl("net.ipv4.ip_forward"), "1");
    assert_eq!(b.sysctl("net.ipv4.ip_forward"), "0");
    // A child that writes, as a daemon does, changes its own namespace and no other.
    b.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/all/proxy_arp"]);
    assert_eq!(b.run(["cat", "/proc/sys/net/ipv4/conf/all/proxy_arp"]).trim(), "1");
    assert_eq!(a.sysctl("net.ipv4.conf.all.proxy_arp"), "0");
}

#[test]
fn a_cable_carries_packets_between_two_namespaces() {
    let (a, b) = (Netns::new(), Netns::new());
    Netns::veth(&a, "eth0", &b, "eth1");
    a.address("eth0", "10.1.0.1/24");
    b.address("eth1", "10.1.0.2/24");
    let listener = b.enter(|| TcpListener::bind("10.1.0.2:9")).unwrap();
    let stream = a.enter(|| TcpStream::connect("10.1.0.2:9")).unwrap();
    let (_, peer) = listener.accept().unwrap();
    assert_eq!(peer, stream.local_addr().unwrap());
    assert_ne!(a.mac("eth0"), b.mac("eth1"));
}

#[test]
fn a_bridge_joins_its_ports() {
    let (host, left, right) = (Netns::new(), Netns::new(), Netns::new());
    host.bridge("br0");
    for (ns, port, address) in [(&left, "p1", "10.2.0.1/24"), (&right, "p2", "10.2.0.2/24")] {
        Netns::veth(&host, port, ns, "eth0");
        host.enslave(port, "br0");
        ns.address("eth0", address);
    }
    let receiver = right.enter(|| UdpSocket::bind("10.2.0.2:7")).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let sender = left.enter(|| UdpSocket::bind("10.2.0.1:7")).unwrap();
    sender.send_to(b"hello", "10.2.0.2:7").unwrap();
    let mut buffer = [0; 16];
    let (length, from) = receiver.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&b"hello"[..], "10.2.0.1:7".parse().unwrap()));
}

#[test]
fn a_failing_command_says_what_it_printed() {
    let error = Netns::new().try_run(["ip", "link", "show", "nosuch0"]).unwrap_err();
    assert!(format!("{error:#}").contains("nosuch0"), "{error:#}");
}
