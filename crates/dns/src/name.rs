//! Names as they are compared: lower-case wire form.

use std::net::{IpAddr, Ipv4Addr};

/// Bytes in the longest name, with its root label (RFC 1035 §2.3.4).
pub(crate) const MAX_NAME: usize = 255;

/// A domain name in wire form without the root label, ASCII letters in lower case: two names are
/// the same name if and only if their keys are the same bytes (RFC 4343 §3). Lives on the stack.
#[derive(Clone)]
pub(crate) struct Key {
    bytes: [u8; MAX_NAME],
    len: usize,
    labels: usize,
}

impl Key {
    /// Reads an uncompressed name in wire form, up to and with its root label. `None` where it
    /// isn't one.
    pub(crate) fn read(wire: &[u8]) -> Option<Self> {
        let mut key = Self { bytes: [0; MAX_NAME], len: 0, labels: 0 };
        loop {
            let len = usize::from(*wire.get(key.len)?);
            if len == 0 {
                return Some(key);
            }
            // Room for the root label, which is not kept, must be left.
            let end = key.len + 1 + len;
            if len > 63 || end >= MAX_NAME {
                return None;
            }
            let (from, to) = (wire.get(key.len..end)?, key.bytes.get_mut(key.len..end)?);
            to.copy_from_slice(from);
            // A length is below the letters, so it may be looked at like one.
            to.make_ascii_lowercase();
            key.len = end;
            key.labels += 1;
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    pub(crate) fn labels(&self) -> usize {
        self.labels
    }

    /// The name itself, its parent, and so on to its top label; not the root.
    pub(crate) fn suffixes(&self) -> impl Iterator<Item = &[u8]> {
        suffixes(self.as_bytes())
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&text(self.as_bytes()))
    }
}

/// As [`Key::suffixes`], of a key's bytes.
pub(crate) fn suffixes(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = key;
    std::iter::from_fn(move || {
        let this = rest;
        let (&len, _) = this.split_first()?;
        rest = this.get(1 + usize::from(len)..)?;
        Some(this)
    })
}

/// The labels of a key's bytes, the top label last.
pub(crate) fn labels(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    suffixes(key).filter_map(|suffix| {
        let (&len, rest) = suffix.split_first()?;
        rest.get(..usize::from(len))
    })
}

/// A name in presentation form with its last dot, for people: `.` for the root; what is neither
/// letter, digit, hyphen nor underscore as `\DDD` (RFC 1035 §5.1).
pub(crate) fn text(key: &[u8]) -> String {
    let mut text = String::with_capacity(key.len() + 1);
    for label in labels(key) {
        for &byte in label {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
                text.push(char::from(byte));
            } else {
                text.push_str(&format!("\\{byte:03}"));
            }
        }
        text.push('.');
    }
    if text.is_empty() { ".".to_owned() } else { text }
}

/// The wire form of a name given as text without escapes, with its root label; labels that are
/// empty or too long are cut, which validated names never need.
pub(crate) fn wire(text: &str) -> Vec<u8> {
    let mut wire = Vec::with_capacity(text.len() + 2);
    for label in text.split('.').filter(|label| !label.is_empty()) {
        let label = label.as_bytes().get(..63).unwrap_or(label.as_bytes());
        wire.push(label.len() as u8);
        wire.extend_from_slice(label);
    }
    wire.push(0);
    wire
}

/// The key of a name given as text.
pub(crate) fn key_of(text: &str) -> Box<[u8]> {
    let mut key = wire(text);
    key.pop();
    key.make_ascii_lowercase();
    key.into()
}

/// The name whose PTR record names `addr`, as text (RFC 1035 §3.5, RFC 3596 §2.5).
pub(crate) fn reverse(addr: IpAddr) -> String {
    match addr {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}.")).collect::<String>() + "ip6.arpa"
        }
    }
}

/// The IPv4 address that a key below `in-addr.arpa` stands for: the last four octet labels.
/// `None` where there are fewer, or where a label is no octet as RFC 1035 §3.5 writes it.
pub(crate) fn reverse_v4(key: &[u8]) -> Option<Ipv4Addr> {
    let count = labels(key).count();
    let mut found = labels(key).skip(count.checked_sub(6)?);
    let mut octets = [0; 4];
    for octet in octets.iter_mut().rev() {
        let text = std::str::from_utf8(found.next()?).ok()?;
        if text.starts_with('+') || (text.len() > 1 && text.starts_with('0')) {
            return None;
        }
        *octet = text.parse().ok()?;
    }
    (found.next()? == b"in-addr" && found.next()? == b"arpa").then(|| octets.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::read(&wire(name)).unwrap()
    }

    #[test]
    fn case_makes_no_difference() {
        assert_eq!(key("WeB.Default.VNET").as_bytes(), key("web.default.vnet").as_bytes());
        assert_eq!(key("WeB.Default.VNET").as_bytes(), &*key_of("web.default.vnet"));
        assert_ne!(key("web").as_bytes(), key("wea").as_bytes());
    }

    #[test]
    fn what_is_no_name_is_none() {
        for bytes in [&b""[..], b"\x01", b"\x01a", b"\xc0\x0c", b"\x40a\x00"] {
            assert!(Key::read(bytes).is_none(), "{bytes:?}");
        }
        // 255 bytes with the root label, and one more.
        let longest = [[b"\x3f".as_slice(), &[b'a'; 63]].concat().repeat(3), vec![61]].concat();
        let longest = [longest, vec![b'b'; 61], vec![0]].concat();
        assert_eq!(longest.len(), 255);
        assert!(Key::read(&longest).is_some());
        assert!(Key::read(&[b"\x01x".as_slice(), &longest].concat()).is_none());
    }

    #[test]
    fn suffixes_end_at_the_top_label() {
        let key = key("a.b.c");
        let all: Vec<_> = key.suffixes().collect();
        assert_eq!(all, [&b"\x01a\x01b\x01c"[..], b"\x01b\x01c", b"\x01c"]);
        assert_eq!(key.labels(), 3);
        assert_eq!(format!("{key:?}"), "a.b.c.");
        assert_eq!(text(b"\x02a.\x01\xff"), "a\\046.\\255.");
    }

    #[test]
    fn reverse_names_are_addresses_only_in_full() {
        let v4 = |name| reverse_v4(key(name).as_bytes());
        assert_eq!(v4("9.122.168.192.in-addr.arpa"), Some([192, 168, 122, 9].into()));
        assert_eq!(v4("x.9.122.168.192.in-addr.arpa"), Some([192, 168, 122, 9].into()));
        for none in [
            "122.168.192.in-addr.arpa",
            "009.122.168.192.in-addr.arpa",
            "256.122.168.192.in-addr.arpa",
            "9.122.168.192.in-addr.example",
            "",
        ] {
            assert_eq!(v4(none), None, "{none}");
        }
        let v6 = reverse("2001:db8::f".parse().unwrap());
        assert!(v6.starts_with("f.0.0.") && v6.ends_with("8.b.d.0.1.0.0.2.ip6.arpa"), "{v6}");
    }
}
