//! A client that reads known keys at a fixed rate through one proxy, and how long each answer took.
//!
//! A request that was due while the one before was still on its way counts from when it was due, so a
//! pause of the server cannot hide. A sleeper that is woken late is the machine's doing, and counts from
//! then.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::connection::{Connection, Login};
use crate::eventually::{DEADLINE, eventually};
use crate::fleet::log_in;
use crate::keys::{self, Ended};

/// An answer that has not come by then never will.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers after which a client is not just beginning.
const SURELY_AT_WORK: u64 = 100;

/// At work until [`Steady::finish`].
pub struct Steady {
    thread: Option<JoinHandle<Answers>>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    began: Instant,
}

/// One read.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// Since the client began.
    pub at: Duration,
    pub waited: Duration,
    pub ended: Ended,
}

/// Every read, in order.
#[derive(Debug, Clone, Default)]
pub struct Answers(pub Vec<Answer>);

impl Steady {
    /// Reads these keys in turn, so many per second. They must have been written by [`keys::set`].
    #[track_caller]
    pub fn start(addr: SocketAddr, login: &Login, numbers: Vec<u64>, per_second: u32) -> Steady {
        assert!(!numbers.is_empty(), "there is something to read");
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let began = Instant::now();
        let thread = thread::spawn({
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            let login = login.clone();
            move || work(addr, &login, &numbers, per_second, began, &stop, &answered)
        });
        Steady { thread: Some(thread), stop, answered, began }
    }

    /// Waits until it has had some answers, so that it surely is connected and at its rate.
    #[track_caller]
    pub fn wait_until_at_work(&self) {
        eventually("the client reads at its rate", DEADLINE, || {
            (SURELY_AT_WORK <= self.answered.load(Relaxed)).then_some(())
        });
    }

    /// How long it has been at work: what [`Answer::at`] is compared with.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// # Panics
    /// When it has read a wrong value.
    #[track_caller]
    pub fn finish(mut self) -> Answers {
        self.stop.store(true, Relaxed);
        let thread = self.thread.take().expect("it is taken only here");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// The answers of so long.
    #[track_caller]
    pub fn of(
        addr: SocketAddr,
        login: &Login,
        numbers: Vec<u64>,
        per_second: u32,
        time: Duration,
    ) -> Answers {
        let steady = Steady::start(addr, login, numbers, per_second);
        thread::sleep(time);
        steady.finish()
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // The experiment has failed already, and said why.
            drop(thread.join());
        }
    }
}

impl Answers {
    /// Those asked in this part of the client's time.
    #[must_use]
    pub fn between(&self, from: Duration, to: Duration) -> Answers {
        Answers(self.0.iter().filter(|it| from <= it.at && it.at < to).copied().collect())
    }

    pub fn count(&self, ended: Ended) -> u64 {
        self.0.iter().filter(|it| it.ended == ended).count() as u64
    }

    /// The time within which this part of those that ended so were answered; zero when there are none.
    pub fn quantile(&self, ended: Ended, part: f64) -> Duration {
        let those = self.0.iter().filter(|it| it.ended == ended);
        let mut waits: Vec<Duration> = those.map(|it| it.waited).collect();
        waits.sort_unstable();
        let at = (waits.len().saturating_sub(1)) as f64 * part;
        waits.get(at.round() as usize).copied().unwrap_or_default()
    }

    /// Of hits.
    pub fn p99(&self) -> Duration {
        self.quantile(Ended::Hit, 0.99)
    }

    /// When the last one that ended so was asked.
    pub fn last(&self, ended: Ended) -> Option<Duration> {
        self.0.iter().rev().find(|it| it.ended == ended).map(|it| it.at)
    }
}

fn work(
    addr: SocketAddr,
    login: &Login,
    numbers: &[u64],
    per_second: u32,
    began: Instant,
    stop: &AtomicBool,
    answered: &AtomicU64,
) -> Answers {
    let every = Duration::from_secs(1) / per_second;
    let mut answers = Answers::default();
    let mut connection: Option<Connection> = None;
    let mut due = began;
    for &number in numbers.iter().cycle() {
        if stop.load(Relaxed) {
            break;
        }
        let left = due.saturating_duration_since(Instant::now());
        let since = if left.is_zero() {
            due
        } else {
            thread::sleep(left);
            Instant::now()
        };
        let ended = read(addr, login, &mut connection, number);
        answers.0.push(Answer { at: since - began, waited: since.elapsed(), ended });
        answered.fetch_add(u64::from(ended != Ended::Failure), Relaxed);
        due += every;
    }
    answers
}

fn read(
    addr: SocketAddr,
    login: &Login,
    connection: &mut Option<Connection>,
    number: u64,
) -> Ended {
    let mut open = match connection.take().map_or_else(|| log_in(addr, login), Ok) {
        Ok(open) => open,
        Err(_) => {
            // A proxy that is gone refuses at once; asking it without a pause helps nobody.
            thread::sleep(Duration::from_millis(5));
            return Ended::Failure;
        }
    };
    open.set_patience(PATIENCE);
    match keys::get_each(&mut open, number..number + 1).as_deref() {
        Ok([(_, ended)]) => {
            *connection = Some(open);
            *ended
        }
        Ok(_) | Err(_) => Ended::Failure,
    }
}
