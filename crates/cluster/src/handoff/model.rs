//! Every interleaving of one hand-over: a source, a target, one key, a client that writes and one
//! that reads, both through proxies with any view. The machines are the real [`Source`] and
//! [`Target`].
//!
//! The writer sets, deletes and sets again; the reader must never see anything older than what was
//! acknowledged before it asked or what it has seen, and must not miss what is there, unless a process
//! that held it has crashed. The stream may break, attempts may be given up at any moment, either side
//! may crash, and requests go first to whomever they like, again and again.
//!
//! A model that finds nothing may be blind, so each [`Mistake`] is built in on purpose, and must be
//! found.

use std::collections::{HashSet, VecDeque};
use std::hash::{Hash, Hasher};

use siphasher::sip::SipHasher13;

use super::{AtSource, AtTarget, Attempt, Signal, Source, SourceEvent, Target};
use crate::member::Incarnation;

/// More than any story has; so that a mistake in one ends in words and not in all memory.
const STATES_MAX: usize = 20_000_000;

/// What is told of one hand-over.
#[derive(Clone, Copy)]
struct Story {
    /// What the writer does, one after the other: `true` sets, `false` deletes.
    writes: &'static [bool],
    reads: u8,
    attempts: u64,
    breaks: u8,
    crashes: u8,
    failover: Failover,
    mistake: Mistake,
}

/// What becomes of the slot when its source is silent, though it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failover {
    Never,
    /// Every proxy first says that it asks the source no more, and has given up what was on its way.
    Fenced,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    /// The source goes on executing after FIN.
    DoesNotFreeze,
    /// The target serves whoever asks first.
    NeedsNoToken,
    /// Items are copied, and what changes meanwhile is not.
    CopiesWithoutLog,
    /// Copies and changes take two streams, and a late copy overtakes a deletion.
    CopiesOnAnotherStream,
    /// When the source has crashed, what is staged and ready is served.
    PromotesStagedCopy,
    /// The source takes READY of an earlier attempt for this one's.
    TakesAnyReady,
    /// The target applies what is left on the stream of an earlier attempt.
    AppliesAnyAttempt,
    /// A write is acknowledged before it is on the stream, and the stream is closed without it.
    AcknowledgesBeforeLog,
    /// Silence is taken for death, and the slot is given away.
    GivesUpTheSilent,
}

/// What a key holds: which write made it so, and whether there is anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Held {
    write: u8,
    is_there: bool,
}

const NOTHING: Held = Held { write: 0, is_there: false };

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum OnStream {
    Signal(Signal),
    Copied(Attempt, Held),
    Changed(Attempt, Held),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Request {
    None,
    ToSource,
    ToTarget(Option<Attempt>),
    Parked,
    Answered(Held),
    Failed,
}

/// How far giving the slot away without its source has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Fence {
    Open,
    Closing,
    Closed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    /// `None`: crashed.
    source: Option<Source>,
    target: Option<Target>,
    at_source: Held,
    at_target: Held,
    attempts: u64,
    stream: VecDeque<OnStream>,
    /// What may come at any later time: of an earlier attempt, whose connection was slower.
    late: VecDeque<OnStream>,
    /// READYs on their way back.
    back: VecDeque<Attempt>,
    is_broken: bool,
    /// Written and acknowledged, and not on the stream yet.
    unlogged: Option<(Attempt, Held)>,
    writer: Request,
    reader: Request,
    written: u8,
    acknowledged: u8,
    reads_left: u8,
    /// What the read under way may not fall behind of.
    floor: u8,
    seen: u8,
    /// A crash has taken what was there.
    is_lost: bool,
    has_failed: bool,
    breaks_left: u8,
    crashes_left: u8,
    fence: Fence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Writer,
    Reader,
}

#[derive(Debug, Default)]
struct Found {
    states: usize,
    /// After the hand-over.
    handed_over: usize,
    served_by_target: usize,
    /// Requests failed although nothing had crashed.
    failed_without_crash: usize,
    violation: Option<String>,
}

impl Story {
    fn check(self) -> Found {
        let mut found = Found::default();
        let mut known = HashSet::new();
        let mut open = VecDeque::new();
        let start = self.start();
        known.insert(fingerprint(&start));
        open.push_back(start);
        let mut nexts = Vec::new();
        while let Some(world) = open.pop_front() {
            found.states += 1;
            assert!(found.states < STATES_MAX, "the story is too long to be told to its end");
            found.handed_over += usize::from(matches!(world.source, Some(Source::Moved(_))));
            found.served_by_target += usize::from(world.target == Some(Target::Own));
            found.failed_without_crash +=
                usize::from(world.has_failed && world.crashes_left == self.crashes);
            if let Some(violation) = self.violation(&world) {
                found.violation = Some(violation);
                return found;
            }
            self.nexts(&world, &mut nexts);
            for next in nexts.drain(..) {
                if known.insert(fingerprint(&next)) {
                    open.push_back(next);
                }
            }
        }
        found
    }

    fn start(self) -> World {
        World {
            source: Some(Source::Own),
            target: Some(Target::None),
            at_source: Held { write: 0, is_there: true },
            at_target: NOTHING,
            attempts: 0,
            stream: VecDeque::new(),
            late: VecDeque::new(),
            back: VecDeque::new(),
            is_broken: false,
            unlogged: None,
            writer: Request::None,
            reader: Request::None,
            written: 0,
            acknowledged: 0,
            reads_left: self.reads,
            floor: 0,
            seen: 0,
            is_lost: false,
            has_failed: false,
            breaks_left: self.breaks,
            crashes_left: self.crashes,
            fence: Fence::Open,
        }
    }

    /// The laws: fresh, kept, given only to one who is ready, one owner.
    fn violation(self, world: &World) -> Option<String> {
        if let Request::Answered(held) = world.reader
            && !self.may_be_read(world, held)
        {
            return Some(format!("{held:?} after {}: {world:#?}", world.floor));
        }
        // Else nobody would ever serve the slot again.
        if let (Some(Source::Moved(moved)), Some(target)) = (world.source, world.target) {
            let is_there = match target {
                Target::Own => true,
                Target::Staged { attempt, is_ready } => attempt == moved && is_ready,
                Target::None => false,
            };
            if !is_there {
                return Some(format!("given to one who is not ready: {world:#?}"));
            }
        }
        let source_serves = matches!(world.source, Some(Source::Own | Source::Out(_)));
        let is_fenced = world.fence == Fence::Closed;
        (self.mistake == Mistake::None
            && source_serves
            && !is_fenced
            && world.target == Some(Target::Own))
        .then(|| format!("two owners: {world:#?}"))
    }

    fn may_be_read(self, world: &World, held: Held) -> bool {
        let made = |write: u8| write == 0 || self.writes[usize::from(write) - 1];
        (world.floor..=world.written)
            .any(|write| made(write) == held.is_there && (!held.is_there || held.write == write))
            || !held.is_there && world.is_lost
    }

    fn nexts(self, world: &World, nexts: &mut Vec<World>) {
        for who in [Who::Writer, Who::Reader] {
            self.client_acts(world, who, nexts);
        }
        self.source_acts(world, nexts);
        self.target_hears(world, nexts);
        self.source_hears(world, nexts);
        self.things_break(world, nexts);
        self.slot_is_given_away(world, nexts);
    }

    fn client_acts(self, world: &World, who: Who, nexts: &mut Vec<World>) {
        let mut next = world.clone();
        match world.request(who) {
            Request::None => {
                match who {
                    Who::Writer if usize::from(world.written) < self.writes.len() => {
                        next.written += 1;
                    }
                    Who::Reader if 0 < world.reads_left => {
                        next.reads_left -= 1;
                        next.floor = next.acknowledged.max(next.seen);
                    }
                    Who::Writer | Who::Reader => return,
                }
                if world.fence == Fence::Open {
                    let mut to_source = next.clone();
                    to_source.put(who, Request::ToSource);
                    nexts.push(to_source);
                }
                next.put(who, Request::ToTarget(None));
                nexts.push(next);
            }
            Request::ToSource => {
                self.source_is_asked(&mut next, who);
                nexts.push(next);
            }
            Request::ToTarget(token) => {
                if self.target_is_asked(&mut next, who, token) {
                    nexts.push(next);
                }
            }
            Request::Answered(held) => {
                match who {
                    Who::Writer => next.acknowledged = next.acknowledged.max(next.written),
                    // A miss may stand for any deletion, so it says nothing about later reads.
                    Who::Reader if held.is_there => next.seen = next.seen.max(held.write),
                    Who::Reader => (),
                }
                next.put(who, Request::None);
                nexts.push(next);
            }
            Request::Failed => {
                next.has_failed = true;
                next.put(who, Request::None);
                nexts.push(next);
            }
            Request::Parked => (),
        }
    }

    fn source_is_asked(self, next: &mut World, who: Who) {
        let Some(source) = next.source else { return next.put(who, Request::Failed) };
        let mut act = source.request();
        if self.mistake == Mistake::DoesNotFreeze
            && let Source::Frozen(attempt) = source
        {
            act = AtSource::ExecuteAndLog(attempt);
        }
        match act {
            AtSource::Park => next.put(who, Request::Parked),
            AtSource::Redirect(attempt) => next.put(who, Request::ToTarget(Some(attempt))),
            AtSource::Execute | AtSource::ExecuteAndLog(_) => {
                if who == Who::Writer {
                    next.at_source = self.written(next);
                    if let AtSource::ExecuteAndLog(attempt) = act {
                        self.log(next, attempt);
                    }
                }
                next.put(who, Request::Answered(next.at_source));
            }
        }
    }

    fn log(self, next: &mut World, attempt: Attempt) {
        match self.mistake {
            Mistake::CopiesWithoutLog => (),
            Mistake::AcknowledgesBeforeLog => next.unlogged = Some((attempt, next.at_source)),
            Mistake::None
            | Mistake::DoesNotFreeze
            | Mistake::NeedsNoToken
            | Mistake::CopiesOnAnotherStream
            | Mistake::PromotesStagedCopy
            | Mistake::TakesAnyReady
            | Mistake::AppliesAnyAttempt
            | Mistake::GivesUpTheSilent => next.send(OnStream::Changed(attempt, next.at_source)),
        }
    }

    /// `false` when the request stays where it is.
    fn target_is_asked(self, next: &mut World, who: Who, token: Option<Attempt>) -> bool {
        let Some(target) = next.target else {
            next.put(who, Request::Failed);
            return true;
        };
        let (mut after, mut serves) = target.request(token);
        if self.mistake == Mistake::NeedsNoToken && matches!(target, Target::Staged { .. }) {
            (after, serves) = (Target::Own, true);
        }
        next.target = Some(after);
        if serves {
            if who == Who::Writer {
                next.at_target = self.written(next);
            }
            next.put(who, Request::Answered(next.at_target));
        } else if next.fence == Fence::Open {
            next.put(who, Request::ToSource);
        } else {
            return false;
        }
        true
    }

    fn written(self, world: &World) -> Held {
        let is_there = self.writes[usize::from(world.written) - 1];
        Held { write: world.written, is_there }
    }

    fn source_acts(self, world: &World, nexts: &mut Vec<World>) {
        let Some(source) = world.source else { return };
        let may_open = world.attempts < self.attempts
            && matches!(world.target, Some(Target::None | Target::Staged { .. }));
        if may_open {
            let attempt = Attempt { source: Incarnation::new(1), number: world.attempts + 1 };
            if let Ok((after, signal)) = source.after(SourceEvent::Open(attempt)) {
                let mut next = world.clone();
                next.attempts += 1;
                next.is_broken = false;
                // A new connection; what is on the old one may still come, READY too.
                let old = std::mem::take(&mut next.stream);
                next.late.extend(old);
                next.source = Some(after);
                next.send(OnStream::Signal(signal));
                let copied = OnStream::Copied(attempt, next.at_source);
                if self.mistake == Mistake::CopiesOnAnotherStream {
                    next.late.push_back(copied);
                } else {
                    next.send(copied);
                }
                nexts.push(next);
            }
        }
        for event in [SourceEvent::FewLeft, SourceEvent::Abort] {
            if let Ok((after, signal)) = source.after(event) {
                let mut next = world.clone();
                next.source = Some(after);
                if event == SourceEvent::Abort {
                    next.unlogged = None;
                }
                next.send(OnStream::Signal(signal));
                if after == Source::Own {
                    next.unpark(Request::ToSource);
                }
                nexts.push(next);
            }
        }
        if let Some((attempt, held)) = world.unlogged {
            let mut next = world.clone();
            next.unlogged = None;
            if matches!(source, Source::Out(of) if of == attempt) {
                next.send(OnStream::Changed(attempt, held));
            }
            nexts.push(next);
        }
    }

    fn target_hears(self, world: &World, nexts: &mut Vec<World>) {
        let Some(target) = world.target else { return };
        for is_late in [false, true] {
            let mut next = world.clone();
            let from = if is_late { &mut next.late } else { &mut next.stream };
            let Some(heard) = from.pop_front() else { continue };
            match heard {
                OnStream::Signal(signal) => {
                    let (after, act) = target.hear(signal);
                    next.target = Some(after);
                    match act {
                        AtTarget::Clear => next.at_target = NOTHING,
                        AtTarget::SayReady(attempt) if !next.is_broken => {
                            next.back.push_back(attempt);
                        }
                        AtTarget::Nothing
                        | AtTarget::Apply
                        | AtTarget::SayReady(_)
                        | AtTarget::Serve => (),
                    }
                }
                OnStream::Copied(attempt, held) | OnStream::Changed(attempt, held) => {
                    let mut act = target.item(attempt);
                    if self.mistake == Mistake::AppliesAnyAttempt
                        && matches!(target, Target::Staged { .. })
                    {
                        act = AtTarget::Apply;
                    }
                    if act == AtTarget::Apply {
                        next.at_target = held;
                    }
                }
            }
            nexts.push(next);
        }
    }

    fn source_hears(self, world: &World, nexts: &mut Vec<World>) {
        let Some(source) = world.source else { return };
        let mut next = world.clone();
        let Some(mut of) = next.back.pop_front() else { return };
        if self.mistake == Mistake::TakesAnyReady
            && let Source::Frozen(attempt) = source
        {
            of = attempt;
        }
        if let Ok((after, signal)) = source.after(SourceEvent::Ready(of)) {
            next.source = Some(after);
            next.send(OnStream::Signal(signal));
            next.unpark(Request::ToTarget(Some(of)));
        }
        nexts.push(next);
    }

    fn things_break(self, world: &World, nexts: &mut Vec<World>) {
        let is_under_way =
            !(world.stream.is_empty() && world.late.is_empty() && world.back.is_empty());
        if 0 < world.breaks_left && is_under_way {
            let mut next = world.clone();
            next.breaks_left -= 1;
            next.break_stream();
            nexts.push(next);
        }
        if world.crashes_left == 0 {
            return;
        }
        if let Some(source) = world.source {
            let mut next = world.clone();
            next.crashes_left -= 1;
            next.is_lost |= !matches!(source, Source::Moved(_));
            next.source = None;
            next.at_source = NOTHING;
            next.unlogged = None;
            next.break_stream();
            next.unpark(Request::Failed);
            nexts.push(next);
        }
        if let Some(target) = world.target {
            let mut next = world.clone();
            next.crashes_left -= 1;
            let held_it = target == Target::Own || matches!(world.source, Some(Source::Moved(_)));
            next.is_lost |= held_it || world.source.is_none();
            next.target = None;
            next.at_target = NOTHING;
            next.break_stream();
            nexts.push(next);
        }
    }

    /// Control gives the slot to the target without its source: empty, or, by mistake, as it is
    /// staged there.
    fn slot_is_given_away(self, world: &World, nexts: &mut Vec<World>) {
        let Some(target) = world.target else { return };
        if target == Target::Own {
            return;
        }
        let mut next = world.clone();
        next.target = Some(Target::Own);
        if world.source.is_none() {
            if self.mistake == Mistake::PromotesStagedCopy {
                if !matches!(target, Target::Staged { is_ready: true, .. }) {
                    return;
                }
            } else {
                next.at_target = NOTHING;
                next.is_lost = true;
            }
            nexts.push(next);
            return;
        }
        next.at_target = NOTHING;
        next.is_lost = true;
        let is_idle = world.source == Some(Source::Own);
        if self.mistake == Mistake::GivesUpTheSilent && is_idle {
            nexts.push(next);
        } else if self.failover == Failover::Fenced && is_idle && world.attempts == 0 {
            match world.fence {
                Fence::Open => {
                    let mut closing = world.clone();
                    closing.fence = Fence::Closing;
                    nexts.push(closing);
                }
                Fence::Closing => {
                    let asks_source =
                        |request| matches!(request, Request::ToSource | Request::Parked);
                    for who in [Who::Writer, Who::Reader] {
                        if asks_source(world.request(who)) {
                            let mut given_up = world.clone();
                            given_up.put(who, Request::Failed);
                            nexts.push(given_up);
                        }
                    }
                    if !asks_source(world.writer) && !asks_source(world.reader) {
                        next.fence = Fence::Closed;
                        nexts.push(next);
                    }
                }
                Fence::Closed => (),
            }
        }
    }
}

impl World {
    fn request(&self, who: Who) -> Request {
        match who {
            Who::Writer => self.writer,
            Who::Reader => self.reader,
        }
    }

    fn put(&mut self, who: Who, request: Request) {
        match who {
            Who::Writer => self.writer = request,
            Who::Reader => self.reader = request,
        }
    }

    fn unpark(&mut self, to: Request) {
        for who in [Who::Writer, Who::Reader] {
            if self.request(who) == Request::Parked {
                self.put(who, to);
            }
        }
    }

    fn send(&mut self, what: OnStream) {
        if !self.is_broken && self.target.is_some() && self.source.is_some() {
            self.stream.push_back(what);
        }
    }

    fn break_stream(&mut self) {
        self.stream.clear();
        self.late.clear();
        self.back.clear();
        self.is_broken = true;
    }
}

/// Worlds are known by 64 bits of them: that any two of a million are taken for one has a chance of
/// one in 30 million.
fn fingerprint(world: &World) -> u64 {
    let mut hasher = SipHasher13::new_with_key(&[2; 16]);
    world.hash(&mut hasher);
    hasher.finish()
}

const SET_DELETE_SET: &[bool] = &[true, false, true];

const PLAIN: Story = Story {
    writes: SET_DELETE_SET,
    reads: 3,
    attempts: 1,
    breaks: 0,
    crashes: 0,
    failover: Failover::Never,
    mistake: Mistake::None,
};

impl Story {
    /// The laws hold in every state, and the hand-over is reached. Says how many states there are.
    #[track_caller]
    fn holds(self) -> usize {
        let found = self.check();
        assert_eq!(found.violation, None);
        assert!(0 < found.handed_over || self.attempts == 0, "nothing was handed over");
        assert!(0 < found.served_by_target, "the target never served");
        if self.failover == Failover::Never {
            assert_eq!(found.failed_without_crash, 0, "a planned move fails nothing");
        }
        found.states
    }

    #[track_caller]
    fn finds(self, mistake: Mistake) {
        let found = Story { mistake, ..self }.check();
        assert!(found.violation.is_some(), "{mistake:?} was not found in {} states", found.states);
    }
}

#[test]
fn a_hand_over_is_fresh_keeps_everything_and_fails_nothing() {
    PLAIN.holds();
}

#[test]
fn so_is_one_whose_stream_breaks_and_that_is_tried_again() {
    let states = Story { attempts: 2, breaks: 1, reads: 2, ..PLAIN }.holds();
    assert!(300_000 <= states, "{states} states are fewer than there should be");
}

#[test]
fn a_crash_of_either_side_loses_items_and_shows_no_old_one() {
    Story { attempts: 2, breaks: 1, crashes: 1, reads: 1, ..PLAIN }.holds();
    let two = &[true, true, false];
    Story { writes: two, attempts: 1, crashes: 2, reads: 2, ..PLAIN }.holds();
}

/// More reads, more attempts; prints how many states there are.
#[test]
#[ignore = "takes minutes: cargo test -p cluster --release --lib handoff -- --ignored --nocapture"]
#[expect(clippy::print_stdout, reason = "figures for people")]
fn longer_stories_hold() {
    let two = &[true, true, false];
    for (name, story) in [
        ("plain", PLAIN),
        ("two attempts", Story { attempts: 2, ..PLAIN }),
        ("two attempts, a break", Story { attempts: 2, breaks: 1, ..PLAIN }),
        ("and a crash", Story { attempts: 2, breaks: 1, crashes: 1, reads: 2, ..PLAIN }),
        ("two crashes", Story { writes: two, attempts: 2, crashes: 2, reads: 2, ..PLAIN }),
        ("three attempts, two breaks", Story { attempts: 3, breaks: 2, reads: 1, ..PLAIN }),
        ("fenced", Story { attempts: 0, failover: Failover::Fenced, ..PLAIN }),
    ] {
        println!("{name}: {} states", story.holds());
    }
}

#[test]
fn a_silent_source_may_be_replaced_behind_a_fence() {
    Story { attempts: 0, failover: Failover::Fenced, ..PLAIN }.holds();
}

#[test]
fn every_mistake_is_found() {
    PLAIN.finds(Mistake::DoesNotFreeze);
    PLAIN.finds(Mistake::NeedsNoToken);
    PLAIN.finds(Mistake::CopiesWithoutLog);
    PLAIN.finds(Mistake::CopiesOnAnotherStream);
    PLAIN.finds(Mistake::AcknowledgesBeforeLog);
    let again = Story { attempts: 2, reads: 2, ..PLAIN };
    again.finds(Mistake::TakesAnyReady);
    again.finds(Mistake::AppliesAnyAttempt);
    Story { attempts: 2, breaks: 1, crashes: 1, reads: 1, ..PLAIN }
        .finds(Mistake::PromotesStagedCopy);
    Story { attempts: 0, ..PLAIN }.finds(Mistake::GivesUpTheSilent);
}
