//! A memcached to compare with.

use crate::eventually::{DEADLINE, eventually};
use crate::process::Process;
use std::env;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// A running memcached on a free port, with enough memory that nothing is evicted in a test.
pub struct Memcached {
    pub process: Process,
    pub addr: SocketAddr,
    _dir: TempDir,
}

impl Memcached {
    /// The program to compare with: `LARDER_MEMCACHED`, or else what the distribution installed.
    pub fn program() -> PathBuf {
        env::var_os("LARDER_MEMCACHED").map_or_else(|| "/usr/bin/memcached".into(), PathBuf::from)
    }

    #[track_caller]
    pub fn start() -> Memcached {
        Self::start_with(&[])
    }

    #[track_caller]
    pub fn start_with(arguments: &[&str]) -> Memcached {
        let dir = TempDir::new().expect("the temporary folder is writable");
        let ports = dir.path().join("ports");
        let mut process = Process::start(
            Command::new(Self::program())
                .args(["-u", "root", "-l", "127.0.0.1", "-p", "-1", "-U", "0", "-m", "1024"])
                .args(["-c", "4096", "-t", "1"])
                .args(arguments)
                .env("MEMCACHED_PORT_FILENAME", &ports),
        );
        let port = eventually("memcached told its port", DEADLINE, || {
            assert!(!process.has_ended(), "memcached ended:\n{}", process.log());
            let text = fs::read_to_string(&ports).ok()?;
            text.lines().find_map(|line| line.strip_prefix("TCP INET: ")?.trim().parse().ok())
        });
        Memcached { process, addr: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), _dir: dir }
    }

    /// The version, as `memcached -V` states it: (1, 6, 18).
    pub fn version() -> (u32, u32, u32) {
        let output = Command::new(Self::program()).arg("-V").output().expect("memcached runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut numbers = text
            .trim()
            .rsplit(' ')
            .next()
            .expect("splitting yields at least one part")
            .split('.')
            .map(|part| part.parse().expect("memcached prints a version of three numbers"));
        let mut next = || numbers.next().expect("memcached prints a version of three numbers");
        (next(), next(), next())
    }
}
