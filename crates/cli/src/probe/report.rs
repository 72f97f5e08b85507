//! What a probe found, judged by what the network's mode promises.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use vnet_types::{Mode, NetworkName};

use super::machine::Life;
use super::serial::{STEPS, Step, Verdict};
use crate::table::{Cell, Colour, Table};

/// What a probe found. The fields and their names are stable; new ones may come.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    network: NetworkName,
    mode: Mode,
    /// Whether the network does all that it should.
    pub(crate) ok: bool,
    steps: Vec<Row>,
    /// Milliseconds from the VMM's exec to the guest's DHCPACK.
    address_ms: Option<f64>,
    /// Milliseconds from the VMM's exec to its end.
    total_ms: f64,
    /// What went wrong with the guest or the VMM, rather than with the network.
    trouble: Option<String>,
    /// vnet-vmm's own report.
    vmm: Option<Value>,
}

/// One step.
#[derive(Debug, Serialize)]
struct Row {
    step: &'static str,
    result: Verdict,
    /// How long it took, in milliseconds.
    ms: Option<f64>,
    /// What the guest learned.
    facts: BTreeMap<String, String>,
    /// Why it failed, was skipped, or is right all the same.
    reason: Option<String>,
    #[serde(skip)]
    detail: String,
    #[serde(skip)]
    holds: bool,
}

/// What the network is, and what was asked of it.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) network: NetworkName,
    pub(crate) mode: Mode,
    /// Whether the guest was told where to connect.
    pub(crate) connect: bool,
}

impl Report {
    /// Judges a machine's life.
    pub(crate) fn new(expected: &Expected, life: &Life) -> Self {
        let steps: Vec<Row> =
            STEPS.iter().map(|name| Row::new(name, life.serial.step(name), expected)).collect();
        let ms = |time: std::time::Duration| (time.as_secs_f64() * 1e4).round() / 10.0;
        Self {
            network: expected.network.clone(),
            mode: expected.mode,
            ok: life.trouble.is_none() && steps.iter().all(|row| row.holds),
            steps,
            address_ms: life.address.map(ms),
            total_ms: ms(life.total),
            trouble: life.trouble.clone(),
            vmm: life.report.clone(),
        }
    }

    /// What is wrong, in one line.
    pub(crate) fn failure(&self) -> String {
        let name = &self.network;
        if let Some(trouble) = &self.trouble {
            return format!("the probe of {name} went wrong: {trouble}");
        }
        let failed: Vec<_> = self
            .steps
            .iter()
            .filter(|row| row.result == Verdict::Failed)
            .map(|row| row.step)
            .collect();
        format!("the network {name} does not work for its guests: {} failed", failed.join(", "))
    }

    /// For people.
    pub(crate) fn render(&self) -> String {
        let mut table = Table::new(["STEP", "RESULT", "MS", "DETAIL"]);
        for row in &self.steps {
            let (word, colour) = match row.result {
                Verdict::Ok => ("ok", Colour::Green),
                Verdict::Failed => ("failed", Colour::Red),
                Verdict::Skipped => ("skipped", Colour::Yellow),
            };
            let ms = row.ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"));
            table.row([
                Cell::text(row.step),
                Cell::text(word).coloured(colour),
                Cell::number(ms),
                Cell::text(&row.detail),
            ]);
        }
        let all = format!("{:.1} ms in all", self.total_ms);
        let line = match self.address_ms {
            Some(ms) => format!("the guest had its address {ms:.1} ms after exec; {all}"),
            None => format!("the guest had no address; {all}"),
        };
        format!("{}{line}\n", table.render())
    }
}

impl Row {
    fn new(name: &'static str, step: Option<&Step>, expected: &Expected) -> Self {
        let Some(step) = step else {
            let reason = "the guest did not come so far".to_owned();
            return Self {
                step: name,
                result: Verdict::Skipped,
                ms: None,
                facts: BTreeMap::new(),
                detail: reason.clone(),
                reason: Some(reason),
                holds: false,
            };
        };
        let (result, reason) = judge(name, step, expected);
        let facts: Vec<_> =
            step.facts.iter().map(|(key, value)| format!("{key} {value}")).collect();
        let detail = match &reason {
            Some(reason) => reason.clone(),
            None => facts.join(", "),
        };
        Self {
            step: name,
            result,
            ms: step.ms,
            facts: step.facts.iter().cloned().collect(),
            holds: holds(name, result, expected),
            reason,
            detail,
        }
    }
}

/// A step's result and its reason, seen from what the mode promises.
fn judge(name: &str, step: &Step, expected: &Expected) -> (Verdict, Option<String>) {
    let said = step.reason.clone().unwrap_or_default();
    match (name, expected.mode, step.verdict) {
        ("outside", Mode::Hostonly, Verdict::Failed) => {
            (Verdict::Ok, Some(format!("closed, as a host-only network should be ({said})")))
        }
        ("outside", Mode::Hostonly, Verdict::Ok) => {
            (Verdict::Failed, Some("the outside answers, and a host-only network has none".into()))
        }
        ("gateway", Mode::Hostonly, Verdict::Skipped) => {
            (Verdict::Skipped, Some(format!("{said}: a host-only network leads nowhere")))
        }
        // Without a router, guests stay where they are.
        ("gateway", _, Verdict::Skipped) if said.contains("no router") => {
            (Verdict::Failed, Some(said))
        }
        ("outside", _, Verdict::Skipped) if !expected.connect => (
            Verdict::Skipped,
            Some(
                "this host knows no DNS server that it has a route to: name a target with --connect".into(),
            ),
        ),
        (_, _, verdict) => (verdict, step.reason.clone()),
    }
}

/// Whether a result is as good as this network can give.
fn holds(name: &str, result: Verdict, expected: &Expected) -> bool {
    match result {
        Verdict::Ok => true,
        Verdict::Failed => false,
        Verdict::Skipped => match name {
            "gateway" => expected.mode == Mode::Hostonly,
            "outside" => !expected.connect,
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::probe::serial::Serial;

    const NAT: &str = "\
vnet-guest: link ok ms=0.8 mac=52:54:00:aa:bb:cc mtu=1500
vnet-guest: dhcp ok ms=4.2 address=192.168.122.57/24 router=192.168.122.1
vnet-guest: gateway ok ms=0.3 address=192.168.122.1
vnet-guest: dns ok ms=1.1 name=gateway.default.vnet address=192.168.122.1
vnet-guest: outside ok ms=2.0 address=198.51.100.10 port=80 reply=\"HTTP/1.0 200 OK\"
vnet-guest: done ok
";

    fn report(text: &str, mode: Mode, connect: bool) -> Report {
        let mut serial = Serial::default();
        serial.feed(text.as_bytes()).unwrap();
        let life = Life {
            trouble: serial.trouble(),
            serial,
            address: Some(Duration::from_micros(41_250)),
            total: Duration::from_millis(75),
            report: None,
        };
        let expected = Expected { network: "default".parse().unwrap(), mode, connect };
        Report::new(&expected, &life)
    }

    #[test]
    fn a_network_that_works_is_a_table_of_ok() {
        let report = report(NAT, Mode::Nat, true);
        assert!(report.ok);
        assert_eq!(
            report.render(),
            "STEP     RESULT   MS  DETAIL\n\
             link     ok      0.8  mac 52:54:00:aa:bb:cc, mtu 1500\n\
             dhcp     ok      4.2  address 192.168.122.57/24, router 192.168.122.1\n\
             gateway  ok      0.3  address 192.168.122.1\n\
             dns      ok      1.1  name gateway.default.vnet, address 192.168.122.1\n\
             outside  ok      2.0  address 198.51.100.10, port 80, reply HTTP/1.0 200 OK\n\
             the guest had its address 41.3 ms after exec; 75.0 ms in all\n"
        );
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["steps"][1]["facts"]["router"], "192.168.122.1");
        assert_eq!((&json["ok"], &json["address_ms"]), (&true.into(), &41.3.into()));
    }

    #[test]
    fn a_hostonly_network_must_be_closed() {
        let closed = NAT
            .replace(
                "gateway ok ms=0.3 address=192.168.122.1",
                "gateway skipped reason=\"DHCP gave no router\"",
            )
            .replace(
                "outside ok ms=2.0 address=198.51.100.10 port=80 reply=\"HTTP/1.0 200 OK\"",
                "outside failed ms=0.1 reason=\"no route to 198.51.100.10\"",
            )
            .replace("done ok", "done failed");
        let shut = report(&closed, Mode::Hostonly, true);
        assert!(shut.ok, "{}", shut.render());
        assert!(shut.render().contains("closed, as a host-only network should be (no route"));
        let open = report(NAT, Mode::Hostonly, true);
        assert!(!open.ok);
        assert!(open.failure().ends_with("outside failed"), "{}", open.failure());
        let nat = report(&closed, Mode::Nat, true);
        assert!(nat.failure().ends_with("gateway, outside failed"), "{}", nat.failure());
    }

    #[test]
    fn where_there_is_nowhere_to_connect_to_the_rest_decides() {
        let alone = NAT.replace(
            "outside ok ms=2.0 address=198.51.100.10 port=80 reply=\"HTTP/1.0 200 OK\"",
            "outside skipped reason=\"no target was asked for\"",
        );
        assert!(report(&alone, Mode::Nat, false).ok);
        assert!(!report(&alone, Mode::Nat, true).ok);
    }

    #[test]
    fn a_guest_that_did_not_finish_is_trouble() {
        let report = report("vnet-guest: link ok ms=0.8\n", Mode::Nat, true);
        assert!(!report.ok);
        assert!(report.failure().contains("ended before it was done"), "{}", report.failure());
        assert!(report.render().contains("the guest did not come so far"));
    }
}
