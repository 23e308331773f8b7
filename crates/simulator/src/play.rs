//! Plays one scenario to its end, whatever end that is.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::counts::Counts;
use crate::laws::Violation;
use crate::scenario::Scenario;
use crate::story::Story;
use crate::world::World;

/// What came of a play.
#[derive(Debug)]
pub struct Played {
    pub violation: Option<Violation>,
    pub counts: Counts,
    pub story: Story,
    /// How many batches each client has sent.
    pub batches: Vec<u64>,
}

/// Plays. An engine that panics breaks a law, too.
pub fn play(scenario: Scenario, story: Story) -> Played {
    let mut world = World::new(scenario, story);
    let violation = match catch_unwind(AssertUnwindSafe(|| world.run())) {
        Ok(ended) => ended.err(),
        Err(panicked) => {
            let text = panicked.downcast_ref::<String>().cloned();
            let seen = text.or_else(|| panicked.downcast_ref::<&str>().map(|&it| it.to_owned()));
            Some(Violation {
                law: "no engine panics",
                seen: seen.unwrap_or_else(|| "it said nothing".to_owned()),
                key: None,
                at: world.now(),
            })
        }
    };
    world.end(violation)
}

/// Plays twice, and holds it against what every failure's replay rests on: one scenario is one story.
pub fn play_twice(scenario: &Scenario) -> Played {
    let first = play(scenario.clone(), Story::silent());
    let again = play(scenario.clone(), Story::silent());
    let is_same = (&first.counts, &first.batches) == (&again.counts, &again.batches);
    if is_same || first.violation.is_some() {
        return first;
    }
    let at = first.counts.simulated;
    let seen = format!("{}\nand then\n{}", first.counts, again.counts);
    let violation = Violation { law: "a seed replays exactly", seen, key: None, at };
    Played { violation: Some(violation), ..first }
}
