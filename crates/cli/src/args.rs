//! The command line as clap reads it. Each command's own arguments stand with the command.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use vnet_types::{Mode, NetworkName};

use crate::{
    autostart, bridge, check, completions, create, delete, edit, explain, forward, leases, probe,
    reserve, run, show, start, stop,
};

/// Over the options that every command has.
const GLOBAL: &str = "Global options";

const EXIT_CODES: &str = "\
Exit status: 0 done, 1 failed, 2 wrong usage, 3 netd cannot be reached.

Example: vnet create nat default && vnet list";

/// Networks for virtual machines that work: one command, and every guest has one.
#[derive(Debug, Parser)]
#[command(name = "vnet", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Where configuration, state and sockets stand
    #[arg(long, global = true, env = "VNET_ROOT", default_value = "/", value_name = "DIR", help_heading = GLOBAL)]
    pub(crate) root: PathBuf,
    /// Print JSON, with the fields of netd's API
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Create(create::Create),
    Bridge(bridge::Bridge),
    Confirm(bridge::Confirm),
    /// List all networks
    #[command(
        visible_alias = "ls",
        after_help = "Example: vnet list --json | jq '.[].definition.name'"
    )]
    List,
    Show(show::Show),
    Start(start::Start),
    Stop(stop::Stop),
    Delete(delete::Delete),
    Edit(edit::Edit),
    Autostart(autostart::Autostart),
    Reserve(reserve::Reserve),
    Unreserve(reserve::Unreserve),
    Leases(leases::Leases),
    Explain(explain::Explain),
    Forward(forward::Forward),
    Run(run::Run),
    Probe(probe::Probe),
    Check(check::Check),
    Completions(completions::Completions),
}

/// The network that a command is about.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The network
    #[arg(value_name = "NET")]
    pub(crate) network: NetworkName,
}

/// Whether to do it or only to say what would be done.
#[derive(Debug, Args)]
pub(crate) struct DryRun {
    /// Change nothing; print what would be done, in its order
    #[arg(long)]
    dry_run: bool,
}

impl DryRun {
    pub(crate) fn run(&self) -> vnet_api::client::Run {
        if self.dry_run { vnet_api::client::Run::Dry } else { vnet_api::client::Run::Real }
    }
}

/// Whether guests on the network are in the way.
#[derive(Debug, Args)]
pub(crate) struct Force {
    /// Do it though guests are on the network: they lose their link
    #[arg(long)]
    force: bool,
}

impl Force {
    pub(crate) fn guests(&self) -> vnet_api::client::Guests {
        if self.force {
            vnet_api::client::Guests::CutOff
        } else {
            vnet_api::client::Guests::Respect
        }
    }
}

/// Reads a mode, and lets clap list the modes that there are.
pub(crate) fn mode_parser() -> impl TypedValueParser<Value = Mode> {
    PossibleValuesParser::new([Mode::Nat, Mode::Hostonly, Mode::Routed].map(Mode::as_str))
        .try_map(|text| text.parse::<Mode>())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn the_definitions_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example: vnet "), "{}", command.get_name());
        }
    }

    #[test]
    fn root_and_json_stand_before_or_after_the_command() {
        for words in
            [["vnet", "--root", "/x", "--json", "list"], ["vnet", "list", "--json", "--root", "/x"]]
        {
            let cli = Cli::parse_from(words);
            assert!(cli.json);
            assert_eq!(cli.root, PathBuf::from("/x"));
        }
    }

    #[test]
    fn an_unknown_mode_is_answered_with_those_that_there_are() {
        let error = Cli::try_parse_from(["vnet", "create", "bridge", "x"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidValue);
        assert!(error.to_string().contains("nat, hostonly, routed"), "{error}");
    }

    #[test]
    fn a_bad_value_is_answered_with_its_rule() {
        for (words, rule) in [
            (&["create", "nat", "A"][..], "use 1 to 48"),
            (&["create", "nat", "a", "--subnet", "10.0.0.1/24"], "did you mean 10.0.0.0/24"),
            (&["create", "nat", "a", "--range", "x", "--subnet", "10.0.0.0/24"], "first-last"),
            (&["show", "a/b"], "use 1 to 48"),
        ] {
            let words = std::iter::once("vnet").chain(words.iter().copied());
            let error = Cli::try_parse_from(words).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(rule), "{error}");
        }
    }

    #[test]
    fn a_range_needs_its_subnet_and_dhcp() {
        for words in [
            &["vnet", "create", "nat", "a", "--range", "10.0.0.2-10.0.0.9"][..],
            &[
                "vnet",
                "create",
                "nat",
                "a",
                "--subnet",
                "10.0.0.0/24",
                "--no-dhcp",
                "--range",
                "10.0.0.2-10.0.0.9",
            ],
        ] {
            assert!(Cli::try_parse_from(words).is_err());
        }
    }
}
