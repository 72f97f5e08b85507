//! The definition of a bridged network: the mode `bridged` in `/etc/vnet/networks/NAME.toml`.
//!
//! Its guests are machines of the LAN behind the uplink. It has no subnet, no gateway and no
//! services of ours, hence a type of its own rather than a [`crate::NetworkDefinition`] with
//! most of it empty.

use serde::{Deserialize, Serialize};

use crate::{DefinitionError, IfName, MAX_MTU, MIN_MTU, NetworkName};

/// The word for the mode in definitions and on the command line.
pub const BRIDGED: &str = "bridged";

/// The mode of a [`BridgedDefinition`], which has only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum BridgedMode {
    /// Guests are machines of the LAN.
    #[default]
    Bridged,
}

/// One bridged network as it is desired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BridgedDefinition {
    /// The name, which is the stem of the file as well.
    pub name: NetworkName,
    /// Always `bridged`.
    pub mode: BridgedMode,
    /// The bridge, which holds the host's own addresses.
    pub bridge: IfName,
    /// The host's interface behind it.
    pub uplink: IfName,
    /// Bytes in the largest IP packet, as for other networks; the uplink's where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Whether netd sees to it when it starts itself, and the files of the uplink's manager do at
    /// boot.
    #[serde(default = "yes")]
    pub autostart: bool,
    /// Whether guests are held to their MAC addresses, and may serve neither DHCP nor router
    /// advertisements nor speak to switches. Their IP addresses are the LAN's to give.
    #[serde(default = "yes")]
    pub anti_spoofing: bool,
}

fn yes() -> bool {
    true
}

impl BridgedDefinition {
    /// Checks what no single value can show: that the parts fit each other.
    ///
    /// # Errors
    /// The first contradiction found.
    pub fn validate(&self) -> Result<(), DefinitionError> {
        if self.bridge == self.uplink {
            return Err(DefinitionError::OwnUplink(self.bridge.clone()));
        }
        match self.mtu {
            Some(mtu) if !(MIN_MTU..=MAX_MTU).contains(&mtu) => Err(DefinitionError::Mtu(mtu)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn br0() -> BridgedDefinition {
        BridgedDefinition {
            name: "br0".parse().unwrap(),
            mode: BridgedMode::Bridged,
            bridge: "br0".parse().unwrap(),
            uplink: "eth0".parse().unwrap(),
            mtu: None,
            autostart: true,
            anti_spoofing: true,
        }
    }

    #[test]
    fn a_bridge_is_not_its_own_uplink() {
        br0().validate().unwrap();
        let network = BridgedDefinition { uplink: "br0".parse().unwrap(), ..br0() };
        assert!(matches!(network.validate(), Err(DefinitionError::OwnUplink(_))));
    }

    #[test]
    fn the_mtu_has_bounds() {
        let network = BridgedDefinition { mtu: Some(575), ..br0() };
        assert_eq!(network.validate(), Err(DefinitionError::Mtu(575)));
    }
}
