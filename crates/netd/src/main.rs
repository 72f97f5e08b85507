//! netd: the network daemon of vnet. See the library for how it works.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tracing_subscriber::EnvFilter;
use vnet_netd::run::{Options, run};

/// Bytes that may lie idle at the end of the heap, and from which on a piece is no part of it.
const SPARE: libc::c_int = 64 << 10;

/// The network daemon of vnet: bridges, ports, firewall, DHCP and DNS.
///
/// It runs in the foreground, for a supervisor or a terminal, and serves the network namespace
/// in which it is started.
#[derive(Parser)]
#[command(version, name = "netd")]
struct Arguments {
    /// Put configuration, state and sockets under this directory
    #[arg(long, env = "VNET_ROOT", default_value = "/", value_name = "DIR")]
    root: PathBuf,
    /// The file that names the host's own DNS servers
    #[arg(long, default_value = "/etc/resolv.conf", value_name = "FILE")]
    resolv_conf: PathBuf,
    /// What to log, as in `debug` or `vnet_kernel=debug,info`
    #[arg(long, env = "VNET_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
}

fn main() -> ExitCode {
    sparing_heap();
    match serve(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Little memory rather than little waiting: one heap for netd's few threads, and what was needed
/// once for many networks goes back to the host.
fn sparing_heap() {
    // SAFETY: mallopt takes no pointers; no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, SPARE);
        libc::mallopt(libc::M_MMAP_THRESHOLD, SPARE);
    }
}

fn serve(arguments: Arguments) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&arguments.log)
        .with_context(|| format!("`{}` is no log filter", arguments.log))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        .init();
    // One thread: all of netd's work is short, and a network namespace belongs to a thread.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(run(Options { root: arguments.root, resolv_conf: arguments.resolv_conf }))
}
