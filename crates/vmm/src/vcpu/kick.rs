//! Getting a vCPU thread out of `KVM_RUN`, without a race: a signal whose handler sets
//! `immediate_exit` in the thread's own `kvm_run`, so that a signal that comes just before the
//! ioctl is not lost either.

use std::cell::Cell;
use std::io;
use std::ptr;

use kvm_bindings::kvm_run;
use kvm_ioctls::VcpuFd;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

thread_local! {
    /// This thread's shared page, or null. Constant initialisation: no allocation in the handler.
    static SHARED: Cell<*mut kvm_run> = const { Cell::new(ptr::null_mut()) };
}

/// The signal that kicks, as an offset from SIGRTMIN.
const OFFSET: i32 = 0;

/// The number of the signal that kicks.
#[must_use]
pub fn signal() -> libc::c_int {
    SIGRTMIN() + OFFSET
}

extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let shared = SHARED.get();
    if !shared.is_null() {
        // SAFETY: the pointer was set by this very thread, for a page that stays mapped until
        // `Armed` is dropped, which clears it. One byte is written, which KVM reads.
        unsafe { ptr::write_volatile(&raw mut (*shared).immediate_exit, 1) };
    }
}

/// Installs the handler, once for the process.
///
/// # Errors
/// Those of `sigaction(2)`.
pub fn install() -> io::Result<()> {
    register_signal_handler(signal(), on_kick).map_err(io::Error::from)
}

/// While this lives, a kick gets the current thread out of `KVM_RUN`.
#[derive(Debug)]
pub struct Armed(());

impl Armed {
    /// Arms the current thread for `vcpu`, which must outlive the result.
    #[must_use]
    pub fn new(vcpu: &mut VcpuFd) -> Self {
        SHARED.set(ptr::from_mut(vcpu.get_kvm_run()));
        Self(())
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        SHARED.set(ptr::null_mut());
    }
}
