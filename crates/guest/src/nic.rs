//! The virtio-net device as smoltcp's physical layer.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::EthernetAddress;
use virtio_drivers::device::net::VirtIONetRaw;

use crate::hal::GuestHal;
use crate::observe::Observed;
use crate::pci::Pci;
use crate::phys;
use crate::transport::{NET_IDS, PciTransport, TransportError};

/// Descriptors of each queue.
const QUEUE: usize = 32;

/// Largest frame payload that is accepted: jumbo frames as switches have them.
const MAX_MTU: u16 = 9216;
const ETHERNET: usize = 14;
const MTU_WITHOUT_FIELD: u16 = 1500;

/// `virtio_net_hdr_v1` and a frame.
const BUFFER: usize = 10 * 1024;

const VIRTIO_NET_F_MTU: u64 = 1 << 3;
const VIRTIO_NET_F_STATUS: u64 = 1 << 16;
const CONFIG_STATUS: u64 = 6;
const CONFIG_MTU: u64 = 10;
const STATUS_LINK_UP: u16 = 1;

/// The buffers of both queues.
#[repr(C, align(4096))]
struct Buffers(UnsafeCell<[[u8; BUFFER]; 2 * QUEUE]>);

// SAFETY: only the one `Nic` touches them: see `Nic::new`.
unsafe impl Sync for Buffers {}

static BUFFERS: Buffers = Buffers(UnsafeCell::new([[0; BUFFER]; 2 * QUEUE]));
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Why there is no network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NicError {
    /// No virtio-net device on bus 0.
    None,
    /// It lacks a part of virtio's PCI interface.
    Transport(TransportError),
    /// The driver refused it.
    Driver(virtio_drivers::Error),
}

/// A network card.
pub(crate) struct Nic {
    driver: VirtIONetRaw<GuestHal, PciTransport, QUEUE>,
    /// The receive buffer with the device under each token, and the transmit buffer likewise.
    receiving: [u8; QUEUE],
    sending: [u8; QUEUE],
    /// Transmit buffers that are not with the device: a bit each.
    idle: u32,
    /// The receive buffer that smoltcp looks at, or has looked at: it goes back to the device when
    /// the next frame is asked for, because of a frame's two tokens only the sender may hold the
    /// card.
    returning: Option<u8>,
    /// Address of the status field, if the device has one.
    status: Option<u64>,
    /// The device's MTU in bytes.
    pub(crate) mtu: u16,
    /// What went by.
    pub(crate) observed: Observed,
}

impl Nic {
    /// Finds the first virtio-net device and starts it.
    pub(crate) fn new(pci: &mut Pci) -> Result<Self, NicError> {
        if TAKEN.swap(true, Ordering::Relaxed) {
            return Err(NicError::Driver(virtio_drivers::Error::AlreadyUsed));
        }
        let function = pci.find(&NET_IDS).ok_or(NicError::None)?;
        let mut transport =
            PciTransport::new(pci, function, VIRTIO_NET_F_MTU).map_err(NicError::Transport)?;
        let offered = transport.offered();
        let status = (offered & VIRTIO_NET_F_STATUS != 0)
            .then(|| transport.config_address() + CONFIG_STATUS);
        let mtu = match offered & VIRTIO_NET_F_MTU {
            0 => MTU_WITHOUT_FIELD,
            // §5.1.4.1: not below 68.
            _ => transport.config16(CONFIG_MTU).clamp(68, MAX_MTU),
        };
        let driver = VirtIONetRaw::new(transport).map_err(NicError::Driver)?;
        let mac = driver.mac_address();
        let mut nic = Self {
            driver,
            receiving: [0; QUEUE],
            sending: [0; QUEUE],
            idle: u32::MAX,
            returning: None,
            status,
            mtu,
            observed: Observed::new(mac),
        };
        for index in 0..QUEUE as u8 {
            nic.offer(index);
        }
        Ok(nic)
    }

    /// The card's address.
    pub(crate) fn mac(&self) -> EthernetAddress {
        EthernetAddress(self.driver.mac_address())
    }

    /// Whether the link is up. Without a status field it always is (§5.1.4).
    pub(crate) fn link_is_up(&self) -> bool {
        self.status.is_none_or(|at| phys::read_register::<u16>(at) & STATUS_LINK_UP != 0)
    }

    /// Whether a frame waits to be received.
    pub(crate) fn has_frame(&self) -> bool {
        self.driver.poll_receive().is_some()
    }

    /// Gives receive buffer `index` to the device.
    fn offer(&mut self, index: u8) {
        let buffer = buffer(usize::from(index));
        // SAFETY: the buffer is static, and is not touched before `take_frame` has it back.
        match unsafe { self.driver.receive_begin(buffer) } {
            Ok(token) => self.receiving[usize::from(token) % QUEUE] = index,
            // There are as many descriptors as buffers: it can't be full. If it were, the buffer
            // would be lost, and the card go on with the others.
            Err(_) => self.observed.lost_buffers += 1,
        }
    }

    /// Takes the next received frame: its buffer, and the frame's place in it.
    fn take_frame(&mut self) -> Option<(u8, usize, usize)> {
        loop {
            let token = self.driver.poll_receive()?;
            let index = *self.receiving.get(usize::from(token))?;
            // SAFETY: the buffer that was given under this token.
            let taken = unsafe { self.driver.receive_complete(token, buffer(usize::from(index))) };
            match taken {
                Ok((header, length)) if header + length <= BUFFER => {
                    return Some((index, header, length));
                }
                Ok(_) | Err(virtio_drivers::Error::IoError) => self.offer(index),
                Err(_) => return None,
            }
        }
    }

    /// Takes back what the device has sent; then, an idle transmit buffer if there is one.
    fn take_idle(&mut self) -> Option<u8> {
        while let Some(token) = self.driver.poll_transmit() {
            let index = *self.sending.get(usize::from(token))?;
            let bytes = buffer(QUEUE + usize::from(index));
            // SAFETY: the buffer that was given under this token.
            if unsafe { self.driver.transmit_complete(token, bytes) }.is_err() {
                break;
            }
            self.idle |= 1 << index;
        }
        (self.idle != 0).then(|| self.idle.trailing_zeros() as u8)
    }
}

/// Buffer `index`: receive buffers first, then transmit buffers.
fn buffer(index: usize) -> &'static mut [u8] {
    let first = BUFFERS.0.get().cast::<[u8; BUFFER]>();
    // SAFETY: the index is taken modulo the number of buffers. There is one `Nic`, which holds a
    // reference to a buffer only while it works on it and the device doesn't have it.
    unsafe { &mut *first.add(index % (2 * QUEUE)) }
}

impl Device for Nic {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sender<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sender<'_>)> {
        if let Some(index) = self.returning.take() {
            self.offer(index);
        }
        let send_index = self.take_idle()?;
        let (index, start, length) = self.take_frame()?;
        let frame = &buffer(usize::from(index))[start..start + length];
        self.observed.received(frame);
        self.returning = Some(index);
        Some((Received { frame }, Sender { nic: self, index: send_index }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sender<'_>> {
        let index = self.take_idle()?;
        Some(Sender { nic: self, index })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = usize::from(self.mtu) + ETHERNET;
        capabilities
    }
}

/// A received frame.
pub(crate) struct Received<'a> {
    frame: &'a [u8],
}

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.frame)
    }
}

/// Leave to send a frame.
pub(crate) struct Sender<'a> {
    nic: &'a mut Nic,
    index: u8,
}

impl TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let Self { nic, index } = self;
        let bytes = buffer(QUEUE + usize::from(index));
        // A buffer is longer than any header: this cannot fail.
        let header = nic.driver.fill_buffer_header(bytes).unwrap_or(0);
        let end = (header + length).min(BUFFER);
        let result = f(&mut bytes[header..end]);
        nic.observed.sent(&bytes[header..end]);
        // SAFETY: the buffer is static, and is not touched before `take_idle` has it back.
        match unsafe { nic.driver.transmit_begin(&bytes[..end]) } {
            Ok(token) => {
                nic.idle &= !(1 << index);
                nic.sending[usize::from(token) % QUEUE] = index;
            }
            Err(_) => nic.observed.lost_buffers += 1,
        }
        result
    }
}
