//! The port socket: a tap for a VMM.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use vnet_api::ports::{Port, PortConnection, PortError, Request};
use vnet_testkit::{Udhcpc, frames};
use vnet_types::MacAddr;

use vnet_tests::{Host, network, refusal};

fn request(domain: &str, mac: &str) -> Request {
    Request::Attach {
        network: network("default"),
        domain: domain.parse().unwrap(),
        nic: 0,
        mac: mac.parse().unwrap(),
        queues: 1,
        limits: vnet_types::LinkLimits::default(),
    }
}

fn attach(
    host: &Host,
    request: &Request,
) -> Result<(PortConnection, Port, Vec<OwnedFd>), PortError> {
    PortConnection::open(&host.paths().ports_socket(), request)
}

#[test]
fn a_port_carries_frames_and_ends_with_its_descriptors() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let (connection, port, queues) = attach(&host, &request("web", "52:54:00:00:00:09")).unwrap();
    assert_eq!((port.mtu, port.link_up, queues.len()), (1500, true, 1));
    let view = host.network("default").ports;
    assert_eq!(view.len(), 1);
    assert_eq!((view[0].domain.as_str(), &view[0].interface), ("web", &port.name));
    assert_eq!(view[0].mac, "52:54:00:00:00:09".parse().unwrap());

    // Until it knows that it has a carrier, a bridge sends nothing.
    host.ns().settle("virbr0");
    // A DISCOVER, behind the header of virtio-net, is answered with an OFFER.
    let mac: MacAddr = "52:54:00:00:00:09".parse().unwrap();
    let mut frame = vec![0; vnet_tap_header()];
    frame.extend(frames::DhcpMessage::discover(7, mac).client_frame(mac));
    assert_eq!(nix::unistd::write(&queues[0], &frame).unwrap(), frame.len());
    let offer = read_until(&queues[0], |frame| {
        frames::DhcpMessage::parse_server_frame(&frame[vnet_tap_header()..])
    });
    assert_eq!(offer.kind(), Some(2));

    drop((connection, queues));
    assert!(host.ns().try_run(["ip", "link", "show", port.name.as_str()]).is_err());
    assert!(host.network("default").ports.is_empty());
}

fn vnet_tap_header() -> usize {
    12
}

fn read_until<T>(queue: &OwnedFd, matches: impl Fn(&[u8]) -> Option<T>) -> T {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let mut bytes = [0; 4096];
    loop {
        let mut ready = [PollFd::new(queue.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(Duration::from_secs(10)).unwrap();
        assert_eq!(poll(&mut ready, patience).unwrap(), 1, "no such frame within 10 s");
        let length = nix::unistd::read(queue, &mut bytes).unwrap();
        if let Some(found) = matches(&bytes[..length]) {
            return found;
        }
    }
}

#[test]
fn a_port_outlives_netd() {
    let host = Host::new();
    let netd = host.netd();
    host.create_default();
    let (connection, port, queues) = attach(&host, &request("web", "52:54:00:00:00:09")).unwrap();
    netd.kill9();
    assert!(matches!(connection.next_event(), Ok(None)));
    host.ns().run(["ip", "link", "show", port.name.as_str()]);
    let _netd = host.netd();
    assert_eq!(host.network("default").ports[0].domain.as_str(), "web");
    let resume = Request::Resume { port: port.name.clone() };
    let (_connection, resumed, none) = attach(&host, &resume).unwrap();
    assert_eq!((resumed, none.len()), (port, 0));
    assert!(queues[0].as_raw_fd() >= 0);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let host = Host::new();
    let _netd = host.netd();
    let refused = |request: &Request| attach(&host, request).unwrap_err().to_string();
    let text = refused(&request("web", "52:54:00:00:00:09"));
    assert!(text.contains("there is no network default"), "{text}");
    host.create_default();
    let _port = attach(&host, &request("web", "52:54:00:00:00:09")).unwrap();
    let text = refused(&request("web", "52:54:00:00:00:08"));
    assert!(text.contains("the domain web has a port"), "{text}");
    let text = refused(&request("db", "52:54:00:00:00:09"));
    assert!(text.contains("52:54:00:00:00:09 is in use"), "{text}");
    let bridge = host.network("default").bridge_mac.unwrap().to_string();
    let text = refused(&request("db", &bridge));
    assert!(text.contains("the host's interface virbr0"), "{text}");
    let text = refused(&request("db", "53:54:00:00:00:09"));
    assert!(text.contains("no station's"), "{text}");
    assert_eq!(host.network("default").ports.len(), 1);
}

#[test]
fn a_network_with_guests_is_not_pulled_away_from_them() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let (_connection, port, _queues) = attach(&host, &request("web", "52:54:00:00:00:09")).unwrap();
    let (_, text) = refusal(host.delete("default"));
    assert!(text.contains("web") && text.contains("--force"), "{text}");
    let (_, text) = refusal(host.stop("default"));
    assert!(text.contains("web"), "{text}");
    host.cut_off("default");
    // Its guest returns to it when it comes back.
    host.start("default").unwrap();
    let link = &host.ns().json(&format!("link show {}", port.name))[0];
    assert_eq!(link["master"], "virbr0");
}

#[test]
fn a_port_that_its_owner_made_persistent_ends_with_its_owner() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let (connection, port, queues) = attach(&host, &request("web", "52:54:00:00:00:09")).unwrap();
    // TUNSETPERSIST, linux/if_tun.h
    nix::ioctl_write_int!(set_persistent, b'T', 203);
    // SAFETY: TUNSETPERSIST takes its argument by value.
    unsafe { set_persistent(queues[0].as_raw_fd(), 1) }.unwrap();
    drop((connection, queues));
    let gone = || host.ns().try_run(["ip", "link", "show", port.name.as_str()]).is_err();
    host.ns().wait_for("the end of the port", Duration::from_secs(10), gone);
}

#[test]
fn two_guests_reach_each_other() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let (one, two) = (host.lan.guest_on("virbr0"), host.lan.guest_on("virbr0"));
    Udhcpc::obtain(&one.ns, "eth0");
    let lease = Udhcpc::obtain(&two.ns, "eth0");
    vnet_testkit::ping(&one.ns, lease.address).unwrap();
}
