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

use super::report::{Amount, Bar, Report};
use crate::connection::{Connection, Login};
use crate::eventually::{DEADLINE, eventually};
use crate::fleet::log_in;
use crate::keys::{self, Ended};

/// An answer that has not come by then never will.
const PATIENCE: Duration = Duration::from_secs(5);

/// Failures that a report names. What follows them mostly is more of the same.
const NAMED_MAX: usize = 3;

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
#[derive(Debug, Clone)]
pub struct Answer {
    /// Since the client began.
    pub at: Duration,
    pub waited: Duration,
    pub ended: Ended,
    /// Of one that failed: the answer, or what is wrong with the connection; else empty.
    pub said: String,
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
        Answers(self.0.iter().filter(|it| from <= it.at && it.at < to).cloned().collect())
    }

    /// Adds those of a client that began so much later than this one.
    pub fn append(&mut self, later: Answers, by: Duration) {
        self.0.extend(later.0.into_iter().map(|it| Answer { at: it.at + by, ..it }));
    }

    /// None of them may have failed; the first few that did are named.
    pub fn report_failed(&self, report: &mut Report, what: &str) {
        let failed = Amount::count(self.count(Ended::Failure));
        report.figure(what, failed, Bar::AtMost(0.0));
        let failed = self.0.iter().filter(|it| it.ended == Ended::Failure);
        for Answer { at, waited, said, .. } in failed.take(NAMED_MAX) {
            let (at, waited) = (Amount::s(*at), Amount::ms(*waited));
            report.words(&format!("{what}: {at} on, after {waited}"), said);
        }
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
        let (ended, said) = read(addr, login, &mut connection, number);
        answers.0.push(Answer { at: since - began, waited: since.elapsed(), ended, said });
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
) -> (Ended, String) {
    let mut open = match connection.take().map_or_else(|| log_in(addr, login), Ok) {
        Ok(open) => open,
        Err(error) => {
            // A proxy that is gone refuses at once; asking it without a pause helps nobody.
            thread::sleep(Duration::from_millis(5));
            return (Ended::Failure, format!("no connection: {error}"));
        }
    };
    open.set_patience(PATIENCE);
    match keys::get_one(&mut open, number) {
        Ok((ended, line)) => {
            *connection = Some(open);
            (ended, if ended == Ended::Failure { line } else { String::new() })
        }
        Err(error) => (Ended::Failure, format!("no answer: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, Ended, Login, Steady, thread};
    use crate::faults::report::Report;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    #[test]
    fn a_read_that_failed_is_named_with_what_was_said() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let addr = listener.local_addr().expect("it is bound");
        // It lets one client in, refuses its first read, and goes away at the second one.
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().expect("somebody comes");
            let mut lines = BufReader::new(&stream).lines();
            for answer in ["", "STORED\r\n", "SERVER_ERROR one | other\r\n", ""] {
                lines.next().expect("it asks").expect("it is there");
                (&stream).write_all(answer.as_bytes()).expect("it is there");
            }
        });
        let login = Login { username: "me".to_owned(), password: "secret".to_owned() };
        let steady = Steady::start(addr, &login, vec![0], 1_000);
        server.join().expect("it is asked twice");
        let answers = steady.finish();
        let mut report = Report::silent();
        answers.report_failed(&mut report, "failed");
        let table = report.to_string();
        assert!(table.contains("| SERVER_ERROR one / other |"), "{table}");
        assert!(table.contains("| no answer: "), "{table}");
        let all = answers.count(Ended::Failure);
        assert!(2 <= all && table.contains(&format!("| failed | {all} | ≤ 0 |")), "{table}");
        // The same after another's time.
        let mut both = answers.clone();
        both.append(answers, Duration::from_secs(1_000));
        assert!(both.0.last().is_some_and(|it| 1_000 <= it.at.as_secs()));
        assert_eq!(both.count(Ended::Failure), 2 * all);
    }
}
