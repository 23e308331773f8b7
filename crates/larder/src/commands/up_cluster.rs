//! `larder up --nodes N`: a whole cluster on this machine, to try it and to see what happens to it.
//!
//! ```text
//!   larder up ──┬── larder control            state in DIR, as that of a lone `larder up`
//!               ├── larder node  node-0       state in DIR/node-0
//!               └── larder node  node-1 …     each killed one is started again after a moment
//! ```
//!
//! Each is the process that one would start by hand on machines of their own. They end with the
//! standard input that this process holds for them, so none outlives it, however it ends.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use control::contract::{CacheView, CachesView, ClusterStatusView, CreateCache, TokenView};
use daemon::shutdown::Shutdown;
use serde_json::json;
use tracing::{info, warn};

use super::up::write_private;
use crate::client::{Client, ClientError, ConnectionArgs};

/// What shall be started.
pub(super) struct ClusterWish<'a> {
    pub(super) data: &'a Path,
    pub(super) nodes: u8,
    pub(super) backends: u8,
    /// Of the first node; the others have the ports after it, or any, if this is 0.
    pub(super) listen: SocketAddr,
    pub(super) control_listen: SocketAddr,
    /// Of control; the nodes have the ports after it, or any, if this is 0.
    pub(super) metrics_listen: Option<SocketAddr>,
    /// For all nodes together.
    pub(super) memory_bytes: u64,
    /// For all nodes together.
    pub(super) threads: usize,
    pub(super) config: Option<&'a Path>,
}

/// For a process to serve, and for the nodes to agree: it takes a second, and a busy machine stalls.
const READY_TIME_MAX: Duration = Duration::from_secs(60);
/// A process that has ended is started again after this: time enough to see that it had.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// One that ends so soon after its start will not do better the next time.
const LIFE_MIN: Duration = Duration::from_secs(5);
/// How often such a one is started again all the same.
const SHORT_LIVES_MAX: u32 = 5;
/// How often to look whether one has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What clients have begun is finished in less; a process that takes longer hangs.
const STOP_TIME_MAX: Duration = Duration::from_secs(60);

/// Why there is no cluster, or none any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterUpError {
    #[error("cannot start {what}")]
    Start { what: String, source: io::Error },
    #[error("{what} ended before it served; its log says why")]
    Ended { what: String },
    #[error("{what} does not serve after {} s", READY_TIME_MAX.as_secs())]
    NotReady { what: String },
    #[error("{what} ended {SHORT_LIVES_MAX} times soon after its start; its log says why")]
    KeepsEnding { what: String },
    #[error("the nodes do not agree after {} s; see larder cluster diagnose", READY_TIME_MAX.as_secs())]
    NotSettled,
    #[error("control does not answer")]
    Control(#[from] ClientError),
    #[error("cannot write {path}")]
    EnvFile { path: PathBuf, source: io::Error },
    #[error("the command line cannot be used: {0}")]
    CommandLine(&'static str),
}

/// Runs the cluster until a signal asks to stop.
pub(super) fn run(
    wish: &ClusterWish<'_>,
    env_file: Option<&Path>,
    shutdown: &Shutdown,
) -> Result<(), ClusterUpError> {
    let metrics = |number| metrics_listen(wish, number);
    let mut control =
        Supervised::new("control".to_owned(), control_arguments(wish, None), metrics(0)?);
    let said = control.start("LARDER_NODES=")?;
    let nodes_address = value(&said, "LARDER_NODES=")
        .ok_or_else(|| ClusterUpError::NotReady { what: "control".to_owned() })?;
    // Should it end, the nodes look for it where it was.
    control.arguments = control_arguments(wish, Some(&nodes_address));
    let control_url = value(&said, "LARDER_CONTROL=").unwrap_or_default();
    let client = ConnectionArgs::of(wish.data).client()?;
    let cache = development_cache(&client)?;
    let mut all = vec![control];
    let mut servers = Vec::new();
    for number in 0..wish.nodes {
        let name = format!("node-{number}");
        let token: TokenView = client.post("/v1/nodes/token", &json!({ "name": name }))?;
        let arguments = node_arguments(wish, number, &name, &nodes_address, &token.token)?;
        let mut node = Supervised::new(name, arguments, metrics(u16::from(number) + 1)?);
        let said = node.start("LARDER_NODE=")?;
        servers.extend(value(&said, "MEMCACHIER_SERVERS="));
        all.push(node);
    }
    settled(&client, usize::from(wish.nodes) * usize::from(wish.backends), shutdown)?;
    let mut variables = format!("MEMCACHIER_SERVERS={}\n", servers.join(","));
    for credential in cache.credentials.iter().flatten().filter(|it| it.primary) {
        let password = credential.password.as_deref().unwrap_or_default();
        variables.push_str(&format!("MEMCACHIER_USERNAME={}\n", credential.username));
        variables.push_str(&format!("MEMCACHIER_PASSWORD={password}\n"));
    }
    if let Some(url) = &cache.dashboard_url {
        variables.push_str(&format!("LARDER_DASHBOARD={url}\n"));
    }
    variables.push_str(&format!("LARDER_CONTROL={control_url}\n"));
    if let Some(path) = env_file {
        write_private(path, &variables)
            .map_err(|source| ClusterUpError::EnvFile { path: path.to_owned(), source })?;
    }
    // Nobody may be reading our output; that is no reason not to serve.
    let advice = "\nLook at it with `larder cluster status`, kill a `larder node` and see what happens; \
                  stop it with Ctrl-C.\n";
    drop(io::stdout().write_all((variables + advice).as_bytes()));
    drop(io::stdout().flush());
    let ended = supervise(&mut all, shutdown);
    // Nodes first: they tell control what they have until they end.
    while let Some(last) = all.pop() {
        last.stop();
    }
    info!("stopped");
    ended
}

/// Where the process of this number tells its metrics: each needs an address of its own.
fn metrics_listen(
    wish: &ClusterWish<'_>,
    number: u16,
) -> Result<Option<SocketAddr>, ClusterUpError> {
    let Some(mut listen) = wish.metrics_listen else { return Ok(None) };
    if listen.port() != 0 {
        let port = listen.port().checked_add(number);
        listen.set_port(
            port.ok_or(ClusterUpError::CommandLine("the ports after metrics_listen's end"))?,
        );
    }
    Ok(Some(listen))
}

fn control_arguments(wish: &ClusterWish<'_>, nodes_listen: Option<&str>) -> Vec<String> {
    let data = wish.data.display().to_string();
    let listen = wish.control_listen.to_string();
    let nodes_listen = nodes_listen.unwrap_or("127.0.0.1:0").to_owned();
    let flags = [("--data", data), ("--listen", listen), ("--nodes-listen", nodes_listen)];
    let config = wish.config.map(|path| ("--config", path.display().to_string()));
    let flags = flags.into_iter().chain(config).flat_map(|(flag, value)| [flag.to_owned(), value]);
    ["control", "--end-with-stdin"].into_iter().map(str::to_owned).chain(flags).collect()
}

fn node_arguments(
    wish: &ClusterWish<'_>,
    number: u8,
    name: &str,
    control: &str,
    token: &str,
) -> Result<Vec<String>, ClusterUpError> {
    let mut listen = wish.listen;
    if listen.port() != 0 {
        let port = listen.port().checked_add(number.into());
        let port = port.ok_or(ClusterUpError::CommandLine("the ports after --listen's end"))?;
        listen.set_port(port);
    }
    let nodes = u64::from(wish.nodes);
    let flags = [
        ("--name", name.to_owned()),
        ("--control", control.to_owned()),
        ("--join", token.to_owned()),
        ("--data", wish.data.join(name).display().to_string()),
        ("--listen", listen.to_string()),
        ("--peers-listen", "127.0.0.1:0".to_owned()),
        ("--backends", wish.backends.to_string()),
        ("--memory", format!("{}MiB", (wish.memory_bytes / nodes) >> 20)),
        ("--threads", (wish.threads / usize::from(wish.nodes)).max(1).to_string()),
    ];
    let flags = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
    let config = wish.config.map(|path| ["--config".to_owned(), path.display().to_string()]);
    let head = ["node", "--end-with-stdin"].into_iter().map(str::to_owned);
    Ok(head.chain(flags).chain(config.into_iter().flatten()).collect())
}

/// The cache `dev`, made if it is not there.
fn development_cache(client: &Client) -> Result<CacheView, ClientError> {
    let caches: CachesView = client.get("/v1/caches?limit=1000")?;
    let name = control::control::DEVELOPMENT_CACHE;
    if !caches.caches.iter().any(|cache| cache.name == name) {
        let wish = CreateCache { name: Some(name.to_owned()), plan: None, cluster: None };
        let _: CacheView = client.post("/v1/caches", &wish)?;
    }
    client.get(&format!("/v1/caches/{name}?passwords=true"))
}

/// Waits until all members are in an epoch that every node routes by, and are there: of one that was
/// settled before control was started last it is known that every node has it.
fn settled(client: &Client, members: usize, shutdown: &Shutdown) -> Result<(), ClusterUpError> {
    let began = Instant::now();
    while !shutdown.is_draining() {
        if READY_TIME_MAX <= began.elapsed() {
            return Err(ClusterUpError::NotSettled);
        }
        let status: ClusterStatusView = client.get("/v1/cluster/status")?;
        let is_there = |name: &str| status.nodes.iter().any(|it| it.name == name && it.connected);
        if status.members.len() == members
            && status.settled_epoch == status.epoch
            && status.members.iter().all(|member| is_there(&member.node))
        {
            return Ok(());
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// Starts again what ends, until asked to stop.
fn supervise(all: &mut [Supervised], shutdown: &Shutdown) -> Result<(), ClusterUpError> {
    while !shutdown.is_draining() {
        for process in &mut *all {
            process.look()?;
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// One process of the cluster.
struct Supervised {
    name: String,
    arguments: Vec<String>,
    metrics_listen: Option<SocketAddr>,
    child: Option<Child>,
    started_at: Instant,
    ended_at: Option<Instant>,
    short_lives: u32,
}

impl Supervised {
    fn new(name: String, arguments: Vec<String>, metrics_listen: Option<SocketAddr>) -> Self {
        let started_at = Instant::now();
        Supervised {
            name,
            arguments,
            metrics_listen,
            child: None,
            started_at,
            ended_at: None,
            short_lives: 0,
        }
    }

    /// Starts it and waits for its lines, of which the last begins with `last`.
    fn start(&mut self, last: &str) -> Result<Vec<String>, ClusterUpError> {
        let lines = self.spawn()?;
        let mut said = Vec::new();
        loop {
            match lines.recv_timeout(READY_TIME_MAX) {
                Ok(line) => {
                    let is_last = line.starts_with(last);
                    said.push(line);
                    if is_last {
                        return Ok(said);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(ClusterUpError::NotReady { what: self.name.clone() });
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(ClusterUpError::Ended { what: self.name.clone() });
                }
            }
        }
    }

    /// Its lines come out of the receiver; nobody needs to listen.
    fn spawn(&mut self) -> Result<Receiver<String>, ClusterUpError> {
        let failed = |source| ClusterUpError::Start { what: self.name.clone(), source };
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        if let Some(listen) = self.metrics_listen {
            // Stronger than the file that they all read.
            command.env("LARDER_METRICS_LISTEN", listen.to_string());
        }
        let mut child = command
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for us; they are asked to stop one after the other.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let (tell, hear) = mpsc::channel();
        let follow = move || {
            for line in lines.map_while(Result::ok) {
                // Read on all the same: a full pipe would hold the process up.
                drop(tell.send(line));
            }
        };
        thread::Builder::new().spawn(follow).map_err(failed)?;
        self.child = Some(child);
        self.started_at = Instant::now();
        Ok(hear)
    }

    /// Starts it again if it has ended, after a moment.
    fn look(&mut self) -> Result<(), ClusterUpError> {
        let failed = |source| ClusterUpError::Start { what: self.name.clone(), source };
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait().map_err(failed)?
        {
            warn!(process = self.name, %status, "a process has ended and is started again");
            self.child = None;
            self.ended_at = Some(Instant::now());
            let is_short = self.started_at.elapsed() < LIFE_MIN;
            self.short_lives = if is_short { self.short_lives + 1 } else { 0 };
            if SHORT_LIVES_MAX <= self.short_lives {
                return Err(ClusterUpError::KeepsEnding { what: self.name.clone() });
            }
        }
        if self.ended_at.is_some_and(|at| RESTART_AFTER <= at.elapsed()) {
            self.ended_at = None;
            drop(self.spawn()?);
        }
        Ok(())
    }

    /// Asks it to finish what clients have begun, and waits until it has.
    fn stop(mut self) {
        let Some(child) = &mut self.child else { return };
        drop(child.stdin.take());
        let began = Instant::now();
        while began.elapsed() < STOP_TIME_MAX {
            match child.try_wait() {
                Ok(None) => thread::sleep(LOOK_EVERY),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        warn!(process = self.name, "a process does not stop and is killed");
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It has ended, or it hangs.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// The rest of the line that begins so.
fn value(lines: &[String], prefix: &str) -> Option<String> {
    lines.iter().find_map(|line| line.strip_prefix(prefix).map(str::to_owned))
}
