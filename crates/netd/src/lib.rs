//! The network daemon.
