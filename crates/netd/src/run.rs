//! A netd from its start to its end.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use vnet_api::paths::Paths;
use vnet_dns::{HostServers, RESOLVED_UPLINK, Upstreams};
use vnet_kernel::Kernel;

use crate::daemon::Shared;
use crate::instance::{Instance, check_privilege};
use crate::leases::LeaseWriter;
use crate::{http, ports, repair};

/// How netd is to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Under which everything of it stands.
    pub root: PathBuf,
    /// Where the host's own DNS servers are named.
    pub resolv_conf: PathBuf,
}

/// Runs netd in this thread's network namespace until it is told to end by SIGTERM or SIGINT.
/// The networks stay as they are then: guests keep their links, and the next netd takes over.
///
/// # Errors
/// It cannot start; the reason names the way out.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let begun = Instant::now();
    check_privilege()?;
    let paths = Paths::new(options.root);
    make_directory(&paths.run())?;
    let _instance = Instance::claim(&paths.lock()).await?;
    raise_descriptor_limit();
    let kernel = Kernel::open(paths.ledger())?;
    // Before the first look at the host, so that nothing that happens after it is missed.
    let watch = kernel.watch().context("cannot listen to the kernel's notices")?;
    let writer = LeaseWriter::start().context("cannot start the writer of leases")?;
    let servers = HostServers::new(options.resolv_conf, RESOLVED_UPLINK.into());
    if let Err(error) = servers.follow() {
        tracing::warn!("changes of the host's name servers are seen late: {error}");
    }
    let upstreams = Upstreams::Host(servers);
    let daemon = match Shared::start_up(paths.clone(), kernel, writer, upstreams).await {
        Ok(daemon) => daemon,
        Err(error) => bail!(error.message),
    };
    for broken in daemon.status().await.broken {
        tracing::error!("{}: {}", broken.path, broken.reason);
    }
    tokio::spawn(repair::keep_whole(daemon.clone(), watch));
    let mut terminated = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupted = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let listening = |path: &Path| format!("cannot listen at {}", path.display());
    ports::serve(&paths.ports_socket(), daemon.clone())
        .with_context(|| listening(&paths.ports_socket()))?;
    http::serve(&paths.api_socket(), daemon).with_context(|| listening(&paths.api_socket()))?;
    let milliseconds = begun.elapsed().as_millis();
    tracing::info!("netd is ready at {} after {milliseconds} ms", paths.api_socket().display());
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("netd ends; the networks stay as they are");
    for socket in [paths.api_socket(), paths.ports_socket()] {
        // The next netd replaces one that is left over.
        let _ = std::fs::remove_file(socket);
    }
    Ok(())
}

/// A descriptor for each guest and for each query in flight: as many as we may have.
fn raise_descriptor_limit() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Err(errno) = setrlimit(Resource::RLIMIT_NOFILE, most, most)
    {
        tracing::warn!("cannot raise the limit of open files to {most}: {errno}");
    }
}

fn make_directory(path: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))
}
