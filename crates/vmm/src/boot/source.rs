//! What a boot reads: a file, or a part of a disk, that keeps the name by which errors call it.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A kernel or an initial RAM disk that is to be loaded.
#[derive(Debug)]
pub struct Source {
    name: PathBuf,
    file: File,
}

impl Source {
    /// The file at `path`.
    ///
    /// # Errors
    /// It cannot be opened, or is no regular file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        Ok(Self { name: path.to_owned(), file })
    }

    /// `bytes` that were found elsewhere, under `name`.
    ///
    /// # Errors
    /// There is no memory for them.
    pub fn from_bytes(name: PathBuf, bytes: &[u8]) -> io::Result<Self> {
        // SAFETY: the name is a NUL-terminated string that outlives the call.
        let fd = unsafe { libc::memfd_create(c"vnet-boot".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        let mut file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        file.write_all(bytes)?;
        file.rewind()?;
        Ok(Self { name, file })
    }

    /// What errors call it.
    #[must_use]
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// Its bytes; read from the beginning once.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}
