//! One request carried out, or refused, and its reply written.

use cluster::ownership::Elsewhere;
use daemon::clock::Now;
use protocol::operation::Key;
use store::store::{Cache, Located};
use wire::data::frame::Seal;
use wire::data::operation::Operation;
use wire::data::reply::{Answer, Busy, Figures, Outcome, Refusal, Reply, ReplyHeader};
use wire::data::request::Request;

use crate::slots::Entered;

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
    let is_of_slot =
        request.operation.key().is_some() || matches!(request.operation, Operation::Who);
    if is_of_slot && let Err(elsewhere) = entered.check(request.header.slot) {
        return refuse_elsewhere(request, elsewhere, replies);
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
    let refusal = match elsewhere {
        Elsewhere::Moved { to, token } => Refusal::Moved { to: to.as_str(), token },
        Elsewhere::NotYet { ask } => Refusal::NotYet { ask: ask.map(|name| name.as_str()) },
        Elsewhere::Unknown { epoch } => Refusal::Unknown { epoch },
        Elsewhere::Frozen => return Err(NotHere::Frozen),
    };
    replies.refuse(request, refusal);
    Err(NotHere::Refused)
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
        | Operation::Ping => on_cache(request, cache, now, replies),
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
        | Operation::Touch(_) => replies.answer(request, Answer::Failed),
    }
}

/// The place of a request's key; `None` without a key or a cache.
#[inline]
pub(super) fn locate<'k>(cache: Option<&Cache>, key: Option<Key<'k>>) -> Option<Located<'k>> {
    Some(cache?.locate(key?.bytes()))
}

pub(super) const PARKED: Refusal<'static> = Refusal::Busy(Busy::Parked);
