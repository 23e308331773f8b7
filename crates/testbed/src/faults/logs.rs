//! What a million errors write (R12, F4): each place in the code ten lines a second, whatever happens.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::report::{Amount, Bar, Report};
use super::{Experiment, Length, NotHere};
use crate::connection::Connection;
use crate::fleet::Cluster;

/// In one pipeline: enough to keep a proxy busy, and their answers fit in socket buffers.
const PIPELINED: usize = 500;
/// A process keeps twenty thousand lines of its log; more than ten a second of a dozen places.
const LINES_PER_SECOND_MAX: f64 = 10.0;

pub(super) const STORM: Experiment = Experiment {
    name: "error-storm",
    goals: "R12, F4",
    what: "a million requests that fail, because the node that owns their keys stands",
    is_quick: true,
    run: storm,
};

fn storm(report: &mut Report, length: Length) -> Result<(), NotHere> {
    let (most, time) =
        length.pick((50_000, Duration::from_secs(2)), (1_000_000, Duration::from_secs(60)));
    let cluster = Cluster::start_with(2, 1, &[("hold_down_seconds", "3600")]);
    let login = cluster.create_cache("shop", "dev");
    let mut client = cluster.connect(0, &login);
    cluster.nodes[1].process.signal(Signal::STOP);
    let proxy = &cluster.nodes[0].process;
    let lines_before = proxy.log().lines().count();
    let cpu_before = proxy.cpu_time();
    let began = Instant::now();
    let (mut asked, mut failed) = (0_u64, 0_u64);
    while failed < most && began.elapsed() < time {
        failed += errors(&mut client, asked);
        asked += PIPELINED as u64;
    }
    let took = began.elapsed();
    let cpu = proxy.cpu_time() - cpu_before;
    let log = proxy.log();
    let written: Vec<&str> = log.lines().skip(lines_before).collect();
    let bytes: usize = written.iter().map(|line| line.len() + 1).sum();
    cluster.nodes[1].process.signal(Signal::CONT);

    // At most ten a second and place, and one more line that says how many were left out.
    let places = places(&written);
    let loudest = places.iter().map(|(_, lines)| *lines).max().unwrap_or(0);
    let per_second = loudest as f64 / took.as_secs_f64().max(1.0);
    report.law("some requests failed", failed, failed > 0);
    report.figure("requests that failed", Amount::count(failed), Bar::None);
    report.figure("in", Amount::s(took), Bar::None);
    report.figure("lines of the loudest place, per second", Amount(per_second, ""), {
        Bar::AtMost(LINES_PER_SECOND_MAX)
    });
    report.figure(
        "log, per minute",
        Amount(bytes as f64 / took.as_secs_f64() * 60.0 / 1e6, "MB"),
        Bar::AtMost(1.0),
    );
    // What logging alone costs cannot be told apart from outside.
    let busy = cpu.as_secs_f64() / took.as_secs_f64();
    report.figure("CPU of the proxy meanwhile, all of it", Amount::percent(busy), Bar::None);
    Ok(())
}

/// Reads keys of which half are the standing node's; returns how many failed.
fn errors(client: &mut Connection, from: u64) -> u64 {
    let keys = from..from + PIPELINED as u64;
    let commands: String =
        keys.map(|number| format!("get missing-{}\r\n", number % 10_000)).collect();
    client.send(commands.as_bytes());
    let failed = (0..PIPELINED).filter(|_| client.line().starts_with("SERVER_ERROR"));
    failed.count() as u64
}

/// How many lines each message has: what a line says before its first field, without its time.
fn places(lines: &[&str]) -> Vec<(String, usize)> {
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for line in lines {
        let words = line.split_whitespace().skip(1);
        let message: Vec<&str> = words.take_while(|word| !word.contains('=')).collect();
        *counts.entry(message.join(" ")).or_default() += 1;
    }
    counts.into_iter().collect()
}
