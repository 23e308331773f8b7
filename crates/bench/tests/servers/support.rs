//! What the tests of the load generator need: a real memcached, and servers that misbehave.

use bench::{BenchArgs, BenchError, Moment, Report, run_observed};
use clap::Parser;
use std::fs;
use std::io::{BufRead as _, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Runs the generator with words as on its command line.
pub(crate) fn bench(server: SocketAddr, words: &str) -> Result<Report, BenchError> {
    bench_observed(server, words, |_| ())
}

pub(crate) fn bench_observed(
    server: SocketAddr,
    words: &str,
    mut observe: impl FnMut(Moment),
) -> Result<Report, BenchError> {
    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        bench: BenchArgs,
    }
    // What the environment of the tests says about servers must not matter here.
    let auth = if words.contains("--username") { "" } else { "--auth none" };
    let all = format!("bench --servers {server} {auth} {words}");
    let cli = Cli::try_parse_from(all.split_whitespace()).expect("the words of a test are right");
    run_observed(&cli.bench, &mut observe)
}

/// A memcached on a port of its own, killed on drop.
pub(crate) struct Memcached {
    pub(crate) addr: SocketAddr,
    child: Child,
    pub(crate) dir: TempDir,
}

/// Far longer than memcached needs to start on the slowest machine.
const START: Duration = Duration::from_secs(30);

impl Memcached {
    pub(crate) fn start() -> Memcached {
        let dir = TempDir::new().expect("the temporary folder is writable");
        Memcached::start_in(dir, &[])
    }

    pub(crate) fn start_in(dir: TempDir, arguments: &[&str]) -> Memcached {
        let ports = dir.path().join("ports");
        let child = Command::new("memcached")
            .args(["-u", "root", "-l", "127.0.0.1", "-p", "-1", "-U", "0", "-m", "256", "-t", "1"])
            .args(arguments)
            .env("MEMCACHED_PORT_FILENAME", &ports)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("memcached is in PATH: these tests need it (apt-get install memcached)");
        let mut server = Memcached { addr: SocketAddr::from(([127, 0, 0, 1], 0)), child, dir };
        let port = server.port();
        server.addr.set_port(port);
        server
    }

    /// Waits until memcached has written down its port.
    fn port(&mut self) -> u16 {
        let begin = Instant::now();
        loop {
            let text = fs::read_to_string(self.dir.path().join("ports")).unwrap_or_default();
            let port = text.lines().find_map(|line| line.strip_prefix("TCP INET: "));
            if let Some(port) = port.and_then(|port| port.trim().parse().ok()) {
                return port;
            }
            let ended = self.child.try_wait().expect("our own child can be waited for");
            assert!(ended.is_none(), "memcached ended at once: {ended:?}");
            assert!(begin.elapsed() < START, "memcached did not tell its port");
            thread::yield_now();
        }
    }

    /// One of the numbers that `stats` tells.
    pub(crate) fn stat(&self, name: &str) -> u64 {
        let mut socket = TcpStream::connect(self.addr).expect("memcached listens");
        socket.write_all(b"stats\r\n").expect("memcached reads");
        BufReader::new(socket)
            .lines()
            .map(|line| line.expect("memcached answers"))
            .find_map(|line| line.strip_prefix(&format!("STAT {name} "))?.parse().ok())
            .expect("memcached knows this number")
    }
}

impl Drop for Memcached {
    fn drop(&mut self) {
        // Either it has ended already, which is as good, or it ends now.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A server that does what it likes with every connection, for as long as the test runs.
pub(crate) fn pretend(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let addr = listener.local_addr().expect("a bound socket has an address");
    let serve = std::sync::Arc::new(serve);
    thread::spawn(move || {
        for socket in listener.incoming() {
            let serve = std::sync::Arc::clone(&serve);
            thread::spawn(move || serve(socket.expect("loopback accepts")));
        }
    });
    addr
}

/// Answers every line of a client with what `answer` says; ends with the client.
pub(crate) fn answer_lines(socket: TcpStream, mut answer: impl FnMut(&str) -> String) {
    let mut writer = socket.try_clone().expect("a socket can be shared");
    for line in BufReader::new(socket).lines() {
        let Ok(line) = line else { return };
        if writer.write_all(answer(&line).as_bytes()).is_err() {
            return;
        }
    }
}
