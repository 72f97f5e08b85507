//! What became of a guest's messages, as `vnet explain` tells it.

use vnet_api::model::Explained;
use vnet_types::MacAddr;

use crate::{Host, wait};

/// All that is known of a guest, by network.
pub fn explain(host: &Host, guest: &str) -> Vec<Explained> {
    wait(host.client().explain(guest)).unwrap()
}

/// Message, answer and reason of each exchange with the card.
pub fn timeline(host: &Host, mac: MacAddr) -> Vec<(String, String, String)> {
    let all = explain(host, &mac.to_string());
    let exchanges = all.into_iter().flat_map(|one| one.exchanges);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    exchanges.map(|e| (or_dash(e.message), or_dash(e.answer), e.reason)).collect()
}

/// Whether the card has sent `message`, had `answer` (`-` is none), for a reason that has `reason`.
pub fn heard(host: &Host, mac: MacAddr, message: &str, answer: &str, reason: &str) -> bool {
    timeline(host, mac).iter().any(|(m, a, r)| m == message && a == answer && r.contains(reason))
}

/// As [`heard`], which must be.
///
/// # Panics
/// It is not so.
#[track_caller]
pub fn assert_heard(host: &Host, mac: MacAddr, message: &str, answer: &str, reason: &str) {
    let all = timeline(host, mac);
    let is = heard(host, mac, message, answer, reason);
    assert!(is, "no {message} → {answer}: {reason} in {all:#?}");
}
