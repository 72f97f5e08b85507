//! A binding of a client to an IPv6 address, as it is stored and listed.

use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};
use vnet_types::{DnsName, MacAddr};

use super::Duid;
use crate::journal::Stored;
use crate::lease::LeaseState;

/// One lease of an IPv6 address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The address.
    pub ip: Ipv6Addr,
    /// Whose it is, or was.
    pub duid: Duid,
    /// Which of the client's identity associations (RFC 9915 §12).
    pub iaid: u32,
    /// The client's card; none where a relay did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// The client's name in the network's domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<DnsName>,
    /// What became of it.
    pub state: LeaseState,
    /// From when on others may have the address, in Unix seconds.
    pub expires: u64,
}

impl Lease {
    /// Whether the client may use the address at `unix` seconds.
    #[must_use]
    pub fn is_live(&self, unix: u64) -> bool {
        self.state == LeaseState::Bound && unix < self.expires
    }

    /// Whether nobody else can have the address at `unix` seconds.
    pub(super) fn holds_address(&self, unix: u64) -> bool {
        self.state != LeaseState::Released && unix < self.expires
    }
}

impl Stored for Lease {
    type Address = Ipv6Addr;

    fn address(&self) -> Ipv6Addr {
        self.ip
    }
}
