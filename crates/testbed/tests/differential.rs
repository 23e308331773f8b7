//! A short run of the comparison with memcached; `differential --help` tells how to make a long one.

use std::time::Duration;
use testbed::differential::run::{Run, run};
use testbed::differential::sequence::Dialect;

/// Two pairs of servers for so long; a third, for sequences with pauses, ends a pause or two later.
const TIME_MAX: Duration = Duration::from_secs(22);

/// What the slowest machine should manage in that time; less would mean that little was compared.
const COMMANDS_MIN: u64 = 20_000;

#[test]
fn memcached_answers_random_commands_alike() {
    let report = run(&Run {
        seeds: 0..1_000_000,
        dialects: Dialect::ALL.to_vec(),
        time_max: Some(TIME_MAX),
        workers: 2,
        pauses: true,
        differences_max: 5,
        subject: None,
    });
    assert!(report.differences.is_empty(), "{}\n{report}", report.differences.join("\n\n"));
    assert!(report.figures.commands >= COMMANDS_MIN, "{report}");
}
