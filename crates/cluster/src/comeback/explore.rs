//! Every world that can be reached from a first one, for the models of who comes back.

use std::collections::HashSet;
use std::hash::Hash;

/// More than any story has.
const STATES_MAX: usize = 5_000_000;

/// Looks at each world once. How many there are, or the first that is not right.
pub(super) fn explore<World: Clone + Eq + Hash>(
    first: World,
    next: impl Fn(&World) -> Vec<World>,
    mut is_right: impl FnMut(&World) -> bool,
) -> Result<usize, World> {
    let mut seen = HashSet::from([first.clone()]);
    let mut to_look_at = vec![first];
    while let Some(world) = to_look_at.pop() {
        if !is_right(&world) {
            return Err(world);
        }
        assert!(seen.len() < STATES_MAX, "more worlds than there should be");
        for next in next(&world) {
            if !seen.contains(&next) {
                seen.insert(next.clone());
                to_look_at.push(next);
            }
        }
    }
    Ok(seen.len())
}
