//! A set of addresses kept as its maximal runs: as small as it is fragmented, however large the
//! range. Every operation costs the logarithm of the number of runs.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

/// An address that knows its neighbours.
pub(crate) trait Address: Copy + Ord {
    /// The next higher address; none after the highest one.
    fn next(self) -> Option<Self>;
    /// The next lower address; none before the lowest one.
    fn previous(self) -> Option<Self>;
}

impl Address for Ipv4Addr {
    fn next(self) -> Option<Self> {
        u32::from(self).checked_add(1).map(Self::from)
    }

    fn previous(self) -> Option<Self> {
        u32::from(self).checked_sub(1).map(Self::from)
    }
}

impl Address for Ipv6Addr {
    fn next(self) -> Option<Self> {
        u128::from(self).checked_add(1).map(Self::from)
    }

    fn previous(self) -> Option<Self> {
        u128::from(self).checked_sub(1).map(Self::from)
    }
}

/// A set of addresses.
#[derive(Debug)]
pub(crate) struct Intervals<A> {
    /// First address of each run → its last one. Runs neither overlap nor touch.
    runs: BTreeMap<A, A>,
}

impl<A> Default for Intervals<A> {
    fn default() -> Self {
        Self { runs: BTreeMap::new() }
    }
}

impl<A: Address> Intervals<A> {
    /// Every address from `first` to `last`, both included; none if `last` comes first.
    pub(crate) fn full(first: A, last: A) -> Self {
        Self { runs: (first <= last).then_some((first, last)).into_iter().collect() }
    }

    /// Takes `ip` out; says whether it was in.
    pub(crate) fn remove(&mut self, ip: A) -> bool {
        let Some((&first, &last)) = self.runs.range(..=ip).next_back() else { return false };
        if ip > last {
            return false;
        }
        match ip.previous() {
            Some(before) if first < ip => drop(self.runs.insert(first, before)),
            _ => drop(self.runs.remove(&first)),
        }
        if let Some(after) = ip.next()
            && ip < last
        {
            self.runs.insert(after, last);
        }
        true
    }

    /// Takes every address from `first` to `last` out, both included.
    pub(crate) fn remove_all(&mut self, first: A, last: A) {
        let touched: Vec<_> = self
            .runs
            .range(..=last)
            .rev()
            .map(|(&from, &to)| (from, to))
            .take_while(|&(_, to)| to >= first)
            .collect();
        for (from, to) in touched {
            self.runs.remove(&from);
            if let Some(before) = first.previous()
                && from < first
            {
                self.runs.insert(from, before);
            }
            if let Some(after) = last.next()
                && to > last
            {
                self.runs.insert(after, to);
            }
        }
    }

    /// Puts `ip` in.
    pub(crate) fn insert(&mut self, ip: A) {
        let before = self.runs.range(..=ip).next_back().map(|(&first, &last)| (first, last));
        let first = match before {
            Some((_, last)) if last >= ip => return,
            Some((first, last)) if last.next() == Some(ip) => first,
            _ => ip,
        };
        let after = ip.next().and_then(|next| self.runs.remove(&next));
        self.runs.insert(first, after.unwrap_or(ip));
    }

    /// The first address of the set at `start` or after it, going round at the end.
    pub(crate) fn next_from(&self, start: A) -> Option<A> {
        if let Some((_, &last)) = self.runs.range(..=start).next_back()
            && start <= last
        {
            return Some(start);
        }
        let next = self.runs.range(start..).next().or_else(|| self.runs.iter().next());
        next.map(|(&first, _)| first)
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
                if offset % 7 == 0 && !insert {
                    let last = at(offset + 3);
                    runs.remove_all(at(offset), last);
                    plain.retain(|ip| !(at(offset)..=last).contains(ip));
                } else if insert {
                    runs.insert(at(offset));
                    plain.insert(at(offset));
                } else {
                    prop_assert_eq!(runs.remove(at(offset)), plain.remove(&at(offset)));
                }
                for start in 0..26 {
                    let expected = plain.range(at(start)..).next().or(plain.first()).copied();
                    prop_assert_eq!(runs.next_from(at(start)), expected);
                }
                let touching = runs
                    .runs
                    .values()
                    .any(|last| last.next().is_some_and(|next| runs.runs.contains_key(&next)));
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
