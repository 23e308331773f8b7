//! A running cluster: a control plane and its nodes, each a process of its own, on loopback.
//!
//! Reached only as operators and clients reach it: command line, printed lines, sockets.

use crate::connection::{Connection, Login};
use crate::eventually::eventually;
use crate::larder::{DataDir, program, resolve};
use crate::process::Process;
use rustix::process::Signal;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

/// How long a cluster may take to agree on an epoch. It takes less than a second; test machines stall.
pub const SETTLED_TIME_MAX: Duration = Duration::from_secs(60);

/// A control plane and its nodes; all of them end with it.
pub struct Cluster {
    pub control: Process,
    pub nodes: Vec<Node>,
    /// Where nodes connect.
    control_address: String,
    dir: DataDir,
    backends: usize,
    settings: Vec<(String, String)>,
}

/// One node: a proxy and its backends.
pub struct Node {
    pub name: String,
    pub process: Process,
    /// Where memcached clients connect; another one after a restart.
    pub addr: SocketAddr,
}

impl Cluster {
    /// Starts a control plane and nodes `n0`, `n1`, …, and waits until their first common epoch is
    /// settled.
    #[track_caller]
    pub fn start(nodes: usize, backends: usize) -> Cluster {
        Cluster::start_with(nodes, backends, &[])
    }

    /// The same, with settings of all processes by their names, such as `threads`.
    #[track_caller]
    pub fn start_with(nodes: usize, backends: usize, settings: &[(&str, &str)]) -> Cluster {
        let dir = DataDir::new();
        let setting = |(name, value): &(&str, &str)| {
            (format!("LARDER_{}", name.to_uppercase()), (*value).to_owned())
        };
        let settings: Vec<(String, String)> = settings.iter().map(setting).collect();
        let (control, control_address) = start_control(&dir, "127.0.0.1:0", &settings);
        let mut cluster =
            Cluster { control, nodes: Vec::new(), control_address, dir, backends, settings };
        for number in 0..nodes {
            cluster.add_node(&format!("n{number}"), &[]);
        }
        cluster.wait_until_settled(nodes);
        cluster
    }

    /// Starts one more node, with more arguments if need be. Does not wait for the cluster to take it
    /// in.
    #[track_caller]
    pub fn add_node(&mut self, name: &str, arguments: &[&str]) {
        let token = self.run(&["node", "token", "--name", name]);
        let token = token["token"].as_str().expect("a token is text").to_owned();
        let node = self.start_node(name, &[&["--join", &token], arguments].concat());
        self.nodes.push(node);
    }

    /// Where nodes connect to control.
    pub fn control_address(&self) -> SocketAddr {
        resolve(&self.control_address)
    }

    /// What `larder cluster diagnose` finds, as (fault, node).
    #[track_caller]
    pub fn findings(&self) -> Vec<(String, String)> {
        let output = self.try_run(&["cluster", "diagnose"]);
        let diagnosis = json(&output).unwrap_or_else(|| panic!("no diagnosis: {output:?}"));
        let findings = diagnosis["findings"].as_array().expect("there is a list of findings");
        let word = |finding: &Value, name: &str| {
            finding[name].as_str().expect("findings are in words").to_owned()
        };
        let found: Vec<_> =
            findings.iter().map(|it| (word(it, "fault"), word(it, "node"))).collect();
        assert_eq!(output.status.success(), found.is_empty(), "the exit code says it, too");
        found
    }

    /// Kills a node's process, as a crash does.
    pub fn kill(&mut self, node: usize) {
        let process = &mut self.nodes[node].process;
        process.signal(Signal::KILL);
        process.wait_for_end(SETTLED_TIME_MAX);
    }

    /// Starts the process of a killed node again, with its data directory.
    #[track_caller]
    pub fn restart(&mut self, node: usize) {
        let name = self.nodes[node].name.clone();
        self.nodes[node] = self.start_node(&name, &[]);
    }

    /// Has another machine take the place of a killed node: its name, an empty data directory, and the
    /// token of `larder node replace`.
    #[track_caller]
    pub fn replace(&mut self, node: usize) {
        let name = self.nodes[node].name.clone();
        std::fs::remove_dir_all(self.data_of(&name)).expect("the folder of a node that has ended");
        let token = self.run(&["node", "replace", &name]);
        let token = token["token"].as_str().expect("a token is text").to_owned();
        self.nodes[node] = self.start_node(&name, &["--join", &token]);
    }

    /// Kills the control plane and starts it again at the same address.
    #[track_caller]
    pub fn restart_control(&mut self) {
        self.control.signal(Signal::KILL);
        self.control.wait_for_end(SETTLED_TIME_MAX);
        let address = self.control_address.clone();
        (self.control, self.control_address) = start_control(&self.dir, &address, &self.settings);
    }

    #[track_caller]
    fn start_node(&self, name: &str, arguments: &[&str]) -> Node {
        let mut command = Command::new(program());
        command.args(["node", "--name", name]);
        if !arguments.contains(&"--control") {
            command.args(["--control", &self.control_address]);
        }
        // Clients reach it at every address of this machine that it may be told to advertise.
        let listen = if arguments.contains(&"--advertise") { "0.0.0.0:0" } else { "127.0.0.1:0" };
        command.arg("--data").arg(self.data_of(name)).args(["--listen", listen]);
        command.args(["--memory", "256MiB", "--backends", &self.backends.to_string()]);
        if !arguments.contains(&"--peers-listen") {
            command.args(["--peers-listen", "127.0.0.1:0"]);
        }
        command.args(arguments).envs(self.settings.clone());
        let mut process = Process::start(&mut command);
        // The last of the lines that a node writes.
        process.wait_for_line("LARDER_NODE=");
        let addr = process.line_after("MEMCACHIER_SERVERS=").expect("it is written before");
        Node { name: name.to_owned(), process, addr: resolve(&addr) }
    }

    /// Gives a setting another value, for processes that are started from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        let variable = format!("LARDER_{}", name.to_uppercase());
        self.settings.retain(|(known, _)| *known != variable);
        self.settings.push((variable, value.to_owned()));
    }

    /// A node's data directory.
    pub fn data_of(&self, node: &str) -> PathBuf {
        self.dir.path().join(format!("node-{node}"))
    }

    /// Waits until an epoch with this many nodes is settled, and every one of them has a link to every
    /// member. Returns the epoch.
    #[track_caller]
    pub fn wait_until_settled(&self, nodes: usize) -> u64 {
        let members = nodes * self.backends;
        eventually(&format!("an epoch of {nodes} nodes was settled"), SETTLED_TIME_MAX, || {
            let status = self.status();
            let all = status["nodes"].as_array().expect("there is a list of nodes");
            let epoch = status["epoch"].as_u64().filter(|&epoch| epoch > 0)?;
            let follows = |node: &&Value| {
                node["connected"] == true
                    && node["epoch"] == epoch
                    && node["links"].as_u64() == Some(members as u64)
            };
            let has_all = status["members"].as_array().is_some_and(|all| all.len() == members);
            let is_settled = status["settled_epoch"] == epoch && has_all;
            (is_settled && all.iter().filter(follows).count() == nodes).then_some(epoch)
        })
    }

    /// What `larder cluster status` says.
    #[track_caller]
    pub fn status(&self) -> Value {
        let output = self.try_run(&["cluster", "status"]);
        // Its exit code says that some node has an alarm; what it printed is the same.
        json(&output).unwrap_or_else(|| panic!("no status: {output:?}"))
    }

    /// Makes a cache and a credential for it with every capability.
    #[track_caller]
    pub fn create_cache(&self, name: &str, plan: &str) -> Login {
        self.run(&["cache", "create", name, "--plan", plan]);
        let made = self.run(&["credential", "add", name]);
        let word = |name: &str| made[name].as_str().expect("credentials are text").to_owned();
        Login { username: word("username"), password: word("password") }
    }

    /// An authenticated connection to a node's proxy, as soon as the node knows the credential.
    #[track_caller]
    pub fn connect(&self, node: usize, login: &Login) -> Connection {
        let addr = self.nodes[node].addr;
        eventually("the node knows the credential", SETTLED_TIME_MAX, || {
            log_in(addr, login).map_err(drop).ok()
        })
    }

    /// Runs `larder <arguments> --json` against this control plane and returns what it printed.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Value {
        let output = self.try_run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "larder {arguments:?} failed: {error}");
        json(&output).unwrap_or_else(|| panic!("larder {arguments:?} printed no JSON: {output:?}"))
    }

    #[track_caller]
    pub fn try_run(&self, arguments: &[&str]) -> Output {
        Command::new(program())
            .args(arguments)
            .args(["--json", "--data"])
            .arg(self.dir.path().join("control"))
            .output()
            .expect("the program that serves can also be run as a command")
    }
}

#[track_caller]
fn start_control(
    dir: &DataDir,
    nodes_listen: &str,
    settings: &[(String, String)],
) -> (Process, String) {
    let mut command = Command::new(program());
    command.args(["control", "--listen", "127.0.0.1:0", "--nodes-listen", nodes_listen, "--data"]);
    command.arg(dir.path().join("control")).envs(settings.iter().cloned());
    let mut control = Process::start(&mut command);
    let address = control.wait_for_line("LARDER_NODES=");
    (control, address)
}

/// Connects and authenticates in the text dialect.
pub fn log_in(addr: SocketAddr, login: &Login) -> std::io::Result<Connection> {
    let mut connection = Connection::try_open(addr)?;
    connection.try_send(login.text().as_bytes())?;
    match connection.try_line()?.as_str() {
        "STORED\r\n" => Ok(connection),
        refused => Err(std::io::Error::other(refused.to_owned())),
    }
}

fn json(output: &Output) -> Option<Value> {
    serde_json::from_slice(&output.stdout).ok()
}
