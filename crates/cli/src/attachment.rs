//! `--net MODE:NAME[,mac=MAC]`: a network card, and whether its network can take it.

use std::fmt;
use std::str::FromStr;

use anyhow::bail;
use vnet_api::model::{Network, State};
use vnet_types::{MacAddr, Mode, NetworkName};

use crate::failure::Usage;

/// One network card as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attachment {
    /// What the network is said to be; said again so that nobody opens a guest by mistake.
    pub(crate) mode: Option<Mode>,
    pub(crate) network: NetworkName,
    /// The card's address; the VMM derives one where it is absent.
    pub(crate) mac: Option<MacAddr>,
}

impl FromStr for Attachment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let target = parts.next().unwrap_or_default();
        let (mode, name) = match target.split_once(':') {
            Some((mode, name)) => (Some(mode.parse::<Mode>()?), name),
            None => (None, target),
        };
        let network = name.parse().map_err(|error| format!("{error}"))?;
        let mut mac = None;
        for part in parts {
            let value = part
                .strip_prefix("mac=")
                .ok_or_else(|| format!("`{part}` is no setting of a network card: use mac=MAC"))?;
            let address: MacAddr = value.parse().map_err(|error| format!("{error}"))?;
            if address.is_multicast() {
                return Err(format!("{address} is a group address: give the card one of its own"));
            }
            if mac.replace(address).is_some() {
                return Err("mac= is given twice: a network card has one address".to_owned());
            }
        }
        Ok(Self { mode, network, mac })
    }
}

impl Attachment {
    /// The network among `networks` that this card goes to, if it can take it.
    ///
    /// # Errors
    /// It is not there, is of another mode, or is not up.
    pub(crate) fn check<'n>(&self, networks: &'n [Network]) -> anyhow::Result<&'n Network> {
        let name = &self.network;
        let network = find(networks, name)?;
        let mode = network.definition.mode;
        if self.mode != Some(mode) {
            let message = format!("`{name}` is a {mode} network: write --net {mode}:{name}");
            return Err(Usage(message).into());
        }
        check_is_up(network)?;
        Ok(network)
    }
}

/// As the VMM takes it, once [`Attachment::check`] has found it right.
impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(mode) = self.mode {
            write!(f, "{mode}:")?;
        }
        write!(f, "{}", self.network)?;
        self.mac.map_or(Ok(()), |mac| write!(f, ",mac={mac}"))
    }
}

/// The network `name` among `networks`.
///
/// # Errors
/// It is not there.
pub(crate) fn find<'n>(networks: &'n [Network], name: &NetworkName) -> anyhow::Result<&'n Network> {
    match networks.iter().find(|network| network.definition.name == *name) {
        Some(network) => Ok(network),
        None => bail!(
            "there is no network {name}: `vnet list` shows those that there are, `vnet create nat \
             {name}` makes it"
        ),
    }
}

/// Whether `network` is up.
///
/// # Errors
/// It isn't, and how it gets there.
pub(crate) fn check_is_up(network: &Network) -> anyhow::Result<()> {
    let name = &network.definition.name;
    match &network.state {
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

    fn networks(state: &str) -> Vec<Network> {
        let value = serde_json::json!([{
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
        for text in ["nat:default", "routed:lab,mac=52:54:00:00:00:01"] {
            assert_eq!(text.parse::<Attachment>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn rubbish_is_refused_with_the_rule() {
        for (text, rule) in [
            ("bridge:br0", "use nat, hostonly or routed"),
            ("nat:", "use 1 to 48"),
            ("nat:a,mtu=9", "use mac=MAC"),
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
        ] {
            let networks = networks(state);
            let error = text.parse::<Attachment>().unwrap().check(&networks).unwrap_err();
            assert!(error.to_string().contains(way), "{text}: {error}");
        }
        assert!("nat:default".parse::<Attachment>().unwrap().check(&networks("active")).is_ok());
    }
}
