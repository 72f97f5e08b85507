//! One netd for one network namespace: two would fight over the table and over `ip_forward`.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::{Duration, Instant};

/// The claim of this process on its network namespace; it ends with the process.
#[derive(Debug)]
pub struct Instance(#[expect(dead_code, reason = "held for as long as netd lives")] UnixListener);

/// Why netd does not run here.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// Another one does.
    #[error("another netd runs in this network namespace: stop it first")]
    Taken,
    /// Whether one does cannot be found out.
    #[error("cannot claim this network namespace")]
    Socket(#[source] io::Error),
    /// It could do nothing.
    #[error("netd lacks {0}: run it as root, or give it these capabilities")]
    Privilege(String),
}

/// How long a netd that was killed may still have the claim: a child that it was starting holds a
/// copy of the socket until it is started.
const PREDECESSOR: Duration = Duration::from_secs(1);
const BETWEEN_TRIES: Duration = Duration::from_millis(10);

/// Capabilities that netd cannot do without, with their numbers (linux/capability.h).
const NEEDED: [(&str, u32); 3] =
    [("CAP_NET_BIND_SERVICE", 10), ("CAP_NET_ADMIN", 12), ("CAP_NET_RAW", 13)];

impl Instance {
    /// Claims the network namespace. Names of abstract Unix sockets belong to the namespace, and
    /// vanish with their process; a netd that is just ending is waited for.
    ///
    /// # Errors
    /// Another netd has it.
    pub async fn claim() -> Result<Self, InstanceError> {
        let address = SocketAddr::from_abstract_name("vnet/netd").map_err(InstanceError::Socket)?;
        let deadline = Instant::now() + PREDECESSOR;
        loop {
            match UnixListener::bind_addr(&address) {
                Ok(listener) => return Ok(Self(listener)),
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                    return Err(InstanceError::Socket(error));
                }
                Err(_) if Instant::now() >= deadline => return Err(InstanceError::Taken),
                Err(_) => tokio::time::sleep(BETWEEN_TRIES).await,
            }
        }
    }
}

/// Checks that this process may do what netd does.
///
/// # Errors
/// Names the capabilities that it lacks.
pub fn check_privilege() -> Result<(), InstanceError> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(InstanceError::Socket)?;
    let lacking = lacking(&status);
    if lacking.is_empty() { Ok(()) } else { Err(InstanceError::Privilege(lacking.join(", "))) }
}

fn lacking(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    NEEDED.iter().filter(|(_, bit)| effective >> bit & 1 == 0).map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lacking_capabilities_are_named() {
        assert_eq!(lacking("CapEff:\t000001ffffffffff\n"), Vec::<&str>::new());
        assert_eq!(lacking("CapEff:\t0000000000001400\n"), ["CAP_NET_RAW"]);
        assert_eq!(lacking("").len(), 3);
    }
}
