//! Links the guest as a bare-metal ELF with the ordinary toolchain of the host target.
//!
//! The guest shares its dependencies with the rest of the workspace, and cargo builds each of
//! them once, with the features of all its users together: some are then built with `std`, which
//! brings std's panic handler along. A program can have only one, so the guest takes std's (it
//! declares `extern crate std` so that this holds in every build) and the linker script puts its
//! own function in that one's place. The symbol's name carries a hash of the compiler; it is read
//! out of an object that this compiler makes here.
//!
//! Nothing of std is called. The C libraries that it asks for are replaced by empty archives, so
//! that a use of any of their functions fails the link instead of a boot.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PANIC_SYMBOL: &str = "rust_begin_unwind";

/// What std links on this target.
const C_LIBRARIES: [&str; 7] = ["c", "dl", "gcc_s", "m", "pthread", "rt", "util"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=link/guest.ld");
    println!("cargo:rerun-if-changed=link/panic_symbol.rs");
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let symbol = panic_symbol(&here.join("link/panic_symbol.rs"), &out)?;
    let script = fs::read_to_string(here.join("link/guest.ld"))?;
    let script_path = out.join("guest.ld");
    fs::write(&script_path, script.replace("@PANIC_SYMBOL@", &symbol))?;

    let libraries = out.join("empty");
    fs::create_dir_all(&libraries)?;
    for name in C_LIBRARIES {
        fs::write(libraries.join(format!("lib{name}.a")), "!<arch>\n")?;
    }
    println!("cargo:rustc-link-search=native={}", libraries.display());

    for argument in [
        "-nostdlib",
        "-nostartfiles",
        "-static",
        "-no-pie",
        "-Wl,--gc-sections",
        "-Wl,--build-id=none",
        "-Wl,--strip-debug",
        "-Wl,-z,norelro",
        "-Wl,-z,noexecstack",
    ] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    println!("cargo:rustc-link-arg-bins=-Wl,-T,{}", script_path.display());
    Ok(())
}

/// The linker's name of the panic handler, as this compiler mangles it.
fn panic_symbol(source: &Path, out: &Path) -> Result<String, Box<dyn Error>> {
    let object = out.join("panic_symbol.o");
    let status = Command::new(env::var("RUSTC")?)
        .args(["--edition=2024", "--crate-type=lib", "--emit=obj", "-Cpanic=abort", "-o"])
        .arg(&object)
        .arg(source)
        .status()?;
    if !status.success() {
        return Err(format!("{} does not compile: {status}", source.display()).into());
    }
    // A string table is a row of names that end in NUL; the function's own is there alone or as
    // the end of its section's.
    let bytes = fs::read(&object)?;
    bytes
        .split(|&byte| byte == 0)
        .filter_map(|name| std::str::from_utf8(name).ok())
        .find(|name| name.ends_with(PANIC_SYMBOL))
        .map(|name| name.strip_prefix(".text.").unwrap_or(name).to_owned())
        .ok_or_else(|| format!("no symbol {PANIC_SYMBOL} in {}", object.display()).into())
}
