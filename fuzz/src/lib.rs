//! What the targets share: the fuzzer's bytes, taken apart piece by piece.

mod dns;

use std::net::{Ipv4Addr, Ipv6Addr};

use vnet_types::{Dhcp, Dns, Limits, MacAddr, Mode, NetworkDefinition};

pub use dns::{dns_network, dns_zone};

/// When every run begins, in Unix seconds.
pub const START: u64 = 1_800_000_000;

/// The host's card on the bridge.
pub const SERVER_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0xff, 0, 1]);

/// What is left of the fuzzer's bytes. At its end, everything is 0 or empty.
#[derive(Debug)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// Whether there is no more.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    /// The next two bytes.
    pub fn short(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// As many bytes as there are, but `most` at most.
    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A length in two bytes, and so many bytes.
    pub fn sized(&mut self) -> &'a [u8] {
        let length = self.short();
        self.bytes(length.into())
    }
}

/// The network that clients find. Its twelve addresses run out quickly.
#[must_use]
pub fn network() -> NetworkDefinition {
    NetworkDefinition {
        name: "default".parse().unwrap(),
        mode: Mode::Nat,
        bridge: "virbr0".parse().unwrap(),
        subnet: "192.168.122.0/24".parse().unwrap(),
        domain: "default.vnet".parse().unwrap(),
        uplink: None,
        mtu: None,
        limits: Limits::default(),
        autostart: true,
        anti_spoofing: false,
        dhcp: Some(Dhcp {
            probe: false,
            ..Dhcp::new("192.168.122.100-192.168.122.111".parse().unwrap())
        }),
        dns: Dns::default(),
        ipv6: None,
        forwards: Vec::new(),
    }
}

/// A client's card.
#[must_use]
pub fn card(number: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 0, number])
}

/// An address of the network, or the one of it that `number` names.
#[must_use]
pub fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 122, number)
}

/// The link-local address of the client with this number.
#[must_use]
pub fn link_local(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, number.into())
}
