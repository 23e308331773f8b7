//! Three nodes with two backends each, as processes: every cache is served through every proxy, and what
//! one node's end costs is that node's share. With 100,000 keys and figures: `cargo xtask faults killed-node`.

use testbed::faults::loss::{Failover, SIGMAS, deviation, failover, killed_node};

#[test]
fn what_is_set_through_one_proxy_is_found_through_all_and_a_killed_node_loses_its_share_only() {
    let killed = killed_node(10_000);
    assert!(killed.seen.reads > 0, "{killed:?}");
}

#[test]
fn a_client_with_two_servers_goes_on_with_the_other_and_finds_what_that_one_owns() {
    let Failover { kept, all, share } = failover().expect("the clients are installed");
    let apart = (kept / all - (1.0 - share)).abs();
    assert!(apart <= SIGMAS * deviation(share, all), "kept {kept} of {all}; {share} was killed");
}
