//! A running cluster: a control plane and its nodes, each a process of its own, on loopback.
//!
//! Reached only as operators and clients reach it: command line, printed lines, sockets.

use crate::connection::{Connection, Login};
use crate::disk::Disk;
use crate::eventually::eventually;
use crate::larder::{DataDir, program, resolve};
use crate::process::{Process, command_under};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

/// How long a cluster may take to agree on an epoch. It takes less than a second; test machines stall.
pub const SETTLED_TIME_MAX: Duration = Duration::from_secs(60);

/// Settings of a cluster to which nothing shall happen, on a machine that may stand still for seconds: no
/// node takes another for silent because of it.
pub const PATIENT: &[(&str, &str)] = &[("link_timeout_ms", "20000"), ("link_silence_ms", "10000")];

/// A control plane and its nodes; all of them end with it.
pub struct Cluster {
    pub control: Process,
    pub nodes: Vec<Node>,
    /// Where nodes connect, and where control listens for them: not the same when it does so everywhere.
    control_address: String,
    nodes_listen: SocketAddr,
    /// Control's.
    dir: DataDir,
    /// Of nodes that have one of their own, by their numbers.
    disks: BTreeMap<usize, Disk>,
    /// A folder for each node.
    nodes_dir: DataDir,
    backends: usize,
    settings: Vec<(String, String)>,
    /// Words before control's own.
    control_under: Vec<String>,
    /// Another program than the one under test.
    control_program: Option<PathBuf>,
}

/// One node: a proxy and its backends.
pub struct Node {
    pub name: String,
    pub process: Process,
    /// Where memcached clients connect; another one after a restart.
    pub addr: SocketAddr,
    /// What it was started with beside what all are, and is started with again.
    arguments: Vec<String>,
    under: Vec<String>,
    /// Another program than the one under test.
    program: Option<PathBuf>,
}

/// What `larder cluster diagnose` found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The word for programs, such as `blocked-link`.
    pub fault: String,
    pub node: String,
    /// What to do about it, in words.
    pub advice: String,
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
        Cluster::start_as(None, nodes, backends, settings)
    }

    /// The same with another program than the one under test, such as an older one.
    #[track_caller]
    pub fn start_as(
        other: Option<&Path>,
        nodes: usize,
        backends: usize,
        settings: &[(&str, &str)],
    ) -> Cluster {
        let listen = "127.0.0.1:0";
        let mut cluster =
            Cluster::start_any_control(other, DataDir::new(), &[], listen, backends, settings);
        for number in 0..nodes {
            cluster.add_any_node(other, &[], &format!("n{number}"), &[]);
        }
        cluster.wait_until_settled(nodes);
        cluster
    }

    /// Starts a control plane alone that takes nodes at this address, such as `0.0.0.0:0`.
    #[track_caller]
    pub fn start_control(
        nodes_listen: &str,
        backends: usize,
        settings: &[(&str, &str)],
    ) -> Cluster {
        Cluster::start_control_under(&[], nodes_listen, backends, settings)
    }

    /// The same under a program that becomes it: these words come before its own.
    #[track_caller]
    pub fn start_control_under(
        under: &[String],
        nodes_listen: &str,
        backends: usize,
        settings: &[(&str, &str)],
    ) -> Cluster {
        Cluster::start_any_control(None, DataDir::new(), under, nodes_listen, backends, settings)
    }

    /// The same with this data directory.
    #[track_caller]
    pub fn start_control_in(
        dir: DataDir,
        nodes_listen: &str,
        backends: usize,
        settings: &[(&str, &str)],
    ) -> Cluster {
        Cluster::start_any_control(None, dir, &[], nodes_listen, backends, settings)
    }

    #[track_caller]
    fn start_any_control(
        other: Option<&Path>,
        dir: DataDir,
        under: &[String],
        nodes_listen: &str,
        backends: usize,
        settings: &[(&str, &str)],
    ) -> Cluster {
        let (settings, control_under) = (variables(settings), [under, &dir.under()].concat());
        let (control, control_address) =
            start_control(&control_under, other, &dir, nodes_listen, &settings);
        let mut nodes_listen = resolve(nodes_listen);
        nodes_listen.set_port(resolve(&control_address).port());
        let (nodes, nodes_dir) = (Vec::new(), DataDir::new());
        Cluster {
            control,
            nodes,
            control_address,
            nodes_listen,
            dir,
            disks: BTreeMap::new(),
            nodes_dir,
            backends,
            settings,
            control_under,
            control_program: other.map(Path::to_owned),
        }
    }

    /// Starts one more node, with more arguments if need be. Does not wait for the cluster to take it
    /// in.
    #[track_caller]
    pub fn add_node(&mut self, name: &str, arguments: &[&str]) {
        self.add_node_under(&[], name, arguments);
    }

    /// The same under a program that becomes it: these words come before its own.
    #[track_caller]
    pub fn add_node_under(&mut self, under: &[String], name: &str, arguments: &[&str]) {
        self.add_any_node(None, under, name, arguments);
    }

    #[track_caller]
    fn add_any_node(
        &mut self,
        other: Option<&Path>,
        under: &[String],
        name: &str,
        arguments: &[&str],
    ) {
        let token = self.run(&["node", "token", "--name", name]);
        let token = token["token"].as_str().expect("a token is text").to_owned();
        let arguments: Vec<String> = arguments.iter().map(|&it| it.to_owned()).collect();
        let node = self.start_node(under, other, name, &arguments, &["--join", &token]);
        self.nodes.push(node);
    }

    /// The same with its data directory on a disk of its own, in memory, of this size.
    ///
    /// # Errors
    /// When this machine lets nobody mount anything, in words.
    #[track_caller]
    pub fn add_node_on_disk(
        &mut self,
        under: &[String],
        name: &str,
        arguments: &[&str],
        kilobytes: u32,
    ) -> Result<(), String> {
        let folder = self.data_of(name);
        std::fs::create_dir_all(&folder).expect("the temporary folder is writable");
        let disk = Disk::over(&folder, kilobytes)?;
        self.add_node_under(&[under, &disk.under()].concat(), name, arguments);
        self.disks.insert(self.nodes.len() - 1, disk);
        Ok(())
    }

    /// The disk of a node that was given one.
    pub fn disk_of(&self, node: usize) -> Option<&Disk> {
        self.disks.get(&node)
    }

    /// Control's, if it was given one.
    pub fn control_disk(&self) -> Option<&Disk> {
        self.dir.disk()
    }

    /// Where nodes connect to control.
    pub fn control_address(&self) -> SocketAddr {
        resolve(&self.control_address)
    }

    /// Where control answers people and programs.
    #[track_caller]
    pub fn control_api(&self) -> SocketAddr {
        let url = self.control.line_after("LARDER_CONTROL=").expect("it is written first");
        resolve(url.trim_start_matches("http://"))
    }

    /// What `larder cluster diagnose` finds.
    #[track_caller]
    pub fn findings(&self) -> Vec<Finding> {
        let output = self.dir.try_run(&["cluster", "diagnose"]);
        let diagnosis: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("no diagnosis ({error}): {output:?}"));
        let findings = diagnosis["findings"].as_array().expect("there is a list of findings");
        let found: Vec<Finding> = findings
            .iter()
            .map(|it| {
                let word =
                    |name: &str| it[name].as_str().expect("findings are in words").to_owned();
                Finding { fault: word("fault"), node: word("node"), advice: word("advice") }
            })
            .collect();
        assert_eq!(output.status.success(), found.is_empty(), "the exit code says it, too");
        found
    }

    /// Whether `larder cluster diagnose` names this fault at this node, and says what to do.
    #[track_caller]
    pub fn is_named(&self, fault: &str, node: &str) -> bool {
        let is = |it: &Finding| it.fault == fault && it.node == node && !it.advice.is_empty();
        self.findings().iter().any(is)
    }

    /// Kills a node's process, as a crash does.
    pub fn kill(&mut self, node: usize) {
        let process = &mut self.nodes[node].process;
        process.signal(Signal::KILL);
        process.wait_for_end(SETTLED_TIME_MAX);
    }

    /// Asks a node's process to end, as a service manager does.
    pub fn end(&mut self, node: usize) {
        let process = &mut self.nodes[node].process;
        process.signal(Signal::TERM);
        process.wait_for_end(SETTLED_TIME_MAX);
    }

    /// Has a node be another program from its next start on, such as an older one; `None` is the one under
    /// test.
    pub fn become_program(&mut self, node: usize, program: Option<&Path>) {
        self.nodes[node].program = program.map(Path::to_owned);
    }

    /// Has a node listen for the others where it does now whenever it is started again, as on a machine of
    /// its own: while control is away, nobody tells the others where else it would be.
    #[track_caller]
    pub fn keep_peers_address(&mut self, node: usize) {
        let status = self.status();
        let Node { name, arguments, .. } = &mut self.nodes[node];
        let all = status["nodes"].as_array().expect("there is a list of nodes");
        let own = all.iter().find(|it| it["name"] == name.as_str());
        let address =
            own.and_then(|it| it["peers"].as_str()).expect("it has said where it listens");
        let flag = "--peers-listen";
        if let Some(at) = arguments.iter().position(|it| it == flag) {
            arguments.drain(at..at + 2);
        }
        arguments.extend([flag, address].map(str::to_owned));
    }

    /// Starts the process of a killed node again, with its data directory.
    #[track_caller]
    pub fn restart(&mut self, node: usize) {
        let Node { name, arguments, under, program, .. } = &self.nodes[node];
        self.nodes[node] = self.start_node(under, program.as_deref(), name, arguments, &[]);
    }

    /// Has another machine take the place of a killed node: its name, an empty data directory, and the
    /// token of `larder node replace`.
    #[track_caller]
    pub fn replace(&mut self, node: usize) {
        let Node { name, arguments, under, program, .. } = &self.nodes[node];
        std::fs::remove_dir_all(self.data_of(name)).expect("the folder of a node that has ended");
        let token = self.run(&["node", "replace", name]);
        let token = token["token"].as_str().expect("a token is text");
        let joining = ["--join", token];
        self.nodes[node] = self.start_node(under, program.as_deref(), name, arguments, &joining);
    }

    /// Kills the control plane, if it has not ended yet, and starts it again at the same address.
    #[track_caller]
    pub fn restart_control(&mut self) {
        if !self.control.has_ended() {
            self.control.signal(Signal::KILL);
            self.control.wait_for_end(SETTLED_TIME_MAX);
        }
        let listen = self.nodes_listen.to_string();
        let (under, other) = (&self.control_under, self.control_program.as_deref());
        (self.control, self.control_address) =
            start_control(under, other, &self.dir, &listen, &self.settings);
    }

    /// Asks control's process to end and starts it again as another program, such as an older one; `None`
    /// is the one under test.
    #[track_caller]
    pub fn restart_control_as(&mut self, other: Option<&Path>) {
        self.control_program = other.map(Path::to_owned);
        self.control.signal(Signal::TERM);
        self.control.wait_for_end(SETTLED_TIME_MAX);
        self.restart_control();
    }

    /// Starts a node's process: with its own arguments, those of this one start, and what all have that
    /// neither says.
    #[track_caller]
    fn start_node(
        &self,
        under: &[String],
        other: Option<&Path>,
        name: &str,
        arguments: &[String],
        this_time: &[&str],
    ) -> Node {
        let says = |flag: &str| arguments.iter().any(|it| it == flag);
        let data = self.data_of(name);
        let backends = self.backends.to_string();
        // Clients reach it at every address of this machine that it may be told to advertise.
        let listen = if says("--advertise") { "0.0.0.0:0" } else { "127.0.0.1:0" };
        let mut command = command_under(under, other.unwrap_or_else(|| program()));
        command.args(["node", "--name", name]).arg("--data").arg(data).args(arguments);
        for (flag, value) in [
            ("--control", self.control_address.as_str()),
            ("--listen", listen),
            ("--peers-listen", "127.0.0.1:0"),
            ("--memory", "256MiB"),
            ("--backends", backends.as_str()),
        ] {
            if !says(flag) {
                command.args([flag, value]);
            }
        }
        let mut process = Process::start(command.args(this_time).envs(self.settings.clone()));
        // The last of the lines that a node writes.
        process.wait_for_line("LARDER_NODE=");
        let addr =
            resolve(&process.line_after("MEMCACHIER_SERVERS=").expect("it is written before"));
        let (arguments, under) = (arguments.to_vec(), under.to_vec());
        let program = other.map(Path::to_owned);
        Node { name: name.to_owned(), process, addr, arguments, under, program }
    }

    /// Gives a setting another value, for processes that are started from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        let variable = format!("LARDER_{}", name.to_uppercase());
        self.settings.retain(|(known, _)| *known != variable);
        self.settings.push((variable, value.to_owned()));
    }

    /// A node's data directory.
    pub fn data_of(&self, node: &str) -> PathBuf {
        self.nodes_dir.path().join(node)
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

    /// What `larder cluster status` says, whatever its exit code says of alarms.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.dir.ask(&["cluster", "status"])
    }

    /// The part of all slots that a node's backends own, as the status says.
    #[track_caller]
    pub fn share_of(&self, node: &str) -> f64 {
        let status = self.status();
        let members = status["members"].as_array().expect("there is a list of members");
        let own = members.iter().filter(|member| member["node"] == node);
        own.map(|member| member["share"].as_f64().expect("a share is a number")).sum()
    }

    /// Makes a cache and a credential for it with every capability.
    #[track_caller]
    pub fn create_cache(&self, name: &str, plan: &str) -> Login {
        self.run(&["cache", "create", name, "--plan", plan]);
        Login::told(&self.run(&["credential", "add", name]))
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
        self.dir.run(arguments)
    }

    /// The same, also when it fails.
    #[track_caller]
    pub fn try_run(&self, arguments: &[&str]) -> Output {
        self.dir.try_run(arguments)
    }

    /// Control's data directory.
    pub fn control_folder(&self) -> PathBuf {
        self.dir.seen_from_here()
    }
}

/// Settings as environment variables.
pub(crate) fn variables(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    let one = |(name, value): &(&str, &str)| {
        (format!("LARDER_{}", name.to_uppercase()), (*value).to_owned())
    };
    settings.iter().map(one).collect()
}

#[track_caller]
fn start_control(
    under: &[String],
    other: Option<&Path>,
    dir: &DataDir,
    nodes_listen: &str,
    settings: &[(String, String)],
) -> (Process, String) {
    let mut command = command_under(under, other.unwrap_or_else(|| program()));
    command.args(["control", "--listen", "127.0.0.1:0", "--nodes-listen", nodes_listen, "--data"]);
    command.arg(dir.path()).envs(settings.iter().cloned());
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
