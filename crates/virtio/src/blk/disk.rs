//! What a disk is, whatever its format.

use std::io;
use std::os::fd::BorrowedFd;

use super::SECTOR;

/// Pieces of guest memory, from which a disk is written or into which it is read.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a>(&'a [libc::iovec]);

impl<'a> Parts<'a> {
    /// `iovecs` must come from a queue: they then lie in guest memory, which stays mapped until
    /// the process ends.
    pub(super) fn new(iovecs: &'a [libc::iovec]) -> Self {
        Self(iovecs)
    }

    /// As the kernel takes them. What they point to is guest memory: mapped, and changing at any
    /// time.
    #[must_use]
    pub fn iovecs(&self) -> &'a [libc::iovec] {
        self.0
    }

    /// Bytes in all.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|part| part.iov_len).sum()
    }
}

/// A disk. Offsets and lengths are in bytes, multiples of [`SECTOR`], and within the disk.
/// Many threads may work on it at once.
pub trait Disk: Send + Sync {
    /// Bytes that it has.
    fn bytes(&self) -> u64;
    /// Whether it may only be read.
    fn is_read_only(&self) -> bool;
    /// The file whose bytes are the disk's, one by one, if there is such a file.
    fn plain_file(&self) -> Option<BorrowedFd<'_>>;
    /// Fills `parts` from `offset`.
    ///
    /// # Errors
    /// The host cannot read it.
    fn read(&self, parts: Parts<'_>, offset: u64) -> io::Result<()>;
    /// Writes `parts` to `offset`. With `is_durable` it returns when that is on stable storage.
    ///
    /// # Errors
    /// The host cannot write it; `StorageFull` if it has no space.
    fn write(&self, parts: Parts<'_>, offset: u64, is_durable: bool) -> io::Result<()>;
    /// Returns when all that was written is on stable storage.
    ///
    /// # Errors
    /// It may not be there.
    fn flush(&self) -> io::Result<()>;
    /// Forgets what is in a range, so that it takes no space.
    ///
    /// # Errors
    /// The host cannot do it.
    fn discard(&self, offset: u64, bytes: u64) -> io::Result<()>;
    /// Fills a range with zeroes, which take no space if `may_unmap`.
    ///
    /// # Errors
    /// The host cannot do it; `StorageFull` if it has no space.
    fn write_zeroes(&self, offset: u64, bytes: u64, may_unmap: bool) -> io::Result<()>;
}

/// Reads the bytes of `disk` at `offset`, which need not be whole sectors, into memory of ours.
///
/// # Errors
/// The host cannot read it, or they are not within the disk.
pub fn read_exact(disk: &dyn Disk, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
    let first = offset - offset % SECTOR;
    let end = offset.saturating_add(bytes.len() as u64);
    let length = end.saturating_sub(first).next_multiple_of(SECTOR);
    if end > disk.bytes() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut sectors = vec![0_u8; usize::try_from(length).map_err(io::Error::other)?];
    let part = [libc::iovec { iov_base: sectors.as_mut_ptr().cast(), iov_len: sectors.len() }];
    disk.read(Parts(&part), first)?;
    let skip = usize::try_from(offset - first).map_err(io::Error::other)?;
    bytes.copy_from_slice(&sectors[skip..skip + bytes.len()]);
    Ok(())
}
