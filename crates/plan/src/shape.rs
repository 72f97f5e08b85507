//! How limits of networks and ports become queues of the kernel.
//!
//! ```text
//! in:   host ──► [tbf] bridge or port ──► guests
//! out:  guest ──► port ──(redirect)──► vshapeXXXXXXXX [tbf] ──► back, and on its way
//! ```
//!
//! The kernel can queue only what leaves a link. So what comes from a guest takes the way through a
//! link of the kind `ifb`, an intake, of which each limited port has one of its own. A queue
//! delays, where a filter would drop: TCP keeps to it. Each is its link's alone, so a packet costs
//! the same whatever other limits there are.
//!
//! What leaves a network as a whole cannot be queued so: where br_netfilter is on, a packet that
//! is taken from a bridge to another link loses its connection, and NAT with it. There, a limit of
//! the firewall drops what is too much (`firewall/limit`).

use std::collections::{BTreeMap, BTreeSet};

use vnet_types::{IfName, Limit, LinkLimits, MacAddr, NetworkDefinition};

use crate::{Alias, Desired, Ledger, Link, LinkKind, Links, Observed, Operation, Plan};

/// What the names of intakes begin with; eight digits follow.
const INTAKE: &str = "vshape";
/// What is around an IP packet in a frame, with one VLAN tag.
const FRAME: u32 = 18;
/// The least that may wait or pass at once.
const LEAST: u64 = 32 << 10;

/// The queue of a link with a rate: a token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Bytes in a second.
    pub rate: u64,
    /// Bytes that may pass at once.
    pub burst: u32,
    /// Bytes that may wait, and those that may pass at once.
    pub limit: u32,
}

/// What there is on a link to limit it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    /// The rate and the limit of its token bucket. The kernel does not tell the burst as it was
    /// set.
    pub bucket: Option<(u64, u32)>,
    /// Whether what comes in by it is taken elsewhere first.
    pub redirect: Option<Redirect>,
}

/// Where what comes in by a link is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redirect {
    /// To the link with this index, all of it.
    To(u32),
    /// Nowhere that we know.
    Unknown,
}

/// Any limit at all.
const MOST: Option<Limit> = Some(Limit::FASTEST);

impl Bucket {
    /// The bucket for `limit` on a link with this MTU.
    #[must_use]
    pub fn new(limit: Limit, mtu: u32) -> Self {
        let frame = u64::from(mtu + FRAME);
        let fits = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX / 2);
        // 20 ms: a host that is busy serves its queues late, and must be able to make up for it.
        let burst = limit.burst().map_or((limit.rate() / 50).max(LEAST), u64::from).max(frame);
        let waiting = (limit.rate() / 20).max(LEAST).max(2 * frame);
        Self { rate: limit.rate(), burst: fits(burst), limit: fits(burst + waiting) }
    }

    fn is(&self, present: Option<(u64, u32)>) -> bool {
        present == Some((self.rate, self.limit))
    }
}

/// The name of the intake of a link.
#[must_use]
pub fn intake(link: &str) -> Option<IfName> {
    // FNV-1a: the same name in every version.
    let hash = link
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{INTAKE}{hash:08x}").parse().ok()
}

/// The address by which an intake is known as ours: the kernel sets it in the step in which it
/// makes the link.
#[must_use]
pub(crate) fn intake_mac(name: &IfName) -> MacAddr {
    MacAddr::derived(&format!("intake/{name}"), 0)
}

fn is_intake(name: &str, link: &Link) -> bool {
    link.kind == LinkKind::Intake
        && name.starts_with(INTAKE)
        && name.parse().is_ok_and(|name| link.mac == Some(intake_mac(&name)))
}

/// Whether any link may have a queue of ours, so that they must be looked at.
#[must_use]
pub fn may_be_shaped(links: &Links, ledger: &Ledger) -> bool {
    let limited = |network: &NetworkDefinition| !network.limits.is_empty();
    ledger.bridges.values().any(|claim| limited(&claim.network))
        || links.iter().any(|(name, link)| {
            is_intake(name, link) || own_limits(link).is_some_and(|limits| !limits.is_empty())
        })
}

/// The limits that a port has by itself.
fn own_limits(link: &Link) -> Option<LinkLimits> {
    match link.alias {
        Some(Alias::Port { limits, .. }) => Some(limits),
        Some(Alias::Bridge(_)) | None => None,
    }
}

/// Those of a network's limits that are queues of its bridge.
fn of_bridge(network: &NetworkDefinition) -> LinkLimits {
    LinkLimits { inbound: network.limits.inbound, outbound: None }
}

/// The links of the desired networks that have limits, with these and their MTU.
fn wanted(desired: &Desired, observed: &Observed) -> BTreeMap<IfName, (LinkLimits, u32)> {
    let mut all = BTreeMap::new();
    for (network, _) in desired.networks.values() {
        let limits = of_bridge(network);
        if !limits.is_empty() {
            all.insert(network.bridge.clone(), (limits, network.mtu()));
        }
    }
    for (name, link) in observed.links.iter() {
        let Some(Alias::Port { network, limits, .. }) = &link.alias else { continue };
        let (LinkKind::Tun, Ok(name)) = (link.kind, name.parse()) else { continue };
        // A bridged network has no limits, and one that is down none at the moment.
        let (of_network, mtu) = match desired.networks.get(network) {
            Some((network, _)) => (network.limits.port(), network.mtu()),
            None => (LinkLimits::default(), link.mtu),
        };
        let limits = limits.stricter(of_network);
        if !limits.is_empty() {
            all.insert(name, (limits, mtu));
        }
    }
    all
}

/// Takes away the queues that nobody wants any more.
pub(crate) fn remove(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    if observed.shapes.is_empty() {
        return;
    }
    let bridges = desired.bridges();
    let wanted = wanted(desired, observed);
    for (name, link) in observed.links.iter() {
        let (Some(shape), Ok(name)) =
            (observed.shapes.get(&link.index).copied(), name.parse::<IfName>())
        else {
            continue;
        };
        let is_bridge = bridges.contains(name.as_str());
        let ours = match (own_limits(link), observed.ledger.bridges.get(&name)) {
            // A port is ours with all that is on it.
            (Some(_), _) => LinkLimits { inbound: MOST, outbound: MOST },
            // Somebody may have given a bridge a queue for which the network has no limit.
            (None, Some(claim)) if is_bridge => of_bridge(&claim.network),
            _ => continue,
        };
        let limits = wanted.get(&name).map_or_else(LinkLimits::default, |(limits, _)| *limits);
        if limits.outbound.is_none() && ours.outbound.is_some() && shape.redirect.is_some() {
            plan.push(Operation::Unredirect { link: name.clone() });
        }
        if limits.inbound.is_none() && ours.inbound.is_some() && shape.bucket.is_some() {
            plan.push(Operation::Unshape { link: name });
        }
    }
}

/// Takes away the intakes of links that are gone or have no limit any more.
pub(crate) fn remove_intakes(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    let wanted = wanted(desired, observed);
    let limited = wanted.iter().filter(|(_, (limits, _))| limits.outbound.is_some());
    let intakes: BTreeSet<IfName> = limited.filter_map(|(name, _)| intake(name.as_str())).collect();
    for (name, link) in observed.links.iter() {
        if is_intake(name, link)
            && let Ok(name) = name.parse::<IfName>()
            && !intakes.contains(&name)
        {
            plan.push(Operation::DeleteLink { name });
        }
    }
}

/// Makes the queues that are wanted.
pub(crate) fn add(desired: &Desired, observed: &Observed, plan: &mut Plan) {
    for (name, (limits, mtu)) in wanted(desired, observed) {
        plan.operations.extend(of_link(&name, limits, mtu, observed));
    }
}

/// The steps that give a link, be it there already or about to be made, these limits.
#[must_use]
pub fn of_link(name: &IfName, limits: LinkLimits, mtu: u32, observed: &Observed) -> Vec<Operation> {
    let mut steps = Vec::new();
    let link = |name: &IfName| observed.links.get(name.as_str());
    let shape = |name: &IfName| {
        link(name).and_then(|link| observed.shapes.get(&link.index)).copied().unwrap_or_default()
    };
    let pour = |name: &IfName, limit, steps: &mut Vec<Operation>| {
        let bucket = Bucket::new(limit, mtu);
        if !bucket.is(shape(name).bucket) {
            steps.push(Operation::Shape { link: name.clone(), bucket });
        }
    };
    if let Some(limit) = limits.inbound {
        pour(name, limit, &mut steps);
    }
    if let (Some(limit), Some(intake)) = (limits.outbound, intake(name.as_str())) {
        let present = link(&intake);
        if present.is_none() {
            let mac = intake_mac(&intake);
            steps.push(Operation::CreateIntake { name: intake.clone(), mac });
            if observed.ipv6 {
                steps.push(Operation::DisableIpv6 { link: intake.clone() });
            }
        }
        // What a jumbo frame fits in.
        if present.is_none_or(|link| link.mtu != mtu) {
            steps.push(Operation::SetMtu { link: intake.clone(), mtu });
        }
        pour(&intake, limit, &mut steps);
        if present.is_none_or(|link| !link.up) {
            steps.push(Operation::SetUp { link: intake.clone() });
        }
        let there = present
            .is_some_and(|present| shape(name).redirect == Some(Redirect::To(present.index)));
        if !there {
            steps.push(Operation::Redirect { link: name.clone(), to: intake });
        }
    }
    steps
}
