//! More requests than there is time for (R15, F27): what can be answered is, and afterwards all is as
//! before.
//!
//! ```text
//!   crowd ─▶ as many requests as are due, whatever the service does ─▶ one proxy ─▶ three nodes with a
//!            part of a core together, so that one generator can ask for three times what they can do
//! ```
//!
//! A client behaves as the libraries do: one request at a time; who has no answer in time gives up, closes
//! the connection, and logs in again for the next one. A request that is due when all clients wait is
//! not sent, and counts as one that failed. So what is answered too late is work for nothing,
//! and giving up makes more work: what brings services down and keeps them down (Bronson et al., "Metastable
//! failures", HotOS 2021). It is done twice: with so few clients that they cannot all give up, as the
//! queue of all their requests is short, and with so many that the queue alone is longer than their patience.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::report::{Amount, Bar, Report};
use super::{Experiment, Length, NotHere};
use crate::cgroup::Cgroup;
use crate::connection::Login;
use crate::eventually::{DEADLINE, eventually};
use crate::fleet::Cluster;
use crate::keys;
use crate::workload::chance::Random;

/// What all nodes together have of one core, and of how short a time: a slow machine, and not a fast one
/// that stands still most of the time.
const CORE_PART: f64 = 0.1;
const CORE_PERIOD: Duration = Duration::from_millis(10);
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// Keys of one request: much work for nodes, and little for who asks, as only one of them is there.
const KEYS_ASKED: usize = 100;
const KEYS: u64 = 1_000;
/// Different requests that are made beforehand.
const REQUESTS: u64 = 256;
/// So few that the queue of all their requests is a part of their patience.
const FEW: u32 = 200;
/// How many times as many as would keep the nodes busy for as long as they have patience; and no more
/// than this process has descriptors for.
const MANY: f64 = 3.0;
const MANY_MAX: f64 = 12_000.0;
/// Of the most: what is asked before and after.
const COMMON: f64 = 0.6;
const OVER: f64 = 3.0;
/// A part of the time afterwards that is looked at as a whole.
const LOOK: Duration = Duration::from_millis(500);

pub(super) const OVERLOAD: Experiment = Experiment {
    name: "overload",
    goals: "R15, F27",
    what: "three times what a cluster with a tenth of a core can answer, offered to one proxy",
    is_quick: false,
    run: overload,
};

fn overload(report: &mut Report, length: Length) -> Result<(), NotHere> {
    let time = length.pick(Duration::from_secs(2), Duration::from_secs(20));
    let mut cluster = Cluster::start_control("127.0.0.1:0", 1, &[("threads", "1")]);
    for number in 0..3 {
        // Enough for what the largest plan guarantees, for its connections.
        cluster.add_node(&format!("n{number}"), &["--memory", "2GiB"]);
    }
    cluster.wait_until_settled(3);
    let login = cluster.create_cache("shop", "1000");
    keys::set(&mut cluster.connect(0, &login), 0..KEYS);
    let nodes: Vec<u32> = cluster.nodes.iter().map(|node| node.process.id()).collect();
    let group = Cgroup::cpu_each(CORE_PERIOD, CORE_PART, &nodes);
    let _group = group.map_err(|error| NotHere(format!("no limit of CPU time: {error}")))?;
    let descriptors = daemon::descriptors::raise().saturating_sub(daemon::descriptors::RESERVED);

    let most = {
        let crowd = Crowd::start(cluster.nodes[0].addr, &login, 64);
        crowd.ask(f64::INFINITY);
        thread::sleep(Duration::from_secs(1));
        let from = Instant::now();
        thread::sleep(time / 2);
        let to = Instant::now();
        crowd.finish().between(from, to).goodput(to - from)
    };
    report.figure("answered at most, per second", Amount(most, ""), Bar::None);
    let many = (most * PATIENCE.as_secs_f64() * MANY).min(MANY_MAX).min(descriptors as f64 / 2.0);
    for (words, clients) in [("few", FEW), ("many", many as u32)] {
        let crowd = Crowd::start(cluster.nodes[0].addr, &login, clients);
        let calm = crowd.asking(most * COMMON, time);
        let over = crowd.asking(most * OVER, time);
        let after = crowd.asking(most * COMMON, time);
        let asked = crowd.finish();

        let what = |of: &str| format!("{clients} clients ({words}): {of}");
        report.never(&what("wrong values"), asked.count(Ended::Wrong));
        let offered = asked.between(over.0, over.1);
        let goodput = offered.goodput(over.1 - over.0);
        let share = goodput / most.max(1.0);
        report.figure(
            &what("offered, as a multiple of the most"),
            Amount(offered.0.len() as f64 / (over.1 - over.0).as_secs_f64() / most, "×"),
            Bar::AtLeast(OVER * 0.9),
        );
        report.figure(&what("answered in time of what can be"), Amount::percent(share), {
            Bar::AtLeast(90.0)
        });
        let answered = offered.quantile(0.99);
        report.figure(&what("p99 of these"), Amount::ms(answered), Bar::None);
        let before = asked.between(calm.0, calm.1);
        report.figure(&what("p99 before"), Amount::ms(before.quantile(0.99)), Bar::None);
        report.figure(
            &what("failed before"),
            Amount::count(before.count(Ended::Failed)),
            Bar::None,
        );
        let recovered = recovered(&asked, &before, after);
        report.figure(&what("all as before after"), Amount::s(recovered), Bar::AtMost(5.0));
        // So that what they leave behind is not charged to the next ones.
        eventually("a node answers as ever", DEADLINE, || {
            let began = Instant::now();
            cluster.connect(0, &login).ask("mn\r\n", "MN\r\n");
            (began.elapsed() < LOOK).then_some(())
        });
    }
    Ok(())
}

/// From the end of the overload until a part of the time in which nothing failed and 99 of 100 were
/// answered within twice of what it took before, or within patience's tenth.
fn recovered(asked: &Asked, before: &Asked, (from, to): (Instant, Instant)) -> Duration {
    let common = (before.quantile(0.99) * 2).max(PATIENCE / 10);
    let mut begins = from;
    while begins + LOOK <= to {
        let part = asked.between(begins, begins + LOOK);
        if part.count(Ended::Failed) == 0 && part.quantile(0.99) <= common {
            return begins + LOOK - from;
        }
        begins += LOOK;
    }
    to - from
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Answered,
    /// Refused, or not answered in time.
    Failed,
    /// Answered with what nobody wrote.
    Wrong,
}

/// Requests: when each was to leave, how long it took, how it ended.
#[derive(Default)]
struct Asked(Vec<(Instant, Duration, Ended)>);

impl Asked {
    /// Those that were to leave in this time.
    fn between(&self, from: Instant, to: Instant) -> Asked {
        Asked(self.0.iter().filter(|(at, ..)| (from..to).contains(at)).copied().collect())
    }

    fn count(&self, ended: Ended) -> u64 {
        self.0.iter().filter(|it| it.2 == ended).count() as u64
    }

    /// Per second.
    fn goodput(&self, time: Duration) -> f64 {
        self.count(Ended::Answered) as f64 / time.as_secs_f64()
    }

    /// Of those that were answered; zero where there are none.
    fn quantile(&self, part: f64) -> Duration {
        let answered = self.0.iter().filter(|it| it.2 == Ended::Answered);
        let mut waits: Vec<Duration> = answered.map(|it| it.1).collect();
        waits.sort_unstable();
        let at = (waits.len().saturating_sub(1)) as f64 * part;
        waits.get(at.round() as usize).copied().unwrap_or_default()
    }
}

/// Clients at work in a thread of their own, until [`Crowd::finish`].
struct Crowd {
    thread: Option<JoinHandle<Asked>>,
    shared: Arc<Shared>,
}

struct Shared {
    clients: u32,
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
    fn start(addr: SocketAddr, login: &Login, clients: u32) -> Crowd {
        let shared = Arc::new(Shared {
            clients,
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
    fn ask(&self, per_second: f64) {
        self.shared.rate.store(per_second.to_bits(), Relaxed);
    }

    /// For so long; from when until when that was.
    fn asking(&self, per_second: f64, time: Duration) -> (Instant, Instant) {
        self.ask(per_second);
        let from = Instant::now();
        thread::sleep(time);
        (from, Instant::now())
    }

    fn finish(mut self) -> Asked {
        self.shared.stop.store(true, Relaxed);
        let thread = self.thread.take().expect("it is taken only here");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // The experiment has failed already, and said why.
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
) -> Asked {
    let asked = Rc::<RefCell<Asked>>::default();
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
                    let (asked, pool) = (Rc::clone(&asked), Rc::clone(&pool));
                    let requests = Rc::clone(&requests);
                    let request = random.below(requests.len() as u64) as usize;
                    tokio::task::spawn_local(async move {
                        let from = Instant::now();
                        let ended = client.ask(&requests[request]).await;
                        asked.borrow_mut().0.push((from, from.elapsed(), ended));
                        pool.borrow_mut().push_back(client);
                    });
                }
                None if rate.is_infinite() => break,
                // All wait for answers: this one is not even sent.
                None => asked.borrow_mut().0.push((due, Duration::ZERO, Ended::Failed)),
            }
            due += Duration::from_secs_f64(-(1.0 - random.unit()).ln() / rate);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // What is still on its way ends within its patience.
    while pool.borrow().len() < shared.clients as usize {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    asked.take()
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
