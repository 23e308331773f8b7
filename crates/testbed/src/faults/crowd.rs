//! Very many connections: what an idle one costs, what those who work notice of them (R1), and all of
//! them coming back at once (R2).

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use bench::Moment;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::report::{Amount, Bar, Report, middle};
use super::steady::Steady;
use super::{Experiment, Length, NotHere, load, seconds};
use crate::connection::{Connection, Login};
use crate::cores::{give_way, pin, pin_thread};
use crate::eventually::{DEADLINE, eventually};
use crate::fleet::Cluster;
use crate::keys::{self, Ended};
use crate::larder::{Larder, program};
use crate::memcached::Memcached;

const KIB: f64 = 1024.0;
/// The largest plan's connections, and room in this process for their other ends.
const PLAN: &str = "1000";

/// Of which the client that stays reads those that are not lost.
const KEYS: u64 = 1_000;
/// Times that they come back, to Larder and to memcached in turn: what else a machine does in one such moment
/// is more than what they do.
const STORMS: usize = 3;
/// Of the client that stays: some hundreds in the part of a second that such a storm takes.
const READS_PER_SECOND: u32 = 2_000;

pub(super) const IDLE: Experiment = Experiment {
    name: "idle-crowd",
    goals: "R1, F5",
    what: "18,000 idle clients of one proxy, 5,000 over TLS, 50,000 of three proxies",
    is_quick: false,
    run: idle,
};

pub(super) const STORM: Experiment = Experiment {
    name: "reconnect-storm",
    goals: "R2, F2",
    what: "SIGKILL of one of three proxies; its 10,000 clients come back at once (SASL)",
    is_quick: false,
    run: storm,
};

fn idle(report: &mut Report, length: Length) -> Result<(), NotHere> {
    let descriptors = daemon::descriptors::raise();
    let needed = length.pick(2_000, 19_000);
    if descriptors < needed {
        return Err(NotHere(format!("a process may have {descriptors} descriptors, not {needed}")));
    }
    let time = length.pick(Duration::from_secs(1), Duration::from_secs(20));
    let busy = format!(
        "--connections 200 --rate 20000 --poisson --keys 10000 --duration {}",
        seconds(time)
    );
    for (words, count, kib_max) in
        [("plain", length.pick(1_000, 18_000), 4.0), ("TLS", length.pick(500, 5_000), 24.0)]
    {
        let larder = Larder::options().setting("memory_bytes", "2 GiB").start();
        larder.run(&["cache", "change-plan", &larder.cache(), PLAN]);
        let is_tls = words == "TLS";
        let (addr, tls) =
            if is_tls { (larder.tls_addr, " --tls --insecure") } else { (larder.addr, "") };
        let alone = load(&[addr], &larder.login, &format!("{busy}{tls}"), &mut |_| ());
        let alone = alone.unwrap_or_else(|error| panic!("200 clients alone: {error}"));
        let before = larder.process.memory_bytes();
        let mut each = 0.0;
        let idle = format!("{busy}{tls} --no-fill --idle {count}");
        let beside = load(&[addr], &larder.login, &idle, &mut |moment| {
            if moment == Moment::Connected {
                let grown = larder.process.memory_bytes().saturating_sub(before);
                each = grown as f64 / KIB / f64::from(count);
            }
        });
        let beside = beside.unwrap_or_else(|error| panic!("{count} idle clients: {error}"));
        report.never(&format!("{words}: wrong values"), beside.wrong_values);
        let failed = beside.refused + beside.unanswered + beside.connections_lost;
        report.law(&format!("{words}: failed beside {count} idle clients"), failed, failed == 0);
        report.figure(
            &format!("{words}: memory of an idle client of {count}"),
            Amount(each, "KiB"),
            Bar::AtMost(kib_max),
        );
        let (alone, beside) = (alone.latency_us.p99, beside.latency_us.p99);
        report.figure(
            &format!("{words}: p99 of 200 busy ones alone"),
            Amount(alone / 1e3, "ms"),
            Bar::None,
        );
        report.figure(
            &format!("{words}: p99 beside {count} idle ones"),
            Amount(beside / 1e3, "ms"),
            Bar::AtMost((alone / 1e3 * 2.0 * 100.0).round() / 100.0),
        );
    }
    over_three_proxies(report, length.pick(900, 50_000), time);
    Ok(())
}

/// Three nodes with memory for what such plans guarantee, of which none is given up.
fn large_cluster(settings: &[(&str, &str)]) -> Cluster {
    let settings = [&[("hold_down_seconds", "3600")], settings].concat();
    let mut cluster = Cluster::start_control("127.0.0.1:0", 1, &settings);
    for number in 0..3 {
        cluster.add_node(&format!("n{number}"), &["--memory", "2GiB"]);
    }
    cluster.wait_until_settled(3);
    cluster
}

/// Clients of their own processes, because one may not have so many descriptors either.
fn over_three_proxies(report: &mut Report, count: u32, time: Duration) {
    let cluster = large_cluster(&[]);
    let login = cluster.create_cache("crowd", PLAN);
    // A cache's plan has connections for one proxy of such a crowd: there are as many caches as proxies.
    let logins =
        [login, cluster.create_cache("crowd-1", PLAN), cluster.create_cache("crowd-2", PLAN)];
    for (node, login) in logins.iter().enumerate() {
        drop(cluster.connect(node, login));
    }
    let before: Vec<u64> = cluster.nodes.iter().map(|node| node.process.memory_bytes()).collect();
    let each = count / 3;
    let start =
        |(node, login): (usize, &Login)| Crowd::start(cluster.nodes[node].addr, login, each, time);
    let mut crowds: Vec<Crowd> = logins.iter().enumerate().map(start).collect();
    let grown = eventually("all have come", 3 * DEADLINE, || {
        let open: usize = cluster.nodes.iter().map(|node| node.process.descriptors()).sum();
        (open as u32 >= count / 3 * 3).then(|| {
            let now = cluster.nodes.iter().map(|node| node.process.memory_bytes());
            now.zip(&before).map(|(now, before)| now.saturating_sub(*before)).sum::<u64>()
        })
    });
    let each_kib = grown as f64 / KIB / f64::from(count);
    let what = format!("three proxies: memory of an idle client of {count}");
    report.figure(&what, Amount(each_kib, "KiB"), Bar::AtMost(4.0));
    for (node, login) in logins.iter().enumerate() {
        cluster.connect(node, login).ask("mn\r\n", "MN\r\n");
    }
    let ended_well = crowds.iter_mut().all(Crowd::has_ended_well);
    report.law(
        &format!("three proxies: {count} clients stay to their end"),
        ended_well,
        ended_well,
    );
}

/// `larder bench` with idle connections, in a process of its own.
struct Crowd(Child);

impl Crowd {
    fn start(addr: SocketAddr, login: &Login, idle: u32, time: Duration) -> Crowd {
        let child = Command::new(program())
            .args(["bench", "--json", "--no-fill", "--connections", "1", "--rate", "10"])
            .args(["--keys", "10", "--idle", &idle.to_string(), "--duration", &seconds(time)])
            .env("MEMCACHIER_SERVERS", addr.to_string())
            .env("MEMCACHIER_USERNAME", &login.username)
            .env("MEMCACHIER_PASSWORD", &login.password)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program that serves can also be run as a command");
        Crowd(child)
    }

    fn has_ended_well(&mut self) -> bool {
        self.0.wait().is_ok_and(|status| status.success())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // Either it has ended already, which is as good, or it ends now.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Who is looked at has a core of its own, and the client that stays asks that one. Whoever comes back
/// gives way to all others of the second core: elsewhere ten thousand clients have machines of their own.
fn storm(report: &mut Report, length: Length) -> Result<(), NotHere> {
    let _second_core =
        pin_thread(1).map_err(|error| NotHere(format!("no second core: {error}")))?;
    let count: u32 = length.pick(500, 10_000);
    let descriptors = daemon::descriptors::raise();
    if descriptors < u64::from(count) + daemon::descriptors::RESERVED {
        return Err(NotHere(format!("{descriptors} descriptors are too few for {count} clients")));
    }
    let (mut larder, mut memcached) = (Vec::new(), Vec::new());
    for _ in 0..STORMS {
        larder.push(storm_of_larder(length, count)?);
        if Memcached::is_here() {
            memcached.push(storm_of_memcached(length, count / 2)?);
        }
    }
    Storm::tell(&larder, "", report);
    Storm::tell(&memcached, "memcached, ", report);
    if Memcached::is_here() {
        return Ok(());
    }
    Err(NotHere("there is no memcached to compare with".to_owned()))
}

/// The clients of one of three proxies come to the two that are left.
fn storm_of_larder(length: Length, count: u32) -> Result<Storm, NotHere> {
    let mut cluster = large_cluster(&[("threads", "1")]);
    let first = cluster.nodes[0].process.id();
    pin(first, 0).map_err(|error| NotHere(format!("no first core: {error}")))?;
    let login = cluster.create_cache("shop", PLAN);
    let mut client = cluster.connect(0, &login);
    keys::set(&mut client, 0..KEYS);
    (1..3).for_each(|node| drop(cluster.connect(node, &login)));
    let survivors: Vec<SocketAddr> = cluster.nodes[..2].iter().map(|node| node.addr).collect();
    let (going, entry) = (cluster.nodes[2].addr, Entry::Sasl(login.clone()));
    let crowd = Returning::start(going, survivors.clone(), entry, count);
    crowd.wait_until_in()?;

    cluster.kill(2);
    // What the others own, read on connections that stay.
    let owned: Vec<u64> = eventually("what the others own is found", DEADLINE, || {
        let each = keys::get_each(&mut client, 0..KEYS).ok()?;
        let hits = each.into_iter().filter(|(_, ended)| *ended == Ended::Hit);
        let hits: Vec<u64> = hits.map(|(number, _)| number).collect();
        (!hits.is_empty()).then_some(hits)
    });
    let steady = Steady::start(survivors[0], &login, owned, READS_PER_SECOND);
    come_back(length, steady, &crowd)
}

/// The clients of one of two memcacheds, as many as come to each of two proxies, come to the other one, which
/// lets them in by the text dialect: what such a machine can do.
fn storm_of_memcached(length: Length, count: u32) -> Result<Storm, NotHere> {
    let login = Login { username: "shop".to_owned(), password: "secret".to_owned() };
    let [stays, goes] = [0, 1].map(|_| Memcached::start_for_crowds(&login));
    let login = login.of_any_key();
    pin(stays.process.id(), 0).map_err(|error| NotHere(format!("no first core: {error}")))?;
    keys::set(&mut Connection::open_as(stays.addr, &login), 0..KEYS);
    let crowd = Returning::start(goes.addr, vec![stays.addr], Entry::Text(login.clone()), count);
    crowd.wait_until_in()?;
    drop(goes);
    let steady = Steady::start(stays.addr, &login, (0..KEYS).collect(), READS_PER_SECOND);
    come_back(length, steady, &crowd)
}

/// They come, and what the one who stays notices of it.
fn come_back(length: Length, steady: Steady, crowd: &Returning) -> Result<Storm, NotHere> {
    let overflows = listen_overflows();
    // Or it would have to come with all the others.
    steady.wait_until_at_work();
    let before = steady.now();
    thread::sleep(length.pick(Duration::from_secs(1), Duration::from_secs(3)));
    let from = steady.now();
    crowd.come_back();
    let again = crowd.have_come()?;
    let to = steady.now();
    thread::sleep(Duration::from_secs(1));
    let answers = steady.finish();
    let (calm, meanwhile) = (answers.between(before, from), answers.between(from, to));
    Ok(Storm {
        clients: crowd.count,
        refused: again.errors,
        took: again.took,
        before: calm.p99(),
        meanwhile: meanwhile.p99(),
        slowest: meanwhile.quantile(Ended::Hit, 1.0),
        overflows: listen_overflows() - overflows,
    })
}

/// What came of clients that came back at once.
struct Storm {
    clients: u32,
    refused: u32,
    took: Duration,
    /// Of those who stayed, the 99th percentile.
    before: Duration,
    meanwhile: Duration,
    slowest: Duration,
    /// Connections that a listener had no room for.
    overflows: u64,
}

impl Storm {
    /// `name` stands before each row; without one it is Larder, which is judged by them.
    fn tell(storms: &[Storm], name: &str, report: &mut Report) {
        let Some(Storm { clients, .. }) = storms.first() else { return };
        let bar = |most| if name.is_empty() { Bar::AtMost(most) } else { Bar::None };
        let what = |of: &str| format!("{name}{of}");
        let times = |of: fn(&Storm) -> Duration, unit| {
            middle(storms.iter().map(|it| of(it).as_secs_f64() * unit))
        };
        let refused: u32 = storms.iter().map(|it| it.refused).sum();
        report.law(&what("refused when they came back"), refused, refused == 0);
        let (took, all) = times(|it| it.took, 1.0);
        let back = what(&format!("{clients} clients are back after, {all}"));
        report.figure(&back, Amount(took, "s"), bar(10.0));
        let (before, all) = times(|it| it.before, 1e3);
        let row = what(&format!("p99 of others before, {all}"));
        report.figure(&row, Amount(before, "ms"), Bar::None);
        let (meanwhile, all) = times(|it| it.meanwhile, 1e3);
        let row = what(&format!("p99 of others meanwhile, {all}"));
        report.figure(&row, Amount(meanwhile, "ms"), Bar::None);
        let factor = |it: &Storm| Amount::times(it.meanwhile, it.before).0;
        let (factor, all) = middle(storms.iter().map(factor));
        let row = what(&format!("p99 of others as a multiple, {all}"));
        report.figure(&row, Amount(factor, "×"), bar(2.0));
        let (slowest, all) = times(|it| it.slowest, 1e3);
        let row = what(&format!("slowest answer to others meanwhile, {all}"));
        report.figure(&row, Amount(slowest, "ms"), Bar::None);
        let overflows = Amount::count(storms.iter().map(|it| it.overflows).sum());
        report.figure(&what("connections that a listener had no room for"), overflows, bar(0.0));
    }
}

/// Clients of one proxy that come to others when they are told to, in a thread of their own. It ends with
/// the experiment, or with what it was doing then.
struct Returning {
    count: u32,
    go: Sender<()>,
    told: Receiver<Came>,
}

impl Returning {
    fn start(first: SocketAddr, then: Vec<SocketAddr>, entry: Entry, count: u32) -> Returning {
        let (go, may_go) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be made");
            let mut open = Vec::new();
            for servers in [vec![first], then] {
                let mut came = runtime.block_on(come(&servers, &entry, count));
                open.append(&mut came.open);
                if tell.send(came).is_err() || may_go.recv().is_err() {
                    return;
                }
                // Without it the figures say less.
                give_way().ok();
                open.clear();
            }
        });
        Returning { count, go, told }
    }

    /// All clients of the first proxy.
    fn wait_until_in(&self) -> Result<(), NotHere> {
        assert_eq!(self.have_come()?.errors, 0, "all clients of the first proxy came in");
        Ok(())
    }

    fn come_back(&self) {
        self.go.send(()).expect("it waits for that");
    }

    fn have_come(&self) -> Result<Came, NotHere> {
        let busy =
            |_| NotHere("whoever gives way to what else this machine does never comes".into());
        self.told.recv_timeout(3 * DEADLINE).map_err(busy)
    }
}

/// Clients that came.
struct Came {
    open: Vec<TcpStream>,
    /// That were refused, or not answered.
    errors: u32,
    took: Duration,
}

/// For one client, all of it: longer than anybody waits for all of them.
const PATIENCE: Duration = Duration::from_secs(300);

/// How a client shows its password.
#[derive(Clone)]
enum Entry {
    /// In the binary dialect.
    Sasl(Login),
    Text(Login),
}

impl Entry {
    async fn lets_in(&self, stream: &mut TcpStream) -> std::io::Result<bool> {
        match self {
            Entry::Sasl(login) => {
                stream.write_all(&login.binary()).await?;
                let mut header = [0; 24];
                stream.read_exact(&mut header).await?;
                let body_bytes = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
                let mut body = vec![0; body_bytes as usize];
                stream.read_exact(&mut body).await?;
                Ok(header[6..8] == [0, 0])
            }
            Entry::Text(login) => {
                stream.write_all(login.text().as_bytes()).await?;
                let mut answer = [0; b"STORED\r\n".len()];
                stream.read_exact(&mut answer).await?;
                Ok(answer == *b"STORED\r\n")
            }
        }
    }
}

/// So many clients, all at once, over these servers.
async fn come(servers: &[SocketAddr], entry: &Entry, count: u32) -> Came {
    let began = Instant::now();
    let mut coming = JoinSet::new();
    for number in 0..count {
        let addr = servers[number as usize % servers.len()];
        let entry = entry.clone();
        coming.spawn(async move {
            let coming = async {
                let mut stream = TcpStream::connect(addr).await?;
                let is_in = entry.lets_in(&mut stream).await?;
                Ok::<_, std::io::Error>(is_in.then_some(stream))
            };
            let came = tokio::time::timeout(PATIENCE, coming).await;
            came.ok().and_then(Result::ok).flatten()
        });
    }
    let mut came = Came { open: Vec::new(), errors: 0, took: Duration::ZERO };
    while let Some(one) = coming.join_next().await {
        match one.ok().flatten() {
            Some(stream) => came.open.push(stream),
            None => came.errors += 1,
        }
    }
    came.took = began.elapsed();
    came
}

/// Of this machine, since it started (`/proc/net/netstat`: names in one line, values in the next).
fn listen_overflows() -> u64 {
    let text = fs::read_to_string("/proc/net/netstat").unwrap_or_default();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return 0 };
    let mut both = names.split_whitespace().zip(values.split_whitespace());
    let found = both.find(|(name, _)| *name == "ListenOverflows");
    found.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}
