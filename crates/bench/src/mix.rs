//! What is asked of the server, and how often: `get=90,set=10`.

use crate::random::Random;
use std::str::FromStr;

/// One kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    Get,
    Set,
    Delete,
    Incr,
    Touch,
}

impl Act {
    pub const ALL: [Act; 5] = [Act::Get, Act::Set, Act::Delete, Act::Incr, Act::Touch];

    pub fn name(self) -> &'static str {
        match self {
            Act::Get => "get",
            Act::Set => "set",
            Act::Delete => "delete",
            Act::Incr => "incr",
            Act::Touch => "touch",
        }
    }
}

/// How often each act comes, as written on the command line: weights, whatever their sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mix(Vec<(Act, u32)>);

impl Mix {
    pub fn has(&self, act: Act) -> bool {
        self.0.iter().any(|&(a, _)| a == act)
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Mix, String> {
        let mut weights = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let act = Act::ALL.into_iter().find(|act| act.name() == name).ok_or_else(|| {
                format!("{name:?} is not get, set, delete, incr or touch; write get=90,set=10")
            })?;
            let weight: u32 =
                weight.parse().map_err(|_| format!("{weight:?} is not a whole number"))?;
            if weights.iter().any(|&(earlier, _)| earlier == act) {
                return Err(format!("{name} stands there twice"));
            }
            if weight > 0 {
                weights.push((act, weight));
            }
        }
        if weights.is_empty() {
            return Err("one act needs a weight above 0".to_owned());
        }
        Ok(Mix(weights))
    }
}

/// Draws acts.
#[derive(Debug, Clone)]
pub(crate) struct Acts {
    /// Each act and the sum of the weights up to it; the last sum is `total`.
    steps: Vec<(Act, u64)>,
    total: u64,
}

impl Acts {
    pub(crate) fn new(mix: &Mix) -> Acts {
        let mut total = 0;
        let steps = mix
            .0
            .iter()
            .map(|&(act, weight)| {
                total += u64::from(weight);
                (act, total)
            })
            .collect();
        Acts { steps, total }
    }

    pub(crate) fn draw(&self, random: &mut Random) -> Act {
        // A lone act needs no chance, and the commonest load is gets alone.
        if let [(only, _)] = self.steps[..] {
            return only;
        }
        let point = random.below(self.total);
        let step = self.steps.iter().find(|&&(_, end)| point < end);
        step.expect("the last step ends at the total").0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acts_come_by_their_weights() {
        let acts = Acts::new(&"get=3,delete=1".parse().expect("a good mix"));
        let mut random = Random::new(1);
        let gets = (0..40_000).filter(|_| acts.draw(&mut random) == Act::Get).count();
        assert!((29_500..30_500).contains(&gets), "{gets}");
    }

    #[test]
    fn a_lone_act_needs_no_weight() {
        assert_eq!("set".parse(), Ok(Mix(vec![(Act::Set, 1)])));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "get=", "get=x", "fetch=1", "get=1,get=2", "get=0"] {
            assert!(text.parse::<Mix>().is_err(), "{text}");
        }
    }
}
