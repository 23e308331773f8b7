//! What it costs a proxy to find a key's owner and to ask it over a link, without sockets.
//!
//! `cargo bench -p proxy --features simulation` prints times. With `COUNTED` (a name from the list) and
//! `TIMES` it does one thing so many times and ends: for counting instructions.

use std::env;
use std::hint::black_box;

use criterion::Criterion;
use proxy::measured::Relay;

type Operation = fn(&mut Relay);

/// What is measured, and how.
const OPERATIONS: &[(&str, Operation)] = &[
    ("route", |relay| {
        black_box(relay.route(black_box(b"user:42:profile")));
    }),
    ("get", |relay| relay.gets(1)),
    ("get_batch", |relay| relay.gets(16)),
];

fn main() {
    let word = |name| env::var(name).ok();
    let mut relay = Relay::new();
    match (word("COUNTED"), word("TIMES").and_then(|times| times.parse::<u32>().ok())) {
        (Some(name), Some(times)) => {
            let found = OPERATIONS.iter().find(|(known, _)| *known == name);
            let (_, operation) = found.expect("a name from the list above");
            (0..times).for_each(|_| operation(&mut relay));
        }
        _ => {
            let mut criterion = Criterion::default().configure_from_args();
            for (name, operation) in OPERATIONS {
                criterion.bench_function(name, |bencher| bencher.iter(|| operation(&mut relay)));
            }
            criterion.final_summary();
        }
    }
}
