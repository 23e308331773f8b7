//! How a group of slots goes to another owner with its items: copied while it is in use, then handed
//! over in one local step.
//!
//! ```text
//!   source    own ── open ──▶ out ── few left ──▶ frozen ── READY of this attempt ──▶ moved
//!              ▲               │                    │         (the hand-over, a local step)   │
//!              └──── abort ────┴────────────────────┘                                         │
//!                                                                                             ▼
//!      one stream:  OPEN · items · changes, in the order of the source · FIN │ ABORT │ ACTIVATE
//!                                                                                             │
//!   target    none ── OPEN ──▶ staged ── FIN ──▶ staged, ready ── ACTIVATE, or a token ──▶ own│
//!              ▲                 │                    │                                        │
//!              └──── ABORT ──────┴────────────────────┘◀───────── MOVED(token), by any proxy ─┘
//! ```
//!
//! The argument in four sentences. What is executed at the source while it copies is appended to the
//! same stream as the copies, before it is acknowledged; so the target's staging area is always some
//! state the source was in, and a late copy cannot overtake a deletion. The source executes nothing
//! between FIN and the hand-over, so at READY the two are equal. After the hand-over the source never
//! executes again, and only what it then says (ACTIVATE, or the token in MOVED) lets the target
//! begin; so there is one owner at every moment. A staged copy of which neither has come may be old,
//! because its source may have aborted and gone on: it is never promoted.
//!
//! Pure, and not yet carried by a stream: the engine of the shells to come. `handoff/model.rs` checks
//! it in every interleaving with lost connections, aborts, crashes and proxies that ask anyone.

use crate::member::Incarnation;

#[cfg(test)]
mod model;

/// One attempt to hand a group over. Never used twice: a source that comes back is another run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attempt {
    pub source: Incarnation,
    pub number: u64,
}

/// The giving side of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    Own,
    /// Items and changes flow to the target; requests are executed here.
    Out(Attempt),
    /// Requests wait, so that the target can catch up with the last change.
    Frozen(Attempt),
    /// Given away: nothing is executed here again in this run.
    Moved(Attempt),
}

/// What the source does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtSource {
    Execute,
    /// Execute, and append what has changed to the stream before it is acknowledged.
    ExecuteAndLog(Attempt),
    /// Let it wait; the source goes on, or hands over, within milliseconds.
    Park,
    /// Tell the proxy to ask the target, with this token.
    Redirect(Attempt),
}

/// What happens to a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceEvent {
    /// The planner wants the group moved.
    Open(Attempt),
    /// Little enough is on its way that the rest takes no longer than requests may wait.
    FewLeft,
    /// The target has everything of this attempt.
    Ready(Attempt),
    /// The stream is lost, the target is gone, or it takes too long.
    Abort,
}

/// What is sent to the target because of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    Open(Attempt),
    Fin(Attempt),
    Activate(Attempt),
    Abort(Attempt),
}

/// An event that does not belong to the state, or comes late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} does not belong to {state:?}")]
pub struct IllegalEvent {
    state: Source,
    event: SourceEvent,
}

impl Source {
    /// The whole machine of the giving side.
    ///
    /// # Errors
    /// The event is late, or a mistake; nothing has changed.
    pub fn after(self, event: SourceEvent) -> Result<(Source, Signal), IllegalEvent> {
        match (self, event) {
            (Source::Own, SourceEvent::Open(attempt)) => {
                Ok((Source::Out(attempt), Signal::Open(attempt)))
            }
            (Source::Out(attempt), SourceEvent::FewLeft) => {
                Ok((Source::Frozen(attempt), Signal::Fin(attempt)))
            }
            // The hand-over. Of an earlier attempt it says nothing about this one's changes.
            (Source::Frozen(attempt), SourceEvent::Ready(of)) if of == attempt => {
                Ok((Source::Moved(attempt), Signal::Activate(attempt)))
            }
            // Nothing was handed over, so the source goes on as if nothing had been begun.
            (Source::Out(attempt) | Source::Frozen(attempt), SourceEvent::Abort) => {
                Ok((Source::Own, Signal::Abort(attempt)))
            }
            (
                state,
                event @ (SourceEvent::Open(_)
                | SourceEvent::FewLeft
                | SourceEvent::Ready(_)
                | SourceEvent::Abort),
            ) => Err(IllegalEvent { state, event }),
        }
    }

    /// What becomes of a request for the group.
    pub fn request(self) -> AtSource {
        match self {
            Source::Own => AtSource::Execute,
            Source::Out(attempt) => AtSource::ExecuteAndLog(attempt),
            Source::Frozen(_) => AtSource::Park,
            Source::Moved(attempt) => AtSource::Redirect(attempt),
        }
    }
}

/// The taking side of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    None,
    /// What has come is kept apart and answers nobody.
    Staged {
        attempt: Attempt,
        is_ready: bool,
    },
    Own,
}

/// What the target does with something on the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtTarget {
    Nothing,
    /// Forget what is staged.
    Clear,
    /// Apply it to what is staged.
    Apply,
    /// Say that everything of this attempt is here.
    SayReady(Attempt),
    /// What is staged is served from now on.
    Serve,
}

impl Target {
    /// A signal of the source has come, in its place on the stream.
    pub fn hear(self, signal: Signal) -> (Target, AtTarget) {
        match (self, signal) {
            // It was given up before the one that is staged was begun, and comes late.
            (Target::Staged { attempt, .. }, Signal::Open(of))
                if of.source == attempt.source && of.number < attempt.number =>
            {
                (self, AtTarget::Nothing)
            }
            // Whatever was staged before is of an attempt that was given up.
            (Target::None | Target::Staged { .. }, Signal::Open(attempt)) => {
                (Target::Staged { attempt, is_ready: false }, AtTarget::Clear)
            }
            (Target::Staged { attempt, .. }, Signal::Fin(of)) if of == attempt => {
                (Target::Staged { attempt, is_ready: true }, AtTarget::SayReady(attempt))
            }
            (Target::Staged { attempt, is_ready: true }, Signal::Activate(of)) if of == attempt => {
                (Target::Own, AtTarget::Serve)
            }
            (Target::Staged { attempt, .. }, Signal::Abort(of)) if of == attempt => {
                (Target::None, AtTarget::Clear)
            }
            (state, Signal::Open(_) | Signal::Fin(_) | Signal::Activate(_) | Signal::Abort(_)) => {
                (state, AtTarget::Nothing)
            }
        }
    }

    /// An item or a change of this attempt has come.
    pub fn item(self, of: Attempt) -> AtTarget {
        match self {
            Target::Staged { attempt, .. } if attempt == of => AtTarget::Apply,
            Target::None | Target::Staged { .. } | Target::Own => AtTarget::Nothing,
        }
    }

    /// A request has come, perhaps with a token. The state after it, and whether it is executed here;
    /// if not, its proxy asks the source.
    pub fn request(self, token: Option<Attempt>) -> (Target, bool) {
        match self {
            Target::Own => (Target::Own, true),
            // Whoever has the token was told that the source has handed over, which it did only
            // when it had heard that all was here.
            Target::Staged { attempt, is_ready: true } if token == Some(attempt) => {
                (Target::Own, true)
            }
            Target::None | Target::Staged { .. } => (self, false),
        }
    }
}
