//! Getting an address (RFC 2131), and keeping it.

use smoltcp::socket::dhcpv4::{self, Event};
use smoltcp::time::Duration;
use smoltcp::wire::{DhcpMessageType, DhcpOption, DhcpRepr};

use crate::network::{Lease, Network};
use crate::observe::DhcpCounts;
use crate::steps::{Reason, reason};
use crate::time::Micros;

/// RFC 2132 §3.14.
const OPTION_HOST_NAME: u8 = 12;

/// Between two DISCOVERs, or REQUESTs. Much shorter than RFC 2131 §4.1 has it for a LAN with
/// thousands of clients: a server beside the guest answers in a millisecond, or not at all.
const RETRY: Duration = Duration::from_secs(1);

/// Option 12 with the host's name.
pub(crate) fn host_name(name: &str) -> DhcpOption<'_> {
    DhcpOption { kind: OPTION_HOST_NAME, data: name.as_bytes() }
}

/// A client that sends `options` along and keeps answers in `packet`.
pub(crate) fn socket<'a>(
    options: &'a [DhcpOption<'a>],
    packet: &'a mut [u8],
) -> dhcpv4::Socket<'a> {
    let mut socket = dhcpv4::Socket::new();
    let mut retry = dhcpv4::RetryConfig::default();
    retry.discover_timeout = RETRY;
    retry.initial_request_timeout = RETRY;
    socket.set_retry_config(retry);
    socket.set_outgoing_options(options);
    // With it, every ACK is an event, and the whole of it can be read.
    socket.set_receive_packet_buffer(packet);
    socket
}

/// After a NAK, in milliseconds: RFC 2131 §3.1.5 has a client wait ten seconds after it declined
/// an address, and says nothing of a NAK, but smoltcp alone would begin anew at once, for ever.
const AFTER_NAK_MS: u64 = 1000;

/// What happened to the lease.
pub(crate) enum Change {
    /// An address was acquired, or its lease renewed: it is configured.
    Bound(Lease),
    /// It is gone, and so is the configuration.
    Lost,
}

/// Begins anew, as after a link that was down: the next poll sends a DISCOVER.
pub(crate) fn restart(network: &mut Network<'_>) {
    network.nic.observed.dhcp = DhcpCounts::default();
    let socket = network.sockets.get_mut::<dhcpv4::Socket<'_>>(network.handles.dhcp);
    socket.reset();
    // What it says about the old lease is known.
    while socket.poll().is_some() {}
    network.deconfigure();
}

/// Looks whether the lease has changed, and configures the interface accordingly.
pub(crate) fn change(network: &mut Network<'_>) -> Option<Change> {
    let socket = network.sockets.get_mut::<dhcpv4::Socket<'_>>(network.handles.dhcp);
    let lease = match socket.poll()? {
        Event::Deconfigured => {
            network.deconfigure();
            return Some(Change::Lost);
        }
        Event::Configured(config) => {
            // Servers send the duration in every ACK (RFC 2131 table 3).
            let seconds = config
                .packet
                .as_ref()
                .and_then(|packet| DhcpRepr::parse(packet).ok())
                .filter(|message| message.message_type == DhcpMessageType::Ack)
                .and_then(|message| message.lease_duration);
            let mut servers = config.dns_servers.iter().copied();
            Lease {
                address: config.address,
                router: config.router,
                dns: [servers.next(), servers.next(), servers.next()],
                server: config.server.identifier,
                seconds: seconds.unwrap_or(0),
            }
        }
    };
    network.configure(&lease);
    Some(Change::Bound(lease))
}

/// Pauses, not beyond `deadline`, if there was a NAK since the last call; `seen` is how many there
/// were by then.
pub(crate) fn pause_after_nak(network: &mut Network<'_>, seen: &mut u32, deadline: Micros) {
    let naks = network.nic.observed.dhcp.naks;
    if naks > *seen {
        network.pause(deadline.min(network.now().plus_ms(AFTER_NAK_MS)));
    }
    *seen = naks;
}

/// Gets an address.
pub(crate) fn run(network: &mut Network<'_>, deadline: Micros) -> Result<Lease, Reason> {
    restart(network);
    let mut naks = 0;
    let lease = network.until(deadline, |network| {
        pause_after_nak(network, &mut naks, deadline);
        match change(network) {
            Some(Change::Bound(lease)) => Some(lease),
            _ => None,
        }
    });
    lease.ok_or_else(|| why(network))
}

/// Why there is no address.
pub(crate) fn why(network: &Network<'_>) -> Reason {
    let counts = network.nic.observed.dhcp;
    if !network.nic.link_is_up() {
        return reason!("the link went down");
    }
    match counts {
        DhcpCounts { naks: naks @ 1.., .. } => {
            reason!("the server answered {naks} REQUESTs with a NAK")
        }
        DhcpCounts { acks: 1.., .. } => {
            reason!("an ACK came, but without a usable address and mask")
        }
        DhcpCounts { offered_by: Some(server), requests, .. } => {
            reason!("OFFER from {server}, but no ACK to {requests} REQUESTs")
        }
        DhcpCounts { offers: 1.., .. } => reason!("OFFER without a server identifier"),
        DhcpCounts { discovers, .. } => reason!("no answer to {discovers} DISCOVERs"),
    }
}
