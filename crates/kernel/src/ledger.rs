//! The ledger's file. It counts until the host's next boot, and for one network namespace: what
//! was ours is gone then, and a sysctl that we changed has its old value.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vnet_plan::Ledger;

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It cannot be read.
    #[error("cannot read the ledger {path}")]
    Read {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write the ledger {path}")]
    Write {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

#[derive(Debug)]
pub(crate) struct LedgerFile {
    path: PathBuf,
    boot: String,
    ledger: Ledger,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    boot: String,
    ledger: Ledger,
}

impl LedgerFile {
    pub(crate) fn open(path: PathBuf) -> Result<Self, LedgerError> {
        let boot = format!("{}/{}", boot_id(), namespace_cookie());
        let ledger = match std::fs::read(&path) {
            // A host that lost power has not yet written it, and none of it holds any more.
            Ok(bytes) if bytes.is_empty() => Ledger::default(),
            Ok(bytes) => match serde_json::from_slice::<Stored>(&bytes) {
                Ok(stored) if stored.boot == boot => stored.ledger,
                Ok(_) => Ledger::default(),
                Err(error) => set_aside(&path, &error)?,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ledger::default(),
            Err(source) => {
                return Err(LedgerError::Read { path: path.display().to_string(), source });
            }
        };
        Ok(Self { path, boot, ledger })
    }

    pub(crate) fn get(&self) -> &Ledger {
        &self.ledger
    }

    pub(crate) fn rewrite(&self) -> Result<(), LedgerError> {
        let stored = Stored { boot: self.boot.clone(), ledger: self.ledger.clone() };
        replace(&self.path, &stored)
            .map_err(|source| LedgerError::Write { path: self.path.display().to_string(), source })
    }

    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Ledger)) -> Result<(), LedgerError> {
        let mut ledger = self.ledger.clone();
        change(&mut ledger);
        if ledger == self.ledger {
            return Ok(());
        }
        let stored = Stored { boot: self.boot.clone(), ledger };
        replace(&self.path, &stored).map_err(|source| LedgerError::Write {
            path: self.path.display().to_string(),
            source,
        })?;
        self.ledger = stored.ledger;
        Ok(())
    }
}

/// Goes on without a ledger that cannot be read: bridges of ours are known by their labels too, and
/// guests need their network.
fn set_aside(path: &Path, reason: &serde_json::Error) -> Result<Ledger, LedgerError> {
    let aside = path.with_extension("damaged");
    std::fs::rename(path, &aside)
        .map_err(|source| LedgerError::Write { path: path.display().to_string(), source })?;
    tracing::error!(
        "the ledger {} is damaged ({reason}) and was moved to {}: a changed ip_forward will not be \
         put back",
        path.display(),
        aside.display()
    );
    Ok(Ledger::default())
}

fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// The number of this network namespace, which no other one has until the next boot; 0 where the
/// kernel (before 5.14) doesn't tell.
fn namespace_cookie() -> u64 {
    use std::os::fd::AsRawFd;
    let Ok((socket, _)) = std::os::unix::net::UnixDatagram::pair() else { return 0 };
    let mut cookie = 0u64;
    let mut length = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `cookie`, which has that many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { cookie } else { 0 }
}

/// No flush to stable storage: the ledger need survive netd, not the host.
fn replace(path: &Path, stored: &Stored) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = std::fs::File::create(&new)?;
    file.write_all(&serde_json::to_vec(stored)?)?;
    std::fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> PathBuf {
        let number = std::process::id();
        let thread = std::thread::current().name().unwrap_or_default().replace(':', "-");
        std::env::temp_dir().join(format!("vnet-ledger-{number}-{thread}.json"))
    }

    #[test]
    fn a_change_survives_a_restart_and_not_a_reboot() {
        let path = scratch();
        let mut file = LedgerFile::open(path.clone()).unwrap();
        file.change(|ledger| {
            ledger.wanted.insert("default".parse().unwrap(), false);
        })
        .unwrap();
        assert_eq!(LedgerFile::open(path.clone()).unwrap().get(), file.get());
        let other_boot = Stored { boot: "another".into(), ledger: file.get().clone() };
        replace(&path, &other_boot).unwrap();
        assert_eq!(LedgerFile::open(path.clone()).unwrap().get(), &Ledger::default());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_damaged_ledger_is_set_aside() {
        let path = scratch();
        std::fs::write(&path, "{").unwrap();
        assert_eq!(LedgerFile::open(path.clone()).unwrap().get(), &Ledger::default());
        let aside = path.with_extension("damaged");
        assert!(aside.exists() && !path.exists());
        std::fs::remove_file(aside).unwrap();
    }
}
