//! Raw images: a file, or a block device of the host, whose bytes are the disk's.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::SECTOR;
use super::disk::{Disk, Parts};

/// Zeroes that are written at once where the host cannot do better.
const ZEROES: usize = 64 << 10;

/// A raw image.
#[derive(Debug)]
pub struct RawDisk {
    file: File,
    bytes: u64,
    is_read_only: bool,
}

impl RawDisk {
    /// The image in `file`, which must be open for writing unless `is_read_only`. A last sector
    /// that is not whole is left out.
    ///
    /// # Errors
    /// Its size cannot be told.
    pub fn new(mut file: File, is_read_only: bool) -> io::Result<Self> {
        // The end of a block device, too, is where one can seek to.
        let bytes = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, bytes: bytes - bytes % SECTOR, is_read_only })
    }

    fn allocate(&self, mode: libc::c_int, offset: u64, bytes: u64) -> io::Result<()> {
        // Both fit: they are within the file.
        let (offset, bytes) = (offset.cast_signed(), bytes.cast_signed());
        // SAFETY: fallocate takes no pointers.
        let result = unsafe { libc::fallocate(self.file.as_raw_fd(), mode, offset, bytes) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn punch(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.allocate(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, offset, bytes)
    }

    fn zero_by_writing(&self, mut offset: u64, bytes: u64) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        let zeroes = vec![0; ZEROES.min(usize::try_from(bytes).unwrap_or(ZEROES))];
        let end = offset + bytes;
        while offset < end {
            let count = zeroes.len().min(usize::try_from(end - offset).unwrap_or(ZEROES));
            self.file.write_all_at(&zeroes[..count], offset)?;
            offset += count as u64;
        }
        Ok(())
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENODEV | libc::ENOSYS))
}

/// Calls `transfer` for what is left of `parts` until nothing is: calls may do less than asked.
fn whole(
    parts: Parts<'_>,
    mut offset: u64,
    transfer: impl Fn(&[libc::iovec], u64) -> isize,
) -> io::Result<()> {
    let mut rest = parts.iovecs().to_vec();
    while !rest.is_empty() {
        match usize::try_from(transfer(&rest, offset)) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                offset += count as u64;
                advance(&mut rest, count);
            }
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
    Ok(())
}

/// Takes the first `count` bytes off `parts`.
pub(super) fn advance(parts: &mut Vec<libc::iovec>, mut count: usize) {
    let gone = parts
        .iter()
        .take_while(|part| {
            let is_gone = part.iov_len <= count;
            if is_gone {
                count -= part.iov_len;
            }
            is_gone
        })
        .count();
    parts.drain(..gone);
    if let Some(first) = parts.first_mut() {
        first.iov_base = first.iov_base.wrapping_byte_add(count);
        first.iov_len -= count;
    }
}

impl Disk for RawDisk {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    fn plain_file(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn read(&self, parts: Parts<'_>, offset: u64) -> io::Result<()> {
        let fd = self.file.as_raw_fd();
        whole(parts, offset, |rest, offset| {
            // SAFETY: the parts lie in guest memory, which stays mapped until the process ends.
            unsafe { libc::preadv(fd, rest.as_ptr(), rest.len() as _, offset.cast_signed()) }
        })
    }

    fn write(&self, parts: Parts<'_>, offset: u64, is_durable: bool) -> io::Result<()> {
        let fd = self.file.as_raw_fd();
        let flags = if is_durable { libc::RWF_DSYNC } else { 0 };
        whole(parts, offset, |rest, offset| {
            let count = rest.len() as libc::c_int;
            // SAFETY: as above; the guest may change it meanwhile, which is its own affair.
            unsafe { libc::pwritev2(fd, rest.as_ptr(), count, offset.cast_signed(), flags) }
        })
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn discard(&self, offset: u64, bytes: u64) -> io::Result<()> {
        match self.punch(offset, bytes) {
            // It is a hint: what cannot be forgotten stays.
            Err(error) if is_unsupported(&error) => Ok(()),
            result => result,
        }
    }

    fn write_zeroes(&self, offset: u64, bytes: u64, may_unmap: bool) -> io::Result<()> {
        let zero =
            || self.allocate(libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE, offset, bytes);
        let first = if may_unmap { self.punch(offset, bytes) } else { zero() };
        match first {
            Err(error) if is_unsupported(&error) => self.zero_by_writing(offset, bytes),
            result => result,
        }
    }
}
