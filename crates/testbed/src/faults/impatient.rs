//! Clients without patience, and as many requests as are due, whatever the service does.
//!
//! A client behaves as the libraries do: one request at a time; who has no answer in time gives up, closes
//! the connection, and logs in again for the next one. A request that is due when all clients wait is
//! not sent, and counts as one that failed.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{cell::RefCell, rc::Rc};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::connection::Login;
use crate::eventually::DEADLINE;
use crate::keys;
use crate::workload::chance::Random;

/// How long a client waits for an answer.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);
/// Keys that requests ask for: those of [`keys::set`], from 0.
pub(super) const KEYS: u64 = 1_000;
/// Keys of one request: much work for nodes, and little for who asks, as only one of them is there.
const KEYS_ASKED: usize = 100;
/// Different requests that are made beforehand.
const REQUESTS: u64 = 256;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Answered,
    /// Refused, or not answered in time.
    Failed,
    /// Answered with what nobody wrote.
    Wrong,
}

/// Requests: when each was to leave, how long it took, how it ended.
#[derive(Default)]
pub(super) struct Asked(Vec<(Instant, Duration, Ended)>);

impl Asked {
    /// Those that were to leave in this time.
    pub(super) fn between(&self, from: Instant, to: Instant) -> Asked {
        Asked(self.0.iter().filter(|(at, ..)| (from..to).contains(at)).copied().collect())
    }

    pub(super) fn count(&self, ended: Ended) -> u64 {
        self.0.iter().filter(|it| it.2 == ended).count() as u64
    }

    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// Of those that were answered; zero where there are none.
    pub(super) fn quantile(&self, part: f64) -> Duration {
        let answered = self.0.iter().filter(|it| it.2 == Ended::Answered);
        let mut waits: Vec<Duration> = answered.map(|it| it.1).collect();
        waits.sort_unstable();
        let at = (waits.len().saturating_sub(1)) as f64 * part;
        waits.get(at.round() as usize).copied().unwrap_or_default()
    }
}

/// Clients at work in a thread of their own, until they go.
pub(super) struct Crowd {
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

/// For how long a client stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stay {
    /// While it has its answers in time.
    WhileServed,
    /// For one request: each is a newcomer's.
    ForOne,
}

struct Shared {
    clients: u32,
    stay: Stay,
    /// Those that have ended.
    asked: Mutex<Asked>,
    /// Bits of the requests per second of all clients together; infinite is one after the other.
    rate: AtomicU64,
    stop: AtomicBool,
}

/// What is sent, and what must come back.
struct Request {
    words: String,
    answer: String,
}

impl Crowd {
    /// They are all connected when this returns, and ask nothing yet.
    pub(super) fn start(addr: SocketAddr, login: &Login, clients: u32, stay: Stay) -> Crowd {
        let shared = Arc::new(Shared {
            clients,
            stay,
            asked: Mutex::default(),
            rate: AtomicU64::new(0_f64.to_bits()),
            stop: AtomicBool::new(false),
        });
        let (login, inside) = (login.clone(), Arc::clone(&shared));
        let (tell, told) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be made");
            let local = LocalSet::new();
            local.block_on(&runtime, crowd(addr, login, inside, tell))
        });
        told.recv_timeout(3 * DEADLINE).expect("all clients are let in");
        Crowd { thread: Some(thread), shared }
    }

    /// From now on so many requests are due each second.
    pub(super) fn ask(&self, per_second: f64) {
        self.shared.rate.store(per_second.to_bits(), Relaxed);
    }

    /// For so long; from when until when that was.
    pub(super) fn asking(&self, per_second: f64, time: Duration) -> (Instant, Instant) {
        self.ask(per_second);
        let from = Instant::now();
        thread::sleep(time);
        (from, Instant::now())
    }

    /// What became of those that were to leave in this time, once nobody waits for one of them any more.
    pub(super) fn asked(&self, (from, to): (Instant, Instant)) -> Asked {
        thread::sleep((to + PATIENCE + LOOK_EVERY).saturating_duration_since(Instant::now()));
        self.shared.asked().between(from, to)
    }

    /// Of all requests so far, those that were answered with what nobody wrote.
    pub(super) fn wrong(&self) -> u64 {
        self.shared.asked().count(Ended::Wrong)
    }
}

impl Shared {
    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, from: Instant, took: Duration, ended: Ended) {
        self.asked().0.push((from, took, ended));
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // One that has panicked has answers to nothing, which its figures show.
            drop(thread.join());
        }
    }
}

/// How many come at the same time: a queue that any listener has room for.
const COMING_MAX: usize = 100;
/// How often what cannot be waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

async fn crowd(
    addr: SocketAddr,
    login: Login,
    shared: Arc<Shared>,
    tell: std::sync::mpsc::Sender<()>,
) {
    let requests = Rc::new(requests());
    let login = Rc::new(login.text());
    let pool = Rc::<RefCell<VecDeque<Client>>>::default();
    let mut coming: VecDeque<Client> = (0..shared.clients)
        .map(|_| Client { addr, login: Rc::clone(&login), connection: None })
        .collect();
    while !coming.is_empty() {
        let some = coming.drain(..COMING_MAX.min(coming.len()));
        let some: Vec<_> = some.map(|client| tokio::task::spawn_local(client.come())).collect();
        for one in some {
            let client = one.await.expect("a client that comes does not panic");
            pool.borrow_mut().push_back(client);
        }
    }
    // Whoever started the crowd may have given up.
    tell.send(()).ok();

    let mut random = Random::new(1);
    let mut due = Instant::now();
    while !shared.stop.load(Relaxed) {
        let rate = f64::from_bits(shared.rate.load(Relaxed));
        // Whoever was late is not late for ever: the distances are drawn anew for each moment.
        due = due.max(Instant::now() - LOOK_EVERY);
        while due <= Instant::now() && 0.0 < rate {
            let free = pool.borrow_mut().pop_front();
            match free {
                Some(mut client) => {
                    let (shared, pool) = (Arc::clone(&shared), Rc::clone(&pool));
                    let requests = Rc::clone(&requests);
                    let request = random.below(requests.len() as u64) as usize;
                    tokio::task::spawn_local(async move {
                        let from = Instant::now();
                        let ended = client.ask(&requests[request]).await;
                        shared.note(from, from.elapsed(), ended);
                        if shared.stay == Stay::ForOne {
                            client.connection = None;
                        }
                        pool.borrow_mut().push_back(client);
                    });
                }
                None if rate.is_infinite() => break,
                // All wait for answers: this one is not even sent.
                None => shared.note(due, Duration::ZERO, Ended::Failed),
            }
            due += Duration::from_secs_f64(-(1.0 - random.unit()).ln() / rate);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // What is still on its way ends within its patience.
    while pool.borrow().len() < shared.clients as usize {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Each for one key that is there and many that are not.
fn requests() -> Vec<Request> {
    let one = |number: u64| {
        let absent: String =
            (1..KEYS_ASKED).map(|other| format!(" absent-{number}-{other}")).collect();
        let value = keys::value(number);
        Request {
            words: format!("get key-{number}{absent}\r\n"),
            answer: format!("VALUE key-{number} 0 {}\r\n{value}\r\nEND\r\n", value.len()),
        }
    };
    (0..REQUESTS.min(KEYS)).map(one).collect()
}

struct Client {
    addr: SocketAddr,
    login: Rc<String>,
    connection: Option<TcpStream>,
}

impl Client {
    /// Until it is let in.
    async fn come(mut self) -> Client {
        while self.connect().await.is_err() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self
    }

    async fn ask(&mut self, request: &Request) -> Ended {
        match tokio::time::timeout(PATIENCE, self.answer(request)).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(_)) | Err(_) => {
                // What comes later would be taken for the answer to the next one.
                self.connection = None;
                Ended::Failed
            }
        }
    }

    async fn answer(&mut self, Request { words, answer }: &Request) -> std::io::Result<Ended> {
        if self.connection.is_none() {
            self.connect().await?;
        }
        let connection = self.connection.as_mut().expect("it is open by now");
        connection.write_all(words.as_bytes()).await?;
        let mut heard = Vec::with_capacity(answer.len());
        while !heard.ends_with(b"END\r\n") {
            if connection.read_buf(&mut heard).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if heard.starts_with(b"SERVER_ERROR") && heard.ends_with(b"\r\n") {
                return Ok(Ended::Failed);
            }
        }
        let is_refused = heard.windows(12).any(|words| words == b"SERVER_ERROR");
        Ok(match heard == answer.as_bytes() {
            true => Ended::Answered,
            false if is_refused || heard == b"END\r\n" => Ended::Failed,
            false => Ended::Wrong,
        })
    }

    async fn connect(&mut self) -> std::io::Result<()> {
        let mut connection = TcpStream::connect(self.addr).await?;
        connection.set_nodelay(true)?;
        connection.write_all(self.login.as_bytes()).await?;
        let mut answer = [0; b"STORED\r\n".len()];
        connection.read_exact(&mut answer).await?;
        if answer != *b"STORED\r\n" {
            return Err(std::io::ErrorKind::PermissionDenied.into());
        }
        self.connection = Some(connection);
        Ok(())
    }
}
