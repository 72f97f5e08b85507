//! systemd-networkd: new files before all others, and none changed.

use vnet_types::{BridgedDefinition, MacAddr};

use super::{FileChange, ManagerFacts, sections};

/// Whether the `.network` file is for this interface, by its name.
pub(super) fn matches(name: &str, text: &str) -> bool {
    sections(text).filter(|(section, _)| *section == "Match").any(|(_, line)| {
        let Some((key, value)) = line.split_once('=') else { return false };
        key.trim() == "Name" && value.split_whitespace().any(|pattern| glob(pattern, name))
    })
}

/// Shell patterns with `*` and `?`.
fn glob(pattern: &str, name: &str) -> bool {
    match (pattern.chars().next(), name.chars().next()) {
        (None, None) => true,
        (Some('*'), _) => {
            let rest = &pattern[1..];
            name.char_indices()
                .map(|(at, _)| at)
                .chain([name.len()])
                .any(|at| glob(rest, &name[at..]))
        }
        (Some(p), Some(n)) if p == '?' || p == n => {
            glob(&pattern[p.len_utf8()..], &name[n.len_utf8()..])
        }
        _ => false,
    }
}

/// The bridge, its uplink as a port, and for the bridge what the file `text` says of the uplink.
pub(super) fn files(
    network: &BridgedDefinition,
    mac: MacAddr,
    text: &str,
    facts: &ManagerFacts,
) -> Vec<FileChange> {
    let (bridge, uplink) = (&network.bridge, &network.uplink);
    let by = format!(
        "# Written by vnet for the network {}; `vnet bridge {bridge} --release {uplink}` removes it.\n",
        network.name
    );
    let mtu = network.mtu.map(|mtu| format!("MTUBytes={mtu}\n")).unwrap_or_default();
    let netdev = format!(
        "{by}[NetDev]\nName={bridge}\nKind=bridge\nMACAddress={mac}\n{mtu}\n[Bridge]\nSTP=no\n\
         ForwardDelaySec=0\n"
    );
    let port = format!(
        "{by}[Match]\nName={uplink}\n\n[Network]\nBridge={bridge}\nLinkLocalAddressing=no\n"
    );
    let same_client = facts.networkd_iaid.map(|iaid| identifiers(text, iaid)).unwrap_or_default();
    let host = format!("{by}[Match]\nName={bridge}\n{}{same_client}", without_match(text));
    [
        (format!("00-vnet-{bridge}.netdev"), netdev),
        (format!("00-vnet-{uplink}.network"), port),
        (format!("00-vnet-{bridge}.network"), host),
    ]
    .into_iter()
    .map(|(name, text)| {
        let path = format!("etc/systemd/network/{name}");
        FileChange { before: facts.files.get(&path).cloned(), path, after: Some(text) }
    })
    .collect()
}

/// What makes the bridge ask as the uplink did, so that DHCP servers give it the same addresses.
/// networkd makes that number of the name that udev has for a card, which a bridge has none of; the
/// rest of what it sends is the same for all interfaces, or set in the file. What the file has
/// stays.
fn identifiers(text: &str, iaid: u32) -> String {
    let has = |wanted: &str| {
        sections(text).any(|(section, line)| section == wanted && line.trim().starts_with("IAID="))
    };
    let missing = ["DHCPv4", "DHCPv6"].into_iter().filter(|section| !has(section));
    missing.map(|section| format!("\n[{section}]\nIAID={iaid}\n")).collect()
}

/// The file's sections but `[Match]`.
fn without_match(text: &str) -> String {
    let mut kept = String::new();
    let mut section = "";
    for (found, line) in sections(text).filter(|(section, _)| !matches!(*section, "" | "Match")) {
        if line.trim().is_empty() {
            continue;
        }
        if found != section {
            section = found;
            kept.push_str(&format!("\n[{section}]\n"));
        }
        kept.push_str(line);
        kept.push('\n');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::super::tests::br0;
    use super::*;

    const LAN: &str = "# the LAN\n[Match]\nName=eth0 eth9\n\n[Network]\nAddress=203.0.113.2/24\n\n\
                       [Route]\nGateway=203.0.113.1\nMetric=50\n";

    #[test]
    fn a_file_is_for_the_interfaces_that_its_patterns_name() {
        for (name, fits) in [("eth0", true), ("eth9", true), ("eth", false), ("eth00", false)] {
            assert_eq!(matches(name, LAN), fits, "{name}");
        }
        assert!(matches("enp3s0", "[Match]\nName=en* eth?\n"));
        assert!(!matches("eth0", "[Network]\nName=eth0\n"));
    }

    #[test]
    fn the_bridge_gets_what_the_uplink_had() {
        let network = br0();
        let mac = "52:54:00:00:00:01".parse().unwrap();
        let files = files(&network, mac, LAN, &ManagerFacts::default());
        let texts: Vec<_> =
            files.iter().map(|file| (file.path.as_str(), file.after.as_deref().unwrap())).collect();
        let by =
            "# Written by vnet for the network br0; `vnet bridge br0 --release eth0` removes it.\n";
        assert_eq!(
            texts,
            [
                (
                    "etc/systemd/network/00-vnet-br0.netdev",
                    &*format!(
                        "{by}[NetDev]\nName=br0\nKind=bridge\nMACAddress=52:54:00:00:00:01\n\n[Bridge]\nSTP=no\nForwardDelaySec=0\n"
                    )
                ),
                (
                    "etc/systemd/network/00-vnet-eth0.network",
                    &*format!(
                        "{by}[Match]\nName=eth0\n\n[Network]\nBridge=br0\nLinkLocalAddressing=no\n"
                    )
                ),
                (
                    "etc/systemd/network/00-vnet-br0.network",
                    &*format!(
                        "{by}[Match]\nName=br0\n\n[Network]\nAddress=203.0.113.2/24\n\n[Route]\nGateway=203.0.113.1\nMetric=50\n"
                    )
                ),
            ]
        );
    }

    #[test]
    fn the_bridge_asks_for_its_address_as_the_uplink_did() {
        let text = "[Match]\nName=eth0\n[Network]\nDHCP=yes\n[DHCPv4]\nClientIdentifier=duid\n";
        let facts = ManagerFacts { networkd_iaid: Some(0x0a0b_0c0d), ..ManagerFacts::default() };
        let mac = "52:54:00:00:00:01".parse().unwrap();
        let of = |text: &str| files(&br0(), mac, text, &facts)[2].after.clone().unwrap();
        let tail = of(text).split_once("Name=br0\n").unwrap().1.to_owned();
        let copied = "\n[Network]\nDHCP=yes\n\n[DHCPv4]\nClientIdentifier=duid\n";
        let both = "\n[DHCPv4]\nIAID=168496141\n\n[DHCPv6]\nIAID=168496141\n";
        assert_eq!(tail, format!("{copied}{both}"));
        // One that somebody has chosen is carried over with the rest.
        let chosen = of(&format!("{text}IAID=7\n"));
        assert_eq!(chosen.matches("IAID=168496141").count(), 1, "{chosen}");
        assert!(chosen.contains("ClientIdentifier=duid\nIAID=7\n"), "{chosen}");
    }
}
