//! Partitions: GPT (UEFI 2.10 §5.3), MBR, or a disk without any.

use std::io;
use std::ops::Range;

use vnet_virtio::blk::SECTOR;
use vnet_virtio::blk::disk::{Disk, read_exact};

/// Most entries of a GPT that are looked at.
const MOST_ENTRIES: u32 = 256;
/// Bytes of an entry, at least.
const LEAST_ENTRY: u32 = 128;
/// A partition type of the MBR: the disk has a GPT.
const PROTECTIVE: u8 = 0xee;

/// The ranges of a disk that may hold file systems, in bytes.
///
/// # Errors
/// The disk cannot be read.
pub(super) fn find(disk: &dyn Disk) -> io::Result<Vec<Range<u64>>> {
    let whole = disk.bytes();
    let mut first = [0; SECTOR as usize];
    read_exact(disk, 0, &mut first)?;
    let mut ranges = Vec::new();
    if first[510..] == [0x55, 0xaa] {
        let entries = first[446..510].chunks_exact(16);
        if entries.clone().any(|entry| entry[4] == PROTECTIVE) {
            ranges = gpt(disk)?;
        } else {
            ranges.extend(entries.filter(|entry| entry[4] != 0).map(|entry| {
                let start = u64::from(le32(&entry[8..])) * SECTOR;
                start..start + u64::from(le32(&entry[12..])) * SECTOR
            }));
        }
    }
    // A file system without a table begins with the disk.
    ranges.push(0..whole);
    ranges.retain(|range| range.start < range.end && range.end <= whole);
    Ok(ranges)
}

fn gpt(disk: &dyn Disk) -> io::Result<Vec<Range<u64>>> {
    let mut header = [0; SECTOR as usize];
    if disk.bytes() < 2 * SECTOR {
        return Ok(Vec::new());
    }
    read_exact(disk, SECTOR, &mut header)?;
    if !header.starts_with(b"EFI PART") {
        return Ok(Vec::new());
    }
    let (count, size) = (le32(&header[80..]).min(MOST_ENTRIES), le32(&header[84..]));
    let start = le64(&header[72..]).saturating_mul(SECTOR);
    if !(LEAST_ENTRY..=4096).contains(&size) {
        return Ok(Vec::new());
    }
    let bytes = u64::from(count) * u64::from(size);
    if start.saturating_add(bytes) > disk.bytes() {
        return Ok(Vec::new());
    }
    let mut table = vec![0; bytes as usize];
    read_exact(disk, start, &mut table)?;
    let used = table.chunks_exact(size as usize).filter(|entry| entry[..16] != [0; 16]);
    let range = |entry: &[u8]| {
        let end = le64(&entry[40..]).saturating_add(1);
        le64(&entry[32..]).saturating_mul(SECTOR)..end.saturating_mul(SECTOR)
    };
    Ok(used.map(range).collect())
}

fn le32(bytes: &[u8]) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[..4]);
    u32::from_le_bytes(value)
}

fn le64(bytes: &[u8]) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(value)
}
