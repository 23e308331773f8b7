//! Laws that never fail may be blind: each mistake is made on purpose, and a seed must find it.

use cluster::mistake::Mistake;
use simulator::mistakes::{CASES, ONLY_BY_MODEL, SEEDS_MAX};

#[test]
fn every_mistake_is_found_by_a_seed() {
    let mut blind = Vec::new();
    for case in CASES {
        match case.find(case.first_seed, SEEDS_MAX) {
            Some((_, violation)) if case.laws.contains(&violation.law) => (),
            other => blind.push((case.mistake, other)),
        }
    }
    assert!(blind.is_empty(), "not found, or as something else: {blind:#?}");
}

#[test]
fn every_mistake_has_its_finder() {
    for (mistake, name) in Mistake::ALL {
        let by_seed = CASES.iter().any(|case| case.mistake == *mistake);
        let by_model = ONLY_BY_MODEL.iter().any(|(known, _)| known == mistake);
        assert!(by_seed != by_model, "{name}");
    }
}
