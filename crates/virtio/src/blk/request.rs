//! What a driver asks a disk for (virtio 1.2 §5.2.6).

use super::SECTOR;
use super::disk::Disk;
use super::raw::advance;

/// Status bytes (virtio 1.2 §5.2.6).
pub(super) const OK: u8 = 0;
pub(super) const IOERR: u8 = 1;
pub(super) const UNSUPP: u8 = 2;

/// Bytes of a request's header: type, reserved, sector.
const HEADER: usize = 16;
/// Bytes of a range to discard or to zero: sector, sectors, flags.
pub(super) const RANGE: usize = 16;
/// Most ranges in one request.
pub(super) const MOST_RANGES: usize = 16;
/// Bytes of a serial id (virtio 1.2 §5.2.6).
pub(super) const SERIAL: usize = 20;

/// Types.
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
/// A range's flag: its space may be given up.
const UNMAP: u32 = 1;

/// A range of the disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Range {
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) may_unmap: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// Fill the writable parts from this offset.
    Read(u64),
    /// Write the readable parts to this offset.
    Write(u64),
    Flush,
    /// Tell the serial id.
    Identify,
    /// Forget so many of the ranges.
    Discard(usize, [Range; MOST_RANGES]),
    /// Zero so many of the ranges.
    WriteZeroes(usize, [Range; MOST_RANGES]),
    /// Nothing: this is the answer.
    Refuse(u8),
}

/// Copies the first bytes of `parts` to `bytes`, and takes them off. False if there are fewer.
fn take(parts: &mut Vec<libc::iovec>, bytes: &mut [u8]) -> bool {
    let mut done = 0;
    for part in parts.iter() {
        let rest = &mut bytes[done..];
        let count = part.iov_len.min(rest.len());
        // SAFETY: the part is guest memory of at least `count` bytes that stays mapped; `rest` is
        // ours, so they don't overlap. What the guest makes of it meanwhile are bytes.
        unsafe { std::ptr::copy(part.iov_base.cast(), rest.as_mut_ptr(), count) };
        done += count;
    }
    advance(parts, done);
    done == bytes.len()
}

/// Reads the request whose readable and writable memory is given, the status byte taken off
/// already; leaves in both what is data. None if it has no header: then there is nothing that
/// could be answered.
pub(super) fn read(
    readable: &mut Vec<libc::iovec>,
    writable: &[libc::iovec],
    disk: &dyn Disk,
) -> Option<Operation> {
    let mut header = [0; HEADER];
    if !take(readable, &mut header) {
        return None;
    }
    let [t0, t1, t2, t3, _, _, _, _, s0, s1, s2, s3, s4, s5, s6, s7] = header;
    let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
    let (in_bytes, out_bytes) = (bytes(readable), bytes(writable));
    Some(match u32::from_le_bytes([t0, t1, t2, t3]) {
        IN => match place(disk, sector, out_bytes as u64) {
            Some(offset) => Operation::Read(offset),
            None => Operation::Refuse(IOERR),
        },
        OUT => match place(disk, sector, in_bytes as u64) {
            // virtio 1.2 §5.2.6.2: a write to a read-only disk is an error.
            Some(offset) if !disk.is_read_only() => Operation::Write(offset),
            _ => Operation::Refuse(IOERR),
        },
        FLUSH => Operation::Flush,
        GET_ID => Operation::Identify,
        DISCARD => ranges(readable, disk, Operation::Discard),
        WRITE_ZEROES => ranges(readable, disk, Operation::WriteZeroes),
        _ => Operation::Refuse(UNSUPP),
    })
}

pub(super) fn bytes(parts: &[libc::iovec]) -> usize {
    parts.iter().map(|part| part.iov_len).sum()
}

/// The offset of `sector` if `bytes` from there are whole sectors of the disk.
fn place(disk: &dyn Disk, sector: u64, bytes: u64) -> Option<u64> {
    let offset = sector.checked_mul(SECTOR)?;
    let end = offset.checked_add(bytes)?;
    (bytes.is_multiple_of(SECTOR) && end <= disk.bytes()).then_some(offset)
}

/// virtio 1.2 §5.2.6.2: unknown flags are unsupported, a discard has none; ranges beyond the end
/// are an error.
fn ranges(
    readable: &mut Vec<libc::iovec>,
    disk: &dyn Disk,
    make: impl Fn(usize, [Range; MOST_RANGES]) -> Operation,
) -> Operation {
    let length = bytes(readable);
    let count = length / RANGE;
    if disk.is_read_only() || count == 0 || !length.is_multiple_of(RANGE) || count > MOST_RANGES {
        return Operation::Refuse(IOERR);
    }
    let mut all = [Range::default(); MOST_RANGES];
    let is_discard = matches!(make(0, all), Operation::Discard(..));
    for range in &mut all[..count] {
        let mut raw = [0; RANGE];
        if !take(readable, &mut raw) {
            return Operation::Refuse(IOERR);
        }
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, f0, f1, f2, f3] = raw;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let bytes = u64::from(u32::from_le_bytes([n0, n1, n2, n3])) * SECTOR;
        let flags = u32::from_le_bytes([f0, f1, f2, f3]);
        if flags & !UNMAP != 0 || is_discard && flags != 0 {
            return Operation::Refuse(UNSUPP);
        }
        let Some(offset) = place(disk, sector, bytes) else { return Operation::Refuse(IOERR) };
        *range = Range { offset, bytes, may_unmap: flags & UNMAP != 0 };
    }
    make(count, all)
}
