//! Networks over an uplink, and either sort of network.

use serde::{Deserialize, Serialize};
use vnet_types::{BridgedDefinition, IfName, MacAddr, NetworkName};

use super::{Changed, Network, PortView, State};

/// One bridged network. It has no subnet and no services, hence a value of its own, told apart
/// by `definition.mode`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BridgedNetwork {
    /// As it is desired.
    pub definition: BridgedDefinition,
    /// Whether it works.
    #[serde(flatten)]
    pub state: State,
    /// The address of its bridge; none while there is no bridge.
    pub bridge_mac: Option<MacAddr>,
    /// The guests that are on it now.
    pub ports: Vec<PortView>,
    /// How many seconds are left to confirm it before all is put back; none where that is done
    /// or was not asked for.
    pub confirm_within: Option<u64>,
}

/// An uplink that is to be put under a bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct EnslaveUplink {
    /// The bridge; made where it is not there.
    pub bridge: IfName,
    /// The interface, whose addresses and routes the bridge gets.
    pub uplink: IfName,
    /// The network's name; the bridge's where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<NetworkName>,
    /// Bytes in the largest IP packet; the uplink's where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Seconds within which it must be confirmed, or all is put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_seconds: Option<u64>,
}

/// What a request changed of a bridged network, or would have changed.
pub type BridgeChanged = Changed<BridgedNetwork>;

/// A network of either sort; `definition.mode` tells them apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum AnyNetwork {
    /// One with a subnet of its own.
    Network(Box<Network>),
    /// One that is part of the LAN.
    Bridged(Box<BridgedNetwork>),
}

impl AnyNetwork {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &NetworkName {
        match self {
            Self::Network(network) => &network.definition.name,
            Self::Bridged(network) => &network.definition.name,
        }
    }

    /// Whether it works.
    #[must_use]
    pub const fn state(&self) -> &State {
        match self {
            Self::Network(network) => &network.state,
            Self::Bridged(network) => &network.state,
        }
    }

    /// The guests that are on it now.
    #[must_use]
    pub fn ports(&self) -> &[PortView] {
        match self {
            Self::Network(network) => &network.ports,
            Self::Bridged(network) => &network.ports,
        }
    }

    /// The network, if it is one with a subnet.
    #[must_use]
    pub fn into_network(self) -> Option<Network> {
        match self {
            Self::Network(network) => Some(*network),
            Self::Bridged(_) => None,
        }
    }
}

impl From<Network> for AnyNetwork {
    fn from(network: Network) -> Self {
        Self::Network(Box::new(network))
    }
}

impl From<BridgedNetwork> for AnyNetwork {
    fn from(network: BridgedNetwork) -> Self {
        Self::Bridged(Box::new(network))
    }
}

impl<N: Into<AnyNetwork>> Changed<N> {
    /// The same of any network.
    #[must_use]
    pub fn of_any(self) -> Changed<AnyNetwork> {
        Changed { network: self.network.map(Into::into), plan: self.plan, notes: self.notes }
    }
}
