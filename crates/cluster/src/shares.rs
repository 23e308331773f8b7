//! How the memory of one cache is divided over the backends of its cluster.
//!
//! A cache has one limit, on the *sum* of what all backends hold of it. A fixed share for each would
//! be full at one backend long before the sum is: keys do not fall evenly, and sizes less so. So
//! shares follow what is held. Every second or so each backend reports, and is told its share:
//!
//! ```text
//!   sum below the limit (filling):   share = held + what is free, by slots + slack
//!   sum at the limit or above:       share = held − its part of what is too much
//!                                    and who evicts with less than a fair part gets some of those
//!                                    with more
//! ```
//!
//! *Slack* is there because two reports are a second apart: in it, a backend may get more than its
//! part of the new items. Four standard deviations of that, which is large while much is free, and
//! nothing when nothing is. So the sum may exceed the limit by the slack for a second or two at the
//! moment when the cache becomes full, and never for longer.
//!
//! What is too much is taken in whole items: a backend whose items are a megabyte each cannot give
//! back a kilobyte, so one of them gives a whole item for all the others.
//!
//! Pure, and the same figures give the same shares everywhere. Figures and simulation:
//! `docs/decisions/0022-shares-follow-what-is-held.md`.

/// What one backend says of its part of a cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Part {
    /// Key and value bytes held.
    pub bytes: u64,
    pub items: u64,
    /// Items dropped for want of room since the last report.
    pub evicted_items: u64,
    /// Slots of the cluster that it serves.
    pub slots: u32,
}

/// Variance of item sizes over the square of their mean, plus one: that of a lognormal distribution
/// with σ = 1.25, wider than most caches have. Too large costs a moment's excess, too small an early
/// eviction.
const SPREAD: f64 = 5.0;
/// Standard deviations by which a backend may be ahead of its part. Sizes have long tails: three
/// would do for a normal distribution and fifty backends.
const DEVIATIONS: f64 = 4.0;
/// Most that all slack together may be: of the limit …
const SLACK_MAX: f64 = 0.25;
/// … or of what is free, if that is more: while much is free, one backend's luck is no danger to the
/// sum. Also what a cache of which nothing is known yet gets as slack.
const SLACK_OF_FREE: f64 = 0.5;
/// Most that changes hands in one round between backends of a full cache, of the limit: so that a
/// cache needs a minute to follow a change of what is asked, and one bad second does little harm.
const MOVED_MAX: f64 = 0.01;

/// The share of each part: how many key and value bytes it may hold until the next round.
///
/// Their sum is `limit_bytes` when the cache is full (but for less than one item). While it fills it
/// is more by the slack: at most a quarter of the limit, or half of what is free.
pub fn shares(limit_bytes: u64, parts: &[Part]) -> Vec<u64> {
    let held: u64 = parts.iter().map(|part| part.bytes).sum();
    if held < limit_bytes {
        let free = limit_bytes - held;
        let is_full = parts.iter().any(|part| part.evicted_items > 0);
        let shares = while_filling(free, limit_bytes, parts, !is_full);
        if is_full { evened(limit_bytes, parts, shares) } else { shares }
    } else {
        let shares = without_excess(held - limit_bytes, held, parts);
        evened(limit_bytes, parts, shares)
    }
}

/// The share of a backend that joins, before anyone has reported: its part by slots, and half as
/// much again.
pub fn first_share(limit_bytes: u64, slots: u32, slots_of_all: u32) -> u64 {
    let share = part_by_slots(limit_bytes, slots, slots_of_all);
    share + (share as f64 * SLACK_OF_FREE) as u64
}

fn part_by_slots(bytes: u64, slots: u32, slots_of_all: u32) -> u64 {
    let part = u128::from(bytes) * u128::from(slots) / u128::from(slots_of_all.max(1));
    u64::try_from(part).expect("a part of a u64")
}

fn while_filling(free: u64, limit_bytes: u64, parts: &[Part], with_slack: bool) -> Vec<u64> {
    let slots: u32 = parts.iter().map(|part| part.slots).sum();
    let items: u64 = parts.iter().map(|part| part.items).sum();
    let held: u64 = parts.iter().map(|part| part.bytes).sum();
    let room = |part: &Part| part_by_slots(free, part.slots, slots);
    // The sum of n items of mean m and variance (SPREAD − 1)·m² that come by chance has the
    // variance n·m²·SPREAD; and n·m is the room.
    let slack = |part: &Part| match held.checked_div(items) {
        Some(mean) => DEVIATIONS * (SPREAD * mean as f64 * room(part) as f64).sqrt(),
        None => SLACK_OF_FREE * room(part) as f64,
    };
    let slack_of_all: f64 = parts.iter().map(slack).sum();
    let most = (SLACK_MAX * limit_bytes as f64).max(SLACK_OF_FREE * free as f64);
    let cut = (most / slack_of_all.max(1.0)).min(1.0);
    parts
        .iter()
        .map(|part| {
            let slack = if with_slack { slack(part) * cut } else { 0.0 };
            part.bytes + room(part) + slack as u64
        })
        .collect()
}

/// Takes `excess` bytes from all in proportion to what they hold, in whole items.
fn without_excess(excess: u64, held: u64, parts: &[Part]) -> Vec<u64> {
    let mut owed = Owed::default();
    parts
        .iter()
        .map(|part| {
            let due = excess as f64 * part.bytes as f64 / held.max(1) as f64;
            part.bytes - owed.pay(due, part)
        })
        .collect()
}

/// Gives to those who evict and have less than a fair part, from those who have more.
fn evened(limit_bytes: u64, parts: &[Part], shares: Vec<u64>) -> Vec<u64> {
    let slots: u32 = parts.iter().map(|part| part.slots).sum();
    let fair = |part: &Part| part_by_slots(limit_bytes, part.slots, slots);
    let wanted = |(part, &share): (&Part, &u64)| {
        let evicted = part.evicted_items * (part.bytes / part.items.max(1));
        evicted.min(fair(part).saturating_sub(share))
    };
    let spare = |(part, &share): (&Part, &u64)| share.min(part.bytes).saturating_sub(fair(part));
    let wanted_of_all: u64 = parts.iter().zip(&shares).map(wanted).sum();
    let spare_of_all: u64 = parts.iter().zip(&shares).map(spare).sum();
    let most = (MOVED_MAX * limit_bytes as f64) as u64;
    let moved = wanted_of_all.min(spare_of_all).min(most);
    if moved == 0 {
        return shares;
    }
    let mut owed = Owed::default();
    let taken: Vec<u64> = parts
        .iter()
        .zip(&shares)
        .map(|(part, share)| {
            let due = moved as f64 * spare((part, share)) as f64 / spare_of_all as f64;
            owed.pay(due, part).min(*share)
        })
        .collect();
    let given: u64 = taken.iter().sum();
    parts
        .iter()
        .zip(&shares)
        .zip(&taken)
        .map(|((part, share), taken)| {
            let part_of_given = given as f64 * wanted((part, share)) as f64 / wanted_of_all as f64;
            share - taken + part_of_given as u64
        })
        .collect()
}

/// What is still to be taken, carried from one backend to the next until it makes an item.
#[derive(Default)]
struct Owed(f64);

impl Owed {
    /// What this part gives, in whole items of its mean size.
    fn pay(&mut self, due: f64, part: &Part) -> u64 {
        self.0 += due;
        if part.items == 0 {
            return 0;
        }
        let item = (part.bytes as f64 / part.items as f64).max(1.0);
        // Parts of a whole need not add up to it again; a byte is no reason to keep an item.
        let items = ((self.0 + 1.0) / item).floor();
        let paid = (items.max(0.0) * item).round().min(part.bytes as f64);
        self.0 -= paid;
        paid as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::{Strategy, prop_assert, proptest};

    const MB: u64 = 1 << 20;

    fn part(bytes: u64, items: u64, evicted_items: u64) -> Part {
        Part { bytes, items, evicted_items, slots: 100 }
    }

    #[test]
    fn an_empty_cache_is_shared_by_slots() {
        let parts = [Part { slots: 1, ..Part::default() }, Part { slots: 3, ..Part::default() }];
        assert_eq!(shares(400, &parts), [150, 450]);
        assert_eq!(first_share(400, 3, 4), 450);
    }

    #[test]
    fn what_is_free_goes_on_top_of_what_is_held() {
        let parts = [part(6 * MB, 6_000, 0), part(2 * MB, 2_000, 0)];
        let shares = shares(10 * MB, &parts);
        assert!(7 * MB < shares[0] && shares[0] < 8 * MB + MB / 2, "{shares:?}");
        assert!(3 * MB < shares[1] && shares[1] < 4 * MB + MB / 2, "{shares:?}");
    }

    #[test]
    fn a_full_cache_has_no_slack() {
        let parts = [part(6 * MB, 6_000, 0), part(4 * MB, 4_000, 0)];
        assert_eq!(shares(10 * MB, &parts), [6 * MB, 4 * MB]);
    }

    #[test]
    fn too_much_is_taken_in_whole_items() {
        // 26 items of a megabyte where 25 are paid for: one goes, not a little of each.
        let parts = vec![part(MB, 1, 0); 26];
        let shares = shares(25 * MB, &parts);
        assert_eq!(shares.iter().filter(|&&share| share == MB).count(), 25);
        assert_eq!(shares.iter().sum::<u64>(), 25 * MB);
    }

    #[test]
    fn who_evicts_with_little_gets_some_of_those_with_much() {
        let parts = [part(7 * MB, 7_000, 0), part(3 * MB, 3_000, 50)];
        let shares = shares(10 * MB, &parts);
        assert!(3 * MB < shares[1], "{shares:?}");
        assert!(shares.iter().sum::<u64>() <= 10 * MB);
        // Nobody loses anything while nobody asks.
        let idle = [part(7 * MB, 7_000, 0), part(3 * MB, 3_000, 0)];
        assert_eq!(super::shares(10 * MB, &idle), [7 * MB, 3 * MB]);
    }

    fn parts() -> impl Strategy<Value = Vec<Part>> {
        let part = (0..4_000_000u64, 1..9_000u64, 0..100u64, 0..7_000u32).prop_map(
            |(bytes, items, evicted_items, slots)| {
                let items = items.min(bytes);
                Part { bytes, items, evicted_items, slots }
            },
        );
        vec(part, 1..60)
    }

    proptest! {
        #[test]
        fn shares_never_exceed_what_is_paid_for_by_more_than_the_slack(
            limit in 1..400_000_000u64, parts in parts(),
        ) {
            let sum: u64 = shares(limit, &parts).iter().sum();
            let held: u64 = parts.iter().map(|part| part.bytes).sum();
            if held < limit {
                prop_assert!(sum as f64 <= limit as f64 * 1.5 + 60.0, "{sum} of {limit}");
            } else {
                // What could not be taken in whole items is less than one of the largest.
                let item = parts.iter().filter(|part| part.items > 0);
                let largest = item.map(|part| part.bytes / part.items + 2).max().unwrap_or(0);
                prop_assert!(sum <= limit + largest + 60, "{sum} of {limit}, item {largest}");
            }
        }

        #[test]
        fn nobody_loses_anything_before_the_cache_is_full(
            limit in 1..400_000_000u64, parts in parts(),
        ) {
            let held: u64 = parts.iter().map(|part| part.bytes).sum();
            let parts: Vec<Part> =
                parts.into_iter().map(|part| Part { evicted_items: 0, ..part }).collect();
            if held < limit {
                for (share, part) in shares(limit, &parts).iter().zip(&parts) {
                    prop_assert!(part.bytes <= *share);
                }
            }
        }
    }
}
