//! The card as its driver sees it: features and configuration; and the start and end of its
//! workers.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use vnet_tap::Offloads;
use vnet_types::MacAddr;

use super::control::ControlQueue;
use super::counters::Counters;
use super::feature;
use super::link::Link;
use super::queues::TapQueues;
use super::rx::RxMode;
use super::worker::{self, Job};
use crate::device::{ActivateError, Activation, ActiveQueue, Kind, VirtioDevice};
use crate::limit::{Limiter, Limits};
use crate::worker::{Role, Threads, Worker};

/// Descriptors of each queue, at most.
const QUEUE_SIZE: u16 = 256;
/// Most pairs of queues: what one PCI function has vectors and notification addresses for.
pub const MOST_PAIRS: usize = 16;
/// Descriptors of the control queue, at most.
const CONTROL_SIZE: u16 = 64;
/// Bytes of the configuration up to and with the MTU (virtio 1.2 §5.1.4).
const CONFIG_BYTES: usize = 12;

const FEATURES: u64 = feature::CSUM
    | feature::GUEST_CSUM
    | feature::MTU
    | feature::MAC
    | feature::GUEST_TSO4
    | feature::GUEST_TSO6
    | feature::GUEST_ECN
    | feature::HOST_TSO4
    | feature::HOST_TSO6
    | feature::HOST_ECN
    | feature::MRG_RXBUF
    | feature::STATUS
    | feature::CTRL_VQ
    | feature::CTRL_RX
    | feature::GUEST_ANNOUNCE;

/// What a card is to be like.
pub struct NetConfig {
    /// Its address.
    pub mac: MacAddr,
    /// The queues of its tap, at least one; one for each pair of its own queues.
    pub taps: Vec<OwnedFd>,
    /// Bytes of the largest packets of its network.
    pub mtu: u16,
    /// Whether the cable is plugged in.
    pub is_up: bool,
    /// What it may send, and receive, in a second.
    pub limits: Limits,
    /// How its threads begin.
    pub threads: Threads,
}

/// A network card.
pub struct NetDevice {
    mac: MacAddr,
    /// The MTU that the present driver sees.
    mtu: u16,
    taps: Arc<TapQueues>,
    features: u64,
    sizes: Vec<u16>,
    link: Arc<Link>,
    counters: Arc<Counters>,
    /// What it sends and what it receives.
    limiters: [Option<Arc<Limiter>>; 2],
    workers: Vec<Worker<Job>>,
}

impl NetDevice {
    /// A card as `config` says, with its threads.
    ///
    /// # Errors
    /// The host has no threads or descriptors left.
    pub fn new(config: NetConfig) -> io::Result<Self> {
        let NetConfig { mac, mut taps, mtu, is_up, limits, threads } = config;
        taps.truncate(MOST_PAIRS);
        let pairs = taps.len();
        let worker = |number| {
            Worker::spawn(&format!("net{number}"), Role::Net, &threads, |job: Job, stop| {
                worker::run(job, stop);
            })
        };
        let workers = (0..pairs).map(worker).collect::<io::Result<_>>()?;
        let mut sizes = vec![QUEUE_SIZE; 2 * pairs];
        sizes.push(CONTROL_SIZE);
        let taps = TapQueues::new(taps);
        let mut features = FEATURES;
        if pairs > 1 {
            features |= feature::MQ;
        }
        if taps.knows_udp_segmentation() {
            features |= feature::GUEST_USO4 | feature::GUEST_USO6 | feature::HOST_USO;
        }
        let limiter = || Limiter::new(&limits).map(Arc::new);
        Ok(Self {
            mac,
            mtu,
            taps: Arc::new(taps),
            features,
            sizes,
            link: Arc::new(Link::new(mtu, is_up)),
            counters: Arc::default(),
            limiters: [limiter(), limiter()],
            workers,
        })
    }

    /// The cable.
    #[must_use]
    pub fn link(&self) -> Arc<Link> {
        Arc::clone(&self.link)
    }

    /// What is counted.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    fn start(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let Activation { queues, features, interrupt, memory: _ } = activation;
        let has = |bits| features & bits != 0;
        // virtio 1.2 §5.1.2: the control queue comes behind all pairs, of which there is one
        // without multiqueue.
        let pairs = if has(feature::MQ) { self.workers.len() } else { 1 };
        let control_index = 2 * pairs as u16;
        self.taps.set_offloads(offloads(features))?;
        self.taps.use_pairs(1);
        let mut queues: BTreeMap<u16, ActiveQueue> =
            queues.into_iter().map(|queue| (queue.index, queue)).collect();
        let mut control =
            queues.remove(&control_index).filter(|_| has(feature::CTRL_VQ)).map(|queue| {
                ControlQueue::new(queue, Arc::clone(&self.link), Arc::clone(&self.taps), pairs)
            });
        let has_large_frames = has(feature::GUEST_TSO4 | feature::GUEST_TSO6)
            || has(feature::GUEST_USO4 | feature::GUEST_USO6);
        for (number, worker) in self.workers.iter_mut().enumerate().take(pairs) {
            let rx_index = 2 * number as u16;
            let (Some(rx), Some(tx)) = (queues.remove(&rx_index), queues.remove(&(rx_index + 1)))
            else {
                // The first pair is what a driver cannot do without (virtio 1.2 §5.1.5).
                if number == 0 {
                    return Err(ActivateError::MissingQueue(0));
                }
                break;
            };
            worker.start(Job {
                rx,
                tx,
                control: control.take(),
                mode: RxMode::new(has(feature::MRG_RXBUF), has_large_frames, self.mtu),
                taps: Arc::clone(&self.taps),
                pair: number,
                link: Arc::clone(&self.link),
                counters: Arc::clone(&self.counters),
                limiters: self.limiters.clone(),
                interrupt: Arc::clone(&interrupt),
            });
        }
        self.link.set_can_announce(has(feature::CTRL_VQ) && has(feature::GUEST_ANNOUNCE));
        self.link.set_driver(Some(interrupt));
        Ok(())
    }
}

/// What the driver has accepted is left to it (virtio 1.2 §5.1.3.1).
fn offloads(features: u64) -> Offloads {
    let has = |bit| features & bit != 0;
    let csum = has(feature::GUEST_CSUM);
    Offloads {
        csum,
        tso4: csum && has(feature::GUEST_TSO4),
        tso6: csum && has(feature::GUEST_TSO6),
        ecn: csum && has(feature::GUEST_ECN),
        uso: csum && has(feature::GUEST_USO4) && has(feature::GUEST_USO6),
    }
}

impl VirtioDevice for NetDevice {
    fn kind(&self) -> Kind {
        Kind::Net
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.sizes
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        // virtio 1.2 §5.1.4: mac, status, max_virtqueue_pairs (only with MQ), mtu.
        let mut config = [0; CONFIG_BYTES];
        config[..6].copy_from_slice(&self.mac.octets());
        config[6..8].copy_from_slice(&self.link.show().to_le_bytes());
        if self.workers.len() > 1 {
            config[8..10].copy_from_slice(&(self.workers.len() as u16).to_le_bytes());
        }
        config[10..12].copy_from_slice(&self.mtu.to_le_bytes());
        data.fill(0);
        for (to, from) in data.iter_mut().zip(config.iter().skip(offset)) {
            *to = *from;
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        self.reset();
        self.start(activation)
    }

    fn reset(&mut self) {
        self.link.set_driver(None);
        self.link.set_can_announce(false);
        self.link.announced();
        self.mtu = self.link.next_mtu();
        for worker in &mut self.workers {
            worker.stop();
        }
    }
}

#[cfg(test)]
mod tests;
