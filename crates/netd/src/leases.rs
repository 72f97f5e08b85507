//! The one writer of all lease journals.
//!
//! A lease is on stable storage before its ACK leaves, and a flush takes a millisecond. So those
//! who wait for one share it: the writer appends all that has come meanwhile, from any network,
//! flushes each file once, and tells all of them. It has a thread of its own; no one else waits
//! for the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use tokio::sync::oneshot;

/// The journal of one network.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    path: Arc<Path>,
    jobs: Sender<Job>,
}

/// The writer: it ends when the last journal is gone.
#[derive(Debug, Clone)]
pub struct LeaseWriter {
    jobs: Sender<Job>,
}

#[derive(Debug)]
struct Job {
    path: Arc<Path>,
    action: Action,
    done: oneshot::Sender<io::Result<()>>,
}

#[derive(Debug)]
enum Action {
    /// Add to the end.
    Append(Vec<u8>),
    /// Put these bytes in place of all that is there, in one step.
    Replace(Vec<u8>),
    /// Cut what a crash has left half written.
    Truncate(u64),
    /// Remove the file.
    Remove,
}

impl LeaseWriter {
    /// Starts the writer.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start() -> io::Result<Self> {
        let (jobs, queue) = channel();
        std::thread::Builder::new()
            .name("leases".into())
            .spawn(move || Files::default().serve(&queue))?;
        Ok(Self { jobs })
    }

    pub(crate) fn journal(&self, path: PathBuf) -> Journal {
        Journal { path: path.into(), jobs: self.jobs.clone() }
    }
}

impl Journal {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds `bytes`; they are on stable storage when this returns.
    pub(crate) async fn append(&self, bytes: Vec<u8>) -> io::Result<()> {
        self.send(Action::Append(bytes)).await
    }

    /// Puts `bytes` in place of the whole journal; a crash leaves the old one or the new one.
    pub(crate) async fn replace(&self, bytes: Vec<u8>) -> io::Result<()> {
        self.send(Action::Replace(bytes)).await
    }

    /// Keeps the first `length` bytes.
    pub(crate) async fn truncate(&self, length: u64) -> io::Result<()> {
        self.send(Action::Truncate(length)).await
    }

    /// Removes the journal; one that isn't there is no error.
    pub(crate) async fn remove(&self) -> io::Result<()> {
        self.send(Action::Remove).await
    }

    async fn send(&self, action: Action) -> io::Result<()> {
        let (done, result) = oneshot::channel();
        let gone = || io::Error::other("the writer of leases has ended");
        self.jobs.send(Job { path: self.path.clone(), action, done }).map_err(|_| gone())?;
        result.await.map_err(|_| gone())?
    }
}

#[derive(Default)]
struct Files {
    open: BTreeMap<Arc<Path>, Open>,
}

/// A journal that is open.
struct Open {
    file: File,
    /// Bytes in it: nobody else writes there.
    length: u64,
}

impl Files {
    fn serve(&mut self, queue: &Receiver<Job>) {
        while let Ok(first) = queue.recv() {
            let jobs: Vec<Job> = std::iter::once(first).chain(queue.try_iter()).collect();
            let mut dirty = BTreeSet::new();
            let mut written = Vec::new();
            for job in jobs {
                match self.perform(&job.path, job.action) {
                    Ok(flush) => {
                        if flush {
                            dirty.insert(job.path.clone());
                        }
                        written.push((job.path, job.done));
                    }
                    Err(error) => self.fail(&job.path, error, job.done),
                }
            }
            for path in dirty {
                if let Some(Err(error)) = self.open.get(&path).map(|open| open.file.sync_data()) {
                    // Nobody can tell which bytes are there: all who wrote must hear of it.
                    for (_, done) in written.extract_if(.., |(of, _)| *of == path) {
                        self.fail(&path, io::Error::new(error.kind(), error.to_string()), done);
                    }
                }
            }
            for (_, done) in written {
                // One who no longer waits has nothing to be told.
                let _ = done.send(Ok(()));
            }
        }
    }

    fn fail(&mut self, path: &Path, error: io::Error, done: oneshot::Sender<io::Result<()>>) {
        self.open.remove(path);
        let _ = done.send(Err(error));
    }

    /// Whether the file is to be flushed.
    fn perform(&mut self, path: &Arc<Path>, action: Action) -> io::Result<bool> {
        match action {
            Action::Append(bytes) => {
                let Open { file, length } = self.file(path)?;
                if let Err(error) = file.write_all(&bytes) {
                    // Half a record would damage the next one.
                    file.set_len(*length)?;
                    return Err(error);
                }
                *length += bytes.len() as u64;
                Ok(true)
            }
            Action::Replace(bytes) => {
                self.open.remove(path);
                let new = path.with_extension("new");
                let mut file = create(&new)?;
                file.write_all(&bytes)?;
                file.sync_data()?;
                std::fs::rename(&new, path)?;
                sync_directory(path)?;
                Ok(false)
            }
            Action::Truncate(to) => {
                let Open { file, length } = self.file(path)?;
                file.set_len(to)?;
                *length = to;
                Ok(true)
            }
            Action::Remove => {
                self.open.remove(path);
                match std::fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => Ok(false),
                }
            }
        }
    }

    fn file(&mut self, path: &Arc<Path>) -> io::Result<&mut Open> {
        if !self.open.contains_key(path) {
            let new = !path.exists();
            if let Some(directory) = path.parent() {
                std::fs::create_dir_all(directory)?;
            }
            let file = OpenOptions::new().append(true).create(true).open(path)?;
            if new {
                sync_directory(path)?;
            }
            let length = file.metadata()?.len();
            self.open.insert(path.clone(), Open { file, length });
        }
        self.open.get_mut(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn create(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    File::create(path)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn what_is_appended_is_there_and_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let writer = LeaseWriter::start().unwrap();
        let journal = writer.journal(directory.path().join("a/b.leases"));
        run(async {
            let (one, two) = tokio::join!(journal.append(b"1".into()), journal.append(b"2".into()));
            one.unwrap();
            two.unwrap();
            assert_eq!(std::fs::read(journal.path()).unwrap(), b"12");
            journal.replace(b"345".into()).await.unwrap();
            journal.append(b"6".into()).await.unwrap();
            assert_eq!(std::fs::read(journal.path()).unwrap(), b"3456");
            journal.truncate(1).await.unwrap();
            journal.append(b"7".into()).await.unwrap();
            assert_eq!(std::fs::read(journal.path()).unwrap(), b"37");
            journal.remove().await.unwrap();
            journal.remove().await.unwrap();
            assert!(!journal.path().exists());
        });
    }

    #[test]
    fn a_failure_reaches_the_one_who_waits_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let writer = LeaseWriter::start().unwrap();
        std::fs::write(directory.path().join("file"), "").unwrap();
        let bad = writer.journal(directory.path().join("file/x.leases"));
        let good = writer.journal(directory.path().join("x.leases"));
        run(async {
            let (bad, good) = tokio::join!(bad.append(b"1".into()), good.append(b"1".into()));
            assert!(bad.is_err());
            good.unwrap();
        });
    }
}
