//! Some seeds hold, one seed is one story, and a failure can be made small.

use simulator::counts::Counts;
use simulator::play::play;
use simulator::scenario::{Fault, Memory, Scenario, Timed};
use simulator::story::Story;
use simulator::time::{MILLISECOND, SECOND};

#[test]
fn laws_hold_and_the_worlds_are_not_idle() {
    let mut counts = Counts::default();
    for seed in 0..20 {
        let played = play(scenario(seed), Story::silent());
        if let Some(violation) = played.violation {
            panic!("seed {seed}: {violation}; cargo xtask sim --seed {seed} tells its story");
        }
        counts.add(&played.counts);
    }
    let reached = 10_000 < counts.found && 50 < counts.faults() && 20 < counts.settled;
    let more = 10 < counts.unsure && 100 < counts.evicted;
    assert!(reached && more, "little was reached:\n{counts}");
}

#[test]
fn a_seed_replays_exactly() {
    let crowded = |seed: &u64| scenario(*seed).memory == Memory::Tight;
    let doubled = |seed: &u64| scenario(*seed).backends == 2;
    let seeds = [Some(3), Some(11), Some(12), (0..).find(crowded), (0..).find(doubled)];
    for seed in seeds.into_iter().flatten() {
        let (first, again) =
            (play(scenario(seed), Story::told()), play(scenario(seed), Story::told()));
        let lines: Vec<String> = first.story.last(usize::MAX).collect();
        assert!(1_000 < lines.len(), "seed {seed} tells little");
        let differs = lines.into_iter().zip(again.story.last(usize::MAX)).find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!((first.counts, first.batches), (again.counts, again.batches), "seed {seed}");
    }
}

#[test]
fn a_whole_cluster_that_starts_without_control_serves_everything_within_two_seconds() {
    let (away, ended, checked_from) = (5 * SECOND, 6 * SECOND, 9);
    for seed in 0..6 {
        let mut scenario = scenario(seed);
        scenario.length = 20 * SECOND;
        let faults = (0..scenario.nodes).map(|node| Fault::Crash { node, away: SECOND });
        let crashes = faults.map(|fault| Timed { at: ended, fault });
        let fault = Fault::ControlAway { lasts: 14 * SECOND };
        scenario.faults = [Timed { at: away, fault }].into_iter().chain(crashes).collect();
        let nodes = scenario.nodes;
        let played = play(scenario, Story::told());
        assert_eq!(played.violation, None, "seed {seed}");
        let second = |line: &String| line.trim_start().split('.').next()?.parse::<u64>().ok();
        let without_control: Vec<String> = played
            .story
            .last(usize::MAX)
            .filter(|line| second(line).is_some_and(|it| (checked_from..18).contains(&it)))
            .collect();
        let failed = |line: &&String| line.contains("Unsure") || line.contains("Refused");
        assert_eq!(without_control.iter().find(failed), None, "seed {seed}");
        let asked = without_control.iter().filter(|line| line.contains("asked at")).count();
        assert!(100 < asked, "seed {seed}, {nodes} nodes: {asked} answers");
    }
}

/// What control has committed and a node could not write, nothing but the disk keeps from being in force:
/// not an ABORT that means another epoch, or means nothing.
#[test]
fn a_node_that_could_not_write_an_epoch_takes_it_up_whatever_it_hears_before() {
    let (full, committed, aborted) = (SECOND, 2 * SECOND, 3 * SECOND);
    for seed in 0..4 {
        let mut scenario = scenario(seed);
        let timed = |at, fault| Timed { at, fault };
        scenario.faults = vec![
            timed(full, Fault::DiskFull { node: 1, lasts: 4 * SECOND }),
            timed(committed, Fault::Reweigh { node: 0, weight: 32 }),
            timed(aborted, Fault::Garbage { node: 1, kind: ABORT }),
        ];
        let played = play(scenario, Story::told());
        assert_eq!(played.violation, None, "seed {seed}");
        let story: Vec<String> = played.story.last(usize::MAX).collect();
        let place = |words: &str| story.iter().position(|line| line.contains(words));
        let (full, garbage) = (place("*** DiskFull"), place("*** Garbage"));
        let committed = story.iter().rposition(|line| line.ends_with(" committed"));
        assert!(full < committed && committed < garbage, "seed {seed}: nothing was unwritten");
        let settled = story.iter().rposition(|line| line.ends_with(" settled"));
        assert!(garbage.is_some() && garbage < settled, "seed {seed}: it was written before");
    }
}

/// A node that is dead keeps the epoch in force from being settled; so nobody can be removed before it is
/// given up. Neither may wait for the other, and control lets nobody remove all nodes that are left.
#[test]
fn a_dead_node_is_given_up_while_a_person_removes_another() {
    let (lost, reweighed, removed) = (SECOND, SECOND + 100 * MILLISECOND, 2 * SECOND);
    for seed in 0..4 {
        let mut scenario = scenario(seed);
        (scenario.nodes, scenario.length) = (4, 30 * SECOND);
        let timed = |at, fault| Timed { at, fault };
        scenario.faults = vec![
            timed(lost, Fault::Lose { node: 0 }),
            timed(reweighed, Fault::Reweigh { node: 3, weight: 32 }),
            timed(removed, Fault::Remove { node: 2 }),
            timed(removed, Fault::Remove { node: 1 }),
            timed(removed, Fault::Remove { node: 3 }),
        ];
        let played = play(scenario, Story::told());
        assert_eq!(played.violation, None, "seed {seed}");
        assert_eq!(played.counts.faults.get("remove"), Some(&1), "seed {seed}");
        assert_eq!(played.counts.given_up, 1, "seed {seed}");
        let story: Vec<String> = played.story.last(usize::MAX).collect();
        let place = |words: &str| story.iter().position(|line| line.contains(words));
        let (wished, mended) = (place("*** Remove"), place("everything is mended"));
        let is_without_both = |line: &String| {
            line.contains(" prepared: ") && !line.contains("node-0.") && !line.contains("node-2.")
        };
        let without_both = story.iter().rposition(is_without_both);
        assert!(wished < without_both, "seed {seed}: it was never removed");
        assert!(without_both < mended, "seed {seed}: it waited until all was mended");
    }
}

/// The kind of garbage that is an ABORT of what was committed.
const ABORT: u64 = 4;

fn scenario(seed: u64) -> Scenario {
    Scenario::drawn(seed, 8 * SECOND, 30 * MILLISECOND)
}
