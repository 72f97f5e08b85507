//! Netlink attributes as bytes.

/// All of them, with the flags taken off their kinds (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`); what
/// is malformed ends them.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first one of this kind.
pub(crate) fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// Adds one to a message.
pub(crate) fn append(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // Addresses and numbers only: short.
    to.extend(u16::try_from(value.len() + 4).unwrap_or(u16::MAX).to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_malformed_ends_them() {
        assert_eq!(find(&[0; 64], 7), None);
        assert_eq!(find(&[3, 0, 1, 0], 1), None);
        let mut bytes = Vec::new();
        append(&mut bytes, 9, &[1, 2, 3]);
        append(&mut bytes, 0x8007, &[4]);
        assert_eq!(find(&bytes, 7), Some(&[4][..]));
        assert_eq!(find(&bytes, 9), Some(&[1, 2, 3][..]));
        for length in 0..bytes.len() - 3 {
            assert_eq!(find(&bytes[..length], 7), None, "{length}");
        }
    }
}
