//! ifupdown: the uplink's stanzas become the bridge's, in the file where they stand. Only
//! iproute2 is needed at boot, not bridge-utils.

use std::fmt::Write;

use vnet_types::{BridgedDefinition, MacAddr};

/// Whether the file has a stanza for the interface.
pub(super) fn configures(name: &str, text: &str) -> bool {
    stanzas(name, text).next().is_some()
}

/// Whether a stanza for the interface asks a DHCP server.
pub(super) fn has_dhcp(name: &str, text: &str) -> bool {
    stanzas(name, text).any(|method| method == "dhcp")
}

/// The methods of the interface's stanzas.
fn stanzas<'t>(name: &'t str, text: &'t str) -> impl Iterator<Item = &'t str> {
    text.lines().filter_map(move |line| {
        let mut words = line.split_whitespace();
        let ours = words.next() == Some("iface") && words.next() == Some(name);
        words.next().filter(|_| ours)?;
        words.next()
    })
}

/// The file with the uplink as a port of the bridge, which has all that the uplink had.
pub(super) fn rewritten(network: &BridgedDefinition, mac: MacAddr, text: &str) -> String {
    let (bridge, uplink) = (network.bridge.as_str(), network.uplink.as_str());
    let mut out = String::new();
    let mut made = false;
    for line in text.split_inclusive('\n') {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        let renamed = || rename(line, uplink, bridge);
        match first {
            "auto" | "allow-auto" | "allow-hotplug" if words.any(|word| word == uplink) => {
                // A bridge is never plugged in.
                out.push_str(&renamed().replacen("allow-hotplug", "auto", 1));
            }
            "iface" if words.next() == Some(uplink) => {
                if !made {
                    let _ = write!(out, "iface {uplink} inet manual\n\n");
                }
                out.push_str(&renamed());
                if !out.ends_with('\n') {
                    out.push('\n');
                }
                if !made {
                    out.push_str(&commands(network, mac));
                }
                made = true;
            }
            _ => out.push_str(line),
        }
    }
    out
}

/// What makes the bridge before its first address is set, and removes it after the last is gone.
fn commands(network: &BridgedDefinition, mac: MacAddr) -> String {
    let (bridge, uplink) = (&network.bridge, &network.uplink);
    let mtu = network.mtu.map(|mtu| format!(" mtu {mtu}")).unwrap_or_default();
    format!(
        "    # written by vnet; `vnet bridge {bridge} --release {uplink}` takes it out\n\
         \x20   pre-up ip link add name {bridge} address {mac}{mtu} type bridge stp_state 0 \
         forward_delay 0 || true\n\
         \x20   pre-up ip link set dev {uplink} up\n\
         \x20   pre-up ip link set dev {uplink} master {bridge}\n\
         \x20   post-down ip link set dev {uplink} nomaster || true\n\
         \x20   post-down ip link delete dev {bridge} || true\n"
    )
}

/// The line with the word `from` replaced, and its spaces as they were.
fn rename(line: &str, from: &str, to: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while !rest.is_empty() {
        let word = rest.find(char::is_whitespace).unwrap_or(rest.len());
        out.push_str(if &rest[..word] == from { to } else { &rest[..word] });
        rest = &rest[word..];
        let space = rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len());
        out.push_str(&rest[..space]);
        rest = &rest[space..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::br0;
    use super::*;

    #[test]
    fn the_stanzas_of_the_uplink_become_the_bridges() {
        let network = br0();
        let before = "# mine\nauto lo eth0\niface lo inet loopback\n\niface eth0 inet static\n    \
                      address 203.0.113.2/24\n    gateway 203.0.113.1\n\niface eth0 inet6 auto\n\
                      iface eth1 inet dhcp\n";
        let after = "# mine\nauto lo br0\niface lo inet loopback\n\niface eth0 inet manual\n\n\
                     iface br0 inet static\n    \
                     # written by vnet; `vnet bridge br0 --release eth0` takes it out\n    \
                     pre-up ip link add name br0 address 52:54:00:00:00:01 type bridge stp_state 0 forward_delay 0 || true\n    \
                     pre-up ip link set dev eth0 up\n    \
                     pre-up ip link set dev eth0 master br0\n    \
                     post-down ip link set dev eth0 nomaster || true\n    \
                     post-down ip link delete dev br0 || true\n    \
                     address 203.0.113.2/24\n    gateway 203.0.113.1\n\niface br0 inet6 auto\n\
                     iface eth1 inet dhcp\n";
        let mac = "52:54:00:00:00:01".parse().unwrap();
        assert_eq!(rewritten(&network, mac, before), after);
        assert!(configures("eth0", before) && !configures("eth2", before));
        assert!(has_dhcp("eth1", before) && !has_dhcp("eth0", before));
    }
}
