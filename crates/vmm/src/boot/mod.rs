//! Booting a kernel without firmware.
//!
//! ```text
//!  disk ↴
//! source → kernel ┬ elf     → data (command line, initrd, memory map) → pvh    start info
//!                 └ bzimage → data                                    → linux  zero page
//! ```

mod bzimage;
pub mod data;
pub mod disk;
mod elf;
pub mod kernel;
mod linux;
mod pvh;
pub mod source;
