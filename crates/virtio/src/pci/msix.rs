//! MSI-X (PCI 3.0 §6.8.2): the table of messages, the pending bits, and when a message goes out.

use super::platform::{MsiMessage, MsiVector};

/// Bytes of a table entry: address, data, control.
pub(super) const ENTRY_BYTES: u64 = 16;
/// The vector of those that have none (virtio 1.2 §4.1.5.1.2).
pub(super) const NO_VECTOR: u16 = 0xffff;

/// Entry control: the vector is masked.
const MASKED: u32 = 1;
/// Message control: MSI-X is enabled.
const ENABLED: u16 = 1 << 15;
/// Message control: all vectors are masked.
const ALL_MASKED: u16 = 1 << 14;

struct Vector {
    /// Address low, address high, data, control.
    words: [u32; 4],
    is_pending: bool,
    is_routed: bool,
    source: Box<dyn MsiVector>,
}

impl Vector {
    fn message(&self) -> MsiMessage {
        let [low, high, data, _] = self.words;
        MsiMessage { address: u64::from(high) << 32 | u64::from(low), data }
    }
}

/// The table.
pub(super) struct Msix {
    vectors: Vec<Vector>,
    control: u16,
}

impl Msix {
    /// A table with one entry for each source.
    pub(super) fn new(sources: Vec<Box<dyn MsiVector>>) -> Self {
        let vector = |source| Vector {
            words: [0, 0, 0, MASKED],
            is_pending: false,
            is_routed: false,
            source,
        };
        Self { vectors: sources.into_iter().map(vector).collect(), control: 0 }
    }

    /// Entries.
    pub(super) fn len(&self) -> u16 {
        self.vectors.len() as u16
    }

    /// Whether the driver uses MSI-X.
    pub(super) fn is_enabled(&self) -> bool {
        self.control & ENABLED != 0
    }

    /// The driver has written the capability's message control.
    pub(super) fn set_control(&mut self, control: u16) {
        self.control = control;
        for index in 0..self.vectors.len() {
            self.refresh(index, false);
        }
    }

    /// Sends the message of `vector`, or remembers that it is to be sent.
    pub(super) fn trigger(&mut self, vector: u16) {
        if let Some(vector) = self.vectors.get_mut(usize::from(vector)) {
            if vector.is_routed {
                vector.source.trigger();
            } else {
                vector.is_pending = true;
            }
        }
    }

    /// Reads the table from `offset`.
    pub(super) fn read_table(&self, offset: u64, data: &mut [u8]) {
        for (index, byte) in data.iter_mut().enumerate() {
            let offset = offset + index as u64;
            let vector = self.vectors.get((offset / ENTRY_BYTES) as usize);
            let word = vector.map_or(0, |v| v.words[(offset % ENTRY_BYTES / 4) as usize]);
            *byte = word.to_le_bytes()[(offset % 4) as usize];
        }
    }

    /// Writes the table at `offset`: whole words only (PCI 3.0 §6.8.2).
    pub(super) fn write_table(&mut self, offset: u64, data: &[u8]) {
        if !offset.is_multiple_of(4) {
            return;
        }
        for (index, word) in data.chunks_exact(4).enumerate() {
            let offset = offset + 4 * index as u64;
            let number = (offset / ENTRY_BYTES) as usize;
            let Some(vector) = self.vectors.get_mut(number) else { return };
            let field = (offset % ENTRY_BYTES / 4) as usize;
            let value = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            let is_new = std::mem::replace(&mut vector.words[field], value) != value;
            self.refresh(number, is_new && field != 3);
        }
    }

    /// Reads the pending bits from `offset`.
    pub(super) fn read_pending(&self, offset: u64, data: &mut [u8]) {
        for (index, byte) in data.iter_mut().enumerate() {
            let first = (offset + index as u64).saturating_mul(8) as usize;
            let bit = |n| self.vectors.get(first.saturating_add(n)).is_some_and(|v| v.is_pending);
            *byte = (0..8).fold(0, |bits, n| bits | u8::from(bit(n)) << n);
        }
    }

    /// Routes a vector that has become deliverable, or whose message has changed; takes back the
    /// route of one that isn't deliverable any more.
    fn refresh(&mut self, index: usize, message_changed: bool) {
        let all = self.control & (ENABLED | ALL_MASKED) == ENABLED;
        let Some(vector) = self.vectors.get_mut(index) else { return };
        let deliverable = all && vector.words[3] & MASKED == 0;
        if deliverable && (!vector.is_routed || message_changed) {
            // A route that the host refuses leaves the vector pending, as if masked.
            vector.is_routed = vector.source.route(Some(vector.message())).is_ok();
            if vector.is_routed && std::mem::take(&mut vector.is_pending) {
                vector.source.trigger();
            }
        } else if !deliverable && vector.is_routed {
            vector.is_routed = false;
            // Without a route nothing is triggered, so a refusal changes nothing.
            let _ = vector.source.route(None);
        }
    }
}
