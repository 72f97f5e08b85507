//! Getting a kernel going: the file into guest memory, and what the PVH boot protocol wants told.
//!
//! [`kernel`] loads the ELF and finds its PVH entry; [`pvh`] writes the start info, the memory
//! map, the command line and the initrd, and says in which state the first vCPU begins.

pub mod kernel;
pub mod pvh;
