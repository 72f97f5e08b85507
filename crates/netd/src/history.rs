//! What became of each client's messages: what `vnet explain` tells.
//!
//! ```text
//! services/dhcp ─► note(card, event) ─► the card's last exchanges ─► explain
//! ```
//!
//! In memory only, and bounded: so many cards on a network, so many exchanges of each. A card
//! that never had a lease goes first, so that whoever makes cards up drives out nobody's history.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use vnet_api::model::Exchange;
use vnet_dhcp::{Decision, Event, v6};
use vnet_types::MacAddr;

/// Cards of one network.
const MAX_CARDS: usize = 256;
/// Exchanges of one card.
const MAX_EXCHANGES: usize = 32;

/// What was heard of a card, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    /// DHCP has decided.
    Dhcp(Event),
    /// DHCPv6 has decided.
    Dhcp6(v6::Event),
    /// The card sent a message about another card, which a guarded port may not.
    ForOther,
    /// Another station has the address that the card was to be offered.
    Conflict {
        /// The address.
        ip: Ipv4Addr,
        /// Who has it.
        holder: MacAddr,
    },
    /// The lease could not be stored, so the answer did not leave.
    Withheld,
}

/// The histories of one network's cards, for those who write them and those who read them.
#[derive(Debug, Clone, Default)]
pub(crate) struct History(Arc<Mutex<Cards>>);

#[derive(Debug, Default)]
struct Cards {
    by_mac: BTreeMap<MacAddr, Card>,
    /// Which card was heard when, those without a lease first.
    by_age: BTreeSet<(Standing, u64, MacAddr)>,
    /// Counts what is heard.
    clock: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Standing {
    #[default]
    Stranger,
    Client,
}

#[derive(Debug, Default)]
struct Card {
    standing: Standing,
    heard_at: u64,
    entries: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Milliseconds since 1970, of the first and the last of those that are alike.
    first: u64,
    last: u64,
    times: u32,
    heard: Heard,
}

impl History {
    /// Notes what was heard of `mac` just now.
    pub(crate) fn note(&self, mac: MacAddr, heard: Heard) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        self.cards().note(mac, heard, u64::try_from(now).unwrap_or(u64::MAX));
    }

    /// What was heard of `mac`, the oldest first.
    pub(crate) fn of(&self, mac: MacAddr) -> Vec<Exchange> {
        let cards = self.cards();
        let entries = cards.by_mac.get(&mac).into_iter().flat_map(|card| &card.entries);
        entries.map(Entry::view).collect()
    }

    fn cards(&self) -> MutexGuard<'_, Cards> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cards {
    fn note(&mut self, mac: MacAddr, heard: Heard, now: u64) {
        self.clock += 1;
        if !self.by_mac.contains_key(&mac)
            && self.by_mac.len() >= MAX_CARDS
            && let Some((_, _, oldest)) = self.by_age.pop_first()
        {
            self.by_mac.remove(&oldest);
        }
        let card = self.by_mac.entry(mac).or_default();
        self.by_age.remove(&(card.standing, card.heard_at, mac));
        if heard.gives_a_lease() {
            card.standing = Standing::Client;
        }
        card.heard_at = self.clock;
        self.by_age.insert((card.standing, card.heard_at, mac));
        match card.entries.back_mut() {
            Some(last) if last.heard.is_like(&heard) => {
                (last.last, last.heard) = (now, heard);
                last.times = last.times.saturating_add(1);
            }
            _ => {
                if card.entries.len() >= MAX_EXCHANGES {
                    card.entries.pop_front();
                }
                card.entries.push_back(Entry { first: now, last: now, times: 1, heard });
            }
        }
    }
}

impl Heard {
    fn gives_a_lease(&self) -> bool {
        match self {
            Self::Dhcp(event) => matches!(event.decision, Decision::Acked { .. }),
            Self::Dhcp6(v6::Event { decision: v6::Decision::Leased { answers }, .. }) => {
                answers.iter().any(|answer| matches!(answer, v6::Answer::Given { .. }))
            }
            _ => false,
        }
    }

    /// Whether the two differ in nothing but the transaction and the time.
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dhcp(a), Self::Dhcp(b)) => {
                let same = match (&a.decision, &b.decision) {
                    (
                        Decision::Acked { ip, why, .. },
                        Decision::Acked { ip: other, why: because, .. },
                    ) => ip == other && why == because,
                    (a, b) => a == b,
                };
                same && a.kind == b.kind
                    && a.shared_with == b.shared_with
                    && a.name_refused == b.name_refused
            }
            (Self::Dhcp6(a), Self::Dhcp6(b)) => {
                // Until when leases last is in the decision, but not in its words.
                a.kind == b.kind && a.outcome() == b.outcome()
            }
            (a, b) => a == b,
        }
    }
}

impl Entry {
    fn view(&self) -> Exchange {
        let (message, answer, reason, xid) = match &self.heard {
            Heard::Dhcp(event) => {
                let answer = match &event.decision {
                    Decision::Offered { .. } => Some("OFFER"),
                    Decision::Acked { .. } | Decision::Informed { .. } => Some("ACK"),
                    Decision::Refused { .. } => Some("NAK"),
                    Decision::Released { .. }
                    | Decision::Declined { .. }
                    | Decision::Silent { .. } => None,
                };
                let message = event.kind.map(|kind| kind.to_string());
                (message, answer, event.outcome(), Some(event.xid))
            }
            Heard::Dhcp6(event) => {
                let answer = match &event.decision {
                    v6::Decision::Advertised { .. } => Some("ADVERTISE"),
                    v6::Decision::Silent { .. } => None,
                    _ => Some("REPLY"),
                };
                let message = event.kind.map(|kind| kind.to_string());
                (message, answer, event.outcome(), Some(event.xid))
            }
            Heard::ForOther => {
                (None, None, "silent: the message is about another network card".to_owned(), None)
            }
            Heard::Conflict { ip, holder } => {
                let reason = format!(
                    "{ip} was not offered after all, because {holder} answers for it; another \
                     address is looked for"
                );
                (None, None, reason, None)
            }
            Heard::Withheld => {
                let reason = "the answer was withheld, because the lease could not be stored";
                (None, None, reason.to_owned(), None)
            }
        };
        Exchange {
            first_ms: self.first,
            last_ms: self.last,
            times: self.times,
            message,
            xid,
            answer: answer.map(str::to_owned),
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use vnet_dhcp::{Choice, Kind, Silence};

    use super::*;

    fn mac(number: u16) -> MacAddr {
        let [a, b] = number.to_be_bytes();
        MacAddr([0x52, 0x54, 0, 0, a, b])
    }

    fn event(mac: MacAddr, kind: Kind, decision: Decision) -> Heard {
        let (kind, xid) = (Some(kind), 7);
        Heard::Dhcp(Event { mac, kind, xid, decision, shared_with: None, name_refused: None })
    }

    fn acked(number: u16, expires: u64) -> Heard {
        let (ip, why) = ([10, 0, 0, 2].into(), Choice::Current);
        event(mac(number), Kind::Request, Decision::Acked { ip, why, expires })
    }

    fn silent(number: u16) -> Heard {
        let why = Silence::Exhausted;
        event(mac(number), Kind::Discover, Decision::Silent { why })
    }

    #[test]
    fn what_is_alike_is_one_entry() {
        let mut cards = Cards::default();
        for (heard, at) in [(silent(1), 5), (silent(1), 9), (acked(1, 50), 20), (acked(1, 90), 30)]
        {
            cards.note(mac(1), heard, at);
        }
        let history = History(Arc::new(Mutex::new(cards)));
        let all = history.of(mac(1));
        let shape: Vec<_> = all.iter().map(|e| (e.first_ms, e.last_ms, e.times)).collect();
        assert_eq!(shape, [(5, 9, 2), (20, 30, 2)]);
        assert_eq!((all[0].message.as_deref(), all[0].answer.as_deref()), (Some("DISCOVER"), None));
        assert!(all[0].reason.starts_with("silent: every address is taken"), "{}", all[0].reason);
        assert_eq!(all[1].answer.as_deref(), Some("ACK"));
        assert_eq!(all[1].reason, "leased 10.0.0.2 because the client has it");
    }

    #[test]
    fn dhcpv6_is_told_beside_dhcpv4() {
        let mut cards = Cards::default();
        let (why, ip) = (Choice::Unused, "fd00::9".parse().unwrap());
        for (xid, expires, at) in [(1, 50, 5), (2, 90, 9)] {
            let answers = vec![v6::Answer::Given { ip, why, expires }];
            let event = v6::Event {
                mac: Some(mac(1)),
                client: None,
                kind: Some(v6::Kind::Renew),
                xid,
                decision: v6::Decision::Leased { answers },
                name_refused: None,
            };
            cards.note(mac(1), Heard::Dhcp6(event), at);
        }
        let all = History(Arc::new(Mutex::new(cards))).of(mac(1));
        assert_eq!((all.len(), all[0].times, all[0].xid), (1, 2, Some(2)));
        assert_eq!(all[0].answer.as_deref(), Some("REPLY"));
        assert_eq!(all[0].reason, "leased fd00::9 because nobody has had it yet");
    }

    #[test]
    fn a_card_keeps_its_last_exchanges() {
        let mut cards = Cards::default();
        for at in 0..100 {
            cards.note(mac(1), if at % 2 == 0 { silent(1) } else { acked(1, 0) }, at);
        }
        let entries = &cards.by_mac[&mac(1)].entries;
        assert_eq!((entries.len(), entries[MAX_EXCHANGES - 1].last), (MAX_EXCHANGES, 99));
    }

    #[test]
    fn made_up_cards_drive_out_no_clients_history() {
        let mut cards = Cards::default();
        cards.note(mac(1), acked(1, 0), 1);
        for number in 2..5000 {
            cards.note(mac(number), silent(number), 2);
        }
        assert_eq!((cards.by_mac.len(), cards.by_age.len()), (MAX_CARDS, MAX_CARDS));
        assert!(cards.by_mac.contains_key(&mac(1)) && cards.by_mac.contains_key(&mac(4999)));
    }
}
