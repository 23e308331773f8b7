//! Plays sequences on both servers and finds the fewest commands on which they differ.

use crate::connection::{Login, shown};
use crate::differential::command::{Side, whole_key};
use crate::differential::exchange::{Exchanged, Split, exchange};
use crate::differential::explained::{explained, is_failed_login, is_more_statistics};
use crate::differential::reply::{Apart, Reader, Reply};
use crate::differential::sequence::{Dialect, Kind, Sequence};
use crate::differential::times::{Flushes, PAUSE, ROUND_MAX, Times};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

/// The Larder that is compared with memcached: one process, or the proxies of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Each connection goes to the next of them, and there is at least one.
    pub addrs: Vec<SocketAddr>,
    /// What a connection says first, where the sequences themselves do not log in.
    pub login: Option<Login>,
}

/// The two servers, and how much they were asked.
pub struct Judge {
    memcached: SocketAddr,
    larder: Subject,
    next_connection: usize,
    next_prefix: u64,
    pub figures: Figures,
}

#[derive(Debug, Default, Clone)]
pub struct Figures {
    pub sequences: u64,
    pub commands: u64,
    pub replies: u64,
    /// How often each explained difference was met.
    pub explained: BTreeMap<&'static str, u64>,
    /// Rounds with times that come to pass, which took too long to know whether they had.
    pub rounds_too_long: u64,
    /// The longest that memcached and Larder took for a round.
    pub slowest: [Duration; 2],
}

impl Figures {
    pub fn add(&mut self, other: &Figures) {
        self.sequences += other.sequences;
        self.commands += other.commands;
        self.replies += other.replies;
        self.rounds_too_long += other.rounds_too_long;
        for (slowest, other) in self.slowest.iter_mut().zip(other.slowest) {
            *slowest = (*slowest).max(other);
        }
        for (reason, count) in &other.explained {
            *self.explained.entry(reason).or_default() += count;
        }
    }
}

/// What follows the last command of a connection that is in step, so that its answer shows the end.
#[derive(Clone, Copy)]
struct Ending {
    ask: &'static [u8],
    answer: &'static [u8],
}

impl Ending {
    fn of(dialect: Dialect) -> Ending {
        match dialect {
            Dialect::Text | Dialect::Meta | Dialect::Login => {
                Ending { ask: NOOPS, answer: NOOPS_ANSWER }
            }
            Dialect::Binary | Dialect::Sasl => Ending { ask: FRAME, answer: FRAME_ANSWER },
        }
    }
}

/// Noops alone might be the sequence's own, and what ends like this is in no value. The key is nobody's.
const NOOPS: &[u8] = b"mn\r\nmn\r\nmn\r\nmn\r\nmn\r\nget the-end\r\n";
const NOOPS_ANSWER: &[u8] = b"MN\r\nMN\r\nMN\r\nMN\r\nMN\r\nEND\r\n";
/// A noop with an opaque that no sequence uses.
const FRAME: &[u8] = b"\x80\x0a\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0\0";
const FRAME_ANSWER: &[u8] = b"\x81\x0a\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0\0";

/// Larder answers all that came before.
const LOST: &str = "a client that leaves within a value, or lies: memcached drops the last answers";

/// A guess costs a connection (`docs/compatibility.md`).
const NO_SECOND_TRY: &str = "a failed login, or a command before one: Larder closes a binary connection, memcached does not";

/// memcached's seconds are those of a timer and of two clocks, Larder's of one and of two.
const CLOCKS_APART_SECONDS_MAX: u64 = 2;

/// Length of `STORED` and its line end.
const LOGIN_ANSWER: usize = 8;
/// Length of a header with `Authenticated` behind it.
const LOGIN_FRAME_ANSWER: usize = 24 + 13;

/// Where two servers part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub round: usize,
    pub memcached: String,
    pub larder: String,
}

impl Judge {
    pub fn new(memcached: SocketAddr, larder: Subject) -> Judge {
        let figures = Figures::default();
        Judge { memcached, larder, next_connection: 0, next_prefix: 0, figures }
    }

    /// Plays `sequences`, all of one dialect and kind, one after the other on the same connections.
    ///
    /// # Errors
    ///
    /// When a server cannot be reached.
    pub fn play(
        &mut self,
        sequences: &[&Sequence],
        split: Split,
    ) -> io::Result<Option<Difference>> {
        let Some(Sequence { dialect, kind, .. }) = sequences.first() else { return Ok(None) };
        let difference = self.play_rounds(sequences, *dialect, *kind, split);
        if kind.flushes == Flushes::Delayed {
            // Takes the place of a flush that would come to pass in the midst of other sequences.
            let ending = Ending { ask: b"flush_all\r\n", answer: b"OK\r\n" };
            let requests = [ending.ask.to_vec(), ending.ask.to_vec()];
            self.exchange(Dialect::Text, requests, Split::Whole, Some(ending.answer))?;
        }
        difference
    }

    fn play_rounds(
        &mut self,
        sequences: &[&Sequence],
        dialect: Dialect,
        kind: Kind,
        split: Split,
    ) -> io::Result<Option<Difference>> {
        let first_prefix = self.next_prefix;
        self.next_prefix += sequences.len() as u64;
        self.figures.sequences += sequences.len() as u64;
        let counts_per_backend = 1 < self.larder.addrs.len();
        let mut sides = [Reader::default(), Reader::default()];
        sides.iter_mut().for_each(|side| side.counts_per_backend = counts_per_backend);
        let ending = kind.in_step.then(|| Ending::of(dialect));
        let rounds = sequences.iter().map(|sequence| sequence.rounds.len()).max().unwrap_or(0);
        let mut longest = Duration::ZERO;
        for round in 0..rounds {
            if 0 < round && kind.times == Times::Near {
                thread::sleep(PAUSE);
            }
            let (mut requests, keys) = render(sequences, first_prefix, round, &sides);
            if let Some(ending) = &ending {
                requests.iter_mut().for_each(|request| request.extend(ending.ask));
            }
            self.figures.commands +=
                sequences.iter().map(|sequence| sequence.commands_in(round)).sum::<usize>() as u64;
            let start = Instant::now();
            let end = ending.map(|ending| ending.answer);
            let answers = self.exchange(dialect, requests, split, end)?;
            let took = start.elapsed();
            for (slowest, answer) in self.figures.slowest.iter_mut().zip(&answers) {
                *slowest = (*slowest).max(answer.took);
            }
            if kind.times == Times::Near && ROUND_MAX < took {
                self.figures.rounds_too_long += 1;
                return Ok(None);
            }
            longest = longest.max(took);
            let [memcached, larder] = &answers;
            let [reference, subject] = &mut sides;
            let (one, two) = if dialect.is_binary() {
                (reference.binary(&memcached.bytes, &keys), subject.binary(&larder.bytes, &keys))
            } else {
                (reference.text(&memcached.bytes), subject.text(&larder.bytes))
            };
            self.figures.replies += one.len() as u64;
            let apart = Apart {
                seconds_max: CLOCKS_APART_SECONDS_MAX + longest.as_secs() + 1,
                // memcached notes at most once in a minute that an item was read.
                ignores_idle: kind.times == Times::Near,
            };
            let found = self.first_difference(&one, &two, apart, kind.in_step);
            if let Some((memcached, larder)) = found {
                return Ok(Some(Difference { round, memcached, larder }));
            }
            if one.len() < two.len() {
                // Tokens can no longer be matched, because memcached's last ones were lost.
                return Ok(None);
            }
            if answers.iter().any(|answer| answer.hung) {
                let [memcached, larder] = answers
                    .map(|answer| if answer.hung { "still open" } else { "closed" }.to_owned());
                return Ok(Some(Difference { round, memcached, larder }));
            }
        }
        Ok(None)
    }

    fn exchange(
        &mut self,
        dialect: Dialect,
        [to_memcached, mut to_larder]: [Vec<u8>; 2],
        split: Split,
        end: Option<&[u8]>,
    ) -> io::Result<[Exchanged; 2]> {
        let Subject { addrs, login } = &self.larder;
        let larder = addrs[self.next_connection % addrs.len()];
        self.next_connection += 1;
        if let Some(login) = login {
            let first = if dialect.is_binary() { login.binary() } else { login.text().into() };
            to_larder.splice(..0, first);
        }
        let [reference, mut subject] = thread::scope(|scope| {
            let reference = scope.spawn(|| exchange(self.memcached, &to_memcached, split, end));
            let subject = exchange(larder, &to_larder, split, end)?;
            let reference = reference.join().expect("an exchange does not panic")?;
            io::Result::Ok([reference, subject])
        })?;
        if login.is_some() {
            // An answer that is shorter was a refusal, and differs soon enough.
            let answer = if dialect.is_binary() { LOGIN_FRAME_ANSWER } else { LOGIN_ANSWER };
            subject.bytes.drain(..answer.min(subject.bytes.len()));
        }
        Ok([reference, subject])
    }

    fn first_difference(
        &mut self,
        one: &[Reply<'_>],
        two: &[Reply<'_>],
        apart: Apart,
        in_step: bool,
    ) -> Option<(String, String)> {
        let missing = || "(no more answers)".to_owned();
        for at in 0..one.len().max(two.len()) {
            match (one.get(at), two.get(at)) {
                (Some(memcached), Some(larder)) if memcached.agrees(larder, apart) => {}
                (Some(memcached), Some(larder)) => match explained(memcached, larder, apart) {
                    Some(reason) => *self.figures.explained.entry(reason).or_default() += 1,
                    None => return Some((memcached.to_string(), larder.to_string())),
                },
                (None, Some(_)) if !in_step => {
                    *self.figures.explained.entry(LOST).or_default() += 1;
                    return None;
                }
                (Some(_), None) if !in_step && two.last().is_some_and(is_failed_login) => {
                    *self.figures.explained.entry(NO_SECOND_TRY).or_default() += 1;
                    return None;
                }
                // The refusal has been counted already.
                (Some(more), None)
                    if !in_step
                        && two.last().is_some_and(|refusal| is_more_statistics(more, refusal)) => {}
                (memcached, larder) => {
                    let said =
                        |reply: Option<&Reply<'_>>| reply.map_or_else(missing, ToString::to_string);
                    return Some((said(memcached), said(larder)));
                }
            }
        }
        None
    }

    /// Halves `sequences`, which differed together, for as long as one half still differs. Returns the
    /// fewest that did.
    ///
    /// # Errors
    ///
    /// When a server cannot be reached.
    pub fn halve<'a>(
        &mut self,
        sequences: &'a [&'a Sequence],
        mut difference: Difference,
        split: Split,
    ) -> io::Result<(&'a [&'a Sequence], Difference)> {
        let mut fewest = sequences;
        'halving: while fewest.len() > 1 {
            let (first, second) = fewest.split_at(fewest.len() / 2);
            for half in [first, second] {
                if let Some(still) = self.play(half, split)? {
                    fewest = half;
                    difference = still;
                    continue 'halving;
                }
            }
            break;
        }
        Ok((fewest, difference))
    }

    /// Takes commands away for as long as the rest still differs, as it did in `difference`.
    ///
    /// # Errors
    ///
    /// When a server cannot be reached.
    pub fn shrink(
        &mut self,
        sequence: Sequence,
        mut difference: Difference,
        split: Split,
    ) -> io::Result<(Sequence, Difference)> {
        let mut smallest = sequence;
        let mut step = smallest.commands().div_ceil(2);
        while step > 0 {
            let mut start = 0;
            while start < smallest.commands() {
                let smaller = smallest.without(start, start + step);
                match self.play(&[&smaller], split)? {
                    Some(still) if smaller.commands() > 0 => {
                        smallest = smaller;
                        difference = still;
                    }
                    _ => start += step,
                }
            }
            step /= 2;
        }
        Ok((smallest, difference))
    }

    /// What a person needs to see a difference again.
    pub fn describe(sequence: &Sequence, difference: &Difference) -> String {
        let mut text = String::new();
        for (number, round) in sequence.rounds.iter().enumerate() {
            if number > 0 {
                text.push_str("  -- new connection --\n");
            }
            for command in round {
                let mut bytes = Vec::new();
                command.render(Side::Larder, 0, &HashMap::new(), &mut bytes);
                // Writing to a string cannot fail.
                _ = writeln!(text, "  > {}", shown(&bytes));
            }
        }
        _ = write!(
            text,
            "in connection {}\n  memcached: {}\n  larder:    {}",
            difference.round + 1,
            difference.memcached,
            difference.larder
        );
        text
    }
}

/// One round of every sequence as bytes for both servers, and the keys that binary answers belong to.
fn render(
    sequences: &[&Sequence],
    first_prefix: u64,
    round: usize,
    sides: &[Reader; 2],
) -> ([Vec<u8>; 2], HashMap<u32, Vec<u8>>) {
    const OPAQUE_AT: usize = 12;
    let mut keys = HashMap::new();
    let mut requests = [Vec::new(), Vec::new()];
    for (prefix, sequence) in (first_prefix..).zip(sequences) {
        for command in sequence.rounds.get(round).into_iter().flatten() {
            let start = requests[0].len();
            let [to_memcached, to_larder] = &mut requests;
            command.render(Side::Memcached, prefix, &sides[0].tokens, to_memcached);
            command.render(Side::Larder, prefix, &sides[1].tokens, to_larder);
            if let Some(key) = command.key {
                let opaque = requests[0][start + OPAQUE_AT..].first_chunk();
                let opaque = u32::from_be_bytes(*opaque.expect("a command with a key is a frame"));
                keys.insert(opaque, whole_key(prefix, key));
            }
        }
    }
    (requests, keys)
}
