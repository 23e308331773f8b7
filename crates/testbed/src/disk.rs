//! A small disk in memory, over a folder, for the processes that are started on it: one that a test can
//! fill, and that outlives them.
//!
//! The mount belongs to a process of its own, which keeps it for as long as this test holds its standard
//! input open (mount_namespaces(7)). So nothing stays mounted, however the test ends.

use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Mounted until it is dropped, and until the last process on it has ended.
#[derive(Debug)]
pub struct Disk {
    keeper: Child,
    folder: PathBuf,
    kilobytes: u32,
}

impl Disk {
    /// Over this folder, of this size.
    ///
    /// # Errors
    /// When this machine lets nobody mount anything, in words.
    pub fn over(folder: &Path, kilobytes: u32) -> Result<Disk, String> {
        let mount = "mount -t tmpfs -o size=$1k,mode=700 larder \"$2\" && echo mounted && exec cat";
        let mut keeper = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", mount, "sh", &kilobytes.to_string()])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("no disk of its own: {error}"))?;
        let said = keeper.stdout.take().expect("it was piped just above");
        // From here on it is ended, whatever fails.
        let disk = Disk { keeper, folder: folder.to_owned(), kilobytes };
        let mut line = String::new();
        let read = BufReader::new(said).read_line(&mut line);
        match read {
            Ok(_) if line == "mounted\n" => Ok(disk),
            Ok(_) | Err(_) => Err("a disk of its own is not permitted".to_owned()),
        }
    }

    /// Words before a program's name that run it there.
    pub fn under(&self) -> Vec<String> {
        let target = format!("--target={}", self.keeper.id());
        let words = ["nsenter", &target, "--user", "--preserve-credentials", "--mount"];
        words.map(str::to_owned).to_vec()
    }

    /// The folder, for whoever does not run there.
    pub fn seen_from_here(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.keeper.id()));
        root.join(self.folder.strip_prefix("/").expect("temporary folders are absolute"))
    }

    /// Lets nothing more fit than the rest of the pages that files end in.
    ///
    /// # Errors
    /// When it takes more than it has room for, in words.
    pub fn fill(&self) -> Result<(), String> {
        let full = std::fs::write(self.filling(), vec![1; self.kilobytes as usize * 1024]);
        if full.is_err_and(|error| error.kind() == io::ErrorKind::StorageFull) {
            return Ok(());
        }
        Err("the disk does not get full".to_owned())
    }

    /// Makes room again.
    ///
    /// # Errors
    /// When it was not filled, in words.
    pub fn empty(&self) -> Result<(), String> {
        std::fs::remove_file(self.filling()).map_err(|error| error.to_string())
    }

    fn filling(&self) -> PathBuf {
        self.seen_from_here().join("filling")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It ends with its input, too; this is only sooner.
        drop(self.keeper.kill());
        drop(self.keeper.wait());
    }
}
