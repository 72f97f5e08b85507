//! Putting a machine together.
//!
//! The order matters: KVM's interrupt controllers exist before vCPUs do, memory before what is
//! written to it; and whatever the host has to give (KVM, files, taps) is opened before the jail
//! closes, which is before the first thread starts.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use kvm_bindings::{
    KVM_MAX_CPUID_ENTRIES, KVM_PIT_SPEAKER_DUMMY, kvm_pit_config, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, Kvm, VmFd};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;
use vnet_types::{DomainName, MacAddr};
use vnet_virtio::GuestMemory;
use vnet_virtio::blk::device::BlkConfig;
use vnet_virtio::blk::disk::Disk;
use vnet_virtio::blk::{self, BlkDevice};
use vnet_virtio::console::{ConsoleDevice, ConsoleInput};
use vnet_virtio::device::VirtioDevice;
use vnet_virtio::net::Counters;
use vnet_virtio::pci::{BAR_SIZE, Function, Parts, Platform, VirtioPci};
use vnet_virtio::rng::RngDevice;
use vnet_virtio::wake::Wake;
use vnet_virtio::worker::Threads;

use crate::acpi::{self, AcpiError};
use crate::boot;
use crate::boot::data::{self, BootData, BootError};
use crate::boot::disk::{DiskBootError, Found};
use crate::boot::kernel::{self, Kernel, KernelError};
use crate::boot::source::Source;
use crate::devices::Board;
use crate::devices::pci_root::{PciRoot, SLOTS};
use crate::devices::serial::SerialPort;
use crate::disk::{self, DiskConfig, DiskError};
use crate::irq::KvmPlatform;
use crate::jail::{self, JailError};
use crate::layout;
use crate::memory::{self, MemoryError};
use crate::net::backend::{self, Attached, NetError, Nic, NicConfig, Owner};
use crate::net::session::Session;
use crate::outcome::Ending;
use crate::vcpu::run::{Shared, Vcpu};
use crate::vcpu::setup::{self, SetupError};

/// Most processors: local APIC ids have 8 bits without x2APIC, and 255 is everyone.
pub const MOST_CPUS: u8 = 254;

/// Most network cards and disks: each has a slot, as have the bridge, the console and the rng.
const MOST_CARDS_AND_DISKS: usize = SLOTS - 3;

/// What a machine is to be like.
#[derive(Debug)]
pub struct Config {
    /// The kernel; what the first disk's boot loader would start, if None.
    pub kernel: Option<PathBuf>,
    /// Its initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Its command line; what is added to it, if it is the disk's.
    pub command_line: String,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Processors.
    pub cpus: u8,
    /// Where the serial port's output goes; nowhere if None.
    pub serial: Option<File>,
    /// The domain's name.
    pub domain: DomainName,
    /// Where netd's paths begin.
    pub root: PathBuf,
    /// Network cards.
    pub nics: Vec<NicConfig>,
    /// Disks.
    pub disks: Vec<DiskConfig>,
    /// Where the output of a virtio console goes, if there is to be one.
    pub console: Option<File>,
    /// Whether there is a source of entropy.
    pub has_rng: bool,
    /// Whether the process is confined before the guest runs.
    pub jail: Jail,
}

/// Whether a process is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jail {
    /// As [`crate::jail`] says.
    Closed,
    /// Not at all: for debuggers.
    Open,
}

/// A machine that is ready to run.
#[derive(Debug)]
pub struct Machine {
    /// What its threads share.
    pub shared: Arc<Shared>,
    /// Its processors.
    pub vcpus: Vec<Vcpu>,
    /// KVM's descriptor, which has to outlive the machine.
    pub fd: Arc<VmFd>,
    /// Connections to netd, one for each card on one of its networks.
    pub sessions: Vec<Session>,
    /// Address and counters of each card.
    pub nics: Vec<(MacAddr, Arc<Counters>)>,
    /// Image and counters of each disk.
    pub disks: Vec<(PathBuf, Arc<blk::Counters>)>,
    /// Where to type for the virtio console, if there is one.
    pub console: Option<Arc<ConsoleInput>>,
}

/// Why there is no machine.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// There is no `/dev/kvm`.
    #[error(
        "/dev/kvm is missing: switch on virtualisation in the firmware, and load kvm_intel or kvm_amd"
    )]
    NoKvm,
    /// `/dev/kvm` may not be used.
    #[error("no permission for /dev/kvm: join the group kvm, or run as root")]
    KvmPermission,
    /// `/dev/kvm` does not work.
    #[error("cannot open /dev/kvm")]
    KvmOpen(#[source] kvm_ioctls::Error),
    /// KVM is too old.
    #[error("this kernel's KVM lacks {0}: use Linux 4.14 or later")]
    Lacks(&'static str),
    /// KVM refused something.
    #[error("KVM cannot {what}")]
    Kvm {
        /// What it was asked for.
        what: &'static str,
        /// Its answer.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// The number of processors makes no sense.
    #[error("a machine has 1 to {most} CPUs here, not {asked}")]
    Cpus {
        /// What was asked for.
        asked: u8,
        /// What is possible.
        most: u8,
    },
    /// A descriptor cannot be made.
    #[error("cannot make an event descriptor")]
    Event(#[from] io::Error),
    /// No memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// No kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// No boot data.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// No ACPI tables.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// No processor.
    #[error(transparent)]
    Vcpu(#[from] SetupError),
    /// No network card.
    #[error(transparent)]
    Net(#[from] NetError),
    /// No disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The disk cannot be booted.
    #[error(transparent)]
    DiskBoot(#[from] DiskBootError),
    /// There is neither a kernel nor a disk.
    #[error("there is nothing to boot: give --kernel or --disk")]
    NothingToBoot,
    /// No jail.
    #[error(transparent)]
    Jail(#[from] JailError),
    /// There are more devices than places for them.
    #[error("a machine has {MOST_CARDS_AND_DISKS} network cards and disks at most")]
    TooMany,
}

fn kvm_error(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> VmError {
    move |source| VmError::Kvm { what, source }
}

/// Opens `/dev/kvm` and sees to it that everything that a machine needs is there.
fn open_kvm() -> Result<Kvm, VmError> {
    let kvm = Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENXIO | libc::ENODEV => VmError::NoKvm,
        libc::EACCES | libc::EPERM => VmError::KvmPermission,
        _ => VmError::KvmOpen(error),
    })?;
    for (cap, name) in [
        (Cap::UserMemory, "user memory"),
        (Cap::Irqchip, "interrupt controllers"),
        (Cap::Irqfd, "irqfd"),
        (Cap::Ioeventfd, "ioeventfd"),
        (Cap::SignalMsi, "message-signalled interrupts"),
        (Cap::ImmediateExit, "immediate exits"),
    ] {
        if !kvm.check_extension(cap) {
            return Err(VmError::Lacks(name));
        }
    }
    Ok(kvm)
}

/// The kernel that was asked for, or that the first disk would boot.
fn find_kernel(config: &Config, images: &[Arc<dyn Disk>]) -> Result<Found, VmError> {
    let initrds: Vec<Source> =
        config.initrd.iter().map(|path| open_initrd(path)).collect::<Result<_, _>>()?;
    let command_line = config.command_line.clone();
    if let Some(kernel) = &config.kernel {
        return Ok(Found { kernel: open_kernel(kernel)?, initrds, command_line });
    }
    let (Some(image), Some(disk)) = (images.first(), config.disks.first()) else {
        return Err(VmError::NothingToBoot);
    };
    let mut found = boot::disk::find(image, &disk.path)?;
    if !command_line.is_empty() {
        found.command_line = format!("{} {command_line}", found.command_line);
    }
    if !initrds.is_empty() {
        found.initrds = initrds;
    }
    Ok(found)
}

fn open_kernel(path: &Path) -> Result<Source, KernelError> {
    Source::open(path).map_err(|source| KernelError::Open { path: path.to_owned(), source })
}

fn open_initrd(path: &Path) -> Result<Source, BootError> {
    Source::open(path).map_err(|source| BootError::Initrd { path: path.to_owned(), source })
}

/// A machine as `config` says.
///
/// # Errors
/// See [`VmError`]. Nothing is left behind.
pub fn build(mut config: Config) -> Result<Machine, VmError> {
    let kvm = open_kvm()?;
    let most = u8::try_from(kvm.get_max_vcpus()).unwrap_or(MOST_CPUS).min(MOST_CPUS);
    if !(1..=most).contains(&config.cpus) {
        return Err(VmError::Cpus { asked: config.cpus, most });
    }
    let memory = memory::reserve(config.memory_mib)?;
    let images: Vec<Arc<dyn Disk>> =
        config.disks.iter().map(disk::open).collect::<Result<_, _>>()?;
    let found = find_kernel(&config, &images)?;
    let kernel = kernel::load(&found.kernel, &memory)?;
    let rsdp = acpi::write(&memory, config.cpus)?;
    let (command_line, initrds) = (&*found.command_line, &*found.initrds);
    data::write(&memory, &BootData { kernel, command_line, initrds, rsdp })?;

    let fd = Arc::new(create_vm(&kvm, &memory)?);
    let line = EventFd::new(libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)?;
    fd.register_irqfd(&line, layout::SERIAL_IRQ).map_err(kvm_error("take serial interrupts"))?;
    let serial = SerialPort::new(line, config.serial.take());
    let vcpus = make_vcpus(&kvm, &fd, &kernel, config.cpus)?;
    let opened = Opened { taps: attach_nics(&config)?, disks: images };
    // Everything is open: from here on, the process needs nothing else of the host.
    let threads = match config.jail {
        Jail::Closed => {
            jail::enter()?;
            Threads::new(Arc::new(|role| jail::confine_or_end(jail::Role::Device(role))))
        }
        Jail::Open => Threads::default(),
    };
    let wake = Arc::new(Wake::default());
    let Devices { all, sessions, nics, disks, console } =
        make_devices(&mut config, opened, &threads)?;
    let platform: Arc<dyn Platform> = Arc::new(KvmPlatform::new(Arc::clone(&fd)));
    let functions = place(all, &memory, &platform, &wake)?;
    let its_fd = Arc::clone(&fd);
    let sci = Box::new(move |up| {
        // A refusal loses a press of the power button; it can be pressed again.
        let _ = its_fd.set_irq_line(layout::SCI_IRQ.into(), up);
    });
    let board = Board::new(serial, PciRoot::new(functions), sci);
    let ending = Ending::new()?;
    let shared =
        Arc::new(Shared { board, wake, ending, jail: config.jail, stop: AtomicBool::new(false) });
    Ok(Machine { shared, vcpus, fd, sessions, nics, disks, console })
}

fn make_vcpus(kvm: &Kvm, fd: &VmFd, kernel: &Kernel, cpus: u8) -> Result<Vec<Vcpu>, VmError> {
    let supported = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(kvm_error("say what it supports"))?;
    let mut vcpus = Vec::new();
    for number in 0..cpus {
        let vcpu = fd.create_vcpu(number.into()).map_err(kvm_error("make a vCPU"))?;
        setup::common(&supported, &vcpu, number, cpus)?;
        if number == 0 {
            setup::first(&vcpu, kernel)?;
        }
        vcpus.push(Vcpu { fd: vcpu, number });
    }
    Ok(vcpus)
}

/// What devices need of the host.
struct Opened {
    taps: Vec<Attached>,
    disks: Vec<Arc<dyn Disk>>,
}

/// The devices, in their order on the bus, and what others need of them.
struct Devices {
    all: Vec<Box<dyn VirtioDevice>>,
    sessions: Vec<Session>,
    nics: Vec<(MacAddr, Arc<Counters>)>,
    disks: Vec<(PathBuf, Arc<blk::Counters>)>,
    console: Option<Arc<ConsoleInput>>,
}

fn make_devices(
    config: &mut Config,
    opened: Opened,
    threads: &Threads,
) -> Result<Devices, VmError> {
    let mut all: Vec<Box<dyn VirtioDevice>> = Vec::new();
    let (mut sessions, mut nics, mut disks) = (Vec::new(), Vec::new(), Vec::new());
    for tap in opened.taps {
        let Nic { device, mac, counters, session } = backend::make(tap, threads)?;
        sessions.extend(session);
        nics.push((mac, counters));
        all.push(Box::new(device));
    }
    for ((disk, image), number) in config.disks.iter().zip(opened.disks).zip(0_usize..) {
        let device = BlkDevice::new(BlkConfig {
            disk: image,
            name: disk.path.display().to_string(),
            serial: disk.serial.clone().unwrap_or_else(|| format!("vnet-disk-{number}")),
            queues: disk.queues.unwrap_or(u16::from(config.cpus).min(USUAL_QUEUES)),
            limits: disk.limits,
            threads: threads.clone(),
        })?;
        disks.push((disk.path.clone(), device.counters()));
        all.push(Box::new(device));
    }
    let mut console = None;
    if let Some(output) = config.console.take() {
        let device = ConsoleDevice::new(output, threads)?;
        console = Some(device.input());
        all.push(Box::new(device));
    }
    if config.has_rng {
        all.push(Box::new(RngDevice::new(threads)?));
    }
    Ok(Devices { all, sessions, nics, disks, console })
}

/// Gets a tap for each card.
fn attach_nics(config: &Config) -> Result<Vec<Attached>, VmError> {
    if config.nics.len() + config.disks.len() > MOST_CARDS_AND_DISKS {
        return Err(VmError::TooMany);
    }
    let numbered = config.nics.iter().zip(0..);
    let queues = u16::from(config.cpus).min(USUAL_QUEUES);
    let owner = Owner { domain: &config.domain, root: &config.root, queues };
    let attach = |(nic, number)| backend::attach(nic, number, owner);
    Ok(numbered.map(attach).collect::<Result<_, _>>()?)
}

/// Most queues that a disk, and pairs of them that a card, gets without being asked.
const USUAL_QUEUES: u16 = 4;

/// Puts each device on the PCI bus, its BAR behind the one before.
fn place(
    devices: Vec<Box<dyn VirtioDevice>>,
    memory: &GuestMemory,
    platform: &Arc<dyn Platform>,
    wake: &Arc<Wake>,
) -> io::Result<Vec<Box<dyn Function>>> {
    let bars = (layout::PCI_WINDOW as u32..).step_by(BAR_SIZE as usize);
    let place = |(device, bar): (Box<dyn VirtioDevice>, u32)| {
        let parts = Parts {
            device,
            memory: memory.clone(),
            platform: Arc::clone(platform),
            wake: Arc::clone(wake),
            bar,
        };
        Ok(Box::new(VirtioPci::new(parts)?) as Box<dyn Function>)
    };
    devices.into_iter().zip(bars).map(place).collect()
}

/// A virtual machine with its memory and KVM's own PIC, I/O APIC, local APICs and PIT. Memory
/// comes first: once there are interrupt controllers, each slot costs 4 ms of waiting in the
/// kernel.
fn create_vm(kvm: &Kvm, memory: &GuestMemory) -> Result<VmFd, VmError> {
    let fd = kvm.create_vm().map_err(kvm_error("make a virtual machine"))?;
    for (slot, region) in memory.iter().enumerate() {
        let slot = kvm_userspace_memory_region {
            slot: slot as u32,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the region is a mapping of this size that stays until the process ends.
        unsafe { fd.set_user_memory_region(slot) }.map_err(kvm_error("take guest memory"))?;
    }
    fd.set_identity_map_address(layout::KVM_IDENTITY_MAP)
        .map_err(kvm_error("place its identity map"))?;
    fd.set_tss_address(layout::KVM_TSS).map_err(kvm_error("place its TSS"))?;
    fd.create_irq_chip().map_err(kvm_error("make interrupt controllers"))?;
    let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
    fd.create_pit2(pit).map_err(kvm_error("make an interval timer"))?;
    Ok(fd)
}
