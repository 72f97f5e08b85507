//! The interface alias: how a link says whose it is, to us after a restart and to a person who
//! reads `ip link`.

use std::fmt;
use std::str::FromStr;

use vnet_types::{DomainName, LinkLimits, MacAddr, NetworkName};

/// The pattern from which the kernel makes the names of our taps.
pub const BRIDGE_PORT_PATTERN: &str = "vtap%d";

/// What a link of ours is for. Printed as `vnet:default` or
/// `vnet:default:web:0:52-54-00-12-34-56`, with `:in=10mbit:out=5mbit/64kbyte` behind it if the
/// port has limits of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alias {
    /// The bridge of a network.
    Bridge(NetworkName),
    /// The port of a guest.
    Port {
        /// The network that it is on.
        network: NetworkName,
        /// The domain that it belongs to.
        domain: DomainName,
        /// Which of the domain's network cards it is.
        nic: u8,
        /// The address that the guest uses on it.
        mac: MacAddr,
        /// How fast its VMM wants it to be; the network may have stricter limits.
        limits: LinkLimits,
    },
}

impl Alias {
    /// The network that the link belongs to.
    #[must_use]
    pub const fn network(&self) -> &NetworkName {
        match self {
            Self::Bridge(network) | Self::Port { network, .. } => network,
        }
    }
}

impl FromStr for Alias {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split(':');
        if parts.next() != Some("vnet") {
            return Err(());
        }
        let network = parts.next().and_then(|name| name.parse().ok()).ok_or(())?;
        let Some(domain) = parts.next() else { return Ok(Self::Bridge(network)) };
        let domain = domain.parse().map_err(|_| ())?;
        let nic = parts.next().and_then(|nic| nic.parse().ok()).ok_or(())?;
        let mac = parts.next().and_then(|mac| mac.parse().ok()).ok_or(())?;
        let mut limits = LinkLimits::default();
        for part in parts {
            let (direction, limit) = part.split_once('=').ok_or(())?;
            let place = match direction {
                "in" => &mut limits.inbound,
                "out" => &mut limits.outbound,
                _ => return Err(()),
            };
            if place.replace(limit.parse().map_err(|_| ())?).is_some() {
                return Err(());
            }
        }
        Ok(Self::Port { network, domain, nic, mac, limits })
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge(network) => write!(f, "vnet:{network}"),
            Self::Port { network, domain, nic, mac, limits } => {
                let mac = mac.to_string().replace(':', "-");
                write!(f, "vnet:{network}:{domain}:{nic}:{mac}")?;
                for (direction, limit) in [("in", limits.inbound), ("out", limits.outbound)] {
                    if let Some(limit) = limit {
                        write!(f, ":{direction}={limit}")?;
                    }
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for text in [
            "vnet:default",
            "vnet:lab_2:web:3:52-54-00-00-00-01",
            "vnet:a:b:1:52-54-00-00-00-01:in=8mbit/64kbyte:out=1gbit",
        ] {
            assert_eq!(text.parse::<Alias>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn foreign_aliases_are_not_ours() {
        for text in [
            "",
            "uplink",
            "vnet",
            "vnet:",
            "vnet:a:b",
            "vnet:a:b:x",
            "vnet:a:b:1",
            "vnet:a:b:1:c",
            "vnet:a:b:1:52-54-00-00-00-01:in=1",
            "vnet:a:b:1:52-54-00-00-00-01:in=8mbit:in=8mbit",
        ] {
            assert!(text.parse::<Alias>().is_err(), "{text}");
        }
    }
}
