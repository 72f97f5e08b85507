//! `vnet edit`: the definition of a network in a person's editor, or from a file.
//!
//! ```text
//! netd ─► text ─► a file of its own ─► editor ─► netd ─┬─► done: the file goes
//!                        ▲                             └─► refused: the file stays
//!                        └──────── edit again? ◄───────────┘
//! ```
//!
//! What was written is never lost: the file goes only after netd has taken its text.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use vnet_api::client::{ClientError, Run};
use vnet_api::model::{AnyNetwork, Changed};
use vnet_types::NetworkName;

use crate::args::{DryRun, Target};
use crate::context::Context;
use crate::{change, failure, output};

/// What opens a file where neither $VISUAL nor $EDITOR says.
const USUAL_EDITOR: &str = "vi";

/// Change a network's definition while it is up
///
/// Opens the definition in $VISUAL or $EDITOR, and has netd make the network what it says then:
/// guests keep their ports, and their addresses where the subnet stays. A text that netd refuses
/// changes nothing, and is kept.
#[derive(Debug, Args)]
#[command(after_help = "Example: vnet edit default
         sed s/virbr0/br-lab/ lab.toml | vnet edit lab --file - --dry-run")]
pub(crate) struct Edit {
    #[command(flatten)]
    target: Target,
    /// Take the new definition from this file instead of an editor; `-` is standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Runs the command.
///
/// # Errors
/// netd refuses or cannot be reached, or the editor fails.
pub(crate) async fn run(args: &Edit, context: &Context) -> anyhow::Result<()> {
    let (name, run) = (&args.target.network, args.dry_run.run());
    let changed = match &args.file {
        Some(file) => context.client.edit(name, read(file)?, run).await?,
        None => in_editor(name, run, context).await?,
    };
    change::print(&changed, run, context, |changed| summary(name, changed))
}

/// What has become of a network whose definition was changed, in one line.
pub(crate) fn summary<N: Clone + Into<AnyNetwork>>(
    name: &NetworkName,
    changed: &Changed<N>,
) -> String {
    match &changed.network {
        _ if changed.plan.is_empty() => format!("network {name} is unchanged"),
        Some(network) => change::summary_of_any(&network.clone().into()),
        None => format!("network {name} is changed"),
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

async fn in_editor(
    name: &NetworkName,
    run: Run,
    context: &Context,
) -> anyhow::Result<Changed<AnyNetwork>> {
    let text = context.client.definition(name).await?;
    let mut file = tempfile::Builder::new()
        .prefix(&format!("vnet-{name}-"))
        .suffix(".toml")
        .tempfile()
        .context("cannot make a file to edit")?;
    file.write_all(text.as_bytes()).context("cannot write the file to edit")?;
    let (_, path) = file.keep().context("cannot keep the file to edit")?;
    let result = edit_until_taken(name, run, &path, context).await;
    // A dry run has changed nothing: its text is still to be applied.
    let is_applied = result.is_ok() && run == Run::Real;
    let is_same = std::fs::read_to_string(&path).is_ok_and(|now| now == text);
    if is_applied || is_same {
        // One that is gone already is what is wanted.
        let _ = std::fs::remove_file(&path);
    } else {
        output::note(format!(
            "your text is kept in {path}: `vnet edit {name} --file {path}` applies it",
            path = path.display()
        ));
    }
    result
}

async fn edit_until_taken(
    name: &NetworkName,
    run: Run,
    path: &Path,
    context: &Context,
) -> anyhow::Result<Changed<AnyNetwork>> {
    loop {
        open_editor(path)?;
        match context.client.edit(name, read(path)?, run).await {
            Ok(changed) => return Ok(changed),
            Err(error @ ClientError::Refused(_)) if edit_again(&error)? => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Opens `path` in the person's editor and waits until it is closed. As for git, the variable is a
/// command for the shell, so that it may have arguments.
fn open_editor(path: &Path) -> anyhow::Result<()> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| USUAL_EDITOR.into());
    let mut script: OsString = editor.clone();
    script.push(" \"$@\"");
    let status = Command::new("/bin/sh")
        .arg("-c")
        .arg(script)
        .arg(&editor)
        .arg(path)
        .status()
        .context("cannot start the editor")?;
    if !status.success() {
        bail!(
            "the editor `{}` ended with {status}, so nothing was changed: set EDITOR to one that \
             works, or use --file",
            editor.display()
        );
    }
    Ok(())
}

/// Says what netd has against the text, and asks whether it is to be edited again. Nobody is asked
/// where there is no terminal.
fn edit_again(error: &ClientError) -> anyhow::Result<bool> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Ok(false);
    }
    failure::say(&anyhow!(error.to_string()));
    let mut stderr = io::stderr().lock();
    loop {
        write!(stderr, "Edit again? [Y/n] ").context("cannot ask on the terminal")?;
        let mut answer = String::new();
        let length = io::stdin().read_line(&mut answer).context("cannot read the answer")?;
        match answer.trim().to_ascii_lowercase().as_str() {
            // The end of the input is no yes.
            "" if length == 0 => return Ok(false),
            "" | "y" | "yes" => return Ok(true),
            "n" | "no" => return Ok(false),
            _ => {}
        }
    }
}
