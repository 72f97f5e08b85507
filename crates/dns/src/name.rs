//! Names as they are compared: lower-case wire form.

use hickory_proto::rr::Name;

/// A domain name in wire form without the root label, ASCII letters in lower case: two names are
/// the same name if and only if their keys are the same bytes (RFC 4343 §3). Lives on the stack.
pub(crate) struct Key {
    bytes: [u8; 255],
    len: usize,
    labels: usize,
}

impl Key {
    pub(crate) fn new(name: &Name) -> Self {
        let mut key = Self { bytes: [0; 255], len: 0, labels: 0 };
        for label in name.iter() {
            let end = key.len + 1 + label.len();
            // A decoded name is at most 255 bytes (RFC 1035 §2.3.4), so this always holds.
            let Some(room) = key.bytes.get_mut(key.len..end) else { break };
            room[0] = label.len() as u8;
            for (to, from) in room[1..].iter_mut().zip(label) {
                *to = from.to_ascii_lowercase();
            }
            key.len = end;
            key.labels += 1;
        }
        key
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(crate) fn labels(&self) -> usize {
        self.labels
    }

    /// The name itself, its parent, and so on to its top label; not the root.
    pub(crate) fn suffixes(&self) -> impl Iterator<Item = &[u8]> {
        suffixes(self.as_bytes())
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

/// The IPv4 address that a key below `in-addr.arpa` stands for: the last four octet labels.
/// `None` where there are fewer, or where a label is no octet as RFC 1035 §3.5 writes it.
pub(crate) fn reverse_v4(key: &[u8]) -> Option<std::net::Ipv4Addr> {
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
        Key::new(&Name::from_ascii(name).unwrap())
    }

    #[test]
    fn case_makes_no_difference() {
        assert_eq!(key("WeB.Default.VNET.").as_bytes(), key("web.default.vnet.").as_bytes());
        assert_ne!(key("web.").as_bytes(), key("wea.").as_bytes());
    }

    #[test]
    fn suffixes_end_at_the_top_label() {
        let key = key("a.b.c.");
        let all: Vec<_> = key.suffixes().collect();
        assert_eq!(all, [&b"\x01a\x01b\x01c"[..], b"\x01b\x01c", b"\x01c"]);
        assert_eq!(key.labels(), 3);
    }

    #[test]
    fn reverse_names_are_addresses_only_in_full() {
        let v4 = |name| reverse_v4(key(name).as_bytes());
        assert_eq!(v4("9.122.168.192.in-addr.arpa."), Some([192, 168, 122, 9].into()));
        assert_eq!(v4("x.9.122.168.192.in-addr.arpa."), Some([192, 168, 122, 9].into()));
        for none in [
            "122.168.192.in-addr.arpa.",
            "009.122.168.192.in-addr.arpa.",
            "256.122.168.192.in-addr.arpa.",
            "9.122.168.192.in-addr.example.",
            ".",
        ] {
            assert_eq!(v4(none), None, "{none}");
        }
    }
}
