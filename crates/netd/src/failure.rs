//! What a request that was not done is answered with.

use std::error::Error;

use vnet_api::model::{ErrorBody, ErrorKind};
use vnet_types::NetworkName;

/// An [`ErrorBody`] of this kind that says `message`.
pub(crate) fn refuse(kind: ErrorKind, message: impl Into<String>) -> ErrorBody {
    ErrorBody { kind, message: message.into() }
}

/// The request contradicts itself.
pub(crate) fn invalid(error: &dyn Error) -> ErrorBody {
    refuse(ErrorKind::Invalid, chain(error))
}

/// Something is in the way.
pub(crate) fn conflict(error: &dyn Error) -> ErrorBody {
    refuse(ErrorKind::Conflict, chain(error))
}

/// The host refused.
pub(crate) fn failed(error: &dyn Error) -> ErrorBody {
    refuse(ErrorKind::Failed, chain(error))
}

pub(crate) fn no_network(name: &NetworkName) -> ErrorBody {
    refuse(
        ErrorKind::NotFound,
        format!("there is no network {name}: `vnet list` shows those that there are"),
    )
}

/// The error and its sources, joined by colons.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        // Some libraries' errors repeat their sources.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}
