//! Answers from the zone: authoritative, with EDNS where the request has it, cut to what fits.

use crate::name::Key;
use crate::wire::{OPT_LEN, Query, flag, put_u16, rcode};
use crate::zone::{Answer, RECORD_HEAD, Zone};

/// Aliases that are followed for one query. A definition has no circles; this is for its end.
const MAX_ALIASES: usize = 8;

/// Where an answer's header counts its answers, and its authority records.
const ANSWERS: usize = 6;
const AUTHORITY: usize = 8;

/// Writes what the zone knows. `false` where somebody else is to be asked.
pub(super) fn answer(zone: &Zone, query: &Query, out: &mut Vec<u8>) -> bool {
    query.begin(flag::AA | flag::RA, out);
    let mut answers = 0_u16;
    // The alias that leads further, and where its target's name stands in the answer.
    let mut alias: Option<(Key, usize)> = None;
    for _ in 0..=MAX_ALIASES {
        let owner = alias.as_ref().map(|(_, at)| *at);
        let name = alias.as_ref().map_or(&query.key, |(key, _)| key);
        let (code, soa) = match zone.lookup(name, query.rtype) {
            Answer::Records(set) => {
                set.write(owner, out);
                answers = answers.saturating_add(set.count);
                (rcode::NOERROR, None)
            }
            Answer::Alias(set) => {
                let target = out.len() + RECORD_HEAD;
                set.write(owner, out);
                answers = answers.saturating_add(1);
                match set.data().next().and_then(Key::read) {
                    Some(key) => {
                        alias = Some((key, target));
                        continue;
                    }
                    None => (rcode::NOERROR, None),
                }
            }
            Answer::NoData(soa) => (rcode::NOERROR, Some(soa)),
            Answer::NxDomain(soa) => (rcode::NXDOMAIN, Some(soa)),
            Answer::NotOurs if answers == 0 => return false,
            Answer::NotOurs => (rcode::NOERROR, None),
        };
        if let Some(soa) = soa {
            out.extend_from_slice(soa.as_bytes());
            put_u16(out, AUTHORITY, 1);
        }
        let opt = if query.edns.is_some() { OPT_LEN } else { 0 };
        if out.len() + opt > query.limit {
            query.truncated(flag::AA | flag::RA, code, out);
            return true;
        }
        put_u16(out, 2, query.reply_flags(flag::AA | flag::RA) | code);
        put_u16(out, ANSWERS, answers);
        query.end(code, 0, &[], out);
        return true;
    }
    query.error(rcode::SERVFAIL, out);
    true
}
