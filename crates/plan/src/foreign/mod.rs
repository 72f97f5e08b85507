//! Rules of others that would drop our networks' traffic, found in a listing of all nftables
//! rules (`nft -j -a list ruleset`).
//!
//! An accept in our table is no accept in others: a packet must pass every base chain of its
//! hook. So each foreign base chain is walked as a packet of each [`Flow`] would. What cannot be
//! told from the outside (an extension of iptables, a limit) counts neither as an accept nor as a
//! drop; if an accept was among it, the drop that follows is only [`Certainty::Possible`].

mod flows;
mod listing;
mod matches;
mod owner;
#[cfg(test)]
mod tests;
mod walk;

use std::fmt;

use ipnet::IpNet;

pub use flows::Needs;
pub use listing::{Ruleset, RulesetError};
pub use owner::Owner;

/// Where in a packet's way through the host a chain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Through the host.
    Forward,
    /// To the host itself.
    Input,
}

/// The version of IP: rules of one are none of the other's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// IPv4.
    Four,
    /// IPv6.
    Six,
}

/// What a packet is to the connection that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// Its first packet.
    New,
    /// A later one.
    Established,
}

/// Packets that must pass for a network to work.
#[derive(Debug, Clone)]
pub struct Flow {
    /// In words, as `guests on virbr0 to the outside`.
    pub name: String,
    /// The bridge that it is about.
    pub bridge: String,
    /// The version of IP.
    pub version: Version,
    /// Where they pass.
    pub hook: Hook,
    /// The link that they come in by, if that is known.
    pub from: Option<String>,
    /// The link that they leave by, if that is known.
    pub to: Option<String>,
    /// Whom they are from, if that is known.
    pub source: Option<IpNet>,
    /// Whom they are for, if that is known.
    pub destination: Option<IpNet>,
    /// First packets or later ones.
    pub connection: Connection,
    /// The protocol and the port at their destination, if they matter.
    pub service: Option<(&'static str, u16)>,
}

/// Whether a drop can be told from the rules alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// Rules before it that cannot be read from the outside may accept the packets.
    Possible,
    /// The packets are dropped.
    Sure,
}

/// What drops a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// The flow, in words.
    pub flow: String,
    /// The family and the table, as `ip filter`.
    pub table: String,
    /// The chain whose rule or policy drops.
    pub chain: String,
    /// The rule; none where it is the chain's policy.
    pub handle: Option<u64>,
    /// Whether it is sure.
    pub certainty: Certainty,
    /// Whose chain it is, as far as can be told.
    pub owner: Owner,
    /// The commands that let the flow pass, as the chain's owner documents them.
    pub fix: Vec<String>,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.certainty {
            Certainty::Sure => "dropped",
            Certainty::Possible => "perhaps dropped",
        };
        write!(
            f,
            "{} are {verb} by {}table {} chain {}",
            self.flow, self.owner, self.table, self.chain
        )?;
        match self.handle {
            Some(handle) => write!(f, " rule handle {handle}"),
            None => f.write_str(" (its policy)"),
        }
    }
}

/// What stands in the way of `flows`: at most one obstacle for each flow and base chain.
#[must_use]
pub fn obstacles(ruleset: &Ruleset, flows: &[Flow]) -> Vec<Obstacle> {
    let mut found = Vec::new();
    for flow in flows {
        for base in ruleset.base_chains(flow.hook, flow.version) {
            if let Some(drop) = walk::dropped(ruleset, base, flow) {
                let owner = Owner::of(ruleset, base, &drop.chain);
                found.push(Obstacle {
                    flow: flow.name.clone(),
                    table: format!("{} {}", base.family, base.table),
                    fix: owner.fix(base, flow),
                    owner,
                    chain: drop.chain,
                    handle: drop.handle,
                    certainty: drop.certainty,
                });
            }
        }
    }
    found
}
