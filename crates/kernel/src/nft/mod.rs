//! Transactions through libnftables, the library that the program nft is a shell around.
//!
//! ```text
//! run(transaction) ──► thread "nft": one context, one netlink socket, for as long as netd lives
//!        ◄── what it prints, or its error
//! ```
//!
//! In process, because what costs time in a run of the program is not the transaction: it is the
//! start, and the end, at which the kernel lets a netlink socket go only when no processor looks
//! at deleted rules any more. On a thread of its own, because a transaction beside very large
//! tables of others may take seconds.

mod library;

use std::io;
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::oneshot;
use vnet_plan::{Firewall, Transaction};

use library::Context;

/// How long a transaction may take. It takes milliseconds, and seconds beside very large tables.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a transaction did not happen. But for a timeout, it did not happen at all then.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NftError {
    /// There is no libnftables, or it is none that we know.
    #[error("the library libnftables.so.1 cannot be used ({0}): install the package nftables")]
    Missing(String),
    /// It has no netlink socket.
    #[error("libnftables cannot open a netlink socket: is the module nf_tables loaded?")]
    Socket,
    /// The kernel, or the library itself, refused.
    #[error("nft refused the transaction: {0}")]
    Refused(String),
    /// It did not end: whether the transaction has happened is not known.
    #[error("the nftables transaction did not end within {PATIENCE:?}")]
    TimedOut,
    /// The thread is gone.
    #[error("the thread for nftables has ended")]
    Ended,
    /// It printed something that is no JSON.
    #[error("nft printed something that is not JSON: {0}")]
    Output(String),
}

/// Runs transactions, one after the other, in the network namespace in which it was made.
#[derive(Debug)]
pub(crate) struct Nft {
    jobs: mpsc::Sender<Job>,
}

#[derive(Debug)]
struct Job {
    input: String,
    done: oneshot::Sender<Result<String, NftError>>,
}

impl Nft {
    /// # Errors
    /// No thread can be started. That the library is missing is said by the first transaction:
    /// a host without networks does not need it.
    pub(crate) fn new() -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        // A new thread is in the network namespace of the one that starts it.
        std::thread::Builder::new().name("nft".to_owned()).spawn(move || serve(&queue))?;
        Ok(Self { jobs })
    }

    /// Whether transactions can be run at all.
    pub(crate) async fn ready(&self) -> Result<(), NftError> {
        self.submit(Transaction::default().to_string()).await.map(drop)
    }

    /// Runs one transaction, and returns what nft prints on it.
    pub(crate) async fn run(&self, transaction: &Transaction) -> Result<String, NftError> {
        if transaction.is_empty() {
            return Ok(String::new());
        }
        self.submit(transaction.to_string()).await
    }

    async fn submit(&self, input: String) -> Result<String, NftError> {
        let (done, result) = oneshot::channel();
        self.jobs.send(Job { input, done }).map_err(|_| NftError::Ended)?;
        let result = tokio::time::timeout(PATIENCE, result).await;
        result.map_err(|_| NftError::TimedOut)?.map_err(|_| NftError::Ended)?
    }
}

/// The thread: it ends when nobody can ask any more.
fn serve(queue: &mpsc::Receiver<Job>) {
    let mut context = Context::open();
    Firewall::prepare();
    for Job { input, done } in queue {
        // What was missing may have been installed since.
        if context.is_err() {
            context = Context::open();
        }
        let result = match &mut context {
            Ok(context) => {
                context.run(&input).map_err(|said| NftError::Refused(first_error(&said).to_owned()))
            }
            Err(error) => Err(error.clone()),
        };
        // One who no longer waits has nothing to be told.
        let _ = done.send(result);
    }
}

/// It says a line on the error and then the whole transaction: the first line says it all.
fn first_error(text: &str) -> &str {
    let line = text.lines().find(|line| line.contains("Error")).or_else(|| text.lines().next());
    let line = line.unwrap_or("no reason given");
    line.split_once("Error: ").map_or(line, |(_, reason)| reason).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_taken_from_what_nft_says() {
        let text = "internal:0:0-0: Error: Could not process rule: Operation not permitted\n{\"nf";
        assert_eq!(first_error(text), "Could not process rule: Operation not permitted");
        assert_eq!(first_error(""), "no reason given");
    }
}
