//! The last commands of one cache at this proxy, for whoever looks: key, name and outcome, never a value.
//!
//! Recorded only while someone wants to know ([`Recent::want`], for [`WANTED_SECONDS`]); a cache that
//! nobody looks at pays one comparison for each request. Of more than [`RECORDED_PER_SECOND_MAX`]
//! commands in a second the rest goes unrecorded: people read a hundred lines.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use daemon::clock::Now;
use protocol::operation::{
    ArithmeticOutcome, DeleteOutcome, GetOutcome, StoreOutcome, TouchOutcome,
};
use wire::control::inquiry::{COMMANDS_MAX, Command, Status};
use wire::data::reply::Outcome;

use crate::answers::Failure;

/// For how long commands are recorded after someone has asked: as long as people look at a page.
pub const WANTED_SECONDS: u32 = 10 * 60;
/// Recorded of one cache in a second, at about 100 ns each: a hundredth of a percent of a core.
pub const RECORDED_PER_SECOND_MAX: u32 = 1_000;

/// The ring of one cache. Empty, and without memory of its own, while nobody wants it.
#[derive(Debug, Default)]
pub struct Recent {
    /// Until which second of the process; 0 while nobody wants it.
    wanted_until: AtomicU32,
    /// The second that is under way, and what was recorded in it. Two loops may both begin it: then a
    /// few more are recorded.
    second: AtomicU32,
    recorded: AtomicU32,
    ring: Mutex<VecDeque<Command>>,
}

impl Recent {
    /// Someone wants to know, now and for a while.
    pub fn want(&self, now: Now) {
        self.wanted_until.store(now.since_start.saturating_add(WANTED_SECONDS), Relaxed);
    }

    /// Whether nobody has asked for a while, although someone had before: then what was recorded is
    /// forgotten. Says so once.
    pub fn lapses(&self, now: Now) -> bool {
        let until = self.wanted_until.load(Relaxed);
        if until == 0 || now.since_start < until {
            return false;
        }
        let is_first = self.wanted_until.compare_exchange(until, 0, Relaxed, Relaxed).is_ok();
        if is_first {
            *self.lock() = VecDeque::new();
        }
        is_first
    }

    /// What was recorded, in the order in which it came.
    pub fn commands(&self) -> Vec<Command> {
        self.lock().iter().cloned().collect()
    }

    /// Whether commands are recorded.
    #[inline]
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted_until.load(Relaxed) != 0
    }

    /// Records a command, unless there were too many in this second.
    #[cold]
    pub(crate) fn record(&self, now: Now, name: &'static str, key: &[u8], seen: Seen) {
        if self.second.swap(now.since_start, Relaxed) != now.since_start {
            self.recorded.store(0, Relaxed);
        }
        if RECORDED_PER_SECOND_MAX <= self.recorded.fetch_add(1, Relaxed) {
            return;
        }
        let command = Command {
            at: u64::try_from(now.unix).unwrap_or(0),
            key: key.to_vec(),
            name: name.to_owned(),
            status: seen.status,
            value_bytes: u32::try_from(seen.value_bytes).unwrap_or(u32::MAX),
        };
        let mut ring = self.lock();
        if ring.len() == COMMANDS_MAX {
            ring.pop_front();
        }
        ring.push_back(command);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Command>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) status: Status,
    /// Of the value that was found or stored.
    pub(crate) value_bytes: usize,
}

impl Seen {
    pub(crate) fn of(result: &Result<Outcome<'_>, Failure>) -> Self {
        match result {
            Ok(Outcome::Get(outcome)) => outcome.into(),
            Ok(Outcome::Store(outcome)) => (*outcome).into(),
            Ok(Outcome::Delete(outcome)) => (*outcome).into(),
            Ok(Outcome::Arithmetic(outcome)) => (*outcome).into(),
            Ok(Outcome::Touch(outcome)) => (*outcome).into(),
            Ok(Outcome::Done | Outcome::Figures(_)) | Err(_) => Status::Failed.into(),
        }
    }
}

impl From<Status> for Seen {
    fn from(status: Status) -> Self {
        Seen { status, value_bytes: 0 }
    }
}

impl From<&GetOutcome<'_>> for Seen {
    #[inline]
    fn from(outcome: &GetOutcome<'_>) -> Self {
        match outcome {
            Some(hit) => Seen { status: Status::Hit, value_bytes: hit.value.len() },
            None => Status::Miss.into(),
        }
    }
}

impl From<StoreOutcome> for Seen {
    fn from(outcome: StoreOutcome) -> Self {
        match outcome {
            StoreOutcome::Stored { value_bytes, .. } => {
                Seen { status: Status::Stored, value_bytes: value_bytes as usize }
            }
            StoreOutcome::NotStored => Status::NotStored.into(),
            StoreOutcome::Exists => Status::Exists.into(),
            StoreOutcome::NotFound => Status::NotFound.into(),
            StoreOutcome::TooLarge | StoreOutcome::OutOfMemory => Status::Refused.into(),
        }
    }
}

impl From<DeleteOutcome> for Seen {
    fn from(outcome: DeleteOutcome) -> Self {
        Seen::from(match outcome {
            DeleteOutcome::Deleted => Status::Deleted,
            DeleteOutcome::NotFound => Status::NotFound,
            DeleteOutcome::Exists => Status::Exists,
        })
    }
}

impl From<ArithmeticOutcome> for Seen {
    fn from(outcome: ArithmeticOutcome) -> Self {
        Seen::from(match outcome {
            ArithmeticOutcome::Counted { .. } => Status::Changed,
            ArithmeticOutcome::NotFound => Status::NotFound,
            ArithmeticOutcome::Exists => Status::Exists,
            ArithmeticOutcome::NotNumeric | ArithmeticOutcome::OutOfMemory => Status::Refused,
        })
    }
}

impl From<TouchOutcome> for Seen {
    fn from(outcome: TouchOutcome) -> Self {
        Seen::from(match outcome {
            TouchOutcome::Touched { .. } => Status::Touched,
            TouchOutcome::NotFound => Status::NotFound,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u32) -> Now {
        Now { since_start: second, unix: 1_800_000_000 + i64::from(second) }
    }

    fn record(recent: &Recent, second: u32, number: u32) {
        let key = format!("k{number}");
        recent.record(at(second), "get", key.as_bytes(), Status::Miss.into());
    }

    #[test]
    fn the_last_hundred_are_kept_in_order() {
        let recent = Recent::default();
        assert!(!recent.is_wanted());
        recent.want(at(1));
        assert!(recent.is_wanted());
        (0..150).for_each(|number| record(&recent, 2, number));
        let commands = recent.commands();
        let keys: Vec<_> = commands.iter().map(|it| it.key.clone()).collect();
        let expected: Vec<_> = (50..150).map(|number| format!("k{number}").into_bytes()).collect();
        assert_eq!(keys, expected);
        assert_eq!((commands[0].at, commands[0].status), (1_800_000_002, Status::Miss));
    }

    #[test]
    fn of_very_many_in_a_second_the_rest_goes_unrecorded() {
        let recent = Recent::default();
        (0..RECORDED_PER_SECOND_MAX + 50).for_each(|number| record(&recent, 5, number));
        let last = |recent: &Recent| recent.commands().last().map(|it| it.key.clone());
        let expected = format!("k{}", RECORDED_PER_SECOND_MAX - 1).into_bytes();
        assert_eq!(last(&recent), Some(expected));
        record(&recent, 6, 7);
        assert_eq!(last(&recent), Some(b"k7".to_vec()), "in the next second again");
    }

    #[test]
    fn what_nobody_asks_for_any_more_is_forgotten_once() {
        let recent = Recent::default();
        assert!(!recent.lapses(at(9_999)), "nobody had asked");
        recent.want(at(1));
        record(&recent, 1, 1);
        assert!(!recent.lapses(at(WANTED_SECONDS)));
        assert!(recent.lapses(at(WANTED_SECONDS + 1)));
        assert!(!recent.lapses(at(WANTED_SECONDS + 2)));
        assert!(!recent.is_wanted() && recent.commands().is_empty());
    }
}
