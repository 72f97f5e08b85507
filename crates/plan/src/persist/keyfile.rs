//! NetworkManager: the uplink's profile becomes the bridge's, and a profile of its own makes the
//! uplink a port. Both are keyfiles (nm-settings-keyfile(5)); the uplink's old one is put away,
//! since NetworkManager would activate it again.

use vnet_types::{BridgedDefinition, MacAddr};

use super::{FileChange, sections};

const FOLDER: &str = "etc/NetworkManager/system-connections";
/// What a wired profile has that a bridge's cannot have; the rest is about addresses.
const WIRED: [&str; 3] = ["ethernet", "802-3-ethernet", "802-1x"];
/// What NetworkManager does for a cable for which nobody has written a profile.
const USUAL: &str = "[ipv4]\nmethod=auto\n\n[ipv6]\nmethod=auto\n";

/// Whether the profile is of this interface.
pub(super) fn configures(name: &str, text: &str) -> bool {
    value(text, "connection", "interface-name") == Some(name)
}

fn value<'t>(text: &'t str, section: &str, key: &str) -> Option<&'t str> {
    sections(text).filter(|(found, _)| *found == section).find_map(|(_, line)| {
        let (found, value) = line.split_once('=')?;
        (found.trim() == key).then(|| value.trim())
    })
}

/// The profiles of the bridge and of its port, and the end of `old`, the uplink's own with its
/// path. None where that one is of a sort that cannot be carried over.
pub(super) fn files(
    network: &BridgedDefinition,
    mac: MacAddr,
    old: Option<(&str, &str)>,
) -> Option<Vec<FileChange>> {
    let (bridge, uplink) = (&network.bridge, &network.uplink);
    let text = old.map_or(USUAL, |(_, text)| text);
    let kind = value(text, "connection", "type").unwrap_or("ethernet");
    let authenticates = sections(text).any(|(section, _)| section == "802-1x");
    let has_master =
        ["master", "controller"].iter().any(|key| value(text, "connection", key).is_some());
    if !["ethernet", "802-3-ethernet"].contains(&kind) || authenticates || has_master {
        return None;
    }
    let by = format!(
        "# Written by vnet for the network {}; `vnet bridge {bridge} --release {uplink}` removes \
         it.\n",
        network.name
    );
    let mtu = network.mtu.map(|mtu| format!("\n[ethernet]\nmtu={mtu}\n")).unwrap_or_default();
    let host = format!(
        "{by}[connection]\nid=vnet-{bridge}\ntype=bridge\ninterface-name={bridge}\n\
         autoconnect-slaves=1\n{mtu}\n\
         [bridge]\nforward-delay=0\nmac-address={mac}\nstp=false\n{}",
        about_addresses(text)
    );
    let port = format!(
        "{by}[connection]\nid=vnet-{bridge}-{uplink}\ntype=ethernet\ninterface-name={uplink}\n\
         master={bridge}\nslave-type=bridge\n"
    );
    let new = |name: String, text| FileChange {
        path: format!("{FOLDER}/{name}.nmconnection"),
        before: None,
        after: Some(text),
    };
    let mut files =
        vec![new(format!("vnet-{bridge}"), host), new(format!("vnet-{bridge}-{uplink}"), port)];
    files.extend(old.filter(|(path, _)| path.starts_with("etc/")).map(|(path, text)| FileChange {
        path: path.to_owned(),
        before: Some(text.to_owned()),
        after: None,
    }));
    Some(files)
}

/// The sections of a profile that say which addresses, routes and name servers there are.
fn about_addresses(text: &str) -> String {
    let mut kept = String::new();
    let mut section = "";
    for (found, line) in sections(text) {
        if line.trim().is_empty() || ["", "connection"].contains(&found) || WIRED.contains(&found) {
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

    const LAN: &str = "[connection]\nid=LAN\nuuid=0b1c6a4e-7f2c-4d1b-9f0e-2f6a1f7d9c11\ntype=ethernet\n\
                       interface-name=eth0\n\n[ethernet]\nwake-on-lan=64\n\n[ipv4]\n\
                       address1=203.0.113.2/24,203.0.113.1\ndns=203.0.113.1;\nmethod=manual\n\n\
                       [ipv6]\nmethod=auto\n";

    fn texts(old: Option<(&str, &str)>) -> Vec<(String, Option<String>)> {
        let mac = "52:54:00:00:00:01".parse().unwrap();
        let files = files(&br0(), mac, old).unwrap();
        files.into_iter().map(|file| (file.path, file.after)).collect()
    }

    #[test]
    fn the_profile_of_the_uplink_becomes_the_bridges() {
        let path = "etc/NetworkManager/system-connections/LAN.nmconnection";
        let by = "# Written by vnet for the network br0; `vnet bridge br0 --release eth0` removes \
                  it.\n";
        let files = texts(Some((path, LAN)));
        assert_eq!(
            files[0],
            (
                "etc/NetworkManager/system-connections/vnet-br0.nmconnection".to_owned(),
                Some(format!(
                    "{by}[connection]\nid=vnet-br0\ntype=bridge\ninterface-name=br0\n\
                     autoconnect-slaves=1\n\n[bridge]\nforward-delay=0\n\
                     mac-address=52:54:00:00:00:01\nstp=false\n\n[ipv4]\n\
                     address1=203.0.113.2/24,203.0.113.1\ndns=203.0.113.1;\nmethod=manual\n\n\
                     [ipv6]\nmethod=auto\n"
                ))
            )
        );
        assert_eq!(
            files[1].1.as_deref().unwrap(),
            format!(
                "{by}[connection]\nid=vnet-br0-eth0\ntype=ethernet\ninterface-name=eth0\n\
                 master=br0\nslave-type=bridge\n"
            )
        );
        assert_eq!(files[2], (path.to_owned(), None));
        assert!(configures("eth0", LAN) && !configures("eth1", LAN));
    }

    #[test]
    fn without_a_profile_the_bridge_gets_what_a_cable_gets() {
        let files = texts(None);
        assert_eq!(files.len(), 2);
        let host = files[0].1.as_deref().unwrap();
        assert!(host.ends_with("\n[ipv4]\nmethod=auto\n\n[ipv6]\nmethod=auto\n"), "{host}");
    }

    #[test]
    fn a_profile_with_a_password_or_of_another_sort_is_left_alone() {
        let mac = "52:54:00:00:00:01".parse().unwrap();
        for text in [
            LAN.replace("[ethernet]", "[802-1x]\neap=peap\n\n[ethernet]"),
            LAN.replace("type=ethernet", "type=vlan"),
            LAN.replace("type=ethernet", "type=ethernet\nmaster=bond0"),
        ] {
            assert_eq!(files(&br0(), mac, Some(("etc/x", &text))), None, "{text}");
        }
    }
}
