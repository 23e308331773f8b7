//! What one authentication costs, and how much memory a full directory takes.
//!
//! `cargo bench -p tenancy`. The memory figure is printed first: 100,000 caches and 1,000,000
//! credentials, as the growth of this process's resident memory.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use tenancy::capability::Capabilities;
use tenancy::directory::Directory;
use tenancy::id::{CacheId, Username};
use tenancy::plan::Plan;
use tenancy::secret::SecretKey;

const CACHES: u64 = 100_000;
const CREDENTIALS: u64 = 1_000_000;

fn username(number: u64) -> Username {
    Username::parse(&format!("USER{number:06}")).expect("letters and digits")
}

fn full_directory() -> Directory {
    let key = SecretKey::new([7; 32]);
    let directory = Directory::new(key.clone());
    for id in 0..CACHES {
        directory.put_cache(CacheId::new(id), Plan::DEVELOPMENT.limits, true);
    }
    for number in 0..CREDENTIALS {
        let name = username(number);
        let hash = key.hash(name.as_bytes(), b"0123456789abcdefghjkmnpqrstvwxyz");
        directory
            .put_credential(CacheId::new(number % CACHES), name, hash, Capabilities::ALL)
            .expect("the cache exists");
    }
    directory
}

fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux has procfs");
    let pages: u64 = pages.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a page count");
    pages * 4_096
}

#[expect(clippy::print_stdout, reason = "a benchmark reports on standard output")]
fn authenticate(criterion: &mut Criterion) {
    let before = resident_bytes();
    let directory = full_directory();
    let taken = resident_bytes() - before;
    println!("memory: {} MB, {} bytes per credential", taken >> 20, taken / CREDENTIALS);

    let mut number = 0u64;
    criterion.bench_function("right password, random user", |bencher| {
        bencher.iter(|| {
            number = (number + 611_953) % CREDENTIALS; // a prime: walks all users in no order
            let name = username(number);
            directory.authenticate(name.as_bytes(), black_box(b"0123456789abcdefghjkmnpqrstvwxyz"))
        });
    });
    let name = username(5);
    criterion.bench_function("right password, one user", |bencher| {
        bencher.iter(|| {
            directory.authenticate(name.as_bytes(), black_box(b"0123456789abcdefghjkmnpqrstvwxyz"))
        });
    });
    criterion.bench_function("wrong password", |bencher| {
        bencher.iter(|| {
            directory.authenticate(name.as_bytes(), black_box(b"1123456789abcdefghjkmnpqrstvwxyz"))
        });
    });
    criterion.bench_function("unknown user", |bencher| {
        bencher.iter(|| {
            directory.authenticate(black_box(b"NOBODY0005"), b"0123456789abcdefghjkmnpqrstvwxyz")
        });
    });
}

criterion_group!(benches, authenticate);
criterion_main!(benches);
