//! `--net MODE:NAME[,mac=MAC]`: a network card, and whether its network can take it.

use std::fmt;
use std::str::FromStr;

use anyhow::bail;
use vnet_api::model::{AnyNetwork, Network, State};
use vnet_types::{BRIDGED, IfName, Limit, LinkLimits, MacAddr, Mode, NetworkName};

use crate::failure::Usage;

/// The word for a network over an uplink that is named by its bridge.
const BRIDGE: &str = "bridge";

/// One network card as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) place: Place,
    /// The card's address; the VMM derives one where it is absent.
    pub(crate) mac: Option<MacAddr>,
    /// How fast it is to be.
    pub(crate) limits: LinkLimits,
}

/// Where a network card goes. What the network is said to be is said again so that nobody opens a
/// guest by mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A network with a subnet.
    Network(Option<Mode>, NetworkName),
    /// A bridged network by its bridge, as `bridge:br0`.
    Bridge(IfName),
    /// A bridged network by its name.
    Bridged(NetworkName),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = |name: &str| name.parse().map_err(|error| format!("{error}"));
        match text.split_once(':') {
            None => Ok(Self::Network(None, network(text)?)),
            Some((BRIDGE, name)) => {
                name.parse().map(Self::Bridge).map_err(|error| format!("{error}"))
            }
            Some((BRIDGED, name)) => network(name).map(Self::Bridged),
            Some((mode, name)) => {
                let mode = mode.parse().map_err(|error: String| format!("{error}, or {BRIDGE}"))?;
                Ok(Self::Network(Some(mode), network(name)?))
            }
        }
    }
}

impl FromStr for Attachment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let place = parts.next().unwrap_or_default().parse()?;
        let mut card = Self { place, mac: None, limits: LinkLimits::default() };
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let twice = match key {
                "mac" => {
                    let address: MacAddr = value.parse().map_err(|error| format!("{error}"))?;
                    if address.is_multicast() {
                        return Err(format!(
                            "{address} is a group address: give the card one of its own"
                        ));
                    }
                    card.mac.replace(address).is_some()
                }
                "rate-in" => card.limits.inbound.replace(limit(value)?).is_some(),
                "rate-out" => card.limits.outbound.replace(limit(value)?).is_some(),
                _ => {
                    return Err(format!(
                        "`{part}` is no setting of a network card: use mac=MAC, rate-in=RATE or \
                         rate-out=RATE"
                    ));
                }
            };
            if twice {
                return Err(format!("{key}= is given twice: a network card has one"));
            }
        }
        Ok(card)
    }
}

fn limit(text: &str) -> Result<Limit, String> {
    text.parse().map_err(|error| format!("{error}"))
}

impl Attachment {
    /// The card as the VMM takes it: on that one of `networks` that it goes to, if it can.
    ///
    /// # Errors
    /// The network is not there, is of another mode, or is not up.
    pub(crate) fn resolve(&self, networks: &[AnyNetwork]) -> anyhow::Result<Self> {
        let network = match &self.place {
            Place::Network(_, name) | Place::Bridged(name) => find_any(networks, name)?,
            Place::Bridge(bridge) => find_bridge(networks, bridge)?,
        };
        let name = network.name();
        let place = match network {
            AnyNetwork::Network(network) => {
                Place::Network(Some(network.definition.mode), name.clone())
            }
            AnyNetwork::Bridged(_) => Place::Bridged(name.clone()),
        };
        if self.place != place && !matches!(self.place, Place::Bridge(_)) {
            let (word, way) = match network {
                AnyNetwork::Network(network) => {
                    let mode = network.definition.mode;
                    (mode.to_string(), format!("{mode}:{name}"))
                }
                AnyNetwork::Bridged(network) => {
                    (BRIDGED.to_owned(), format!("{BRIDGE}:{}", network.definition.bridge))
                }
            };
            let message = format!("`{name}` is a {word} network: write --net {way}");
            return Err(Usage(message).into());
        }
        check_is_up(name, network.state())?;
        Ok(Self { place, mac: self.mac, limits: self.limits })
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Network(None, name) => name.fmt(f)?,
            Place::Network(Some(mode), name) => write!(f, "{mode}:{name}")?,
            Place::Bridge(bridge) => write!(f, "{BRIDGE}:{bridge}")?,
            Place::Bridged(name) => write!(f, "{BRIDGED}:{name}")?,
        }
        self.mac.map_or(Ok(()), |mac| write!(f, ",mac={mac}"))?;
        self.limits.inbound.map_or(Ok(()), |limit| write!(f, ",rate-in={limit}"))?;
        self.limits.outbound.map_or(Ok(()), |limit| write!(f, ",rate-out={limit}"))
    }
}

fn find_any<'n>(networks: &'n [AnyNetwork], name: &NetworkName) -> anyhow::Result<&'n AnyNetwork> {
    networks.iter().find(|network| network.name() == name).map_or_else(|| no_network(name), Ok)
}

fn find_bridge<'n>(networks: &'n [AnyNetwork], name: &IfName) -> anyhow::Result<&'n AnyNetwork> {
    let has_bridge = |network: &&AnyNetwork| match network {
        AnyNetwork::Network(_) => false,
        AnyNetwork::Bridged(network) => network.definition.bridge == *name,
    };
    if let Some(network) = networks.iter().find(has_bridge) {
        return Ok(network);
    }
    let ours = networks.iter().find_map(|network| match network {
        AnyNetwork::Network(network) if network.definition.bridge == *name => Some(network),
        _ => None,
    });
    if let Some(network) = ours {
        let (mode, network) = (network.definition.mode, &network.definition.name);
        let message = format!(
            "{name} is the bridge of the {mode} network {network}: write --net {mode}:{network}"
        );
        return Err(Usage(message).into());
    }
    bail!(
        "there is no bridged network with the bridge {name}: `vnet list` shows those that there \
         are, `vnet bridge {name} --enslave INTERFACE` makes it"
    )
}

/// The network `name` among `networks`, which have a subnet.
///
/// # Errors
/// It is not there.
pub(crate) fn find<'n>(networks: &'n [Network], name: &NetworkName) -> anyhow::Result<&'n Network> {
    let network = networks.iter().find(|network| network.definition.name == *name);
    network.map_or_else(|| no_network(name), Ok)
}

fn no_network<T>(name: &NetworkName) -> anyhow::Result<T> {
    bail!(
        "there is no network {name}: `vnet list` shows those that there are, `vnet create nat \
         {name}` makes it"
    )
}

/// Whether the network `name` is up.
///
/// # Errors
/// It isn't, and how it gets there.
pub(crate) fn check_is_up(name: &NetworkName, state: &State) -> anyhow::Result<()> {
    match state {
        State::Active => Ok(()),
        State::Stopped => bail!("the network {name} is stopped: `vnet start {name}` starts it"),
        State::Failed { reason } => {
            bail!("the network {name} is not up: {reason}; then `vnet start {name}` starts it")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(state: &str) -> Vec<AnyNetwork> {
        let value = serde_json::json!([{
            "definition": {"name": "lan", "mode": "bridged", "bridge": "br0", "uplink": "eth0"},
            "state": state, "bridge_mac": null, "ports": [], "confirm_within": null
        }, {
            "definition": {
                "name": "default", "mode": "nat", "bridge": "virbr0",
                "subnet": "192.168.122.0/24", "domain": "default.vnet"
            },
            "state": state, "gateway": "192.168.122.1", "bridge_mac": null, "ports": [],
            "leases": 0
        }]);
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_card_is_read_and_written_alike() {
        for text in [
            "nat:default",
            "routed:lab,mac=52:54:00:00:00:01",
            "nat:a,rate-in=1gbit,rate-out=5mbit/64kbyte",
            "bridge:br0",
            "bridged:lan",
        ] {
            assert_eq!(text.parse::<Attachment>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn rubbish_is_refused_with_the_rule() {
        for (text, rule) in [
            ("bride:br0", "use nat, hostonly or routed, or bridge"),
            ("bridge:br/0", "br/0"),
            ("nat:", "use 1 to 48"),
            ("nat:a,mtu=9", "use mac=MAC"),
            ("nat:a,rate-in=9", "as in 10mbit"),
            ("nat:a,rate-in=9mbit,rate-in=9mbit", "twice"),
            ("nat:a,mac=ff:ff:ff:ff:ff:ff", "group address"),
            ("nat:a,mac=52:54:00:00:00:01,mac=52:54:00:00:00:01", "twice"),
        ] {
            let error = text.parse::<Attachment>().unwrap_err();
            assert!(error.contains(rule), "{text}: {error}");
        }
    }

    #[test]
    fn a_network_that_cannot_take_the_card_says_the_way_out() {
        for (text, state, way) in [
            ("nat:other", "active", "`vnet create nat other`"),
            ("default", "active", "write --net nat:default"),
            ("hostonly:default", "active", "write --net nat:default"),
            ("nat:default", "stopped", "`vnet start default`"),
            ("nat:lan", "active", "write --net bridge:br0"),
            ("bridged:default", "active", "write --net nat:default"),
            ("bridge:virbr0", "active", "write --net nat:default"),
            ("bridge:br1", "active", "`vnet bridge br1 --enslave INTERFACE`"),
            ("bridge:br0", "stopped", "`vnet start lan`"),
        ] {
            let networks = networks(state);
            let error = text.parse::<Attachment>().unwrap().resolve(&networks).unwrap_err();
            assert!(error.to_string().contains(way), "{text}: {error}");
        }
        for (text, resolved) in [
            ("nat:default", "nat:default"),
            ("bridge:br0", "bridged:lan"),
            ("bridged:lan", "bridged:lan"),
        ] {
            let card = text.parse::<Attachment>().unwrap().resolve(&networks("active")).unwrap();
            assert_eq!(card.to_string(), resolved);
        }
    }
}
