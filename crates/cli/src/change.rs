//! How the answer to a request that changes something is printed.

use std::fmt::Write;

use serde::Serialize;
use vnet_api::client::Run;
use vnet_api::model::{AnyNetwork, BridgedNetwork, Changed, Network, State};

use crate::context::{Context, Format};
use crate::list;
use crate::output;

/// Prints `changed`: the plan of a dry run, or else the line that `done` makes.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn print<N: Serialize>(
    changed: &Changed<N>,
    run: Run,
    context: &Context,
    done: impl FnOnce(&Changed<N>) -> String,
) -> anyhow::Result<()> {
    for note in &changed.notes {
        output::note(note);
    }
    match (context.format, run) {
        (Format::Json, _) => output::print_json(changed),
        (Format::Text, Run::Dry) => output::print(&numbered(&changed.plan)),
        (Format::Text, Run::Real) => output::print(&done(changed)),
    }
}

/// A plan, one operation a line.
pub(crate) fn numbered(plan: &[String]) -> String {
    if plan.is_empty() {
        return "nothing is to be done".to_owned();
    }
    let width = plan.len().to_string().len();
    plan.iter().enumerate().fold(String::new(), |mut text, (index, operation)| {
        // Writing to a string has no way to fail.
        let _ = writeln!(text, "{:>width$}. {}", index + 1, output::printable(operation));
        text
    })
}

/// What a network is, in one line.
pub(crate) fn summary(network: &Network) -> String {
    let definition = &network.definition;
    let gateway = match network.gateway6 {
        Some(gateway6) => format!("gateways {} and {gateway6}", network.gateway),
        None => format!("gateway {}", network.gateway),
    };
    format!(
        "network {} is {}: {} {}, {gateway}, bridge {}",
        definition.name,
        in_words(&network.state),
        definition.mode,
        list::subnets(definition),
        definition.bridge
    )
}

fn in_words(state: &State) -> String {
    match state {
        State::Active => "up".to_owned(),
        State::Stopped => "stopped".to_owned(),
        State::Failed { reason } => format!("not up ({reason})"),
    }
}

/// What a network of either sort is, in one line.
pub(crate) fn summary_of_any(network: &AnyNetwork) -> String {
    match network {
        AnyNetwork::Network(network) => summary(network),
        AnyNetwork::Bridged(network) => summary_of_bridged(network),
    }
}

/// What a bridged network is, and what is still to be done for it.
pub(crate) fn summary_of_bridged(network: &BridgedNetwork) -> String {
    let definition = &network.definition;
    let mut text = format!(
        "network {} is {}: bridged, bridge {}, uplink {}",
        definition.name,
        in_words(&network.state),
        definition.bridge,
        definition.uplink
    );
    if let Some(seconds) = network.confirm_within {
        // Writing to a string has no way to fail.
        let _ = write!(
            text,
            "\nrun `vnet confirm {}` within {seconds} s, or everything is put back",
            definition.bridge
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_numbered() {
        assert_eq!(numbered(&["a".into(), "b".into()]), "1. a\n2. b\n");
        let ten = numbered(&vec!["x".to_owned(); 10]);
        assert!(ten.starts_with(" 1. x\n") && ten.ends_with("10. x\n"), "{ten}");
        assert_eq!(numbered(&[]), "nothing is to be done");
    }
}
