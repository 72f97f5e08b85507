//! The steps before the burst that moves a host's network, and after one that moves it back.

use std::fmt;

use vnet_types::{IfName, MacAddr, NetworkName};

use super::{Journal, LinkFacts, Request, Resolver};

/// What is written on a bridge that we have made over an uplink. Not in the form of
/// [`crate::Alias`]: a bridge that holds the host's own addresses is not removed as left over.
const LABEL: &str = "vnet-bridged";

/// One step, small enough that it happens whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write the journal, to stable storage.
    Note(Box<Journal>),
    /// Make the bridge: spanning tree off, forward delay 0.
    CreateBridge {
        /// Its name.
        name: IfName,
        /// Its address, pinned.
        mac: MacAddr,
    },
    /// Write on the bridge what it is for.
    Label {
        /// The bridge.
        link: IfName,
        /// In words.
        text: String,
    },
    /// Set a link's address.
    SetMac {
        /// The link.
        link: IfName,
        /// The address.
        mac: MacAddr,
    },
    /// Set the size of a link's largest packet.
    SetMtu {
        /// The link.
        link: IfName,
        /// In bytes.
        mtu: u32,
    },
    /// Give the bridge the uplink's sysctls: `rp_filter`, `accept_ra` and so on; but no
    /// link-local address of its own making, since it gets the uplink's.
    CopySettings {
        /// The uplink.
        from: IfName,
        /// The bridge.
        to: IfName,
    },
    /// Set a link up.
    SetUp {
        /// The link.
        link: IfName,
    },
    /// Set a link down.
    SetDown {
        /// The link.
        link: IfName,
    },
    /// Send all these requests to the kernel at once.
    Burst(Vec<Request>),
    /// Have systemd-resolved know this of a link.
    SetResolver {
        /// The link.
        link: IfName,
        /// All of its settings.
        resolver: Resolver,
    },
    /// Have systemd-resolved forget what it was told of a link.
    RevertResolver {
        /// The link.
        link: IfName,
    },
    /// Remove the bridge.
    DeleteBridge {
        /// Its name.
        name: IfName,
        /// The address by which it is known as the one that we made.
        mac: MacAddr,
    },
    /// Remove the journal.
    Forget {
        /// Of which bridge.
        bridge: IfName,
    },
}

/// What makes the bridge ready, from the journal to a bridge that is up and empty. `present` is
/// the bridge if it is there already, and `mtu` that of the uplink.
#[must_use]
pub fn prepare(journal: &Journal, present: Option<&LinkFacts>, mtu: u32) -> Vec<Step> {
    let (bridge, uplink) = (&journal.network.bridge, &journal.uplink.name);
    let mtu = journal.network.mtu.unwrap_or(mtu);
    let mut steps = vec![Step::Note(Box::new(journal.clone()))];
    match present {
        None => {
            steps.push(Step::CreateBridge { name: bridge.clone(), mac: journal.mac });
            let text = format!("{LABEL}:{}", journal.network.name);
            steps.push(Step::Label { link: bridge.clone(), text });
            steps.push(Step::SetMtu { link: bridge.clone(), mtu });
            steps.push(Step::CopySettings { from: uplink.clone(), to: bridge.clone() });
        }
        Some(present) => {
            if present.mac != Some(journal.mac) {
                steps.push(Step::SetMac { link: bridge.clone(), mac: journal.mac });
            }
            if let Some(mtu) = journal.network.mtu.filter(|mtu| present.mtu != *mtu) {
                steps.push(Step::SetMtu { link: bridge.clone(), mtu });
            }
        }
    }
    if present.is_none_or(|present| !present.up) {
        steps.push(Step::SetUp { link: bridge.clone() });
    }
    // Before the burst: a link without addresses is not asked about, and one with them at once.
    if let Some(resolver) = &journal.resolver {
        let own = journal.bridge_resolver.clone().unwrap_or_default();
        steps.push(Step::SetResolver { link: bridge.clone(), resolver: own.with(resolver) });
    }
    steps
}

/// What is to be done about the uplink's DNS servers when the move stays.
#[must_use]
pub fn settle(journal: &Journal) -> Option<Step> {
    journal.resolver.as_ref()?;
    Some(Step::RevertResolver { link: journal.uplink.name.clone() })
}

/// What gives the uplink its DNS servers back. After the burst, on every way back: resolved takes
/// a port that leaves its bridge for a link that is gone, and forgets what it had for it.
#[must_use]
pub fn give_back(journal: &Journal) -> Option<Step> {
    let (link, resolver) = (journal.uplink.name.clone(), journal.resolver.clone()?);
    Some(Step::SetResolver { link, resolver })
}

/// What takes the bridge away again, or leaves one that was there before as it was, when nothing
/// of the host's is on it any more. `present` is the bridge as it is.
#[must_use]
pub fn remove(journal: &Journal, present: Option<&LinkFacts>) -> Vec<Step> {
    let bridge = &journal.network.bridge;
    let Some(present) = present else { return Vec::new() };
    if journal.created {
        // Between our note and the bridge's making, somebody may have made another one.
        let ours = present.is("bridge") && present.mac == Some(journal.mac);
        let delete = Step::DeleteBridge { name: bridge.clone(), mac: journal.mac };
        return if ours { vec![delete] } else { Vec::new() };
    }
    let mut steps = Vec::new();
    if journal.resolver.is_some() {
        let link = bridge.clone();
        steps.push(match journal.bridge_resolver.clone() {
            Some(resolver) => Step::SetResolver { link, resolver },
            None => Step::RevertResolver { link },
        });
    }
    if let Some(mac) = journal.bridge_mac.filter(|mac| present.mac != Some(*mac)) {
        steps.push(Step::SetMac { link: bridge.clone(), mac });
    }
    if let Some(mtu) = journal.bridge_mtu.filter(|mtu| present.mtu != *mtu) {
        steps.push(Step::SetMtu { link: bridge.clone(), mtu });
    }
    if !journal.bridge_up && present.up {
        steps.push(Step::SetDown { link: bridge.clone() });
    }
    steps
}

/// The network for which we have made this bridge, by what is written on it.
#[must_use]
pub fn labelled(bridge: &LinkFacts) -> Option<NetworkName> {
    let (label, network) = bridge.alias.as_deref()?.split_once(':')?;
    (label == LABEL).then(|| network.parse().ok())?
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Note(journal) => write!(
                f,
                "write to the journal how to put {} back ({} records)",
                journal.uplink.name,
                journal.on_uplink.len()
            ),
            Self::CreateBridge { name, mac } => write!(
                f,
                "create bridge {name} with address {mac}, spanning tree off, forward delay 0"
            ),
            Self::Label { link, text } => write!(f, "label {link} {text}"),
            Self::SetMac { link, mac } => write!(f, "set {link} address {mac}"),
            Self::SetMtu { link, mtu } => write!(f, "set {link} mtu {mtu}"),
            Self::CopySettings { from, to } => write!(f, "give {to} the sysctls of {from}"),
            Self::SetUp { link } => write!(f, "set {link} up"),
            Self::SetDown { link } => write!(f, "set {link} down"),
            Self::Burst(requests) => {
                write!(f, "in one burst:")?;
                requests.iter().try_for_each(|request| write!(f, "\n    {request}"))
            }
            Self::SetResolver { link, resolver } => {
                write!(f, "have systemd-resolved know for {link}: {resolver}")
            }
            Self::RevertResolver { link } => {
                write!(f, "have systemd-resolved forget what it was told of {link}")
            }
            Self::DeleteBridge { name, .. } => write!(f, "delete bridge {name}"),
            Self::Forget { bridge } => write!(f, "remove the journal of {bridge}"),
        }
    }
}
