//! Which servers are asked: a list, or what a `resolv.conf` says at the moment.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::resolv::{DNS_PORT, ResolvConf};

/// Where systemd-resolved lists the servers behind its stub.
pub const RESOLVED_UPLINK: &str = "/run/systemd/resolve/resolv.conf";

/// Where the addresses of upstream servers come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstreams {
    /// These servers, in this order of preference. With none, nothing is forwarded: such queries
    /// are refused.
    List(Vec<SocketAddr>),
    /// The servers of a `resolv.conf`, which is read again when it changes.
    Follow {
        /// The file, as a rule `/etc/resolv.conf`.
        path: PathBuf,
        /// The file that counts instead where `path` names systemd-resolved's stub only and this
        /// one exists: [`RESOLVED_UPLINK`].
        behind_stub: PathBuf,
    },
}

impl Upstreams {
    /// The host's own servers: `/etc/resolv.conf`, and what is behind systemd-resolved's stub.
    #[must_use]
    pub fn host() -> Self {
        Self::Follow { path: "/etc/resolv.conf".into(), behind_stub: RESOLVED_UPLINK.into() }
    }

    /// The servers at these addresses, on port 53.
    #[must_use]
    pub fn list(addrs: impl IntoIterator<Item = IpAddr>) -> Self {
        Self::List(addrs.into_iter().map(|addr| SocketAddr::new(addr, DNS_PORT)).collect())
    }
}

/// What shows that a file is another one, or has other contents.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = fs::metadata(path).ok()?;
    Some(Stamp {
        device: meta.dev(),
        inode: meta.ino(),
        size: meta.size(),
        modified: (meta.mtime(), meta.mtime_nsec()),
    })
}

/// The source and what it said last.
#[derive(Debug)]
pub(super) struct Watched {
    upstreams: Upstreams,
    stamps: Option<[Option<Stamp>; 2]>,
}

impl Watched {
    pub(super) fn new(upstreams: Upstreams) -> Self {
        Self { upstreams, stamps: None }
    }

    /// The servers, less those in `never`, if the source changed since the last call. Two `stat`
    /// calls, as a rule.
    pub(super) fn poll(&mut self, never: &BTreeSet<SocketAddr>) -> Option<Vec<SocketAddr>> {
        let servers = match &self.upstreams {
            Upstreams::List(servers) => {
                if self.stamps.is_some() {
                    return None;
                }
                self.stamps = Some([None, None]);
                servers.clone()
            }
            Upstreams::Follow { path, behind_stub } => {
                // Taken before reading, so a change meanwhile is seen the next time.
                let stamps = [stamp(path), stamp(behind_stub)];
                if self.stamps.as_ref() == Some(&stamps) {
                    return None;
                }
                self.stamps = Some(stamps);
                read(path, behind_stub)
            }
        };
        let mut seen = BTreeSet::new();
        Some(
            servers
                .into_iter()
                .filter(|server| !never.contains(server) && seen.insert(*server))
                .collect(),
        )
    }
}

fn read(path: &Path, behind_stub: &Path) -> Vec<SocketAddr> {
    let parse = |path| fs::read_to_string(path).map(|text| ResolvConf::parse(&text));
    let mut conf = parse(path).unwrap_or_default();
    if conf.is_resolved_stub()
        && let Ok(behind) = parse(behind_stub)
        && !behind.nameservers.is_empty()
    {
        conf = behind;
    }
    if conf.nameservers.is_empty() {
        // resolv.conf(5): without an entry, it is the name server on this machine.
        return vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DNS_PORT)];
    }
    conf.nameservers.iter().filter_map(|server| server.socket_addr(interface_index)).collect()
}

fn interface_index(name: &str) -> Option<u32> {
    // A name from a file must not become another path.
    if name.contains('/') || name.starts_with('.') {
        return None;
    }
    fs::read_to_string(Path::new("/sys/class/net").join(name).join("ifindex"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(dir: &Path) -> Watched {
        Watched::new(Upstreams::Follow {
            path: dir.join("resolv.conf"),
            behind_stub: dir.join("uplink.conf"),
        })
    }

    fn addrs(list: &[&str]) -> Option<Vec<SocketAddr>> {
        Some(list.iter().map(|addr| addr.parse().unwrap()).collect())
    }

    #[test]
    fn a_changed_file_is_read_again_and_an_unchanged_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        let mut watched = follow(dir.path());
        let never = BTreeSet::new();
        assert_eq!(watched.poll(&never), addrs(&["192.0.2.1:53"]));
        assert_eq!(watched.poll(&never), None);
        // As the tools do it: another file, renamed over this one.
        fs::write(dir.path().join("new"), "nameserver 192.0.2.2\n").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        assert_eq!(watched.poll(&never), addrs(&["192.0.2.2:53"]));
        fs::remove_file(&path).unwrap();
        assert_eq!(watched.poll(&never), addrs(&["127.0.0.1:53"]));
    }

    #[test]
    fn the_servers_behind_resolveds_stub_count() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("resolv.conf"), "nameserver 127.0.0.53\n").unwrap();
        let mut watched = follow(dir.path());
        let never = BTreeSet::new();
        assert_eq!(watched.poll(&never), addrs(&["127.0.0.53:53"]));
        fs::write(dir.path().join("uplink.conf"), "nameserver 192.0.2.7\n").unwrap();
        assert_eq!(watched.poll(&never), addrs(&["192.0.2.7:53"]));
    }

    #[test]
    fn own_addresses_are_never_asked() {
        let never = BTreeSet::from(["10.0.0.1:53".parse().unwrap()]);
        let both = Upstreams::list(["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()]);
        assert_eq!(Watched::new(both).poll(&never), addrs(&["10.0.0.2:53"]));
    }

    #[test]
    fn interface_names_are_no_paths() {
        assert_eq!(interface_index("../../etc"), None);
        assert_eq!(interface_index("lo"), Some(1));
    }
}
