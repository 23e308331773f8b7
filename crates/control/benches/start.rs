//! How long a start takes with a full database: 100,000 caches and 1,000,000 credentials.
//!
//! `cargo bench -p control`. Fills a database by plain SQL (with passwords that open nothing, which a
//! start does not look at), then opens it and reports time and memory, and the time of a snapshot for
//! nodes.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use control::control::Control;
use control::data_plane::{DataPlane, DataPlaneError};
use control::environment::Environment;
use control::feed::Feed;
use control::model::{ClusterId, UnixSeconds};
use rusqlite::Connection;
use tenancy::id::CacheId;
use tenancy::plan::Limits;
use wire::control::usage::Figures;

const CACHES: u64 = 100_000;
const CREDENTIALS_PER_CACHE: u64 = 10;

/// Takes every cache and does nothing, so that only the control plane is measured.
struct NoDataPlane;

impl DataPlane for NoDataPlane {
    fn put_cache(&self, _: CacheId, _: Limits) -> Result<(), DataPlaneError> {
        Ok(())
    }

    fn remove_cache(&self, _: CacheId) {}

    fn flush_cache(&self, _: CacheId) -> Result<(), DataPlaneError> {
        Ok(())
    }

    fn statistics(&self, _: CacheId) -> Result<Figures, DataPlaneError> {
        Ok(Figures::default())
    }

    fn reset_statistics(&self, _: CacheId) -> Result<(), DataPlaneError> {
        Ok(())
    }
}

fn open(dir: &Path) -> Control {
    let random = |bytes: &mut [u8]| -> io::Result<()> {
        bytes.fill(1);
        Ok(())
    };
    let environment = Environment::new(|| UnixSeconds(0), random);
    Control::open(dir, environment, Arc::new(NoDataPlane)).expect("a good directory")
}

fn fill(dir: &Path) {
    let mut connection = Connection::open(dir.join("control.sqlite")).expect("it was made");
    let transaction = connection.transaction().expect("nobody else uses it");
    for cache in 1..=CACHES {
        transaction
            .prepare_cached(
                "INSERT INTO caches VALUES (?1, 1, 'cache-' || ?1, 'dev', 1, ?2, 0, 0, 0)",
            )
            .and_then(|mut insert| insert.execute((cache, format!("USER{cache}N0"))))
            .expect("a good row");
        for number in 0..CREDENTIALS_PER_CACHE {
            transaction
                .prepare_cached(
                    "INSERT INTO credentials (username, cache_id, capabilities, password_hash, sealed_password, created_at) VALUES (?1, ?2, 7, randomblob(32), randomblob(60), 0)",
                )
                .and_then(|mut insert| insert.execute((format!("USER{cache}N{number}"), cache)))
                .expect("a good row");
        }
    }
    transaction.commit().expect("every cache has its primary credential");
}

fn resident_megabytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux has procfs");
    let pages: u64 = pages.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a page count");
    (pages * 4_096) >> 20
}

#[expect(clippy::print_stdout, reason = "a benchmark reports on standard output")]
fn main() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    drop(open(dir.path()));
    fill(dir.path());
    let before = resident_megabytes();
    let begun = Instant::now();
    let control = open(dir.path());
    let (took, taken) = (begun.elapsed(), resident_megabytes() - before);
    let last = control.directory().cache(CacheId::new(CACHES));
    assert!(last.is_some(), "not everything was loaded");
    let credentials = CACHES * CREDENTIALS_PER_CACHE;
    println!("start with {CACHES} caches, {credentials} credentials: {took:?}, {taken} MB");
    let feed = Feed::new(Arc::new(control), ClusterId::DEFAULT);
    let begun = Instant::now();
    let (_, records) = feed.snapshot().expect("readable");
    println!("snapshot of {} records: {:?}", records.len(), begun.elapsed());
}
