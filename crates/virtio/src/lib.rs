//! virtio devices and their PCI transport.
