//! What systemd-resolved has for a link, over D-Bus (org.freedesktop.resolve1(5)).
//!
//! D-Bus is spoken by `busctl`, which is wherever systemd is: a few calls when an uplink moves are
//! no reason for a D-Bus library. A resolved of another network namespace knows other links by the
//! same numbers, so it is asked whose it is first.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use tokio::process::Command;
use vnet_plan::uplink::{Call, Resolver};
use vnet_types::IfName;

/// There as long as resolved runs, or was not cleaned up after: without it, nobody is asked.
const TRACE: &str = "/run/systemd/resolve";
const SERVICE: &str = "org.freedesktop.resolve1";
const MANAGER: &str = "org.freedesktop.resolve1.Manager";
const OBJECT: &str = "/org/freedesktop/resolve1";
/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// resolved hears of a new link through netlink, as we do: how often it is asked for one, and how
/// long it is waited between.
const LOOKS: u32 = 40;
const BETWEEN_LOOKS: Duration = Duration::from_millis(25);
/// What it says then (`Link 7 not known`), and of a link that systemd-networkd configures (`Link
/// eth0 is managed`).
const UNKNOWN: &str = "not known";
const MANAGED: &str = "is managed";
/// The first sets servers and domains, the second what then differs still. More are needed where
/// resolved hears late, through netlink, of something that makes it forget a link.
const ROUNDS: u32 = 5;

/// Why resolved was not asked, or not told.
#[derive(Debug, thiserror::Error)]
pub enum ResolvedError {
    /// There is nobody who speaks D-Bus.
    #[error("busctl cannot be run: {0}")]
    Run(io::Error),
    /// It takes too long.
    #[error("systemd-resolved did not answer within {} s", PATIENCE.as_secs())]
    Silent,
    /// What it says.
    #[error("{0}")]
    Refused(String),
    /// It says what we do not understand.
    #[error("systemd-resolved answers in a form of another version (before 246?)")]
    Answer,
    /// The link is gone.
    #[error("there is no link {0}")]
    NoLink(IfName),
}

/// What resolved has for `link`. None: it does not run in this network namespace, or has neither
/// servers nor domains for it.
pub(crate) async fn read(link: &IfName) -> Result<Option<Resolver>, ResolvedError> {
    if !is_ours().await? {
        return Ok(None);
    }
    let resolver = settings(&object(link).await?).await?;
    Ok(Some(resolver).filter(|resolver| !resolver.is_empty()))
}

/// Makes systemd-resolved have `wanted` for `link`, if it serves this network namespace. A link that
/// systemd-networkd configures keeps what it has from there.
///
/// # Errors
/// It is there, and did not take it.
pub async fn set(link: &IfName, wanted: &Resolver) -> Result<(), ResolvedError> {
    if !is_ours().await? {
        return Ok(());
    }
    let (object, index) = (object(link).await?, index(link)?);
    for _ in 0..ROUNDS {
        let calls = settings(&object).await?.calls_to(wanted);
        if calls.is_empty() {
            return Ok(());
        }
        for Call { method, signature, arguments } in calls {
            let signature = format!("i{signature}");
            let mut words = vec![OBJECT, MANAGER, method, &signature, &index];
            words.extend(arguments.iter().map(String::as_str));
            if !is_free(call(SERVICE, &words).await)? {
                return Ok(());
            }
        }
    }
    Err(ResolvedError::Refused("systemd-resolved does not keep all of it".to_owned()))
}

/// Makes resolved forget what it was told of `link`, other than by systemd-networkd.
pub(crate) async fn revert(link: &IfName) -> Result<(), ResolvedError> {
    if !is_ours().await? {
        return Ok(());
    }
    let index = index(link)?;
    is_free(call(SERVICE, &[OBJECT, MANAGER, "RevertLink", "i", &index]).await).map(drop)
}

/// False if a link is systemd-networkd's alone.
fn is_free(result: Result<String, ResolvedError>) -> Result<bool, ResolvedError> {
    match result {
        Err(ResolvedError::Refused(reason)) if reason.contains(MANAGED) => Ok(false),
        other => other.map(|_| true),
    }
}

fn index(link: &IfName) -> Result<String, ResolvedError> {
    let index = if_nametoindex(link.as_str());
    index.map(|index| index.to_string()).map_err(|_| ResolvedError::NoLink(link.clone()))
}

/// Whether a resolved runs whose links are ours.
async fn is_ours() -> Result<bool, ResolvedError> {
    if !Path::new(TRACE).exists() {
        return Ok(false);
    }
    let bus = "org.freedesktop.DBus";
    let words = ["/org/freedesktop/DBus", bus, "GetConnectionUnixProcessID", "s", SERVICE];
    let answer = match call(bus, &words).await {
        // Nobody has the name.
        Err(ResolvedError::Refused(_)) => return Ok(false),
        other => other?,
    };
    let process = data(&answer).and_then(|data| data.get(0)?.as_u64());
    let process = process.ok_or(ResolvedError::Answer)?;
    // Each network namespace has files of its own there, and everybody may look at them, unlike at
    // /proc/PID/ns.
    let inode = |of: &str| fs::metadata(format!("/proc/{of}/net/dev")).map(|file| file.ino()).ok();
    let ours = inode("thread-self");
    Ok(ours.is_some() && ours == inode(&process.to_string()))
}

/// The object that stands for `link`.
async fn object(link: &IfName) -> Result<String, ResolvedError> {
    let index = index(link)?;
    let mut looks = 1;
    let answer = loop {
        match call(SERVICE, &[OBJECT, MANAGER, "GetLink", "i", &index]).await {
            Err(ResolvedError::Refused(reason)) if reason.contains(UNKNOWN) && looks < LOOKS => {
                looks += 1;
                tokio::time::sleep(BETWEEN_LOOKS).await;
            }
            other => break other?,
        }
    };
    let path = data(&answer).and_then(|data| data.get(0)?.as_str().map(str::to_owned));
    path.ok_or(ResolvedError::Answer)
}

async fn settings(object: &str) -> Result<Resolver, ResolvedError> {
    let link = "org.freedesktop.resolve1.Link";
    let words = [object, "org.freedesktop.DBus.Properties", "GetAll", "s", link];
    let answer = call(SERVICE, &words).await?;
    Resolver::parse(&answer).ok_or(ResolvedError::Answer)
}

fn data(answer: &str) -> Option<serde_json::Value> {
    serde_json::from_str::<serde_json::Value>(answer).ok()?.get_mut("data").map(|data| data.take())
}

/// Calls a method, and gives back the answer in JSON. Nothing is started for it.
async fn call(service: &str, words: &[&str]) -> Result<String, ResolvedError> {
    let mut command = Command::new("busctl");
    command.args(["--json=short", "--auto-start=no", "--", "call", service]).args(words);
    // The reasons that are looked for are in English.
    command.env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = output.map_err(|_| ResolvedError::Silent)?.map_err(ResolvedError::Run)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let reason = String::from_utf8_lossy(&output.stderr);
    let reason = reason.trim().trim_start_matches("Call failed: ");
    Err(ResolvedError::Refused(reason.to_owned()))
}
