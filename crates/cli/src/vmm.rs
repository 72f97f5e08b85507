//! Finding `vnet-vmm`, and what it needs from the host.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use vnet_api::model::AnyNetwork;
use vnet_types::DomainName;

const VMM: &str = "vnet-vmm";
const KVM: &str = "/dev/kvm";

/// The VMM's executable: where `VNET_LIBEXEC` says, beside our own, and where packages put it.
///
/// # Errors
/// It is nowhere; the message says where it was looked for.
pub(crate) fn find() -> anyhow::Result<PathBuf> {
    find_in(env::var_os("VNET_LIBEXEC"), env::current_exe().ok().as_deref())
}

fn find_in(told: Option<OsString>, executable: Option<&Path>) -> anyhow::Result<PathBuf> {
    let beside = executable.and_then(Path::parent);
    let directories: Vec<PathBuf> = match told {
        Some(told) => vec![told.into()],
        None => [
            beside.map(Path::to_owned),
            beside.map(|directory| directory.join("../lib/vnet")),
            Some("/usr/lib/vnet".into()),
        ]
        .into_iter()
        .flatten()
        .collect(),
    };
    let found = directories.iter().map(|directory| directory.join(VMM)).find(|file| file.is_file());
    found.with_context(|| {
        let list: Vec<_> = directories.iter().map(|path| path.display().to_string()).collect();
        format!(
            "there is no {VMM} in {}: set VNET_LIBEXEC to the directory that has it",
            list.join(", ")
        )
    })
}

/// Whether this user may use KVM on this host.
///
/// # Errors
/// No, with the way out.
pub(crate) fn check_kvm() -> anyhow::Result<()> {
    let Err(error) = OpenOptions::new().read(true).write(true).open(KVM) else { return Ok(()) };
    let way_out = match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no /dev/kvm: turn on virtualisation in the firmware, and load kvm_intel or \
             kvm_amd"
        }
        io::ErrorKind::PermissionDenied => {
            "/dev/kvm is not for this user: run as root, or join the group kvm"
        }
        _ => bail!("{KVM} cannot be opened: {error}"),
    };
    bail!(way_out)
}

/// A name for a guest that nobody named: `PREFIX-` and six hexadecimal digits, as no guest on
/// `networks` has it.
///
/// # Errors
/// The kernel gives no random bytes.
pub(crate) fn unused_name(prefix: &str, networks: &[AnyNetwork]) -> anyhow::Result<DomainName> {
    let ports = networks.iter().flat_map(AnyNetwork::ports);
    let taken: BTreeSet<&str> = ports.map(|port| port.domain.as_str()).collect();
    loop {
        let mut bytes = [0; 3];
        getrandom::fill(&mut bytes).context("the kernel gives no random bytes")?;
        let [a, b, c] = bytes;
        let name = format!("{prefix}-{a:02x}{b:02x}{c:02x}");
        if !taken.contains(name.as_str()) {
            return Ok(name.parse()?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vmm_is_found_beside_us_and_where_we_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let us = directory.path().join("bin/vnet");
        let library = directory.path().join("lib/vnet");
        std::fs::create_dir_all(directory.path().join("bin")).unwrap();
        std::fs::create_dir_all(&library).unwrap();
        std::fs::write(library.join(VMM), "").unwrap();
        assert!(find_in(None, Some(&us)).unwrap().ends_with("bin/../lib/vnet/vnet-vmm"));
        assert_eq!(find_in(Some(library.clone().into()), None).unwrap(), library.join(VMM));
        std::fs::write(us.with_file_name(VMM), "").unwrap();
        assert_eq!(find_in(None, Some(&us)).unwrap(), us.with_file_name(VMM));
    }

    #[test]
    fn a_vmm_that_is_nowhere_is_an_error_with_the_way_out() {
        let error = find_in(Some("/nowhere".into()), None).unwrap_err().to_string();
        assert!(error.contains("/nowhere") && error.contains("VNET_LIBEXEC"), "{error}");
    }

    #[test]
    fn names_have_six_digits() {
        let name = unused_name("run", &[]).unwrap();
        assert_eq!(name.as_str().len(), "run-000000".len());
    }
}
