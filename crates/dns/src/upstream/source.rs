//! Which servers the host asks: what its `resolv.conf` says at the moment.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

use crate::resolv::{DNS_PORT, ResolvConf};

/// Where systemd-resolved lists the servers behind its stub.
pub const RESOLVED_UPLINK: &str = "/run/systemd/resolve/resolv.conf";

/// How long the files are taken as unchanged though no notice has come: there is none where a file
/// is bind-mounted over, or stands on a file system of another host.
const RECHECK: Duration = Duration::from_secs(5);

/// The host's own servers, followed as they change; one for all networks.
#[derive(Debug)]
pub struct HostServers {
    path: PathBuf,
    behind_stub: PathBuf,
    servers: ArcSwap<Vec<SocketAddr>>,
    /// Counts the changes of `servers`.
    generation: AtomicU64,
    /// The networks' own servers, which ask these, and so are not asked by each other.
    ours: Mutex<BTreeSet<SocketAddr>>,
    looked: Mutex<Looked>,
}

/// What was seen last of the files, and when.
#[derive(Debug)]
struct Looked {
    at: Instant,
    stamps: [Option<Stamp>; 2],
}

/// An inotify that tokio can wait for.
struct Notices(Inotify);

impl AsRawFd for Notices {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
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

impl HostServers {
    /// The servers of the file `path`, as a rule `/etc/resolv.conf`, or of `behind_stub`
    /// ([`RESOLVED_UPLINK`]) where `path` names systemd-resolved's stub only and that one exists.
    #[must_use]
    pub fn new(path: PathBuf, behind_stub: PathBuf) -> Arc<Self> {
        // Taken before reading, so a change meanwhile is seen the next time.
        let stamps = [stamp(&path), stamp(&behind_stub)];
        let servers = ArcSwap::from_pointee(read(&path, &behind_stub));
        let looked = Mutex::new(Looked { at: Instant::now(), stamps });
        let (generation, ours) = (AtomicU64::new(1), Mutex::default());
        Arc::new(Self { path, behind_stub, servers, generation, ours, looked })
    }

    /// Looks at the files whenever the kernel says that something in their folders has changed,
    /// until the task is aborted. Without it they are looked at every few seconds, when somebody
    /// asks for names.
    ///
    /// # Errors
    /// The kernel gives no notices: too many programs have asked for some (inotify(7)).
    pub fn follow(self: &Arc<Self>) -> io::Result<JoinHandle<()>> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        // SAFETY: the descriptor is the inotify's own for as long as it lives.
        let notices =
            unsafe { AsyncFd::register_with_interest(Notices(inotify), Interest::READABLE) };
        let notices = notices?;
        self.watch(&notices.get_ref().0);
        // What came between the first look and the watch.
        self.look();
        let this = self.clone();
        Ok(tokio::spawn(async move {
            while let Ok(mut ready) = notices.readable().await {
                while notices.get_ref().0.read_events().is_ok() {}
                ready.clear_ready();
                // A link may lead elsewhere now, and a folder may be another one.
                this.watch(&notices.get_ref().0);
                this.look();
            }
        }))
    }

    /// The servers, and a number that changes with them.
    pub(super) fn current(&self) -> (u64, Vec<SocketAddr>) {
        let generation = self.generation.load(Relaxed);
        let ours = self.ours.lock().unwrap_or_else(PoisonError::into_inner);
        let others =
            self.servers.load().iter().filter(|addr| !ours.contains(addr)).copied().collect();
        (generation, others)
    }

    /// Has these addresses, at which a server that asks these is reached, left out from now on.
    pub(super) fn leave_out(&self, addrs: &BTreeSet<SocketAddr>) {
        let mut ours = self.ours.lock().unwrap_or_else(PoisonError::into_inner);
        ours.extend(addrs);
        self.generation.fetch_add(1, Relaxed);
    }

    /// Has them counted again: the server has ended.
    pub(super) fn count_again(&self, addrs: &BTreeSet<SocketAddr>) {
        let mut ours = self.ours.lock().unwrap_or_else(PoisonError::into_inner);
        ours.retain(|addr| !addrs.contains(addr));
        self.generation.fetch_add(1, Relaxed);
    }

    /// Looks at the files, where that was long ago.
    pub(super) fn look_again(&self) {
        let looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = looked.at.elapsed() < RECHECK;
        drop(looked);
        if !recent {
            self.look();
        }
    }

    /// Whether the servers are others than at `generation`.
    pub(super) fn has_changed(&self, generation: u64) -> bool {
        self.generation.load(Relaxed) != generation
    }

    fn look(&self) {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        looked.at = Instant::now();
        let stamps = [stamp(&self.path), stamp(&self.behind_stub)];
        if looked.stamps == stamps {
            return;
        }
        looked.stamps = stamps;
        let servers = read(&self.path, &self.behind_stub);
        if **self.servers.load() != servers {
            tracing::info!(?servers, "the host's name servers have changed");
            self.servers.store(Arc::new(servers));
            self.generation.fetch_add(1, Relaxed);
        }
    }

    /// Watches the folders in which the files, and what they lead to as links, are or would be.
    fn watch(&self, inotify: &Inotify) {
        let mut folders = BTreeSet::new();
        for path in [&self.path, &self.behind_stub] {
            let real = fs::canonicalize(path).ok();
            let links = fs::read_link(path).ok().and_then(|to| Some(path.parent()?.join(to)));
            for path in [Some(path.clone()), links, real].into_iter().flatten() {
                // The closest one that is there.
                folders
                    .extend(path.ancestors().skip(1).find(|dir| dir.is_dir()).map(Path::to_owned));
            }
        }
        let changes = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_MOVE_SELF;
        for folder in folders {
            // A folder that is watched already is not watched twice.
            if let Err(errno) = inotify.add_watch(&folder, changes) {
                tracing::debug!("cannot watch {}: {errno}", folder.display());
            }
        }
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

    fn follow(dir: &Path) -> Arc<HostServers> {
        HostServers::new(dir.join("resolv.conf"), dir.join("resolve/uplink.conf"))
    }

    fn addrs(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|addr| addr.parse().unwrap()).collect()
    }

    /// Waits until the notices have led to these servers; the files are looked at by nobody else.
    async fn become_(host: &HostServers, list: &[&str]) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while **host.servers.load() != addrs(list) {
            assert!(Instant::now() < deadline, "{:?} and not {list:?}", host.servers.load());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    #[test]
    fn a_changed_file_is_read_again_and_an_unchanged_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        let host = follow(dir.path());
        assert_eq!(host.current().1, addrs(&["192.0.2.1:53"]));
        let generation = host.current().0;
        host.look();
        assert!(!host.has_changed(generation));
        // As the tools do it: another file, renamed over this one.
        fs::write(dir.path().join("new"), "nameserver 192.0.2.2\n").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        host.look();
        assert!(host.has_changed(generation));
        assert_eq!(host.current().1, addrs(&["192.0.2.2:53"]));
        fs::remove_file(&path).unwrap();
        host.look();
        assert_eq!(host.current().1, addrs(&["127.0.0.1:53"]));
    }

    #[tokio::test]
    async fn notices_tell_of_files_links_and_folders_that_come_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        fs::write(&path, "nameserver 127.0.0.53\n").unwrap();
        let host = follow(dir.path());
        let task = host.follow().unwrap();
        become_(&host, &["127.0.0.53:53"]).await;
        // The servers behind resolved's stub count, once it runs.
        fs::create_dir(dir.path().join("resolve")).unwrap();
        let uplink = dir.path().join("resolve/uplink.conf");
        fs::write(&uplink, "nameserver 192.0.2.7\n").unwrap();
        become_(&host, &["192.0.2.7:53"]).await;
        fs::write(&uplink, "nameserver 192.0.2.8\n").unwrap();
        become_(&host, &["192.0.2.8:53"]).await;
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("other/resolv.conf", &path).unwrap();
        become_(&host, &["127.0.0.1:53"]).await;
        fs::create_dir(dir.path().join("other")).unwrap();
        fs::write(dir.path().join("other/resolv.conf"), "nameserver 192.0.2.9\n").unwrap();
        become_(&host, &["192.0.2.9:53"]).await;
        task.abort();
    }

    #[test]
    fn servers_of_networks_do_not_ask_each_other() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("resolv.conf"), "nameserver 10.0.0.1\nnameserver 192.0.2.1\n")
            .unwrap();
        let host = follow(dir.path());
        let (ours, generation) =
            (BTreeSet::from(["10.0.0.1:53".parse().unwrap()]), host.current().0);
        host.leave_out(&ours);
        assert!(host.has_changed(generation));
        assert_eq!(host.current().1, addrs(&["192.0.2.1:53"]));
        host.count_again(&ours);
        assert_eq!(host.current().1, addrs(&["10.0.0.1:53", "192.0.2.1:53"]));
    }

    #[test]
    fn interface_names_are_no_paths() {
        assert_eq!(interface_index("../../etc"), None);
        assert_eq!(interface_index("lo"), Some(1));
    }
}
