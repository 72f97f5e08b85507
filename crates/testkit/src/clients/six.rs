//! Real DHCPv6 clients: ISC dhclient and dhcpcd. They run and report as those for IPv4 do.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::net::Ipv6Addr;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::PATIENCE;
use super::files::{Files, RECORD_END};
use crate::Netns;
use crate::process::{die_with_parent, pidfd, poll_any};

/// Which client, and what it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client6Kind {
    /// ISC's, which asks for an address whatever the router says.
    Dhclient,
    /// ISC's, which asks for options only.
    DhclientStateless,
    /// Roy Marples', which listens to the router first, and does what it says.
    Dhcpcd,
}

/// A running DHCPv6 client.
#[derive(Debug)]
pub struct Client6 {
    kind: Client6Kind,
    files: Files,
    child: Child,
    output: File,
    unread: Vec<u8>,
}

/// What a client was given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lease6 {
    /// Its address; none where it asked for options only.
    pub address: Option<Ipv6Addr>,
    /// Name servers.
    pub dns_servers: Vec<Ipv6Addr>,
    /// Domains to search.
    pub search: String,
}

impl Client6Kind {
    /// Starts the client on the interface `ifname` of `ns` as a host of this name, and waits for
    /// what it is given.
    ///
    /// # Errors
    /// There is nothing within twenty seconds; the message has the client's output.
    pub fn obtain(self, ns: &Netns, ifname: &str, name: &str) -> Result<(Client6, Lease6)> {
        ns.up(ifname);
        // A client without a link-local address has nothing to speak from.
        ns.settle(ifname);
        let files = Files::new()?;
        let text = match self {
            Self::Dhcpcd => format!(
                "ipv6only\nnodelay\nhostname {name}\nfqdn both\n\
                 option dhcp6_name_servers, dhcp6_domain_search\n"
            ),
            _ => format!(
                "send fqdn.fqdn \"{name}\";\nsend fqdn.encoded on;\n\
                 also request dhcp6.name-servers, dhcp6.domain-search;\n"
            ),
        };
        fs::write(files.config(), text)?;
        let output = tempfile::tempfile()?;
        let mut command = self.command(ns, ifname, &files);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        die_with_parent(&mut command);
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output.try_clone()?)
            .spawn()
            .with_context(|| format!("cannot start {self:?}: is it installed?"))?;
        let mut client = Client6 { kind: self, files, child, output, unread: Vec::new() };
        let lease = client.wait_for_lease()?;
        if let (Some(address), false) = (lease.address, self == Self::Dhcpcd) {
            // RFC 8415 §18.2.10.1: the router says what is on the link, not the lease.
            ns.ip(&format!("-6 addr replace {address}/128 dev {ifname} nodad"));
        }
        Ok((client, lease))
    }

    fn command(self, ns: &Netns, ifname: &str, files: &Files) -> Command {
        if self == Self::Dhcpcd {
            let mut command = ns.command("dhcpcd");
            command.args(["-6", "-B", "-d", "-f"]).arg(files.config());
            command.arg("-c").arg(files.hook()).arg(ifname);
            files.cover(&mut command);
            return command;
        }
        let mut command = ns.command("dhclient");
        command.args(["-6", "-d", "-v"]);
        if self == Self::DhclientStateless {
            command.arg("-S");
        }
        files.dhclient_paths(&mut command);
        command.arg(ifname);
        command
    }
}

impl Client6 {
    fn wait_for_lease(&mut self) -> Result<Lease6> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(lease) = self.take_record().and_then(|event| self.lease_of(&event)) {
                return Ok(lease);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{:?} has ended ({status}):\n{}", self.kind, self.output());
            }
            let ended = pidfd(&self.child)?;
            match poll_any([self.files.events.as_fd(), ended.as_fd()], deadline)? {
                Some(0) => {
                    let mut buffer = [0; 4096];
                    let length = self.files.events.read(&mut buffer).unwrap_or(0);
                    self.unread.extend_from_slice(&buffer[..length]);
                }
                Some(_) => {}
                None => bail!("{:?} has no lease in time:\n{}", self.kind, self.output()),
            }
        }
    }

    fn lease_of(&self, event: &BTreeMap<String, String>) -> Option<Lease6> {
        let reason = event.get("event")?;
        if !["BOUND6", "RENEW6", "REBIND6", "REBOOT6", "INFORM6"].contains(&reason.as_str()) {
            return None;
        }
        let value = |name: &str| event.get(name).cloned();
        let address = value("new_ip6_address").or_else(|| value("new_dhcp6_ia_na1_ia_addr1"));
        let servers = value("new_dhcp6_name_servers").unwrap_or_default();
        Some(Lease6 {
            address: address.and_then(|text| text.parse().ok()),
            dns_servers: servers.split(' ').filter_map(|text| text.parse().ok()).collect(),
            search: value("new_dhcp6_domain_search").unwrap_or_default(),
        })
    }

    fn take_record(&mut self) -> Option<BTreeMap<String, String>> {
        let text = String::from_utf8_lossy(&self.unread).into_owned();
        let (record, rest) = text.split_once(&format!("{RECORD_END}\n"))?;
        self.unread = rest.as_bytes().to_vec();
        let pairs = record.lines().filter_map(|line| line.split_once('='));
        Some(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// What it has printed until now.
    fn output(&self) -> String {
        let length = self.output.metadata().map_or(0, |meta| meta.len());
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        let length = self.output.read_at(&mut bytes, 0).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }
}

impl Drop for Client6 {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
