//! Virtual processors.
//!
//! [`setup`] puts one into the state in which it begins; [`run`] is the loop of its thread:
//!
//! ```text
//! KVM_RUN → port or memory access → devices → KVM_RUN
//!         → wait register         → sleep until a device calls, or the time is up
//!         → the guest's end       → outcome to the monitor, thread ends
//!         → kick (a signal)       → thread ends if the machine stops
//! ```

pub mod kick;
pub mod pio;
pub mod run;
pub mod setup;
