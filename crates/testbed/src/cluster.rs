//! `larder control` and `larder node` as real processes.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::connection::{Connection, Login};
use crate::disk::Disk;
use crate::eventually::{DEADLINE, eventually};
use crate::fleet::{PATIENT, variables};
use crate::larder::{DataDir, program};
use crate::process::{Process, command_under};

/// A control plane with a folder of its own.
pub struct ControlPlane {
    pub process: Process,
    /// Where nodes connect.
    pub nodes: String,
    dir: DataDir,
}

impl ControlPlane {
    #[track_caller]
    pub fn start() -> ControlPlane {
        ControlPlane::start_in(DataDir::default(), "127.0.0.1:0")
    }

    #[track_caller]
    fn start_in(dir: DataDir, nodes: &str) -> ControlPlane {
        let mut command = Command::new(program());
        command.args(["control", "--listen", "127.0.0.1:0", "--nodes-listen", nodes, "--data"]);
        let mut process = Process::start(command.arg(dir.path()));
        let nodes = process.wait_for_line("LARDER_NODES=");
        ControlPlane { process, nodes, dir }
    }

    /// A control plane with the state and the address of this one, which must have ended.
    #[track_caller]
    pub fn start_again(&self) -> ControlPlane {
        ControlPlane::start_in(self.dir.clone(), &self.nodes)
    }

    /// Its data directory.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Runs `larder <arguments> --data DIR --json` and returns what it printed, whatever its exit code
    /// says of the cluster.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Value {
        self.dir.ask(arguments)
    }

    #[track_caller]
    pub fn try_run(&self, arguments: &[&str]) -> Output {
        self.dir.try_run(arguments)
    }

    /// A token for a node to join with.
    #[track_caller]
    pub fn token(&self) -> String {
        let token = self.run(&["node", "token"]);
        token["token"].as_str().expect("a token is text").to_owned()
    }

    /// Makes a cache and returns the login of its primary credential.
    #[track_caller]
    pub fn create_cache(&self, name: &str) -> Login {
        Login::told(&self.run(&["cache", "create", name, "--plan", "100"])["credentials"][0])
    }

    /// Waits until every node has everything, and routes by a settled epoch with so many members.
    #[track_caller]
    pub fn wait_until_settled(&self, members: usize) -> Value {
        eventually("every node had everything and the epoch was settled", DEADLINE, || {
            let status = self.run(&["cluster", "status"]);
            let nodes = status["nodes"].as_array().expect("a list of nodes");
            let is_good = |node: &Value| {
                node["connected"] == true
                    && node["digest"] == status["digest"]
                    && node["epoch"] == status["epoch"]
                    && node["links"] == members
            };
            let is_settled = status["epoch"] != 0 && status["epoch"] == status["settled_epoch"];
            (is_settled && nodes.iter().all(is_good)).then_some(status)
        })
    }
}

/// A node with a folder of its own.
pub struct Node {
    pub process: Process,
    /// Where memcached clients connect.
    pub addr: SocketAddr,
    control: String,
    dir: DataDir,
}

impl Node {
    /// Joins the cluster under this name.
    #[track_caller]
    pub fn join(control: &ControlPlane, name: &str) -> Node {
        Node::join_sized(control, name, "256MiB", "2")
    }

    /// The same with so much memory for so many backends.
    #[track_caller]
    pub fn join_sized(control: &ControlPlane, name: &str, memory: &str, backends: &str) -> Node {
        let token = control.token();
        let arguments = ["--join", &token, "--name", name];
        let size = ["--memory", memory, "--backends", backends];
        Node::start(&control.nodes, DataDir::default(), &[arguments, size].concat())
    }

    /// The same with its data directory on a disk of its own, in memory, of this size.
    ///
    /// # Panics
    /// When this machine lets nobody mount anything.
    #[track_caller]
    pub fn join_on_disk(control: &ControlPlane, name: &str, kilobytes: u32) -> Node {
        let dir = DataDir::on_disk(kilobytes).unwrap_or_else(|why| panic!("{why}"));
        let command = command_under(&dir.under(), program());
        let token = control.token();
        let arguments = ["--join", &token, "--name", name, "--memory", "256MiB"];
        Node::start_by(command, &control.nodes, dir, &arguments)
    }

    /// The disk of its own, where it was given one.
    pub fn disk(&self) -> Option<&Disk> {
        self.dir.disk()
    }

    /// A node with the state of this one, which must have ended.
    #[track_caller]
    pub fn start_again(&self) -> Node {
        let size = ["--memory", "256MiB", "--backends", "2"];
        Node::start(&self.control, self.dir.clone(), &size)
    }

    #[track_caller]
    fn start(control: &str, dir: DataDir, arguments: &[&str]) -> Node {
        Node::start_by(Command::new(program()), control, dir, arguments)
    }

    #[track_caller]
    fn start_by(mut command: Command, control: &str, dir: DataDir, arguments: &[&str]) -> Node {
        command.args(["node", "--control", control, "--listen", "127.0.0.1:0"]);
        command.args(["--threads", "1"]).args(arguments).arg("--data").arg(dir.path());
        command.envs(variables(PATIENT));
        let mut process = Process::start(&mut command);
        process.wait_for_line("LARDER_NODE=");
        let server = process.line_after("MEMCACHIER_SERVERS=").expect("it is written before");
        let addr = server.parse().expect("a literal address");
        Node { process, addr, control: control.to_owned(), dir }
    }

    #[track_caller]
    pub fn connect(&self, login: &Login) -> Connection {
        Connection::open_as(self.addr, login)
    }
}

impl Node {
    /// Starts a node that must not come up, and returns what it said.
    #[track_caller]
    pub fn refused(control: &str, arguments: &[&str]) -> String {
        let dir = DataDir::default();
        let output = Command::new(program())
            .args(["node", "--control", control, "--listen", "127.0.0.1:0"])
            .args(arguments)
            .arg("--data")
            .arg(dir.path())
            .output()
            .expect("the program can be run");
        assert!(!output.status.success(), "it came up");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}
