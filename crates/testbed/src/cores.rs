//! Who runs on which core, and who only where nobody else wants to: what else on one machine would be
//! measured is how servers, those who ask them and those who load them wait for one another's slices of
//! its cores, which take milliseconds.

use std::fs;
use std::io;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use rustix::process::{Pid, getpid};
use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_setaffinity};

/// Has all threads of a process, and what they begin from now on, run on this core only: of those that
/// this process was begun with, counted from 0.
///
/// # Errors
/// This machine has fewer cores, or there is no such process.
pub fn pin(process: u32, core: usize) -> io::Result<()> {
    let one = only(core)?;
    for entry in fs::read_dir(format!("/proc/{process}/task"))? {
        let name = entry?.file_name();
        let thread = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        // One that has just ended runs nowhere.
        thread.map(|thread| sched_setaffinity(Some(thread), &one).ok());
    }
    Ok(())
}

/// The calling thread runs where it did before when this goes.
#[derive(Debug)]
pub struct Pinned(CpuSet);

/// The same for the calling thread alone, and what it begins meanwhile: threads and processes.
///
/// # Errors
/// This machine has fewer cores.
pub fn pin_thread(core: usize) -> io::Result<Pinned> {
    let before = sched_getaffinity(None)?;
    sched_setaffinity(None, &only(core)?)?;
    Ok(Pinned(before))
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // It has run there before.
        sched_setaffinity(None, &self.0).ok();
    }
}

/// Those that this process was begun with. Asked once, before anybody is pinned here: once the first thread is,
/// what is allowed to it is one core.
static OURS: OnceLock<CpuSet> = OnceLock::new();

fn only(core: usize) -> io::Result<CpuSet> {
    let ours = match OURS.get() {
        Some(ours) => ours,
        None => {
            let asked = sched_getaffinity(Some(getpid()))?;
            OURS.get_or_init(|| asked)
        }
    };
    let mut cores = (0..CpuSet::MAX_CPU).filter(|&cpu| ours.is_set(cpu));
    let cpu = cores.nth(core).ok_or(io::ErrorKind::NotFound)?;
    let mut one = CpuSet::new();
    one.set(cpu);
    Ok(one)
}

/// Has the calling thread, and those that it begins from now on, run only where nobody else wants to
/// (SCHED_IDLE). A low priority is not enough: whoever wakes up would still wait for the end of its slice.
///
/// # Errors
/// There is no `chrt`.
pub fn give_way() -> io::Result<()> {
    let thread = gettid().as_raw_nonzero().to_string();
    let mut command = Command::new("chrt");
    command.args(["--idle", "--pid", "0", &thread]).stdout(Stdio::null());
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

/// The same for a program that is to be started.
pub fn giving_way(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("chrt");
    command.args(["--idle", "0"]).arg(program);
    command
}

#[cfg(test)]
mod tests {
    use super::{getpid, give_way, giving_way, only, pin, sched_getaffinity, sched_setaffinity};
    use std::fs;
    use std::thread;

    #[test]
    fn a_thread_gives_way_with_those_it_begins_and_its_process_does_not() {
        // The 41st field after the name: 5 is SCHED_IDLE.
        let policy = |of: &str| {
            let stat = fs::read_to_string(format!("/proc/{of}/stat")).expect("it is alive");
            let (_, fields) = stat.rsplit_once(')').expect("a name stands in brackets");
            fields.split_whitespace().nth(38).map(str::to_owned)
        };
        let before = policy("thread-self");
        let (own, begun) = thread::spawn(move || {
            give_way().expect("util-linux is everywhere");
            let begun = thread::spawn(move || policy("thread-self"));
            (policy("thread-self"), begun.join().expect("it only reads"))
        })
        .join()
        .expect("it is let");
        assert_eq!((own.as_deref(), begun.as_deref()), (Some("5"), Some("5")));
        assert_eq!(policy("thread-self"), before);
        let shown = giving_way("chrt").args(["--pid", "0"]).output().expect("chrt starts");
        assert!(String::from_utf8_lossy(&shown.stdout).contains("SCHED_IDLE"), "{shown:?}");
    }

    #[test]
    fn cores_are_counted_as_they_were_before_the_first_thread_was_pinned() {
        let (Ok(first), Ok(second)) = (only(0), only(1)) else {
            // There is but one.
            return;
        };
        let before = sched_getaffinity(Some(getpid())).expect("it can be asked");
        sched_setaffinity(Some(getpid()), &second).expect("it may run there");
        let then = only(0);
        sched_setaffinity(Some(getpid()), &before).expect("it ran there before");
        assert!(then.is_ok_and(|then| then == first));
    }

    #[test]
    fn a_process_is_pinned_to_one_core_with_all_its_threads() {
        let mut sleeper = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        pin(sleeper.id(), 0).expect("there is a first core");
        let status = fs::read_to_string(format!("/proc/{}/status", sleeper.id()));
        let status = status.expect("it sleeps");
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        assert!(allowed.is_some_and(|list| list.trim().parse::<u32>().is_ok()), "{allowed:?}");
        assert!(pin(sleeper.id(), 4_096).is_err());
        sleeper.kill().expect("it is our child");
        sleeper.wait().expect("it is our child");
    }
}
