//! Guests of our own making, as many as are wanted behind one cable: for what a load generator
//! that counts rates cannot say.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, SockaddrLike, bind, setsockopt,
    socket, sockopt,
};
use tun_tap::{Iface, Mode};
use vnet_api::ports::{PortConnection, Request};
use vnet_testkit::frames::DhcpMessage;
use vnet_testkit::{Netns, random_mac};
use vnet_types::{LinkLimits, MacAddr};

const OFFER: u8 = 2;
const ACK: u8 = 5;
/// RFC 2131 §4.1: clients ask again after four seconds.
const RETRY: Duration = Duration::from_secs(4);
/// Bytes of answers that may wait, so that none is lost here.
const RECEIVE_BUFFER: usize = 64 << 20;
/// The header of virtio-net in front of each frame of a port of netd's.
const PORT_HEADER: usize = 12;

/// Many guests behind one cable.
pub(super) struct Station {
    cable: Box<dyn AsRawFd>,
    header: usize,
    mac: MacAddr,
    /// Keeps a port of netd's.
    _port: Option<PortConnection>,
    buffer: Vec<u8>,
    xid: u32,
}

/// What became of guests that asked all at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Crowd {
    /// How many have an address.
    pub(super) bound: u32,
    /// When the last one had it.
    pub(super) last: Duration,
    /// Messages that were sent again because nobody had answered.
    pub(super) repeated: u32,
}

impl Station {
    /// Behind an interface that there is.
    pub(super) fn on(ns: &Netns, card: &str) -> Result<Self> {
        let socket = ns.enter(|| packet_socket(card))?;
        Ok(Self::with(Box::new(socket), 0, ns.mac(card), None))
    }

    /// Behind a new tap of `host`, which is a port of `bridge` when this returns.
    pub(super) fn on_new_tap(host: &Netns, name: &str, bridge: &str) -> Result<Self> {
        let tap = host.enter(|| Iface::without_packet_info(name, Mode::Tap))?;
        // SAFETY: the descriptor is the tap's, which lives as long as the call.
        let fd = unsafe { BorrowedFd::borrow_raw(tap.as_raw_fd()) };
        fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        host.up(name);
        host.enslave(name, bridge);
        Ok(Self::with(Box::new(tap), 0, random_mac(), None))
    }

    /// Behind a new port of netd's, guarded as any guest's is.
    pub(super) fn on_new_port(socket: &Path, network: &str, domain: &str) -> Result<Self> {
        let mac = random_mac();
        let (network, domain) = (network.parse()?, domain.parse()?);
        let limits = LinkLimits::default();
        let request = Request::Attach { network, domain, nic: 0, mac, queues: 1, limits };
        let (connection, _, mut queues) = PortConnection::open(socket, &request)?;
        let queue = queues.pop().context("a port without a queue")?;
        Ok(Self::with(Box::new(queue), PORT_HEADER, mac, Some(connection)))
    }

    fn with(
        cable: Box<dyn AsRawFd>,
        header: usize,
        mac: MacAddr,
        port: Option<PortConnection>,
    ) -> Self {
        Self { cable, header, mac, _port: port, buffer: vec![0; 65_600], xid: 0x1000_0000 }
    }

    /// The address of the cable's own card.
    pub(super) fn mac(&self) -> MacAddr {
        self.mac
    }

    /// Gets the guest `mac` an address, within `patience` for each of the server's two messages.
    pub(super) fn lease(&mut self, mac: MacAddr, patience: Duration) -> Result<Option<Ipv4Addr>> {
        self.xid += 1;
        let xid = self.xid;
        self.send(&DhcpMessage::discover(xid, mac).client_frame(mac))?;
        let Some(offer) = self.answer(patience, xid, OFFER)? else { return Ok(None) };
        let request = DhcpMessage::request(xid, mac, offer.yiaddr, server_of(&offer));
        self.send(&request.client_frame(mac))?;
        Ok(self.answer(patience, xid, ACK)?.map(|ack| ack.yiaddr))
    }

    fn answer(&mut self, patience: Duration, xid: u32, kind: u8) -> Result<Option<DhcpMessage>> {
        let deadline = Instant::now() + patience;
        while let Some(message) = self.receive(deadline)? {
            if message.as_ref().is_some_and(|m| m.xid == xid && m.kind() == Some(kind)) {
                return Ok(message);
            }
        }
        Ok(None)
    }

    /// `count` new guests ask at once, and again as clients do, until all have an address or
    /// `patience` is over.
    pub(super) fn crowd(&mut self, count: u32, patience: Duration) -> Result<Crowd> {
        let first = self.xid + 1;
        let guests: Vec<(u32, MacAddr)> = (first..).zip((0..count).map(|_| random_mac())).collect();
        self.xid += count;
        let mut waiting: BTreeMap<u32, (Vec<u8>, Instant)> = BTreeMap::new();
        let mut crowd = Crowd { bound: 0, last: Duration::ZERO, repeated: 0 };
        let frames: Vec<_> = guests
            .into_iter()
            .map(|(xid, mac)| (xid, DhcpMessage::discover(xid, mac).client_frame(mac)))
            .collect();
        let begun = Instant::now();
        for (xid, frame) in frames {
            self.send(&frame)?;
            waiting.insert(xid, (frame, Instant::now()));
        }
        while !waiting.is_empty() && begun.elapsed() < patience {
            let oldest = waiting.values().map(|(_, sent)| *sent).min().unwrap_or(begun);
            if let Some(message) = self.receive((oldest + RETRY).min(begun + patience))? {
                self.hear(message, &mut waiting, &mut crowd, begun)?;
                // As long as answers come nobody is overdue.
                if oldest.elapsed() < RETRY {
                    continue;
                }
            }
            for (frame, sent) in waiting.values_mut().filter(|(_, sent)| sent.elapsed() >= RETRY) {
                self.send(frame)?;
                *sent = Instant::now();
                crowd.repeated += 1;
            }
        }
        Ok(crowd)
    }

    fn hear(
        &self,
        message: Option<DhcpMessage>,
        waiting: &mut BTreeMap<u32, (Vec<u8>, Instant)>,
        crowd: &mut Crowd,
        begun: Instant,
    ) -> Result<()> {
        let Some(message) = message else { return Ok(()) };
        let Some((frame, sent)) = waiting.get_mut(&message.xid) else { return Ok(()) };
        match message.kind() {
            Some(OFFER) => {
                let (xid, mac) = (message.xid, message.chaddr);
                let request = DhcpMessage::request(xid, mac, message.yiaddr, server_of(&message));
                *frame = request.client_frame(mac);
                *sent = Instant::now();
                self.send(frame)
            }
            Some(ACK) => {
                waiting.remove(&message.xid);
                crowd.bound += 1;
                crowd.last = begun.elapsed();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn send(&self, frame: &[u8]) -> Result<()> {
        let bytes = [&[0; PORT_HEADER][..self.header], frame].concat();
        let sent = nix::unistd::write(self.fd(), &bytes).context("a frame cannot be sent")?;
        ensure!(sent == bytes.len(), "a frame was cut");
        Ok(())
    }

    /// The next frame before `deadline`, as the message of a DHCP server if it is one.
    fn receive(&mut self, deadline: Instant) -> Result<Option<Option<DhcpMessage>>> {
        loop {
            // SAFETY: the descriptor is the cable's, which lives as long as the call.
            let fd = unsafe { BorrowedFd::borrow_raw(self.cable.as_raw_fd()) };
            match nix::unistd::read(fd, &mut self.buffer) {
                Ok(length) => {
                    let frame = self.buffer.get(self.header..length).unwrap_or_default();
                    return Ok(Some(DhcpMessage::parse_server_frame(frame)));
                }
                Err(nix::Error::EAGAIN) => {}
                Err(error) => return Err(error.into()),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let wait = PollTimeout::try_from(left.as_millis().min(60_000) + 1)?;
            poll(&mut [PollFd::new(self.fd(), PollFlags::POLLIN)], wait)?;
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is the cable's, which lives as long as the borrow of `self`.
        unsafe { BorrowedFd::borrow_raw(self.cable.as_raw_fd()) }
    }
}

fn server_of(message: &DhcpMessage) -> Ipv4Addr {
    let server = message.option(54).and_then(|value| <[u8; 4]>::try_from(value).ok());
    server.map_or(Ipv4Addr::UNSPECIFIED, Ipv4Addr::from)
}

/// A socket for what arrives at a card, and for what it sends.
fn packet_socket(card: &str) -> io::Result<OwnedFd> {
    /// linux/if_packet.h; libc has no name for it.
    const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Packet, SockType::Raw, flags, None::<SockProtocol>)?;
    setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    let on: libc::c_int = 1;
    // SAFETY: the option is an int, which outlives the call.
    let set = unsafe {
        let (level, name) = (libc::SOL_PACKET, PACKET_IGNORE_OUTGOING);
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const on).cast(),
            size_of_val(&on) as u32,
        )
    };
    if set != 0 {
        return Err(io::Error::last_os_error());
    }
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_IP as u16).to_be(),
        sll_ifindex: if_nametoindex(card)?.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of::<libc::sockaddr_ll>() as u32;
    // SAFETY: the pointer is to a whole sockaddr_ll of this length with its family set; it is read
    // and copied, nothing else.
    let address = unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(length)) }
        .ok_or_else(|| io::Error::other("no address of AF_PACKET"))?;
    bind(fd.as_raw_fd(), &address)?;
    Ok(fd)
}
