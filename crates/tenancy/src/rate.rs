//! How fast a cache may be used, and until when it must wait.
//!
//! What is used is charged after it was served, and whoever is in debt waits: so a rate is kept
//! exactly in the long run, and no request need be sized up before it is known. It is the generic
//! cell rate algorithm (ITU-T I.371) turned round, with the limit looked at before the next piece of
//! work instead of the one that is charged.
//!
//! ```text
//!         saved up (at most BURST)          debt: nothing is served until it is paid
//!        ◀───────────────────────▶        ◀──────────────▶
//!   ─────┼───────────────────────┼────────┼──────────────┼───▶ time
//!     now − BURST              now       now          paid until
//! ```
//!
//! Pure but for its atomics: time comes in. All who use a cache in one process share its meters;
//! orderings are relaxed, because a charge that is seen a moment late is only a moment's overdraft.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// What a cache that was idle may use at once, as time at its rate. Long enough that a page that asks
/// for fifty things at once does not feel a limit of a thousand per second; short enough that a flood
/// is held within the second in which it begins.
const BURST_NS: u64 = 100_000_000;

const SECOND_NS: u64 = 1_000_000_000;

/// What one resource of one cache has used.
#[derive(Debug, Default)]
pub struct Meter {
    /// The moment until which all that was used is paid for, in nanoseconds of the process's time.
    paid_until_ns: AtomicU64,
}

impl Meter {
    /// Charges `amount` at a rate of `per_second`; 0 is no limit.
    #[inline]
    pub fn charge(&self, amount: u64, per_second: u64, now_us: u64) {
        if per_second == 0 || amount == 0 {
            return;
        }
        let cost_ns = (u128::from(amount) * u128::from(SECOND_NS)).div_ceil(per_second.into());
        let cost_ns = u64::try_from(cost_ns).unwrap_or(u64::MAX);
        let oldest = nanoseconds(now_us).saturating_sub(BURST_NS);
        let charged = |paid_until: u64| Some(paid_until.max(oldest).saturating_add(cost_ns));
        // It never fails: every value can be charged.
        self.paid_until_ns.fetch_update(Relaxed, Relaxed, charged).ok();
    }

    /// Until when nothing more may be used, in microseconds; `None` when something may be now.
    #[inline]
    pub fn held_until(&self, per_second: u64, now_us: u64) -> Option<u64> {
        if per_second == 0 {
            return None;
        }
        let paid_until_us = self.paid_until_ns.load(Relaxed).div_ceil(1_000);
        (now_us < paid_until_us).then_some(paid_until_us)
    }
}

fn nanoseconds(us: u64) -> u64 {
    us.saturating_mul(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that always wants more: pieces of `piece`, each as soon as it may.
    fn used(meter: &Meter, per_second: u64, piece: u64, from_us: u64, for_us: u64) -> u64 {
        let (mut now, mut used) = (from_us, 0);
        while now < from_us + for_us {
            match meter.held_until(per_second, now) {
                Some(until) => now = until,
                None => {
                    meter.charge(piece, per_second, now);
                    used += piece;
                }
            }
        }
        used
    }

    #[test]
    fn a_greedy_cache_gets_its_rate_whatever_the_size_of_its_pieces() {
        for (per_second, pieces) in [
            (7, [1, 64, 1_000]),
            (1_000, [1, 64, 1_000]),
            (50_000, [1, 64, 1_000]),
            (1 << 30, [1 << 16, 1 << 20, 1 << 26]),
        ] {
            for piece in pieces {
                let seconds = 60;
                let used =
                    used(&Meter::default(), per_second, piece, 5_000_000, seconds * 1_000_000);
                let allowed = per_second * seconds;
                let slack = per_second / 5 + 2 * piece;
                assert!(
                    allowed <= used + slack && used <= allowed + slack,
                    "{used} of {allowed} in pieces of {piece}"
                );
                if piece * 100 < per_second {
                    assert!(used.abs_diff(allowed) * 20 <= allowed, "within 5 %: {used}");
                }
            }
        }
    }

    #[test]
    fn what_is_saved_up_is_a_moment_and_no_more() {
        let meter = Meter::default();
        let hour = 3_600_000_000;
        meter.charge(1, 1_000, 1);
        // After an hour of rest: a tenth of a second's worth at once.
        let mut at_once = 0;
        while meter.held_until(1_000, hour).is_none() {
            meter.charge(1, 1_000, hour);
            at_once += 1;
        }
        assert!((100..=101).contains(&at_once), "{at_once}");
        assert_eq!(meter.held_until(1_000, hour + 1_000), None, "one is paid for per millisecond");
    }

    #[test]
    fn without_a_limit_nothing_is_held_and_nothing_is_owed() {
        let meter = Meter::default();
        meter.charge(u64::MAX, 0, 7);
        assert_eq!(meter.held_until(0, 7), None);
        assert_eq!(meter.held_until(1, 7), None);
        // A debt made under a low limit is no debt without one.
        meter.charge(1_000, 1, 7);
        assert!(meter.held_until(1, 8).is_some());
        assert_eq!(meter.held_until(0, 8), None);
    }
}
