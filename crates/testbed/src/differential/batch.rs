//! A batch: sequences of one kind, how they are played, and the hunt for what differed.

use crate::differential::exchange::Split;
use crate::differential::judge::{Difference, Judge};
use crate::differential::login::Logins;
use crate::differential::random::{Random, Sizes, Vocabulary};
use crate::differential::sequence::{Dialect, Door, Kind, Sequence};
use crate::differential::times::{Flushes, Times};
use std::ops::Range;

/// Sequences of one dialect and kind.
#[derive(Debug, Clone)]
pub struct Batch {
    pub dialect: Dialect,
    pub kind: Kind,
    pub seeds: Range<u64>,
    pub play: Play,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Play {
    /// So many on each connection.
    Together { count: usize, split: Split },
    /// Each on a connection of its own, and each split in another way.
    Alone,
}

/// Sequences that travel on one connection: enough that a write carries thousands of commands.
pub const SEQUENCES_PER_BATCH: u64 = 64;

/// Sequences that share the pauses of [`Times::Near`].
pub const SEQUENCES_PER_PAUSE: u64 = 256;

/// Of sequences that are split at every byte, so many make a few thousand writes.
const SEQUENCES_BYTE_BY_BYTE: usize = 4;

/// One mistake shows in many sequences; a few are enough to see it.
const DIFFERENCES_PER_BATCH_MAX: usize = 3;

const REACHABLE: &str = "both servers accept connections on loopback";

impl Batch {
    /// The `number`-th batch of a worker, of sequences without pauses.
    pub fn brisk(
        number: u64,
        dialect: Dialect,
        vocabulary: Vocabulary,
        seeds: Range<u64>,
    ) -> Batch {
        // What is out of step becomes wrong lines, and on the words for those the versions differ.
        let comparable = vocabulary == Vocabulary::Newest || dialect.is_binary();
        let is_open = dialect.door() == Door::Open;
        let in_step = is_open && !(comparable && number % 4 == 3);
        // A thousand times as many writes as otherwise.
        let byte_by_byte = in_step && number % 16 == 5;
        // One with a delay the judge takes back, which it cannot where it has to log in.
        let flushes = if is_open && number % 3 == 2 { Flushes::Delayed } else { Flushes::AtOnce };
        let sizes = if byte_by_byte || !in_step { Sizes::Small } else { Sizes::Any };
        let play = match number % 2 {
            _ if !in_step => Play::Alone,
            _ if byte_by_byte => {
                Play::Together { count: SEQUENCES_BYTE_BY_BYTE, split: Split::EveryByte }
            }
            0 => Play::Together { count: usize::MAX, split: Split::Whole },
            _ => Play::Together { count: usize::MAX, split: Split::Random(seeds.start) },
        };
        let kind = Kind { in_step, sizes, times: Times::Far, flushes };
        Batch { dialect, kind, seeds, play }
    }

    /// The `number`-th batch of sequences in which times come to pass.
    pub fn paused(number: u64, dialect: Dialect, seeds: Range<u64>) -> Batch {
        let flushes = match number % 4 {
            0 => Flushes::AtOnce,
            1 => Flushes::Delayed,
            _ => Flushes::None,
        };
        let kind = Kind { in_step: true, sizes: Sizes::Small, times: Times::Near, flushes };
        let play = Play::Together { count: usize::MAX, split: Split::Whole };
        Batch { dialect, kind, seeds, play }
    }

    /// Plays the batch and returns its differences, made small.
    pub fn play(&self, judge: &mut Judge, vocabulary: Vocabulary, logins: &Logins) -> Vec<String> {
        let sequences: Vec<(u64, Sequence)> = self
            .seeds
            .clone()
            .map(|seed| {
                (seed, Sequence::generate(self.dialect, self.kind, vocabulary, logins, seed))
            })
            .collect();
        let mut differences = Vec::new();
        match self.play {
            Play::Together { count, split } => {
                for group in sequences.chunks(count.min(sequences.len().max(1))) {
                    differences.extend(self.play_together(judge, group, split));
                }
            }
            Play::Alone => {
                for (seed, sequence) in &sequences {
                    let split = split_of(*seed);
                    if let Some(difference) = judge.play(&[sequence], split).expect(REACHABLE) {
                        differences.push(if self.dialect.door() == Door::Open {
                            self.shrink(judge, *seed, sequence, difference, split)
                        } else {
                            // Without its login another difference would take its place.
                            self.describe(*seed, sequence, &difference, split)
                        });
                    }
                    if DIFFERENCES_PER_BATCH_MAX <= differences.len() {
                        break;
                    }
                }
            }
        }
        differences.truncate(DIFFERENCES_PER_BATCH_MAX);
        differences
    }

    /// Whatever differs is told, whether or not it differs again: a second try only helps to say more.
    fn play_together(
        &self,
        judge: &mut Judge,
        group: &[(u64, Sequence)],
        split: Split,
    ) -> Option<String> {
        let all: Vec<&Sequence> = group.iter().map(|(_, sequence)| sequence).collect();
        let first = judge.play(&all, split).expect(REACHABLE)?;
        let (fewest, difference) = judge.halve(&all, first, split).expect(REACHABLE);
        let seed_of = |wanted: &Sequence| {
            let found = group.iter().find(|(_, sequence)| std::ptr::eq(sequence, wanted));
            found.map_or(0, |(seed, _)| *seed)
        };
        match fewest {
            [one] if self.kind.times == Times::Far => {
                Some(self.shrink(judge, seed_of(one), one, difference, split))
            }
            [one] => Some(self.describe(seed_of(one), one, &difference, split)),
            [first, ..] => Some(format!(
                "{:?} {} sequences from seed {}, {:?}, written {split:?}, in connection {}, \
                 and no half of them again:\n  memcached: {}\n  larder:    {}",
                self.dialect,
                fewest.len(),
                seed_of(first),
                self.kind,
                difference.round + 1,
                difference.memcached,
                difference.larder
            )),
            [] => None,
        }
    }

    fn shrink(
        &self,
        judge: &mut Judge,
        seed: u64,
        sequence: &Sequence,
        difference: Difference,
        split: Split,
    ) -> String {
        let (smallest, difference) =
            judge.shrink(sequence.clone(), difference, split).expect(REACHABLE);
        self.describe(seed, &smallest, &difference, split)
    }

    fn describe(
        &self,
        seed: u64,
        sequence: &Sequence,
        difference: &Difference,
        split: Split,
    ) -> String {
        let described = Judge::describe(sequence, difference);
        format!("{:?} seed {seed}, {:?}, written {split:?}:\n{described}", self.dialect, self.kind)
    }
}

fn split_of(seed: u64) -> Split {
    match Random::new(seed).below(3) {
        0 => Split::Whole,
        1 => Split::Random(seed),
        _ => Split::EveryByte,
    }
}
