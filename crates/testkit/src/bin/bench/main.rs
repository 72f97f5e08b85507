//! Measures what vnet promises: how long `vnet create` takes, and how soon a guest has its
//! address. `scripts/bench` builds everything and starts it.
//!
//! All times are wall-clock times of whole commands, from just before the process is made until
//! it has ended (or has printed a line), as a person at a terminal has them. Each benchmark runs
//! in namespaces of its own; what netd writes, it writes to the disk that has the temporary
//! directory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod boot;
mod create;
mod dhcp;
mod dns;
mod enslave;
mod networks;
mod packets;
mod page;
mod rows;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measures vnet, in private namespaces.
#[derive(Parser)]
#[command(name = "vnet-bench")]
struct Arguments {
    /// How often each thing is measured
    #[arg(long, global = true, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
    runs: u32,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Networks: create and delete
    Create {
        /// Measure the network `default` of the libvirtd at this URI as well
        #[arg(long, value_name = "URI")]
        virsh: Option<String>,
    },
    /// Many networks: one more beside 1, 10, 100 and 1,000; netd's memory; 1,000 forwards
    Networks {
        /// As many networks at most
        #[arg(long, default_value_t = 1000)]
        most: u32,
    },
    /// Guests: from `vnet run` to the address
    Boot,
    /// DHCP servers side by side
    Dhcp {
        /// Shorter, and less exact
        #[arg(long)]
        quick: bool,
        /// Only vnet's own
        #[arg(long)]
        only_ours: bool,
        /// Put the table into this page
        #[arg(long, value_name = "FILE")]
        page: Option<PathBuf>,
    },
    /// DNS servers side by side
    Dns {
        /// How long each load lasts
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=20))]
        seconds: u32,
        /// Only vnet's own
        #[arg(long)]
        only_ours: bool,
        /// Put the table into this page
        #[arg(long, value_name = "FILE")]
        page: Option<PathBuf>,
    },
    /// The host's uplink goes under a bridge and comes back: the silence that a peer hears
    Enslave,
    /// What a packet costs, with one network and with many
    Packets,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let rows = match arguments.what {
        What::Create { virsh } => {
            let mut rows = create::create(arguments.runs)?;
            if let Some(uri) = virsh {
                rows.extend(create::libvirt(&uri, arguments.runs)?);
            }
            rows
        }
        What::Networks { most } => networks::networks(arguments.runs, most)?,
        What::Boot => boot::boot(arguments.runs)?,
        What::Dhcp { quick, only_ours, page } => {
            let effort = if quick { dhcp::Effort::QUICK } else { dhcp::Effort::FULL };
            return dhcp::dhcp(effort, only_ours, page.as_deref());
        }
        What::Dns { seconds, only_ours, page } => {
            return dns::dns(seconds, only_ours, page.as_deref());
        }
        What::Enslave => enslave::enslave(arguments.runs)?,
        What::Packets => return packets::packets(arguments.runs),
    };
    rows::print(&rows);
    Ok(())
}
