//! The disk as its driver sees it: features and configuration; and its queues' threads.

use std::io;
use std::sync::Arc;

use super::disk::Disk;
use super::engine::Engine;
use super::queue::{self, Job, Shared};
use super::request::{MOST_RANGES, SERIAL};
use super::{Counters, SECTOR, feature};
use crate::device::{ActivateError, Activation, Kind, VirtioDevice};
use crate::limit::{Limiter, Limits};
use crate::worker::{Role, Threads, Worker};

/// Descriptors of each queue, at most.
const QUEUE_SIZE: u16 = 256;
/// Most queues of a disk.
pub const MOST_QUEUES: u16 = 16;
/// Bytes of the configuration up to `write_zeroes_may_unmap` (virtio 1.2 §5.2.4).
const CONFIG_BYTES: usize = 60;
/// Bytes of a physical block, a power of 2: what hosts' file systems and disks work in.
const PHYSICAL_BLOCK: u64 = 4096;
/// Sectors that one range to discard or to zero may have: 1 GiB.
const MOST_SECTORS: u32 = 1 << 21;

/// What a disk is to be like.
pub struct BlkConfig {
    /// Its content.
    pub disk: Arc<dyn Disk>,
    /// What the host's messages call it.
    pub name: String,
    /// What the guest knows it by; 20 bytes count.
    pub serial: String,
    /// Queues, 1 to [`MOST_QUEUES`].
    pub queues: u16,
    /// What it may do in a second.
    pub limits: Limits,
    /// How its threads begin.
    pub threads: Threads,
}

/// A disk.
pub struct BlkDevice {
    shared: Arc<Shared>,
    sizes: Vec<u16>,
    workers: Vec<Worker<Job>>,
}

impl BlkDevice {
    /// A disk as `config` says, with its threads.
    ///
    /// # Errors
    /// The host has no threads or descriptors left.
    pub fn new(config: BlkConfig) -> io::Result<Self> {
        let BlkConfig { disk, name, serial, queues, limits, threads } = config;
        let count = queues.clamp(1, MOST_QUEUES);
        let mut id = [0; SERIAL];
        for (to, from) in id.iter_mut().zip(serial.bytes()) {
            *to = from;
        }
        let worker = |number: u16| {
            let mut engine = Engine::new(Arc::clone(&disk));
            Worker::spawn(&format!("blk{number}"), Role::Block, &threads, move |job, stop| {
                queue::run(job, stop, &mut engine);
            })
        };
        let workers = (0..count).map(worker).collect::<io::Result<_>>()?;
        let shared = Shared {
            disk,
            name,
            serial: id,
            limiter: Limiter::new(&limits),
            counters: Arc::default(),
            has_complained: false.into(),
        };
        Ok(Self { shared: Arc::new(shared), sizes: vec![QUEUE_SIZE; count.into()], workers })
    }

    /// What is counted.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.shared.counters)
    }

    /// virtio 1.2 §5.2.4.
    fn config(&self) -> [u8; CONFIG_BYTES] {
        let mut config = [0; CONFIG_BYTES];
        let mut put = |at: usize, value: &[u8]| config[at..at + value.len()].copy_from_slice(value);
        put(0, &(self.shared.disk.bytes() / SECTOR).to_le_bytes());
        // seg_max: a request has two parts beside its data.
        put(12, &u32::from(QUEUE_SIZE - 2).to_le_bytes());
        put(20, &(SECTOR as u32).to_le_bytes());
        // topology: a physical block is so many logical ones, as a power of 2; the best size.
        put(24, &[(PHYSICAL_BLOCK / SECTOR).trailing_zeros() as u8]);
        put(26, &1_u16.to_le_bytes());
        put(34, &(self.sizes.len() as u16).to_le_bytes());
        let ranges = (MOST_RANGES as u32).to_le_bytes();
        put(36, &MOST_SECTORS.to_le_bytes());
        put(40, &ranges);
        put(44, &((PHYSICAL_BLOCK / SECTOR) as u32).to_le_bytes());
        put(48, &MOST_SECTORS.to_le_bytes());
        put(52, &ranges);
        put(56, &[1]);
        config
    }
}

impl VirtioDevice for BlkDevice {
    fn kind(&self) -> Kind {
        Kind::Block
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.sizes
    }

    fn features(&self) -> u64 {
        let always =
            feature::SEG_MAX | feature::BLK_SIZE | feature::FLUSH | feature::TOPOLOGY | feature::MQ;
        if self.shared.disk.is_read_only() {
            always | feature::RO
        } else {
            always | feature::DISCARD | feature::WRITE_ZEROES
        }
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        data.fill(0);
        for (to, from) in data.iter_mut().zip(self.config().iter().skip(offset)) {
            *to = *from;
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        self.reset();
        let Activation { queues, features, interrupt, memory: _ } = activation;
        if queues.first().is_none_or(|queue| queue.index != 0) {
            return Err(ActivateError::MissingQueue(0));
        }
        for queue in queues {
            let job = Job {
                is_write_through: features & feature::FLUSH == 0,
                shared: Arc::clone(&self.shared),
                interrupt: Arc::clone(&interrupt),
                queue,
            };
            if let Some(worker) = self.workers.get_mut(usize::from(job.queue.index)) {
                worker.start(job);
            }
        }
        Ok(())
    }

    fn reset(&mut self) {
        for worker in &mut self.workers {
            worker.stop();
        }
    }
}
