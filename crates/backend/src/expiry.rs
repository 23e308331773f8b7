//! From what a client writes as expiry to the store's clock.

use daemon::clock::Now;
use protocol::operation::Exptime;
use store::operation::{Expiry, Seconds};

/// Longest expiry that counts from now; anything more is a Unix time (memcached
/// `doc/protocol.txt`, "Expiration times").
const RELATIVE_SECONDS_MAX: i64 = 60 * 60 * 24 * 30;

/// A moment that has always passed.
const LONG_AGO: Seconds = Seconds(0);

pub(crate) fn expiry(exptime: Exptime, now: Now) -> Expiry {
    match exptime.0 {
        0 => Expiry::Never,
        seconds => Expiry::At(moment(seconds, now)),
    }
}

/// When a delayed flush shall happen; without a delay, at once.
pub(crate) fn flush_moment(delay: Exptime, now: Now) -> Seconds {
    match delay.0 {
        0 => seconds(now),
        delay => moment(delay, now).max(seconds(now)),
    }
}

/// The moment `after` seconds from now; a negative number is a moment that has passed.
pub(crate) fn moment_after(after: i64, now: Now) -> Seconds {
    if after < 0 {
        return LONG_AGO;
    }
    let moment = i64::from(now.since_start).saturating_add(after);
    Seconds(u32::try_from(moment).unwrap_or(u32::MAX))
}

pub(crate) fn seconds(now: Now) -> Seconds {
    Seconds(now.since_start)
}

fn moment(exptime: i64, now: Now) -> Seconds {
    let after = if exptime <= RELATIVE_SECONDS_MAX { exptime } else { exptime - now.unix };
    // A Unix time that has passed is as negative as a negative number.
    moment_after(if after == 0 { -1 } else { after }, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now { since_start: 100, unix: 1_800_000_000 };

    #[track_caller]
    fn check(exptime: i64, expected: Expiry) {
        assert_eq!(expiry(Exptime(exptime), NOW), expected);
    }

    #[test]
    fn zero_is_never() {
        check(0, Expiry::Never);
    }

    #[test]
    fn negative_has_passed() {
        check(-1, Expiry::At(LONG_AGO));
        check(i64::MIN, Expiry::At(LONG_AGO));
    }

    #[test]
    fn thirty_days_count_from_now() {
        check(1, Expiry::At(Seconds(101)));
        check(2_592_000, Expiry::At(Seconds(2_592_100)));
    }

    #[test]
    fn more_is_a_unix_time() {
        check(2_592_001, Expiry::At(LONG_AGO));
        check(1_800_000_000, Expiry::At(LONG_AGO));
        check(1_800_000_007, Expiry::At(Seconds(107)));
        check(i64::MAX, Expiry::At(Seconds(u32::MAX)));
    }

    #[test]
    fn a_flush_without_delay_is_now() {
        assert_eq!(flush_moment(Exptime(0), NOW), Seconds(100));
        assert_eq!(flush_moment(Exptime(-5), NOW), Seconds(100));
        assert_eq!(flush_moment(Exptime(5), NOW), Seconds(105));
    }
}
