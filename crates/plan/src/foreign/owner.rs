//! Whose a chain is, and how its owner wants an exception to be made.

use std::fmt;

use super::listing::Place;
use super::{Flow, Hook, Ruleset, Version};

/// The program that keeps a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Docker: its chain DOCKER-USER is the place for exceptions.
    Docker,
    /// ufw.
    Ufw,
    /// firewalld: exceptions are zones.
    Firewalld,
    /// Somebody with iptables.
    Iptables,
    /// Somebody with nft.
    Nft,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "Docker, ",
            Self::Ufw => "ufw, ",
            Self::Firewalld => "firewalld, ",
            Self::Iptables | Self::Nft => "",
        })
    }
}

impl Owner {
    pub(super) fn of(ruleset: &Ruleset, base: &Place, dropping: &str) -> Self {
        // In `inet` there are none of iptables.
        let iptables = base.family != "inet"
            && base.table == "filter"
            && base.name == base.name.to_uppercase();
        if base.table == "firewalld" {
            Self::Firewalld
        } else if dropping.starts_with("ufw-") || dropping.starts_with("ufw6-") {
            Self::Ufw
        } else if iptables && base.name == "FORWARD" && ruleset.has_chain(base, "DOCKER-USER") {
            Self::Docker
        } else if iptables && ["ufw-", "ufw6-"].iter().any(|prefix| ruleset.has_chain(base, prefix))
        {
            Self::Ufw
        } else if iptables {
            Self::Iptables
        } else {
            Self::Nft
        }
    }

    /// The commands that let `flow` and what belongs to it pass.
    pub(super) fn fix(self, base: &Place, flow: &Flow) -> Vec<String> {
        let bridge = &flow.bridge;
        let Place { family, table, name } = base;
        let iptables = match flow.version {
            Version::Four => "iptables",
            Version::Six => "ip6tables",
        };
        match (self, flow.hook) {
            // https://docs.docker.com/engine/network/packet-filtering-firewalls/
            (Self::Docker, Hook::Forward) => vec![
                format!("{iptables} -I DOCKER-USER -i {bridge} -j ACCEPT"),
                format!("{iptables} -I DOCKER-USER -o {bridge} -j ACCEPT"),
            ],
            // ufw(8), `ufw route`
            (Self::Ufw, Hook::Forward) => vec![
                format!("ufw route allow in on {bridge}"),
                format!("ufw route allow out on {bridge}"),
            ],
            (Self::Ufw, Hook::Input) => vec![format!("ufw allow in on {bridge} to any port 53")],
            // firewall-cmd(1), firewalld.zones(5)
            (Self::Firewalld, _) => vec![
                format!("firewall-cmd --permanent --zone=trusted --add-interface={bridge}"),
                format!("firewall-cmd --zone=trusted --add-interface={bridge}"),
            ],
            (Self::Iptables, Hook::Forward) => vec![
                format!("{iptables} -I {name} -i {bridge} -j ACCEPT"),
                format!("{iptables} -I {name} -o {bridge} -j ACCEPT"),
            ],
            (Self::Iptables | Self::Docker, Hook::Input) => {
                let accept = "--dport 53 -j ACCEPT";
                ["udp", "tcp"]
                    .map(|protocol| {
                        format!("{iptables} -I INPUT -i {bridge} -p {protocol} {accept}")
                    })
                    .into()
            }
            (Self::Nft, Hook::Forward) => ["iifname", "oifname"]
                .map(|key| format!("nft insert rule {family} {table} {name} {key} {bridge} accept"))
                .into(),
            (Self::Nft, Hook::Input) => vec![format!(
                "nft insert rule {family} {table} {name} iifname {bridge} meta l4proto '{{ tcp, udp }}' \
                 th dport 53 accept"
            )],
        }
    }
}
