//! Ten million small items in ten thousand caches, and then churn: memory stays, and no request
//! waits.
//!
//! Half of the time the same thread touches plain memory instead, all along, a few milliseconds of
//! one and a few of the other: what the machine does to anyone falls on both alike, and what is more
//! than that is the store's. And because a machine proves little with its few longest of some hundred
//! million requests, the steps are counted that the store had to do for each: they are bounded, and
//! what a step takes is known.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use store::operation::{DeleteArgs, Expiry, GetArgs, Seconds, StoreArgs};
use store::store::{Cache, CacheLimits, Settings, Store};
use store::work::Work;
use tenancy::id::CacheId;
use testbed::verdict::{chance_of, least_beyond_chance};
use testbed::workload::chance::Random;

use crate::keys::key;
use crate::pauses::{Counted, Did, Pauses, Plain, longest};
use crate::report::{Report, resident_bytes};

const CACHES: u64 = 10_000;
const ITEMS: u64 = 1_000;
/// Key and value are 16 and up to 100 bytes, so a cache holds about a thousand and is full.
const LIMITS: CacheLimits = CacheLimits { memory_bytes: 66_000, item_bytes_max: 1 << 20 };
/// Requests between two looks at the end of the time, and between two times of maintenance.
const TURN: u64 = 1_024;
/// Requests before the time begins: as many as there are items, so that living and dead bytes come near
/// their balance.
const WARMED_UP: u64 = CACHES * ITEMS;
/// Turns between two caches that go and come.
const RECREATED: u64 = 16;
/// No request may take longer.
const PAUSE_MAX: Duration = Duration::from_millis(1);
/// Blocks that no request may have to empty more of: one takes some 15 µs, 40 at the 99th percentile.
const EMPTIED_MAX: u64 = 16;
/// Of runs in which the store pauses for nothing, so many are found guilty by chance.
const RARE: f64 = 0.01;
/// Time between two calls of [`Store::prepare`], as the served product has it.
const PREPARED: Duration = Duration::from_millis(5);

/// What the caches have of one another.
struct Scene {
    name: &'static str,
    settings: Settings,
    lending_percent: u64,
    /// Items that each cache is given at first.
    filled: u64,
    /// Keys of each cache that are asked for.
    keys: u64,
    /// Caches asked at a time; which ones changes all along.
    busy: u64,
}

/// Each cache has its own, and memory is free.
const OWN: Scene = Scene {
    name: "churn of 10,000 caches",
    settings: Settings { memory_bytes: 2 << 30, seed: 4 },
    lending_percent: 100,
    filled: ITEMS,
    keys: 2 * ITEMS,
    busy: CACHES,
};

/// All memory is promised or lent. A cache that is asked again claims what is its own from those that
/// have borrowed it.
const LENT: Scene = Scene {
    name: "churn of 10,000 caches on lent memory",
    settings: Settings { memory_bytes: 1_200 << 20, seed: 4 },
    lending_percent: 400,
    filled: ITEMS * 3 / 2,
    keys: 8 * ITEMS,
    busy: 500,
};

/// How long a cache of [`Scene::busy`] stays so.
const BUSY_FOR: Duration = Duration::from_secs(5);

/// Time of churn: `CHURN_SECONDS`, or 20.
fn churn_time() -> Duration {
    let seconds = std::env::var("CHURN_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(20))
}

pub(crate) fn own(report: &mut Report) {
    run(report, &OWN);
}

pub(crate) fn lent(report: &mut Report) {
    run(report, &LENT);
}

fn run(report: &mut Report, scene: &Scene) {
    let store = Store::new(scene.settings).lending(scene.lending_percent);
    let helper = Helper::default();
    std::thread::scope(|scope| {
        scope.spawn(|| helper.run(&store));
        Churn::new(scene, &store, &helper).run(report);
        helper.done.store(true, Relaxed);
    });
}

/// The thread that has memory ready, as the served product has one, and what it is doing.
#[derive(Default)]
struct Helper {
    done: AtomicBool,
    is_busy: AtomicBool,
    /// Pieces of memory it has made ready.
    ready: AtomicU64,
}

impl Helper {
    fn run(&self, store: &Store) {
        while !self.done.load(Relaxed) {
            self.is_busy.store(true, Relaxed);
            while store.prepare() {
                self.ready.fetch_add(1, Relaxed);
            }
            self.is_busy.store(false, Relaxed);
            std::thread::sleep(PREPARED);
        }
    }
}

/// The caches and who asks them.
struct Churn<'a> {
    scene: &'a Scene,
    store: &'a Store,
    helper: &'a Helper,
    caches: Vec<Arc<Cache>>,
    random: Random,
    /// Of the store's time.
    begin: Instant,
    now: Seconds,
    /// The first of the caches that are busy.
    busy: u64,
    requests: u64,
    /// The most that any one request had to do, of each kind of work.
    most: Work,
}

/// One request.
struct Request {
    kind: &'static str,
    cache: CacheId,
    work: Work,
    /// Requests since the last maintenance, and since a cache went and another came.
    after: [u64; 2],
    helper: (bool, u64),
}

impl Did for Request {
    fn is_hard(&self) -> bool {
        self.work != Work::default()
    }

    fn told(&self) -> String {
        let Request { kind, cache, work, after: [maintained, recreated], helper: (busy, ready) } =
            self;
        format!(
            "{kind} of cache {cache}, {work:?}, the {maintained}th after maintenance, the {recreated}th after a cache came, helper {} with {ready} pieces made ready",
            if *busy { "busy" } else { "asleep" },
        )
    }
}

impl<'a> Churn<'a> {
    fn new(scene: &'a Scene, store: &'a Store, helper: &'a Helper) -> Self {
        let caches = (0..CACHES)
            .map(|id| store.create_cache(CacheId::new(id), LIMITS).expect("all are promised"))
            .collect();
        Churn {
            scene,
            store,
            helper,
            caches,
            random: Random(3),
            begin: Instant::now(),
            now: Seconds(1),
            busy: 0,
            requests: 0,
            most: Work::default(),
        }
    }

    fn run(mut self, report: &mut Report) {
        for number in 0..self.scene.filled {
            for cache in &self.caches {
                set(cache, number, &mut self.random, Expiry::Never, self.now);
            }
        }
        let items: u64 = self.caches.iter().map(|cache| cache.stats().items).sum();
        let used = self.store.stats().used_bytes;
        let mut plain = Plain::new(used);
        let resident = || resident_bytes() - used;
        // Taken at half-time, when all is in balance.
        let mut resident_then = 0;

        while self.requests < WARMED_UP {
            self.pass_time();
            (0..TURN).for_each(|_| _ = self.operate());
            self.maintain();
        }
        self.requests = 0;

        let time = churn_time();
        let counted = Counted::now();
        let begin = Instant::now();
        let mut served = Pauses::new("a request", begin);
        let mut touched = Pauses::new("plain memory", begin);
        let mut maintained = Pauses::new("maintenance", begin);
        let mut recreated = Pauses::new("a cache that goes and one that comes", begin);
        while begin.elapsed() < time {
            if touched.spent < served.spent {
                touched.time(TURN, || plain.touch());
                continue;
            }
            self.pass_time();
            served.time(TURN, || self.operate());
            maintained.time(1, || self.maintain());
            if self.requests.is_multiple_of(RECREATED * TURN) {
                recreated.time(1, || self.recreate());
            }
            if resident_then == 0 && begin.elapsed() > time / 2 {
                resident_then = resident();
            }
        }
        let after = Counted::now();
        let growth = resident() as f64 / resident_then as f64;
        for pauses in [&mut served, &mut touched, &mut maintained, &mut recreated] {
            pauses.print();
        }
        println!(
            "({items} items in {} MB of blocks; resident {} MB at half-time; after {} s and {} M operations: {} MB, resident x {growth:.3})",
            used >> 20,
            resident_then >> 20,
            time.as_secs(),
            self.requests / 1_000_000,
            self.store.stats().used_bytes >> 20,
        );
        println!("(the measuring thread, {})", after.since(counted));
        self.report(report, &served, &touched);
        report.figure(
            &format!("memory at the end of {} against half-time", self.scene.name),
            format!("x {growth:.3}"),
            "-",
            "<= 1.02",
            growth <= 1.02,
        );
    }

    fn report(&self, report: &mut Report, served: &Pauses, touched: &Pauses) {
        let share = served.spent.as_secs_f64() / (served.spent + touched.spent).as_secs_f64();
        let (slow, others) = (served.above(PAUSE_MAX), touched.above(PAUSE_MAX));
        let chance = chance_of(slow, others, share);
        let guilty = least_beyond_chance(others, share, RARE);
        report.figure(
            &format!("requests of more than {PAUSE_MAX:?} of CPU under {}", self.scene.name),
            format!("{slow} of {}: {}", self.requests, served.told(PAUSE_MAX)),
            &format!("plain memory as long: {others}: {}", touched.told(PAUSE_MAX)),
            &format!("none, but for as many as plain memory has: < {guilty}; chance of so many {chance:.3}, >= {RARE}"),
            chance >= RARE,
        );
        let Work { blocks, items, moved_bytes, slots, shards } = self.most;
        report.figure(
            &format!("most that one request had to do under {}", self.scene.name),
            format!("{blocks} blocks emptied with {items} items, {moved_bytes} bytes moved, {slots} slots of a growing index, {shards} shards asked to give; {} requests had work beside, the longest {:?}", served.hard.len(), longest(&served.hard)),
            "-",
            &format!("<= {EMPTIED_MAX} blocks"),
            blocks <= EMPTIED_MAX,
        );
    }

    /// Tells the store the time, and lets other caches be busy.
    fn pass_time(&mut self) {
        let elapsed = self.begin.elapsed();
        self.now = Seconds(2 + elapsed.as_secs() as u32);
        let passed = elapsed.as_secs_f64() / BUSY_FOR.as_secs_f64();
        self.busy = (passed * self.scene.busy as f64) as u64 % CACHES;
    }

    fn operate(&mut self) -> Request {
        let before = Work::of_this_thread();
        let cache = (self.busy + self.random.below(self.scene.busy)) % CACHES;
        let cache = &self.caches[cache as usize];
        let number = self.random.below(self.scene.keys);
        let kind = match self.random.below(10) {
            0..6 => {
                let key = key(number);
                let at = cache.locate(&key);
                std::hint::black_box(
                    cache.get(&at, GetArgs::default(), self.now, |hit| hit.is_some()),
                );
                "get"
            }
            6..9 => {
                let life = Seconds(self.now.0 + self.random.below(60) as u32);
                let never = self.random.below(2) == 0;
                let expiry = if never { Expiry::Never } else { Expiry::At(life) };
                set(cache, number, &mut self.random, expiry, self.now);
                "set"
            }
            _ => {
                let key = key(number);
                cache.delete(&cache.locate(&key), DeleteArgs::default(), self.now);
                "delete"
            }
        };
        let work = Work::of_this_thread() - before;
        self.most = self.most.max(work);
        self.requests += 1;
        Request {
            kind,
            cache: cache.id(),
            work,
            after: [self.requests % TURN, self.requests % (RECREATED * TURN)],
            helper: (self.helper.is_busy.load(Relaxed), self.helper.ready.load(Relaxed)),
        }
    }

    /// As event loops do, between requests.
    fn maintain(&self) -> Other {
        self.store.maintain(self.now, 64);
        Other
    }

    /// A cache goes and another comes.
    fn recreate(&mut self) -> Other {
        let number = self.random.below(CACHES) as usize;
        let id = self.caches[number].id();
        self.store.remove_cache(id);
        self.caches[number] = self.store.create_cache(id, LIMITS).expect("its memory came back");
        Other
    }
}

fn set(cache: &Cache, number: u64, random: &mut Random, expiry: Expiry, now: Seconds) {
    let value = [1_u8; 100];
    let value = &value[..random.below(100) as usize];
    let key = key(number);
    cache.store(&cache.locate(&key), StoreArgs::set(value, 0, expiry), now);
}

/// What is done between requests.
struct Other;

impl Did for Other {
    fn is_hard(&self) -> bool {
        false
    }

    fn told(&self) -> String {
        String::new()
    }
}
