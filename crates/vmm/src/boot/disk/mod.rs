//! Booting a disk with nothing else given: what its boot loader would do, without one.
//!
//! ```text
//! partitions (GPT, MBR, none) → each ext4 → entries: BLS, or grub.cfg → the default one
//!     → kernel, initial RAM disks, command line
//! ```
//!
//! Everything that is read comes from the guest: any bytes are possible. Nothing of it reaches
//! the host but a kernel that the guest will run.

mod bls;
mod grub;
mod partitions;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use ext4_view::Ext4;
use vnet_virtio::blk::disk::{self, Disk};

use super::source::Source;

/// Most bytes of a configuration file.
const MOST_TEXT: u64 = 1 << 20;
/// Most bytes of a kernel or an initial RAM disk.
const MOST_FILE: u64 = 1 << 30;
/// Where a boot partition's files are in its file system: at its root, or, if it is the root
/// partition as well, here.
const PREFIXES: [&str; 2] = ["", "/boot"];

/// What is to be booted.
#[derive(Debug)]
pub struct Found {
    /// The kernel.
    pub kernel: Source,
    /// Its initial RAM disks.
    pub initrds: Vec<Source>,
    /// Its command line.
    pub command_line: String,
}

/// Why a disk cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum DiskBootError {
    /// The disk cannot be read.
    #[error("cannot read the disk {disk} to boot from it")]
    Read {
        /// The image.
        disk: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no file system that we know.
    #[error("the disk {0} has no ext4 file system to boot from: give --kernel and --initrd")]
    NoFileSystem(PathBuf),
    /// There are no boot loader entries.
    #[error(
        "the disk {0} has no boot loader entries (loader/entries, grub.cfg) on ext4: give --kernel and --initrd"
    )]
    NoEntry(PathBuf),
    /// The default entry names a file that isn't there.
    #[error("the disk {disk} cannot be booted: its entry `{entry}` needs {file}: {reason}")]
    Missing {
        /// The image.
        disk: PathBuf,
        /// The entry.
        entry: String,
        /// The file.
        file: String,
        /// Why it cannot be had.
        reason: String,
    },
}

/// An entry of a boot loader.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Entry {
    title: String,
    kernel: String,
    initrds: Vec<String>,
    options: String,
}

/// A file system, and where in it the boot loader's files are.
struct Boot {
    fs: Ext4,
    prefix: &'static str,
}

/// Finds what `disk`, whose image is `name`, is to boot.
///
/// # Errors
/// See [`DiskBootError`].
pub fn find(disk: &Arc<dyn Disk>, name: &std::path::Path) -> Result<Found, DiskBootError> {
    let read_error = |source| DiskBootError::Read { disk: name.to_owned(), source };
    let mut has_file_system = false;
    for range in partitions::find(&**disk).map_err(read_error)? {
        let reader = Reader { disk: Arc::clone(disk), start: range.start, end: range.end };
        let Ok(fs) = Ext4::load(Box::new(reader)) else { continue };
        has_file_system = true;
        for prefix in PREFIXES {
            let boot = Boot { fs: fs.clone(), prefix };
            let entry = bls::default_entry(&boot).or_else(|| grub::default_entry(&boot));
            if let Some(entry) = entry {
                return boot.load(&entry, name);
            }
        }
    }
    Err(if has_file_system {
        DiskBootError::NoEntry(name.to_owned())
    } else {
        DiskBootError::NoFileSystem(name.to_owned())
    })
}

impl Boot {
    /// The text of a file below the prefix, if it is there and not too long.
    fn text(&self, path: &str) -> Option<String> {
        let path = format!("{}{path}", self.prefix);
        let length = self.fs.metadata(&*path).ok()?.len();
        if length > MOST_TEXT {
            return None;
        }
        let bytes = self.fs.read(&*path).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The variables in the boot loader's environment block.
    fn environment(&self) -> Vec<(String, String)> {
        let text = ["/grub2/grubenv", "/grub/grubenv"].iter().find_map(|path| self.text(path));
        let pair = |line: &str| {
            let (key, value) = line.split_once('=').filter(|_| !line.starts_with('#'))?;
            Some((key.to_owned(), value.to_owned()))
        };
        text.unwrap_or_default().lines().filter_map(pair).collect()
    }

    fn load(&self, entry: &Entry, disk: &std::path::Path) -> Result<Found, DiskBootError> {
        let source = |path: &String| {
            let missing = |reason: String| DiskBootError::Missing {
                disk: disk.to_owned(),
                entry: entry.title.clone(),
                file: path.clone(),
                reason,
            };
            // Paths are those of the boot partition, which may be the root partition.
            let places = [path.clone(), format!("{}{path}", self.prefix)];
            let place = places.iter().find(|place| self.fs.exists(&***place).unwrap_or(false));
            let place = place.ok_or_else(|| missing("it is not there".to_owned()))?;
            let length = self.fs.metadata(&**place).map_err(|error| missing(error.to_string()))?;
            if length.len() > MOST_FILE {
                return Err(missing("it is larger than 1 GiB".to_owned()));
            }
            let bytes = self.fs.read(&**place).map_err(|error| missing(error.to_string()))?;
            let name = PathBuf::from(format!("{}:{place}", disk.display()));
            Source::from_bytes(name, &bytes).map_err(|error| missing(error.to_string()))
        };
        Ok(Found {
            kernel: source(&entry.kernel)?,
            initrds: entry.initrds.iter().map(source).collect::<Result<_, _>>()?,
            command_line: entry.options.clone(),
        })
    }
}

/// A range of a disk, as the file system's library reads it.
struct Reader {
    disk: Arc<dyn Disk>,
    start: u64,
    end: u64,
}

impl ext4_view::Ext4Read for Reader {
    fn read(
        &mut self,
        start_byte: u64,
        dst: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        let offset = self.start.checked_add(start_byte).ok_or(io::ErrorKind::UnexpectedEof);
        let offset = offset.map_err(io::Error::from)?;
        if offset.saturating_add(dst.len() as u64) > self.end {
            return Err(Box::new(io::Error::from(io::ErrorKind::UnexpectedEof)));
        }
        Ok(disk::read_exact(&*self.disk, offset, dst)?)
    }
}
