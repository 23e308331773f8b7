//! What 100,000 caches with 1,000,000 credentials cost the API and the statistics: latency of what owners
//! and operators ask, memory, and a minute in which every cache was used.
//!
//! `cargo bench -p control --bench owners` measures on SQLite, in one process with its data plane, and then
//! on PostgreSQL, with a node that reports; `-- sqlite` or `-- postgres` only one of them, and a number is
//! that of the caches: `-- postgres 1000` says in seconds whether it works. PostgreSQL is started for it by
//! `clients/postgres.sh`.

use std::io::{self, BufRead as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use control::api::ApiSettings;
use control::campaign::{Campaign, Pace};
use control::control::Control;
use control::data_plane::{DataPlane, DataPlaneError};
use control::database::PostgresAccess;
use control::environment::Environment;
use control::model::{Actor, CacheName, ClusterId, UnixSeconds};
use control::server::{ServerLimits, serve};
use rusqlite::Connection;
use tenancy::id::CacheId;
use tenancy::plan::{Limits, Plan};
use tokio::net::TcpListener;
use wire::control::name::NodeName;
use wire::control::usage::{CacheReport, Figure, Figures, UsageReport};

/// Unless another number is asked for.
const CACHES: u64 = 100_000;
const CREDENTIALS_PER_CACHE: u64 = 10;
/// Nothing is under way any more by then.
const SHUTDOWN_TIME_MAX: Duration = Duration::from_secs(10);
/// Requests of each kind.
const REQUESTS: usize = 2_000;

/// Caches that are used as `ROUND` says: every one a little more in each round.
struct Busy;

static ROUND: AtomicU64 = AtomicU64::new(0);

impl DataPlane for Busy {
    fn put_cache(&self, _: CacheId, _: Limits) -> Result<(), DataPlaneError> {
        Ok(())
    }

    fn remove_cache(&self, _: CacheId) {}

    fn flush_cache(&self, _: CacheId) -> Result<(), DataPlaneError> {
        Ok(())
    }

    fn statistics(&self, id: CacheId) -> Result<Figures, DataPlaneError> {
        let mut figures = Figures::default();
        totals(id).into_iter().for_each(|(figure, total)| figures.set(figure, total));
        Ok(figures)
    }

    fn reset_statistics(&self, _: CacheId) -> Result<(), DataPlaneError> {
        Ok(())
    }
}

/// What a cache has counted by now.
fn totals(id: CacheId) -> [(Figure, u64); 8] {
    let round = ROUND.load(Ordering::Relaxed);
    [
        (Figure::CmdGet, 5_000),
        (Figure::GetHits, 4_800),
        (Figure::GetMisses, 200),
        (Figure::CmdSet, 400),
        (Figure::BytesRead, 300_000),
        (Figure::BytesWritten, 2_000_000),
        (Figure::Bytes, 9_000_000),
        (Figure::CurrItems, 40_000),
    ]
    .map(|(figure, factor)| (figure, round * (factor + id.get() % 100)))
}

/// What a node tells of all caches, in messages of a few thousand.
fn report(control: &Control, caches: u64) {
    let (node, usage) = (NodeName::parse("n0").expect("good"), control.usage_of_nodes());
    for first in (1..=caches).step_by(4_096) {
        let of_cache = |number: u64| {
            let cache = CacheId::new(number);
            CacheReport { figures: totals(cache).to_vec(), ..CacheReport::new(cache) }
        };
        let some = (first..(first + 4_096).min(caches + 1)).map(of_cache).collect();
        let report = UsageReport { run: 1, is_first: false, is_catching_up: false, caches: some };
        usage.hear(&node, &report, 0);
    }
}

static NOW: AtomicU64 = AtomicU64::new(1_800_000_000);

fn environment() -> Environment {
    static DRAWN: AtomicU64 = AtomicU64::new(1);
    Environment::new(
        || UnixSeconds(NOW.load(Ordering::Relaxed)),
        |bytes| -> io::Result<()> {
            for byte in bytes {
                let drawn = DRAWN.fetch_add(1, Ordering::Relaxed);
                let mixed = drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                *byte = ((mixed ^ (mixed >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 56) as u8;
            }
            Ok(())
        },
    )
}

/// A PostgreSQL server of our own, until this is dropped.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start() -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../clients/postgres.sh");
        let mut command = Command::new("sh");
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("a shell is there");
        let mut url = String::new();
        let output = process.stdout.take().expect("it is piped");
        io::BufReader::new(output).read_line(&mut url).expect("text");
        assert!(url.starts_with("postgresql:"), "no PostgreSQL: see clients/install.sh");
        Server { process, url: url.trim().to_owned() }
    }

    fn ask(&self) -> postgres::Client {
        postgres::Client::connect(&self.url, postgres::NoTls).expect("the server is there")
    }

    fn fill(&self, caches: u64) {
        let fill = format!(
            "BEGIN;
             INSERT INTO caches (cluster_id, name, plan, enabled, primary_username, created_at, used_at)
                 SELECT 1, 'cache-' || n, '100', TRUE, 'USER' || n || 'N0', 0, 0
                 FROM generate_series(1, {caches}) n;
             INSERT INTO credentials (username, cache_id, capabilities, password_hash,
                 sealed_password, created_at)
                 SELECT 'USER' || n || 'N' || k, n, 7, decode(md5(n::TEXT) || md5(k::TEXT), 'hex'),
                     decode(repeat(md5(k::TEXT), 4), 'hex'), 0
                 FROM generate_series(1, {caches}) n,
                     generate_series(0, {CREDENTIALS_PER_CACHE} - 1) k;
             COMMIT; ANALYZE;"
        );
        self.ask().batch_execute(&fill).expect("every cache has its primary credential");
    }

    fn bytes(&self) -> u64 {
        let row = self.ask().query_one("SELECT pg_database_size(current_database())", &[]);
        let bytes: i64 = row.expect("one row").get(0);
        u64::try_from(bytes).expect("a size")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The script ends, and stops the server, when its input ends.
        drop(self.process.stdin.take());
        drop(self.process.wait());
    }
}

/// Where the rows are, and whose caches they are.
enum Place {
    /// In a file; served by this process.
    Sqlite,
    /// On a server; served by a node.
    Postgres(Server),
}

impl Place {
    fn open(&self, dir: &Path) -> Control {
        match self {
            Place::Sqlite => Control::open(dir, environment(), Arc::new(Busy)).expect("it opens"),
            Place::Postgres(server) => {
                let access = PostgresAccess { url: server.url.clone(), authority: None };
                Control::open_postgres(dir, &access, environment()).expect("it opens")
            }
        }
    }

    fn fill(&self, dir: &Path, caches: u64) {
        match self {
            Place::Sqlite => fill(dir, caches),
            Place::Postgres(server) => server.fill(caches),
        }
    }

    fn bytes(&self, dir: &Path) -> u64 {
        match self {
            Place::Sqlite => {
                std::fs::metadata(dir.join("control.sqlite")).map_or(0, |file| file.len())
            }
            Place::Postgres(server) => server.bytes(),
        }
    }

    /// The end of a round: nodes have told what they count.
    fn report(&self, control: &Control, caches: u64) {
        if let Place::Postgres(_) = self {
            report(control, caches);
        }
    }
}

fn fill(dir: &Path, caches: u64) {
    let mut connection = Connection::open(dir.join("control.sqlite")).expect("it was made");
    let transaction = connection.transaction().expect("nobody else uses it");
    for cache in 1..=caches {
        let insert =
            "INSERT INTO caches (cluster_id, name, plan, enabled, primary_username, created_at,
            used_at) VALUES (1, 'cache-' || ?1, '100', 1, ?2, 0, 0)";
        let mut insert = transaction.prepare_cached(insert).expect("good");
        insert.execute((cache, format!("USER{cache}N0"))).expect("a good row");
        let insert = "INSERT INTO credentials (username, cache_id, capabilities, password_hash,
            sealed_password, created_at) VALUES (?1, ?2, 7, randomblob(32), randomblob(60), 0)";
        let mut insert = transaction.prepare_cached(insert).expect("good");
        for number in 0..CREDENTIALS_PER_CACHE {
            insert.execute((format!("USER{cache}N{number}"), cache)).expect("a good row");
        }
    }
    transaction.commit().expect("every cache has its primary credential");
}

fn memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it is there");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("KiB") / 1_024
}

#[expect(clippy::print_stdout, reason = "a benchmark tells its figures")]
fn say(what: &str, figure: &str) {
    println!("{what:<44} {figure}");
}

/// Asks one after the other, as one script does.
fn measure(what: &str, url: &str, method: &str, authorization: &str) {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().into();
    let mut times: Vec<Duration> = (0..REQUESTS)
        .map(|_| {
            let request = ureq::http::Request::builder()
                .method(method)
                .uri(url)
                .header("authorization", authorization)
                .body(Vec::new())
                .expect("good");
            let begun = Instant::now();
            let answer = agent.run(request).expect("an answer");
            assert!(answer.status().is_success(), "{what}: {}", answer.status());
            answer.into_body().read_to_vec().expect("a whole body");
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    let at = |share: f64| times[(times.len() as f64 * share) as usize];
    say(what, &format!("p50 {:.2?}   p99 {:.2?}", at(0.5), at(0.99)));
}

fn main() {
    let wanted = std::env::args().find(|word| word == "sqlite" || word == "postgres");
    let caches = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(CACHES);
    match wanted.as_deref() {
        Some("sqlite") => run(&Place::Sqlite, caches),
        Some(_) => run(&Place::Postgres(Server::start()), caches),
        // A process for each, so that neither's memory is counted with the other's.
        None => ["sqlite", "postgres"].into_iter().for_each(|place| again(place, caches)),
    }
}

fn again(place: &str, caches: u64) {
    say(&format!("--- {place}, {caches} caches"), "");
    let program = std::env::current_exe().expect("a running program has a path");
    let status = Command::new(program).args([place, &caches.to_string()]).status();
    let status = status.expect("it runs again");
    assert!(status.success(), "{place} failed");
}

fn run(place: &Place, caches: u64) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    drop(place.open(dir.path()));
    place.fill(dir.path(), caches);
    let begun = Instant::now();
    let control = Arc::new(place.open(dir.path()));
    say("start", &format!("{:.2?}", begun.elapsed()));
    let campaign = match place {
        Place::Sqlite => None,
        Place::Postgres(_) => {
            let campaign = Campaign::start(&control, control.holder(), Pace::default());
            let campaign = campaign.expect("a thread");
            while !control.leads() {
                std::thread::sleep(Duration::from_millis(10));
            }
            Some(campaign)
        }
    };
    say("memory after the start", &format!("{} MiB", memory_mib()));
    let name = CacheName::parse("mine").expect("good");
    let plan = Plan::named("100").expect("there");
    let made = control.create_cache(Actor::Operator, ClusterId::DEFAULT, Some(name), plan);
    let (cache, issued) = made.expect("room").value;

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let address = listener.local_addr().expect("bound");
    let served = serve(
        listener,
        Arc::clone(&control),
        ApiSettings::default(),
        ServerLimits::default(),
        std::future::pending(),
    );
    drop(runtime.spawn(served));
    let user = format!("{}:{}", issued.credential.username, issued.secret.reveal());
    let owner = format!("Basic {}", BASE64.encode(user));
    let token = std::fs::read_to_string(dir.path().join("control.token")).expect("it is there");
    let operator = format!("Bearer {}", token.trim());
    let own = |path: &str| format!("http://{address}/api/v2/caches/{}/{path}", cache.id);
    measure("GET info (owner)", &own("info"), "GET", &owner);
    measure("GET stats (owner)", &own("stats"), "GET", &owner);
    measure("POST flush (owner; a commit)", &own("flush"), "POST", &owner);
    let page = format!("http://{address}/v1/caches?limit=100&after={}", caches / 2);
    measure("GET 100 caches (operator)", &page, "GET", &operator);
    say("memory after the requests", &format!("{} MiB", memory_mib()));

    let sampled = |what: &str| {
        let begun = Instant::now();
        let changed = control.sample().expect("sampled");
        say(what, &format!("{:.2?} ({changed} changed)", begun.elapsed()));
    };
    sampled("a minute in which nobody did anything");
    for _ in 0..10 {
        ROUND.fetch_add(1, Ordering::Relaxed);
        NOW.fetch_add(60, Ordering::Relaxed);
        place.report(&control, caches);
        sampled("a minute in which every cache was used");
    }
    let begun = Instant::now();
    control.roll_up().expect("rolled up");
    say("ten minutes of all caches summed up", &format!("{:.2?}", begun.elapsed()));
    say("the database", &format!("{} MiB", place.bytes(dir.path()) / (1 << 20)));
    say("memory after that", &format!("{} MiB", memory_mib()));
    let series = own("insight/processed_stats?names=hit_rate,request_rate,bytes");
    measure("GET a day in minutes (owner)", &series, "GET", &owner);
    // Tasks that wait for connections do not end by themselves. They end here, while we hold control: its
    // connection to PostgreSQL cannot be closed by one of them.
    runtime.shutdown_timeout(SHUTDOWN_TIME_MAX);
    drop(campaign);
}
