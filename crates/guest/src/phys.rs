//! Physical memory, which the page tables map one to one.

use core::ptr::{with_exposed_provenance, with_exposed_provenance_mut};

/// What the boot page tables map: 512 GiB.
const MAPPED: u64 = 512 << 30;

/// Whether `length` bytes at `address` are mapped. The first page counts as absent: a null
/// address in a table means that there is none.
fn mapped(address: u64, length: u64) -> bool {
    address >= 0x100 && address.checked_add(length).is_some_and(|end| end <= MAPPED)
}

/// Reads a `T` from memory that the VMM filled before the start, at any alignment.
pub(crate) fn read<T: Integer>(address: u64) -> Option<T> {
    if !mapped(address, size_of::<T>() as u64) {
        return None;
    }
    // SAFETY: mapped, and every bit pattern is a valid integer.
    Some(unsafe { with_exposed_provenance::<T>(address as usize).read_unaligned() })
}

/// The `length` bytes at `address`, which nothing may write to from now on.
pub(crate) fn bytes(address: u64, length: usize) -> Option<&'static [u8]> {
    if !mapped(address, length as u64) {
        return None;
    }
    // SAFETY: mapped; the VMM wrote this memory before the start, and it isn't the program's own,
    // which lies where a VMM loads nothing else.
    Some(unsafe { core::slice::from_raw_parts(with_exposed_provenance(address as usize), length) })
}

/// Reads a device register.
pub(crate) fn read_register<T: Integer>(address: u64) -> T {
    // SAFETY: callers pass registers of a device's assigned and mapped BAR, or of ECAM.
    unsafe { with_exposed_provenance::<T>(address as usize).read_volatile() }
}

/// Writes a device register.
pub(crate) fn write_register<T: Integer>(address: u64, value: T) {
    // SAFETY: as for reading.
    unsafe { with_exposed_provenance_mut::<T>(address as usize).write_volatile(value) }
}

/// Whether a device register of `length` bytes at `address` can be reached at all.
pub(crate) fn reachable(address: u64, length: u64) -> bool {
    mapped(address, length)
}

/// Integers: any bytes are a valid value.
pub(crate) trait Integer: Copy {}
impl Integer for u8 {}
impl Integer for u16 {}
impl Integer for u32 {}
impl Integer for u64 {}
