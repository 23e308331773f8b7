//! Clients that misbehave, beside one cache that asks little (R4, F36, F38, F39): what that one notices,
//! and what the proxy they all use needs for it.
//!
//! Who misbehaves gives way to everyone else on this machine, because elsewhere he has machines of his own.
//! Floods of ordinary requests, with and without a limit: `tests/isolation.rs`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::report::{Amount, Bar, Report};
use super::steady::{Answers, Steady};
use super::{Experiment, Length, NotHere, memcached_with};
use crate::connection::{Connection, Login};
use crate::cores::give_way;
use crate::eventually::{DEADLINE, eventually};
use crate::fleet::{Cluster, log_in};
use crate::keys::{self, Ended};

/// Of the quiet cache.
const KEYS: u64 = 1_000;
const PER_SECOND: u32 = 500;
/// Of the host: where a flood of connections comes from.
const FLOOD_ADDRESSES: u64 = 4_096;
/// A value that fills a network.
const LARGE: usize = 100_000;

pub(super) const ABUSE: Experiment = Experiment {
    name: "abuse",
    goals: "R4, F20, F36, F38, F39",
    what: "ten kinds of misbehaviour beside a quiet cache of a cluster of three nodes",
    is_quick: false,
    run: abuse,
};

/// One way to misbehave.
struct Kind {
    name: &'static str,
    /// How many do it at the same time.
    clients: usize,
    /// Until it is told to stop; counts what it did.
    act: fn(&Client<'_>),
}

const KINDS: &[Kind] = &[
    // A host gives a machine that is busy less than one that is not, now and then for longer than any bar.
    Kind { name: "nothing, on a machine that is busy", clients: 8, act: busy_machine },
    Kind { name: "slow requests, a byte every 100 ms", clients: 300, act: slow_requests },
    Kind { name: "strangers who say nothing", clients: 300, act: silent_strangers },
    Kind { name: "answers that nobody reads", clients: 16, act: unread_answers },
    Kind { name: "values that are never sent whole", clients: 64, act: half_values },
    Kind { name: "multi-gets of 1,000 keys", clients: 8, act: giant_multigets },
    Kind { name: "wrong passwords in a loop", clients: 16, act: wrong_passwords },
    Kind { name: "connections without end", clients: 16, act: connect_flood },
    Kind { name: "one hot key of 100 KB", clients: 16, act: hot_key },
    Kind { name: "flushes in a loop", clients: 8, act: flushes },
    Kind { name: "statistics in a loop", clients: 8, act: statistics },
];

/// What a machine with two cores may be too small for.
const COMPARED: &[&str] = &["multi-gets of 1,000 keys", "connections without end"];

/// Who misbehaves.
struct Client<'c> {
    addr: SocketAddr,
    login: &'c Login,
    stop: &'c AtomicBool,
    done: &'c AtomicU64,
}

fn abuse(report: &mut Report, length: Length) -> Result<(), NotHere> {
    let time = length.pick(Duration::from_secs(1), Duration::from_secs(15));
    let cluster = Cluster::start(3, 1);
    let addr = cluster.nodes[0].addr;
    let (quiet, noisy) =
        (cluster.create_cache("quiet", "dev"), cluster.create_cache("noisy", "dev"));
    drop(cluster.connect(0, &noisy));
    keys::set(&mut cluster.connect(0, &quiet), 0..KEYS);
    let alone = Steady::of(addr, &quiet, (0..KEYS).collect(), PER_SECOND, time);
    report.figure("quiet cache alone, p99", Amount::ms(alone.p99()), Bar::None);
    let allowed = Duration::from_millis(2).max(alone.p99() * 3);

    for kind in KINDS {
        let memory = cluster.nodes[0].process.memory_bytes();
        let Noticed { answers, let_in, done } = kind.beside(addr, [&quiet, &noisy], time);
        let grown = cluster.nodes[0].process.memory_bytes().saturating_sub(memory);
        let name = kind.name;
        report.figure(&format!("{name}: quiet cache, p99"), Amount::ms(answers.p99()), {
            Bar::AtMost((allowed.as_secs_f64() * 1e5).round() / 1e2)
        });
        answers.report_failed(report, &format!("{name}: quiet cache, failed"));
        report.never(&format!("{name}: quiet cache, lost"), answers.count(Ended::Miss));
        report.figure(&format!("{name}: quiet cache, let in after"), Amount::ms(let_in), Bar::None);
        // What one client may hold is 4 MiB of answers by default; strangers may hold nothing.
        let allowed_mib = 64.0 + 5.0 * kind.clients.min(16) as f64;
        report.figure(
            &format!("{name}: the proxy's memory grew by"),
            Amount(grown as f64 / (1 << 20) as f64, "MiB"),
            Bar::AtMost(allowed_mib),
        );
        report.figure(&format!("{name}: done"), Amount::count(done), Bar::None);
        // Until what they left behind is gone, so that it is not charged to the next.
        eventually("the noisy cache is let in again", 3 * DEADLINE, || log_in(addr, &noisy).ok());
    }
    let evicted = cluster.connect(0, &quiet).statistics()["evictions"];
    report.never("evicted from the quiet cache", evicted);
    drop(cluster);
    beside_memcached(report, time)
}

/// The same beside a memcached, whose one cache all share: what such a machine can do.
fn beside_memcached(report: &mut Report, time: Duration) -> Result<(), NotHere> {
    let (memcached, login) = memcached_with(KEYS)?;
    for kind in KINDS.iter().filter(|kind| COMPARED.contains(&kind.name)) {
        let Noticed { answers, let_in, done } = kind.beside(memcached.addr, [&login, &login], time);
        let name = format!("memcached, {}", kind.name);
        report.figure(&format!("{name}: another, p99"), Amount::ms(answers.p99()), Bar::None);
        report.figure(&format!("{name}: another, let in after"), Amount::ms(let_in), Bar::None);
        report.figure(&format!("{name}: done"), Amount::count(done), Bar::None);
    }
    Ok(())
}

/// By one who asks little, of those who misbehave beside him.
struct Noticed {
    answers: Answers,
    let_in: Duration,
    /// By those who misbehave.
    done: u64,
}

impl Kind {
    fn beside(
        &'static self,
        addr: SocketAddr,
        [quiet, noisy]: [&Login; 2],
        time: Duration,
    ) -> Noticed {
        let steady = Steady::start(addr, quiet, (0..KEYS).collect(), PER_SECOND);
        steady.wait_until_at_work();
        let abusers = Abusers::start(self, addr, noisy);
        let from = steady.now();
        thread::sleep(time / 2);
        let comes = Instant::now();
        eventually("who asks little is let in", DEADLINE, || log_in(addr, quiet).ok());
        let let_in = comes.elapsed();
        thread::sleep((time / 2).saturating_sub(let_in));
        let to = steady.now();
        let done = abusers.finish();
        Noticed { answers: steady.finish().between(from, to), let_in, done }
    }
}

struct Abusers {
    leader: JoinHandle<()>,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
}

impl Abusers {
    fn start(kind: &'static Kind, addr: SocketAddr, login: &Login) -> Abusers {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, counted, login) = (Arc::clone(&stop), Arc::clone(&done), login.clone());
        let leader = thread::spawn(move || {
            // And with it all that it begins; without it the figures say less.
            give_way().ok();
            thread::scope(|scope| {
                for _ in 0..kind.clients {
                    let client = Client { addr, login: &login, stop: &stopped, done: &counted };
                    scope.spawn(move || {
                        while !client.shall_stop() {
                            (kind.act)(&client);
                        }
                    });
                }
            });
        });
        Abusers { leader, stop, done }
    }

    fn finish(self) -> u64 {
        self.stop.store(true, Relaxed);
        // Whoever misbehaves may be thrown out in any way.
        drop(self.leader.join());
        self.done.load(Relaxed)
    }
}

impl Client<'_> {
    fn shall_stop(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Whoever is not let in tries again, with a pause that leaves the machine to the others.
    fn log_in(&self) -> Option<Connection> {
        let connection = log_in(self.addr, self.login).ok();
        if connection.is_none() {
            thread::sleep(Duration::from_millis(10));
        }
        connection
    }

    /// Asks for something again and again and reads every answer to its last line.
    fn repeat(&self, request: &[u8], last: &str) {
        let Some(mut connection) = self.log_in() else { return };
        while !self.shall_stop() && connection.try_send(request).is_ok() {
            loop {
                match connection.try_line() {
                    Ok(line) if line == last => break,
                    Ok(line) if !line.is_empty() && !line.starts_with("SERVER_ERROR") => (),
                    // Closed, refused, or too late.
                    Ok(_) | Err(_) => return,
                }
            }
            self.count();
        }
    }

    fn count(&self) {
        self.done.fetch_add(1, Relaxed);
    }
}

fn busy_machine(client: &Client<'_>) {
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(10) {
        std::hint::spin_loop();
    }
    client.count();
}

fn slow_requests(client: &Client<'_>) {
    let Some(mut connection) = client.log_in() else { return };
    for byte in "get slow-and-slower\r\n".bytes().cycle() {
        if client.shall_stop() || connection.try_send(&[byte]).is_err() {
            return;
        }
        client.count();
        thread::sleep(Duration::from_millis(100));
    }
}

fn silent_strangers(client: &Client<'_>) {
    let Ok(mut connection) = Connection::try_open(client.addr) else { return };
    client.count();
    connection.set_patience(Duration::from_millis(200));
    // Until it is thrown out.
    while !client.shall_stop() {
        match connection.try_line() {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => (),
            Ok(_) | Err(_) => return,
        }
    }
}

fn unread_answers(client: &Client<'_>) {
    let Some(mut connection) = client.log_in() else { return };
    let value = "x".repeat(LARGE);
    if connection.try_send(format!("set unread 0 0 {LARGE}\r\n{value}\r\n").as_bytes()).is_err() {
        return;
    }
    connection.set_patience(Duration::from_millis(200));
    while !client.shall_stop() {
        if connection.try_send("get unread\r\n".repeat(100).as_bytes()).is_ok() {
            client.count();
        }
    }
}

fn half_values(client: &Client<'_>) {
    let Some(mut connection) = client.log_in() else { return };
    let half = format!("set half 0 0 1000000\r\n{}", "x".repeat(900_000));
    drop(connection.try_send(half.as_bytes()));
    client.count();
    while !client.shall_stop() {
        thread::sleep(Duration::from_millis(50));
    }
}

fn giant_multigets(client: &Client<'_>) {
    let Some(mut connection) = client.log_in() else { return };
    let value = "x".repeat(1_000);
    let set = |number: usize| format!("set many-{number} 0 0 1000 noreply\r\n{value}\r\n");
    let all: String = (0..1_000).map(set).collect();
    if connection.try_send(all.as_bytes()).is_err() {
        return;
    }
    drop(connection);
    let names: String = (0..1_000).map(|number| format!(" many-{number}")).collect();
    client.repeat(format!("get{names}\r\n").as_bytes(), "END\r\n");
}

fn wrong_passwords(client: &Client<'_>) {
    let wrong = Login { password: "wrong".to_owned(), ..client.login.clone() };
    if let Ok(mut connection) = Connection::try_open(client.addr)
        && connection.try_send(wrong.text().as_bytes()).is_ok()
        && connection.try_line().is_ok()
    {
        client.count();
    }
}

/// From so many addresses that none of them runs out of ports: the half of them that the kernel looks through
/// first is used up in a second, and then each `connect` looks through all, with its core for itself.
fn connect_flood(client: &Client<'_>) {
    let number = client.done.load(Relaxed);
    let [.., high, low] = (number % FLOOD_ADDRESSES).to_be_bytes();
    let from = IpAddr::from([127, 1, high, low]);
    if Connection::try_open_from(from, client.addr).is_ok() {
        client.count();
    }
}

fn hot_key(client: &Client<'_>) {
    let Some(mut connection) = client.log_in() else { return };
    let value = "x".repeat(LARGE);
    if connection.try_send(format!("set hot 0 0 {LARGE}\r\n{value}\r\n").as_bytes()).is_err() {
        return;
    }
    drop(connection);
    client.repeat(b"get hot\r\n", "END\r\n");
}

fn flushes(client: &Client<'_>) {
    client.repeat(b"flush_all\r\n", "OK\r\n");
}

fn statistics(client: &Client<'_>) {
    client.repeat(b"stats\r\n", "END\r\n");
}
