//! A TCP connection to somewhere else (RFC 9293), and one line over it.

use smoltcp::socket::tcp;
use smoltcp::wire::{IpAddress, Ipv4Address};

use crate::network::{Lease, Network};
use crate::serial::Text;
use crate::steps::{Reason, reason};
use crate::time::Micros;

/// The longest first line that is reported.
const REPLY: usize = 80;

/// The first line of what the other side said.
pub(crate) type Reply = Text<REPLY>;

/// Connects to `address` and `port`.
pub(crate) fn connect(
    network: &mut Network<'_>,
    lease: &Lease,
    address: Ipv4Address,
    port: u16,
    deadline: Micros,
) -> Result<(), Reason> {
    if !lease.address.contains_addr(&address) && lease.router.is_none() {
        return Err(reason!("no route to {address}: DHCP gave no router"));
    }
    let next_hop = match lease.router {
        Some(router) if !lease.address.contains_addr(&address) => router,
        _ => address,
    };
    network.nic.observed.unreachable = None;
    let handle = network.handles.tcp;
    let local = 49152 | crate::entropy::next() as u16 & 0x3fff;
    let socket = network.sockets.get_mut::<tcp::Socket<'_>>(handle);
    socket.abort();
    // Nagle's algorithm has nothing to gather here.
    socket.set_nagle_enabled(false);
    if let Err(error) =
        socket.connect(network.interface.context(), (IpAddress::Ipv4(address), port), local)
    {
        return Err(reason!("cannot connect to {address}: {error}"));
    }
    let result = network.until(deadline, |network| {
        let socket = network.sockets.get_mut::<tcp::Socket<'_>>(handle);
        match socket.state() {
            tcp::State::SynSent | tcp::State::SynReceived => {}
            tcp::State::Closed => {
                return Some(Err(reason!("{address} port {port} refuses connections")));
            }
            _ => return Some(Ok(())),
        }
        let error = network.nic.observed.unreachable.filter(|error| error.to == address)?;
        Some(Err(reason!("{} says: {}", error.from, error.meaning())))
    });
    result.unwrap_or_else(|| {
        if network.nic.observed.arp_heard(next_hop) {
            Err(reason!("{address} port {port} does not answer"))
        } else {
            Err(reason!("{next_hop} does not answer ARP"))
        }
    })
}

/// Sends an HTTP request over the connection and waits for the first line of the reply.
pub(crate) fn request(
    network: &mut Network<'_>,
    host: &str,
    deadline: Micros,
) -> Result<Reply, Reason> {
    let handle = network.handles.tcp;
    let mut text = Text::<320>::new();
    // Writing to a `Text` cannot fail.
    let _ = core::fmt::Write::write_fmt(
        &mut text,
        format_args!("GET / HTTP/1.0\r\nHost: {host}\r\nUser-Agent: vnet-guest\r\n\r\n"),
    );
    let socket = network.sockets.get_mut::<tcp::Socket<'_>>(handle);
    if socket.send_slice(text.as_str().as_bytes()).ok() != Some(text.as_str().len()) {
        return Err(reason!("connected, but the request cannot be sent"));
    }
    let mut reply = Reply::new();
    let whole = network.until(deadline, |network| {
        let socket = network.sockets.get_mut::<tcp::Socket<'_>>(handle);
        let mut ended = false;
        // An error here is the end of the stream.
        let _ = socket.recv(|bytes| {
            for &byte in bytes.iter() {
                ended |= byte == b'\n';
                if !ended && byte != b'\r' {
                    let _ = core::fmt::Write::write_char(&mut reply, printable(byte));
                }
            }
            (bytes.len(), ())
        });
        (ended || !socket.may_recv()).then_some(())
    });
    match whole {
        Some(()) if !reply.is_empty() => Ok(reply),
        Some(()) => Err(reason!("connected, but the other side closed without a reply")),
        None => Err(reason!("connected, but no reply came")),
    }
}

/// What a byte from outside is printed as: nothing that moves a cursor.
fn printable(byte: u8) -> char {
    match byte {
        b' '..=b'~' => char::from(byte),
        _ => '?',
    }
}

/// Ends the connection.
pub(crate) fn close(network: &mut Network<'_>) {
    network.sockets.get_mut::<tcp::Socket<'_>>(network.handles.tcp).close();
    network.poll();
}
