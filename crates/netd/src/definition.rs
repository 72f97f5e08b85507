//! The text of a definition: read whole, with each error at its line and column.

use toml_edit::{Item, TableLike, Value};
use vnet_types::{
    BridgedDefinition, DefinitionError, DnsError, Forward, Ipv6Error, NetworkDefinition,
};

use crate::failure::chain;

/// Reads a definition, and says what is wrong with it in words.
///
/// # Errors
/// What is wrong first, with its line and column.
pub(crate) fn parse(text: &str) -> Result<NetworkDefinition, String> {
    let network: NetworkDefinition =
        toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
    network.validate().map_err(|error| match place(text, &network, &error) {
        Some((line, column)) => format!("line {line}, column {column}: {}", chain(&error)),
        None => chain(&error),
    })?;
    Ok(network)
}

/// Reads the definition of a bridged network, likewise.
///
/// # Errors
/// What is wrong first, with its line and column where it has one.
pub(crate) fn parse_bridged(text: &str) -> Result<BridgedDefinition, String> {
    let network: BridgedDefinition =
        toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
    network.validate().map_err(|error| {
        let key = if matches!(error, DefinitionError::Mtu(_)) { "mtu" } else { "uplink" };
        let document = toml_edit::Document::parse(text).ok();
        let span = document.as_ref().and_then(|document| document.as_table().get(key)?.span());
        match span.and_then(|span| line_and_column(text, span.start)) {
            Some((line, column)) => format!("line {line}, column {column}: {}", chain(&error)),
            None => chain(&error),
        }
    })?;
    Ok(network)
}

/// The line and the column, both from 1, of what contradicts something else.
fn place(
    text: &str,
    network: &NetworkDefinition,
    error: &DefinitionError,
) -> Option<(usize, usize)> {
    let document = toml_edit::Document::parse(text).ok()?;
    let root = document.as_table();
    let in_dhcp = |key: &str| root.get("dhcp")?.as_table_like()?.get(key);
    let span = match error {
        DefinitionError::Mtu(_) => root.get("mtu")?.span(),
        DefinitionError::OwnUplink(_) => root.get("uplink")?.span(),
        DefinitionError::Range { .. } => in_dhcp("range")?.span(),
        DefinitionError::LeaseTooShort(_) => in_dhcp("lease_seconds")?.span(),
        DefinitionError::GroupMac(mac) => {
            let same = |text: &str| text.parse() == Ok(*mac);
            reservation_value(in_dhcp("reservations")?, same)
        }
        DefinitionError::Reservation { ip, .. }
        | DefinitionError::ReservedForNobody(ip)
        | DefinitionError::UntrustedClientId(ip) => {
            let same = |text: &str| text.parse() == Ok(*ip);
            reservation_value(in_dhcp("reservations")?, same)
        }
        DefinitionError::Excluded { .. } => in_dhcp("exclude")?.span(),
        DefinitionError::Ipv6Only(_) => in_dhcp("ipv6_only_seconds")?.span(),
        DefinitionError::ReservedTwice(key) => {
            let same = |text: &str| text.eq_ignore_ascii_case(key);
            reservation_value(in_dhcp("reservations")?, same)
        }
        DefinitionError::ForwardToHostonly(listen)
        | DefinitionError::ForwardAddress(listen)
        | DefinitionError::ForwardLoopback6(listen) => {
            let is = |forward: &Forward| forward.listen() == *listen;
            nth_table(root.get("forwards")?, network.forwards.iter().position(is)?)
        }
        DefinitionError::ForwardTarget { forward, .. }
        | DefinitionError::ForwardTarget6 { forward, .. }
        | DefinitionError::ForwardFamilies(forward)
        | DefinitionError::ForwardWithoutIpv6(forward)
        | DefinitionError::ForwardLength { forward } => last_forward(root, network, forward),
        DefinitionError::ForwardsOverlap { second, .. } => last_forward(root, network, second),
        DefinitionError::TooManyForwards(_) => nth_table(root.get("forwards")?, 0),
        DefinitionError::Dns(error) => place_in_dns(root.get("dns")?, error),
        DefinitionError::Ipv6(error) => place_in_ipv6(root.get("mtu"), root.get("ipv6")?, error),
    }?;
    line_and_column(text, span.start)
}

fn line_and_column(text: &str, at: usize) -> Option<(usize, usize)> {
    let before = text.get(..at)?;
    let line = before.rsplit('\n').next()?;
    Some((before.matches('\n').count() + 1, line.chars().count() + 1))
}

/// Where the last forward stands that is this one.
fn last_forward(
    root: &toml_edit::Table,
    network: &NetworkDefinition,
    forward: &Forward,
) -> Option<std::ops::Range<usize>> {
    let place = network.forwards.iter().rposition(|other| other == forward)?;
    nth_table(root.get("forwards")?, place)
}

/// Where the key stands that is wrong; a name may be in any of the tables.
fn place_in_dns(dns: &Item, error: &DnsError) -> Option<std::ops::Range<usize>> {
    let dns = dns.as_table_like()?;
    let (table, name) = error.place();
    let tables = dns.iter().filter(|(key, _)| table.is_empty() || *key == table);
    tables.filter_map(|(_, item)| item.as_table_like()).find_map(|names| {
        let (key, item) = names.get_key_value(name)?;
        key.span().or_else(|| item.span())
    })
}

fn place_in_ipv6(
    mtu: Option<&Item>,
    ipv6: &Item,
    error: &Ipv6Error,
) -> Option<std::ops::Range<usize>> {
    let table = ipv6.as_table_like()?;
    match error {
        Ipv6Error::Mtu(_) => mtu.unwrap_or(ipv6).span(),
        Ipv6Error::SlaacPrefix(_) => table.get("prefix")?.span(),
        Ipv6Error::NoAddresses => table.get("slaac")?.span(),
        Ipv6Error::LeaseTooShort(_) => table.get("lease_seconds")?.span(),
        Ipv6Error::Range { .. } => table.get("range")?.span(),
        Ipv6Error::Reservation { mac, .. } | Ipv6Error::GroupMac(mac) => {
            reservation_value(table.get("reservations")?, |text| text.parse() == Ok(*mac))
        }
        Ipv6Error::ReservedTwice(key) => {
            // An address is the same in any of its spellings.
            let same = |text: &str| {
                let address = text.parse::<std::net::Ipv6Addr>();
                address.map_or_else(|_| text.to_ascii_lowercase(), |ip| ip.to_string()) == *key
            };
            reservation_value(table.get("reservations")?, same)
        }
    }
}

/// Where the table is that has this place, from 0, among those of `item`.
fn nth_table(item: &Item, place: usize) -> Option<std::ops::Range<usize>> {
    match item {
        Item::ArrayOfTables(tables) => tables.get(place)?.span(),
        Item::Value(Value::Array(array)) => array.get(place)?.span(),
        _ => None,
    }
}

/// Where the last value in a reservation is that `wanted` says is the one.
fn reservation_value(item: &Item, wanted: impl Fn(&str) -> bool) -> Option<std::ops::Range<usize>> {
    reservations(item)
        .flat_map(|reservation| reservation.iter())
        .filter(|(_, value)| value.as_str().is_some_and(&wanted))
        .filter_map(|(_, value)| value.span())
        .last()
}

/// The reservations, in whichever of its two forms TOML has them.
fn reservations(item: &Item) -> impl Iterator<Item = &dyn TableLike> {
    let tables = item.as_array_of_tables().into_iter().flatten();
    let inline = item.as_array().into_iter().flatten().filter_map(Value::as_inline_table);
    tables.map(|table| table as &dyn TableLike).chain(inline.map(|table| table as &dyn TableLike))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: &str = r#"# the network of all guests
name = "default"
mode = "nat"
bridge = "virbr0"
subnet = "192.168.122.0/24"
domain = "default.vnet"
mtu = 1500

[dhcp]
range = "192.168.122.2-192.168.122.254"
reservations = [
  { mac = "52:54:00:00:00:01", ip = "192.168.122.9" },
]

"#;

    fn wrong(from: &str, to: &str) -> String {
        assert!(DEFAULT.contains(from));
        parse(&DEFAULT.replace(from, to)).unwrap_err()
    }

    #[test]
    fn what_fits_is_read() {
        assert_eq!(parse(DEFAULT).unwrap().bridge.as_str(), "virbr0");
    }

    #[test]
    fn what_is_no_toml_and_what_is_no_value_have_a_place() {
        assert!(wrong("mtu = 1500", "mtu = ").contains("line 7, column 7"));
        assert!(wrong("mtu = 1500", "mut = 1500").contains("line 7, column 1"));
        assert!(wrong("\"nat\"", "\"net\"").contains("line 3, column 8"));
    }

    #[test]
    fn what_contradicts_something_else_has_a_place() {
        assert!(wrong("mtu = 1500", "mtu = 99").starts_with("line 7, column 7: an MTU of 99"));
        let range = wrong("122.254", "123.254");
        assert!(range.starts_with("line 10, column 9: the DHCP range"), "{range}");
        let outside = wrong("192.168.122.9", "10.0.0.9");
        assert!(
            outside.starts_with("line 12, column 37: the reservation of 10.0.0.9"),
            "{outside}"
        );
        let twice =
            wrong(" },\n", " },\n  { mac = \"52:54:00:00:00:02\", ip = \"192.168.122.9\" },\n");
        assert!(
            twice.starts_with("line 13, column 37: 192.168.122.9 is reserved twice"),
            "{twice}"
        );
        let short = wrong("[dhcp]\n", "[dhcp]\nlease_seconds = 1\n");
        assert!(short.starts_with("line 10, column 17: a lease of 1"), "{short}");
        let forward = wrong("]\n\n", "]\n\n[[forwards]]\nport = 80\ntarget = \"10.0.0.9\"\n");
        assert!(forward.starts_with("line 15, column 1: 80/tcp to 10.0.0.9"), "{forward}");
        let ipv6 = "]\n\n[ipv6]\nprefix = \"fd00::/96\"\n";
        let slaac = wrong("]\n\n", ipv6);
        assert!(slaac.starts_with("line 16, column 10: guests can make their own"), "{slaac}");
        let small = wrong("]\n\n", "]\n\n[ipv6]\nprefix = \"fd00::/64\"\nlease_seconds = 9\n");
        assert!(small.starts_with("line 17, column 17: an IPv6 lease of 9"), "{small}");
        let dns = |text: &str| wrong("]\n\n", &format!("]\n\n[dns]\n{text}\n"));
        let outside = dns("[dns.cname]\nwww = \"www.example.com\"");
        assert!(outside.starts_with("line 17, column 1: the alias `www` leads to"), "{outside}");
        let more = dns("cname.www = \"web\"\nhosts.www = [\"192.168.122.9\"]");
        assert!(more.starts_with("line 16, column 7: `www` is an alias and has"), "{more}");
        let empty = dns("srv.\"_http._tcp\" = []");
        assert!(empty.starts_with("line 16, column 5: `_http._tcp` has no records"), "{empty}");
        let server = dns("upstreams = [\"dns.example\"]");
        assert!(server.contains("line 16") && server.contains("is no server"), "{server}");
        let tables = wrong(
            "reservations = [\n  { mac = \"52:54:00:00:00:01\", ip = \"192.168.122.9\" },\n]\n",
            "[[dhcp.reservations]]\nmac = \"53:54:00:00:00:01\"\nip = \"192.168.122.9\"\n",
        );
        assert!(tables.starts_with("line 12, column 7: 53:54:00:00:00:01 is a group"), "{tables}");
    }
}
