//! The ledger's file. It counts until the host's next boot: what was ours is gone then, and a
//! sysctl that we changed has its old value.

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
    /// It is no ledger.
    #[error(
        "the ledger {path} is damaged: stop netd, remove the file, start netd; bridges of vnet are \
         known by their labels, but a changed ip_forward will not be put back"
    )]
    Damaged {
        /// The file.
        path: String,
        /// Where.
        #[source]
        source: serde_json::Error,
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
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let ledger = match std::fs::read(&path) {
            Ok(bytes) => {
                let stored: Stored = serde_json::from_slice(&bytes).map_err(|source| {
                    LedgerError::Damaged { path: path.display().to_string(), source }
                })?;
                if stored.boot == boot { stored.ledger } else { Ledger::default() }
            }
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

/// No flush to stable storage: the ledger need survive netd, not the host.
fn replace(path: &Path, stored: &Stored) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = std::fs::File::create(&new)?;
    file.write_all(&serde_json::to_vec_pretty(stored)?)?;
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
    fn a_damaged_ledger_is_named_with_the_way_out() {
        let path = scratch();
        std::fs::write(&path, "{").unwrap();
        let error = LedgerFile::open(path.clone()).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()) && error.contains("remove"), "{error}");
        std::fs::remove_file(path).unwrap();
    }
}
