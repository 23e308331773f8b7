//! Some seeds hold, one seed is one story, and a failure can be made small.

use simulator::counts::Counts;
use simulator::play::play;
use simulator::scenario::{Memory, Scenario};
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

fn scenario(seed: u64) -> Scenario {
    Scenario::drawn(seed, 8 * SECOND, 30 * MILLISECOND)
}
