//! One tenant's way of asking.

use super::chance::{Random, Zipf};
use super::{Operation, Request};

const DAY_SECONDS: f64 = 86_400.0;
const HOUR_SECONDS: u32 = 3_600;

/// Which keys are asked for.
#[derive(Debug, Clone)]
pub(super) enum Keys {
    /// Some more than others.
    Popular(Zipf),
    /// The same, but every hour a quarter of the ranks belongs to other keys.
    Drifting(Zipf),
    /// One after the other, from 0 to the last, and again.
    InOrder { keys: u64, next: u64 },
}

/// How large a key's value is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sizes {
    Fixed(u32),
    /// Log-normal with this mean and sigma, always the same for a key.
    LogNormal {
        mean: f64,
        sigma: f64,
    },
    /// Another size with each write, within so many percent of the mean.
    Restless {
        mean: f64,
        percent: f64,
    },
}

/// When a tenant asks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Day {
    Always,
    /// More and less around the average, with a period of a day.
    Wave {
        phase: f64,
        swing: f64,
    },
    /// Twelve hours on, twelve hours off.
    Half {
        first: bool,
    },
}

/// One stream of requests of one tenant.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) tenant: u32,
    /// Requests against those of the other sources.
    pub(super) weight: f64,
    pub(super) day: Day,
    pub(super) keys: Keys,
    pub(super) sizes: Sizes,
    /// Shares of the operations; what is left of 1 reads.
    pub(super) sets: f64,
    pub(super) deletes: f64,
    pub(super) increments: f64,
    /// Lifetimes in seconds with their shares; what is left of 1 lives for ever. A key's stays.
    pub(super) lifetimes: Vec<(f64, u32)>,
    /// Numbers of keys are moved up by this, so that sources of one tenant need not share keys.
    pub(super) first_key: u64,
}

impl Source {
    /// A reader of popular keys.
    pub(super) fn new(tenant: u32, weight: f64, keys: Keys, sizes: Sizes) -> Self {
        Source {
            tenant,
            weight,
            day: Day::Always,
            keys,
            sizes,
            sets: 0.0,
            deletes: 0.0,
            increments: 0.0,
            lifetimes: Vec::new(),
            first_key: 0,
        }
    }

    /// Requests per time now.
    pub(super) fn rate(&self, second: u32) -> f64 {
        let day = f64::from(second) / DAY_SECONDS;
        let now = match self.day {
            Day::Always => 1.0,
            Day::Wave { phase, swing } => {
                1.0 + swing * (std::f64::consts::TAU * (day + phase)).sin()
            }
            Day::Half { first } => f64::from(u8::from((day.fract() < 0.5) == first)),
        };
        self.weight * now
    }

    pub(super) fn request(&mut self, second: u32, random: &mut Random) -> Request {
        let key = self.first_key + self.key(second, random);
        // What belongs to a key is drawn from the key.
        let mut own = Random::new(key ^ u64::from(self.tenant) << 40);
        let value_bytes = match self.sizes {
            Sizes::Fixed(bytes) => f64::from(bytes),
            Sizes::LogNormal { mean, sigma } => {
                own.log_normal(mean / (sigma * sigma / 2.0).exp(), sigma)
            }
            Sizes::Restless { mean, percent } => {
                mean * (1.0 + (random.unit() - 0.5) * percent / 50.0)
            }
        };
        Request {
            second,
            tenant: self.tenant,
            operation: self.operation(random.unit()),
            key,
            value_bytes: value_bytes.clamp(1.0, VALUE_BYTES_MAX) as u32,
            lifetime_seconds: self.lifetime(own.unit()),
        }
    }

    fn operation(&self, chance: f64) -> Operation {
        if chance < self.sets {
            Operation::Set
        } else if chance < self.sets + self.deletes {
            Operation::Delete
        } else if chance < self.sets + self.deletes + self.increments {
            Operation::Increment
        } else {
            Operation::Get
        }
    }

    fn lifetime(&self, chance: f64) -> Option<u32> {
        let mut sum = 0.0;
        self.lifetimes.iter().find_map(|&(share, seconds)| {
            sum += share;
            (chance < sum).then_some(seconds)
        })
    }

    fn key(&mut self, second: u32, random: &mut Random) -> u64 {
        match &mut self.keys {
            Keys::Popular(zipf) => zipf.rank(random) as u64,
            Keys::Drifting(zipf) => drifted(zipf.rank(random) as u64, zipf.ranks() as u64, second),
            Keys::InOrder { keys, next } => {
                *next = (*next + 1) % *keys;
                *next
            }
        }
    }
}

/// Largest value: items of a megabyte, key and all, are the usual limit.
const VALUE_BYTES_MAX: f64 = 1_000_000.0;

/// The key that has this rank now. Ranks with the same remainder by four change keys among
/// themselves, one remainder after the other, an hour apart.
fn drifted(rank: u64, ranks: u64, second: u32) -> u64 {
    let (quarter, place) = (rank % 4, rank / 4);
    let places = (ranks - quarter).div_ceil(4);
    let moves = u64::from(second / HOUR_SECONDS + quarter as u32) / 4;
    // A step that is far from any simple part of the whole.
    let step = places * 382 / 1_000 + 1;
    (place + moves * step) % places * 4 + quarter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hour_a_quarter_of_the_ranks_moves() {
        const RANKS: u64 = 1_000;
        for hour in 0..8 {
            let keys = |hour: u32| (0..RANKS).map(move |rank| drifted(rank, RANKS, hour * 3_600));
            let moved = keys(hour).zip(keys(hour + 1)).filter(|(now, then)| now != then).count();
            assert_eq!(moved, 250, "in hour {hour}");
            let mut all: Vec<_> = keys(hour).collect();
            all.sort_unstable();
            assert_eq!(all, (0..RANKS).collect::<Vec<_>>(), "each key has one rank");
        }
    }
}
