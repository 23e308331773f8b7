//! `cargo xtask instructions`: what the hot paths cost in instructions, which no busy neighbour changes.
//!
//! ```text
//!   benches of protocol and store, built for release      valgrind counts n times and 2 n times
//!   the larder that the tests use                         valgrind counts the requests of a load
//!                        │
//!                        ▼
//!   instructions.json: counts by machine ── more than 3 % above, on a machine that is there: failed
//! ```
//!
//! The same program executes the same instructions, but not everywhere the same program: the compiler
//! decides, and memchr and the C library choose code by the processor. So counts are kept under all of
//! these, and where there are none for this machine nothing can fail.

use crate::bench_peers::instructions::{Load, of_larder};
use crate::root;
use crate::step::{Outcome, Step, command};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Growth that counts as noise: the code around a path, not the path.
const GROWTH_PERCENT_MAX: f64 = 3.0;

/// For whole requests: how many of them a turn of the loop finds depends on the machine's mood.
const WHOLE_GROWTH_PERCENT_MAX: f64 = 10.0;

const BASELINE: &str = "xtask/instructions.json";

/// What is counted in the benches: package, bench, path, how often.
const PATHS: &[(&str, &str, &str, u64)] = &[
    ("protocol", "codec", "text_get", 5_000),
    ("protocol", "codec", "text_set", 5_000),
    ("protocol", "codec", "text_get_many", 1_000),
    ("protocol", "codec", "meta_get", 5_000),
    ("protocol", "codec", "binary_get", 5_000),
    ("store", "operations", "get", 5_000),
    ("store", "operations", "get_batch", 200),
    ("store", "operations", "get_miss", 5_000),
    ("store", "operations", "set", 5_000),
    ("store", "operations", "incr", 5_000),
    ("store", "operations", "get_watched", 5_000),
    ("store", "operations", "set_watched", 5_000),
    // A request and its reply, sealed in both ways.
    ("wire", "frames", "get", 1_000),
    // From a session to a link's bytes and back, with the other node's frames.
    ("proxy", "links", "route", 5_000),
    ("proxy", "links", "get", 2_000),
    ("proxy", "links", "get_batch", 200),
];

/// Packages whose benches need a feature, and it.
const FEATURES: &[(&str, &str)] = &[("proxy", "simulation")];

/// What it may cost that a busy cache is watched, as a part of what its requests take outside of the kernel.
const WATCHED_PERCENT_MAX: f64 = 3.0;

/// In the bench one request in 8 is counted, as in a quiet cache; where a processor is busy with it, one in
/// 64 (`crates/store/src/watch.rs`).
const COUNTED_OF_BUSY: f64 = 8.0 / 64.0;

/// Watched, the same unwatched, and the whole request.
const WATCHED: &[(&str, &str, &str)] = &[
    ("store get_watched", "store get", "larder get, 16 in flight"),
    ("store set_watched", "store set", "larder set, 16 in flight"),
];

/// Whole requests, from socket to socket, in a `larder` built for tests.
const LOADS: &[(&str, Load<'_>)] = &[
    ("larder get, 1 in flight", Load { words: "--mix get -c 1 -i 1", requests: 2_000 }),
    ("larder get, 16 in flight", Load { words: "--mix get -c 1 -i 16", requests: 8_000 }),
    ("larder set, 16 in flight", Load { words: "--mix set -c 1 -i 16", requests: 8_000 }),
];

/// Instructions by path.
type Counts = BTreeMap<String, f64>;

/// Counts by what decides them.
#[derive(Default, Serialize, Deserialize)]
struct Baseline(BTreeMap<String, Counts>);

/// Counts, and compares with what was kept; or keeps the counts instead. `larder` is the program that
/// whole requests are put to.
pub(crate) fn check(
    larder: impl FnOnce() -> Result<PathBuf, String> + 'static,
    keep: bool,
) -> Step {
    Step::new("instructions of the hot paths", move || match run(larder, keep) {
        Ok(outcome) => outcome,
        Err(problem) => Outcome::Failed(problem),
    })
}

#[expect(clippy::print_stdout, reason = "the counts are what a developer wants to see")]
fn run(larder: impl FnOnce() -> Result<PathBuf, String>, keep: bool) -> Result<Outcome, String> {
    let Some(machine) = machine() else {
        return Ok(Outcome::Skipped("valgrind is not installed (Debian's package)".to_owned()));
    };
    let counts = counts(&larder()?)?;
    for (watched, plain, whole) in WATCHED {
        let counting = (counts[*watched] - counts[*plain]) * COUNTED_OF_BUSY;
        let percent = growth_percent(counts[*whole], counts[*whole] + counting);
        println!("    {percent:+8.1} %  for watching a cache ({plain})");
        if WATCHED_PERCENT_MAX < percent {
            let most = WATCHED_PERCENT_MAX;
            return Err(format!("{watched}: {percent:+.1} % of a request (at most {most} %)"));
        }
    }
    let path = root().join(BASELINE);
    let mut baseline = read(&path)?;
    let Some(before) = baseline.0.get(&machine).filter(|_| !keep) else {
        counts.iter().for_each(|(name, count)| println!("    {count:9.1}  {name}"));
        if !keep {
            return Ok(Outcome::Skipped(format!(
                "{BASELINE} has no counts for \"{machine}\"; `cargo xtask instructions --keep` adds them"
            )));
        }
        baseline.0.insert(machine, counts);
        let text = serde_json::to_string_pretty(&baseline).map_err(|error| error.to_string())?;
        fs::write(&path, text + "\n").map_err(|error| format!("{BASELINE}: {error}"))?;
        return Ok(Outcome::Done);
    };
    let mut grown = Vec::new();
    for (name, &now) in &counts {
        let Some(&then) = before.get(name) else {
            println!("    {now:9.1}  {name} (new)");
            continue;
        };
        let percent = growth_percent(then, now);
        println!("    {now:9.1}  {name} ({percent:+.1} %)");
        let whole = LOADS.iter().any(|(load, _)| load == name);
        let percent_max = if whole { WHOLE_GROWTH_PERCENT_MAX } else { GROWTH_PERCENT_MAX };
        if percent_max < percent {
            grown.push(format!(
                "    {name}: {then:.1} → {now:.1}, {percent:+.1} % (at most {percent_max} %)"
            ));
        }
    }
    if grown.is_empty() {
        return Ok(Outcome::Done);
    }
    Ok(Outcome::Failed(format!(
        "{} paths take more instructions than {BASELINE} allows; where that is worth it, \
         `cargo xtask instructions --keep` and say why in the commit\n{}",
        grown.len(),
        grown.join("\n")
    )))
}

fn growth_percent(then: f64, now: f64) -> f64 {
    (now / then - 1.0) * 100.0
}

fn read(path: &Path) -> Result<Baseline, String> {
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| format!("{BASELINE}: {error}")),
        Err(_) => Ok(Baseline::default()),
    }
}

/// What decides how many instructions a path takes; nothing where nobody can count them.
fn machine() -> Option<String> {
    let valgrind = first_line("valgrind", &["--version"])?;
    let compiler = first_line("rustc", &["--version"])?;
    let library = first_line("ldd", &["--version"])?;
    let library = library.rsplit(' ').next().unwrap_or("unknown").to_owned();
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = processor.lines().find(|line| line.starts_with(name))?;
        line.split_once(": ").map(|(_, value)| value.trim())
    };
    // valgrind hides what is newer.
    let flags = field("flags").unwrap_or_default();
    let vectors = ["avx2", "avx", "sse4_2"];
    let vectors = vectors.into_iter().find(|known| flags.split(' ').any(|flag| flag == *known));
    let words = [
        std::env::consts::ARCH,
        field("vendor_id").unwrap_or("unknown"),
        vectors.unwrap_or("plain"),
        &compiler,
        "libc",
        &library,
        &valgrind,
    ];
    Some(words.join(" "))
}

fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    String::from_utf8(output.stdout).ok()?.lines().next().map(str::to_owned)
}

fn counts(larder: &Path) -> Result<Counts, String> {
    let mut counts = Counts::new();
    let mut built: BTreeMap<&str, PathBuf> = BTreeMap::new();
    for &(package, bench, path, times) in PATHS {
        if !built.contains_key(bench) {
            built.insert(bench, build(package, bench)?);
        }
        let program = &built[bench];
        // What starting costs is in both, and goes.
        let (once, twice) = (count(program, path, times)?, count(program, path, 2 * times)?);
        let each = twice.saturating_sub(once) as f64 / times as f64;
        counts.insert(format!("{package} {path}"), round(each));
    }
    let loads: Vec<Load<'_>> = LOADS.iter().map(|(_, load)| *load).collect();
    let of_loads = of_larder(larder, &loads).map_err(|error| format!("larder: {error}"))?;
    for ((name, _), each) in LOADS.iter().zip(of_loads) {
        counts.insert((*name).to_owned(), round(each));
    }
    Ok(counts)
}

fn round(count: f64) -> f64 {
    (count * 10.0).round() / 10.0
}

/// Builds a bench and returns its program.
fn build(package: &str, bench: &str) -> Result<PathBuf, String> {
    let words = [
        "bench",
        "--locked",
        "--quiet",
        "--no-run",
        "--package",
        package,
        "--bench",
        bench,
        "--message-format",
        "json",
    ];
    let feature = FEATURES.iter().find(|(needs, _)| *needs == package);
    let features: Vec<&str> =
        feature.iter().flat_map(|(_, feature)| ["--features", feature]).collect();
    let output = command("cargo", &[words.as_slice(), &features].concat())
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("{bench} does not build: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str(line).ok());
    let program = messages
        .filter(|message: &serde_json::Value| message["target"]["name"] == bench)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from));
    program.ok_or_else(|| format!("cargo told no program of the bench {bench}"))
}

/// All instructions of the program, when it does one thing so many times.
fn count(program: &Path, path: &str, times: u64) -> Result<u64, String> {
    let dir = TempDir::new().map_err(|error| error.to_string())?;
    let out = dir.path().join("counts");
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .args([program.as_os_str(), times.to_string().as_ref()])
        .stdout(Stdio::null())
        .env("COUNTED", path)
        .env("TIMES", times.to_string())
        .status();
    if !status.is_ok_and(|status| status.success()) {
        return Err(format!("{path} did not run under valgrind"));
    }
    let text = fs::read_to_string(&out).map_err(|error| error.to_string())?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals:")?.trim().parse().ok());
    total.ok_or_else(|| format!("valgrind wrote no count of {path}"))
}
