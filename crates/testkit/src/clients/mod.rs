//! Real DHCP clients: udhcpc, ISC dhclient and dhcpcd, each as its distribution ships it.
//!
//! A client runs in the foreground in a guest's namespace, with its configuration, leases and pid
//! file in a temporary folder; what it compiles in as a path is covered by that folder in a mount
//! namespace of its own. Nothing of the machine is touched: no resolv.conf, no host name.
//!
//! ```text
//!   client ──(hook: its environment, one record per event)──> FIFO ──> DhcpClient
//! ```
//!
//! The hook only reports. The address, the default route and the MTU are set from here with `ip`,
//! in the same way for all three, so that the guest can be used right away.

mod files;
mod lease;
mod running;
mod six;

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use self::files::Files;
pub use self::lease::ClientLease;
pub(crate) use self::lease::lease_of;
pub use self::running::DhcpClient;
pub use self::six::{Client6, Client6Kind, Lease6};
use crate::Netns;
use crate::process::die_with_parent;

/// How long a client may take to get a lease, unless a test says otherwise.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a client may take to end, or to give up its lease.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// Which client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientKind {
    /// busybox's, in the package udhcpc.
    Udhcpc,
    /// ISC's, in the package isc-dhcp-client.
    Dhclient,
    /// Roy Marples', in the package dhcpcd-base.
    Dhcpcd,
}

impl ClientKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Udhcpc, Self::Dhclient, Self::Dhcpcd];

    /// The client on the interface `ifname` of `ns`, not running yet.
    #[must_use]
    pub fn on(self, ns: &Netns, ifname: &str) -> ClientSetup {
        ClientSetup {
            kind: self,
            ns: ns.clone(),
            ifname: ifname.to_owned(),
            hostname: None,
            client_id: None,
            patience: PATIENCE,
        }
    }

    /// Gets a lease, sets the interface up with it, and ends the client without a release.
    ///
    /// # Panics
    /// There is no lease within twenty seconds; the message has the client's output.
    #[track_caller]
    pub fn obtain(self, ns: &Netns, ifname: &str) -> ClientLease {
        match self.try_obtain(ns, ifname) {
            Ok(lease) => lease,
            Err(error) => panic!("{error:#}"),
        }
    }

    /// As [`obtain`](Self::obtain), where there may be no lease.
    ///
    /// # Errors
    /// There is none within twenty seconds; the message has the client's output.
    pub fn try_obtain(self, ns: &Netns, ifname: &str) -> Result<ClientLease> {
        Ok(self.on(ns, ifname).start()?.stop())
    }
}

macro_rules! client {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name;

        impl $name {
            /// See [`ClientKind::on`].
            #[must_use]
            pub fn on(ns: &Netns, ifname: &str) -> ClientSetup {
                ClientKind::$name.on(ns, ifname)
            }

            /// See [`ClientKind::obtain`].
            ///
            /// # Panics
            /// There is no lease.
            #[track_caller]
            pub fn obtain(ns: &Netns, ifname: &str) -> ClientLease {
                ClientKind::$name.obtain(ns, ifname)
            }

            /// See [`ClientKind::try_obtain`].
            ///
            /// # Errors
            /// There is no lease.
            pub fn try_obtain(ns: &Netns, ifname: &str) -> Result<ClientLease> {
                ClientKind::$name.try_obtain(ns, ifname)
            }
        }
    };
}

client!(
    /// busybox's udhcpc; short for [`ClientKind::Udhcpc`].
    Udhcpc
);
client!(
    /// ISC's dhclient; short for [`ClientKind::Dhclient`].
    Dhclient
);
client!(
    /// dhcpcd; short for [`ClientKind::Dhcpcd`].
    Dhcpcd
);

/// A client that is yet to run.
#[derive(Debug, Clone)]
pub struct ClientSetup {
    kind: ClientKind,
    ns: Netns,
    ifname: String,
    hostname: Option<String>,
    client_id: Option<Vec<u8>>,
    patience: Duration,
}

impl ClientSetup {
    /// Sends this host name (option 12).
    #[must_use]
    pub fn hostname(mut self, name: &str) -> Self {
        self.hostname = Some(name.to_owned());
        self
    }

    /// Sends this client identifier (option 61), the type byte first. Without, each client does
    /// what it does by itself: udhcpc sends its MAC, dhclient nothing, dhcpcd an RFC 4361 one.
    #[must_use]
    pub fn client_id(mut self, id: &[u8]) -> Self {
        self.client_id = Some(id.to_vec());
        self
    }

    /// Waits for a lease as long as this, instead of twenty seconds.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Starts the client and waits for its first lease.
    ///
    /// # Errors
    /// The client is not installed, or gets no lease in time; the message has its output.
    pub fn start(self) -> Result<DhcpClient> {
        let files = Files::new()?;
        self.write(&files)?;
        DhcpClient::run(self, files)
    }

    /// Gets a lease, sets the interface up with it, and ends the client without a release.
    ///
    /// # Panics
    /// There is no lease in time; the message has the client's output.
    #[must_use]
    #[track_caller]
    pub fn obtain(self) -> ClientLease {
        match self.start() {
            Ok(client) => client.stop(),
            Err(error) => panic!("{error:#}"),
        }
    }

    /// Writes the client's configuration.
    fn write(&self, files: &Files) -> Result<()> {
        let text = match self.kind {
            ClientKind::Udhcpc => return Ok(()),
            ClientKind::Dhclient => self.dhclient_conf(),
            ClientKind::Dhcpcd => self.dhcpcd_conf(),
        };
        Ok(fs::write(files.config(), text)?)
    }

    fn dhclient_conf(&self) -> String {
        let mut text = String::from(
            "timeout 60;\nretry 60;\ninitial-interval 1;\nbackoff-cutoff 3;\n\
             request subnet-mask, broadcast-address, routers, domain-name, domain-name-servers, \
             host-name, interface-mtu, domain-search, rfc3442-classless-static-routes;\n\
             option rfc3442-classless-static-routes code 121 = array of unsigned integer 8;\n",
        );
        // An option must be declared before it is requested.
        let declaration = text.find("option rfc3442").unwrap_or(0);
        text = [&text[declaration..], &text[..declaration]].concat();
        if let Some(name) = &self.hostname {
            text.push_str(&format!("send host-name \"{name}\";\n"));
        }
        if let Some(id) = &self.client_id {
            text.push_str(&format!("send dhcp-client-identifier {};\n", colons(id)));
        }
        text
    }

    fn dhcpcd_conf(&self) -> String {
        // No ARP probes (five seconds), no IPv4LL address for want of a lease, no wait.
        let mut text = String::from(
            "noarp\nnoipv4ll\nnodelay\noption subnet_mask, routers, domain_name, \
             domain_name_servers, host_name, interface_mtu, domain_search, \
             classless_static_routes\n",
        );
        if let Some(name) = &self.hostname {
            text.push_str(&format!("hostname {name}\n"));
        }
        if let Some(id) = &self.client_id {
            text.push_str(&format!("clientid {}\n", colons(id)));
        }
        text
    }

    /// Starts the client; what it prints goes to the file.
    fn spawn(&self, files: &Files) -> Result<(Child, File)> {
        let output = tempfile::tempfile()?;
        let child = self
            .command(files)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output.try_clone()?)
            .spawn()
            .with_context(|| format!("cannot start {:?}: is it installed?", self.kind))?;
        Ok((child, output))
    }

    /// The command that runs the client in the foreground until it is killed.
    fn command(&self, files: &Files) -> Command {
        let mut command = match self.kind {
            ClientKind::Udhcpc => {
                let mut command = self.ns.command("udhcpc");
                command.args(["-f", "-t", "20", "-T", "1", "-A", "1"]);
                for option in ["hostname", "mtu", "search", "staticroutes", "domain"] {
                    command.args(["-O", option]);
                }
                if let Some(name) = &self.hostname {
                    command.args(["-x", &format!("hostname:{name}")]);
                }
                if let Some(id) = &self.client_id {
                    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
                    command.args(["-C", "-x", &format!("0x3d:{hex}")]);
                }
                command.arg("-s").arg(files.hook()).arg("-i").arg(&self.ifname);
                command
            }
            ClientKind::Dhclient => {
                let mut command = self.ns.command("dhclient");
                command.args(["-4", "-d"]);
                files.dhclient_paths(&mut command);
                command.arg(&self.ifname);
                command
            }
            ClientKind::Dhcpcd => {
                let mut command = self.ns.command("dhcpcd");
                command.args(["-4", "-B", "-d", "-f"]).arg(files.config());
                command.arg("-c").arg(files.hook()).arg(&self.ifname);
                files.cover(&mut command);
                command
            }
        };
        // The hook reports its environment: a variable of the test's must not pass for an option.
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        die_with_parent(&mut command);
        command
    }
}

fn colons(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}
