//! Instructions that a server spends per request outside of the kernel, counted by valgrind: the same
//! on a busy machine as on a quiet one.

use super::contest;
use bench::{Moment, run_observed};
use clap::Parser;
use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use testbed::larder::Larder;
use testbed::memcached::Memcached;
use testbed::process::Process;

/// Few items and one connection: every run asks the same.
const ITEMS: u32 = 1_000;

/// So many requests, as `larder bench` is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) words: &'a str,
    pub(crate) requests: u64,
}

/// Of each load, one after the other.
pub(crate) fn of_larder(program: &Path, loads: &[Load<'_>]) -> Result<Vec<f64>, Box<dyn Error>> {
    let dir = TempDir::new()?;
    let larder = Larder::options()
        .program(program)
        .argument("--threads")
        .argument("1")
        .under(&valgrind(dir.path()))
        .start();
    let login =
        format!("--username {} --password {}", larder.login.username, larder.login.password);
    let count = |(number, load)| {
        count(&larder.process, larder.addr, &login, load, &dump(dir.path(), number))
    };
    loads.iter().enumerate().map(count).collect()
}

pub(super) fn of_memcached(load: &Load<'_>) -> Result<f64, Box<dyn Error>> {
    let dir = TempDir::new()?;
    let memcached = Memcached::start_under(&valgrind(dir.path()));
    count(&memcached.process, memcached.addr, "--auth none", load, &dump(dir.path(), 0))
}

/// The words before the program. Valgrind keeps some descriptors for itself, and memcached demands
/// exactly what is left.
fn valgrind(dir: &Path) -> Vec<String> {
    let limit = DESCRIPTORS;
    let out = dir.join(OUT).display().to_string();
    vec![
        "prlimit".to_owned(),
        format!("--nofile={limit}:{limit}"),
        "valgrind".to_owned(),
        "--tool=callgrind".to_owned(),
        format!("--callgrind-out-file={out}"),
    ]
}

const DESCRIPTORS: u32 = 1_024;
const OUT: &str = "counts";

/// Where the counts of the `number`-th load are, from 0.
fn dump(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("{OUT}.{}", number + 1))
}

fn count(
    process: &Process,
    addr: SocketAddr,
    login: &str,
    load: &Load<'_>,
    dump: &Path,
) -> Result<f64, Box<dyn Error>> {
    let Load { words, requests } = load;
    let words = format!("load --servers {addr} {login} {words} --keys {ITEMS} -n {requests}");
    let load = contest::Load::try_parse_from(words.split_whitespace())?;
    let id = process.id().to_string();
    let mut told = Ok(());
    let report = run_observed(&load.bench, &mut |moment| {
        let order = match moment {
            Moment::Connected => return,
            Moment::Measuring => "--zero",
            Moment::Measured => "--dump",
        };
        let status = Command::new("callgrind_control").args([order, &id]).output();
        if !status.is_ok_and(|output| output.status.success()) {
            told = Err("callgrind_control did not reach the server");
        }
    })?;
    told?;
    if !report.is_clean() || report.misses > 0 {
        return Err(format!("the load was not served under valgrind:\n{report}").into());
    }
    let text = fs::read_to_string(dump)?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals:")?.trim().parse().ok());
    let total: u64 = total.ok_or("valgrind wrote no totals")?;
    Ok(total as f64 / report.requests as f64)
}
