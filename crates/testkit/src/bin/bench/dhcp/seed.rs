//! Leases that a server finds at its start, as if it had given them, in its own format.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use vnet_types::MacAddr;

use super::server::{Kind, LEASE_SECONDS, LEASES};

/// The address and the card of a lease that there is. The addresses are the range's last ones, so
/// that nobody need look past them for a free one.
fn lease(number: u32) -> (Ipv4Addr, MacAddr) {
    let [_, a, b, c] = number.to_be_bytes();
    (Ipv4Addr::from(u32::from(LEASES.1) - number), MacAddr([0x52, 0x54, 0x5e, a, b, c]))
}

/// Writes `leases` leases where the server looks for them. False if it keeps none on disk.
pub(super) fn write(kind: Kind, folder: &Path, leases: u32) -> Result<bool> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("a clock before 1970")?;
    let expires = now.as_secs() + u64::from(LEASE_SECONDS);
    let all = (0..leases).map(lease);
    let mut text = String::new();
    match kind {
        Kind::Vnet => {
            let all = all.map(|(ip, mac)| vnet_dhcp::Lease {
                ip,
                client: vnet_dhcp::ClientKey::Mac(mac),
                mac,
                hostname: None,
                state: vnet_dhcp::LeaseState::Bound,
                expires,
            });
            let bytes = vnet_dhcp::journal::snapshot(&all.collect::<Vec<_>>());
            std::fs::write(kind.leases(folder), bytes)?;
            return Ok(true);
        }
        Kind::Dnsmasq => {
            for (ip, mac) in all {
                writeln!(text, "{expires} {mac} {ip} * *")?;
            }
        }
        Kind::Kea => {
            text.push_str(
                "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,\
                 hostname,state,user_context\n",
            );
            for (ip, mac) in all {
                writeln!(text, "{ip},{mac},,{LEASE_SECONDS},{expires},1,0,0,,0,")?;
            }
        }
        Kind::DnsmasqMemory | Kind::Networkd => return Ok(false),
    }
    std::fs::write(kind.leases(folder), text)?;
    Ok(true)
}
