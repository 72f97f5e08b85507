//! One netd for one network namespace: two would fight over the table and over `ip_forward`.

use std::fs::File;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;

/// The claim of this process on its network namespace and on its root; it ends with the process.
#[derive(Debug)]
#[expect(dead_code, reason = "held for as long as netd lives")]
pub struct Instance {
    namespace: UnixListener,
    root: Flock<File>,
}

/// Why netd does not run here.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// Another one does.
    #[error("another netd runs in this network namespace ({0}): stop it first")]
    Taken(String),
    /// Another one, in another namespace, keeps its state where this one is to.
    #[error("another netd has {0}: stop it first, or give this one a --root of its own")]
    RootTaken(String),
    /// The lock cannot be made.
    #[error("cannot lock {path}")]
    Lock {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Whether one does cannot be found out.
    #[error("cannot claim this network namespace")]
    Socket(#[source] io::Error),
    /// It could do nothing.
    #[error("netd lacks {0}: run it as root, or give it these capabilities")]
    Privilege(String),
}

/// The abstract name by which a namespace is claimed.
const NAME: &str = "vnet/netd";
/// How long a netd that was killed may still have the claim: a child that it was starting holds a
/// copy of the socket until it is started.
const PREDECESSOR: Duration = Duration::from_secs(1);
const BETWEEN_TRIES: Duration = Duration::from_millis(10);

/// Capabilities that netd cannot do without, with their numbers (linux/capability.h).
const NEEDED: [(&str, u32); 3] =
    [("CAP_NET_BIND_SERVICE", 10), ("CAP_NET_ADMIN", 12), ("CAP_NET_RAW", 13)];

impl Instance {
    /// Claims the network namespace, and by the file `lock` the root. Names of abstract Unix
    /// sockets belong to the namespace, and vanish with their process; a netd that is just ending
    /// is waited for.
    ///
    /// # Errors
    /// Another netd has one of them.
    pub async fn claim(lock: &Path) -> Result<Self, InstanceError> {
        let namespace = claim_namespace().await?;
        let path = lock.display().to_string();
        let file = File::create(lock)
            .map_err(|source| InstanceError::Lock { path: path.clone(), source })?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(root) => Ok(Self { namespace, root }),
            Err((_, Errno::EWOULDBLOCK)) => Err(InstanceError::RootTaken(path)),
            Err((_, errno)) => Err(InstanceError::Lock { path, source: errno.into() }),
        }
    }
}

async fn claim_namespace() -> Result<UnixListener, InstanceError> {
    let address = SocketAddr::from_abstract_name(NAME).map_err(InstanceError::Socket)?;
    let deadline = Instant::now() + PREDECESSOR;
    loop {
        match UnixListener::bind_addr(&address) {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                return Err(InstanceError::Socket(error));
            }
            Err(_) if Instant::now() >= deadline => {
                return Err(InstanceError::Taken(holder(&address)));
            }
            Err(_) => tokio::time::sleep(BETWEEN_TRIES).await,
        }
    }
}

/// Who has the name: anybody can take it, and whoever did is to be found.
fn holder(address: &SocketAddr) -> String {
    let peer = UnixStream::connect_addr(address)
        .ok()
        .and_then(|stream| getsockopt(&stream, PeerCredentials).ok());
    peer.map_or_else(
        || "its process is not known".to_owned(),
        |peer| format!("process {} of user {}", peer.pid(), peer.uid()),
    )
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
