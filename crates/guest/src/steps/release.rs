//! Giving the lease back (RFC 2131 §4.4.6): a guest that only looked leaves nothing behind.

use smoltcp::socket::udp;
use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr, IpAddress, IpEndpoint, Ipv4Address};

use crate::entropy;
use crate::network::{Lease, Network};

const SERVER: u16 = 67;
const CLIENT: u16 = 68;

/// The message has no answer. This long, in milliseconds, it may take to be sent: the server's
/// hardware address may have to be asked for.
const PATIENCE_MS: u64 = 500;

/// Sends a RELEASE. Whether it left.
pub(crate) fn run(network: &mut Network<'_>, lease: &Lease) -> bool {
    let mac = network.nic.mac();
    let message = DhcpRepr {
        message_type: DhcpMessageType::Release,
        transaction_id: entropy::next() as u32,
        secs: 0,
        client_hardware_address: mac,
        client_ip: lease.address.address(),
        your_ip: Ipv4Address::UNSPECIFIED,
        server_ip: Ipv4Address::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Address::UNSPECIFIED,
        broadcast: false,
        // §4.4.6 and table 5: the same client identifier as before, and no requested address.
        requested_ip: None,
        client_identifier: Some(mac),
        server_identifier: Some(lease.server),
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let handle = network.handles.udp;
    let socket = network.sockets.get_mut::<udp::Socket<'_>>(handle);
    socket.close();
    let server = IpEndpoint::new(IpAddress::Ipv4(lease.server), SERVER);
    let sent = socket.bind(CLIENT).is_ok()
        && socket.send(message.buffer_len(), server).is_ok_and(|bytes| {
            bytes.fill(0);
            message.emit(&mut DhcpPacket::new_unchecked(bytes)).is_ok()
        });
    let deadline = network.now().plus_ms(PATIENCE_MS);
    sent && network
        .until(deadline, |network| {
            let socket = network.sockets.get_mut::<udp::Socket<'_>>(handle);
            (socket.send_queue() == 0).then_some(())
        })
        .is_some()
}
