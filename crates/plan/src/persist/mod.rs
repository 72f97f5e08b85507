//! Making a bridge over an uplink last over the next boot, in the files of what manages the
//! uplink. Pure: files in, files out.

mod ifupdown;
mod keyfile;
mod netplan;
mod networkd;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vnet_types::{BridgedDefinition, IfName, MacAddr};

/// A file before and after; none where it is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileChange {
    /// Its path, from the root.
    pub path: String,
    /// What it holds before.
    pub before: Option<String>,
    /// What it is to hold.
    pub after: Option<String>,
}

impl FileChange {
    /// The permissions of a new file. Both managers whose files may hold secrets want them closed
    /// to others; systemd-networkd reads its own as a user without privileges.
    #[must_use]
    pub fn mode(&self) -> u32 {
        let closed = ["etc/NetworkManager/", "etc/netplan/"];
        if closed.iter().any(|folder| self.path.starts_with(folder)) { 0o600 } else { 0o644 }
    }
}

/// What is known of the managers of the host's interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ManagerFacts {
    /// The configuration files of all of them, by their paths from the root.
    pub files: BTreeMap<String, String>,
    /// The file from which systemd-networkd, which runs, has configured the uplink.
    pub networkd_file: Option<String>,
    /// The number by which systemd-networkd's DHCP client tells a server which interface asks, as
    /// its running lease has it (RFC 4361 §6.1).
    pub networkd_iaid: Option<u32>,
    /// Whether NetworkManager, which runs, has configured the uplink.
    pub network_manager: bool,
}

/// What configures the uplink at boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manager {
    /// netplan, from this file; it generates the files of others.
    Netplan(String),
    /// systemd-networkd, from this file.
    Networkd(String),
    /// NetworkManager, from this file where it is a keyfile.
    NetworkManager(Option<String>),
    /// ifupdown, from this file.
    Ifupdown(String),
    /// Nothing that we know.
    Unknown,
}

/// What is written, and what a person has to do besides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Persistence {
    /// The files.
    pub files: Vec<FileChange>,
    /// In words.
    pub notes: Vec<String>,
}

/// What configures `uplink` at boot. netplan comes first, since it writes for the others; then
/// what runs; then what has a file for it.
#[must_use]
pub fn detect(uplink: &IfName, facts: &ManagerFacts) -> Manager {
    let name = uplink.as_str();
    let find = |folder: &str, fits: &dyn Fn(&str) -> bool| {
        let mut files = facts.files.iter().filter(|(path, _)| path.starts_with(folder));
        files.find(|(_, text)| fits(text)).map(|(path, _)| path.clone())
    };
    if let Some(path) = find("etc/netplan/", &|text| netplan::configures(name, text)) {
        return Manager::Netplan(path);
    }
    if let Some(path) = &facts.networkd_file {
        return Manager::Networkd(path.clone());
    }
    let keyfile =
        find("etc/NetworkManager/system-connections/", &|text| keyfile::configures(name, text));
    if facts.network_manager || keyfile.is_some() {
        return Manager::NetworkManager(keyfile);
    }
    if let Some(path) = find("etc/network/interfaces", &|text| ifupdown::configures(name, text)) {
        return Manager::Ifupdown(path);
    }
    match find("etc/systemd/network/", &|text| networkd::matches(name, text)) {
        Some(path) if path.ends_with(".network") => Manager::Networkd(path),
        _ => Manager::Unknown,
    }
}

/// What makes `network` last, with the bridge at the uplink's address `mac`.
#[must_use]
pub fn persist(network: &BridgedDefinition, mac: MacAddr, facts: &ManagerFacts) -> Persistence {
    let (bridge, uplink) = (&network.bridge, &network.uplink);
    let note = |text: String| Persistence { files: Vec::new(), notes: vec![text] };
    match detect(uplink, facts) {
        Manager::Networkd(path) => {
            let text = facts.files.get(&path).map(String::as_str).unwrap_or_default();
            let files = networkd::files(network, mac, text, facts);
            let notes = vec![format!(
                "{uplink} is configured by systemd-networkd from /{path}: from the next boot, or \
                 `networkctl reload`, {bridge} is"
            )];
            Persistence { files, notes }
        }
        Manager::Ifupdown(path) => {
            let text = facts.files.get(&path).map(String::as_str).unwrap_or_default();
            let after = ifupdown::rewritten(network, mac, text);
            let dhcp = ifupdown::has_dhcp(uplink.as_str(), text);
            let mut persistence = rewritten_file(path, text, after, |path| {
                format!(
                    "{uplink} is configured by ifupdown from /{path}: from the next boot, {bridge} is"
                )
            });
            if dhcp {
                persistence.notes.push(format!(
                    "the DHCP client on {uplink} hears no more answers: before the lease ends, \
                     end it and run `dhclient {bridge}`, or boot"
                ));
            }
            persistence
        }
        Manager::Netplan(path) => {
            let text = facts.files.get(&path).map(String::as_str).unwrap_or_default();
            let others = facts.files.iter().filter(|(other, text)| {
                other.starts_with("etc/netplan/")
                    && **other != path
                    && netplan::configures(uplink.as_str(), text)
            });
            match netplan::rewritten(network, mac, text).filter(|_| others.count() == 0) {
                Some(after) => rewritten_file(path, text, after, |path| {
                    format!(
                        "{uplink} is configured by netplan from /{path}: from the next boot, or \
                         `netplan apply`, {bridge} is{}",
                        match path.contains("cloud-init") {
                            true => {
                                "; see that cloud-init does not write it again (`network: {config: \
                                 disabled}` in /etc/cloud/cloud.cfg.d)"
                            }
                            false => "",
                        }
                    )
                }),
                None => note(format!(
                    "{uplink} is configured by netplan from /{path}, which is not in the plain \
                     block style, or not alone, and is not changed: netd does it again at each \
                     start. To have netplan do it, move what stands under `ethernets: {uplink}:` to \
                     `bridges: {bridge}:`, with `interfaces: [{uplink}]`, `macaddress: {mac}` and \
                     `parameters: {{stp: false, forward-delay: 0}}`"
                )),
            }
        }
        Manager::NetworkManager(path) => {
            let old = path
                .as_ref()
                .and_then(|path| facts.files.get(path).map(|text| (path.as_str(), text.as_str())));
            let place = path.as_ref().map(|path| format!(" from /{path}")).unwrap_or_default();
            match keyfile::files(network, mac, old) {
                Some(files) => Persistence {
                    files,
                    notes: vec![format!(
                        "{uplink} is configured by NetworkManager{place}: from the next boot, or \
                         `nmcli connection reload && nmcli connection up vnet-{bridge}`, {bridge} is"
                    )],
                },
                None => note(format!(
                    "{uplink} is configured by NetworkManager{place}, which is of a sort that vnet \
                     does not write, and is not changed: tell NetworkManager with `nmcli connection \
                     add type bridge ifname {bridge} con-name {bridge} bridge.stp no \
                     bridge.mac-address {mac}` and `nmcli connection add type ethernet ifname \
                     {uplink} master {bridge}`"
                )),
            }
        }
        Manager::Unknown => note(format!(
            "no file of systemd-networkd, NetworkManager, netplan or ifupdown configures {uplink}: \
             netd puts it on {bridge} again at each start"
        )),
    }
}

/// One file that is changed in its place.
fn rewritten_file(
    path: String,
    before: &str,
    after: String,
    note: impl FnOnce(&str) -> String,
) -> Persistence {
    let notes = vec![note(&path)];
    let change = FileChange { path, before: Some(before.to_owned()), after: Some(after) };
    Persistence { files: vec![change], notes }
}

/// The lines of a file in sections, each with its own; section headings are left out.
fn sections(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut section = "";
    text.lines().filter_map(move |line| {
        if let Some(name) = line.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
            return None;
        }
        Some((section, line))
    })
}

#[cfg(test)]
mod tests {
    use vnet_types::BridgedMode;

    use super::*;

    /// The bridge `br0` over `eth0`.
    pub(super) fn br0() -> BridgedDefinition {
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

    fn facts(files: &[(&str, &str)]) -> ManagerFacts {
        let files = files.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect();
        ManagerFacts { files, ..ManagerFacts::default() }
    }

    fn eth0() -> IfName {
        "eth0".parse().unwrap()
    }

    #[test]
    fn the_manager_is_the_one_with_a_file_for_the_uplink() {
        let netplan =
            ("etc/netplan/01.yaml", "network:\n  ethernets:\n    eth0:\n      dhcp4: true\n");
        let other =
            ("etc/netplan/01.yaml", "network:\n  ethernets:\n    eth1:\n      dhcp4: true\n");
        let networkd = ("etc/systemd/network/20-lan.network", "[Match]\nName=eth*\n");
        let keyfile = (
            "etc/NetworkManager/system-connections/lan.nmconnection",
            "[connection]\ninterface-name=eth0\n",
        );
        let ifupdown = ("etc/network/interfaces", "auto eth0\niface eth0 inet dhcp\n");
        let (n, k) = (networkd.0.to_owned(), keyfile.0.to_owned());
        for (files, manager) in [
            (&[netplan, networkd][..], Manager::Netplan(netplan.0.into())),
            (&[other, networkd][..], Manager::Networkd(n)),
            (&[keyfile, ifupdown][..], Manager::NetworkManager(Some(k))),
            (&[other, ifupdown][..], Manager::Ifupdown(ifupdown.0.into())),
            (&[other][..], Manager::Unknown),
        ] {
            assert_eq!(detect(&eth0(), &facts(files)), manager);
        }
    }

    #[test]
    fn what_runs_counts_before_what_has_a_file() {
        let mut facts = facts(&[("etc/network/interfaces", "iface eth0 inet dhcp\n")]);
        facts.networkd_file = Some("run/systemd/network/x.network".into());
        assert_eq!(
            detect(&eth0(), &facts),
            Manager::Networkd("run/systemd/network/x.network".into())
        );
    }
}
