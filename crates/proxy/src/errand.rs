//! Requests that come back: this node asked another one, which said that the owner is here.
//!
//! They are carried out through the same door as any request of a session, with the token that the
//! other node gave along. Rare enough that the answer may be copied once more.

use daemon::clock::Now;
use protocol::operation::Hit;
use wire::data::operation::Operation;
use wire::data::reply::{Figures, Outcome, Refusal};

use crate::link::BackendLink;
use crate::links::{Errand, Links, Micros, Sink};

/// Carries out one errand and tells the links what became of it.
pub(crate) fn run<L: BackendLink>(
    id: u64,
    link: &L,
    links: &mut Links,
    now: Now,
    now_us: Micros,
    sink: &mut impl Sink,
) {
    let Some(errand) = links.errand(id) else { return };
    if let (Some(slot), Some(token)) = (errand.slot, errand.token) {
        link.accept(errand.backend, slot, token);
    }
    let guard = link.enter();
    let checked = match errand.slot {
        Some(slot) => link.check(&guard, errand.backend, slot),
        None => Ok(()),
    };
    if let Err(not_here) = checked {
        return links.errand_done(id, Err(not_here.refusal()), now_us, sink);
    }
    // Who has a slot is a question about no cache, and the check has answered it.
    if let Ok(Operation::Who | Operation::Ping) = Operation::decode(&errand.operation) {
        return links.errand_done(id, Ok(Outcome::Done), now_us, sink);
    }
    let Some(cache) = link.open(errand.cache) else {
        return links.errand_done(id, Err(Refusal::NoSuchCache), now_us, sink);
    };
    let mut value = Vec::new();
    match carry_out(&errand, link, &cache, now, &mut value) {
        Some(outcome) => links.errand_done(id, Ok(outcome), now_us, sink),
        None => links.errand_done(id, Err(Refusal::NoSuchCache), now_us, sink),
    }
}

/// `None` for an operation that cannot be read, which we wrote ourselves and so can, or is about no
/// cache.
fn carry_out<'v, L: BackendLink>(
    errand: &Errand,
    link: &L,
    cache: &L::Cache,
    now: Now,
    value: &'v mut Vec<u8>,
) -> Option<Outcome<'v>> {
    let operation = Operation::decode(&errand.operation).ok()?;
    let here = &mut link.begin(cache);
    let locate = |key| link.locate(cache, errand.backend, key);
    Some(match operation {
        Operation::Get(get) => {
            let hit = link.get(here, locate(get.key), &get, now, |hit| keep(hit, value));
            Outcome::Get(hit.map(|hit| Hit { value, ..hit }))
        }
        Operation::Peek(key) => {
            let hit = link.peek(here, locate(key), now, |hit| keep(hit, value));
            Outcome::Get(hit.map(|hit| Hit { value, ..hit }))
        }
        Operation::Store(store) => Outcome::Store(link.store(here, locate(store.key), &store, now)),
        Operation::Delete(delete) => {
            Outcome::Delete(link.delete(here, locate(delete.key), &delete, now))
        }
        Operation::Arithmetic(arithmetic) => {
            Outcome::Arithmetic(link.arithmetic(here, locate(arithmetic.key), &arithmetic, now))
        }
        Operation::Touch(touch) => Outcome::Touch(link.touch(here, locate(touch.key), &touch, now)),
        Operation::Flush { delay } => {
            link.flush(cache, delay, now);
            Outcome::Done
        }
        Operation::Figures => Outcome::Figures(Figures::encode(link.figures(cache), value)),
        Operation::ResetFigures => {
            link.reset_stats(cache);
            Outcome::Done
        }
        // Answered before, without a cache; and several reads are taken apart before.
        Operation::Who | Operation::Ping | Operation::Many(_) => return None,
    })
}

/// Copies the value; the rest of the hit borrows nothing.
fn keep(hit: Option<Hit<'_>>, value: &mut Vec<u8>) -> Option<Hit<'static>> {
    let hit = hit?;
    value.extend_from_slice(hit.value);
    Some(Hit {
        value: b"",
        flags: hit.flags,
        cas: hit.cas,
        ttl_seconds: hit.ttl_seconds,
        read_before: hit.read_before,
        idle_seconds: hit.idle_seconds,
        lease: hit.lease,
    })
}
