//! The system calls of each role. What is not listed is refused; some are allowed with certain
//! arguments only.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use vnet_virtio::worker;

use super::Role;

/// Allowed with any arguments.
type Any = &'static [libc::c_long];

/// What every thread needs: its memory, its locks, its clock, its end.
const ALL: Any = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_wait,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    // Keys of hash tables.
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_read,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Frames to and from a tap.
const NET: Any = &[libc::SYS_readv];

/// Blocks to and from images.
const BLOCK: Any = &[
    libc::SYS_fallocate,
    libc::SYS_fdatasync,
    libc::SYS_fstat,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_io_uring_enter,
    libc::SYS_lseek,
    libc::SYS_newfstatat,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_statx,
];

/// Signals, timers, netd's socket.
const MONITOR: Any = &[
    libc::SYS_connect,
    libc::SYS_fstat,
    libc::SYS_getsockopt,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_setsockopt,
    libc::SYS_timerfd_settime,
];

/// linux/kvm.h
const KVM_RUN: u64 = 0xae80;
const KVM_GET_REGS: u64 = 0x8090_ae81;
const KVM_GET_SREGS: u64 = 0x8138_ae83;
const KVM_IRQ_LINE: u64 = 0x4008_ae61;
const KVM_SET_GSI_ROUTING: u64 = 0x4008_ae6a;
const KVM_IRQFD: u64 = 0x4020_ae76;
const KVM_IOEVENTFD: u64 = 0x4040_ae79;
/// linux/if_tun.h
const TUNSETOFFLOAD: u64 = 0x4004_54d0;
const TUNSETQUEUE: u64 = 0x4004_54d9;

/// What setting up and resetting devices needs, of vCPUs and of the monitor at the end.
const DEVICES: &[u64] =
    &[KVM_SET_GSI_ROUTING, KVM_IRQFD, KVM_IOEVENTFD, KVM_IRQ_LINE, TUNSETOFFLOAD, TUNSETQUEUE];
const REGISTERS: &[u64] = &[KVM_RUN, KVM_GET_REGS, KVM_GET_SREGS];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The filter of `role`.
pub(super) fn filter(role: Role) -> Result<BpfProgram, seccompiler::Error> {
    let mut rules = Rules::new();
    allow(&mut rules, ALL);
    only_plain_memory(&mut rules)?;
    // A panic ends with a signal to this very process.
    let us = u64::from(std::process::id());
    when(&mut rules, libc::SYS_tgkill, SeccompCmpOp::Eq, 0, us)?;
    // Builds with assertions look whether a descriptor is open before they close it.
    when(&mut rules, libc::SYS_fcntl, SeccompCmpOp::Eq, 1, libc::F_GETFD as u64)?;
    // For the line that says who was refused.
    when(&mut rules, libc::SYS_prctl, SeccompCmpOp::Eq, 0, libc::PR_GET_NAME as u64)?;
    match role {
        Role::Device(worker::Role::Net) => {
            allow(&mut rules, NET);
            ioctls(&mut rules, &[TUNSETQUEUE])?;
        }
        Role::Device(worker::Role::Block) => allow(&mut rules, BLOCK),
        Role::Device(worker::Role::Console | worker::Role::Rng) => {}
        Role::Vcpu => {
            ioctls(&mut rules, REGISTERS)?;
            ioctls(&mut rules, DEVICES)?;
            duplicates(&mut rules)?;
        }
        Role::Monitor => {
            allow(&mut rules, MONITOR);
            ioctls(&mut rules, DEVICES)?;
            duplicates(&mut rules)?;
            when(&mut rules, libc::SYS_socket, SeccompCmpOp::Eq, 0, libc::AF_UNIX as u64)?;
        }
    }
    let filter =
        SeccompFilter::new(rules, SeccompAction::Trap, SeccompAction::Allow, TargetArch::x86_64)?;
    Ok(filter.try_into()?)
}

fn allow(rules: &mut Rules, calls: Any) {
    for call in calls {
        rules.insert(*call, Vec::new());
    }
}

/// Allows `call` where its argument number `argument` compares so with `value`.
fn when(
    rules: &mut Rules,
    call: libc::c_long,
    operator: SeccompCmpOp,
    argument: u8,
    value: u64,
) -> Result<(), seccompiler::Error> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
    rules.entry(call).or_default().push(SeccompRule::new(vec![condition])?);
    Ok(())
}

/// No memory that can be executed, and none of files.
fn only_plain_memory(rules: &mut Rules) -> Result<(), seccompiler::Error> {
    let executable = SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64);
    when(rules, libc::SYS_mprotect, executable.clone(), 2, 0)?;
    let anonymous = libc::MAP_ANONYMOUS as u64;
    let conditions = vec![
        SeccompCondition::new(2, SeccompCmpArgLen::Dword, executable, 0)?,
        SeccompCondition::new(
            3,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::MaskedEq(anonymous),
            anonymous,
        )?,
    ];
    rules.entry(libc::SYS_mmap).or_default().push(SeccompRule::new(conditions)?);
    Ok(())
}

fn ioctls(rules: &mut Rules, requests: &[u64]) -> Result<(), seccompiler::Error> {
    requests
        .iter()
        .try_for_each(|request| when(rules, libc::SYS_ioctl, SeccompCmpOp::Eq, 1, *request))
}

/// Descriptors may be duplicated, and nothing else done to them.
fn duplicates(rules: &mut Rules) -> Result<(), seccompiler::Error> {
    let command = libc::F_DUPFD_CLOEXEC as u64;
    when(rules, libc::SYS_fcntl, SeccompCmpOp::Eq, 1, command)
}
