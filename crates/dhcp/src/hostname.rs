//! Names that clients call themselves by: one DNS label, or nothing.
//!
//! A name goes into the zone, into listings and into other guests' resolvers, so what is no
//! label is dropped, not repaired: a repaired name could be another guest's.

use vnet_types::DnsName;

/// Names that would redirect other guests if a client could take them: `localhost` is every
/// host's own (RFC 6761 §6.3), `wpad` and `isatap` configure those who look them up.
const REFUSED: [&str; 3] = ["localhost", "wpad", "isatap"];

/// E bit of option 81: the name is in DNS wire format (RFC 4702 §2.1).
const FQDN_ENCODED: u8 = 0x04;

/// The label in option 12 (RFC 2132 §3.14): the first one of a qualified name, in lower case.
pub(crate) fn from_option_12(bytes: &[u8]) -> Option<DnsName> {
    // Windows ends the name with NUL, against RFC 2132 §2.
    let end = bytes.iter().rposition(|&b| b != 0)?;
    let text = bytes.get(..=end)?;
    label(text.split(|&b| b == b'.').next()?)
}

/// The label in option 81 (RFC 4702 §2): the first one of the name.
pub(crate) fn from_option_81(bytes: &[u8]) -> Option<DnsName> {
    // Flags, two obsolete bytes, the name (RFC 4702 §2).
    let (&flags, name) = (bytes.first()?, bytes.get(3..)?);
    if flags & FQDN_ENCODED == 0 {
        return from_option_12(name);
    }
    from_wire(name)
}

/// The label in the name of DHCPv6's option 39 (RFC 4704 §4): the first one.
pub(crate) fn from_option_39(bytes: &[u8]) -> Option<DnsName> {
    from_wire(bytes.get(1..)?)
}

/// The first label of a name in DNS wire format, whole or partial.
fn from_wire(name: &[u8]) -> Option<DnsName> {
    // Compression is not allowed here (RFC 4702 §2.3.1, RFC 4704 §4.2), so a length above 63 is
    // an error.
    let (&length, rest) = name.split_first()?;
    if length > 63 {
        return None;
    }
    label(rest.get(..usize::from(length))?)
}

fn label(bytes: &[u8]) -> Option<DnsName> {
    let text = std::str::from_utf8(bytes).ok()?.to_ascii_lowercase();
    if text.contains('.') || REFUSED.contains(&text.as_str()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option_12(bytes: &[u8]) -> Option<String> {
        from_option_12(bytes).map(String::from)
    }

    #[test]
    fn a_name_becomes_its_first_label_in_lower_case() {
        assert_eq!(option_12(b"Web").as_deref(), Some("web"));
        assert_eq!(option_12(b"web.example.org\0\0").as_deref(), Some("web"));
    }

    #[test]
    fn what_is_no_label_is_dropped() {
        let long = [b'a'; 64];
        for bad in [
            &b""[..],
            b"\0",
            b".",
            b"-a",
            b"a b",
            b"a_b",
            b"a\0b",
            b"\xff",
            &long,
            b"wpad",
            b"LOCALHOST",
        ] {
            assert_eq!(option_12(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_qualified_name_is_read_in_both_encodings() {
        let name = |bytes: &[u8]| from_option_81(bytes).map(String::from);
        assert_eq!(name(b"\x00\x00\x00web.example").as_deref(), Some("web"));
        assert_eq!(name(b"\x05\x00\x00\x03Web\x07example\x00").as_deref(), Some("web"));
        assert_eq!(name(b"\x04\x00\x00\x03web").as_deref(), Some("web"));
        for bad in [
            &b""[..],
            b"\x04",
            b"\x04\0\0",
            b"\x04\0\0\xc0\x0c",
            b"\x04\0\0\x05web",
            b"\x04\0\0\x03a.b",
        ] {
            assert_eq!(name(bad), None, "{bad:?}");
        }
    }
}
