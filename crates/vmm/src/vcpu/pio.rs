//! Port accesses. A string instruction with a repeat prefix (`rep outsb`) arrives as one exit
//! with many items, all for the same port, so the width of an item must be known: the bindings'
//! slice alone doesn't tell `outw` from two `outsb`.

use std::ptr;

use kvm_bindings::KVM_EXIT_IO_IN;
use kvm_ioctls::VcpuFd;

/// A port access that KVM left to us.
#[derive(Debug)]
pub struct PortAccess<'a> {
    /// The port.
    pub port: u16,
    /// Bytes of one item: 1, 2 or 4.
    pub width: usize,
    /// Whether the guest reads: then the items are to be filled in.
    pub is_read: bool,
    /// The items, one after the other.
    pub data: &'a mut [u8],
}

/// The access of the exit that `vcpu` has just made, which must have been `KVM_EXIT_IO`.
pub fn access(vcpu: &mut VcpuFd) -> PortAccess<'_> {
    let run = ptr::from_mut(vcpu.get_kvm_run());
    // SAFETY: after a KVM_EXIT_IO the union holds `io`; `data_offset` and `size * count` describe
    // bytes within the shared mapping that begins at `run` (KVM API, "KVM_EXIT_IO"), which lives
    // as long as the vCPU, and that nothing else refers to while it is borrowed here.
    unsafe {
        let io = (*run).__bindgen_anon_1.io;
        let width = usize::from(io.size).max(1);
        let start = run.cast::<u8>().wrapping_add(io.data_offset as usize);
        PortAccess {
            port: io.port,
            width,
            is_read: u32::from(io.direction) == KVM_EXIT_IO_IN,
            data: std::slice::from_raw_parts_mut(start, width * io.count as usize),
        }
    }
}
