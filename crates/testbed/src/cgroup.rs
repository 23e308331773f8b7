//! Limits on what a process may use (cgroups(7)): CPU and memory, of version 1 or 2, whichever this
//! machine has and lets us write to.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where distributions mount them.
const ROOT: &str = "/sys/fs/cgroup";
/// Of which a limit on CPU time is a part, in microseconds; the kernel's own default.
const PERIOD_US: u64 = 100_000;

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
        let quota_us = (part_of_a_core * PERIOD_US as f64) as u64;
        let v1 = ("cpu", "cpu.cfs_quota_us", quota_us.to_string());
        Cgroup::make(v1, ("cpu.max", format!("{quota_us} {PERIOD_US}")), processes)
    }

    /// Lets these processes together have so much memory.
    ///
    /// # Errors
    /// When this machine does not permit it.
    pub fn memory(bytes: u64, processes: &[u32]) -> io::Result<Cgroup> {
        let v1 = ("memory", "memory.limit_in_bytes", bytes.to_string());
        Cgroup::make(v1, ("memory.max", bytes.to_string()), processes)
    }

    fn make(
        (controller, file, text): (&str, &str, String),
        (file_v2, text_v2): (&str, String),
        processes: &[u32],
    ) -> io::Result<Cgroup> {
        let root = Path::new(ROOT);
        let is_v2 = root.join("cgroup.controllers").exists();
        let parent = if is_v2 { root.to_owned() } else { root.join(controller) };
        let first = processes.first().copied().unwrap_or_default();
        let folder = parent.join(format!("larder-{}-{first}", std::process::id()));
        fs::create_dir(&folder)?;
        let group = Cgroup { folder, parent };
        let (file, text) = if is_v2 { (file_v2, text_v2) } else { (file, text) };
        fs::write(group.folder.join(file), text)?;
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
