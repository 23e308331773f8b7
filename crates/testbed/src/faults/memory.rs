//! A limit on the process's memory, a tenth above what its items may have (F35): who is killed for it
//! loses everything, so it must never be reached.

use std::time::Duration;

use super::report::{Amount, Bar, Report};
use super::{Experiment, Length, NotHere, load, seconds};
use crate::cgroup::Cgroup;
use crate::larder::Larder;

const MIB: u64 = 1 << 20;
/// For items.
const BUDGET_MIB: u64 = 256;

pub(super) const LIMIT: Experiment = Experiment {
    name: "memory-limit",
    goals: "F35",
    what: "a process that may have a tenth more than its items is written full, again and again",
    is_quick: false,
    run: limit,
};

fn limit(report: &mut Report, length: Length) -> Result<(), NotHere> {
    let time = length.pick(Duration::from_secs(2), Duration::from_secs(30));
    let memory = format!("{BUDGET_MIB}MiB");
    let mut larder = Larder::options().argument("--memory").argument(&memory).start();
    // A cache that may have all of it.
    larder.run(&["cache", "change-plan", &larder.cache(), "100"]);
    let at_rest = larder.process.memory_bytes();
    let allowed = at_rest + BUDGET_MIB * MIB * 11 / 10;
    // What it had before is not charged by every kernel, so it is allowed for.
    let group = Cgroup::memory(allowed, &[larder.process.id()])
        .map_err(|error| NotHere(format!("no limit of memory: {error}")))?;
    let words = format!(
        "--connections 50 --in-flight 16 --mix set=9,get=1 --keys 2000000 --distribution uniform \
         --value-size 100..2000 --no-fill --duration {}",
        seconds(time)
    );
    let written = load(&[larder.addr], &larder.login, &words, &mut |_| ());
    let is_alive = !larder.process.has_ended();
    report.law("it lives", is_alive, is_alive);
    let written = written.unwrap_or_else(|error| panic!("the load ended early: {error}"));
    report.never("wrong values", written.wrong_values);
    report.figure(
        "bytes written",
        Amount(written.bytes_sent as f64 / MIB as f64, "MiB"),
        Bar::None,
    );
    let used = larder.process.memory_bytes() as f64 / MIB as f64;
    report.figure("memory of the process", Amount(used, "MiB"), {
        Bar::AtMost((allowed / MIB) as f64)
    });
    drop(group);
    Ok(())
}
