//! The virtual machine monitor: one process, one guest.
