//! A pretend data plane, and a control plane around it, for this crate's tests.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tenancy::id::CacheId;
use tenancy::plan::Limits;
use tenancy::rules::Open;
use wire::control::inquiry::{Answer, KeyFigures, Popular, PrefixFigures, Question};
use wire::control::latency::Histogram;
use wire::control::usage::{Figure, Figures};

use crate::control::{Backing, Control};
use crate::data_plane::{DataPlane, DataPlaneError};
use crate::database::Database;
#[cfg(feature = "postgres")]
use crate::database::PostgresAccess;
use crate::environment::Environment;
use crate::error::{DatabaseError, OpenError};
use crate::model::UnixSeconds;

/// Remembers what it was told, and refuses when told to.
#[derive(Default)]
pub(crate) struct PretendDataPlane {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    caches: BTreeMap<CacheId, Limits>,
    flushes: BTreeMap<CacheId, u64>,
    resets: BTreeMap<CacheId, u64>,
    /// What a test wants counted beside.
    counts: BTreeMap<(CacheId, String), u64>,
    popular: BTreeMap<CacheId, Popular>,
    prefixes: BTreeMap<(CacheId, Vec<u8>), PrefixFigures>,
    refusal: Option<DataPlaneError>,
    open: Vec<Open>,
    latency: Histogram,
    /// While true, `statistics` does not return.
    held: bool,
    /// Calls of `statistics` that have begun.
    counted: u64,
}

impl PretendDataPlane {
    /// Limits and number of flushes by cache.
    pub(crate) fn seen(&self) -> BTreeMap<u64, (Limits, u64)> {
        let state = self.state();
        let flushes = |id: &CacheId| state.flushes.get(id).copied().unwrap_or(0);
        state.caches.iter().map(|(id, limits)| (id.get(), (*limits, flushes(id)))).collect()
    }

    /// How often a cache's counters were set to zero.
    pub(crate) fn resets(&self, id: CacheId) -> u64 {
        self.state().resets.get(&id).copied().unwrap_or(0)
    }

    /// Makes `statistics` tell this of a cache.
    pub(crate) fn count(&self, id: CacheId, name: &str, count: u64) {
        self.state().counts.insert((id, name.to_owned()), count);
    }

    /// Says that a cache is asked for this.
    pub(crate) fn ask_for(&self, id: CacheId, popular: Popular) {
        self.state().popular.insert(id, popular);
    }

    /// Says that this was asked for under a prefix, and is held of it.
    pub(crate) fn ask_under(&self, id: CacheId, prefix: &str, figures: PrefixFigures) {
        self.state().prefixes.insert((id, prefix.into()), figures);
    }

    /// Has these connections open from now on.
    pub(crate) fn connect(&self, open: Vec<Open>) {
        self.state().open = open;
    }

    /// Has a request have taken so long.
    pub(crate) fn time(&self, nanoseconds: u64) {
        self.state().latency.note(nanoseconds);
    }

    pub(crate) fn refuse(&self, refusal: Option<DataPlaneError>) {
        self.state().refusal = refusal;
    }

    /// Makes every call of `statistics` wait, or lets them go on.
    pub(crate) fn hold(&self, held: bool) {
        self.state().held = held;
        self.changed.notify_all();
    }

    /// Returns when `calls` of `statistics` have begun.
    pub(crate) fn wait_for_statistics(&self, calls: u64) {
        let waited = self.changed.wait_while(self.state(), |state| state.counted < calls);
        drop(waited.expect("no test panics while it holds the lock"));
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the lock")
    }
}

impl DataPlane for PretendDataPlane {
    fn put_cache(&self, id: CacheId, limits: Limits) -> Result<(), DataPlaneError> {
        let mut state = self.state();
        state.refusal.clone().map_or(Ok(()), Err)?;
        state.caches.insert(id, limits);
        Ok(())
    }

    fn remove_cache(&self, id: CacheId) {
        self.state().caches.remove(&id);
    }

    fn flush_cache(&self, id: CacheId) -> Result<(), DataPlaneError> {
        let mut state = self.state();
        state.refusal.clone().map_or(Ok(()), Err)?;
        *state.flushes.entry(id).or_default() += 1;
        Ok(())
    }

    fn statistics(&self, id: CacheId) -> Result<Figures, DataPlaneError> {
        let mut state = self.state();
        state.counted += 1;
        self.changed.notify_all();
        let state = self.changed.wait_while(state, |state| state.held);
        let state = state.expect("no test panics while it holds the lock");
        state.refusal.clone().map_or(Ok(()), Err)?;
        let flushes = state.flushes.get(&id).copied().unwrap_or(0);
        let mut figures = Figures::default();
        figures.set(Figure::CmdFlush, flushes);
        for (_, name) in state.counts.keys().filter(|(of, _)| *of == id) {
            let figure = Figure::from_name(name).expect("tests name what there is");
            figures.set(figure, state.counts[&(id, name.clone())]);
        }
        Ok(figures)
    }

    fn reset_statistics(&self, id: CacheId) -> Result<(), DataPlaneError> {
        let mut state = self.state();
        state.refusal.clone().map_or(Ok(()), Err)?;
        *state.resets.entry(id).or_default() += 1;
        Ok(())
    }

    fn open(&self) -> Vec<Open> {
        self.state().open.clone()
    }

    fn answer(&self, question: &Question) -> Answer {
        match question {
            Question::Latency => Answer::Latency(Box::new(self.state().latency.clone())),
            Question::Popular(id) => {
                Answer::Popular(self.state().popular.get(id).cloned().unwrap_or_default())
            }
            Question::Key { .. } => Answer::Key(KeyFigures::default()),
            Question::Recent(_) => Answer::Recent(Vec::new()),
            Question::Prefixes { cache, prefixes } => {
                let state = self.state();
                let figures = |prefix: &Vec<u8>| {
                    state.prefixes.get(&(*cache, prefix.clone())).copied().unwrap_or_default()
                };
                Answer::Prefixes(prefixes.iter().map(figures).collect())
            }
            Question::ResetStatistics(_) | Question::Cut(_) => Answer::NoCache,
        }
    }
}

/// The time by a test's clock.
pub(crate) const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

/// A clock that stands, and chance that never repeats itself in this process.
pub(crate) fn environment() -> Environment {
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    Environment::new(
        || NOW,
        |bytes| -> io::Result<()> {
            for byte in bytes {
                // SplitMix64 (Steele, Lea, Flood 2014): its output does not repeat for 2^64 draws.
                let drawn = DRAWN.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
                let mixed = drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                *byte = (mixed ^ (mixed >> 31)) as u8;
            }
            Ok(())
        },
    )
}

pub(crate) struct Installation {
    pub(crate) control: Arc<Control>,
    pub(crate) data_plane: Arc<PretendDataPlane>,
    pub(crate) backing: Backing,
    /// Removed when the installation is dropped, unless a test takes it over to start again.
    pub(crate) dir: tempfile::TempDir,
}

impl Installation {
    pub(crate) fn new() -> Self {
        Installation::on(&Engine::Sqlite)
    }

    /// A new one, on a database of its own.
    pub(crate) fn on(engine: &Engine) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Installation::start(engine.backing(), dir).expect("a new directory opens")
    }

    fn start(backing: Backing, dir: tempfile::TempDir) -> Result<Self, OpenError> {
        let data_plane = Arc::new(PretendDataPlane::default());
        let control = open_on(&backing, dir.path(), &data_plane)?;
        if backing != Backing::Sqlite {
            control.lead("a test", Duration::from_secs(600), true);
        }
        Ok(Installation { control: Arc::new(control), data_plane, backing, dir })
    }

    pub(crate) fn run_sql(&self, sql: &str) -> Result<(), DatabaseError> {
        self.control.run_sql(sql)
    }

    /// Ends this process's hold of the directory and begins anew, with an empty data plane.
    pub(crate) fn restart(self) -> Self {
        let Installation { control, dir, backing, .. } = self;
        assert_eq!(Arc::strong_count(&control), 1, "someone still uses the old one");
        control.resign();
        drop(control);
        Installation::start(backing, dir).expect("it opened before")
    }
}

pub(crate) fn open(dir: &Path, data_plane: &Arc<PretendDataPlane>) -> Result<Control, OpenError> {
    open_on(&Backing::Sqlite, dir, data_plane)
}

fn open_on(
    backing: &Backing,
    dir: &Path,
    data_plane: &Arc<PretendDataPlane>,
) -> Result<Control, OpenError> {
    let data_plane = Arc::clone(data_plane) as Arc<dyn DataPlane>;
    Control::open_on(backing, dir, environment(), Some(data_plane))
}

/// The databases that every test of the conformance suite runs on.
pub(crate) enum Engine {
    Sqlite,
    #[cfg(feature = "postgres")]
    Postgres(PostgresServer),
}

impl Engine {
    /// A place for a new database.
    pub(crate) fn backing(&self) -> Backing {
        match self {
            Engine::Sqlite => Backing::Sqlite,
            #[cfg(feature = "postgres")]
            Engine::Postgres(server) => Backing::Postgres(server.new_database()),
        }
    }

    /// Two connections to one new database, the first of which leads where there is no choice.
    pub(crate) fn two_databases(&self) -> (Database, Database, Option<tempfile::TempDir>) {
        match self {
            Engine::Sqlite => {
                let dir = tempfile::tempdir().expect("a temporary directory");
                let open = || Database::open_sqlite(&dir.path().join("shared")).expect("it opens");
                (open(), open(), Some(dir))
            }
            #[cfg(feature = "postgres")]
            Engine::Postgres(server) => {
                let access = server.new_database();
                let open = || Database::open_postgres(&access).expect("it opens");
                (open(), open(), None)
            }
        }
    }
}

/// A PostgreSQL server that a test has for itself; stops when this is dropped.
#[cfg(feature = "postgres")]
pub(crate) struct PostgresServer {
    url: String,
    made: AtomicU64,
    process: std::process::Child,
}

#[cfg(feature = "postgres")]
impl PostgresServer {
    pub(crate) fn start() -> Self {
        use std::io::BufRead as _;
        use std::process::{Command, Stdio};
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../clients/postgres.sh");
        let process =
            Command::new("sh").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = process.expect("a shell is there");
        let mut url = String::new();
        let output = process.stdout.take().expect("it is piped");
        io::BufReader::new(output).read_line(&mut url).expect("text");
        assert!(url.starts_with("postgresql:"), "no PostgreSQL: see clients/install.sh");
        PostgresServer { url: url.trim().to_owned(), made: AtomicU64::new(0), process }
    }

    /// The way to a new, empty database: a schema of its own, which is made sooner.
    pub(crate) fn new_database(&self) -> PostgresAccess {
        let schema = format!("test_{}", self.made.fetch_add(1, Ordering::Relaxed));
        let mut client =
            postgres::Client::connect(&self.url, postgres::NoTls).expect("the server is there");
        client.batch_execute(&format!("CREATE SCHEMA {schema}")).expect("a new name");
        let url = format!("{}&options=-c%20search_path%3D{schema}", self.url);
        PostgresAccess { url, authority: None }
    }
}

#[cfg(feature = "postgres")]
impl Drop for PostgresServer {
    fn drop(&mut self) {
        // The script ends, and stops the server, when its input ends.
        drop(self.process.stdin.take());
        drop(self.process.wait());
    }
}
