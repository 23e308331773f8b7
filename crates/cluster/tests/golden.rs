//! Tables that must never change: a proxy of one version and a backend of another compute them apart.
//!
//! The digests were computed by a second implementation, written in another language from the
//! documentation of `maglev`, `ring` and `table` alone. Should one differ, the format changed, and a
//! running cluster would move most of its slots: then the format needs a new number, and a plan.

use cluster::member::{Member, MemberName, Members, Weight};
use cluster::scheme::Scheme;

#[test]
fn one_member_owns_all() {
    check(Scheme::Maglev, &[("only", 1)], ONLY, &[65_537]);
}

#[test]
fn nine_equal_members() {
    let counts = [7_282, 7_282, 7_282, 7_282, 7_282, 7_282, 7_282, 7_282, 7_281];
    check(Scheme::Maglev, &nine(), NINE, &counts);
}

#[test]
fn members_of_three_weights_and_a_drained_one() {
    let members = [("small", 1_024), ("middle", 2_048), ("large", 3_072), ("drained", 0)];
    // In the order of names: drained, large, middle, small.
    check(Scheme::Maglev, &members, WEIGHTS, &[0, 32_768, 21_846, 10_923]);
}

#[test]
fn rings_of_one_and_of_a_hundred_points() {
    let one = [17_431, 1_515, 3_013, 13_661, 10_202, 1_388, 11_462, 2_463, 4_402];
    check(Scheme::Ring { points: 1 }, &nine(), RING_1, &one);
    let hundred = [6_971, 6_807, 8_004, 7_426, 7_380, 8_101, 6_159, 7_532, 7_157];
    check(Scheme::Ring { points: 100 }, &nine(), RING_100, &hundred);
}

const ONLY: &str = "d5cc1028ae9451ab509a11e38c79695752211744437d5645c85a26e666012666";
const NINE: &str = "87853f069b9042df86d2c423ab824a35816effb66ae203f1c37d1f2a9905f0de";
const WEIGHTS: &str = "9921ba50dc2b10e05bb9e6b6c4babc3dc6f008a39569cf2e7f55abd36acb6c32";
const RING_1: &str = "dbd506dab1343d24a50d2a04ba8b91205d09816f58e305bc92c7e27c0bd257ec";
const RING_100: &str = "0d0137d6e219bcde409465cc556bfb4eff487c1ee6ff6a640a4c4ebfadd3f11c";

#[track_caller]
fn check(scheme: Scheme, members: &[(&str, u32)], digest: &str, counts: &[u32]) {
    let member = |(name, weight): &(&str, u32)| Member {
        name: MemberName::parse(name).expect("a good name"),
        weight: Weight::new(*weight),
    };
    let members = Members::new(members.iter().map(member)).expect("distinct names");
    let table = scheme.place(&members);
    assert_eq!(table.slot_counts(), counts);
    assert_eq!(table.digest().to_string(), digest);
}

fn nine() -> [(&'static str, u32); 9] {
    [
        ("backend-1", 4_096),
        ("backend-2", 4_096),
        ("backend-3", 4_096),
        ("backend-4", 4_096),
        ("backend-5", 4_096),
        ("backend-6", 4_096),
        ("backend-7", 4_096),
        ("backend-8", 4_096),
        ("backend-9", 4_096),
    ]
}
