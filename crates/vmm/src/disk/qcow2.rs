//! qcow2 images, through imago. Backing files are read-only, and only those that [`Gate`] lets
//! through.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use imago::file::File as ImageFile;
use imago::format::gate::ImplicitOpenGate;
use imago::io_buffers::{IoVector, IoVectorMut};
use imago::qcow2::Qcow2;
use imago::{FormatAccess, FormatDriverBuilder, Mapping, StorageOpenOptions};
use vm_memory::VolatileSlice;
use vnet_virtio::blk::disk::{Disk, Parts};

use super::config::{Backing, DiskConfig};
use super::open::{DiskError, open_file};

/// Images that may stand behind each other.
const DEEPEST: usize = 16;

/// A qcow2 image.
pub(super) struct Qcow2Disk {
    /// Locked for writing where mappings may break: by discards.
    access: RwLock<FormatAccess<ImageFile>>,
    /// The image's file once more, to give its space back.
    file: File,
    bytes: u64,
    is_read_only: bool,
}

impl Qcow2Disk {
    /// The image in `file`.
    ///
    /// # Errors
    /// It is damaged, of a kind that we don't know, or its backing files may not be used.
    pub(super) fn open(file: File, config: &DiskConfig) -> Result<Self, DiskError> {
        let failed = |reason: String| DiskError::Image { path: config.path.clone(), reason };
        let directory = directory(&config.path).map_err(|error| failed(error.to_string()))?;
        let write = !config.is_read_only;
        let space = file.try_clone().map_err(|error| failed(error.to_string()))?;
        let options = StorageOpenOptions::new().filename(&config.path).write(write);
        let storage =
            ImageFile::from_open_file(file, options).map_err(|error| failed(error.to_string()))?;
        let gate = Gate { backing: config.backing, directory, depth: DEEPEST };
        let image = Qcow2::<ImageFile>::builder(storage)
            .write(write)
            .open(gate)
            .map_err(|error| failed(error.to_string()))?;
        let access = FormatAccess::new(image);
        let bytes = access.size();
        if i64::try_from(bytes).is_err() {
            return Err(failed(format!("it claims to have {bytes} bytes, more than is possible")));
        }
        let bytes = bytes - bytes % vnet_virtio::blk::SECTOR;
        Ok(Self {
            access: RwLock::new(access),
            file: space,
            bytes,
            is_read_only: config.is_read_only,
        })
    }

    /// Runs `discard` on a range, and gives back the space of what it has freed, which imago
    /// leaves to be used again. Nothing else happens on the image meanwhile, so none of it is used
    /// again before. Should the host crash here, the range may have lost what was discarded, and
    /// nothing else.
    fn give_back(
        &self,
        offset: u64,
        bytes: u64,
        discard: impl FnOnce(&mut FormatAccess<ImageFile>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut access = self.access.write().unwrap_or_else(PoisonError::into_inner);
        let before = owned_pieces(&access, offset, bytes)?;
        discard(&mut access)?;
        for piece in before {
            let mut at = piece.offset;
            let end = piece.offset + piece.bytes;
            while at < end {
                let (mapping, length) = access.get_mapping(at, end - at)?;
                if length == 0 {
                    break;
                }
                if matches!(mapping, Mapping::Zero { .. }) {
                    punch(&self.file, piece.place + (at - piece.offset), length);
                }
                at += length;
            }
        }
        Ok(())
    }

    fn read_lock(&self) -> RwLockReadGuard<'_, FormatAccess<ImageFile>> {
        self.access.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A piece of the disk that has a place of its own in the image's file.
struct Piece {
    offset: u64,
    bytes: u64,
    place: u64,
}

/// The pieces of a range that nothing else refers to, no snapshot for example.
fn owned_pieces(
    access: &FormatAccess<ImageFile>,
    offset: u64,
    bytes: u64,
) -> io::Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let (mut at, end) = (offset, offset + bytes);
    while at < end {
        let (mapping, length) = access.get_mapping(at, end - at)?;
        if length == 0 {
            break;
        }
        if let Mapping::Raw { offset: place, writable: true, .. } = mapping {
            pieces.push(Piece { offset: at, bytes: length, place });
        }
        at += length;
    }
    Ok(pieces)
}

/// Best effort: space that is not given back now is used again later.
fn punch(file: &File, offset: u64, bytes: u64) {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: fallocate takes no pointers.
    unsafe { libc::fallocate(file.as_raw_fd(), mode, offset.cast_signed(), bytes.cast_signed()) };
}

fn directory(image: &Path) -> io::Result<PathBuf> {
    let image = image.canonicalize()?;
    Ok(image.parent().unwrap_or(Path::new("/")).to_owned())
}

/// Whatever an image names is opened through this: an image from elsewhere must not make a file
/// of the host readable to its guest.
struct Gate {
    backing: Backing,
    directory: PathBuf,
    /// How many more images may stand behind the present one.
    depth: usize,
}

impl ImplicitOpenGate<ImageFile> for Gate {
    fn open_format<F: FormatDriverBuilder<ImageFile>>(
        &mut self,
        builder: F,
    ) -> io::Result<FormatAccess<ImageFile>> {
        let Some(depth) = self.depth.checked_sub(1) else {
            return Err(io::Error::other(format!(
                "more than {DEEPEST} images stand behind each other: flatten them (qemu-img rebase)"
            )));
        };
        let gate = Self { backing: self.backing, directory: self.directory.clone(), depth };
        Ok(FormatAccess::new(builder.open(gate)?))
    }

    fn open_storage(&mut self, options: StorageOpenOptions) -> io::Result<ImageFile> {
        let path = options.get_filename().ok_or(io::ErrorKind::Unsupported)?.to_owned();
        if options.get_writable() {
            return Err(io::Error::other(format!(
                "it keeps its data in another file, {}, which is not supported",
                path.display()
            )));
        }
        let real = path.canonicalize().map_err(|error| {
            io::Error::new(error.kind(), format!("its backing file {}: {error}", path.display()))
        })?;
        if self.backing == Backing::Beside && real.parent() != Some(&self.directory) {
            return Err(io::Error::other(format!(
                "its backing file {} is not beside it, in {}: add ,backing=anywhere if you trust \
                 the image",
                real.display(),
                self.directory.display()
            )));
        }
        let file = open_file(&real, true).map_err(io::Error::other)?;
        ImageFile::from_open_file(file, options)
    }
}

/// The parts as imago's dependencies know guest memory.
fn slices<'a>(parts: Parts<'a>) -> Vec<VolatileSlice<'a>> {
    let slice = |part: &libc::iovec| {
        // SAFETY: the part lies in guest memory, which stays mapped until the process ends.
        unsafe { VolatileSlice::new(part.iov_base.cast(), part.iov_len) }
    };
    parts.iovecs().iter().map(slice).collect()
}

impl Disk for Qcow2Disk {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    fn plain_file(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn read(&self, parts: Parts<'_>, offset: u64) -> io::Result<()> {
        let slices = slices(parts);
        let (vector, _guard) = IoVectorMut::from_volatile_slice(&slices[..]);
        self.read_lock().readv(vector, offset)
    }

    fn write(&self, parts: Parts<'_>, offset: u64, is_durable: bool) -> io::Result<()> {
        let slices = slices(parts);
        let (vector, _guard) = IoVector::from_volatile_slice(&slices[..]);
        self.read_lock().writev(vector, offset)?;
        if is_durable { self.flush() } else { Ok(()) }
    }

    fn flush(&self) -> io::Result<()> {
        if self.is_read_only {
            return Ok(());
        }
        let access = self.read_lock();
        access.flush()?;
        access.sync()
    }

    fn discard(&self, offset: u64, bytes: u64) -> io::Result<()> {
        match self.give_back(offset, bytes, |access| access.discard_to_any(offset, bytes)) {
            // It is a hint: what cannot be forgotten stays.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            result => result,
        }
    }

    fn write_zeroes(&self, offset: u64, bytes: u64, may_unmap: bool) -> io::Result<()> {
        if may_unmap {
            self.give_back(offset, bytes, |access| access.discard_to_zero(offset, bytes))
        } else {
            self.read_lock().write_zeroes(offset, bytes)
        }
    }
}
