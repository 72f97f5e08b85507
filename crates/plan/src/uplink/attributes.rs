//! The attributes of a netlink message, and the next hops of a multipath route: bytes in, bytes
//! out, nothing lost.

/// The top bits of an attribute's type are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const TYPE: u16 = 0x3fff;
/// `rtnexthop`: length, flags, weight less 1, link.
const HOP: usize = 8;

/// Attributes in their order, each with its type as it stood.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Attributes(Vec<(u16, Vec<u8>)>);

/// One next hop.
#[derive(Debug, Clone)]
pub(crate) struct Hop {
    pub(crate) flags: u8,
    weight: u8,
    pub(crate) link: u32,
    pub(crate) attributes: Attributes,
}

impl Attributes {
    pub(crate) fn parse(mut bytes: &[u8]) -> Option<Self> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
            let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
            found.push((kind, bytes.get(4..length)?.to_vec()));
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Some(Self(found))
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) {
        for (kind, value) in &self.0 {
            // What is parsed had a length of 16 bits, and what is set is short.
            let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
            to.extend(length.to_ne_bytes());
            to.extend(kind.to_ne_bytes());
            to.extend(value);
            to.resize(to.len().next_multiple_of(4), 0);
        }
    }

    pub(crate) fn get(&self, kind: u16) -> Option<&[u8]> {
        self.0.iter().find(|(found, _)| found & TYPE == kind).map(|(_, value)| value.as_slice())
    }

    pub(crate) fn u32(&self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(self.get(kind)?.try_into().ok()?))
    }

    pub(crate) fn set(&mut self, kind: u16, value: Vec<u8>) {
        match self.0.iter_mut().find(|(found, _)| found & TYPE == kind) {
            Some((_, present)) => *present = value,
            None => self.0.push((kind, value)),
        }
    }

    pub(crate) fn remove(&mut self, kinds: &[u16]) {
        self.0.retain(|(found, _)| !kinds.contains(&(found & TYPE)));
    }

    pub(crate) fn sort(&mut self) {
        self.0.sort();
    }
}

/// The next hops in the value of a `RTA_MULTIPATH`; those before the first malformed one.
pub(crate) fn hops(bytes: &[u8]) -> Vec<Hop> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while let Some((hop, length)) = hop(rest) {
        found.push(hop);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

fn hop(bytes: &[u8]) -> Option<(Hop, usize)> {
    let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
    let (flags, weight) = (*bytes.get(2)?, *bytes.get(3)?);
    let link = u32::from_ne_bytes(bytes.get(4..HOP)?.try_into().ok()?);
    let attributes = Attributes::parse(bytes.get(HOP..length)?)?;
    Some((Hop { flags, weight, link, attributes }, length))
}

/// The same next hops, each after `change`.
pub(crate) fn map_hops(bytes: &[u8], change: impl Fn(&mut Hop)) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    for mut hop in hops(bytes) {
        change(&mut hop);
        let mut inner = Vec::new();
        hop.attributes.write(&mut inner);
        all.extend(u16::try_from(HOP + inner.len()).ok()?.to_ne_bytes());
        all.extend([hop.flags, hop.weight]);
        all.extend(hop.link.to_ne_bytes());
        all.extend(inner);
    }
    Some(all)
}

/// A text as the kernel writes it, up to its NUL.
pub(crate) fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.split(|byte| *byte == 0).next()?).ok()
}

pub(crate) fn with_nul(text: &str) -> Vec<u8> {
    text.bytes().chain([0]).collect()
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string has no way to fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_malformed_is_none_and_ends() {
        assert!(Attributes::parse(&[0, 0, 0, 0]).is_none());
        assert!(Attributes::parse(&[9, 0, 1, 0, 7]).is_none());
        assert!(hops(&[0; 8]).is_empty());
        assert!(from_hex("0g").is_none());
    }

    #[test]
    fn bytes_come_back_as_they_were() {
        let bytes = [5, 0, 1, 0, 7, 0, 0, 0, 8, 0, 4, 0x80, 1, 2, 3, 4];
        let mut back = Vec::new();
        Attributes::parse(&bytes).unwrap().write(&mut back);
        assert_eq!(back, bytes);
        assert_eq!(from_hex(&to_hex(&bytes)).unwrap(), bytes);
    }
}
