//! Finds the facts out. Nothing here is judged, and nothing on the host is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::unistd::{Group as SystemGroup, Uid, getgroups};
use tokio::process::Command;
use vnet_api::client::ClientError;
use vnet_api::model::{Network, State};
use vnet_kernel::{Kernel, Routes};
use vnet_plan::foreign::Ruleset;

use super::facts::{Device, Facts, Group, Listener, Module, Netd, Nft, Resolver};
use crate::context::Context;

/// How long the host's resolver may take for one name.
const RESOLVER_PATIENCE: Duration = Duration::from_secs(2);
/// What networks need of the kernel.
const MODULES: [&str; 4] = ["bridge", "nf_nat", "nf_tables", "tun"];

nix::ioctl_none_bad!(kvm_get_api_version, 0xae00);

pub(crate) async fn gather(context: &Context) -> Facts {
    let (netd, networks) = netd(context).await;
    Facts {
        kvm: kvm(),
        tun: open("/dev/net/tun").map_or_else(|device| device, |_| Device::Works(None)),
        vhost_net: Path::new("/dev/vhost-net").exists(),
        nft: nft().await,
        legacy_iptables: has_lines("/proc/net/ip_tables_names"),
        modules: modules(),
        ip_forward: sysctl("net/ipv4/ip_forward").as_deref() == Some("1"),
        bridge_netfilter: sysctl("net/bridge/bridge-nf-call-iptables").map(|value| value == "1"),
        bridge_netfilter6: sysctl("net/bridge/bridge-nf-call-ip6tables").map(|value| value == "1"),
        observed: observe(context).await,
        sockets: listeners(&networks),
        resolver: resolver(&networks).await,
        group: group(),
        netd,
        networks,
    }
}

fn sysctl(key: &str) -> Option<String> {
    let value = fs::read_to_string(Path::new("/proc/sys").join(key)).ok()?;
    Some(value.trim().to_owned())
}

fn has_lines(path: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| !text.trim().is_empty())
}

fn open(path: &str) -> Result<File, Device> {
    OpenOptions::new().read(true).write(true).open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Device::Missing,
        io::ErrorKind::PermissionDenied => Device::Denied,
        _ => Device::Broken(error.to_string()),
    })
}

fn kvm() -> Device {
    let file = match open("/dev/kvm") {
        Ok(file) => file,
        Err(device) => return device,
    };
    // SAFETY: KVM_GET_API_VERSION takes no argument and touches no memory of ours; the descriptor
    // is open.
    match unsafe { kvm_get_api_version(file.as_raw_fd()) } {
        Ok(version) => Device::Works(Some(version)),
        Err(errno) => Device::Broken(errno.to_string()),
    }
}

async fn netd(context: &Context) -> (Netd, Vec<Network>) {
    match context.client.status().await {
        Ok(status) => {
            let networks = context.client.networks().await.unwrap_or_default();
            (Netd::Version(status.version), networks)
        }
        Err(ClientError::Unreachable { .. }) => (Netd::Unreachable, Vec::new()),
        Err(ClientError::Permission { .. }) => (Netd::Forbidden, Vec::new()),
        Err(error) => (Netd::Broken(error.to_string()), Vec::new()),
    }
}

async fn nft() -> Nft {
    let output = Command::new("nft")
        .args(["-j", "-a", "list", "ruleset"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await;
    match output {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Nft::Missing,
        Err(error) => Nft::Broken(error.to_string()),
        Ok(output) if output.status.success() => {
            match Ruleset::parse(&String::from_utf8_lossy(&output.stdout)) {
                Ok(ruleset) => Nft::Rules(ruleset),
                Err(error) => Nft::Broken(error.to_string()),
            }
        }
        Ok(output) => {
            let reason = String::from_utf8_lossy(&output.stderr);
            if reason.contains("not permitted") {
                return Nft::Denied;
            }
            Nft::Broken(reason.lines().next().unwrap_or("no reason given").to_owned())
        }
    }
}

async fn observe(context: &Context) -> Result<vnet_plan::Observed, String> {
    let mut kernel = Kernel::open(context.paths.ledger()).map_err(|error| error.to_string())?;
    kernel.observe(Routes::Read).await.map_err(|error| error.to_string())
}

fn modules() -> BTreeMap<&'static str, Module> {
    let release = nix::sys::utsname::uname();
    let release = release.as_ref().map(|name| name.release().to_string_lossy().into_owned());
    let directory = Path::new("/lib/modules").join(release.unwrap_or_default());
    let lists = ["modules.builtin", "modules.dep"]
        .map(|file| fs::read_to_string(directory.join(file)).unwrap_or_default());
    // Without a list of modules the kernel must have all of them in itself.
    let unknown = lists.iter().all(String::is_empty);
    let state = |name: &str| {
        let in_list = |list: &String| {
            let file = format!("/{name}.ko");
            list.lines().any(|line| line.split(':').next().is_some_and(|path| path.contains(&file)))
        };
        if unknown || Path::new("/sys/module").join(name).exists() || in_list(&lists[0]) {
            Module::Present
        } else if in_list(&lists[1]) {
            Module::Loadable
        } else {
            Module::Missing
        }
    };
    MODULES.into_iter().map(|name| (name, state(name))).collect()
}

/// The sockets of IPv4 on the ports of our services, but for those at networks' own addresses.
fn listeners(networks: &[Network]) -> Vec<Listener> {
    let mut found = Vec::new();
    for (protocol, port) in [("udp", 53), ("tcp", 53), ("udp", 67)] {
        let table = fs::read_to_string(format!("/proc/net/{protocol}")).unwrap_or_default();
        for (address, inode) in table.lines().filter_map(|line| waiting(line, protocol, port)) {
            if networks.iter().all(|network| network.gateway != address) {
                found.push(Listener { protocol, address, port, program: program(&inode) });
            }
        }
    }
    found
}

/// The address and the inode of a socket that waits on `port`, from a line of `/proc/net`
/// (proc(5)).
fn waiting(line: &str, protocol: &str, port: u16) -> Option<(Ipv4Addr, String)> {
    const TCP_LISTEN: &str = "0A";
    let fields: Vec<_> = line.split_whitespace().collect();
    let (address, its) = fields.get(1)?.split_once(':')?;
    if u16::from_str_radix(its, 16).ok()? != port
        || (protocol == "tcp" && *fields.get(3)? != TCP_LISTEN)
    {
        return None;
    }
    let address = u32::from_str_radix(address, 16).ok()?;
    // The kernel prints the address's bytes as a number of this machine.
    Some((Ipv4Addr::from(address.to_ne_bytes()), (*fields.get(9)?).to_owned()))
}

/// The name of the process that has the socket with this inode.
fn program(inode: &str) -> Option<String> {
    let socket = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let has = descriptors.flatten().any(|descriptor| {
            fs::read_link(descriptor.path())
                .is_ok_and(|target| target.as_os_str() == socket.as_str())
        });
        if has {
            let name = fs::read_to_string(process.path().join("comm")).ok()?;
            return Some(name.trim().to_owned());
        }
    }
    None
}

async fn resolver(networks: &[Network]) -> Resolver {
    let resolv_conf = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mut resolver = Resolver {
        is_resolved: resolv_conf.contains("127.0.0.53")
            || Path::new("/run/systemd/resolve/stub-resolv.conf").exists(),
        asked: BTreeSet::new(),
        known: BTreeSet::new(),
    };
    for network in networks.iter().filter(|network| network.state == State::Active) {
        let name = network.definition.name.to_string();
        resolver.asked.insert(name.clone());
        let host = format!("gateway.{}.", network.definition.domain);
        let answer = tokio::time::timeout(RESOLVER_PATIENCE, tokio::net::lookup_host((host, 0)));
        if let Ok(Ok(mut addresses)) = answer.await
            && addresses.any(|address| address.ip() == network.gateway)
        {
            resolver.known.insert(name);
        }
    }
    resolver
}

fn group() -> Group {
    if Uid::effective().is_root() {
        return Group::Root;
    }
    match SystemGroup::from_name("vnet") {
        Ok(Some(group)) if getgroups().is_ok_and(|groups| groups.contains(&group.gid)) => {
            Group::Member
        }
        Ok(Some(_)) => Group::Stranger,
        _ => Group::Missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_socket_is_read_from_the_kernels_table() {
        let line = "  7: 0100007F:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1";
        let found = waiting(line, "tcp", 53);
        assert_eq!(found, Some((Ipv4Addr::LOCALHOST, "4711".to_owned())));
        assert_eq!(waiting(line, "tcp", 67), None);
        // Established, not waiting.
        assert_eq!(waiting(&line.replace(" 0A ", " 01 "), "tcp", 53), None);
        assert_eq!(waiting("", "udp", 53), None);
    }
}
