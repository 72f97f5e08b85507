//! Times in words.

use std::time::{SystemTime, UNIX_EPOCH};

/// The largest lease time: it never ends (RFC 2131 §3.3).
const INFINITE: u64 = u32::MAX as u64;

/// Seconds since 1970.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A length of time, rounded down to its two largest units at most.
pub(crate) fn length(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let first = units.iter().position(|(unit, _)| seconds >= *unit).unwrap_or(units.len() - 1);
    let (unit, name) = units[first];
    let whole = format!("{} {name}", seconds / unit);
    // Minutes are exact enough without their seconds.
    match units.get(first + 1) {
        Some((next, name)) if unit > 60 && seconds % unit >= *next => {
            format!("{whole} {} {name}", seconds % unit / next)
        }
        _ => whole,
    }
}

/// A moment, seen from `now`; both in seconds since 1970.
pub(crate) fn from_now(moment: u64, now: u64) -> String {
    match moment.checked_sub(now) {
        // A lease for ever began in the past, and ends later than any other could.
        Some(left) if left >= INFINITE - 366 * 86_400 => "never".to_owned(),
        Some(left) => format!("in {}", length(left)),
        None => format!("{} ago", length(now - moment)),
    }
}

/// The time of day of a moment in milliseconds since 1970, in UTC.
pub(crate) fn of_day(moment_ms: u64) -> String {
    let (seconds, millis) = (moment_ms / 1000 % 86_400, moment_ms % 1000);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{millis:03}", seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_two_units_at_most() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3599, "59 min"),
            (3600, "1 h"),
            (5400, "1 h 30 min"),
            (86_400, "1 d"),
            (90_061, "1 d 1 h"),
        ] {
            assert_eq!(length(seconds), text);
        }
    }

    #[test]
    fn moments_lie_ahead_or_behind() {
        assert_eq!(from_now(1000 + 3540, 1000), "in 59 min");
        assert_eq!(from_now(1000, 1000), "in 0 s");
        assert_eq!(from_now(1000, 1120), "2 min ago");
        assert_eq!(from_now(1000 + u64::from(u32::MAX), 2000), "never");
        assert_eq!(from_now(u64::MAX, 2000), "never");
    }
}
