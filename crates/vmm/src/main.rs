//! `vnet-vmm`: see `vnet-vmm --help`.

use std::fs::File;
use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::Parser;
use serde::Serialize;
use tracing_subscriber::EnvFilter;
use vnet_vmm::cli::Cli;
use vnet_vmm::report::{Failure, Report};
use vnet_vmm::{monitor, vm};

fn main() -> ExitCode {
    let started = Instant::now();
    // One heap for all threads. More cost memory, and glibc opens a file of /proc to shrink them,
    // which the jail refuses.
    // SAFETY: mallopt takes no pointers; no other thread runs yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("VNET_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let quiet = cli.quiet;
    let ended = open_report(&cli).and_then(|report| {
        let result = run(cli, started);
        match &result {
            Ok(ended) => write_report(report, ended)?,
            Err(error) => {
                let error = format!("{error:#}");
                write_report(report, &Failure::FailedToStart { error, exit_code: 1 })?;
            }
        }
        result
    });
    match ended {
        Ok(report) => {
            if !quiet {
                eprintln!("vnet-vmm: {}", report.outcome);
            }
            ExitCode::from(report.exit_code)
        }
        Err(error) => {
            eprintln!("vnet-vmm: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli, started: Instant) -> anyhow::Result<Report> {
    let takes_input = match (cli.serial.as_str(), cli.console.as_deref()) {
        ("stdio", Some("stdio")) => {
            return Err(anyhow!("standard input and output are for one: give --serial a file"));
        }
        (_, Some("stdio")) => monitor::Input::Console,
        ("stdio", _) => monitor::Input::Serial,
        _ => monitor::Input::Nowhere,
    };
    let serial = open_output(&cli.serial).context("cannot open the serial port's output")?;
    let console = cli.console.as_deref().map(open_output).transpose();
    let console = console.context("cannot open the console's output")?;
    let nics = cli.nics().map_err(|error| anyhow!(error))?;
    let options = monitor::Options {
        timeout: cli.timeout.map(|seconds| Duration::from_secs(seconds.into())),
        input: takes_input,
    };
    let has_rng = !cli.is_built_in();
    let config = vm::Config {
        kernel: cli.kernel_file().map_err(|error| anyhow!(error))?,
        memory_mib: cli.memory_mib(),
        initrd: cli.initrd,
        command_line: cli.append,
        cpus: cli.cpus,
        serial: Some(serial),
        domain: cli.name,
        root: cli.root,
        nics,
        disks: cli.disk,
        console,
        has_rng,
        jail: if cli.no_jail { vm::Jail::Open } else { vm::Jail::Closed },
    };
    monitor::block_signals()?;
    let machine = vm::build(config)?;
    Ok(monitor::run(machine, &options, started)?)
}

/// Standard output, or a file.
fn open_output(target: &str) -> anyhow::Result<File> {
    if target == "stdio" {
        return nix::unistd::dup(std::io::stdout())
            .map(File::from)
            .context("cannot use standard output");
    }
    File::create(target).with_context(|| format!("cannot write to {target}"))
}

/// Opened before the machine runs, so that a report that cannot be written is known at once.
fn open_report(cli: &Cli) -> anyhow::Result<Option<File>> {
    let Some(target) = &cli.report else { return Ok(None) };
    let file = match target.parse::<RawFd>() {
        Ok(fd) => {
            // SAFETY: F_GETFD only asks.
            let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
            let nic = cli.tap_fd.iter().any(|tap| tap.0.source.descriptor() == Some(fd));
            if flags < 0 || fd <= libc::STDERR_FILENO || nic {
                return Err(anyhow!("descriptor {fd} is not open for a report"));
            }
            // SAFETY: the descriptor is open, our parent has given it to us, and nothing else
            // here uses it.
            File::from(unsafe { OwnedFd::from_raw_fd(fd) })
        }
        Err(_) => {
            File::create(target).with_context(|| format!("cannot write a report to {target}"))?
        }
    };
    Ok(Some(file))
}

fn write_report(file: Option<File>, report: &impl Serialize) -> anyhow::Result<()> {
    let Some(mut file) = file else { return Ok(()) };
    let mut text = serde_json::to_string(report)?;
    text.push('\n');
    file.write_all(text.as_bytes()).context("cannot write the report")
}
