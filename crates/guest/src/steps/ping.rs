//! Echo requests to the gateway (RFC 792).

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::icmp::{self, Endpoint};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, IpAddress, Ipv4Address};

use crate::entropy;
use crate::network::Network;
use crate::steps::{Reason, reason};
use crate::time::Micros;

/// Between two requests, in milliseconds.
const RETRY_MS: u64 = 1000;

/// Pings `address`.
pub(crate) fn run(
    network: &mut Network<'_>,
    address: Ipv4Address,
    deadline: Micros,
) -> Result<(), Reason> {
    let ident = entropy::next() as u16;
    let handle = network.handles.icmp;
    let socket = network.sockets.get_mut::<icmp::Socket<'_>>(handle);
    if socket.bind(Endpoint::Ident(ident)).is_err() {
        return Err(reason!("the echo socket cannot be bound"));
    }
    let mut sent = 0_u16;
    let mut next = network.now();
    let answered = network.until(deadline, |network| {
        let now = network.now();
        let socket = network.sockets.get_mut::<icmp::Socket<'_>>(handle);
        if is_answered(socket, address) {
            return Some(());
        }
        if now >= next && sent < u16::MAX && request(socket, ident, sent, address) {
            sent += 1;
            next = now.plus_ms(RETRY_MS);
        }
        None
    });
    answered.ok_or_else(|| {
        if network.nic.observed.arp_heard(address) {
            reason!("{address} answers ARP, but none of {sent} echo requests")
        } else {
            reason!("{address} does not answer ARP")
        }
    })
}

fn request(socket: &mut icmp::Socket<'_>, ident: u16, seq_no: u16, address: Ipv4Address) -> bool {
    let echo = Icmpv4Repr::EchoRequest { ident, seq_no, data: b"vnet-guest" };
    let Ok(bytes) = socket.send(echo.buffer_len(), IpAddress::Ipv4(address)) else {
        return false;
    };
    echo.emit(&mut Icmpv4Packet::new_unchecked(bytes), &ChecksumCapabilities::default());
    true
}

/// Takes everything received; whether any of it is an echo reply from `address`.
fn is_answered(socket: &mut icmp::Socket<'_>, address: Ipv4Address) -> bool {
    let mut answered = false;
    while let Ok((bytes, from)) = socket.recv() {
        let reply = Icmpv4Packet::new_checked(bytes).and_then(|packet| {
            Icmpv4Repr::parse(&packet, &ChecksumCapabilities::default())
                .map(|message| matches!(message, Icmpv4Repr::EchoReply { .. }))
        });
        answered |= reply == Ok(true) && from == IpAddress::Ipv4(address);
    }
    answered
}
