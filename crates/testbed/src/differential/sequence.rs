//! A seed becomes a sequence of commands.

use crate::differential::command::{Command, Effect};
use crate::differential::random::{Random, Vocabulary};
use crate::differential::{binary, meta, text};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Text,
    Meta,
    Binary,
}

impl Dialect {
    pub const ALL: [Dialect; 3] = [Dialect::Text, Dialect::Meta, Dialect::Binary];
}

/// Commands in rounds: the answers to a round are in before the next is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    pub dialect: Dialect,
    pub rounds: Vec<Vec<Command>>,
    /// Leaves the connection in step, so that others may follow on it.
    pub in_step: bool,
}

/// Long enough for items to have a history, short enough for people to read.
const COMMANDS_MAX: usize = 40;
const ROUNDS_MAX: usize = 3;

impl Sequence {
    /// A sequence whose every command leaves the connection in step.
    pub fn in_step(dialect: Dialect, vocabulary: Vocabulary, seed: u64) -> Sequence {
        Self::generate(dialect, vocabulary, seed, true)
    }

    /// A sequence with commands that get client and server out of step, or that end the connection.
    pub fn broken(dialect: Dialect, vocabulary: Vocabulary, seed: u64) -> Sequence {
        Self::generate(dialect, vocabulary, seed, false)
    }

    fn generate(dialect: Dialect, vocabulary: Vocabulary, seed: u64, in_step: bool) -> Sequence {
        let mut random = Random::speaking(vocabulary, seed);
        if !in_step {
            // A value may be taken for a line, and what memcached makes of a long one depends on how it
            // was split.
            random.value_bytes_max = 400;
        }
        let rounds = 1 + random.below(ROUNDS_MAX);
        // Tells apart the opaques of the sequences that share a connection.
        let mut opaque = (seed as u32) << 8;
        let rounds = (0..rounds)
            .map(|_| {
                let mut commands: Vec<Command> = Vec::new();
                let mut read = false;
                for _ in 0..1 + random.below(COMMANDS_MAX / rounds) {
                    let command = one(dialect, &mut random, opaque, in_step);
                    if read && command.effect == Effect::Counts {
                        continue;
                    }
                    read |= command.effect == Effect::Reads;
                    commands.push(command);
                    opaque += 1;
                }
                if dialect == Dialect::Binary {
                    commands.push(binary::noop(opaque));
                    opaque += 1;
                }
                if !in_step {
                    commands.push(match dialect {
                        Dialect::Text | Dialect::Meta => text::last(&mut random),
                        Dialect::Binary => binary::last(&mut random, opaque),
                    });
                }
                commands
            })
            .collect();
        Sequence { dialect, rounds, in_step }
    }

    pub fn commands(&self) -> usize {
        self.rounds.iter().map(Vec::len).sum()
    }

    pub fn commands_in(&self, round: usize) -> usize {
        self.rounds.get(round).map_or(0, Vec::len)
    }

    /// The sequence without the commands from `start` to `end`, counted through all rounds.
    #[must_use]
    pub fn without(&self, start: usize, end: usize) -> Sequence {
        let mut at = 0;
        let rounds = self
            .rounds
            .iter()
            .map(|round| {
                round
                    .iter()
                    .filter(|_| {
                        at += 1;
                        !(start..end).contains(&(at - 1))
                    })
                    .cloned()
                    .collect()
            })
            .filter(|round: &Vec<Command>| !round.is_empty())
            .collect();
        Sequence { rounds, ..self.clone() }
    }
}

fn one(dialect: Dialect, random: &mut Random, opaque: u32, in_step: bool) -> Command {
    let broken = !in_step && random.once_in(10);
    match dialect {
        Dialect::Text if broken => text::broken(random),
        Dialect::Text => text::command(random),
        Dialect::Meta if broken => meta::broken(random),
        Dialect::Meta => meta::command(random),
        // A binary frame that lies ends the connection, so it comes only as the last.
        Dialect::Binary => binary::command(random, opaque),
    }
}
