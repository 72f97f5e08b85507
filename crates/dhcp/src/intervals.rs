//! A set of addresses kept as its maximal runs: as small as it is fragmented, however large the
//! range. Every operation costs the logarithm of the number of runs.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// A set of IPv4 addresses.
#[derive(Debug, Default)]
pub(crate) struct Intervals {
    /// First address of each run → its last one. Runs neither overlap nor touch.
    runs: BTreeMap<u32, u32>,
}

impl Intervals {
    /// Every address from `first` to `last`, both included; none if `last` comes first.
    pub(crate) fn full(first: Ipv4Addr, last: Ipv4Addr) -> Self {
        let (first, last) = (u32::from(first), u32::from(last));
        Self { runs: (first <= last).then_some((first, last)).into_iter().collect() }
    }

    /// Takes `ip` out; says whether it was in.
    pub(crate) fn remove(&mut self, ip: Ipv4Addr) -> bool {
        let ip = u32::from(ip);
        let Some((&first, &last)) = self.runs.range(..=ip).next_back() else { return false };
        if ip > last {
            return false;
        }
        if first == ip {
            self.runs.remove(&first);
        } else {
            self.runs.insert(first, ip - 1);
        }
        if ip < last {
            self.runs.insert(ip + 1, last);
        }
        true
    }

    /// Puts `ip` in.
    pub(crate) fn insert(&mut self, ip: Ipv4Addr) {
        let ip = u32::from(ip);
        let before = self.runs.range(..=ip).next_back().map(|(&first, &last)| (first, last));
        let first = match before {
            Some((_, last)) if last >= ip => return,
            Some((first, last)) if last + 1 == ip => first,
            _ => ip,
        };
        let after = ip.checked_add(1).and_then(|next| self.runs.remove(&next));
        self.runs.insert(first, after.unwrap_or(ip));
    }

    /// The first address of the set at `start` or after it, going round at the end.
    pub(crate) fn next_from(&self, start: Ipv4Addr) -> Option<Ipv4Addr> {
        let start = u32::from(start);
        if let Some((_, &last)) = self.runs.range(..=start).next_back()
            && start <= last
        {
            return Some(Ipv4Addr::from(start));
        }
        let next = self.runs.range(start..).next().or_else(|| self.runs.iter().next());
        next.map(|(&first, _)| Ipv4Addr::from(first))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_set(steps in prop::collection::vec((any::<bool>(), 0u32..24), 0..200)) {
            let at = |offset: u32| Ipv4Addr::from(0x0a00_0000 + offset);
            let mut runs = Intervals::full(at(0), at(15));
            let mut plain: BTreeSet<_> = (0..16).map(at).collect();
            for (insert, offset) in steps {
                if insert {
                    runs.insert(at(offset));
                    plain.insert(at(offset));
                } else {
                    prop_assert_eq!(runs.remove(at(offset)), plain.remove(&at(offset)));
                }
                for start in 0..26 {
                    let expected = plain.range(at(start)..).next().or(plain.first()).copied();
                    prop_assert_eq!(runs.next_from(at(start)), expected);
                }
                let touching = runs.runs.values().any(|last| runs.runs.contains_key(&(last + 1)));
                prop_assert!(!touching, "runs that touch are one run");
            }
        }
    }

    #[test]
    fn the_ends_of_the_address_space_are_ordinary() {
        let mut all = Intervals::full(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
        assert!(all.remove(Ipv4Addr::BROADCAST) && all.remove(Ipv4Addr::UNSPECIFIED));
        all.insert(Ipv4Addr::BROADCAST);
        assert_eq!(all.next_from(Ipv4Addr::BROADCAST), Some(Ipv4Addr::BROADCAST));
        assert_eq!(
            Intervals::full(Ipv4Addr::BROADCAST, Ipv4Addr::UNSPECIFIED)
                .next_from(Ipv4Addr::LOCALHOST),
            None
        );
    }
}
