//! What is asked of the operating system: descriptors, cores, and the CPU time of a thread.

use crate::error::BenchError;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::time::Duration;

/// Beside connections: epoll, timers, standard streams, libraries.
const DESCRIPTORS_SPARE: u64 = 64;

/// Makes room for so many connections; says how many fit if they do not.
pub(crate) fn raise_descriptor_limit(connections: u64) -> Result<(), String> {
    let needed = connections + DESCRIPTORS_SPARE;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let allowed = limit.maximum.unwrap_or(u64::MAX);
    let raised = Rlimit { current: Some(needed.min(allowed)), maximum: limit.maximum };
    if needed > allowed || setrlimit(Resource::Nofile, raised).is_err() {
        return Err(format!(
            "{connections} connections need {needed} file descriptors, and this process may open \
             {allowed}; raise the limit with `ulimit -n` or ask for fewer"
        ));
    }
    Ok(())
}

/// Keeps the calling thread on one core.
pub(crate) fn pin_to(cpu: usize) -> Result<(), BenchError> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)
        .map_err(io::Error::from)
        .map_err(BenchError::machine("could not pin a thread to the core that --pin names"))
}

/// The highest core number that can be named.
pub(crate) const CPU_MAX: usize = CpuSet::MAX_CPU - 1;

/// User and system time that the calling thread has used so far.
pub(crate) fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}
