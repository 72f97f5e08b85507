//! Kernels of a few bytes, and running the VMM on them.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as loudly as the test")]
#![allow(dead_code, reason = "not every test uses every helper")]

use std::io::Write;
use std::process::{Command, Output};

use tempfile::{NamedTempFile, TempPath};

/// Where the code of [`kernel`] is loaded.
pub(crate) const LOAD: u64 = 0x10_0000;

/// An ELF file with a PVH note whose 32-bit entry point is the first byte of `code`.
pub(crate) fn elf(code: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for word in [4_u32, 4, 18] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"Xen\0");
    note.extend((LOAD as u32).to_le_bytes());
    let headers = 64 + 2 * 56;
    let mut file = Vec::new();
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [LOAD, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 2, 0, 64, 0, 0, 0, 0, 0]);
    let mut segment = |kind: u32, offset: usize, bytes: usize, address: u64| {
        file.extend(kind.to_le_bytes());
        file.extend(7_u32.to_le_bytes());
        for word in [offset as u64, address, address, bytes as u64, bytes as u64, 4] {
            file.extend(word.to_le_bytes());
        }
    };
    segment(4, headers, note.len(), 0);
    segment(1, headers + note.len(), code.len(), LOAD);
    file.extend(&note);
    file.extend(code);
    file
}

/// `bytes` in a file that goes away with the result.
pub(crate) fn file(bytes: &[u8]) -> TempPath {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file.into_temp_path()
}

/// The VMM, to be given arguments.
pub(crate) fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_vnet-vmm"))
}

/// Runs the VMM with `arguments`.
pub(crate) fn vmm(arguments: &[&str]) -> Output {
    command().args(arguments).output().unwrap()
}

/// Runs the VMM on a kernel of `code`, with `more` arguments.
pub(crate) fn run(code: &[u8], more: &[&str]) -> Output {
    let kernel = file(&elf(code));
    let mut arguments = vec!["--kernel", kernel.to_str().unwrap()];
    arguments.extend(more);
    vmm(&arguments)
}
