//! A guest of one port of netd's, which does nothing by itself: a test sends its frames one by one.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vnet_api::ports::{Port, PortConnection, Request};
use vnet_testkit::frames::{Arp, DhcpMessage};
use vnet_types::{LinkLimits, MacAddr};

use crate::{Host, network};

const PATIENCE: Duration = Duration::from_secs(20);
/// The header of virtio-net in front of each frame.
const HEADER: usize = 12;

/// The guest. Its port is there as long as this is.
pub struct PortGuest {
    _connection: PortConnection,
    /// Its port.
    pub port: Port,
    queue: OwnedFd,
    mac: MacAddr,
}

impl PortGuest {
    /// A guest on `network`, in the name of `domain`.
    pub fn attach(host: &Host, on: &str, domain: &str, mac: MacAddr) -> Self {
        let request = Request::Attach {
            network: network(on),
            domain: domain.parse().unwrap(),
            nic: 0,
            mac,
            queues: 1,
            limits: LinkLimits::default(),
        };
        let (connection, port, mut queues) =
            PortConnection::open(&host.paths().ports_socket(), &request).unwrap();
        Self { _connection: connection, port, queue: queues.remove(0), mac }
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) {
        let bytes = [&[0; HEADER][..], frame].concat();
        assert_eq!(nix::unistd::write(&self.queue, &bytes).unwrap(), bytes.len());
    }

    fn receive(&self, deadline: Instant) -> Option<Vec<u8>> {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut ready = [PollFd::new(self.queue.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::try_from(left).unwrap()).unwrap() == 0 {
            return None;
        }
        let mut bytes = vec![0; 65_550];
        let length = nix::unistd::read(&self.queue, &mut bytes).unwrap();
        Some(bytes[HEADER..length].to_vec())
    }

    /// Waits for the frame of which `read` makes something.
    #[track_caller]
    pub fn wait_for<T>(&self, what: &str, read: impl Fn(&[u8]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let frame = self.receive(deadline).unwrap_or_else(|| panic!("no {what}"));
            if let Some(found) = read(&frame) {
                return found;
            }
        }
    }

    /// Sends a DHCP message and waits for the answer of this kind. It is sent anew each second, as
    /// clients do (RFC 2131 §4.1): the bridge may not pass the first frames of a new port.
    #[track_caller]
    pub fn dhcp(&self, message: &DhcpMessage, answer: u8) -> DhcpMessage {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            self.send(&message.client_frame(self.mac));
            let again = Instant::now() + Duration::from_secs(1);
            while let Some(frame) = self.receive(again) {
                let reply = DhcpMessage::parse_server_frame(&frame)
                    .filter(|reply| reply.xid == message.xid && reply.kind() == Some(answer));
                if let Some(reply) = reply {
                    return reply;
                }
            }
        }
        panic!("no answer of the DHCP server");
    }

    /// Gets a lease of this server, as a client does.
    pub fn lease(&self, server: Ipv4Addr) -> Ipv4Addr {
        let offer = self.dhcp(&DhcpMessage::discover(7, self.mac), 2);
        let request = DhcpMessage::request(8, self.mac, offer.yiaddr, server);
        self.dhcp(&request, 5).yiaddr
    }

    /// Sends `frame`, and an ARP probe that always comes through after it; gives back the probe.
    pub fn send_and_mark(&self, frame: &[u8]) -> Arp {
        let nobody = Ipv4Addr::new(192, 0, 2, 250);
        let marker = Arp::request(self.mac, Ipv4Addr::UNSPECIFIED, nobody);
        self.send(frame);
        self.send(&marker.frame(MacAddr::BROADCAST, self.mac));
        marker
    }

    /// Whether `frame` comes through to the other guest.
    pub fn reaches(&self, observer: &Self, frame: &[u8]) -> bool {
        let marker = self.send_and_mark(frame);
        let deadline = Instant::now() + PATIENCE;
        let mut seen = false;
        loop {
            let came = observer.receive(deadline).expect("the marker always comes through");
            seen |= seen_in(&came, frame);
            if Arp::parse(&came) == Some(marker) {
                return seen;
            }
        }
    }

    /// The frame must come through.
    #[track_caller]
    pub fn passes(&self, observer: &Self, what: &str, frame: &[u8]) {
        assert!(self.reaches(observer, frame), "{what} was dropped");
    }

    /// The frame must not.
    #[track_caller]
    pub fn is_stopped(&self, observer: &Self, what: &str, frame: &[u8]) {
        assert!(!self.reaches(observer, frame), "{what} came through");
    }
}

/// Whether `came` is what was sent, but for padding, which br_netfilter cuts off.
pub fn seen_in(came: &[u8], sent: &[u8]) -> bool {
    let bare = |frame: &[u8]| frame.iter().rposition(|&byte| byte != 0).map(|last| last + 1);
    came[..bare(came).unwrap_or(0)] == sent[..bare(sent).unwrap_or(0)]
}

/// Asks until it is so: what netd hears by itself gives no notice.
#[track_caller]
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
