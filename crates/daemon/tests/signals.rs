//! Real signals to a real process: this test's own program, started again as the child.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use daemon::shutdown::Shutdown;
use rustix::process::{Pid, Signal, kill_process};

/// Set for the child, so that the test that plays it knows.
const CHILD: &str = "DAEMON_TEST_CHILD";

#[test]
fn the_first_signal_drains_the_second_ends() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut child = Running::start();
        child.send(signal);
        child.hear("draining");
        child.send(signal);
        let status = child.process.wait().expect("the child can be waited for");
        assert_eq!(status.code(), Some(128 + signal.as_raw()));
    }
}

#[test]
fn hanging_up_reloads_and_does_not_end() {
    let mut child = Running::start();
    child.send(Signal::HUP);
    child.hear("reload");
    child.send(Signal::HUP);
    child.hear("reload");
    child.send(Signal::TERM);
    child.hear("draining");
}

/// The child: tells what it hears and never ends by itself. As a test of its own it does nothing.
#[test]
#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let shutdown = Shutdown::on_signals().expect("signals can be heard");
    shutdown.on_drain(|| println!("draining"));
    shutdown.on_reload(|| println!("reload"));
    println!("ready");
    loop {
        std::thread::park();
    }
}

struct Running {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    fn start() -> Self {
        let mut process = Command::new(std::env::current_exe().expect("a test has a program"))
            .args(["--exact", "child", "--nocapture"])
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the test's own program can be started");
        let output = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut child = Running { process, output };
        child.hear("ready");
        child
    }

    fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).expect("the child runs");
    }

    /// Reads on until the line comes; the test harness prints some of its own.
    #[track_caller]
    fn hear(&mut self, wanted: &str) {
        let mut line = String::new();
        while !line.trim_end().ends_with(wanted) {
            line.clear();
            let read = self.output.read_line(&mut line).expect("the child's output is text");
            assert_ne!(read, 0, "the child ended before it said {wanted:?}");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, which is what some tests are for.
        if self.process.kill().is_ok() {
            self.process.wait().expect("a killed child can be waited for");
        }
    }
}
