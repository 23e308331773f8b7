//! A well-behaved client that works beside a test which misbehaves, and must not notice.

use crate::connection::Connection;
use crate::eventually::{DEADLINE, eventually};
use crate::larder::Larder;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Sets, gets, counts and deletes on one connection for as long as it lives, and checks every answer.
pub struct Oracle {
    thread: Option<JoinHandle<Duration>>,
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
}

/// The longest an answer may take while somebody misbehaves: long beside the milliseconds that it
/// takes, because a test machine has two cores for everything.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

impl Oracle {
    #[track_caller]
    pub fn beside(larder: &Larder) -> Oracle {
        let connection = if larder.login.username.is_empty() {
            Connection::open(larder.addr)
        } else {
            larder.connect()
        };
        Oracle::on(connection)
    }

    /// The same on a connection that is there already.
    #[track_caller]
    pub fn on(connection: Connection) -> Oracle {
        let stop = Arc::new(AtomicBool::new(false));
        let rounds = Arc::new(AtomicU64::new(0));
        let thread = thread::spawn({
            let (stop, rounds) = (Arc::clone(&stop), Arc::clone(&rounds));
            move || work(connection, &stop, &rounds)
        });
        let oracle = Oracle { thread: Some(thread), stop, rounds };
        oracle.wait_for_rounds(3);
        oracle
    }

    /// Waits until a few more rounds went well, so that they surely ran after what came before.
    #[track_caller]
    pub fn wait_for_rounds(&self, count: u64) {
        let from = self.rounds.load(Ordering::Relaxed);
        eventually("the well-behaved client went on", DEADLINE, || {
            (self.rounds.load(Ordering::Relaxed) >= from + count).then_some(())
        });
    }

    /// Demands that nothing went wrong and that no answer took long.
    #[track_caller]
    pub fn finish(mut self) {
        self.wait_for_rounds(3);
        self.stop.store(true, Ordering::Relaxed);
        let slowest = self.thread.take().expect("it is taken only here").join();
        let slowest = slowest.expect("the well-behaved client was served");
        assert!(slowest <= ANSWER_TIME_MAX, "the well-behaved client waited {slowest:?}");
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The test has failed already, and said why.
            drop(thread.join());
        }
    }
}

/// Returns the longest time that one round took.
fn work(mut connection: Connection, stop: &AtomicBool, rounds: &AtomicU64) -> Duration {
    const PAUSE: Duration = Duration::from_millis(1);
    let mut slowest = Duration::ZERO;
    connection.ask("set oracle-number 0 0 1\r\n0\r\n", "STORED\r\n");
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let start = Instant::now();
        let value = format!("value of round {number}");
        let bytes = value.len();
        connection.ask(&format!("set oracle 7 0 {bytes}\r\n{value}\r\n"), "STORED\r\n");
        let found = format!("VALUE oracle 7 {bytes}\r\n{value}\r\nEND\r\n");
        connection.ask("get oracle\r\n", &found);
        connection.ask("incr oracle-number 1\r\n", &format!("{number}\r\n"));
        connection.ask("delete oracle\r\n", "DELETED\r\n");
        connection.ask("get oracle\r\n", "END\r\n");
        slowest = slowest.max(start.elapsed());
        rounds.fetch_add(1, Ordering::Relaxed);
        // Leaves the machine to the test; nobody waits for this.
        thread::sleep(PAUSE);
    }
    slowest
}
