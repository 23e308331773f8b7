//! By which rule a cluster's slots find their owners.

use std::fmt;

use crate::maglev;
use crate::member::Members;
use crate::ring::{POINTS_MAX, Ring};
use crate::table::Table;

/// The rule of one cluster. Written `maglev`, or `ring:100` for a ring of 100 points per member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scheme {
    /// What every new cluster gets: even, by weight, and little moves.
    #[default]
    Maglev,
    /// What Maglev replaces: uneven, and blind to weights.
    Ring { points: u32 },
}

impl Scheme {
    /// Gives every slot an owner. Takes a few milliseconds; a table is made when members change, not
    /// when a request comes.
    pub fn place(self, members: &Members) -> Table {
        match self {
            Scheme::Maglev => maglev::place(members),
            Scheme::Ring { points } => Ring::new(members, points).table(),
        }
    }

    pub fn parse(text: &str) -> Result<Self, InvalidScheme> {
        if text == "maglev" {
            return Ok(Scheme::Maglev);
        }
        let points = text.strip_prefix("ring:").and_then(|points| points.parse().ok());
        match points {
            Some(points @ 1..=POINTS_MAX) => Ok(Scheme::Ring { points }),
            Some(_) | None => Err(InvalidScheme),
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scheme::Maglev => f.write_str("maglev"),
            Scheme::Ring { points } => write!(f, "ring:{points}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a scheme is 'maglev' or 'ring:' with 1 to {POINTS_MAX} points")]
pub struct InvalidScheme;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_reads_as_it_is_written() {
        for text in ["maglev", "ring:1", "ring:1000"] {
            assert_eq!(Scheme::parse(text).expect("a good scheme").to_string(), text);
        }
        for bad in ["", "Maglev", "ring", "ring:", "ring:0", "ring:1001", "ring:-1"] {
            assert_eq!(Scheme::parse(bad), Err(InvalidScheme), "{bad:?}");
        }
    }
}
