//! A seed becomes a sequence of commands.

use crate::differential::command::{Command, Effect, Side};
use crate::differential::keys::is_blank;
use crate::differential::login::Logins;
use crate::differential::random::{Random, Sizes, Vocabulary};
use crate::differential::times::{Flushes, Times};
use crate::differential::{binary, login, meta, text};
use std::collections::HashMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Text,
    Meta,
    Binary,
    /// Text to servers that want a username and a password.
    Login,
    /// Binary to such servers.
    Sasl,
}

/// Which servers a dialect is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Door {
    Open,
    Login,
    Sasl,
}

impl Dialect {
    pub const ALL: [Dialect; 5] =
        [Dialect::Text, Dialect::Meta, Dialect::Binary, Dialect::Login, Dialect::Sasl];

    pub fn door(self) -> Door {
        match self {
            Dialect::Text | Dialect::Meta | Dialect::Binary => Door::Open,
            Dialect::Login => Door::Login,
            Dialect::Sasl => Door::Sasl,
        }
    }

    pub fn is_binary(self) -> bool {
        match self {
            Dialect::Binary | Dialect::Sasl => true,
            Dialect::Text | Dialect::Meta | Dialect::Login => false,
        }
    }
}

/// Commands in rounds: the answers to a round are in before the next is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    pub dialect: Dialect,
    pub rounds: Vec<Vec<Command>>,
    pub kind: Kind,
}

/// What a sequence is for, which all of a batch have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Leaves the connection in step, so that others may follow on it.
    pub in_step: bool,
    pub sizes: Sizes,
    pub times: Times,
    pub flushes: Flushes,
}

/// Long enough for items to have a history, short enough for people to read.
const COMMANDS_MAX: usize = 40;
const ROUNDS_MAX: usize = 3;

impl Sequence {
    pub fn generate(
        dialect: Dialect,
        kind: Kind,
        vocabulary: Vocabulary,
        logins: &Logins,
        seed: u64,
    ) -> Sequence {
        let Kind { in_step, sizes, times, flushes } = kind;
        let mut random = Random::speaking(vocabulary, seed);
        (random.sizes, random.times, random.flushes) = (sizes, times, flushes);
        // Times that come to pass do so between two rounds.
        let rounds_min = if times == Times::Near { 2 } else { 1 };
        let rounds = rounds_min + random.below(ROUNDS_MAX + 1 - rounds_min);
        // Tells apart the opaques of the sequences that share a connection.
        let mut opaque = (seed as u32) << 8;
        let mut rounds: Vec<Vec<Command>> = (0..rounds)
            .map(|round| {
                if 0 < round && times == Times::Near && flushes == Flushes::Delayed {
                    // A second flush with a delay would take back what the first has done.
                    random.flushes = Flushes::None;
                }
                let mut commands = match dialect {
                    Dialect::Login => login::in_text(&mut random, logins),
                    Dialect::Sasl => login::in_binary(&mut random, logins, opaque),
                    Dialect::Text | Dialect::Meta | Dialect::Binary => {
                        let count = 1 + random.below(COMMANDS_MAX / rounds);
                        in_dialect(dialect, &mut random, opaque, in_step, count)
                    }
                };
                opaque += commands.len() as u32;
                do_not_count_after_reading(&mut commands);
                commands
            })
            .collect();
        if !in_step && !dialect.is_binary() && rounds.iter().any(|round| may_store_blanks(round)) {
            for commands in &mut rounds {
                commands.retain(|command| command.effect != Effect::Counts);
            }
        }
        if dialect == Dialect::Binary && !in_step {
            let last = binary::last(&mut random, opaque);
            // With a frame that lies memcached throws away the answers before it, so few come before it.
            match rounds.last_mut() {
                Some(round) if random.once_in(10) => round.push(last),
                Some(_) | None => rounds.push(vec![last]),
            }
        }
        Sequence { dialect, rounds, kind }
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

/// What one connection says that needs no login.
fn in_dialect(
    dialect: Dialect,
    random: &mut Random,
    opaque: u32,
    in_step: bool,
    count: usize,
) -> Vec<Command> {
    let mut commands: Vec<Command> =
        (opaque..).take(count).map(|opaque| one(dialect, random, opaque, in_step)).collect();
    if dialect.is_binary() {
        commands.push(binary::noop(opaque + count as u32));
    } else if !in_step {
        commands.push(text::last(random));
    }
    commands
}

fn one(dialect: Dialect, random: &mut Random, opaque: u32, in_step: bool) -> Command {
    let broken = !in_step && random.once_in(10);
    match dialect {
        Dialect::Meta if broken => meta::broken(random),
        Dialect::Meta => meta::command(random),
        Dialect::Text | Dialect::Login if broken => text::broken(random),
        Dialect::Text | Dialect::Login => text::command(random),
        // A binary frame that lies ends the connection, so it comes only as the last.
        Dialect::Binary | Dialect::Sasl => binary::command(random, opaque),
    }
}

/// What a count does to the spaces behind a number depends on whether memcached still holds its item
/// for the answer to an earlier command ([`Effect`]).
fn do_not_count_after_reading(commands: &mut Vec<Command>) {
    let mut read = false;
    commands.retain(|command| {
        read |= command.effect == Effect::Reads;
        !(read && command.effect == Effect::Counts)
    });
}

/// Whether a server may take blanks for a value: whether behind some line there are as many of them as
/// one of its words says. Of such a value memcached makes whatever number stands behind it in memory that
/// held other items (`keys::is_blank`).
fn may_store_blanks(commands: &[Command]) -> bool {
    let mut bytes = Vec::new();
    commands.iter().for_each(|command| {
        command.render(Side::Memcached, 0, &HashMap::new(), &mut bytes);
    });
    let lines = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    let mut start = 0;
    for end in lines {
        let (line, after) = (&bytes[start..end], &bytes[end + 1..]);
        start = end + 1;
        let sizes = line
            .split(|byte| byte.is_ascii_whitespace())
            .filter_map(|word| str::from_utf8(word).ok()?.parse::<usize>().ok());
        if sizes.filter(|size| 0 < *size).any(|size| after.get(..size).is_some_and(is_blank)) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{Dialect, Kind, Sequence, may_store_blanks};
    use crate::connection::Login;
    use crate::differential::command::{Command, Side};
    use crate::differential::login::Logins;
    use crate::differential::random::{Sizes, Vocabulary};
    use crate::differential::times::{Flushes, Times};
    use std::collections::HashMap;

    const FAR: Kind =
        Kind { in_step: true, sizes: Sizes::Any, times: Times::Far, flushes: Flushes::Delayed };
    const NEAR: Kind = Kind { times: Times::Near, ..FAR };

    #[test]
    fn text_says_all_that_it_should() {
        check(Dialect::Text, FAR, &["flush_all 100\r\n", " 4102444800", " 00100", " nobodys-k"]);
        check(Dialect::Text, FAR, &["  verbosity", "add ", "gats ", "decr ", "touch "]);
        check(Dialect::Text, NEAR, &["flush_all 4\r\n", " 0 3 ", " 0 4 "]);
    }

    #[test]
    fn meta_says_all_that_it_should() {
        check(Dialect::Meta, FAR, &[" R30 T", " MD T", " MD E", " N4102444800", "me "]);
        check(Dialect::Meta, NEAR, &[" T3", " N4"]);
    }

    #[test]
    fn logins_say_all_that_they_should() {
        let wrong = ["somebody wrong", "nobody a-password", "somebody  a-password"];
        check(Dialect::Login, FAR, &["somebody a-password\r\n", wrong[0], wrong[1], wrong[2]]);
        let right = ["PLAIN\0somebody\0a-password", "PLAINsomebody\0somebody\0a-password"];
        check(Dialect::Sasl, FAR, &[right[0], right[1], "\0somebody\0wrong", "CRAM-MD5\0"]);
    }

    #[test]
    fn values_reach_and_exceed_the_limit() {
        let lengths = || rendered(Dialect::Text, FAR, 2_000).map(|bytes| bytes.len());
        assert!(lengths().any(|length| 500_000 < length), "none is near the limit");
        assert!(lengths().any(|length| 1_048_576 < length), "none exceeds the limit");
    }

    #[test]
    fn blanks_that_a_server_may_store_are_noticed() {
        let check = |lines: &[&str], expected: bool| {
            let commands: Vec<Command> = lines.iter().map(|line| Command::raw(*line)).collect();
            assert_eq!(may_store_blanks(&commands), expected, "{lines:?}");
        };
        check(&["set a 0 0 2 5\r\n", "\r\n\r\n"], true);
        check(&["ms a 1\r\n\n\r\n"], true);
        check(&["cas a 0 0 1 77\n", "\n", "\r\n"], true);
        check(&["set a 0 0 2\r\n5 \r\n"], false);
        check(&["set a 0 0 0\r\n\r\n"], false);
        check(&["set a 0 0 2\r\n", "\n"], false);
        check(&["get a\r\n"], false);
    }

    #[track_caller]
    fn check(dialect: Dialect, kind: Kind, wanted: &[&str]) {
        for wanted in wanted {
            let said = rendered(dialect, kind, 10_000)
                .any(|bytes| bytes.windows(wanted.len()).any(|part| part == wanted.as_bytes()));
            assert!(said, "{wanted:?} is never said");
        }
    }

    /// What Larder is told of one command after the other.
    fn rendered(dialect: Dialect, kind: Kind, seeds: u64) -> impl Iterator<Item = Vec<u8>> {
        let login = Login { username: "somebody".into(), password: "a-password".into() };
        let logins = Logins { memcached: login.clone(), larder: login };
        (0..seeds).flat_map(move |seed| {
            let sequence = Sequence::generate(dialect, kind, Vocabulary::Newest, &logins, seed);
            sequence.rounds.into_iter().flatten().map(|command| {
                let mut bytes = Vec::new();
                command.render(Side::Larder, 0, &HashMap::new(), &mut bytes);
                bytes
            })
        })
    }
}
