//! What happens on a system call that a thread may not make: one line on standard error, and the
//! end.

use std::io;

use vmm_sys_util::signal::register_signal_handler;

use super::EXIT_CODE;

/// Installs the handler, once for the process.
pub(super) fn install() -> io::Result<()> {
    register_signal_handler(libc::SIGSYS, on_trap).map_err(io::Error::from)
}

/// Only what may be done in a signal handler: no allocation, no locks.
extern "C" fn on_trap(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // The union's part for SIGSYS (sigaction(2)): address of the call, number, architecture.
    const SYSCALL_OFFSET: usize = 24;
    // SAFETY: the kernel hands a whole siginfo_t to the handler; the number lies within it.
    let number = unsafe { info.byte_add(SYSCALL_OFFSET).cast::<libc::c_int>().read() };
    let mut name = [0_u8; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    let length = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    let mut digits = [0_u8; 12];
    let digits = decimal(number.unsigned_abs(), &mut digits);
    let call = name_of(number.into());
    for part in [
        b"vnet-vmm: the jail ended the machine: its thread ".as_slice(),
        &name[..length],
        b" made the system call ",
        digits,
        call.as_bytes(),
        b", which it may not: please report this\n",
    ] {
        // SAFETY: the part is readable for its length.
        unsafe { libc::write(libc::STDERR_FILENO, part.as_ptr().cast(), part.len()) };
    }
    // SAFETY: _exit ends the process; nothing of it runs after.
    unsafe { libc::_exit(EXIT_CODE.into()) }
}

/// `number` in decimal, in the last bytes of `buffer`.
fn decimal(mut number: u32, buffer: &mut [u8; 12]) -> &[u8] {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &buffer[at..];
        }
    }
}

/// The names of those that somebody who wants out would try.
fn name_of(number: libc::c_long) -> &'static str {
    match number {
        libc::SYS_open | libc::SYS_openat | libc::SYS_openat2 => " (open)",
        libc::SYS_socket => " (socket)",
        libc::SYS_connect => " (connect)",
        libc::SYS_execve | libc::SYS_execveat => " (exec)",
        libc::SYS_fork | libc::SYS_vfork | libc::SYS_clone | libc::SYS_clone3 => " (clone)",
        libc::SYS_ptrace => " (ptrace)",
        libc::SYS_kill | libc::SYS_tkill | libc::SYS_tgkill => " (kill)",
        libc::SYS_mmap => " (mmap)",
        libc::SYS_mprotect => " (mprotect)",
        libc::SYS_ioctl => " (ioctl)",
        libc::SYS_process_vm_readv | libc::SYS_process_vm_writev => " (process_vm)",
        libc::SYS_bpf => " (bpf)",
        libc::SYS_unshare | libc::SYS_setns => " (namespaces)",
        libc::SYS_mount => " (mount)",
        libc::SYS_rt_sigaction => " (sigaction)",
        libc::SYS_fcntl => " (fcntl)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal() {
        let mut buffer = [0; 12];
        assert_eq!(decimal(0, &mut buffer), b"0");
        assert_eq!(decimal(4_294_967_295, &mut buffer), b"4294967295");
    }
}
