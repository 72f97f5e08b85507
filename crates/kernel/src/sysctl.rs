//! Sysctls, by their paths under `/proc/sys`. Those under `net/` are the ones of this task's
//! network namespace.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use vnet_plan::{FORWARD6, IP_FORWARD};

const ROOT: &str = "/proc/sys";
const CONF: &str = "net/ipv4/conf";
const CONF6: &str = "net/ipv6/conf";

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
pub(crate) fn forwarding4(ours: impl Fn(&str) -> bool) -> io::Result<BTreeMap<String, String>> {
    let mut values = forwarding(CONF, ours)?;
    for key in [IP_FORWARD.to_owned(), format!("{CONF}/all/accept_redirects")] {
        let value = read(&key)?;
        values.insert(key, value);
    }
    Ok(values)
}

/// All that a write to IPv6's switch changes (`addrconf_forward_change` in the kernel): `forwarding`
/// of each interface and of those to come. Interfaces of ours are left out.
pub(crate) fn forwarding6(ours: impl Fn(&str) -> bool) -> io::Result<BTreeMap<String, String>> {
    let mut values = forwarding(CONF6, ours)?;
    values.insert(FORWARD6.to_owned(), read(FORWARD6)?);
    Ok(values)
}

fn forwarding(conf: &str, ours: impl Fn(&str) -> bool) -> io::Result<BTreeMap<String, String>> {
    let mut values = BTreeMap::new();
    for entry in std::fs::read_dir(Path::new(ROOT).join(conf))? {
        let name = entry?.file_name();
        let Some(name) = name.to_str().filter(|name| !ours(name)) else { continue };
        let key = format!("{conf}/{name}/forwarding");
        // An interface may go at any time, and its sysctls with it.
        if let Ok(value) = read(&key) {
            values.insert(key, value);
        }
    }
    Ok(values)
}

/// Puts `values` back: `first` before all others, since it changes them.
pub(crate) fn restore(first: &str, values: &BTreeMap<String, String>) -> io::Result<()> {
    if let Some(value) = values.get(first) {
        write(first, value)?;
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
