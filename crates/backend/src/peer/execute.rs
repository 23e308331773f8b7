//! One request carried out, or refused, and its reply written.

use arrayvec::ArrayVec;
use cluster::ownership::Elsewhere;
use cluster::slot::Slot;
use daemon::clock::Now;
use protocol::operation::Key;
use store::store::{Cache, Located};
use wire::data::frame::Seal;
use wire::data::many::{AnswersWriter, ReadAt, Reads};
use wire::data::operation::Operation;
use wire::data::reply::{Answer, Busy, Figures, Outcome, Refusal, Reply, ReplyHeader};
use wire::data::request::Request;

use crate::peer::link::OUTPUT_BYTES_MAX;
use crate::slots::Entered;

/// Requests located and warmed before the first is executed. Twice the misses a core can have under
/// way.
pub(super) const BATCH_REQUESTS_MAX: usize = 32;

/// Fewest keys that are worth warming.
pub(super) const WARM_KEYS_MIN: usize = 4;

/// Where replies go.
pub(super) struct Replies<'a> {
    pub(super) out: &'a mut Vec<u8>,
    pub(super) seal: Seal,
}

impl Replies<'_> {
    pub(super) fn answer(&mut self, request: &Request<'_>, answer: Answer<'_>) {
        Reply { header: header(request), answer }.encode(self.out, self.seal);
    }

    pub(super) fn refuse(&mut self, request: &Request<'_>, refusal: Refusal<'_>) {
        self.answer(request, Answer::Refused(refusal));
    }

    fn done(&mut self, request: &Request<'_>, outcome: Outcome<'_>) {
        self.answer(request, Answer::Done(outcome));
    }
}

fn header(request: &Request<'_>) -> ReplyHeader {
    ReplyHeader { id: request.header.id, cache: request.header.cache }
}

/// Why the slot's owner did not execute it.
pub(super) enum NotHere {
    /// Refused; the reply is written.
    Refused,
    /// The slot is about to move: wait a moment, or be refused.
    Frozen,
}

/// Carries a request out on a slot that is ours, and writes the reply.
#[inline]
pub(super) fn execute(
    request: &Request<'_>,
    cache: Option<&Cache>,
    at: Option<&Located<'_>>,
    entered: &Entered<'_>,
    now: Now,
    replies: &mut Replies<'_>,
) -> Result<(), NotHere> {
    if let Operation::Many(reads) = &request.operation {
        return execute_many(request, reads, cache, entered, now, replies);
    }
    let is_of_slot =
        request.operation.key().is_some() || matches!(request.operation, Operation::Who);
    if is_of_slot && let Err(elsewhere) = entered.check(request.header.slot) {
        return refuse_elsewhere(request, elsewhere, replies);
    }
    // A proxy that knows only an older map does not ask the members that have come since, so it must
    // not tell its client that all is forgotten. Whoever gave them their slots knows the newer one.
    if matches!(request.operation, Operation::Flush { .. })
        && request.header.epoch < entered.epoch()
    {
        replies.refuse(request, Refusal::Unknown { epoch: entered.epoch() });
        return Err(NotHere::Refused);
    }
    match (cache, at) {
        (Some(cache), Some(at)) => on_item(request, cache, at, now, replies),
        (cache, _) => match (request.operation, cache) {
            (Operation::Who | Operation::Ping, _) => replies.done(request, Outcome::Done),
            (_, None) => {
                replies.refuse(request, Refusal::NoSuchCache);
                return Err(NotHere::Refused);
            }
            (_, Some(cache)) => on_cache(request, cache, now, replies),
        },
    }
    Ok(())
}

#[cold]
fn refuse_elsewhere(
    request: &Request<'_>,
    elsewhere: Elsewhere<'_>,
    replies: &mut Replies<'_>,
) -> Result<(), NotHere> {
    if matches!(elsewhere, Elsewhere::Frozen) {
        return Err(NotHere::Frozen);
    }
    replies.refuse(request, refusal_of(elsewhere));
    Err(NotHere::Refused)
}

fn refusal_of(elsewhere: Elsewhere<'_>) -> Refusal<'_> {
    match elsewhere {
        Elsewhere::Moved { to, token } => Refusal::Moved { to: to.as_str(), token },
        Elsewhere::NotYet { ask } => Refusal::NotYet { ask: ask.map(|name| name.as_str()) },
        Elsewhere::Unknown { epoch } => Refusal::Unknown { epoch },
        Elsewhere::Frozen => PARKED,
    }
}

/// Carries out several reads, each if its slot is ours. All wait together while one of the slots is
/// about to move: so they keep their place among the link's requests for it.
fn execute_many(
    request: &Request<'_>,
    reads: &Reads<'_>,
    cache: Option<&Cache>,
    entered: &Entered<'_>,
    now: Now,
    replies: &mut Replies<'_>,
) -> Result<(), NotHere> {
    let Some(cache) = cache else {
        replies.refuse(request, Refusal::NoSuchCache);
        return Err(NotHere::Refused);
    };
    if reads.iter().any(|read| matches!(entered.check(read.slot), Err(Elsewhere::Frozen))) {
        return Err(NotHere::Frozen);
    }
    let mut answers = AnswersWriter::new(replies.out, header(request), replies.seal);
    let mut are_all_done = true;
    let mut rest = reads.iter();
    loop {
        let batch: ArrayVec<ReadAt<'_>, BATCH_REQUESTS_MAX> =
            rest.by_ref().take(BATCH_REQUESTS_MAX).collect();
        if batch.is_empty() {
            break;
        }
        let batch: ArrayVec<_, BATCH_REQUESTS_MAX> = batch
            .iter()
            .map(|read| {
                let operation = read.decode();
                let key = operation.as_ref().ok().and_then(Operation::key);
                (read.slot, operation, locate(Some(cache), key))
            })
            .collect();
        // Others may have the cache's locks between two batches.
        let mut turn = cache.turn();
        if WARM_KEYS_MIN <= batch.len() {
            let places: ArrayVec<Located<'_>, BATCH_REQUESTS_MAX> =
                batch.iter().filter_map(|(.., place)| *place).collect();
            turn.warm(&places);
        }
        for (slot, operation, at) in &batch {
            let refusal = if OUTPUT_BYTES_MAX < answers.bytes() {
                Some(Refusal::Busy(Busy::Link))
            } else {
                entered.check(*slot).err().map(refusal_of)
            };
            match (refusal, operation, at) {
                (Some(refusal), ..) => {
                    are_all_done = false;
                    answers.push(&Answer::Refused(refusal));
                }
                (None, Ok(Operation::Get(get)), Some(at)) => {
                    crate::get(&mut turn, at, get, now, |found| {
                        answers.push(&Answer::Done(Outcome::Get(found)));
                    });
                }
                (None, Ok(Operation::Peek(_)), Some(at)) => {
                    crate::peek(&mut turn, at, now, |found| {
                        answers.push(&Answer::Done(Outcome::Get(found)));
                    });
                }
                // It is none that we understand; whoever sent it should have known.
                (None, ..) => answers.push(&Answer::Failed),
            }
        }
    }
    if are_all_done { Ok(()) } else { Err(NotHere::Refused) }
}

#[inline]
fn on_item(
    request: &Request<'_>,
    cache: &Cache,
    at: &Located<'_>,
    now: Now,
    replies: &mut Replies<'_>,
) {
    match &request.operation {
        Operation::Get(get) => crate::get(&mut cache.turn(), at, get, now, |found| {
            replies.done(request, Outcome::Get(found));
        }),
        Operation::Peek(_) => crate::peek(&mut cache.turn(), at, now, |found| {
            replies.done(request, Outcome::Get(found));
        }),
        Operation::Store(store) => {
            let outcome = crate::store(&mut cache.turn(), at, store, now);
            replies.done(request, Outcome::Store(outcome));
        }
        Operation::Delete(delete) => {
            let outcome = crate::delete(&mut cache.turn(), at, delete, now);
            replies.done(request, Outcome::Delete(outcome));
        }
        Operation::Arithmetic(arithmetic) => {
            let outcome = crate::arithmetic(&mut cache.turn(), at, arithmetic, now);
            replies.done(request, Outcome::Arithmetic(outcome));
        }
        Operation::Touch(touch) => {
            let outcome = crate::touch(&mut cache.turn(), at, touch, now);
            replies.done(request, Outcome::Touch(outcome));
        }
        Operation::Flush { .. }
        | Operation::Figures
        | Operation::ResetFigures
        | Operation::Who
        | Operation::Ping
        | Operation::Many(_) => on_cache(request, cache, now, replies),
    }
}

fn on_cache(request: &Request<'_>, cache: &Cache, now: Now, replies: &mut Replies<'_>) {
    match request.operation {
        Operation::Flush { delay } => {
            crate::flush(cache, delay, now);
            replies.done(request, Outcome::Done);
        }
        Operation::Figures => {
            let mut buffer = Vec::new();
            let figures = Figures::encode(crate::figures(cache), &mut buffer);
            replies.done(request, Outcome::Figures(figures));
        }
        Operation::ResetFigures => {
            cache.reset_stats();
            replies.done(request, Outcome::Done);
        }
        Operation::Who | Operation::Ping => replies.done(request, Outcome::Done),
        Operation::Get(_)
        | Operation::Peek(_)
        | Operation::Store(_)
        | Operation::Delete(_)
        | Operation::Arithmetic(_)
        | Operation::Touch(_)
        | Operation::Many(_) => replies.answer(request, Answer::Failed),
    }
}

/// How many requests of clients it is.
#[inline]
pub(super) fn weight(operation: &Operation<'_>) -> u64 {
    if let Operation::Many(reads) = operation { reads.iter().count() as u64 } else { 1 }
}

/// The slots it is about.
pub(super) fn slots<'r>(request: &'r Request<'_>) -> impl Iterator<Item = Slot> + use<'r> {
    let many = if let Operation::Many(reads) = request.operation { Some(reads) } else { None };
    let one = many.is_none().then_some(request.header.slot);
    one.into_iter().chain(many.into_iter().flat_map(|reads| reads.iter()).map(|read| read.slot))
}

/// The place of a request's key; `None` without a key or a cache.
#[inline]
pub(super) fn locate<'k>(cache: Option<&Cache>, key: Option<Key<'k>>) -> Option<Located<'k>> {
    Some(cache?.locate(key?.bytes()))
}

pub(super) const PARKED: Refusal<'static> = Refusal::Busy(Busy::Parked);
