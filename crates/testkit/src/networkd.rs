//! systemd-networkd in a namespace, with files of ours and nothing of the machine's.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::Netns;
use crate::clients::{ClientLease, lease_of};
use crate::process::{die_with_parent, wait_within};

const PROGRAM: &str = "/lib/systemd/systemd-networkd";

/// How long it may take to get a lease, or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A systemd-networkd that runs; it ends with this value, without a farewell.
#[derive(Debug)]
pub struct Networkd {
    ns: Netns,
    child: Child,
    /// Covers `/run`.
    run: TempDir,
    output: File,
    /// The files that it was given, where they are its own.
    files: Option<TempDir>,
}

impl Networkd {
    /// Starts it in `ns` with the files of this folder in place of `/etc/systemd/network`.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    #[track_caller]
    pub fn start(ns: &Netns, files: &Path) -> Self {
        let run = tempfile::Builder::new().prefix("vnet-networkd-").tempdir().unwrap();
        // It reads what is in /run as a user of its own, and asks udev where /sys can be written.
        let script = "mount --make-rprivate / && mount --bind \"$2\" /run && chmod 755 /run \
                      && mkdir -p /run/systemd/netif/links /run/systemd/netif/leases \
                      && chown -R systemd-network /run/systemd \
                      && mount -t sysfs -o ro sysfs /sys && mount --bind \"$1\" /etc/systemd/network \
                      && exec \"$0\"";
        let mut command = ns.command("unshare");
        command.args(["--mount", "sh", "-c", script, PROGRAM]).arg(files).arg(run.path());
        die_with_parent(&mut command);
        let output = tempfile::tempfile().unwrap();
        command.env("SYSTEMD_LOG_LEVEL", "debug");
        let child = command.stdin(Stdio::null()).stderr(output.try_clone().unwrap()).spawn();
        Self { ns: ns.clone(), child: child.unwrap(), run, files: None, output }
    }

    /// Starts it in `ns` as the DHCP client of `eth0`, which calls itself `hostname`.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    #[track_caller]
    pub fn client(ns: &Netns, hostname: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        let text = format!(
            "[Match]\nName=eth0\n\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n\n\
             [DHCPv4]\nHostname={hostname}\nUseDomains=yes\n"
        );
        fs::write(files.path().join("10.network"), text).unwrap();
        fs::set_permissions(files.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut networkd = Self::start(ns, files.path());
        networkd.files = Some(files);
        networkd
    }

    /// Waits until it has given `eth0` an address of which `wanted` says so, and gives the lease.
    ///
    /// # Panics
    /// That takes longer than twenty seconds.
    #[track_caller]
    pub fn lease(&self, mut wanted: impl FnMut(&ClientLease) -> bool) -> ClientLease {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.lease_now().filter(&mut wanted).filter(|lease| {
                let set = format!("inet {}/{} ", lease.address, lease.prefix);
                self.ns.ip("-4 addr show dev eth0").contains(&set)
            });
            match found {
                Some(lease) => return lease,
                None if Instant::now() < deadline => sleep(Duration::from_millis(20)),
                None => panic!("no lease of systemd-networkd in time:\n{}", self.output()),
            }
        }
    }

    /// What its file of the lease says, in the words of other clients.
    fn lease_now(&self) -> Option<ClientLease> {
        let index = self.ns.json("link show eth0")[0]["ifindex"].to_string();
        let text = fs::read_to_string(self.run.path().join("systemd/netif/leases").join(index));
        let words = [
            ("ADDRESS", "new_ip_address"),
            ("NETMASK", "new_subnet_mask"),
            ("ROUTER", "new_routers"),
            ("SERVER_ADDRESS", "new_dhcp_server_identifier"),
            ("LIFETIME", "new_dhcp_lease_time"),
            ("MTU", "new_interface_mtu"),
            ("DNS", "new_domain_name_servers"),
            ("DOMAINNAME", "new_domain_name"),
            ("DOMAIN_SEARCH_LIST", "new_domain_search"),
            ("HOSTNAME", "new_host_name"),
        ];
        let text = text.ok()?;
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        let known = pairs.filter_map(|(name, value)| {
            let (_, word) = words.iter().find(|(theirs, _)| *theirs == name)?;
            Some(((*word).to_owned(), value.to_owned()))
        });
        let event = [("event".to_owned(), "BOUND".to_owned())];
        lease_of(&known.chain(event).collect::<BTreeMap<_, _>>()).ok().flatten()
    }

    /// The client identifiers under which it has leases, in hexadecimal.
    ///
    /// # Panics
    /// Its files cannot be listed.
    #[must_use]
    pub fn client_ids(&self) -> Vec<String> {
        let files = fs::read_dir(self.run.path().join("systemd/netif/leases")).unwrap();
        let texts = files.filter_map(|file| fs::read_to_string(file.ok()?.path()).ok());
        let id = |text: String| {
            text.lines().find_map(|line| line.strip_prefix("CLIENTID=").map(str::to_owned))
        };
        texts.filter_map(id).collect()
    }

    /// What it has said until now.
    fn output(&self) -> String {
        let length = self.output.metadata().map_or(0, |meta| meta.len());
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        let length = self.output.read_at(&mut bytes, 0).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// Ends it as a shutdown does: it gives its leases back.
    ///
    /// # Panics
    /// It does not end.
    pub fn terminate(mut self) {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert!(wait_within(&mut self.child, PATIENCE).unwrap().is_some(), "it goes on");
    }
}

impl Drop for Networkd {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
