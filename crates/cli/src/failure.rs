//! How a command that fails ends: one line on standard error, and an exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use vnet_api::client::ClientError;

use crate::output::printable;

/// netd cannot be reached.
const UNREACHABLE: u8 = 3;

/// Wrong usage that only shows once the arguments have been read; clap exits with the same code.
const USAGE: u8 = 2;

/// Arguments that do not go together.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Says what `error` is and gives the exit code for it.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if is_reader_gone(error) {
        // As in `vnet leases | head -1`: whoever has read enough is served.
        return ExitCode::SUCCESS;
    }
    say(error);
    ExitCode::from(code(error))
}

/// Says what `error` is.
pub(crate) fn say(error: &anyhow::Error) {
    // Where standard error is closed, the exit code still says it.
    let _ = writeln!(io::stderr(), "vnet: {}", printable(&message(error)));
}

fn is_reader_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn code(error: &anyhow::Error) -> u8 {
    if error.is::<Usage>() {
        return USAGE;
    }
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Unreachable { .. } | ClientError::Permission { .. }) => UNREACHABLE,
        _ => 1,
    }
}

/// The message and its sources, joined by colons; a source that repeats what was said is left out.
fn message(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| {
        let cause = cause.to_string();
        match text.as_str() {
            "" => cause,
            _ if text.ends_with(&cause) => text,
            _ => format!("{text}: {cause}"),
        }
    })
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};
    use vnet_api::model::{ErrorBody, ErrorKind};

    use super::*;

    #[test]
    fn causes_are_joined_and_not_repeated() {
        let error = Err::<(), _>(anyhow!("no space")).context("cannot write").unwrap_err();
        assert_eq!(message(&error), "cannot write: no space");
        let body = ErrorBody { kind: ErrorKind::NotFound, message: "there is none".into() };
        assert_eq!(message(&ClientError::Refused(body).into()), "there is none");
        let twice = Err::<(), _>(anyhow!("no space")).context("cannot write: no space");
        assert_eq!(message(&twice.unwrap_err()), "cannot write: no space");
    }

    #[test]
    fn each_kind_of_failure_has_its_exit_code() {
        let unreachable =
            ClientError::Unreachable { path: "/x".into(), source: io::ErrorKind::NotFound.into() };
        assert_eq!(code(&anyhow::Error::from(unreachable)), 3);
        assert_eq!(code(&anyhow::Error::from(Usage("no".into()))), 2);
        assert_eq!(code(&anyhow!("no")), 1);
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure() {
        let gone = Err::<(), _>(io::Error::from(io::ErrorKind::BrokenPipe))
            .context("cannot write to standard output")
            .unwrap_err();
        assert!(is_reader_gone(&gone));
        assert!(!is_reader_gone(&anyhow!("no")));
    }
}
