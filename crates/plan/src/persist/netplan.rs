//! netplan: in the file where the uplink stands, what is about addresses moves to a bridge over
//! it. A file beside could not do that: netplan merges mappings and joins lists, so it can take
//! nothing away from the uplink.
//!
//! The file is changed line by line, so that comments and everything else in it stay. It must be
//! in block style, as all that installers and cloud-init write; other files are left alone.

use vnet_types::{BridgedDefinition, MacAddr};

/// What stays with the interface itself: how it is found, and properties of the hardware.
const PHYSICAL: [&str; 14] = [
    "match",
    "set-name",
    "wakeonlan",
    "emit-lldp",
    "receive-checksum-offload",
    "transmit-checksum-offload",
    "tcp-segmentation-offload",
    "tcp6-segmentation-offload",
    "generic-segmentation-offload",
    "generic-receive-offload",
    "large-receive-offload",
    "virtual-function-count",
    "embedded-switch-mode",
    "delay-virtual-functions-rebind",
];
/// What both have.
const BOTH: [&str; 2] = ["mtu", "optional"];

/// One line with its indentation and, of a mapping in block style, its key.
struct Line<'t> {
    text: &'t str,
    indent: usize,
    key: Option<&'t str>,
}

fn line(text: &str) -> Line<'_> {
    let rest = text.trim_start_matches(' ');
    let indent = text.len() - rest.len();
    let key = rest.split_once(':').map(|(key, _)| key.trim().trim_matches(['"', '\'']));
    let key = key.filter(|key| !rest.starts_with(['#', '-']) && !key.is_empty());
    Line { text, indent, key }
}

impl Line<'_> {
    /// Whether nothing stands there that counts.
    fn is_blank(&self) -> bool {
        let rest = self.text.trim();
        rest.is_empty() || rest.starts_with('#')
    }

    /// Whether the mapping goes on in the lines below.
    fn opens(&self) -> bool {
        let value = self.text.split_once(':').map_or("", |(_, value)| value.trim());
        value.is_empty() || value.starts_with('#')
    }
}

/// The lines, from `at` on, that stand deeper than the one before them.
fn block(lines: &[Line<'_>], at: usize) -> usize {
    let indent = lines[at].indent;
    let mut end = at + 1;
    for (number, line) in lines.iter().enumerate().skip(at + 1) {
        if line.is_blank() {
            continue;
        }
        // A list may stand as deep as its key.
        let listed = line.indent == indent && line.text.trim_start().starts_with('-');
        if line.indent <= indent && !listed {
            break;
        }
        end = number + 1;
    }
    end
}

/// Where, within `lines[from..to]`, the mapping `key` opens.
fn find(lines: &[Line<'_>], from: usize, to: usize, key: &str) -> Option<usize> {
    let first = (from..to).find(|at| !lines[*at].is_blank())?;
    let indent = lines[first].indent;
    (first..to).find(|at| lines[*at].indent == indent && lines[*at].key == Some(key))
}

/// Whether the file configures the interface, under `ethernets`.
pub(super) fn configures(name: &str, text: &str) -> bool {
    let lines: Vec<_> = text.lines().map(line).collect();
    let found = find(&lines, 0, lines.len(), "network").and_then(|network| {
        let ethernets = find(&lines, network + 1, block(&lines, network), "ethernets")?;
        find(&lines, ethernets + 1, block(&lines, ethernets), name)
    });
    // In a style that we don't write, but would have to.
    found.is_some() || (text.contains('{') && text.contains(&format!("{name}:")))
}

/// The file with the bridge over the uplink; none where it is not written so that this can be
/// done.
pub(super) fn rewritten(network: &BridgedDefinition, mac: MacAddr, text: &str) -> Option<String> {
    let lines: Vec<_> = text.lines().map(line).collect();
    if text.contains('\t') || lines.iter().any(|line| line.text.trim() == "---" && line.indent > 0)
    {
        return None;
    }
    let root = find(&lines, 0, lines.len(), "network")?;
    let root_end = block(&lines, root);
    let ethernets = find(&lines, root + 1, root_end, "ethernets")?;
    let ethernets_end = block(&lines, ethernets);
    let uplink = find(&lines, ethernets + 1, ethernets_end, network.uplink.as_str())?;
    let uplink_end = block(&lines, uplink);
    if ![root, ethernets, uplink].iter().all(|at| lines[*at].opens()) {
        return None;
    }
    let (stays, moves) = divided(&lines, uplink + 1, uplink_end)?;
    let bridges = find(&lines, root + 1, root_end, "bridges");
    if let Some(bridges) = bridges {
        let is_there = find(&lines, bridges + 1, block(&lines, bridges), network.bridge.as_str());
        if is_there.is_some() || !lines[bridges].opens() {
            return None;
        }
    }
    let (level, deeper) = (lines[ethernets].indent, lines[uplink].indent);
    let inner = lines.get(uplink + 1..uplink_end)?.iter().find(|line| !line.is_blank());
    let step = inner.map_or(deeper + 2, |line| line.indent);
    let new = bridge(network, mac, deeper, step, &moves);
    let mut out: Vec<String> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if at == uplink {
            match stays.is_empty() {
                true => out.push(format!("{:deeper$}{}: {{}}", "", network.uplink)),
                false => out.push(line.text.to_owned()),
            }
            out.extend(stays.iter().cloned());
        } else if !(uplink..uplink_end).contains(&at) {
            out.push(line.text.to_owned());
        }
        if bridges == Some(at) {
            out.extend(new.iter().cloned());
        }
        if bridges.is_none() && at + 1 == ethernets_end {
            out.push(format!("{:level$}bridges:", ""));
            out.extend(new.iter().cloned());
        }
    }
    Some(out.join("\n") + "\n")
}

/// What stays with the uplink and what moves to the bridge.
fn divided(lines: &[Line<'_>], from: usize, to: usize) -> Option<(Vec<String>, Vec<String>)> {
    let (mut stays, mut moves) = (Vec::new(), Vec::new());
    let mut at = from;
    while at < to {
        if lines[at].is_blank() {
            at += 1;
            continue;
        }
        let key = lines[at].key?;
        let end = block(lines, at).min(to);
        let part = || lines[at..end].iter().map(|line| line.text.to_owned());
        if PHYSICAL.contains(&key) || BOTH.contains(&key) {
            stays.extend(part());
        }
        if !PHYSICAL.contains(&key) {
            moves.extend(part());
        }
        at = end;
    }
    Some((stays, moves))
}

fn bridge(
    network: &BridgedDefinition,
    mac: MacAddr,
    indent: usize,
    step: usize,
    moves: &[String],
) -> Vec<String> {
    let BridgedDefinition { bridge, uplink, .. } = network;
    let inner = |text: String| format!("{:step$}{text}", "");
    let mut lines = vec![
        format!("{:indent$}{bridge}:", ""),
        inner(format!("# written by vnet; `vnet bridge {bridge} --release {uplink}` takes it out")),
        inner(format!("interfaces: [{uplink}]")),
        inner(format!("macaddress: {mac}")),
        inner("parameters:".to_owned()),
        inner("  stp: false".to_owned()),
        inner("  forward-delay: 0".to_owned()),
    ];
    let own = |line: &&String| network.mtu.is_none() || self::line(line).key != Some("mtu");
    lines.extend(moves.iter().filter(own).cloned());
    lines.extend(network.mtu.map(|mtu| inner(format!("mtu: {mtu}"))));
    lines
}

#[cfg(test)]
mod tests {
    use super::super::tests::br0;
    use super::*;

    /// As an installer writes it, with a person's comments.
    pub(crate) const SERVER: &str = "# the server in the cellar\nnetwork:\n  version: 2\n  \
        renderer: networkd\n  ethernets:\n    eth0:\n      match:\n        macaddress: \
        52:54:00:00:00:01\n      set-name: eth0\n      dhcp4: false\n      addresses:\n      - \
        203.0.113.2/24 # fixed\n      - \"2001:db8:203::2/64\"\n      routes:\n        - to: \
        default\n          via: 203.0.113.1\n      nameservers:\n        addresses: [203.0.113.1]\n    \
        eth1:\n      dhcp4: true\n";

    fn mac() -> MacAddr {
        "52:54:00:00:00:01".parse().unwrap()
    }

    #[test]
    fn what_is_about_addresses_moves_to_the_bridge() {
        let after = "# the server in the cellar\nnetwork:\n  version: 2\n  renderer: networkd\n  \
            ethernets:\n    eth0:\n      match:\n        macaddress: 52:54:00:00:00:01\n      \
            set-name: eth0\n    eth1:\n      dhcp4: true\n  bridges:\n    br0:\n      # written by \
            vnet; `vnet bridge br0 --release eth0` takes it out\n      interfaces: [eth0]\n      \
            macaddress: 52:54:00:00:00:01\n      parameters:\n        stp: false\n        \
            forward-delay: 0\n      dhcp4: false\n      addresses:\n      - 203.0.113.2/24 # \
            fixed\n      - \"2001:db8:203::2/64\"\n      routes:\n        - to: default\n          \
            via: 203.0.113.1\n      nameservers:\n        addresses: [203.0.113.1]\n";
        assert_eq!(rewritten(&br0(), mac(), SERVER).unwrap(), after);
        assert!(configures("eth0", SERVER) && configures("eth1", SERVER));
        assert!(!configures("eth2", SERVER) && !configures("renderer", SERVER));
    }

    #[test]
    fn bridges_that_are_there_get_one_more() {
        let before = "network:\n  bridges:\n    lxbr:\n      dhcp4: no\n  ethernets:\n    eth0:\n      \
                      dhcp4: true\n      mtu: 1400\n";
        let after = rewritten(&br0(), mac(), before).unwrap();
        assert!(after.starts_with("network:\n  bridges:\n    br0:\n      # written"), "{after}");
        assert!(after.contains("    lxbr:\n      dhcp4: no\n"), "{after}");
        assert!(after.ends_with("    eth0:\n      mtu: 1400\n"), "{after}");
        assert!(after.contains("      dhcp4: true\n      mtu: 1400\n    lxbr:"), "{after}");
    }

    #[test]
    fn an_uplink_with_nothing_left_stays_in_the_file() {
        let before =
            "network:\n    ethernets:\n        eth0:\n            dhcp4: true\n    version: 2\n";
        let after = rewritten(&br0(), mac(), before).unwrap();
        assert!(after.contains("        eth0: {}\n    bridges:\n        br0:\n"), "{after}");
        assert!(after.ends_with("            dhcp4: true\n    version: 2\n"), "{after}");
    }

    #[test]
    fn other_styles_are_left_alone() {
        for text in [
            "network: {ethernets: {eth0: {dhcp4: true}}}\n",
            "network:\n  ethernets:\n    eth0: {dhcp4: true}\n",
            "network:\n  ethernets:\n    eth0: &lan\n      dhcp4: true\n",
            "network:\n  bridges:\n    br0:\n      dhcp4: no\n  ethernets:\n    eth0:\n      dhcp4: true\n",
        ] {
            assert_eq!(rewritten(&br0(), mac(), text), None, "{text}");
        }
        assert!(configures("eth0", "network: {ethernets: {eth0: {dhcp4: true}}}\n"));
    }
}
