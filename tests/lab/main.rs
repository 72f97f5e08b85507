//! Stock kernels as guests on a real KVM. `scripts/lab` runs these in its outer machine; they
//! have no place elsewhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod boot;
mod disk;
mod machine;
mod network;
