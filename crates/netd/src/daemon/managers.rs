//! What is on disk of the managers of the host's interfaces. Only files under our root are read
//! and written.

use std::path::Path;

use vnet_plan::persist::{FileChange, ManagerFacts};
use vnet_plan::uplink::LinkId;

use crate::store::{self, StoreError};

/// Folders of configuration, and the single file.
const PLACES: [&str; 5] = [
    "etc/netplan",
    "etc/systemd/network",
    "etc/NetworkManager/system-connections",
    "etc/network/interfaces",
    "etc/network/interfaces.d",
];

/// Bytes in the largest file that is looked at.
const LARGEST: u64 = 1 << 20;

/// The files of all managers, and which of those that run has the uplink.
pub(super) fn facts(root: &Path, uplink: &LinkId) -> ManagerFacts {
    let mut facts = ManagerFacts::default();
    for place in PLACES {
        collect(root, place, &mut facts);
    }
    let state = |folder: &str| {
        std::fs::read_to_string(root.join(folder).join(uplink.index.to_string())).ok()
    };
    // The link's state file of systemd-networkd names the file that it is configured from.
    let file = state("run/systemd/netif/links").and_then(|text| {
        let path = text.lines().find_map(|line| line.strip_prefix("NETWORK_FILE="))?;
        Some(path.trim_start_matches('/').to_owned())
    });
    if let Some(path) = &file {
        collect(root, path, &mut facts);
    }
    facts.networkd_file = file;
    facts.networkd_iaid = state("run/systemd/netif/leases").as_deref().and_then(iaid);
    add_drop_ins(root, &mut facts);
    facts.network_manager = state("run/NetworkManager/devices")
        .is_some_and(|text| text.lines().any(|line| line.trim() == "managed=true"));
    facts
}

/// The IAID of a lease of systemd-networkd's, by the client identifier that it was given for:
/// `ff`, IAID, DUID (RFC 4361 §6.1).
fn iaid(lease: &str) -> Option<u32> {
    let client = lease.lines().find_map(|line| line.strip_prefix("CLIENTID=ff"))?;
    u32::from_str_radix(client.get(..8)?, 16).ok()
}

/// Adds to each `.network` file what stands in its folder of drop-ins, which systemd-networkd
/// reads after it.
fn add_drop_ins(root: &Path, facts: &mut ManagerFacts) {
    for (path, text) in &mut facts.files {
        if !path.ends_with(".network") {
            continue;
        }
        let name = path.rsplit('/').next().unwrap_or_default();
        let mut drop_ins = ManagerFacts::default();
        for folder in ["usr/lib/systemd/network", "run/systemd/network", "etc/systemd/network"] {
            collect(root, &format!("{folder}/{name}.d"), &mut drop_ins);
        }
        // Two of one name: the one in /etc counts.
        let by_name: std::collections::BTreeMap<_, _> = drop_ins
            .files
            .iter()
            .filter(|(path, _)| path.ends_with(".conf"))
            .rev()
            .map(|(path, text)| (path.rsplit('/').next(), text))
            .collect();
        for drop_in in by_name.values() {
            text.push('\n');
            text.push_str(drop_in);
        }
    }
}

/// The file at `place`, or the files in that folder.
fn collect(root: &Path, place: &str, facts: &mut ManagerFacts) {
    let path = root.join(place);
    if let Ok(entries) = std::fs::read_dir(&path) {
        for entry in entries.flatten() {
            if let Some(name) = entry.file_name().to_str()
                && entry.path().is_file()
            {
                collect(root, &format!("{place}/{name}"), facts);
            }
        }
    } else if std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() <= LARGEST)
        && let Ok(text) = std::fs::read_to_string(&path)
    {
        facts.files.insert(place.to_owned(), text);
    }
}

/// Writes a file of what makes a bridge last, unless somebody has changed it since we looked.
pub(super) fn write(root: &Path, file: &FileChange) -> Result<(), StoreError> {
    let path = root.join(&file.path);
    let present = std::fs::read_to_string(&path).ok();
    if present == file.after {
        return Ok(());
    }
    if present != file.before {
        tracing::warn!(
            "{} has been changed meanwhile, and stays as it is: look through it",
            path.display()
        );
        return Ok(());
    }
    store::put(&path, file.after.as_deref(), file.mode())
}

/// Whether the file is as we leave it, and was not so before.
pub(super) fn is_in_place(root: &Path, file: &FileChange) -> bool {
    let present = std::fs::read_to_string(root.join(&file.path)).ok();
    present == file.after && file.after != file.before
}

/// Puts the files back that are as we left them; names those that somebody has changed since.
pub(super) fn restore(root: &Path, files: &[FileChange]) -> Result<Vec<String>, StoreError> {
    let mut notes = Vec::new();
    for file in files {
        let path = root.join(&file.path);
        let present = std::fs::read_to_string(&path).ok();
        if present == file.after {
            store::put(&path, file.before.as_deref(), file.mode())?;
        } else if present != file.before {
            notes.push(format!(
                "{} has been changed since vnet wrote it, and stays as it is: look through it",
                path.display()
            ));
        }
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_number_of_an_interface_is_read_from_its_lease() {
        let lease = |client: &str| format!("ADDRESS=203.0.113.2\nCLIENTID={client}\n");
        let iaid = |client: &str| super::iaid(&lease(client));
        assert_eq!(iaid("ff0a0b0c0d00020000ab110123456789abcdef"), Some(0x0a0b_0c0d));
        // By the MAC address, which the bridge has, too.
        assert_eq!(iaid("01525400000001"), None);
        assert_eq!(iaid("ff0a"), None);
    }
}
