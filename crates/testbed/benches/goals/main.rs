//! Measures the store against its goals, each with the bar it is held to and its target.
//!
//! `cargo bench -p testbed -- [goal …]` runs all goals or the named ones: see [`GOALS`]. `traces`
//! replays the request traces found in the folder that `TRACES` names; `field` starts the memcached
//! that `LARDER_MEMCACHED` names, or the distribution's. Results stand in
//! `docs/benchmarks-store.md`.
//!
//! Time is CPU time of the measuring thread, so that other work on the machine disturbs less, and
//! the median of several runs.

#![expect(clippy::print_stdout, reason = "a report on the terminal is what this program is for")]

mod churn;
mod cpu;
mod field;
mod hits;
mod keys;
mod memory;
mod mixes;
mod pauses;
mod report;
mod shares;
mod sketches;
mod threads;

use report::Report;

type Goal = fn(&mut Report);

/// Every goal by name.
const GOALS: &[(&str, Goal)] = &[
    // First, because it tells its memory from the process's, which grows only once.
    ("density", memory::density),
    ("memory", memory::run),
    ("field", field::run),
    ("cpu", cpu::run),
    ("flush", memory::flush),
    ("shift", hits::shift),
    ("traces", hits::traces),
    ("guarantee", hits::guarantee),
    ("expiry", hits::expiry),
    ("shares", shares::run),
    ("mixes", mixes::run),
    ("sketches", sketches::run),
    ("threads", threads::run),
    ("churn", churn::own),
    ("lent", churn::lent),
];

fn main() {
    // cargo bench passes flags such as --bench; names are what is left.
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let mut report = Report::default();
    for (name, goal) in GOALS {
        if wanted.is_empty() || wanted.iter().any(|want| want == name) {
            println!("\n{name}");
            goal(&mut report);
        }
    }
    report.print();
}
