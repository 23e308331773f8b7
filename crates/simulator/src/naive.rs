//! How the simple ways to change a key's owner fail: every interleaving of one client that writes and
//! one that reads, for each scheme, until the first stale read or lost key.
//!
//! Two stores, an old one and a new one; nobody checks who owns what. Proxies hold the old view or
//! the new one, and change over all at one instant or one by one. The writer sets, deletes and sets
//! again; the reader reads three times. What it may see is what a single memcached could have shown
//! it. `docs/simulation.md` tells the findings.

use std::collections::{HashMap, VecDeque};

/// A way to move keys that is, or was, in use somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Everyone asks the new owner; what is at the old one is forgotten.
    ForgetAll,
    /// A miss at the new owner is asked of the old one; writes go to the new one.
    FallbackRead,
    /// The same, and each write removes the key at the old owner.
    FallbackReadAndInvalidate,
    /// The same, and what the old owner had is added at the new one.
    FallbackReadInvalidateAndPromote,
    /// A miss is asked of the old owner and added at the new one; writes go to the new one only.
    WarmUp,
    /// Every write goes to both, and a copier adds at the new owner what it reads at the old one.
    DualWrite,
    /// The same, and the new owner remembers what was deleted.
    DualWriteAndRememberDeletions,
}

impl Scheme {
    pub const ALL: [Scheme; 7] = [
        Scheme::ForgetAll,
        Scheme::FallbackRead,
        Scheme::FallbackReadAndInvalidate,
        Scheme::FallbackReadInvalidateAndPromote,
        Scheme::WarmUp,
        Scheme::DualWrite,
        Scheme::DualWriteAndRememberDeletions,
    ];

    fn writes_both(self) -> bool {
        matches!(self, Scheme::DualWrite | Scheme::DualWriteAndRememberDeletions)
    }

    fn invalidates(self) -> bool {
        matches!(self, Scheme::FallbackReadAndInvalidate | Scheme::FallbackReadInvalidateAndPromote)
    }

    fn falls_back(self) -> bool {
        !self.writes_both() && self != Scheme::ForgetAll
    }

    fn promotes(self) -> bool {
        matches!(self, Scheme::FallbackReadInvalidateAndPromote | Scheme::WarmUp)
    }
}

/// How the proxies get the new view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    AtOneInstant,
    OneByOne,
}

/// What was found of one scheme.
#[derive(Debug)]
pub struct Verdict {
    pub scheme: Scheme,
    pub change: Change,
    /// Whether the new owner evicts the key once, as a cache may.
    pub may_evict: bool,
    /// The shortest story that ends with a value which was overwritten or deleted before.
    pub stale: Option<Vec<String>>,
    /// The shortest that ends with a miss of a key that nobody deleted.
    pub lost: Option<Vec<String>>,
    pub states: usize,
}

/// What the writer does: `true` sets, `false` deletes. Before it there is a value.
const WRITES: [bool; 3] = [true, false, true];
const READS: u8 = 3;

/// Which write made it so; `None`: there is nothing.
type Held = Option<u8>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum View {
    Old,
    New,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Phase {
    AllOld,
    Changing,
    AllNew,
}

/// One request, and how many of its steps are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Request {
    view: View,
    step: u8,
    /// What the old owner had.
    found: Held,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Copier {
    Idle,
    Holds(Held),
    Done,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    old: Held,
    new: Held,
    remembers_deletion: bool,
    phase: Phase,
    writer: Option<Request>,
    reader: Option<Request>,
    written: u8,
    acknowledged: u8,
    reads_left: u8,
    floor: u8,
    seen: u8,
    evictions_left: u8,
    was_evicted: bool,
    copier: Copier,
}

/// Looks at every interleaving of one scheme.
pub fn judge(scheme: Scheme, change: Change, may_evict: bool) -> Verdict {
    Search { scheme, change, may_evict }.run()
}

#[derive(Clone, Copy)]
struct Search {
    scheme: Scheme,
    change: Change,
    may_evict: bool,
}

/// A world that follows, and what led to it; or what a reader was answered.
struct Next {
    what: String,
    world: World,
    answer: Option<Held>,
}

impl Search {
    fn run(self) -> Verdict {
        let start = World {
            old: Some(0),
            new: None,
            remembers_deletion: false,
            phase: Phase::AllOld,
            writer: None,
            reader: None,
            written: 0,
            acknowledged: 0,
            reads_left: READS,
            floor: 0,
            seen: 0,
            evictions_left: u8::from(self.may_evict),
            was_evicted: false,
            copier: Copier::Idle,
        };
        let mut known = HashMap::from([(start.clone(), 0)]);
        // Each with its parent and what led to it.
        let mut path: Vec<(usize, String)> = vec![(0, String::new())];
        let mut open = VecDeque::from([start]);
        let (mut stale, mut lost) = (None, None);
        while let Some(world) = open.pop_front() {
            let id = known[&world];
            for next in self.nexts(&world) {
                let story = || {
                    let mut told = vec![next.what.clone()];
                    let mut at = id;
                    while at != 0 {
                        told.push(path[at].1.clone());
                        at = path[at].0;
                    }
                    told.reverse();
                    told
                };
                if let Some(answer) = next.answer {
                    match verdict_of(&world, answer) {
                        Seen::Lawful => (),
                        Seen::Lost => {
                            lost.get_or_insert_with(story);
                        }
                        Seen::Stale => {
                            stale.get_or_insert_with(story);
                            continue;
                        }
                    }
                }
                if !known.contains_key(&next.world) {
                    known.insert(next.world.clone(), path.len());
                    path.push((id, next.what));
                    open.push_back(next.world);
                }
            }
        }
        let Search { scheme, change, may_evict } = self;
        Verdict { scheme, change, may_evict, stale, lost, states: known.len() }
    }

    fn views(self, phase: Phase) -> &'static [View] {
        match (phase, self.change) {
            (Phase::AllOld, _) => &[View::Old],
            (Phase::Changing, _) => &[View::Old, View::New],
            (Phase::AllNew, _) => &[View::New],
        }
    }

    fn nexts(self, world: &World) -> Vec<Next> {
        let mut nexts = Vec::new();
        self.views_change(world, &mut nexts);
        self.owner_evicts(world, &mut nexts);
        self.copier_acts(world, &mut nexts);
        self.writer_acts(world, &mut nexts);
        self.reader_acts(world, &mut nexts);
        nexts
    }

    fn views_change(self, world: &World, nexts: &mut Vec<Next>) {
        let phase = match (world.phase, self.change) {
            (Phase::AllOld, Change::OneByOne) => Phase::Changing,
            (Phase::AllOld, Change::AtOneInstant) | (Phase::Changing, _) => Phase::AllNew,
            (Phase::AllNew, _) => return,
        };
        // Nobody changes over before everything was copied.
        if self.scheme.writes_both() && world.copier != Copier::Done {
            return;
        }
        let what = match phase {
            Phase::Changing => "the first proxies have the new view",
            Phase::AllOld | Phase::AllNew => "all proxies have the new view",
        };
        push(nexts, what, World { phase, ..world.clone() });
    }

    fn owner_evicts(self, world: &World, nexts: &mut Vec<Next>) {
        if 0 < world.evictions_left && world.new.is_some() {
            let mut next = world.clone();
            next.evictions_left -= 1;
            next.new = None;
            next.was_evicted = true;
            push(nexts, "the new owner evicts the key", next);
        }
    }

    fn copier_acts(self, world: &World, nexts: &mut Vec<Next>) {
        if !self.scheme.writes_both() {
            return;
        }
        let mut next = world.clone();
        match world.copier {
            Copier::Idle => {
                next.copier = Copier::Holds(world.old);
                push(
                    nexts,
                    &format!("the copier reads {} at the old owner", name(world.old)),
                    next,
                );
            }
            Copier::Holds(held) => {
                next.copier = Copier::Done;
                let is_refused = world.new.is_some() || world.remembers_deletion;
                if !is_refused {
                    next.new = held;
                }
                let how = if is_refused { "may not add" } else { "adds" };
                push(nexts, &format!("the copier {how} {} at the new owner", name(held)), next);
            }
            Copier::Done => (),
        }
    }

    fn writer_acts(self, world: &World, nexts: &mut Vec<Next>) {
        let Some(request) = world.writer else {
            if usize::from(world.written) < WRITES.len() {
                for &view in self.views(world.phase) {
                    let mut next = world.clone();
                    next.written += 1;
                    next.writer = Some(Request { view, step: 0, found: None });
                    let verb = if sets(next.written) { "set" } else { "delete" };
                    push(nexts, &format!("the writer begins to {verb} by the {view:?} view"), next);
                }
            }
            return;
        };
        let mut next = world.clone();
        let sets = sets(world.written);
        let held = sets.then_some(world.written);
        let steps: &[View] = if self.scheme.writes_both() {
            &[View::Old, View::New]
        } else if request.view == View::New && self.scheme.invalidates() {
            // A deletion must not be undone by a fallback in between.
            if sets { &[View::New, View::Old] } else { &[View::Old, View::New] }
        } else if request.view == View::New {
            &[View::New]
        } else {
            &[View::Old]
        };
        let place = steps[usize::from(request.step)];
        let is_own = self.scheme.writes_both() || place == request.view;
        match place {
            View::Old => next.old = if is_own { held } else { None },
            View::New => {
                next.new = held;
                let remembers = self.scheme == Scheme::DualWriteAndRememberDeletions;
                next.remembers_deletion = remembers && !sets;
            }
        }
        let is_done = usize::from(request.step) + 1 == steps.len();
        next.writer = (!is_done).then_some(Request { step: request.step + 1, ..request });
        if is_done {
            next.acknowledged = world.written;
        }
        let end = if is_done { ", and it is acknowledged" } else { "" };
        let what = format!("write {} reaches the {place:?} owner{end}", world.written);
        push(nexts, &what, next);
    }

    fn reader_acts(self, world: &World, nexts: &mut Vec<Next>) {
        let Some(request) = world.reader else {
            if 0 < world.reads_left {
                for &view in self.views(world.phase) {
                    let mut next = world.clone();
                    next.reads_left -= 1;
                    next.floor = world.acknowledged.max(world.seen);
                    next.reader = Some(Request { view, step: 0, found: None });
                    push(nexts, &format!("the reader asks by the {view:?} view"), next);
                }
            }
            return;
        };
        let mut next = world.clone();
        let ahead = |found, step| Some(Request { step, found, ..request });
        let (what, answer) = match (request.view, request.step) {
            (View::Old, _) => {
                (format!("the old owner answers {}", name(world.old)), Some(world.old))
            }
            (View::New, 0) if world.new.is_none() && self.scheme.falls_back() => {
                next.reader = ahead(None, 1);
                ("the new owner has nothing".to_owned(), None)
            }
            (View::New, 0) => {
                (format!("the new owner answers {}", name(world.new)), Some(world.new))
            }
            (View::New, 1) if world.old.is_some() && self.scheme.promotes() => {
                next.reader = ahead(world.old, 2);
                (format!("the old owner has {}", name(world.old)), None)
            }
            (View::New, 1) => {
                (format!("the old owner answers {}", name(world.old)), Some(world.old))
            }
            (View::New, _) => {
                next.new = next.new.or(request.found);
                let what =
                    format!("it is added at the new owner, and answered: {}", name(request.found));
                (what, Some(request.found))
            }
        };
        if let Some(held) = answer {
            next.reader = None;
            next.seen = next.seen.max(held.unwrap_or(0));
        }
        nexts.push(Next { what, world: next, answer });
    }
}

fn push(nexts: &mut Vec<Next>, what: &str, world: World) {
    nexts.push(Next { what: what.to_owned(), world, answer: None });
}

fn sets(write: u8) -> bool {
    WRITES[usize::from(write) - 1]
}

fn name(held: Held) -> String {
    held.map_or_else(|| "nothing".to_owned(), |write| format!("the value of write {write}"))
}

enum Seen {
    Lawful,
    Lost,
    Stale,
}

/// What one memcached could have answered, and what only one that has lost something.
fn verdict_of(world: &World, answer: Held) -> Seen {
    let made = |write: u8| write == 0 || sets(write);
    let could = (world.floor..=world.written)
        .any(|write| if made(write) { answer == Some(write) } else { answer.is_none() });
    match answer {
        _ if could => Seen::Lawful,
        None if world.was_evicted => Seen::Lawful,
        None => Seen::Lost,
        Some(_) => Seen::Stale,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scheme_fails_as_it_is_known_to() {
        // Scheme; stale at one instant, one by one.
        let table = [
            (Scheme::ForgetAll, false, true),
            (Scheme::FallbackRead, true, true),
            (Scheme::FallbackReadAndInvalidate, false, true),
            (Scheme::FallbackReadInvalidateAndPromote, true, true),
            (Scheme::WarmUp, true, true),
            (Scheme::DualWrite, true, true),
            (Scheme::DualWriteAndRememberDeletions, true, true),
        ];
        for (scheme, at_once, one_by_one) in table {
            for (change, is_stale) in
                [(Change::AtOneInstant, at_once), (Change::OneByOne, one_by_one)]
            {
                let verdict = judge(scheme, change, false);
                assert_eq!(verdict.stale.is_some(), is_stale, "{verdict:#?}");
            }
        }
        // The one that is never stale at one instant is, as soon as the new owner evicts.
        let evicting = judge(Scheme::FallbackReadAndInvalidate, Change::AtOneInstant, true);
        assert!(evicting.stale.is_some(), "{evicting:#?}");
        assert!(judge(Scheme::ForgetAll, Change::AtOneInstant, false).lost.is_some());
    }
}
