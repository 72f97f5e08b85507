//! What a network card counts.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of one card, which its threads add to.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        /// The counters at one moment.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Figures {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// The figures as they are now.
            #[must_use]
            pub fn figures(&self) -> Figures {
                Figures { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }

        impl Figures {
            /// Names and values, in a fixed order.
            #[must_use]
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// Frames given to the guest.
    rx_frames,
    /// Their bytes, headers of the tap not counted.
    rx_bytes,
    /// Frames for which the guest's buffers were too small, or that came while the link was down.
    rx_dropped,
    /// Frames taken from the guest.
    tx_frames,
    /// Their bytes, headers of the tap not counted.
    tx_bytes,
    /// Frames that the tap refused, or that were sent while the link was down.
    tx_dropped,
    /// Kicks by the guest, of both queues.
    kicks,
    /// Interrupts that the guest wanted, of both queues.
    interrupts,
    /// Queues stopped because of what the guest did.
    malformed,
}

/// Adds `count` to a counter.
pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
