//! A few kills of the control plane under load; `cargo xtask kill-control` makes a thousand.

use testbed::kill_control::{Plan, run};

#[test]
fn nothing_is_lost_doubled_or_reordered_when_control_is_killed() {
    let report = run(&Plan { kills: 16, seed: 7, clients: 4, postgres: None });
    assert_eq!(report.kills, 16);
    assert!(report.changes > 0, "the test saw nothing");
}
