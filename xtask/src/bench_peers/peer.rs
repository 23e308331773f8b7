//! The memcached that Larder is measured beside.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;
use testbed::eventually::{DEADLINE, eventually};
use testbed::memcached::Memcached;
use testbed::process::Process;

/// A running memcached with room for the connections of every row.
pub(super) struct Peer {
    pub(super) process: Process,
    pub(super) addr: SocketAddr,
    _dir: TempDir,
}

impl Peer {
    /// With so much memory for items, and so many threads; with TLS if there is a folder with `certificate.pem` and
    /// `key.pem`.
    pub(super) fn start(memory_mib: u64, threads: usize, tls: Option<&Path>) -> Peer {
        let dir = TempDir::new().expect("the temporary folder is writable");
        let ports = dir.path().join("ports");
        let mut command = Command::new(Memcached::program());
        command
            .args(["-u", "root", "-l", "127.0.0.1", "-p", "-1", "-U", "0"])
            .args(["-t", &threads.to_string()])
            .args(["-c", "20000", "-b", "4096", "-m", &memory_mib.to_string()])
            .env("MEMCACHED_PORT_FILENAME", &ports);
        if let Some(folder) = tls {
            let files = ["certificate.pem", "key.pem"].map(|name| folder.join(name));
            let [chain, key] = files.each_ref().map(|path| path.display());
            command.args(["-Z", "-o", &format!("ssl_chain_cert={chain},ssl_key={key}")]);
        }
        let mut process = Process::start(&mut command);
        let port = eventually("memcached told its port", DEADLINE, || {
            assert!(!process.has_ended(), "memcached ended:\n{}", process.log());
            let text = fs::read_to_string(&ports).ok()?;
            text.lines().find_map(|line| line.strip_prefix("TCP INET: ")?.trim().parse().ok())
        });
        Peer { process, addr: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), _dir: dir }
    }
}
