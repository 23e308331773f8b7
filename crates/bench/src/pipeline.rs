//! The requests in flight on one connection, and the check of every reply against them.
//!
//! Replies come in the order of the requests, so a queue is all there is to it. Nothing here reads
//! a socket or a clock.

use crate::dialect::{Awaited, Dialect, Piece, Scan};
use crate::items::{Items, Kind};
use crate::mix::Act;
use crate::tally::Tally;
use std::collections::VecDeque;

/// One request that waits for its reply.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    /// When it should have been sent, in nanoseconds since the run began.
    pub(crate) intended: u64,
    pub(crate) what: What,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum What {
    /// A get of the item with this index.
    One(u64),
    /// A get of so many items; their indices wait in a queue of their own.
    Many(u32),
    Change(Act),
}

impl What {
    fn act(self) -> Act {
        match self {
            What::One(_) | What::Many(_) => Act::Get,
            What::Change(act) => act,
        }
    }

    fn awaited(self) -> Awaited {
        match self {
            What::One(_) => Awaited::One,
            What::Many(_) => Awaited::Many,
            What::Change(act) => Awaited::Change(act),
        }
    }
}

/// The server said something that answers no request of ours; after that no reply can be trusted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OutOfStep;

#[derive(Debug, Default)]
pub(crate) struct Pipeline {
    sent: VecDeque<Sent>,
    /// The indices that gets of many keys asked for, oldest first.
    many: VecDeque<u64>,
    /// Of the oldest request, if it is a get of many: how many of its keys are behind us.
    passed: u32,
    /// Of the oldest request: how many values came.
    values: u32,
}

impl Pipeline {
    pub(crate) fn len(&self) -> usize {
        self.sent.len()
    }

    pub(crate) fn push(&mut self, sent: Sent) {
        self.sent.push_back(sent);
    }

    /// Notes one key of the get of many that is about to be pushed.
    pub(crate) fn push_key(&mut self, index: u64) {
        self.many.push_back(index);
    }

    /// Takes all whole replies out of `bytes`, checks and counts them; says how many bytes that
    /// were. `now` is in nanoseconds since the run began.
    pub(crate) fn take(
        &mut self,
        bytes: &[u8],
        now: u64,
        dialect: Dialect,
        items: &mut Items,
        tally: &mut Tally,
    ) -> Result<usize, OutOfStep> {
        let mut consumed_all = 0;
        let mut alike = Alike::default();
        while let Some(&front) = self.sent.front() {
            let piece = match dialect.scan(front.what.awaited(), &bytes[consumed_all..]) {
                Scan::Piece { piece, consumed } => {
                    consumed_all += consumed;
                    piece
                }
                Scan::NeedMore => break,
                Scan::Wrong => return Err(OutOfStep),
            };
            if self.is_last(front.what, &piece, dialect, items, tally) {
                alike.add(now.saturating_sub(front.intended), tally);
                tally.answered[front.what.act() as usize] += 1;
                self.finish(front.what);
            }
        }
        alike.flush(tally);
        if self.sent.is_empty() && consumed_all < bytes.len() {
            return Err(OutOfStep);
        }
        Ok(consumed_all)
    }

    /// Counts one piece of the answer to the oldest request; says whether it was the last one.
    fn is_last(
        &mut self,
        what: What,
        piece: &Piece<'_>,
        dialect: Dialect,
        items: &mut Items,
        tally: &mut Tally,
    ) -> bool {
        match (what, piece) {
            (What::One(index), Piece::Value { key, data }) => {
                self.values += 1;
                let is_ours = key.is_empty() || *key == items.key(Kind::Value, index);
                count_value(is_ours && self.values == 1 && items.is_right(index, data), tally);
                dialect.value_ends_get()
            }
            (What::One(_), Piece::End | Piece::Missing) => {
                tally.misses += u64::from(self.values == 0);
                true
            }
            (What::Many(count), Piece::Value { key, data }) => {
                self.values += 1;
                let index = self.pass_to(key, count, items);
                count_value(index.is_some_and(|index| items.is_right(index, data)), tally);
                false
            }
            (What::Many(count), Piece::End) => {
                tally.misses += u64::from(count.saturating_sub(self.values));
                true
            }
            (What::Change(_), Piece::Missing) => {
                tally.misses += 1;
                true
            }
            (_, Piece::Refused(words)) => {
                tally.refuse(words);
                // A quiet get that is refused is still followed by the end of its batch, except in
                // the text dialect, where one line answers for all keys.
                !(matches!(what, What::Many(_)) && dialect == Dialect::Binary)
            }
            (
                What::Change(_) | What::Many(_),
                Piece::Done | Piece::Number | Piece::Value { .. } | Piece::End | Piece::Missing,
            )
            | (What::One(_), Piece::Done | Piece::Number) => true,
        }
    }

    /// Skips the keys that were not found until this one; `None` if it was not asked for.
    fn pass_to(&mut self, key: &[u8], count: u32, items: &mut Items) -> Option<u64> {
        while self.passed < count {
            let index = self.many[self.passed as usize];
            self.passed += 1;
            if items.key(Kind::Value, index) == key {
                return Some(index);
            }
        }
        None
    }

    fn finish(&mut self, what: What) {
        self.sent.pop_front();
        self.values = 0;
        self.passed = 0;
        if let What::Many(count) = what {
            self.many.drain(..count as usize);
        }
    }
}

fn count_value(is_right: bool, tally: &mut Tally) {
    tally.hits += 1;
    tally.wrong_values += u64::from(!is_right);
}

/// Replies read together to requests sent together took the same time: one look-up in the
/// histogram counts them all.
#[derive(Default)]
struct Alike {
    latency: u64,
    count: u64,
}

impl Alike {
    fn add(&mut self, latency: u64, tally: &mut Tally) {
        if latency != self.latency {
            self.flush(tally);
            self.latency = latency;
        }
        self.count += 1;
    }

    fn flush(&mut self, tally: &mut Tally) {
        if self.count > 0 {
            tally.latencies.saturating_record_n(self.latency, self.count);
            self.count = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::size::Size;

    struct Bench {
        items: Items,
        pipeline: Pipeline,
        tally: Tally,
    }

    impl Bench {
        fn new() -> Bench {
            Bench {
                items: Items::new(1, Size::Fixed(8), Size::Fixed(40)),
                pipeline: Pipeline::default(),
                tally: Tally::new(),
            }
        }

        fn ask(&mut self, what: What) {
            self.pipeline.push(Sent { intended: 0, what });
        }

        fn ask_many(&mut self, indices: &[u64]) {
            indices.iter().for_each(|&index| self.pipeline.push_key(index));
            self.ask(What::Many(indices.len() as u32));
        }

        /// `VALUE` as memcached says it, with the value of `index` under the key of `under`.
        fn value(&mut self, under: u64, index: u64) -> Vec<u8> {
            let mut reply = b"VALUE ".to_vec();
            reply.extend_from_slice(self.items.key(Kind::Value, under));
            reply.extend_from_slice(b" 0 40\r\n");
            self.items.write_value(index, 5, 40, &mut reply);
            reply.extend_from_slice(b"\r\n");
            reply
        }

        fn hear(&mut self, bytes: &[u8]) -> Result<usize, OutOfStep> {
            self.pipeline.take(bytes, 1_000, Dialect::Text, &mut self.items, &mut self.tally)
        }
    }

    #[test]
    fn hits_and_misses_are_told_apart() {
        let mut bench = Bench::new();
        bench.ask(What::One(1));
        bench.ask(What::One(2));
        let reply = [bench.value(1, 1), b"END\r\nEND\r\n".to_vec()].concat();
        assert_eq!(bench.hear(&reply), Ok(reply.len()));
        assert_eq!((bench.tally.hits, bench.tally.misses, bench.tally.wrong_values), (1, 1, 0));
        assert_eq!((bench.tally.requests(), bench.pipeline.len()), (2, 0));
        assert_eq!(bench.tally.latencies.len(), 2);
    }

    #[test]
    fn another_keys_value_is_wrong() {
        let mut bench = Bench::new();
        bench.ask(What::One(1));
        let reply = [bench.value(1, 2), b"END\r\n".to_vec()].concat();
        bench.hear(&reply).expect("in step");
        assert_eq!((bench.tally.hits, bench.tally.wrong_values), (1, 1));
    }

    #[test]
    fn another_keys_name_is_wrong() {
        let mut bench = Bench::new();
        bench.ask(What::One(1));
        let reply = [bench.value(2, 1), b"END\r\n".to_vec()].concat();
        bench.hear(&reply).expect("in step");
        assert_eq!(bench.tally.wrong_values, 1);
    }

    #[test]
    fn keys_of_a_get_of_many_may_be_missing_anywhere() {
        let mut bench = Bench::new();
        bench.ask_many(&[1, 2, 3, 4]);
        bench.ask_many(&[5]);
        let reply = [
            bench.value(2, 2),
            bench.value(4, 4),
            b"END\r\n".to_vec(),
            bench.value(5, 5),
            b"END\r\n".to_vec(),
        ]
        .concat();
        assert_eq!(bench.hear(&reply), Ok(reply.len()));
        assert_eq!((bench.tally.hits, bench.tally.misses, bench.tally.wrong_values), (3, 2, 0));
        assert_eq!(bench.tally.requests(), 2);
    }

    #[test]
    fn a_key_nobody_asked_for_is_wrong() {
        let mut bench = Bench::new();
        bench.ask_many(&[1, 2]);
        let reply = [bench.value(9, 9), b"END\r\n".to_vec()].concat();
        bench.hear(&reply).expect("in step");
        assert_eq!(bench.tally.wrong_values, 1);
    }

    #[test]
    fn half_a_reply_waits_for_the_rest() {
        let mut bench = Bench::new();
        bench.ask(What::One(1));
        let value = bench.value(1, 1);
        let half = value.len() / 2;
        assert_eq!(bench.hear(&value[..half]), Ok(0));
        assert_eq!(bench.hear(&value), Ok(value.len()));
        assert_eq!(bench.tally.requests(), 0, "the end has not come");
        assert_eq!(bench.hear(b"END\r\n"), Ok(5));
        assert_eq!((bench.tally.requests(), bench.tally.misses), (1, 0));
    }

    #[test]
    fn an_answer_without_a_question_is_out_of_step() {
        let mut bench = Bench::new();
        bench.ask(What::One(1));
        assert_eq!(bench.hear(b"END\r\nEND\r\n"), Err(OutOfStep));
    }

    #[test]
    fn a_refusal_is_kept_once_in_the_servers_words() {
        let mut bench = Bench::new();
        bench.ask(What::Change(Act::Set));
        bench.ask(What::Change(Act::Set));
        let line = b"SERVER_ERROR out of memory\r\n";
        bench.hear(&[&line[..], line].concat()).expect("in step");
        assert_eq!(bench.tally.refused, 2);
        assert_eq!(bench.tally.refusals, ["SERVER_ERROR out of memory"]);
    }
}
