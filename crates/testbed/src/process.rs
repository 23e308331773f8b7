//! A child process that cannot outlive its owner.

use crate::eventually::{DEADLINE, eventually};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Lines of a child's output that are kept; a child that loops shall not fill our memory.
const LOG_LINES_MAX: usize = 20_000;

/// A running program with its captured output; killed on drop.
pub struct Process {
    child: Child,
    log: Log,
    followers: Vec<JoinHandle<()>>,
}

/// A program, or one that becomes it or watches it, with these words before its name.
pub(crate) fn command_under(words: &[String], program: &Path) -> Command {
    match words.split_first() {
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// The lines a process wrote, standard output and standard error mixed in the order they came.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Process {
    /// # Panics
    ///
    /// When the program cannot be started, with its name.
    #[track_caller]
    pub fn start(command: &mut Command) -> Process {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let log = Log::default();
        let followers = vec![
            log.follow(child.stdout.take().expect("it was piped just above")),
            log.follow(child.stderr.take().expect("it was piped just above")),
        ];
        Process { child, log, followers }
    }

    /// Everything the process wrote so far.
    pub fn log(&self) -> String {
        self.log.lines().join("\n")
    }

    /// Everything a process wrote that has ended, down to the last line.
    ///
    /// Blocks for as long as anything holds the process's output open.
    pub fn whole_log(&mut self) -> String {
        for follower in self.followers.drain(..) {
            follower.join().expect("following a log cannot panic");
        }
        self.log()
    }

    /// The rest of the first line that begins with `prefix`, if it was written yet.
    pub fn line_after(&self, prefix: &str) -> Option<String> {
        self.log.lines().iter().find_map(|line| line.strip_prefix(prefix).map(str::to_owned))
    }

    /// Waits for a line that begins with `prefix` and returns its rest.
    ///
    /// # Panics
    ///
    /// When the process ends first or the line does not come, with the process's log.
    #[track_caller]
    pub fn wait_for_line(&mut self, prefix: &str) -> String {
        eventually(&format!("the child wrote a line {prefix}…"), DEADLINE, || {
            let ended = self.child.try_wait().expect("a child of ours can be waited for");
            let line = self.line_after(prefix);
            if line.is_none()
                && let Some(status) = ended
            {
                panic!("child ended with {status} before it wrote {prefix}…:\n{}", self.log());
            }
            line
        })
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a child that was not waited for can be signalled");
    }

    /// Waits until the process ends by itself.
    ///
    /// # Panics
    ///
    /// When it still runs after `deadline`, with its log.
    #[track_caller]
    pub fn wait_for_end(&mut self, deadline: Duration) -> ExitStatus {
        eventually("the child ended", deadline, || {
            self.child.try_wait().expect("a child of ours can be waited for")
        })
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours can be waited for").is_some()
    }

    /// Memory the process has in use (resident set), in bytes.
    pub fn memory_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .expect("a running child has a status file");
        let kilobytes = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().strip_suffix("kB"))
            .and_then(|number| number.trim().parse::<u64>().ok())
            .expect("Linux states VmRSS in kB");
        kilobytes * 1024
    }

    /// CPU time the process has used, user and system together.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))
            .expect("a running child has a stat file");
        // The name in parentheses may contain spaces; the numbered fields begin after it.
        let (_, fields) = stat.rsplit_once(')').expect("the name ends with a parenthesis");
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().expect("utime and stime are numbers"))
            .sum();
        // Linux reports these in hundredths of a second whatever the kernel's own tick is.
        Duration::from_millis(ticks * 10)
    }

    /// Open descriptors of the process.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id()))
            .expect("a running child has a list of descriptors")
            .count()
    }

    /// As the system numbers it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Either it has ended already, which is as good, or it ends now.
        drop(self.child.kill());
        drop(self.child.wait());
        if thread::panicking() {
            let log = self.log.lines();
            let tail = log.len().saturating_sub(40);
            #[expect(clippy::print_stderr, reason = "a failing test shows what the server said")]
            {
                eprintln!("--- log of the child ---\n{}", log[tail..].join("\n"));
            }
        }
    }
}

impl Log {
    fn follow(&self, stream: impl Read + Send + 'static) -> JoinHandle<()> {
        let log = self.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines() {
                let Ok(line) = line else { return };
                let mut lines = log.0.lock().unwrap_or_else(PoisonError::into_inner);
                if lines.len() < LOG_LINES_MAX {
                    lines.push(line);
                }
            }
        })
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
