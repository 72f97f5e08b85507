//! `vnet forward list`: which ports of the host lead where.

use clap::Args;
use vnet_api::model::ForwardView;
use vnet_types::NetworkName;

use crate::context::{Context, Format};
use crate::output;
use crate::table::{Cell, Colour, Table};

/// List forwards: which ports of the host lead where
#[derive(Debug, Args)]
#[command(visible_alias = "ls", after_help = "Example: vnet forward list default")]
pub(crate) struct List {
    /// The network [default: all]
    #[arg(value_name = "NET")]
    network: Option<NetworkName>,
}

/// Runs the command.
///
/// # Errors
/// There is no such network, or netd cannot be reached.
pub(crate) async fn run(args: &List, context: &Context) -> anyhow::Result<()> {
    let forwards = context.client.forwards(args.network.as_ref()).await?;
    match context.format {
        Format::Json => output::print_json(&forwards),
        Format::Text if forwards.is_empty() => {
            match &args.network {
                Some(network) => output::note(format_args!("nothing is forwarded into {network}")),
                None => output::note("nothing is forwarded"),
            }
            Ok(())
        }
        Format::Text => output::print(&table(&forwards).render()),
    }
}

fn table(forwards: &[ForwardView]) -> Table {
    let mut table = Table::new(["NETWORK", "LISTEN", "TARGET", "ADDRESS"]);
    for view in forwards {
        let address = match (view.to, view.to6) {
            (Some(v4), Some(v6)) => Cell::text(format!("{v4}, {v6}")),
            (Some(address), None) => Cell::text(address),
            (None, Some(address)) => Cell::text(address),
            (None, None) => Cell::text("-").coloured(Colour::Yellow),
        };
        table.row([
            Cell::text(&view.network),
            Cell::text(view.forward.listen()),
            Cell::text(&view.forward.target),
            address,
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forward_is_a_row() {
        let forwards: Vec<ForwardView> = serde_json::from_value(serde_json::json!([
            {
                "network": "default", "protocol": "tcp", "port": 8080, "target": "web:80",
                "to": "192.168.122.9"
            },
            {
                "network": "default", "protocol": "udp", "address": "203.0.113.2",
                "port": "5000-5009", "target": "db", "to": null
            }
        ]))
        .unwrap();
        assert_eq!(
            table(&forwards).render(),
            "NETWORK  LISTEN                     TARGET  ADDRESS\n\
             default  8080/tcp                   web:80  192.168.122.9\n\
             default  203.0.113.2:5000-5009/udp  db      -\n"
        );
    }
}
