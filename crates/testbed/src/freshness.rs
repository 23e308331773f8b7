//! An oracle for clusters: writes through one proxy, reads through all, and knows what may be found.
//!
//! Each writer has keys of its own and asks one thing at a time, so the only value that a read may find
//! is the last one acknowledged. A miss is no fault (a cache may lose); an older value always is. After
//! a write that was answered with an error nobody knows whether it ran or still will, as with every
//! memcached; so its key is not used again.

use crate::connection::{Connection, Login};
use crate::eventually::{DEADLINE, eventually};
use crate::fleet::log_in;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Keys of one writer: few, so that each is written often; many, so that every backend has some.
const KEYS: usize = 200;
/// A proxy that does not answer for so long is left alone for a moment.
const PATIENCE: Duration = Duration::from_secs(3);

/// Writers of this process so far: each has keys of its own, also beside those of another [`Freshness`] of
/// the same cache.
static WRITERS: AtomicUsize = AtomicUsize::new(0);

/// Writers and readers at work until [`Freshness::finish`].
pub struct Freshness {
    writers: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    tally: Arc<Tally>,
    addresses: Addresses,
    pause: Duration,
}

/// Where the proxies are, by their numbers.
type Addresses = Arc<Mutex<Vec<SocketAddr>>>;

#[derive(Default)]
struct Tally {
    rounds: AtomicU64,
    writes: AtomicU64,
    reads: AtomicU64,
    misses: AtomicU64,
    failures: AtomicU64,
    stale: Mutex<Vec<String>>,
}

/// What they saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub writes: u64,
    pub reads: u64,
    pub misses: u64,
    /// Writes and reads that were answered with an error, or not at all.
    pub failures: u64,
    /// Every stale read in words. There must never be any.
    pub stale: Vec<String>,
}

impl Freshness {
    /// Starts writers that use all of these proxies.
    #[track_caller]
    pub fn start(proxies: &[SocketAddr], login: &Login, writers: usize) -> Freshness {
        Freshness::start_slowly(proxies, login, writers, Duration::ZERO)
    }

    /// The same, each with such a pause between two writes: for runs of an hour.
    #[track_caller]
    pub fn start_slowly(
        proxies: &[SocketAddr],
        login: &Login,
        writers: usize,
        pause: Duration,
    ) -> Freshness {
        let (stop, tally) = (Arc::<AtomicBool>::default(), Arc::<Tally>::default());
        let addresses: Addresses = Arc::new(Mutex::new(proxies.to_vec()));
        let start = |_| {
            let number = WRITERS.fetch_add(1, Relaxed);
            let (stop, tally) = (Arc::clone(&stop), Arc::clone(&tally));
            let proxy =
                |number| Proxy { number, addresses: Arc::clone(&addresses), connection: None };
            let through = (0..proxies.len()).map(proxy).collect();
            let login = login.clone();
            let keys = vec![Key::default(); KEYS];
            let mut writer = Writer { number, login, through, keys, pause };
            thread::spawn(move || {
                while !stop.load(Relaxed) {
                    writer.round(&tally, &stop);
                }
            })
        };
        let writers = (0..writers).map(start).collect();
        let freshness = Freshness { writers, stop, tally, addresses, pause };
        freshness.wait_for_rounds(2);
        freshness
    }

    /// A proxy of those it was started with is somewhere else from now on, as after a restart.
    pub fn moved(&self, proxy: usize, to: SocketAddr) {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)[proxy] = to;
    }

    /// Waits until the writers have gone through some more of their keys.
    #[track_caller]
    pub fn wait_for_rounds(&self, count: u64) {
        let until = self.tally.rounds.load(Relaxed) + count * self.writers.len() as u64;
        let pauses = self.pause * u32::try_from(KEYS as u64 * count).unwrap_or(u32::MAX);
        eventually("writers and readers went on", 3 * DEADLINE + 2 * pauses, || {
            (until <= self.tally.rounds.load(Relaxed)).then_some(())
        });
    }

    /// Stops, and demands that nobody ever read an old value.
    #[track_caller]
    pub fn finish(mut self) -> Seen {
        self.stop.store(true, Relaxed);
        for writer in self.writers.drain(..) {
            writer.join().expect("a writer counts what goes wrong and does not panic");
        }
        let seen = self.seen();
        assert!(seen.stale.is_empty(), "{} stale reads: {:#?}", seen.stale.len(), seen);
        assert!(seen.reads > 0 && seen.writes > 0, "nothing was seen: {seen:?}");
        seen
    }

    pub fn seen(&self) -> Seen {
        let tally = &self.tally;
        Seen {
            writes: tally.writes.load(Relaxed),
            reads: tally.reads.load(Relaxed),
            misses: tally.misses.load(Relaxed),
            failures: tally.failures.load(Relaxed),
            stale: tally.stale.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

impl Drop for Freshness {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for writer in self.writers.drain(..) {
            // The test has failed already, and said why.
            drop(writer.join());
        }
    }
}

struct Writer {
    number: usize,
    login: Login,
    through: Vec<Proxy>,
    keys: Vec<Key>,
    /// Between two writes.
    pause: Duration,
}

#[derive(Default, Clone)]
struct Key {
    /// Grows when a write has an unknown outcome.
    generation: u64,
    written: u64,
}

struct Proxy {
    number: usize,
    addresses: Addresses,
    connection: Option<Connection>,
}

impl Writer {
    fn round(&mut self, tally: &Tally, stop: &AtomicBool) {
        for at in 0..self.keys.len() {
            if stop.load(Relaxed) {
                return;
            }
            thread::sleep(self.pause);
            let Key { generation, written } = self.keys[at];
            let name = format!("fresh-{}-{at}-{generation}", self.number);
            let value = format!("{:012}", written + 1);
            let writing = (at + written as usize) % self.through.len();
            // Every third write is a deletion: what is deleted must not come back either.
            let is_delete = written % 3 == 2;
            let (command, done): (_, &[&str]) = if is_delete {
                (format!("delete {name}\r\n"), &["DELETED\r\n", "NOT_FOUND\r\n"])
            } else {
                (format!("set {name} 0 0 12\r\n{value}\r\n"), &["STORED\r\n"])
            };
            tally.writes.fetch_add(1, Relaxed);
            let answer = self.through[writing].ask(&self.login, &command);
            if !answer.is_ok_and(|answer| done.contains(&answer.as_str())) {
                tally.failures.fetch_add(1, Relaxed);
                self.keys[at] = Key { generation: generation + 1, written: 0 };
                continue;
            }
            self.keys[at].written += 1;
            let wanted = (!is_delete).then_some(value);
            for reading in 0..self.through.len() {
                tally.reads.fetch_add(1, Relaxed);
                match self.through[reading].get(&self.login, &name) {
                    Err(_) => drop(tally.failures.fetch_add(1, Relaxed)),
                    Ok(None) => drop(tally.misses.fetch_add(u64::from(!is_delete), Relaxed)),
                    Ok(found) if found == wanted => (),
                    Ok(found) => {
                        let text = format!("{name}: {found:?} for {wanted:?} through {reading}");
                        let mut stale = tally.stale.lock().unwrap_or_else(PoisonError::into_inner);
                        stale.push(text);
                    }
                }
            }
        }
        tally.rounds.fetch_add(1, Relaxed);
    }
}

impl Proxy {
    /// Sends one command and reads one line; connects anew after a failure.
    fn ask(&mut self, login: &Login, command: &str) -> io::Result<String> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.open(login)?,
        };
        connection.try_send(command.as_bytes())?;
        let line = connection.try_line()?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.connection = Some(connection);
        Ok(line)
    }

    fn open(&self, login: &Login) -> io::Result<Connection> {
        let addr = self.addresses.lock().unwrap_or_else(PoisonError::into_inner)[self.number];
        let mut connection = log_in(addr, login).inspect_err(|_| {
            // A proxy that is gone refuses at once; asking it without a pause helps nobody.
            thread::sleep(Duration::from_millis(5));
        })?;
        connection.set_patience(PATIENCE);
        Ok(connection)
    }

    fn get(&mut self, login: &Login, key: &str) -> io::Result<Option<String>> {
        let line = self.ask(login, &format!("get {key}\r\n"))?;
        if line == "END\r\n" {
            return Ok(None);
        }
        if !line.starts_with("VALUE ") {
            return Err(io::Error::other(line));
        }
        // A half-read answer must not be taken for the next one's beginning.
        let mut connection = self.connection.take().expect("an answer has just come");
        let value = connection.try_line()?;
        connection.try_line()?;
        self.connection = Some(connection);
        Ok(Some(value.trim_end().to_owned()))
    }
}
