//! The steps of a plan.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;
use vnet_types::{IfName, MacAddr};

use crate::{Alias, BridgeClaim, Bucket, Firewall};

/// One step, small enough that it happens whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Write to the ledger that a bridge is ours, before it is made.
    Claim {
        /// Its name.
        bridge: IfName,
        /// How to know it again.
        claim: Box<BridgeClaim>,
    },
    /// Strike a bridge off the ledger, after it is gone.
    Disclaim {
        /// Its name.
        bridge: IfName,
    },
    /// Make a bridge: spanning tree off, forward delay 0.
    CreateBridge {
        /// Its name.
        name: IfName,
        /// Its address, pinned: it stays whatever ports come and go.
        mac: MacAddr,
    },
    /// Remove a link of ours.
    DeleteLink {
        /// Its name.
        name: IfName,
    },
    /// Write on a link what it is for.
    SetAlias {
        /// The link.
        link: IfName,
        /// What it is for.
        alias: Alias,
    },
    /// Set the size of a link's largest packet.
    SetMtu {
        /// The link.
        link: IfName,
        /// In bytes.
        mtu: u32,
    },
    /// Make a port a member of a bridge.
    Enslave {
        /// The port.
        port: IfName,
        /// The bridge.
        bridge: IfName,
    },
    /// Give a link an address.
    AddAddress {
        /// The link.
        link: IfName,
        /// The address. One of IPv6 is used at once: nobody else on a bridge of ours can have it,
        /// and without a guest there is no carrier to look for duplicates on.
        address: IpAddr,
        /// Bits in its prefix.
        prefix: u8,
    },
    /// Take an address of ours from a link.
    DeleteAddress {
        /// The link.
        link: IfName,
        /// The address.
        address: IpAddr,
        /// Bits in its prefix.
        prefix: u8,
    },
    /// Set a link up.
    SetUp {
        /// The link.
        link: IfName,
    },
    /// Keep IPv6 off a link of ours that has none, so that it gets no link-local address.
    DisableIpv6 {
        /// The link.
        link: IfName,
    },
    /// Let a bridge of ours have IPv6, with no addresses but those that it is given: none of the
    /// kernel's making, and none from anybody's router advertisements.
    EnableIpv6 {
        /// The link.
        link: IfName,
    },
    /// Let a bridge of ours carry connections of the host from its loopback addresses, or not.
    RouteLoopback {
        /// The bridge.
        link: IfName,
        /// Whether it may.
        on: bool,
    },
    /// Give a link a queue with a rate.
    Shape {
        /// The link.
        link: IfName,
        /// The queue.
        bucket: Bucket,
    },
    /// Take away the queue that [`Operation::Shape`] has given.
    Unshape {
        /// The link.
        link: IfName,
    },
    /// Make a link through whose queue goes what comes in by another.
    CreateIntake {
        /// Its name.
        name: IfName,
        /// Its address, by which it is known to be ours.
        mac: MacAddr,
    },
    /// Take what comes in by a link through the queue of another.
    Redirect {
        /// The link.
        link: IfName,
        /// The other one.
        to: IfName,
    },
    /// Undo [`Operation::Redirect`].
    Unredirect {
        /// The link.
        link: IfName,
    },
    /// Write to the ledger what `ip_forward`, and all that changes with it, are set to.
    RememberForwarding,
    /// Turn on IPv4 forwarding.
    EnableForwarding,
    /// Forward what comes from a link of ours.
    ForwardOn {
        /// The link.
        link: IfName,
    },
    /// Put back what the ledger remembers of `ip_forward` and all that changes with it.
    RestoreForwarding,
    /// Strike off the ledger what [`Operation::RememberForwarding`] wrote.
    ForgetForwarding,
    /// Write to the ledger what IPv6 forwarding, and all that changes with it, is set to.
    RememberForwarding6,
    /// Write to the ledger that a link is to take router advertisements though it forwards.
    RememberAcceptRa {
        /// The link, whose name need not be one that we would choose.
        link: String,
    },
    /// Have a link that lives on router advertisements take them though it forwards.
    RaiseAcceptRa {
        /// The link.
        link: String,
    },
    /// Turn on IPv6 forwarding.
    EnableForwarding6,
    /// Be a router on a link of ours, to whom guests send what is for elsewhere.
    Forward6On {
        /// The link.
        link: IfName,
    },
    /// Put back what the ledger remembers of IPv6 forwarding and all that changes with it.
    RestoreForwarding6,
    /// Have a link take router advertisements only as long as it does not forward, as before.
    RestoreAcceptRa {
        /// The link.
        link: String,
    },
    /// Strike off the ledger all that it remembers of IPv6.
    ForgetForwarding6,
    /// Make our tables, where there are none, in one transaction.
    InstallFirewall {
        /// What they are to hold.
        firewall: Firewall,
    },
    /// Put our tables in place of those that are there, in one transaction.
    ReplaceFirewall {
        /// What they are to hold.
        firewall: Firewall,
    },
    /// Change the elements of our tables, in one transaction.
    UpdateFirewall {
        /// What they hold.
        from: Firewall,
        /// What they are to hold.
        to: Firewall,
    },
    /// Remove our tables.
    RemoveFirewall,
}

/// Operations in the order in which they are to be done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The steps.
    pub operations: Vec<Operation>,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    pub(crate) fn push(&mut self, operation: Operation) {
        self.operations.push(operation);
    }
}

impl Operation {
    pub(crate) fn add_address(link: &IfName, (address, prefix): (IpAddr, u8)) -> Self {
        Self::AddAddress { link: link.clone(), address, prefix }
    }

    pub(crate) fn delete_address(link: &IfName, (address, prefix): (IpAddr, u8)) -> Self {
        Self::DeleteAddress { link: link.clone(), address, prefix }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim { bridge, claim } => {
                write!(f, "note that the bridge {bridge} of {} is ours", claim.network.name)
            }
            Self::Disclaim { bridge } => write!(f, "note that the bridge {bridge} is gone"),
            Self::CreateBridge { name, mac } => {
                write!(f, "create bridge {name} with address {mac}")
            }
            Self::DeleteLink { name } => write!(f, "delete link {name}"),
            Self::SetAlias { link, alias } => write!(f, "label {link} {alias}"),
            Self::SetMtu { link, mtu } => write!(f, "set {link} mtu {mtu}"),
            Self::Enslave { port, bridge } => write!(f, "put port {port} on {bridge}"),
            Self::AddAddress { link, address, prefix } => {
                write!(f, "add address {address}/{prefix} to {link}")
            }
            Self::DeleteAddress { link, address, prefix } => {
                write!(f, "delete address {address}/{prefix} from {link}")
            }
            Self::SetUp { link } => write!(f, "set {link} up"),
            Self::DisableIpv6 { link } => write!(f, "keep IPv6 off {link}"),
            Self::EnableIpv6 { link } => {
                write!(f, "let {link} have IPv6, with the addresses that it is given")
            }
            Self::RouteLoopback { link, on: true } => {
                write!(f, "let the host reach published ports on {link} at 127.0.0.1")
            }
            Self::RouteLoopback { link, on: false } => {
                write!(f, "keep loopback addresses off {link}")
            }
            Self::Shape { link, bucket } => write!(
                f,
                "limit what goes to {link} to {} bytes a second, {} at once",
                bucket.rate, bucket.burst
            ),
            Self::Unshape { link } => write!(f, "limit what goes to {link} no more"),
            Self::CreateIntake { name, .. } => write!(f, "create {name} for a queue"),
            Self::Redirect { link, to } => {
                write!(f, "take what comes from {link} through the queue of {to}")
            }
            Self::Unredirect { link } => write!(f, "take what comes from {link} at once"),
            Self::RememberForwarding => f.write_str("note the present settings of IPv4 forwarding"),
            Self::EnableForwarding => f.write_str("turn on IPv4 forwarding"),
            Self::ForwardOn { link } => write!(f, "forward what comes from {link}"),
            Self::RestoreForwarding => f.write_str("put IPv4 forwarding back as it was found"),
            Self::ForgetForwarding => f.write_str("note that IPv4 forwarding is as it was found"),
            Self::RememberForwarding6 => {
                f.write_str("note the present settings of IPv6 forwarding")
            }
            Self::RememberAcceptRa { link } => {
                write!(f, "note that {link} takes router advertisements while it does not forward")
            }
            Self::RaiseAcceptRa { link } => {
                write!(f, "let {link} take router advertisements though it forwards")
            }
            Self::EnableForwarding6 => f.write_str("turn on IPv6 forwarding"),
            Self::Forward6On { link } => write!(f, "be an IPv6 router on {link}"),
            Self::RestoreForwarding6 => f.write_str("put IPv6 forwarding back as it was found"),
            Self::RestoreAcceptRa { link } => {
                write!(f, "let {link} take router advertisements as it was found to")
            }
            Self::ForgetForwarding6 => f.write_str("note that IPv6 forwarding is as it was found"),
            Self::InstallFirewall { firewall } => {
                write!(f, "install nftables tables inet vnet and bridge vnet for {firewall}")
            }
            Self::ReplaceFirewall { firewall } => {
                write!(f, "replace nftables tables inet vnet and bridge vnet for {firewall}")
            }
            Self::UpdateFirewall { to, .. } => {
                write!(f, "update nftables tables inet vnet and bridge vnet for {to}")
            }
            Self::RemoveFirewall => f.write_str("remove nftables tables inet vnet and bridge vnet"),
        }
    }
}

impl Serialize for Operation {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, operation) in self.operations.iter().enumerate() {
            writeln!(f, "{:3}. {operation}", number + 1)?;
        }
        Ok(())
    }
}
