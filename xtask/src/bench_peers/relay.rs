//! Larder as a cluster, beside nutcracker before memcached.
//!
//! ```text
//!   core 0   node "proxy" ──▶ nodes "items-…"     nutcracker ──▶ memcached -t 1, as many
//!            (few of the slots)  (the others)
//!   core 1   the load generator, at one of the four
//! ```
//!
//! The first node is there for its proxy; it cannot have no memory, so it owns a little.

use super::Effort;
use super::contest::{self, on_server_cpu};
use super::curves::Sides;
use super::outcome::{Of, Outcome, Sample};
use super::peer::Peer;
use super::rows::{Relayed, Row};
use std::error::Error;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use tempfile::TempDir;
use testbed::cluster::{ControlPlane, Node};
use testbed::connection::Login;
use testbed::eventually::{DEADLINE, eventually};
use testbed::process::Process;

/// Few enough for every contestant, and for the caches of the processor.
const ITEMS: u64 = 10_000;

/// Far more than that of the proxy's own node, so that nearly all items are behind it.
const ITEMS_MEMORY_MIB: usize = 8192;

pub(super) struct Relay {
    // Ends after the nodes that it has told what to do.
    proxy: Node,
    items: Vec<Node>,
    _control: ControlPlane,
    login: Login,
    memcached: Vec<Peer>,
    nutcracker: Nutcracker,
}

/// A running nutcracker before one memcached or several.
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
    /// With so many nodes, or memcached, behind the proxies.
    pub(super) fn start(backends: usize) -> Result<Relay, Box<dyn Error>> {
        if Command::new("nutcracker").arg("--version").output().is_err() {
            return Err("nutcracker is needed; Debian has it as a package of that name".into());
        }
        on_server_cpu(|| {
            let control = ControlPlane::start();
            let proxy = Node::join_sized(&control, "proxy", "256MiB", "1");
            let memory = format!("{}MiB", ITEMS_MEMORY_MIB / backends);
            let items: Vec<Node> = (0..backends)
                .map(|number| Node::join_sized(&control, &format!("items-{number}"), &memory, "1"))
                .collect();
            let login = control.create_cache("peers");
            control.wait_until_settled(1 + backends);
            let memcached: Vec<Peer> =
                (0..backends).map(|_| Peer::start(1000 / backends as u64, 1, None)).collect();
            let nutcracker = Nutcracker::start(memcached.iter().map(|peer| peer.addr));
            Relay { proxy, items, _control: control, login, memcached, nutcracker }
        })
    }

    pub(super) fn hold(
        &self,
        row: &'static Row,
        load: &str,
        compared: Relayed,
        of: Of,
        at_most: f64,
        effort: Effort,
    ) -> Result<Outcome, Box<dyn Error>> {
        let larder = |addr, processes| Contestant { addr, login: Some(&self.login), processes };
        let other = |addr, processes| Contestant { addr, login: None, processes };
        let (node, peer) = (&self.items[0], &self.memcached[0]);
        let [us, them] = match compared {
            Relayed::OneProcess => {
                [larder(node.addr, self.nodes()), other(self.nutcracker.addr, self.peers())]
            }
            Relayed::WholePath => {
                [larder(self.proxy.addr, self.nodes()), other(peer.addr, vec![&peer.process])]
            }
            Relayed::Proxy => [
                larder(self.proxy.addr, vec![&self.proxy.process]),
                other(self.nutcracker.addr, vec![&self.nutcracker.process]),
            ],
        };
        let Sides { ours, theirs } = rounds(&us, &them, load, effort)?;
        Ok(Outcome::ratio(row, of, ours, theirs, Some(at_most)))
    }

    /// Samples of the whole paths, through the proxies to whatever stands behind them.
    pub(super) fn rounds(&self, load: &str, effort: Effort) -> Result<Sides, Box<dyn Error>> {
        let (addr, login) = (self.proxy.addr, Some(&self.login));
        let us = Contestant { addr, login, processes: self.nodes() };
        let addr = self.nutcracker.addr;
        let them = Contestant { addr, login: None, processes: self.peers() };
        rounds(&us, &them, load, effort)
    }

    fn nodes(&self) -> Vec<&Process> {
        self.items.iter().chain([&self.proxy]).map(|node| &node.process).collect()
    }

    fn peers(&self) -> Vec<&Process> {
        let memcached = self.memcached.iter().map(|peer| &peer.process);
        memcached.chain([&self.nutcracker.process]).collect()
    }
}

fn rounds(
    us: &Contestant<'_>,
    them: &Contestant<'_>,
    load: &str,
    effort: Effort,
) -> Result<Sides, Box<dyn Error>> {
    let mut sides = Sides::default();
    for round in 0..effort.rounds {
        // Whoever comes second may find a warmer machine: they take turns at it.
        if round % 2 == 0 {
            sides.ours.push(us.sample(load, effort)?);
            sides.theirs.push(them.sample(load, effort)?);
        } else {
            sides.theirs.push(them.sample(load, effort)?);
            sides.ours.push(us.sample(load, effort)?);
        }
    }
    Ok(sides)
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
            contest::GENERATOR_CPU,
            effort.warm_up.as_millis(),
            effort.duration.as_millis()
        );
        contest::sample(&words, &self.processes)
    }
}

impl Nutcracker {
    /// It takes no port 0, so one that is free a moment before is given to it.
    fn start(memcached: impl Iterator<Item = SocketAddr>) -> Nutcracker {
        let dir = TempDir::new().expect("the temporary folder is writable");
        let server = |(number, addr)| format!("   - {addr}:1 items-{number}\n");
        let [addr, statistics] = [free_address(), free_address()];
        let settings = format!(
            "peers:\n  listen: {addr}\n  hash: fnv1a_64\n  distribution: ketama\n  \
             preconnect: true\n  servers:\n{}",
            memcached.enumerate().map(server).collect::<String>()
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
