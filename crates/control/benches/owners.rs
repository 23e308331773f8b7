//! What 100,000 caches with 1,000,000 credentials cost the API and the statistics: latency of what owners
//! and operators ask, memory, and a minute in which every cache was used.
//!
//! `cargo bench -p control --bench owners`; with `LARDER_POSTGRES=URL` on an empty PostgreSQL database.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use control::api::ApiSettings;
use control::control::Control;
use control::data_plane::{DataPlane, DataPlaneError};
use control::environment::Environment;
use control::model::{Actor, CacheName, ClusterId, UnixSeconds};
use control::server::{ServerLimits, serve};
use rusqlite::Connection;
use tenancy::id::CacheId;
use tenancy::plan::{Limits, Plan};
use tokio::net::TcpListener;
use wire::control::usage::{Figure, Figures};

const CACHES: u64 = 100_000;
const CREDENTIALS_PER_CACHE: u64 = 10;
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
        let round = ROUND.load(Ordering::Relaxed);
        let mut figures = Figures::default();
        for (figure, factor) in [
            (Figure::CmdGet, 5_000),
            (Figure::GetHits, 4_800),
            (Figure::GetMisses, 200),
            (Figure::CmdSet, 400),
            (Figure::BytesRead, 300_000),
            (Figure::BytesWritten, 2_000_000),
            (Figure::Bytes, 9_000_000),
            (Figure::CurrItems, 40_000),
        ] {
            figures.set(figure, round * (factor + id.get() % 100));
        }
        Ok(figures)
    }

    fn reset_statistics(&self, _: CacheId) -> Result<(), DataPlaneError> {
        Ok(())
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

fn fill(dir: &Path) {
    let mut connection = Connection::open(dir.join("control.sqlite")).expect("it was made");
    let transaction = connection.transaction().expect("nobody else uses it");
    for cache in 1..=CACHES {
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
    let dir = tempfile::tempdir().expect("a temporary directory");
    let open = || Control::open(dir.path(), environment(), Arc::new(Busy)).expect("it opens");
    drop(open());
    fill(dir.path());
    let begun = Instant::now();
    let control = Arc::new(open());
    say("start", &format!("{:.2?}", begun.elapsed()));
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
    let caches = format!("http://{address}/v1/caches?limit=100&after=50000");
    measure("GET 100 caches (operator)", &caches, "GET", &operator);
    say("memory after the requests", &format!("{} MiB", memory_mib()));

    let file = dir.path().join("control.sqlite");
    let bytes = || std::fs::metadata(&file).map_or(0, |it| it.len());
    let sampled = |what: &str| {
        let begun = Instant::now();
        let changed = control.sample().expect("sampled");
        say(what, &format!("{:.2?} ({changed} changed)", begun.elapsed()));
    };
    sampled("a minute in which nobody did anything");
    for _ in 0..10 {
        ROUND.fetch_add(1, Ordering::Relaxed);
        NOW.fetch_add(60, Ordering::Relaxed);
        sampled("a minute in which every cache was used");
    }
    let begun = Instant::now();
    control.roll_up().expect("rolled up");
    say("ten minutes of all caches summed up", &format!("{:.2?}", begun.elapsed()));
    say("the database's file", &format!("{} MiB", bytes() / (1 << 20)));
    say("memory after that", &format!("{} MiB", memory_mib()));
    let series = own("insight/processed_stats?names=hit_rate,request_rate,bytes");
    measure("GET a day in minutes (owner)", &series, "GET", &owner);
    // Tasks that wait for connections do not end by themselves.
    runtime.shutdown_background();
}
