//! Plays sequences on both servers and finds the fewest commands on which they differ.

use crate::connection::shown;
use crate::differential::command::whole_key;
use crate::differential::exchange::{Exchanged, Split, exchange};
use crate::differential::explained::explained;
use crate::differential::reply::{Reader, Reply};
use crate::differential::sequence::{Dialect, Sequence};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::thread;

/// The two servers, and how much they were asked.
pub struct Judge {
    memcached: SocketAddr,
    larder: SocketAddr,
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
}

impl Figures {
    pub fn add(&mut self, other: &Figures) {
        self.sequences += other.sequences;
        self.commands += other.commands;
        self.replies += other.replies;
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
            Dialect::Text | Dialect::Meta => Ending { ask: NOOPS, answer: NOOPS_ANSWER },
            Dialect::Binary => Ending { ask: FRAME, answer: FRAME_ANSWER },
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

/// Where two servers part.
#[derive(Debug)]
pub struct Difference {
    pub round: usize,
    pub memcached: String,
    pub larder: String,
}

impl Judge {
    pub fn new(memcached: SocketAddr, larder: SocketAddr) -> Judge {
        Judge { memcached, larder, next_prefix: 0, figures: Figures::default() }
    }

    /// Plays `sequences`, all of one dialect, one after the other on the same connections.
    ///
    /// # Errors
    ///
    /// When a server cannot be reached.
    pub fn play(
        &mut self,
        sequences: &[&Sequence],
        split: Split,
    ) -> io::Result<Option<Difference>> {
        let first_prefix = self.next_prefix;
        self.next_prefix += sequences.len() as u64;
        self.figures.sequences += sequences.len() as u64;
        let mut sides = [Reader::default(), Reader::default()];
        let dialect = sequences.first().map_or(Dialect::Text, |sequence| sequence.dialect);
        let in_step = sequences.iter().all(|sequence| sequence.in_step);
        let ending = in_step.then(|| Ending::of(dialect));
        let rounds = sequences.iter().map(|sequence| sequence.rounds.len()).max().unwrap_or(0);
        for round in 0..rounds {
            let (mut requests, keys) = render(sequences, first_prefix, round, &sides);
            if let Some(ending) = &ending {
                requests.iter_mut().for_each(|request| request.extend(ending.ask));
            }
            self.figures.commands +=
                sequences.iter().map(|sequence| sequence.commands_in(round)).sum::<usize>() as u64;
            let answers = self.exchange(&requests, split, ending.map(|ending| ending.answer))?;
            let [memcached, larder] = &answers;
            let [reference, subject] = &mut sides;
            let (one, two) = match dialect {
                Dialect::Text | Dialect::Meta => {
                    (reference.text(&memcached.bytes), subject.text(&larder.bytes))
                }
                Dialect::Binary => (
                    reference.binary(&memcached.bytes, &keys),
                    subject.binary(&larder.bytes, &keys),
                ),
            };
            self.figures.replies += one.len() as u64;
            if let Some((memcached, larder)) = self.first_difference(&one, &two, in_step) {
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
        &self,
        requests: &[Vec<u8>; 2],
        split: Split,
        end: Option<&[u8]>,
    ) -> io::Result<[Exchanged; 2]> {
        thread::scope(|scope| {
            let reference = scope.spawn(|| exchange(self.memcached, &requests[0], split, end));
            let subject = exchange(self.larder, &requests[1], split, end)?;
            let reference = reference.join().expect("an exchange does not panic")?;
            Ok([reference, subject])
        })
    }

    fn first_difference(
        &mut self,
        one: &[Reply<'_>],
        two: &[Reply<'_>],
        in_step: bool,
    ) -> Option<(String, String)> {
        let missing = || "(no more answers)".to_owned();
        for at in 0..one.len().max(two.len()) {
            match (one.get(at), two.get(at)) {
                (Some(memcached), Some(larder)) if memcached.agrees(larder) => {}
                (Some(memcached), Some(larder)) => match explained(memcached, larder) {
                    Some(reason) => *self.figures.explained.entry(reason).or_default() += 1,
                    None => return Some((memcached.to_string(), larder.to_string())),
                },
                (None, Some(_)) if !in_step => {
                    *self.figures.explained.entry(LOST).or_default() += 1;
                    return None;
                }
                (memcached, larder) => {
                    let said =
                        |reply: Option<&Reply<'_>>| reply.map_or_else(missing, ToString::to_string);
                    return Some((said(memcached), said(larder)));
                }
            }
        }
        None
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
                command.render(0, &HashMap::new(), &mut bytes);
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
            for (request, side) in requests.iter_mut().zip(sides) {
                command.render(prefix, &side.tokens, request);
            }
            if let Some(key) = command.key {
                let opaque = requests[0][start + OPAQUE_AT..].first_chunk();
                let opaque = u32::from_be_bytes(*opaque.expect("a command with a key is a frame"));
                keys.insert(opaque, whole_key(prefix, key));
            }
        }
    }
    (requests, keys)
}
