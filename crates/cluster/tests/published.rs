//! The experiments that were published on skew and movement, and that ours agree with them.
//!
//! 9 back-ends on a ring of 2^64 (MemCachier, "MagLev, our new consistent hashing scheme", 2017): with
//! 1 point each the largest share is around 30 %; with 100 points the median of the largest is 30 %
//! above the median of the smallest, and 95 % intervals reach up to 14.4 % and down to 8.3 %; Maglev
//! has no skew. From 3 to 4 back-ends Maglev moves 25 % of the keys, a hash modulo the number 75 %.
//!
//! Figures of 100 rounds scatter, so the bands are wide enough for another generator, and those of
//! the intervals are tested with 2,000 rounds.

use std::num::NonZeroU32;
use std::ops::Range;

use cluster::experiment::{Happening, Rule, Setup, Spread, moved, spread, weighted};
use cluster::scheme::Scheme;
use cluster::slot::SLOTS;

const SEED: u64 = 1;

#[test]
fn with_one_point_the_largest_of_nine_owns_around_30_percent() {
    let spread = shares(Scheme::Ring { points: 1 }, 9, 2_000);
    within(spread.largest().median(), 0.27..0.33);
    within(spread.largest().quantile(0.975), 0.49..0.55);
    within(spread.smallest().quantile(0.025), 0.000_1..0.001);
}

#[test]
fn a_hundred_points_still_leave_a_skew_of_30_percent() {
    let spread = shares(Scheme::Ring { points: 100 }, 9, 2_000);
    within(spread.largest().median() / spread.smallest().median(), 1.25..1.42);
    within(spread.largest().quantile(0.975), 0.137..0.148);
    within(spread.smallest().quantile(0.025), 0.080..0.088);
}

#[test]
fn the_hundred_rounds_that_the_command_shows_agree_as_well() {
    let one = shares(Scheme::Ring { points: 1 }, 9, 100);
    within(one.largest().median(), 0.27..0.33);
    let hundred = shares(Scheme::Ring { points: 100 }, 9, 100);
    within(hundred.largest().median() / hundred.smallest().median(), 1.25..1.42);
    within(hundred.largest().quantile(0.975), 0.137..0.148);
    within(hundred.smallest().quantile(0.025), 0.080..0.088);
}

#[test]
fn maglev_has_no_skew() {
    let spread = shares(Scheme::Maglev, 9, 100);
    let slot = 1.0 / f64::from(SLOTS);
    let skew = spread.largest().quantile(1.0) - spread.smallest().quantile(0.0);
    assert!(skew < 1.5 * slot, "{} slots", skew / slot);
}

#[test]
fn a_fourth_member_moves_a_quarter_and_without_a_scheme_three_quarters() {
    within(join(Rule::Modulo, 3), 0.7499..0.7501);
    within(join(Rule::Scheme(Scheme::Maglev), 3), 0.25..0.2525);
}

#[test]
fn maglev_moves_as_little_as_was_measured() {
    // Measured elsewhere with the paper's orders: 10.25, 7.99 and 5.10 %.
    within(join(Rule::Scheme(Scheme::Maglev), 9), 0.1015..0.1035);
    within(join(Rule::Scheme(Scheme::Maglev), 12), 0.0785..0.0815);
    within(join(Rule::Scheme(Scheme::Maglev), 20), 0.0495..0.0525);
}

#[test]
fn no_cluster_is_unlucky_with_its_names() {
    let rule = Rule::Scheme(Scheme::Maglev);
    let joins = moved(rule, Happening::Join, setup(20, 200), || ()).expect("a few members");
    // With the paper's orders one cluster in fifty moves more than this, and the unluckiest half as
    // much again; 4.76 % must move.
    within(joins.quantile(1.0), 0.047_6..0.052_6);
}

#[test]
fn a_new_name_in_a_place_costs_more_than_the_place() {
    // 20 % where 11.1 % would do (18.0 % was measured elsewhere, with the newcomer in the old one's
    // place of the list): why members have names that outlive machines.
    let setup = setup(9, 20);
    let rename = moved(Rule::Scheme(Scheme::Maglev), Happening::Rename, setup, || ());
    within(rename.expect("nine members").median(), 0.175..0.21);
}

#[test]
fn weights_are_heeded_to_a_slot_and_a_change_moves_little_more_than_it_must() {
    for weights in [vec![1, 2, 3], vec![1, 1, 2], vec![3, 3, 3, 2, 2, 2, 1, 1, 1]] {
        let got = weighted(Scheme::Maglev, &weights, rounds(10), SEED, || ()).expect("some weight");
        assert!(got.error_slots_max <= 1.5, "{weights:?}: {} slots", got.error_slots_max);
        let moved = got.moved.quantile(1.0);
        within(moved - got.share_moved_min, -0.000_1..0.004);
    }
}

#[test]
fn a_ring_is_blind_to_weights() {
    let scheme = Scheme::Ring { points: 100 };
    let got = weighted(scheme, &[1, 2, 3], rounds(100), SEED, || ()).expect("some weight");
    for share in &got.got {
        within(share.median(), 0.31..0.36);
    }
}

fn join(rule: Rule, backends: usize) -> f64 {
    let shares = moved(rule, Happening::Join, setup(backends, 20), || ());
    shares.expect("a few members").median()
}

fn shares(scheme: Scheme, backends: usize, rounds: u32) -> Spread {
    spread(scheme, setup(backends, rounds), || ()).expect("a few members")
}

fn setup(backends: usize, count: u32) -> Setup {
    Setup { backends, rounds: rounds(count), seed: SEED }
}

fn rounds(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).expect("at least one round")
}

#[track_caller]
fn within(value: f64, band: Range<f64>) {
    assert!(band.contains(&value), "{value} is not in {band:?}");
}
