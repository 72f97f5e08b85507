//! `vnet run`: becomes a VMM, after everything that can be checked has been.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use clap::Args;
use vnet_types::DomainName;

use crate::attachment::Attachment;
use crate::context::{Context, Format};
use crate::failure::Usage;
use crate::vmm;

const NOTES: &str = "\
Exit status: as vnet-vmm's: 0 the guest stopped, 1 it could not be started, 2 wrong usage, 3 it had
not stopped in time (or, before the start: netd cannot be reached), 4 it crashed, 5 it said that it
failed, 6 a signal stopped it.

Example: vnet run --net nat:default --append vnet.mode=stay
         vnet run --disk debian.qcow2 --net nat:default --memory 1024
         vnet run --kernel vmlinuz --initrd initrd.img --append console=ttyS0 --net nat:default";

/// Run a guest that lives as long as the command
///
/// A disk is booted as its boot loader would (ext4, with grub.cfg or loader entries). Without a
/// kernel and disks, it is the built-in guest: it tries its network, says how that went, and
/// switches itself off (with `--append vnet.mode=stay` it stays on the network). The guest's
/// serial console is this terminal.
#[derive(Debug, Args)]
#[command(after_help = NOTES)]
pub(crate) struct Run {
    /// The kernel: a bzImage, or an ELF file with a PVH note [default: what the first disk
    /// boots; without disks, the built-in guest]
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The kernel's initial RAM disk
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// The kernel's command line
    #[arg(long, value_name = "CMDLINE", allow_hyphen_values = true)]
    append: Option<String>,
    /// A network card; may be repeated
    #[arg(long, value_name = "MODE:NET[,mac=MAC][,rate-in=RATE][,rate-out=RATE]")]
    net: Vec<Attachment>,
    /// A disk: an image's file, perhaps with settings behind it (ro, format=qcow2 …, see
    /// `vnet-vmm --help`); may be repeated
    #[arg(long, value_name = "FILE[,SETTING …]")]
    disk: Vec<OsString>,
    /// Memory in MiB [default: 64 for the built-in guest, 512 for others]
    #[arg(long, value_name = "MIB")]
    memory: Option<u64>,
    /// Processors [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    cpus: Option<u8>,
    /// The guest's name [default: run- and six random digits]
    #[arg(long)]
    name: Option<DomainName>,
    /// Stop a guest that still runs after so long
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    timeout: Option<u32>,
    /// Write how the guest ended to this file, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Runs the command: does not come back when the VMM has been started.
///
/// # Errors
/// A network cannot take the guest, there is no KVM or no VMM, or it cannot be started.
pub(crate) async fn run(args: &Run, context: &Context) -> anyhow::Result<()> {
    if context.format == Format::Json {
        let message = "what a guest prints is no JSON: --report FILE gets how it ended, as JSON";
        return Err(Usage(message.to_owned()).into());
    }
    // A guest without a network needs no netd.
    let networks =
        if args.net.is_empty() { Vec::new() } else { context.client.all_networks().await? };
    let cards: Vec<Attachment> =
        args.net.iter().map(|card| card.resolve(&networks)).collect::<anyhow::Result<_>>()?;
    vmm::check_kvm()?;
    let program = vmm::find()?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => vmm::unused_name("run", &networks)?,
    };
    let mut command = Command::new(&program);
    command.arg("--root").arg(context.paths.root()).args(args.words(&name, &cards));
    // On success, this process is the VMM from here on: the terminal and signals are its own.
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}

impl Run {
    /// The VMM's arguments.
    fn words(&self, name: &DomainName, cards: &[Attachment]) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["--name".into(), name.as_str().into()];
        let mut add = |option: &str, value: Option<OsString>| {
            if let Some(value) = value {
                words.extend([option.into(), value]);
            }
        };
        add("--kernel", self.kernel.clone().map(Into::into));
        add("--initrd", self.initrd.clone().map(Into::into));
        add("--append", self.command_line(name).map(Into::into));
        add("--memory", self.memory.map(|mib| mib.to_string().into()));
        add("--cpus", self.cpus.map(|cpus| cpus.to_string().into()));
        add("--timeout", self.timeout.map(|seconds| seconds.to_string().into()));
        add("--report", self.report.clone().map(Into::into));
        for disk in &self.disk {
            add("--disk", Some(disk.clone()));
        }
        for card in cards {
            add("--net", Some(card.to_string().into()));
        }
        words
    }

    /// The kernel's command line. The built-in guest is told its name; what the user says comes
    /// later, and wins.
    fn command_line(&self, name: &DomainName) -> Option<String> {
        let is_built_in = self.kernel.is_none() && self.disk.is_empty();
        match (is_built_in, &self.append) {
            (false, append) => append.clone(),
            (true, None) => Some(format!("vnet.hostname={name}")),
            (true, Some(append)) => Some(format!("vnet.hostname={name} {append}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: Run,
    }

    fn words(line: &[&str]) -> Vec<OsString> {
        let line = Line::parse_from(std::iter::once(&"vnet").chain(line));
        line.run.words(&"web".parse().unwrap(), &line.run.net)
    }

    #[test]
    fn every_option_reaches_the_vmm() {
        let line = [
            "--kernel",
            "k",
            "--initrd",
            "i",
            "--append",
            "-a b",
            "--net",
            "nat:default",
            "--net",
            "hostonly:lab,mac=52:54:00:00:00:01",
            "--disk",
            "d.img,ro",
            "--memory",
            "256",
            "--cpus",
            "2",
            "--timeout",
            "9",
            "--report",
            "r",
        ];
        assert_eq!(
            words(&line),
            [
                "--name",
                "web",
                "--kernel",
                "k",
                "--initrd",
                "i",
                "--append",
                "-a b",
                "--memory",
                "256",
                "--cpus",
                "2",
                "--timeout",
                "9",
                "--report",
                "r",
                "--disk",
                "d.img,ro",
                "--net",
                "nat:default",
                "--net",
                "hostonly:lab,mac=52:54:00:00:00:01"
            ]
        );
    }

    #[test]
    fn the_built_in_guest_is_told_its_name() {
        assert_eq!(words(&[]), ["--name", "web", "--append", "vnet.hostname=web"]);
        let stay = words(&["--append", "vnet.mode=stay"]);
        assert_eq!(stay[3], "vnet.hostname=web vnet.mode=stay");
    }
}
