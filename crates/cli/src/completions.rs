//! `vnet completions`: what a shell completes, from the same definitions as the commands.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::args::Cli;
use crate::context::{Context, Format};
use crate::failure::Usage;
use crate::output;

/// Print the completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "Example: vnet completions bash > /etc/bash_completion.d/vnet")]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

/// Runs the command.
///
/// # Errors
/// `--json` was given, or standard output cannot be written.
pub(crate) fn run(args: &Completions, context: &Context) -> anyhow::Result<()> {
    if context.format == Format::Json {
        return Err(
            Usage("completions are a shell's script, never JSON: leave --json out".into()).into()
        );
    }
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "vnet", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_its_script() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "vnet", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("leases") && script.contains("autostart"), "{shell}");
        }
    }
}
