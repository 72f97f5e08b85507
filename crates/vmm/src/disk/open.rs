//! Opening images: what is wrong with one is said before a guest runs.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vnet_virtio::blk::SECTOR;
use vnet_virtio::blk::disk::Disk;
use vnet_virtio::blk::raw::RawDisk;

use super::config::{DiskConfig, Format};
use super::qcow2::Qcow2Disk;

/// What a qcow2 image begins with.
const QCOW2_MAGIC: &[u8] = b"QFI\xfb";

/// Why there is no disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The image cannot be opened.
    #[error("cannot open the disk {path}")]
    Open {
        /// The image.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The image cannot be read.
    #[error("cannot read the disk {path}")]
    Read {
        /// The image.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is a directory, a socket or the like.
    #[error("{0} is no disk: give an image's file, or a block device")]
    Kind(PathBuf),
    /// Somebody else uses it.
    #[error("the disk {0} is in use: another guest or program has it; stop that, or give both ,ro")]
    Locked(PathBuf),
    /// The name says raw, the content qcow2.
    #[error(
        "the disk {0} looks like a qcow2 image: add ,format=qcow2, or ,format=raw if it is none"
    )]
    LooksLikeQcow2(PathBuf),
    /// The image is no qcow2.
    #[error("the disk {0} is no qcow2 image: add ,format=raw if it is a raw one")]
    NotQcow2(PathBuf),
    /// There is nothing in it.
    #[error("the disk {0} has no whole sector: make it larger (truncate -s 10G FILE)")]
    Empty(PathBuf),
    /// The image's own structures are wrong.
    #[error("the disk {path} cannot be used: {reason}")]
    Image {
        /// The image.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Opens and locks the image of `config`.
///
/// # Errors
/// See [`DiskError`].
pub fn open(config: &DiskConfig) -> Result<Arc<dyn Disk>, DiskError> {
    let path = &config.path;
    let file = open_file(path, config.is_read_only)?;
    let mut magic = [0; 4];
    let is_qcow2 = match file.read_exact_at(&mut magic, 0) {
        Ok(()) => magic == QCOW2_MAGIC,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
        Err(source) => return Err(DiskError::Read { path: path.clone(), source }),
    };
    let disk: Arc<dyn Disk> = match config.format {
        Format::Raw if is_qcow2 && !config.is_format_given => {
            return Err(DiskError::LooksLikeQcow2(path.clone()));
        }
        Format::Raw => Arc::new(
            RawDisk::new(file, config.is_read_only)
                .map_err(|source| DiskError::Read { path: path.clone(), source })?,
        ),
        Format::Qcow2 if !is_qcow2 => return Err(DiskError::NotQcow2(path.clone())),
        Format::Qcow2 => Arc::new(Qcow2Disk::open(file, config)?),
    };
    if disk.bytes() < SECTOR {
        return Err(DiskError::Empty(path.clone()));
    }
    Ok(disk)
}

/// Opens a file or a block device, and locks it: for us alone if it is to be written, with other
/// readers otherwise. The lock goes with the descriptor.
pub(super) fn open_file(path: &Path, is_read_only: bool) -> Result<File, DiskError> {
    let open_error = |source| DiskError::Open { path: path.to_owned(), source };
    let file =
        OpenOptions::new().read(true).write(!is_read_only).open(path).map_err(
            |error| match error.kind() {
                io::ErrorKind::IsADirectory => DiskError::Kind(path.to_owned()),
                _ => open_error(error),
            },
        )?;
    let kind = file.metadata().map_err(open_error)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(DiskError::Kind(path.to_owned()));
    }
    // SAFETY: flock is plain old data, for which all zeroes is a valid value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    let how = if is_read_only { libc::F_RDLCK } else { libc::F_WRLCK };
    lock.l_type = how as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: the argument is the address of a flock that outlives the call. A length of 0 is
    // the whole file.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } < 0 {
        let error = io::Error::last_os_error();
        return Err(match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EACCES) => DiskError::Locked(path.to_owned()),
            _ => open_error(error),
        });
    }
    Ok(file)
}
