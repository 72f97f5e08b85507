//! Transactions through the program nft.
//!
//! Half of an nft run is its start. So one process is started ahead when there is time, and waits
//! on its standard input for the next transaction. A process serves one transaction and ends:
//! nothing of it is left to be in a wrong state.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use vnet_plan::Transaction;

/// How long nft may take. It takes milliseconds, and seconds beside very large tables.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a transaction did not happen. But for a timeout, it did not happen at all then.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// There is no nft.
    #[error("the program nft is missing: install the package nftables")]
    Missing,
    /// It cannot be run.
    #[error("cannot run nft")]
    Run(#[source] io::Error),
    /// The kernel, or nft itself, refused.
    #[error("nft refused the transaction: {0}")]
    Refused(String),
    /// It did not end: whether the transaction has happened is not known.
    #[error("nft did not end within {PATIENCE:?} and was killed")]
    TimedOut,
    /// It printed something that is no JSON.
    #[error("nft printed something that is not JSON")]
    Output(#[source] serde_json::Error),
}

#[derive(Debug)]
pub(crate) struct Nft {
    ahead: Option<Child>,
}

impl Nft {
    pub(crate) fn new() -> Self {
        Self { ahead: start().ok() }
    }

    /// Starts the process for the next transaction, if none waits.
    pub(crate) fn prepare(&mut self) {
        if self.ahead.is_none() {
            self.ahead = start().ok();
        }
    }

    /// Runs one transaction, and returns what nft prints on it.
    pub(crate) async fn run(&mut self, transaction: &Transaction) -> Result<String, NftError> {
        if transaction.is_empty() {
            return Ok(String::new());
        }
        let mut ahead = self.ahead.take();
        // One that has ended while it waited was killed by somebody.
        let ready = ahead.take_if(|child| child.try_wait().is_ok_and(|status| status.is_none()));
        let mut child = ready.map_or_else(start, Ok)?;
        if let Some(mut input) = child.stdin.take() {
            let text = transaction.to_string();
            input.write_all(text.as_bytes()).await.map_err(NftError::Run)?;
            input.shutdown().await.map_err(NftError::Run)?;
        }
        // Dropped on a timeout, it is killed.
        let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
        let output = ended.map_err(|_| NftError::TimedOut)?.map_err(NftError::Run)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(NftError::Refused(first_error(&String::from_utf8_lossy(&output.stderr))))
    }
}

fn start() -> Result<Child, NftError> {
    Command::new("nft")
        .args(["-j", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => NftError::Missing,
            _ => NftError::Run(error),
        })
}

/// nft prints a line on the error and then the whole transaction: the first line says it all.
fn first_error(text: &str) -> String {
    let line = text.lines().find(|line| line.contains("Error")).or_else(|| text.lines().next());
    let line = line.unwrap_or("no reason given");
    line.split_once("Error: ").map_or(line, |(_, reason)| reason).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_taken_from_what_nft_prints() {
        let text = "internal:0:0-0: Error: Could not process rule: Operation not permitted\n{\"nf";
        assert_eq!(first_error(text), "Could not process rule: Operation not permitted");
        assert_eq!(first_error(""), "no reason given");
    }
}
