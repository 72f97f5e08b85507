//! Desired and observed state, their difference as typed operations, the firewall rules: pure.
