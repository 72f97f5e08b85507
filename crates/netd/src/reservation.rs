//! A reservation more or less in a definition's text. All else in it stays as a person wrote it.

use std::net::IpAddr;

use toml_edit::{
    Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, Value, value,
};
use vnet_api::model::Reserve;
use vnet_types::{DnsName, MacAddr};

/// Why a text cannot be changed so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReserveError {
    /// It is no TOML.
    #[error("{0}")]
    Syntax(String),
    /// Neither address is given.
    #[error("no address is given: give one with --ip, or an IPv6 address with --ip6")]
    NoAddress,
    /// There is no table `dhcp`.
    #[error("the network has no DHCP, so nothing can be reserved: add a table [dhcp] with a range")]
    NoDhcp,
    /// There is no table `ipv6`.
    #[error(
        "the network has no IPv6, so no IPv6 address can be reserved: add a table [ipv6] with a \
         prefix"
    )]
    NoIpv6,
    /// Nothing is reserved for this address.
    #[error("nothing is reserved for {0}: `vnet show` lists what is")]
    NotReserved(MacAddr),
}

/// The tables that hold reservations.
const TABLES: [&str; 2] = ["dhcp", "ipv6"];

/// The text in which the addresses of `reserve` are reserved for `mac`. What was reserved for it
/// before is replaced; its name stays where no other is given.
pub(crate) fn reserve(text: &str, mac: MacAddr, reserve: &Reserve) -> Result<String, ReserveError> {
    let mut document = parse(text)?;
    let hostname = reserve.hostname.as_ref();
    let Reserve { ip, ip6, .. } = reserve;
    if ip.is_none() && ip6.is_none() {
        return Err(ReserveError::NoAddress);
    }
    if let Some(ip) = ip {
        reserve_in(document.get_mut("dhcp"), mac, (*ip).into(), hostname)
            .ok_or(ReserveError::NoDhcp)?;
    }
    if let Some(ip) = ip6 {
        reserve_in(document.get_mut("ipv6"), mac, (*ip).into(), hostname)
            .ok_or(ReserveError::NoIpv6)?;
    }
    Ok(document.to_string())
}

fn reserve_in(
    table: Option<&mut Item>,
    mac: MacAddr,
    ip: IpAddr,
    hostname: Option<&DnsName>,
) -> Option<()> {
    let table = table?;
    let inline = table.as_inline_table().is_some();
    let table = table.as_table_like_mut()?;
    if !table.contains_key("reservations") {
        let none = if inline {
            Item::Value(Value::Array(Array::new()))
        } else {
            Item::ArrayOfTables(ArrayOfTables::new())
        };
        table.insert("reservations", none);
    }
    let reservations = table.get_mut("reservations")?;
    match find(reservations, mac) {
        Some(index) => {
            if let Some(known) = at(reservations, index) {
                set(known, "ip", ip.to_string());
                if let Some(name) = hostname {
                    set(known, "hostname", name.to_string());
                }
            }
        }
        None => add(reservations, mac, ip, hostname),
    }
    Some(())
}

/// The text in which nothing is reserved for `mac`, neither an IPv4 nor an IPv6 address.
pub(crate) fn unreserve(text: &str, mac: MacAddr) -> Result<String, ReserveError> {
    let mut document = parse(text)?;
    let mut found = false;
    for name in TABLES {
        let table = document.get_mut(name).and_then(Item::as_table_like_mut);
        let Some(reservations) = table.and_then(|table| table.get_mut("reservations")) else {
            continue;
        };
        let Some(index) = find(reservations, mac) else { continue };
        match reservations {
            Item::ArrayOfTables(tables) => drop(tables.remove(index)),
            Item::Value(Value::Array(array)) => drop(array.remove(index)),
            _ => continue,
        }
        found = true;
    }
    if found { Ok(document.to_string()) } else { Err(ReserveError::NotReserved(mac)) }
}

fn parse(text: &str) -> Result<DocumentMut, ReserveError> {
    text.parse().map_err(|error: toml_edit::TomlError| ReserveError::Syntax(error.to_string()))
}

/// Which of the reservations is that of `mac`.
fn find(reservations: &Item, mac: MacAddr) -> Option<usize> {
    let is = |table: &dyn TableLike| {
        table.get("mac").and_then(Item::as_str).is_some_and(|text| text.parse() == Ok(mac))
    };
    match reservations {
        Item::ArrayOfTables(tables) => tables.iter().position(|table| is(table)),
        Item::Value(Value::Array(array)) => {
            array.iter().position(|value| value.as_inline_table().is_some_and(|table| is(table)))
        }
        _ => None,
    }
}

fn at(reservations: &mut Item, index: usize) -> Option<&mut dyn TableLike> {
    match reservations {
        Item::ArrayOfTables(tables) => {
            tables.get_mut(index).map(|table| table as &mut dyn TableLike)
        }
        Item::Value(Value::Array(array)) => {
            let table = array.get_mut(index)?.as_inline_table_mut()?;
            Some(table as &mut dyn TableLike)
        }
        _ => None,
    }
}

/// Sets a key, and leaves the white space and the comment around its value as they are.
fn set(table: &mut dyn TableLike, key: &str, text: String) {
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(known) => {
            let decor = known.decor().clone();
            *known = text.into();
            *known.decor_mut() = decor;
        }
        None => drop(table.insert(key, value(text))),
    }
}

fn add(reservations: &mut Item, mac: MacAddr, ip: IpAddr, hostname: Option<&DnsName>) {
    let values = [
        ("mac", Some(mac.to_string())),
        ("ip", Some(ip.to_string())),
        ("hostname", hostname.map(ToString::to_string)),
    ];
    let values = values.into_iter().filter_map(|(key, text)| Some((key, text?)));
    match reservations {
        Item::ArrayOfTables(tables) => {
            let mut table = Table::new();
            for (key, text) in values {
                table.insert(key, value(text));
            }
            tables.push(table);
        }
        Item::Value(Value::Array(array)) => {
            let mut table = InlineTable::new();
            for (key, text) in values {
                table.insert(key, text.into());
            }
            // One a line, if the others are.
            let lines = array.iter().last().and_then(|last| last.decor().prefix()?.as_str());
            let prefix = lines.filter(|prefix| prefix.contains('\n')).map(indent);
            let mut table = Value::InlineTable(table);
            match prefix {
                Some(prefix) => {
                    table.decor_mut().set_prefix(prefix);
                    array.push_formatted(table);
                    array.set_trailing_comma(true);
                }
                None => array.push(table),
            }
        }
        _ => {}
    }
}

/// The line break and the indentation of what stands before a value, without comments.
fn indent(prefix: &str) -> String {
    format!("\n{}", prefix.rsplit('\n').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn reserve(
        text: &str,
        mac: MacAddr,
        ip: Ipv4Addr,
        hostname: Option<&DnsName>,
    ) -> Result<String, ReserveError> {
        super::reserve(text, mac, &Reserve { ip: Some(ip), ip6: None, hostname: hostname.cloned() })
    }

    const DEFINITION: &str = r#"# mine
name = "default"

[dhcp] # for guests
range = "192.168.122.2-192.168.122.254"

# the database
[[dhcp.reservations]]
mac = "52:54:00:00:00:01" # its first card
ip = "192.168.122.9"   # as ever
hostname = "db"

[dns]
upstreams = []
"#;

    fn mac(last: u8) -> MacAddr {
        MacAddr([0x52, 0x54, 0, 0, 0, last])
    }

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, 122, last)
    }

    fn name(text: &str) -> DnsName {
        text.parse().unwrap()
    }

    #[test]
    fn another_reservation_stands_behind_the_others() {
        let text = reserve(DEFINITION, mac(2), ip(10), Some(&name("web"))).unwrap();
        let expected = "\n[[dhcp.reservations]]\nmac = \"52:54:00:00:00:02\"\n\
                        ip = \"192.168.122.10\"\nhostname = \"web\"\n";
        assert_eq!(text.replacen(expected, "", 1), DEFINITION, "{text}");
    }

    #[test]
    fn a_changed_reservation_keeps_its_comments_and_its_name() {
        let text = reserve(DEFINITION, mac(1), ip(11), None).unwrap();
        assert_eq!(text, DEFINITION.replace("122.9\"", "122.11\""));
        let text = reserve(DEFINITION, mac(1), ip(9), Some(&name("store"))).unwrap();
        assert_eq!(text, DEFINITION.replace("\"db\"", "\"store\""));
    }

    #[test]
    fn what_is_no_longer_reserved_leaves_all_else() {
        let text = unreserve(DEFINITION, mac(1)).unwrap();
        assert!(!text.contains("52:54") && text.contains("# mine") && text.contains("# for"));
        assert!(text.contains("[dns]\nupstreams = []\n"), "{text}");
        assert_eq!(unreserve(DEFINITION, mac(2)), Err(ReserveError::NotReserved(mac(2))));
    }

    #[test]
    fn inline_reservations_stay_inline() {
        let one = "[dhcp]\nrange = \"a\"\nreservations = [{ mac = \"52:54:00:00:00:01\", ip = \"192.168.122.9\" }]\n";
        let two = reserve(one, mac(2), ip(10), None).unwrap();
        assert!(
            two.contains("}, { mac = \"52:54:00:00:00:02\", ip = \"192.168.122.10\" }]"),
            "{two}"
        );
        assert_eq!(unreserve(&two, mac(2)).unwrap(), one);
        let lines = "[dhcp]\nreservations = [\n  { mac = \"52:54:00:00:00:01\", ip = \"192.168.122.9\" }, # db\n]\n";
        let text = reserve(lines, mac(2), ip(10), None).unwrap();
        assert!(text.contains("# db"), "{text}");
        assert!(text.contains("\n  { mac = \"52:54:00:00:00:02\""), "{text}");
        text.parse::<DocumentMut>().unwrap();
        let whole = reserve("dhcp = { range = \"a\" }\n", mac(2), ip(10), None).unwrap();
        assert!(whole.contains("reservations = [{ mac"), "{whole}");
        whole.parse::<DocumentMut>().unwrap();
    }

    #[test]
    fn the_first_reservation_makes_the_table() {
        let text = reserve("name = \"a\"\n\n[dhcp]\nrange = \"x\"\n", mac(1), ip(9), None).unwrap();
        assert!(text.contains("[[dhcp.reservations]]\nmac = "), "{text}");
        assert_eq!(reserve("name = \"a\"\n", mac(1), ip(9), None), Err(ReserveError::NoDhcp));
    }

    #[test]
    fn ipv6_addresses_stand_in_their_own_table() {
        let ip6 = |text: &str| Reserve { ip: None, ip6: text.parse().ok(), hostname: None };
        let none = super::reserve(DEFINITION, mac(1), &ip6("fd00::9"));
        assert_eq!(none, Err(ReserveError::NoIpv6));
        assert_eq!(super::reserve(DEFINITION, mac(1), &ip6("")), Err(ReserveError::NoAddress));
        let text = format!("{DEFINITION}\n[ipv6] # too\nprefix = \"fd00::/64\"\n");
        let both = Reserve { ip: Some(ip(9)), ..ip6("fd00::9") };
        let changed = super::reserve(&text, mac(1), &both).unwrap();
        let new = "\n[[ipv6.reservations]]\nmac = \"52:54:00:00:00:01\"\nip = \"fd00::9\"\n";
        assert_eq!(changed.replacen(new, "", 1), text, "{changed}");
        assert!(!unreserve(&changed, mac(1)).unwrap().contains("52:54"));
    }
}
