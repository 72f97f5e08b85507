//! How a lease is shown.

use vnet_api::model::Lease;
use vnet_dhcp::LeaseState;
use vnet_types::{MacAddr, NetworkName};

/// One of an IPv4 address.
pub(crate) fn v4(network: &NetworkName, lease: &vnet_dhcp::Lease, now: u64) -> Lease {
    Lease {
        network: network.clone(),
        address: lease.ip.into(),
        mac: lease.mac,
        hostname: lease.hostname.as_ref().map(ToString::to_string),
        client_id: lease.client_id().map(hexadecimal),
        expires: lease.expires,
        state: word_for(lease.state, lease.is_live(now)),
    }
}

/// One of an IPv6 address.
pub(crate) fn v6(network: &NetworkName, lease: &vnet_dhcp::v6::Lease, now: u64) -> Lease {
    Lease {
        network: network.clone(),
        address: lease.ip.into(),
        mac: lease.mac.unwrap_or(MacAddr([0; 6])),
        hostname: lease.hostname.as_ref().map(ToString::to_string),
        client_id: Some(lease.duid.to_string()),
        expires: lease.expires,
        state: word_for(lease.state, lease.is_live(now)),
    }
}

fn word_for(state: LeaseState, live: bool) -> String {
    let word = match state {
        LeaseState::Bound if live => "bound",
        LeaseState::Bound => "expired",
        LeaseState::Released => "released",
        LeaseState::Declined => "declined",
    };
    word.to_owned()
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string has no way to fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
