//! What goes wrong between the processes of a cluster, and what clients notice of it: one named
//! experiment after the other, each with laws and figures.
//!
//! ```text
//!   experiment ── real processes, a real fault ──▶ oracles and clocks ──▶ laws, figures ──▶ report
//! ```
//!
//! A *law* holds however busy the machine is, and breaking one fails the run. A *figure* is of a time, a
//! rate or an amount beside the bar that the project has set for it; one that a busy machine missed says
//! little, so `--quick`, which CI runs beside everything else, only prints it.
//!
//! Some experiments are also tests of `tests/`, where they are called with the shortest time that shows
//! what they are about, and where only laws count.
//!
//! * [`views`]: nodes that do not see what the others see. [`loss`]: nodes that end. [`rolling`]: all of
//!   them, one after another; [`clocks`]: clocks that jump.
//! * [`slow`]: nodes that stop or crawl. [`bad_network`]: packets that come late, or not.
//! * [`crowd`]: very many connections. [`overload`]: more requests than there is time for, by clients who
//!   are `impatient`.
//! * [`link_tls`]: what TLS between nodes costs.
//! * [`control`]: without control, and how fast it tells. [`logs`]: what a million errors write.
//! * [`abuse`]: clients that misbehave beside one that does not. [`quota`]: how full a cache gets;
//!   [`memory`]: how full a process.
//! * [`matrix`]: one fault after the other on one cluster under load.
//! * `ground`: clusters at the places of a network. [`steady`]: a client that asks at a fixed rate and knows what it may hear. [`report`]: what came out.

pub mod abuse;
pub mod bad_network;
pub mod clocks;
pub mod control;
pub mod crowd;
mod ground;
mod impatient;
pub mod link_tls;
pub mod logs;
pub mod loss;
pub mod matrix;
pub mod memory;
pub mod overload;
pub mod quota;
pub mod report;
pub mod rolling;
pub mod slow;
pub mod steady;
pub mod views;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use bench::{BenchArgs, BenchError, Moment, run_observed};
use clap::Parser;

use crate::connection::{Connection, Login};
use crate::keys;
use crate::memcached::Memcached;
use report::{Report, Verdict};

/// One fault, or one family of them, and what is measured meanwhile.
pub struct Experiment {
    /// What it is called on the command line.
    pub name: &'static str,
    /// The goals it is about, by their numbers in the design.
    pub goals: &'static str,
    pub what: &'static str,
    /// Part of `--quick`, where it takes a few seconds.
    pub is_quick: bool,
    run: fn(&mut Report, Length) -> Result<(), NotHere>,
}

/// Every experiment, in the order in which they run.
pub const ALL: &[Experiment] = &[
    views::HELD_BACK,
    views::PUBLIC_ADDRESS,
    views::WRONG_ADDRESS,
    views::BLOCKED_LINK,
    views::BROKEN_LINK,
    loss::KILLED_NODE,
    loss::FAILOVER,
    loss::KILLED_PROXY,
    slow::STOPPED,
    slow::CRAWLING,
    rolling::RESTART,
    rolling::UPGRADE,
    clocks::CLOCKS,
    bad_network::BAD_NETWORK,
    control::AWAY,
    control::CHANGES,
    logs::STORM,
    overload::OVERLOAD,
    link_tls::LINK_TLS,
    quota::FIRST_EVICTION,
    memory::LIMIT,
    crowd::IDLE,
    crowd::STORM,
    abuse::ABUSE,
    matrix::NODES_ROW,
    matrix::CONTROL_ROW,
    matrix::LINKS_ROW,
    matrix::CLIENTS_ROW,
];

/// How much time an experiment takes for each of its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// As short as it still shows something: CI.
    Quick,
    /// As long as figures need.
    Full,
}

impl Length {
    pub fn pick<T>(self, quick: T, full: T) -> T {
        match self {
            Length::Quick => quick,
            Length::Full => full,
        }
    }
}

/// Why this machine cannot do an experiment: a permission, a kernel's part, a program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotHere(pub String);

impl Experiment {
    /// Runs it, and says everything about it in `report`. A panic of what it calls, such as of an oracle
    /// that saw a wrong value, is a law broken.
    pub fn run(&self, report: &mut Report, length: Length) {
        let load = load_average();
        let began = Instant::now();
        report.begin(self.name, load);
        let done = catch_unwind(AssertUnwindSafe(|| (self.run)(report, length)));
        let verdict = match done {
            Ok(Ok(())) => Verdict::Done,
            Ok(Err(NotHere(why))) => Verdict::Skipped(why),
            Err(panic) => Verdict::Broke(words_of(&*panic)),
        };
        report.end(verdict, began.elapsed());
    }
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    let words = owned.or_else(|| panic.downcast_ref::<&str>().copied());
    words.unwrap_or("it panicked without words").to_owned()
}

/// Programs that wanted to run in the minute before.
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// The words of `larder bench`.
#[derive(Parser)]
struct Load {
    #[command(flatten)]
    bench: BenchArgs,
}

/// A memcached with a password, which holds the keys of [`keys::set`] below `count`, and how to log in to it:
/// what the same machine and the same clients make of another server.
fn memcached_with(count: u64) -> Result<(Memcached, Login), NotHere> {
    if !Memcached::is_here() {
        return Err(NotHere("there is no memcached to compare with".to_owned()));
    }
    let login = Login { username: "shop".to_owned(), password: "secret".to_owned() };
    let memcached = Memcached::start_for_crowds(&login);
    let login = login.of_any_key();
    keys::set(&mut Connection::open_as(memcached.addr, &login), 0..count);
    Ok((memcached, login))
}

/// Runs the load generator in this process, with the words of its command line.
fn load(
    servers: &[std::net::SocketAddr],
    login: &Login,
    words: &str,
    observe: &mut dyn FnMut(Moment),
) -> Result<bench::Report, BenchError> {
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    let Login { username, password } = login;
    let who = ["--username", username, "--password", password, "--servers"];
    let servers = servers.join(",");
    let all = ["load"].into_iter().chain(who).chain([servers.as_str()]);
    let load = Load::try_parse_from(all.chain(words.split_whitespace()));
    run_observed(&load.expect("the words of an experiment are right").bench, observe)
}

/// As the command line of the load generator takes it.
fn seconds(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}
