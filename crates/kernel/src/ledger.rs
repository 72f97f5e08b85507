//! The ledger's file. It counts until the host's next boot, and for one network namespace: what
//! was ours is gone then, and a sysctl that we changed has its old value.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vnet_plan::{Ledger, LedgerChange};

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

/// The ledger as a file: a line that says for what it counts, and a line for each change since.
#[derive(Debug)]
pub(crate) struct LedgerFile {
    path: PathBuf,
    head: Head,
    ledger: Arc<Ledger>,
    /// Bytes in the file as we left it; none before the first write.
    length: Option<u64>,
    /// Lines in it.
    lines: usize,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    boot: String,
}

/// Lines that a file may have for each one that it needs, and some more, before it is made anew.
const SLACK: (usize, usize) = (2, 256);

impl LedgerFile {
    pub(crate) fn open(path: PathBuf) -> Result<Self, LedgerError> {
        let head = Head { boot: format!("{}/{}", boot_id(), namespace_cookie()) };
        let ledger = match std::fs::read(&path) {
            // A host that lost power has not yet written it, and none of it holds any more.
            Ok(bytes) if bytes.is_empty() => Ledger::default(),
            Ok(bytes) => match parse(&bytes, &head) {
                Ok(ledger) => ledger,
                Err(error) => set_aside(&path, &error)?,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ledger::default(),
            Err(source) => {
                return Err(LedgerError::Read { path: path.display().to_string(), source });
            }
        };
        Ok(Self { path, head, ledger: Arc::new(ledger), length: None, lines: 0 })
    }

    pub(crate) fn get(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Writes something that says nothing, to see that it can be done.
    pub(crate) fn probe(&mut self) -> Result<(), LedgerError> {
        let ledger = self.ledger.clone();
        self.write(&[], &ledger)
    }

    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Ledger)) -> Result<(), LedgerError> {
        let mut ledger = Ledger::clone(&self.ledger);
        change(&mut ledger);
        let changes = self.ledger.changes(&ledger);
        if changes.is_empty() {
            return Ok(());
        }
        let ledger = Arc::new(ledger);
        self.write(&changes, &ledger)?;
        self.ledger = ledger;
        Ok(())
    }

    fn write(&mut self, changes: &[LedgerChange], after: &Ledger) -> Result<(), LedgerError> {
        let path = self.path.display().to_string();
        self.try_write(changes, after).map_err(|source| LedgerError::Write { path, source })
    }

    fn try_write(&mut self, changes: &[LedgerChange], after: &Ledger) -> io::Result<()> {
        let needed = after.bridges.len() + after.wanted.len();
        if self.lines <= needed * SLACK.0 + SLACK.1 && self.append(changes)? {
            return Ok(());
        }
        let all = Ledger::default().changes(after);
        let mut bytes = line(&self.head)?;
        for change in &all {
            bytes.extend(line(change)?);
        }
        let new = self.path.with_extension("new");
        std::fs::write(&new, &bytes)?;
        std::fs::rename(new, &self.path)?;
        (self.length, self.lines) = (u64::try_from(bytes.len()).ok(), all.len());
        Ok(())
    }

    /// Adds lines to the file, if it is the one that we know. No flush to stable storage: the
    /// ledger need survive netd, not the host.
    fn append(&mut self, changes: &[LedgerChange]) -> io::Result<bool> {
        let Some(length) = self.length else { return Ok(false) };
        let mut file = match File::options().append(true).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() != length {
            return Ok(false);
        }
        let mut bytes = Vec::new();
        for change in changes {
            bytes.extend(line(change)?);
        }
        if bytes.is_empty() {
            bytes.push(b'\n');
        }
        // Should it fail halfway, the file is not the one that we know, and is made anew.
        file.write_all(&bytes)?;
        self.length = length.checked_add(bytes.len() as u64);
        self.lines += changes.len();
        Ok(true)
    }
}

fn line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// What the lines come to; nothing if they are of another boot or namespace. A last line that was
/// not written to its end does not count: whoever wrote it died before he did what it says.
fn parse(bytes: &[u8], head: &Head) -> Result<Ledger, serde_json::Error> {
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let whole = bytes.get(..whole).unwrap_or_default();
    let mut lines = whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut ledger = Ledger::default();
    let first = lines.next().unwrap_or(bytes);
    if serde_json::from_slice::<Head>(first)? != *head {
        return Ok(ledger);
    }
    for line in lines {
        ledger.apply(serde_json::from_slice(line)?);
    }
    Ok(ledger)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> PathBuf {
        let number = std::process::id();
        let thread = std::thread::current().name().unwrap_or_default().replace(':', "-");
        std::env::temp_dir().join(format!("vnet-ledger-{number}-{thread}.json"))
    }

    fn wanting(names: &[(&str, bool)]) -> impl Fn(&mut Ledger) {
        let names: Vec<_> =
            names.iter().map(|(name, wanted)| (name.parse().unwrap(), *wanted)).collect();
        move |ledger| ledger.wanted = names.iter().cloned().collect()
    }

    #[test]
    fn a_change_survives_a_restart_and_not_a_reboot() {
        let path = scratch();
        let mut file = LedgerFile::open(path.clone()).unwrap();
        for names in [&[("default", false)][..], &[("default", true), ("lab", false)], &[]] {
            file.change(wanting(names)).unwrap();
            file.probe().unwrap();
            assert_eq!(LedgerFile::open(path.clone()).unwrap().get(), file.get());
        }
        file.change(wanting(&[("default", false)])).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let (_, rest) = text.split_once('\n').unwrap();
        std::fs::write(&path, format!("{{\"boot\":\"another\"}}\n{rest}")).unwrap();
        assert_eq!(**LedgerFile::open(path.clone()).unwrap().get(), Ledger::default());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_ledger_that_is_cut_anywhere_is_one_of_those_that_it_was() {
        let path = scratch();
        let mut file = LedgerFile::open(path.clone()).unwrap();
        let mut was = vec![Ledger::default()];
        for number in 0..4 {
            file.change(wanting(&[("default", number % 2 == 0)])).unwrap();
            was.push(Ledger::clone(file.get()));
        }
        let bytes = std::fs::read(&path).unwrap();
        let head = bytes.iter().position(|byte| *byte == b'\n').unwrap();
        for length in (0..=bytes.len()).filter(|length| *length == 0 || *length > head) {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let found = LedgerFile::open(path.clone()).unwrap();
            assert!(was.contains(found.get()), "at {length}");
        }
        assert!(!path.with_extension("damaged").exists());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_ledger_stays_short_and_comes_back_when_it_is_removed() {
        let path = scratch();
        let mut file = LedgerFile::open(path.clone()).unwrap();
        for number in 0..2000 {
            file.change(wanting(&[("default", number % 2 == 0)])).unwrap();
        }
        assert!(std::fs::read_to_string(&path).unwrap().lines().count() < 500);
        std::fs::remove_file(&path).unwrap();
        file.change(wanting(&[("default", true), ("lab", true)])).unwrap();
        assert_eq!(LedgerFile::open(path.clone()).unwrap().get(), file.get());
        // Somebody has written into it.
        std::fs::write(&path, "x").unwrap();
        file.change(wanting(&[("lab", true)])).unwrap();
        assert_eq!(LedgerFile::open(path.clone()).unwrap().get(), file.get());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_damaged_ledger_is_set_aside() {
        for text in ["{", "{\n", "\0\n"] {
            let path = scratch();
            std::fs::write(&path, text).unwrap();
            assert_eq!(**LedgerFile::open(path.clone()).unwrap().get(), Ledger::default());
            let aside = path.with_extension("damaged");
            assert!(aside.exists() && !path.exists());
            std::fs::remove_file(aside).unwrap();
        }
    }
}
