//! Limits on what a process may use (cgroups(7)): CPU and memory, of version 1 or 2, whichever this
//! machine has and lets us write to.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where distributions mount them.
const ROOT: &str = "/sys/fs/cgroup";
/// Of which a limit on CPU time is a part; the kernel's own default.
const PERIOD: Duration = Duration::from_millis(100);

/// One limit, which ends with it.
#[derive(Debug)]
pub struct Cgroup {
    folder: PathBuf,
    /// Where its processes are put back.
    parent: PathBuf,
}

impl Cgroup {
    /// Lets these processes together have this part of one core.
    ///
    /// # Errors
    /// When this machine does not permit it.
    pub fn cpu(part_of_a_core: f64, processes: &[u32]) -> io::Result<Cgroup> {
        Cgroup::cpu_each(PERIOD, part_of_a_core, processes)
    }

    /// The same as a part of each such period: whoever has used up his part stands until the next one
    /// begins, so that a short period makes a slow core out of a fast one that stops and goes.
    ///
    /// # Errors
    /// When this machine does not permit it; the kernel gives a millisecond of a period at least.
    pub fn cpu_each(
        period: Duration,
        part_of_a_core: f64,
        processes: &[u32],
    ) -> io::Result<Cgroup> {
        let period_us = period.as_micros();
        let quota_us = period.mul_f64(part_of_a_core).as_micros();
        let v1 = [
            ("cpu.cfs_period_us", period_us.to_string()),
            ("cpu.cfs_quota_us", quota_us.to_string()),
        ];
        let v2 = ("cpu.max", format!("{quota_us} {period_us}"));
        Cgroup::make("cpu", &v1, v2, processes)
    }

    /// Lets these processes together have so much memory.
    ///
    /// # Errors
    /// When this machine does not permit it.
    pub fn memory(bytes: u64, processes: &[u32]) -> io::Result<Cgroup> {
        let v1 = [("memory.limit_in_bytes", bytes.to_string())];
        Cgroup::make("memory", &v1, ("memory.max", bytes.to_string()), processes)
    }

    fn make(
        controller: &str,
        v1: &[(&str, String)],
        v2: (&str, String),
        processes: &[u32],
    ) -> io::Result<Cgroup> {
        let root = Path::new(ROOT);
        let is_v2 = root.join("cgroup.controllers").exists();
        let parent = if is_v2 { root.to_owned() } else { root.join(controller) };
        let first = processes.first().copied().unwrap_or_default();
        let folder = parent.join(format!("larder-{}-{first}", std::process::id()));
        fs::create_dir(&folder)?;
        let group = Cgroup { folder, parent };
        for (file, text) in if is_v2 { std::slice::from_ref(&v2) } else { v1 } {
            fs::write(group.folder.join(file), text)?;
        }
        for process in processes {
            fs::write(group.folder.join("cgroup.procs"), process.to_string())?;
        }
        Ok(group)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let processes = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        for process in processes.lines() {
            // One that ends meanwhile needs no place any more.
            drop(fs::write(self.parent.join("cgroup.procs"), process));
        }
        // What is left of it limits nobody.
        drop(fs::remove_dir(&self.folder));
    }
}
