//! Answers in the order of their requests, though some of them come later.
//!
//! A request whose item is in this process is answered on the spot. One that had to be sent away
//! leaves a place, and whatever is answered after it waits behind:
//!
//! ```text
//!   requests:  get a    get b      get c   set d    get e
//!   owner:     here     there      here    here     there
//!              │        │            └──┬───┘       │
//!              ▼        ▼               ▼           ▼
//!   client ◀─ said   [awaited 0]  [said 1    ]  [awaited 2]
//!                     ▲ front: what is said here goes out with all said behind it
//! ```
//!
//! A session has such a queue only while something is awaited, so a request that needs no other
//! node pays one comparison for it.

use std::collections::VecDeque;

use cluster::mistake::{Mistake, is_made};
use daemon::clock::Now;
use protocol::operation::Key;
use protocol::reply::{KeptReply, Refusal, Reply};
use wire::data::reply::Outcome;

use crate::routing::Routing;
use crate::spares::Spares;

/// Most requests one client connection may have on their way to other nodes. A client that
/// pipelines more waits; the links coalesce a few hundred already.
const AWAITED_MAX: usize = 1024;

/// Bytes of requests one client connection may have on their way: one item of the default limit
/// and a good pipeline of small ones. One request is allowed whatever its size.
const ASKED_BYTES_MAX: usize = 2 * 1024 * 1024;

/// How large an answer is taken to be before the first has come.
const ANSWER_BYTES_EXPECTED: usize = 16 * 1024;

/// How large an answer is taken to be at least: they come with headers and buffers.
const ANSWER_BYTES_MIN: usize = 1024;

/// Why an answer did not come from the owner of the item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection to the owner, or it has been silent for too long. Nothing was executed, or
    /// nobody can know.
    Unreachable,
    /// The owner did not answer in time. It may have executed the request.
    TimedOut,
    /// The owner, or the way to it, has too much to do. Nothing was executed.
    Busy,
    /// Nobody was found who holds the slot. Nothing was executed.
    NoOwner,
    /// The owner does not know the cache (yet). Nothing was executed.
    NoCache,
}

impl Failure {
    /// A fixed text, so that no address or cause can leak.
    fn refusal(self) -> Refusal {
        Refusal::Unavailable(match self {
            Failure::Unreachable => "backend unreachable",
            Failure::TimedOut => "backend timed out",
            Failure::Busy => "backend busy, try again",
            Failure::NoOwner => "backend moving, try again",
            Failure::NoCache => "cache is not ready, try again",
        })
    }
}

/// An answer that is still to come.
#[derive(Debug)]
pub(crate) struct Awaited {
    pub(crate) reply: KeptReply,
    pub(crate) part: Part,
    pub(crate) asked: Asked,
    /// Whether it changes nothing, so that it does not matter which of two comes first.
    pub(crate) is_read: bool,
    /// Length of the request on its way.
    pub(crate) asked_bytes: usize,
    /// Where commands of the cache are recorded: which this is, and when it came.
    pub(crate) noted: Option<(&'static str, Now)>,
}

/// What was asked, as far as saying the answer depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A retrieval, in which nothing found is an ordinary answer.
    Get,
    Peek,
    Other,
}

/// What part of an answer it is.
#[derive(Debug)]
pub(crate) enum Part {
    /// The whole answer to a request about one item.
    Whole,
    /// One key of a text multi-get.
    Item,
    /// Nobody waits for it, but what follows must not overtake it.
    Nobody,
    /// Every backend is asked, and the answer is given when all have answered.
    Gathered(Box<Gathered>),
}

/// What comes from all backends.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) what: Gathering,
    /// Answers that have not come.
    pub(crate) left: usize,
    pub(crate) failed: usize,
    pub(crate) figures: Vec<(String, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gathering {
    Flush,
    Figures,
    ResetStats,
}

enum Answer {
    Said(Vec<u8>),
    Awaited(Awaited),
}

pub(crate) struct Answers {
    /// What the client may have now.
    ready: Vec<u8>,
    queue: VecDeque<Answer>,
    /// Number of the answer at the front of the queue.
    first: u64,
    /// The version of the routing by which all that is awaited was sent.
    version: Option<u64>,
    awaited: usize,
    /// Awaited answers whose requests had to be sent again.
    resent: usize,
    /// Bytes of answers in `queue`, but for what the last one has grown since it was counted.
    said_bytes: usize,
    /// How many of the last answer's bytes are counted.
    back_counted: usize,
    /// Bytes of the requests that are awaited.
    asked_bytes: usize,
    /// Decaying maximum of the lengths of answers.
    answer_bytes: usize,
}

impl Default for Answers {
    fn default() -> Self {
        Answers {
            ready: Vec::new(),
            queue: VecDeque::new(),
            first: 0,
            version: None,
            awaited: 0,
            resent: 0,
            said_bytes: 0,
            back_counted: 0,
            asked_bytes: 0,
            answer_bytes: ANSWER_BYTES_EXPECTED,
        }
    }
}

impl Answers {
    /// Begins a queue, in the memory of one that is over. Answers are said in `ready`, which is empty.
    pub(crate) fn begin(&mut self, first: u64, routing: Option<&Routing>, ready: Vec<u8>) {
        let queue = std::mem::take(&mut self.queue);
        debug_assert!(queue.is_empty() && ready.is_empty(), "what is over has nothing to say");
        let version = routing.map(Routing::version);
        *self = Answers { ready, queue, first, version, ..Answers::default() };
    }

    /// Gives back where answers were said, when all have been taken.
    pub(crate) fn end(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.ready)
    }

    /// Bytes of memory of the queue, without what its answers hold.
    pub(crate) fn bytes_held(&self) -> usize {
        size_of::<Answers>() + self.queue.capacity() * size_of::<Answer>()
    }

    /// The number that the next place will have.
    pub(crate) fn next_number(&self) -> u64 {
        self.first + self.queue.len() as u64
    }

    /// Leaves a place for an answer that will come.
    pub(crate) fn await_one(&mut self, awaited: Awaited) {
        self.count_back();
        self.awaited += 1;
        self.asked_bytes += awaited.asked_bytes;
        self.queue.push_back(Answer::Awaited(awaited));
        self.back_counted = 0;
    }

    /// Where an answer that is known at once is said: behind all that are awaited.
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        self.count_back();
        if !matches!(self.queue.back(), Some(Answer::Said(_))) {
            self.queue.push_back(Answer::Said(Vec::new()));
            self.back_counted = 0;
        }
        match self.queue.back_mut() {
            Some(Answer::Said(said)) => said,
            Some(Answer::Awaited(_)) | None => unreachable!("one was just put there"),
        }
    }

    /// Whether another request may be sent away (or answered) before some answers have come.
    pub(crate) fn has_room(&self, output_bytes_max: usize, routing: Option<&Routing>) -> bool {
        // As many answers as will fit, by the size they lately had.
        let fitting = output_bytes_max / self.answer_bytes;
        self.awaited < fitting.clamp(1, AWAITED_MAX)
            && self.asked_bytes < ASKED_BYTES_MAX
            && self.said_bytes + self.back_uncounted() + self.ready.len() < output_bytes_max
            // What is sent again has yet to find its owner, and so may what was routed by an
            // older version. Nothing of this connection must get there before it.
            && self.resent == 0
            && self.version == routing.map(Routing::version)
    }

    /// The number of the answer that will be said next; all before it have been.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Notes which command the last awaited answer is to.
    pub(crate) fn note_command(&mut self, name: &'static str, now: Now) {
        if let Some(Answer::Awaited(awaited)) = self.queue.back_mut() {
            awaited.noted = Some((name, now));
        }
    }

    /// The command that this answer is to, where it was noted.
    pub(crate) fn command(&self, number: u64) -> Option<(&'static str, Now)> {
        match self.queue.get((number - self.first) as usize) {
            Some(Answer::Awaited(awaited)) => awaited.noted,
            Some(Answer::Said(_)) | None => None,
        }
    }

    /// Notes that the request of this place had to be sent again.
    pub(crate) fn note_resent(&mut self) {
        self.resent += 1;
    }

    /// Whether a request on its way may be asked twice: only where none of this connection's writes
    /// is on its way too, which the repetition might overtake, or the other way round. If so, it
    /// counts as sent again.
    pub(crate) fn may_repeat(&mut self) -> bool {
        let is_write = |answer: &Answer| match answer {
            Answer::Awaited(awaited) => !awaited.is_read,
            Answer::Said(_) => false,
        };
        let may = !self.queue.iter().any(is_write) || is_made(Mistake::HedgesPastWrites);
        self.resent += usize::from(may);
        may
    }

    /// Fills a place. `key` is the request's; `resent` tells whether [`Self::note_resent`] or
    /// [`Self::may_repeat`] counted it.
    pub(crate) fn answered(
        &mut self,
        number: u64,
        resent: bool,
        key: Option<Key<'_>>,
        result: &Result<Outcome<'_>, Failure>,
    ) {
        self.count_back();
        self.resent -= usize::from(resent);
        let index = (number - self.first) as usize;
        let Some(Answer::Awaited(awaited)) = self.queue.get_mut(index) else {
            debug_assert!(false, "an answer came twice");
            return;
        };
        if let Part::Gathered(gathered) = &mut awaited.part {
            gathered.left -= 1;
            gathered.add(result);
            if gathered.left != 0 {
                return;
            }
        }
        self.awaited -= 1;
        self.asked_bytes -= awaited.asked_bytes;
        if index == 0 {
            if self.ready.capacity() == 0 {
                self.ready.reserve(ANSWER_BYTES_MIN);
            }
            let before = self.ready.len();
            awaited.speak(&mut self.ready, key, result);
            self.note_length(self.ready.len() - before);
            self.queue.pop_front();
            self.first += 1;
            self.advance();
        } else {
            let mut said = Vec::new();
            awaited.speak(&mut said, key, result);
            self.said_bytes += said.len();
            self.note_length(said.len());
            if index + 1 == self.queue.len() {
                self.back_counted = said.len();
            }
            self.queue[index] = Answer::Said(said);
        }
    }

    /// What the client may have now.
    pub(crate) fn take_ready(&mut self, spares: &mut Spares) -> Vec<u8> {
        if self.ready.is_empty() {
            return Vec::new();
        }
        let next = if self.queue.is_empty() { Vec::new() } else { spares.buffer() };
        std::mem::replace(&mut self.ready, next)
    }

    /// Whether nothing is awaited and all was taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.ready.is_empty()
    }

    /// Bytes that the last answer has grown since it was counted.
    fn back_uncounted(&self) -> usize {
        match self.queue.back() {
            Some(Answer::Said(said)) => said.len() - self.back_counted,
            Some(Answer::Awaited(_)) | None => 0,
        }
    }

    fn count_back(&mut self) {
        let uncounted = self.back_uncounted();
        self.said_bytes += uncounted;
        self.back_counted += uncounted;
    }

    /// Moves what is said at the front to the client.
    fn advance(&mut self) {
        while let Some(Answer::Said(said)) = self.queue.front() {
            self.said_bytes -= said.len();
            self.ready.extend_from_slice(said);
            self.queue.pop_front();
            self.first += 1;
        }
    }

    fn note_length(&mut self, bytes: usize) {
        self.answer_bytes =
            bytes.max(self.answer_bytes - self.answer_bytes / 8).max(ANSWER_BYTES_MIN);
    }
}

impl Awaited {
    fn speak(
        &self,
        out: &mut Vec<u8>,
        key: Option<Key<'_>>,
        result: &Result<Outcome<'_>, Failure>,
    ) {
        let reply = self.reply.reply();
        match (&self.part, key) {
            (Part::Nobody, _) => (),
            (Part::Gathered(gathered), _) => gathered.speak(&reply, out),
            (Part::Item, Some(key)) => {
                // A key whose owner cannot be asked is a miss: the others are worth having.
                if let Ok(Outcome::Get(Some(hit))) = result {
                    reply.item(out, key, hit);
                }
            }
            (Part::Whole, Some(key)) => speak_one(&reply, out, key, self.asked, result),
            (Part::Item | Part::Whole, None) => {
                debug_assert!(false, "a request about an item has its key");
            }
        }
    }
}

fn speak_one(
    reply: &Reply<'_>,
    out: &mut Vec<u8>,
    key: Key<'_>,
    asked: Asked,
    result: &Result<Outcome<'_>, Failure>,
) {
    match result {
        Ok(Outcome::Get(outcome)) if asked == Asked::Peek => {
            reply.peek(out, key, outcome.as_ref());
        }
        Ok(Outcome::Get(outcome)) => reply.get(out, key, outcome),
        Ok(Outcome::Store(outcome)) => reply.store(out, key, *outcome),
        Ok(Outcome::Delete(outcome)) => reply.delete(out, key, *outcome),
        Ok(Outcome::Arithmetic(outcome)) => reply.arithmetic(out, key, *outcome),
        Ok(Outcome::Touch(outcome)) => reply.touch(out, key, *outcome),
        Ok(Outcome::Done | Outcome::Figures(_)) => {
            debug_assert!(false, "the link has checked that the outcome fits the request");
        }
        // Whoever asks quietly for items takes silence for a miss, and could not place an error.
        Err(_) if asked == Asked::Get && reply.is_quiet() => (),
        Err(failure) => reply.refused(out, failure.refusal()),
    }
}

impl Gathered {
    pub(crate) fn new(what: Gathering) -> Self {
        Gathered { what, left: 0, failed: 0, figures: Vec::new() }
    }

    fn add(&mut self, result: &Result<Outcome<'_>, Failure>) {
        match result {
            Ok(Outcome::Figures(figures)) => {
                for (name, value) in figures.iter() {
                    self.add_figure(name, value);
                }
            }
            Ok(_) => (),
            Err(_) => self.failed += 1,
        }
    }

    pub(crate) fn add_figure(&mut self, name: &str, value: u64) {
        match self.figures.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum = sum.saturating_add(value),
            None => self.figures.push((name.to_owned(), value)),
        }
    }

    pub(crate) fn speak(&self, reply: &Reply<'_>, out: &mut Vec<u8>) {
        match self.what {
            Gathering::Flush if self.failed == 0 => reply.ok(out),
            Gathering::Flush => {
                let text = "not flushed everywhere: a backend is unreachable, try again";
                reply.refused(out, Refusal::Unavailable(text));
            }
            Gathering::Figures => {
                for (name, value) in &self.figures {
                    reply.stat(out, name, &value.to_string());
                }
                if self.failed != 0 {
                    // The sums lack something, and whoever reads them shall know.
                    reply.stat(out, "backends_unreachable", &self.failed.to_string());
                }
                reply.stats_end(out);
            }
            Gathering::ResetStats => reply.stats_reset(out),
        }
    }
}
