//! Network namespaces that exist only as a descriptor.
//!
//! A namespace belongs to a thread: [`Netns::new`] has a short-lived thread make one and keeps its
//! descriptor; [`Netns::enter`] runs a closure on another such thread; children of
//! [`Netns::command`] enter between fork and exec. Nothing appears in `/run/netns`, and nothing is
//! left when the last descriptor, process and socket in the namespace are gone. `/proc/sys/net`
//! shows the namespace of the task that reads it, so daemons in a namespace see and set their own.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, panic, thread};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

use crate::process::{output_within, poll_readable};

/// How long one command in a namespace may take.
const COMMAND_PATIENCE: Duration = Duration::from_secs(60);

/// How long an interface may take from "up" to running with its link-local address.
const LINK_PATIENCE: Duration = Duration::from_secs(10);

/// Settings that a fresh namespace would copy from the machine's own (`devconf_inherit_init_net`),
/// made the same everywhere; and no duplicate address detection, which costs each link a second.
const SYSCTLS: [(&str, &str); 6] = [
    ("net.ipv4.ip_forward", "0"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.all.forwarding", "0"),
];

/// A network namespace. Clones are handles to the same one, which ends with the last of them.
#[derive(Debug, Clone)]
pub struct Netns {
    fd: Arc<OwnedFd>,
}

impl Netns {
    /// A fresh namespace with `lo` up, forwarding off and no duplicate address detection.
    ///
    /// # Panics
    /// The process is not root, be it of the machine or of a user namespace.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a default that needs root would surprise")]
    pub fn new() -> Self {
        let made = thread::spawn(|| -> io::Result<OwnedFd> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(File::open("/proc/thread-self/ns/net")?.into())
        })
        .join()
        .expect("the thread that makes a namespace does not panic");
        let fd = made.unwrap_or_else(|error| {
            panic!(
                "cannot make a network namespace: {error}: these tests need root; \
                 run scripts/test, which enters a user namespace (unshare -Ur)"
            )
        });
        let ns = Self { fd: Arc::new(fd) };
        ns.run(["ip", "link", "set", "lo", "up"]);
        for (key, value) in SYSCTLS {
            ns.set_sysctl(key, value);
        }
        ns
    }

    /// Runs `work` on a thread of its own inside the namespace, and gives back its value. Sockets
    /// and taps that it makes stay in the namespace wherever they are used later. Children that
    /// are to die with their parent must not be started here: the thread ends with the closure.
    ///
    /// # Panics
    /// The namespace cannot be entered, or `work` panics.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&*self.fd, CloneFlags::CLONE_NEWNET)
                    .expect("a namespace that we have made can be entered");
                work()
            });
            inside.join().unwrap_or_else(|payload| panic::resume_unwind(payload))
        })
    }

    /// A command whose process will be in the namespace.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let fd = Arc::clone(&self.fd);
        let enter = move || setns(&*fd, CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
        // SAFETY: between fork and exec, only the system call setns is made; nothing is allocated
        // and no lock is taken. The closure owns a handle that keeps the descriptor open.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Runs a command, given as its program and arguments, and gives back what it printed.
    ///
    /// # Errors
    /// It cannot be started, takes longer than a minute, or fails; the message has its output.
    pub fn try_run<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> Result<String> {
        let mut argv = argv.into_iter();
        let program = argv.next().context("an empty command")?;
        let mut command = self.command(program);
        command.args(argv);
        let output = output_within(&mut command, COMMAND_PATIENCE)?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "{command:?} failed ({}):\n{stdout}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(stdout)
    }

    /// As [`try_run`](Self::try_run), for commands that must succeed.
    ///
    /// # Panics
    /// It does not.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> String {
        match self.try_run(argv) {
            Ok(output) => output,
            Err(error) => panic!("{error:#}"),
        }
    }

    /// Runs `ip` with the words of `line`, as in `ns.ip("link set eth0 up")`.
    ///
    /// # Panics
    /// It fails.
    #[track_caller]
    pub fn ip(&self, line: &str) -> String {
        self.run(["ip"].into_iter().chain(line.split_whitespace()))
    }

    /// Feeds `script` to `nft -f`.
    ///
    /// # Panics
    /// nft refuses it.
    #[track_caller]
    pub fn nft(&self, script: &str) {
        let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
        fs::write(file.path(), script).expect("a temporary file can be written");
        self.run([OsStr::new("nft"), OsStr::new("-f"), file.path().as_os_str()]);
    }

    /// A path that names the namespace for as long as this process keeps it: for `ip … netns`,
    /// `nsenter --net=`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd()).into()
    }

    /// Whether both handles are of the same namespace.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let inode = |ns: &Self| nix::sys::stat::fstat(&*ns.fd).map(|stat| stat.st_ino).ok();
        inode(self).is_some() && inode(self) == inode(other)
    }

    /// A cable: `a_name` in `a`, `b_name` in `b`, both up, running, and with their link-local
    /// addresses.
    ///
    /// # Panics
    /// A name is taken.
    #[track_caller]
    pub fn veth(a: &Self, a_name: &str, b: &Self, b_name: &str) {
        let far = b.path();
        a.ip(&format!(
            "link add {a_name} type veth peer name {b_name} netns {}",
            far.to_str().expect("a path in /proc is ASCII")
        ));
        a.up(a_name);
        b.up(b_name);
        a.settle(a_name);
        b.settle(b_name);
    }

    /// A bridge without STP and forward delay, up.
    ///
    /// # Panics
    /// The name is taken.
    #[track_caller]
    pub fn bridge(&self, name: &str) {
        self.ip(&format!("link add {name} type bridge stp_state 0 forward_delay 0"));
        self.up(name);
    }

    /// Makes the interface `port` a port of the bridge `bridge`, and waits until the bridge runs
    /// where both of them are up.
    ///
    /// # Panics
    /// One of them does not exist, or the bridge does not come up within ten seconds.
    #[track_caller]
    pub fn enslave(&self, port: &str, bridge: &str) {
        self.ip(&format!("link set dev {port} master {bridge}"));
        let link = |name: &str| self.json(&format!("link show dev {name}"))[0].take();
        let has = |name: &str, flag: &str| {
            link(name)["flags"].as_array().into_iter().flatten().any(|has| has == flag)
        };
        if has(port, "LOWER_UP") && has(bridge, "UP") {
            let up = || link(bridge)["operstate"] == "UP";
            self.wait_for(&format!("running {bridge}"), LINK_PATIENCE, up);
        }
    }

    /// Sets an interface up.
    ///
    /// # Panics
    /// It does not exist.
    #[track_caller]
    pub fn up(&self, ifname: &str) {
        self.ip(&format!("link set dev {ifname} up"));
    }

    /// Gives an interface, which is up, an address, IPv4 or IPv6, in the form `203.0.113.2/24`.
    ///
    /// # Panics
    /// The interface does not exist, is down, or has it already.
    #[track_caller]
    pub fn address(&self, ifname: &str, cidr: &str) {
        let broadcast = if cidr.contains(':') { "" } else { "brd +" };
        self.ip(&format!("addr add {cidr} {broadcast} dev {ifname}"));
        // The kernel finds in its own time that there is no duplicate to look for.
        self.wait_for(&format!("usable {cidr}"), LINK_PATIENCE, || {
            self.ip(&format!("addr show dev {ifname} tentative")).is_empty()
        });
    }

    /// Adds a route, as in `route("10.0.0.0/8", "203.0.113.2")`; `default` is a destination too.
    ///
    /// # Panics
    /// The gateway is not on a link, or the route is there.
    #[track_caller]
    pub fn route(&self, destination: &str, via: &str) {
        let family = if via.contains(':') { "-6" } else { "-4" };
        self.ip(&format!("{family} route add {destination} via {via}"));
    }

    /// The interface's MAC address, as `ip` prints it.
    ///
    /// # Panics
    /// There is no such interface.
    #[must_use]
    #[track_caller]
    pub fn mac(&self, ifname: &str) -> vnet_types::MacAddr {
        let links = self.json(&format!("link show dev {ifname}"));
        let text = links[0]["address"].as_str().expect("an Ethernet interface has an address");
        text.parse().expect("the kernel gives well-formed addresses")
    }

    /// What `ip -j` says, parsed.
    ///
    /// # Panics
    /// `ip` fails.
    #[must_use]
    #[track_caller]
    pub fn json(&self, line: &str) -> serde_json::Value {
        let text = self.ip(&format!("-j -d {line}"));
        // With nothing to list, some versions print nothing at all.
        if text.trim().is_empty() {
            return serde_json::Value::Array(Vec::new());
        }
        serde_json::from_str(&text).expect("ip -j prints JSON")
    }

    /// The value of a setting, as in `sysctl("net.ipv4.ip_forward")`.
    ///
    /// # Panics
    /// There is none of that name.
    #[must_use]
    #[track_caller]
    pub fn sysctl(&self, key: &str) -> String {
        let path = sysctl_path(key);
        let value = self.enter(|| fs::read_to_string(&path));
        match value {
            Ok(value) => value.trim().to_owned(),
            Err(error) => panic!("cannot read {key}: {error}"),
        }
    }

    /// Changes a setting.
    ///
    /// # Panics
    /// There is none of that name, or the value is not allowed.
    #[track_caller]
    pub fn set_sysctl(&self, key: &str, value: &str) {
        let path = sysctl_path(key);
        if let Err(error) = self.enter(|| fs::write(&path, value)) {
            panic!("cannot set {key} to {value}: {error}");
        }
    }

    /// Waits until `done` says so. It is asked at once, and again after every change of links,
    /// addresses, routes, queues or neighbours in the namespace.
    ///
    /// # Panics
    /// `patience` is over; the message has `what`, and the interfaces as they are.
    #[track_caller]
    pub fn wait_for(&self, what: &str, patience: Duration, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + patience;
        let events = self.enter(subscribe).expect("a netlink socket can be opened");
        while !done() {
            let changed = poll_readable(&events, deadline).expect("a netlink socket can be polled");
            assert!(changed, "no {what} within {patience:?}; there is:\n{}", self.ip("addr"));
            drain(&events);
        }
    }

    /// Waits until an interface runs and has its link-local address, so that nothing about it
    /// changes by itself any more.
    ///
    /// # Panics
    /// That takes more than ten seconds.
    #[track_caller]
    pub fn settle(&self, ifname: &str) {
        let ipv6 = self.sysctl(&format!("net/ipv6/conf/{ifname}/disable_ipv6")) == "0";
        self.wait_for(&format!("running {ifname}"), LINK_PATIENCE, || {
            let link = self.json(&format!("addr show dev {ifname}"));
            let port = link[0].get("master").is_some();
            let mut addresses = link[0]["addr_info"].as_array().into_iter().flatten();
            let local = addresses.any(|a| a["scope"] == "link" && a.get("tentative").is_none());
            link[0]["operstate"] == "UP" && (!ipv6 || port || local)
        });
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// `net.ipv4.ip_forward`, or with slashes where an interface's name has a dot in it.
fn sysctl_path(key: &str) -> PathBuf {
    let path = if key.contains('/') { key.to_owned() } else { key.replace('.', "/") };
    PathBuf::from("/proc/sys").join(path)
}

/// A netlink socket that becomes readable when something changes in this thread's namespace.
fn subscribe() -> io::Result<OwnedFd> {
    let fd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkRoute,
    )?;
    /// `RTNLGRP_TC`: queues.
    const TC: i32 = 1 << (4 - 1);
    let groups = TC
        | libc::RTMGRP_LINK
        | libc::RTMGRP_NEIGH
        | libc::RTMGRP_IPV4_IFADDR
        | libc::RTMGRP_IPV4_ROUTE
        | libc::RTMGRP_IPV6_IFADDR
        | libc::RTMGRP_IPV6_ROUTE;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups.cast_unsigned()))?;
    Ok(fd)
}

/// Empties the socket: only that something has changed counts. A full buffer (ENOBUFS) says that
/// too.
fn drain(fd: &OwnedFd) {
    let mut buffer = [0; 8192];
    while !matches!(
        recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty()),
        Err(nix::Error::EAGAIN) | Ok(0)
    ) {}
}
