//! `vnet explain`: why a guest has its address, or none.

use clap::Args;
use vnet_api::model::{Exchange, Explained};

use crate::context::{Context, Format};
use crate::table::{Cell, Colour, Table};
use crate::{output, time};

/// Explain why a guest has its address, or none: each of its DHCP messages, and the reason for the
/// answer or for the silence
#[derive(Debug, Args)]
#[command(after_help = "Example: vnet explain 52:54:00:12:34:56")]
pub(crate) struct Explain {
    /// A domain, a guest's name, its address or its MAC address
    #[arg(value_name = "GUEST|MAC", value_parser = guest)]
    guest: String,
}

/// Something that a path of the API can have in it.
fn guest(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".:-_".contains(&byte);
    if !text.is_empty() && text.bytes().all(fits) {
        return Ok(text.to_ascii_lowercase());
    }
    Err("give a domain, a guest's name, its address or its MAC address".to_owned())
}

/// Runs the command.
///
/// # Errors
/// Nobody is known by that name, or netd cannot be reached.
pub(crate) async fn run(args: &Explain, context: &Context) -> anyhow::Result<()> {
    let all = context.client.explain(&args.guest).await?;
    match context.format {
        Format::Json => output::print_json(&all),
        Format::Text if all.is_empty() => {
            output::note(format_args!(
                "nothing was heard of {} on any network since netd started: is the guest on one \
                 (`vnet show NET` lists its ports), is its link up, does its DHCP client run?",
                args.guest
            ));
            Ok(())
        }
        Format::Text => {
            let now = time::unix_now();
            let texts: Vec<_> = all.iter().map(|one| text(one, now)).collect();
            output::print(&texts.join("\n"))
        }
    }
}

fn text(one: &Explained, now: u64) -> String {
    let mut text = heading(one, now) + "\n";
    if one.exchanges.is_empty() {
        text += silence(one);
        return text + "\n";
    }
    let mut table = Table::new(["TIME (UTC)", "MESSAGE", "ANSWER", "REASON"]);
    for exchange in &one.exchanges {
        let Exchange { message, answer, reason, .. } = exchange;
        let colour = match answer.as_deref() {
            Some("NAK") => Colour::Red,
            Some(_) => Colour::Green,
            None => Colour::Yellow,
        };
        let again = match exchange.times {
            1 => String::new(),
            times => format!(" ({times} times, last at {})", time::of_day(exchange.last_ms)),
        };
        table.row([
            Cell::text(time::of_day(exchange.first_ms)),
            Cell::text(message.as_deref().unwrap_or("?")),
            Cell::text(answer.as_deref().unwrap_or("-")).coloured(colour),
            Cell::text(format!("{reason}{again}")),
        ]);
    }
    text + &table.render()
}

/// As in `web (52:54:00:12:34:56) on default: 192.168.122.9, bound, ends in 59 min`.
fn heading(one: &Explained, now: u64) -> String {
    let name = one.domain.as_ref().map(ToString::to_string);
    let name = name.or_else(|| one.lease.as_ref()?.hostname.clone());
    let card = match name {
        Some(name) => format!("{name} ({})", one.mac),
        None => one.mac.to_string(),
    };
    let lease = match &one.lease {
        Some(lease) if lease.state == "bound" => {
            format!("{}, ends {}", lease.address, time::from_now(lease.expires, now))
        }
        Some(lease) => format!("no address; {} is {}", lease.address, lease.state),
        None => "no address".to_owned(),
    };
    let reserved = match (one.reserved, &one.lease) {
        (Some(ip), Some(lease)) if lease.address == ip => ", as reserved".to_owned(),
        (Some(ip), _) => format!("; {ip} is reserved for it"),
        (None, _) => String::new(),
    };
    output::printable(&format!("{card} on {}: {lease}{reserved}", one.network))
}

/// Why nothing may have been heard.
fn silence(one: &Explained) -> &'static str {
    match one {
        Explained { up: false, .. } => "The network is not up: `vnet start` starts it.",
        Explained { dhcp: false, .. } => "The network has no DHCP: the guest's address is its own.",
        Explained { port: Some(_), .. } => {
            "No DHCP message came from its port since netd started: is the guest's link up, and \
             does its DHCP client run?"
        }
        _ => {
            "No DHCP message came from it since netd started, and no port of netd's leads to it: \
             is the guest running?"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(exchanges: serde_json::Value) -> Explained {
        serde_json::from_value(serde_json::json!({
            "network": "default", "up": true, "dhcp": true, "mac": "52:54:00:aa:bb:cc",
            "domain": "web", "port": "vnet0", "reserved": "192.168.122.9", "lease": null,
            "exchanges": exchanges
        }))
        .unwrap()
    }

    #[test]
    fn a_timeline_has_a_row_for_each_message() {
        let one = explained(serde_json::json!([
            {
                "first_ms": 3_723_004, "last_ms": 3_727_010, "times": 2, "message": "DISCOVER",
                "xid": 1, "answer": null, "reason": "silent: every address is taken"
            },
            {
                "first_ms": 3_730_000, "last_ms": 3_730_000, "times": 1, "message": "REQUEST",
                "xid": 2, "answer": "ACK", "reason": "leased 192.168.122.9"
            }
        ]));
        assert_eq!(
            text(&one, 3800),
            "web (52:54:00:aa:bb:cc) on default: no address; 192.168.122.9 is reserved for it\n\
             TIME (UTC)    MESSAGE   ANSWER  REASON\n\
             01:02:03.004  DISCOVER  -       silent: every address is taken (2 times, last at \
             01:02:07.010)\n\
             01:02:10.000  REQUEST   ACK     leased 192.168.122.9\n"
        );
    }

    #[test]
    fn silence_has_its_probable_cause() {
        let one = explained(serde_json::json!([]));
        assert!(text(&one, 0).contains("is the guest's link up"));
        assert!(silence(&Explained { up: false, ..one.clone() }).contains("vnet start"));
        assert!(silence(&Explained { dhcp: false, ..one.clone() }).contains("no DHCP"));
        assert!(silence(&Explained { port: None, ..one }).contains("is the guest running"));
    }

    #[test]
    fn what_is_no_guest_is_refused() {
        for bad in ["", "a/b", "web server", "a?b"] {
            assert!(guest(bad).is_err(), "{bad}");
        }
        assert_eq!(guest("52:54:00:AA:bb:cc").unwrap(), "52:54:00:aa:bb:cc");
    }
}
