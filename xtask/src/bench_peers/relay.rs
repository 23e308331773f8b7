//! Larder as a cluster of two nodes, beside nutcracker before memcached.
//!
//! ```text
//!   core 0   node "proxy" ──▶ node "items"        nutcracker ──▶ memcached -t 1
//!            (3 % of the slots) (97 %)
//!   core 1   the load generator, at one of the four
//! ```
//!
//! The first node is there for its proxy; it cannot have no memory, so it owns a little.

use super::Effort;
use super::contest::{Load, on_server_cpu};
use super::outcome::{Outcome, Sample};
use super::peer::Peer;
use super::rows::{Relayed, Row};
use bench::{Moment, run_observed};
use clap::Parser;
use std::error::Error;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use testbed::cluster::{ControlPlane, Node};
use testbed::connection::Login;
use testbed::eventually::{DEADLINE, eventually};
use testbed::process::Process;

/// Few enough for every contestant, and for the caches of the processor.
const ITEMS: u64 = 10_000;

pub(super) struct Relay {
    // Ends after the nodes that it has told what to do.
    proxy: Node,
    items: Node,
    _control: ControlPlane,
    login: Login,
    memcached: Peer,
    nutcracker: Nutcracker,
}

/// A running nutcracker before one memcached.
struct Nutcracker {
    process: Process,
    addr: SocketAddr,
    _dir: TempDir,
}

/// Who is asked, and whose time is counted.
struct Contestant<'a> {
    addr: SocketAddr,
    login: Option<&'a Login>,
    processes: Vec<&'a Process>,
}

impl Relay {
    pub(super) fn start() -> Result<Relay, Box<dyn Error>> {
        if Command::new("nutcracker").arg("--version").output().is_err() {
            return Err("nutcracker is needed; Debian has it as a package of that name".into());
        }
        on_server_cpu(|| {
            let control = ControlPlane::start();
            let proxy = Node::join_sized(&control, "proxy", "256MiB", "1");
            let items = Node::join_sized(&control, "items", "8GiB", "1");
            let login = control.create_cache("peers");
            control.wait_until_settled(2);
            let memcached = Peer::start(1000, None);
            let nutcracker = Nutcracker::start(memcached.addr);
            Relay { proxy, items, _control: control, login, memcached, nutcracker }
        })
    }

    pub(super) fn hold(
        &self,
        row: &'static Row,
        load: &str,
        compared: Relayed,
        at_most: f64,
        effort: Effort,
    ) -> Result<Outcome, Box<dyn Error>> {
        let (memcached, nutcracker) = (&self.memcached.process, &self.nutcracker.process);
        let larder = |addr, processes| Contestant { addr, login: Some(&self.login), processes };
        let other = |addr, processes| Contestant { addr, login: None, processes };
        let (proxy, items) = (&self.proxy.process, &self.items.process);
        let [us, them] = match compared {
            Relayed::OneProcess => [
                larder(self.items.addr, vec![items, proxy]),
                other(self.nutcracker.addr, vec![nutcracker, memcached]),
            ],
            Relayed::WholePath => [
                larder(self.proxy.addr, vec![proxy, items]),
                other(self.memcached.addr, vec![memcached]),
            ],
            Relayed::Proxy => [
                larder(self.proxy.addr, vec![proxy]),
                other(self.nutcracker.addr, vec![nutcracker]),
            ],
        };
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..effort.rounds {
            // Whoever comes second may find a warmer machine: they take turns at it.
            if round % 2 == 0 {
                ours.push(us.sample(load, effort)?);
                theirs.push(them.sample(load, effort)?);
            } else {
                theirs.push(them.sample(load, effort)?);
                ours.push(us.sample(load, effort)?);
            }
        }
        Ok(Outcome::ratio(row, ours, theirs, at_most))
    }
}

impl Contestant<'_> {
    fn sample(&self, load: &str, effort: Effort) -> Result<Sample, Box<dyn Error>> {
        let auth = match self.login {
            Some(Login { username, password }) => {
                format!("--username {username} --password {password}")
            }
            None => "--auth none".to_owned(),
        };
        let words = format!(
            "load --servers {} {auth} --pin {} {load} --keys {ITEMS} --distribution uniform \
             --warm-up {}ms --duration {}ms",
            self.addr,
            super::contest::GENERATOR_CPU,
            effort.warm_up.as_millis(),
            effort.duration.as_millis()
        );
        let time = || self.processes.iter().map(|process| process.cpu_time()).sum::<Duration>();
        let (mut before, mut after) = (Duration::ZERO, Duration::ZERO);
        let load = Load::try_parse_from(words.split_whitespace())?;
        let report = run_observed(&load.bench, &mut |moment| match moment {
            Moment::Connected => (),
            Moment::Measuring => before = time(),
            Moment::Measured => after = time(),
        })?;
        if !report.is_clean() || report.misses > 0 {
            return Err(format!("{} did not serve {words}:\n{report}", self.addr).into());
        }
        let cpu = after.saturating_sub(before);
        Ok(Sample {
            cpu_us_per_request: cpu.as_secs_f64() * 1e6 / report.requests as f64,
            requests_per_second: report.requests_per_second,
            p50_us: report.latency_us.p50,
            p99_us: report.latency_us.p99,
            generator_percent: report.generator.utilisation_percent,
        })
    }
}

impl Nutcracker {
    /// It takes no port 0, so one that is free a moment before is given to it.
    fn start(memcached: SocketAddr) -> Nutcracker {
        let dir = TempDir::new().expect("the temporary folder is writable");
        let [addr, statistics] = [free_address(), free_address()];
        let settings = format!(
            "peers:\n  listen: {addr}\n  hash: fnv1a_64\n  distribution: ketama\n  \
             preconnect: true\n  servers:\n   - {memcached}:1 items\n"
        );
        let file = dir.path().join("nutcracker.yml");
        fs::write(&file, settings).expect("the temporary folder is writable");
        let mut command = Command::new("nutcracker");
        command.arg("-c").arg(&file).args(["-a", "127.0.0.1", "-s"]);
        let mut process = Process::start(command.arg(statistics.port().to_string()));
        eventually("nutcracker listened", DEADLINE, || {
            assert!(!process.has_ended(), "nutcracker ended:\n{}", process.log());
            TcpStream::connect(addr).ok()
        });
        Nutcracker { process, addr, _dir: dir }
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("some port is free");
    listener.local_addr().expect("it is bound")
}
