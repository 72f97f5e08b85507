//! Sysctls, by their paths under `/proc/sys`. Those under `net/` are the ones of this task's
//! network namespace.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use vnet_plan::IP_FORWARD;

const ROOT: &str = "/proc/sys";
const CONF: &str = "net/ipv4/conf";

pub(crate) fn read(key: &str) -> io::Result<String> {
    Ok(std::fs::read_to_string(Path::new(ROOT).join(key))?.trim().to_owned())
}

pub(crate) fn write(key: &str, value: &str) -> io::Result<()> {
    std::fs::write(Path::new(ROOT).join(key), value)
}

/// Whether the kernel has IPv6.
pub(crate) fn has_ipv6() -> bool {
    Path::new(ROOT).join("net/ipv6").exists()
}

/// All that a write to `ip_forward` changes (`inet_forward_change` in the kernel): `forwarding`
/// of each interface, and `accept_redirects` of all. Interfaces of ours, which `ours` tells, are
/// left out: they will be gone.
pub(crate) fn forwarding(ours: impl Fn(&str) -> bool) -> io::Result<BTreeMap<String, String>> {
    let mut values = BTreeMap::new();
    for entry in std::fs::read_dir(Path::new(ROOT).join(CONF))? {
        let name = entry?.file_name();
        let Some(name) = name.to_str().filter(|name| !ours(name)) else { continue };
        let key = format!("{CONF}/{name}/forwarding");
        // An interface may go at any time, and its sysctls with it.
        if let Ok(value) = read(&key) {
            values.insert(key, value);
        }
    }
    for key in [IP_FORWARD.to_owned(), format!("{CONF}/all/accept_redirects")] {
        let value = read(&key)?;
        values.insert(key, value);
    }
    Ok(values)
}

/// Puts `values` back: `ip_forward` first, since it changes the others.
pub(crate) fn restore(values: &BTreeMap<String, String>) -> io::Result<()> {
    if let Some(value) = values.get(IP_FORWARD) {
        write(IP_FORWARD, value)?;
    }
    for (key, value) in values {
        if read(key).is_ok_and(|present| present == *value) {
            continue;
        }
        match write(key, value) {
            // Its interface is gone, and the setting with it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    Ok(())
}
