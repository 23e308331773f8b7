//! `larder node`: a proxy and its backends in one process, told by a control plane what to serve; and
//! `larder node …`: the nodes of a running control plane.
//!
//! ```text
//!   token ─▶ join ─▶ identity (in --data) ─▶ link to control ─▶ copy on disk ─▶ directory, backends
//!                                                                    │
//!                    the first copy there is, from disk or pushed ───┴─▶ proxy listens
//! ```

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use backend::peer::{PeerError, PeerServer, PeerSettings, PeerTls};
use backend::{Backend, readiness};
use clap::{Args, Subcommand};
use cluster::member::MemberName;
use cluster::ownership::Run;
use control::contract::{ChangeMembers, TokenView};
use daemon::clock::Clock;
use daemon::descriptors;
use daemon::settings::{self, LinkTls, Settings};
use daemon::shutdown::Shutdown;
use node::identity::{Identity, IdentityError};
use node::link::{CHECK_ALL_WITHIN, Link, NodeSettings};
use node::view::View;
use proxy::cluster_handle::ClusterHandle;
use proxy::settings::Access;
use proxy::usage::ProxyUsage;
use proxy::view::ViewIdentity;
use proxy::{Proxy, StartError};
use serde_json::json;
use tenancy::directory::Directory;
use tokio::sync::watch;
use tracing::info;
use wire::control::message::{NODE_BACKENDS_MAX, NodeAddresses};
use wire::control::name::{InvalidNodeName, NodeName};

use super::cache::CommandError;
use super::cluster::{nodes, status};
use super::members::{CarryingOut, carry_out};
use super::output::{print, to_json};
use super::serving::{self, reload_certificate};
use super::up::{UpError, proxy_settings, random_seed, reachable, tls};
use crate::client::{Client, ConnectionArgs};
use crate::metrics::{self, NodeParts};
use larder::local_link::LocalLink;
use larder::member::Members;

/// Where a node keeps its identity and its copy unless told otherwise.
const NODE_DIR_DEFAULT: &str = "larder-node";

/// Serve the caches of a control plane elsewhere; or manage the nodes of one.
///
/// The first start needs a token, from `larder node token` beside the control plane. Later ones do
/// not, and serve at once from the copy on disk, whether the control plane answers or not.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  larder node token --data ./control                     on the control plane's machine
  larder node --join TOKEN --control 10.0.0.1:11290 --listen 10.0.0.2:11211
  larder node --control 10.0.0.1:11290 --listen 10.0.0.2:11211
  larder node list --data ./control"
)]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    command: Option<NodeCommand>,

    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Token to join with, at the first start
    #[arg(long, value_name = "TOKEN", env = "LARDER_JOIN", hide_env_values = true)]
    join: Option<String>,

    /// Where a control plane takes nodes; may be given several times
    // Ids of their own: the subcommands have global arguments of the same names.
    #[arg(
        id = "control_planes",
        long = "control",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:11290"
    )]
    control: Vec<String>,

    /// Directory for the node's identity and its copy
    #[arg(id = "node_data", long = "data", value_name = "DIR", default_value = NODE_DIR_DEFAULT)]
    data: PathBuf,

    /// What the cluster calls this node [default: this machine's name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Where clients connect; port 0 takes any free port [default: 127.0.0.1:11211]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,

    /// Where clients connect with TLS; makes a development certificate if none is set
    #[arg(long, value_name = "ADDR")]
    tls_listen: Option<String>,

    /// Where the proxies of other nodes connect
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    peers_listen: SocketAddr,

    /// Address under which others reach this node [default: where it listens, or if it listens on all,
    /// the address that leads to the control plane]
    #[arg(long, value_name = "IP")]
    advertise: Option<IpAddr>,

    /// Memory for the items of all caches, such as 512MiB or 4GiB [default: 1 GiB]
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,

    /// Backends, each with an equal part of the memory
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u8).range(1..=NODE_BACKENDS_MAX as i64))]
    backends: u8,

    /// Event loops; 0 is one per core [default: 0]
    #[arg(long, value_name = "N")]
    threads: Option<String>,

    /// Settings file; `larder settings` prints one with every setting explained
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// End when standard input does; for whoever starts this process to take it along
    #[arg(long, hide = true)]
    end_with_stdin: bool,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Print a token with which a node can join
    Token {
        /// Only for this node; also lets one that was there before in again, with a new key
        #[arg(long)]
        name: Option<String>,
        /// How long it is good [default: 60]
        #[arg(long, value_name = "MINUTES")]
        minutes: Option<u64>,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// List the nodes
    List {
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Give all that a node owns to the others; it goes on as a proxy. Items are lost, never stale
    Drain {
        name: String,
        #[command(flatten)]
        carrying_out: CarryingOut,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Forget a node that is drained or whose process has ended; its certificate is refused from then
    /// on, and what it owned begins empty with the others
    Remove {
        name: String,
        /// Its process has ended for good, although that cannot be seen from here. If it had not, its
        /// own clients could read old values from it
        #[arg(long)]
        process_ended: bool,
        #[command(flatten)]
        carrying_out: CarryingOut,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Print a token with which another machine takes a node's place, name and slots; no slot moves
    Replace {
        name: String,
        /// How long it is good [default: 60]
        #[arg(long, value_name = "MINUTES")]
        minutes: Option<u64>,
        #[command(flatten)]
        common: CommonArgs,
    },
}

#[derive(Debug, Args)]
struct CommonArgs {
    #[command(flatten)]
    connection: ConnectionArgs,

    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

/// Why a node could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeError {
    #[error("the settings are not right\n{0}")]
    Settings(#[from] settings::SettingsError),
    #[error("cannot set up the log")]
    Log(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot start")]
    Start(#[source] io::Error),
    #[error(transparent)]
    Descriptors(#[from] descriptors::TooFewDescriptors),
    #[error(
        "this node has not joined yet: get a token with `larder node token` beside the control plane \
         and give it with --join"
    )]
    NotJoined,
    #[error("this machine's name is no name for a node; give one with --name")]
    Name(#[from] InvalidNodeName),
    #[error("cannot join the cluster")]
    Join(#[from] IdentityError),
    #[error("cannot secure the links to other nodes")]
    LinkTls(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot read the copy in {path}")]
    Copy { path: PathBuf, source: io::Error },
    #[error("cannot serve metrics on {address}")]
    Metrics { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Peers(#[from] PeerError),
    #[error(transparent)]
    Proxy(#[from] StartError),
    #[error(transparent)]
    Up(#[from] Box<UpError>),
    #[error(transparent)]
    Command(#[from] CommandError),
}

pub(crate) fn run(args: &NodeArgs) -> Result<(), NodeError> {
    match &args.command {
        None => args.serve.run(),
        Some(command) => Ok(manage(command)?),
    }
}

fn manage(command: &NodeCommand) -> Result<(), CommandError> {
    match command {
        NodeCommand::Token { name, minutes, common } => {
            let client = common.connection.client()?;
            let token = token(&client, name.as_deref(), *minutes)?;
            let text = format!("{}\n", token.token);
            print(&if common.json { to_json(&token) } else { text })?;
        }
        NodeCommand::List { common } => {
            let status = status(&common.connection.client()?)?;
            print(&if common.json { to_json(&status.nodes) } else { nodes(&status) })?;
        }
        NodeCommand::Drain { name, carrying_out, common } => {
            let change =
                ChangeMembers { weights: [(name.clone(), 0)].into(), ..ChangeMembers::default() };
            let client = common.connection.client()?;
            carry_out(&client, change, &format!("drain {name}"), carrying_out, common.json)?;
        }
        NodeCommand::Remove { name, process_ended, carrying_out, common } => {
            let change = ChangeMembers {
                remove: vec![name.clone()],
                processes_ended: *process_ended,
                ..ChangeMembers::default()
            };
            let client = common.connection.client()?;
            carry_out(&client, change, &format!("forget {name}"), carrying_out, common.json)?;
        }
        NodeCommand::Replace { name, minutes, common } => {
            let client = common.connection.client()?;
            // A name that is no node's would make a new one.
            let status = status(&client)?;
            if !status.nodes.iter().any(|node| node.name == *name) {
                return Err(CommandError::UnknownNode { name: name.clone() });
            }
            let token = token(&client, Some(name), *minutes)?;
            let text = format!(
                "Stop what is left of {name}, and start it on the other machine with\n  larder node \
                 --name {name} --join {}\nNo slot changes its owner; what {name} held is lost.\n",
                token.token
            );
            print(&if common.json { to_json(&token) } else { text })?;
        }
    }
    Ok(())
}

fn token(
    client: &Client,
    name: Option<&str>,
    minutes: Option<u64>,
) -> Result<TokenView, CommandError> {
    let wish = json!({ "name": name, "seconds": minutes.map(|it| it.saturating_mul(60)) });
    Ok(client.post("/v1/nodes/token", &wish)?)
}

impl ServeArgs {
    fn settings(&self) -> Result<Settings, settings::SettingsError> {
        let given = [
            ("listen", "--listen", &self.listen),
            ("tls_listen", "--tls-listen", &self.tls_listen),
            ("threads", "--threads", &self.threads),
            ("memory_bytes", "--memory", &self.memory),
        ];
        serving::settings(self.config.as_deref(), &given)
    }

    /// Serves until a signal asks to stop and the clients have finished.
    fn run(&self) -> Result<(), NodeError> {
        let settings = self.settings()?;
        let _log = daemon::log::start(settings.log_level, settings.log_format)
            .map_err(|error| NodeError::Log(error.into()))?;
        let shutdown = Shutdown::on_signals().map_err(NodeError::Start)?;
        if self.end_with_stdin {
            shutdown.drain_when_stdin_ends().map_err(NodeError::Start)?;
        }
        let connections_max =
            descriptors::connections_max(settings.connections_max, descriptors::raise())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(NodeError::Start)?;
        let clock = Clock::start();
        let identity = self.identity(&runtime, clock)?;
        let name = identity.node.clone();
        let usage = Arc::new(ProxyUsage::default());
        let directory = Arc::new(Directory::new(identity.secret_key()));
        let members = self.backends(&identity, settings.memory_bytes)?;
        let backends: Vec<Arc<Backend>> =
            members.iter().map(|(_, backend)| Arc::clone(backend)).collect();
        let (link_tls, peer_tls) = link_tls(&identity, settings.link_tls)?.unzip();
        let peer_settings = PeerSettings {
            listen: self.peers_listen,
            threads: proxy_settings(&settings, Access::Credentials, 0).threads,
            cluster: identity.cluster,
            tls: peer_tls,
            drain_timeout: settings.drain_timeout,
        };
        let handle = ClusterHandle::new(link_tls);
        let view_identity = ViewIdentity {
            cluster: identity.cluster,
            node: identity.node.clone(),
            incarnation: identity.incarnation,
            backends: self.backends.into(),
        };
        let members = Arc::new(Members::new(
            members,
            handle.clone(),
            view_identity,
            Arc::clone(&usage),
            Arc::clone(&directory),
            settings.cluster_networks.clone(),
            clock,
        ));
        let (tell_addresses, addresses) = watch::channel(NodeAddresses::default());
        let node_settings = NodeSettings {
            check_all_within: CHECK_ALL_WITHIN,
            control: self.control.clone(),
            directory: self.data.clone(),
            addresses,
            backends_mib: vec![self.backend_mib(settings.memory_bytes); self.backends.into()],
        };
        let link = Link::open(
            node_settings,
            identity,
            Arc::clone(&directory),
            Arc::clone(&members) as _,
            Arc::clone(&members) as _,
        )
        .map_err(|source| NodeError::Copy { path: self.data.clone(), source })?;
        // Once the backends know the epoch on disk: nodes that are started again ask which one that is. And
        // before anything is served: whoever does not listen is taken for ended.
        let peers = PeerServer::start(peer_settings, backends.clone(), clock)?;
        let view = link.view();
        keep_copy(runtime, link)?;
        if !wait_for_copy(&view, &shutdown)? {
            return Ok(());
        }
        let metrics_address = match settings.metrics_listen {
            None => None,
            Some(listen) => {
                let registry = metrics::of_node(NodeParts {
                    proxy: Arc::clone(&usage),
                    links: handle.clone(),
                    backends: backends.clone(),
                    members,
                    view: Arc::clone(&view),
                });
                let served = metrics::serve(listen, registry, &shutdown);
                Some(served.map_err(|source| NodeError::Metrics { address: listen, source })?)
            }
        };
        let tls = tls(&settings, &self.data).map_err(Box::new)?;
        let proxy = Proxy::start(
            proxy_settings(&settings, Access::Credentials, connections_max as usize),
            tls.as_ref().map(|tls| tls.tls.clone()),
            directory,
            Arc::new(LocalLink(backends)),
            usage,
            clock,
            handle,
        )?;
        let stopper = proxy.stopper();
        shutdown.on_drain(move || stopper.drain());
        if let Some(tls) = &tls {
            reload_certificate(&shutdown, &tls.tls);
        }
        let addresses = NodeAddresses {
            clients: proxy.plain_address().map(|at| self.advertised(at)),
            clients_tls: proxy.tls_address().map(|at| self.advertised(at)),
            peers: Some(self.advertised(peers.address())),
        };
        tell_addresses.send_replace(addresses);
        // Nobody may be reading our output; that is no reason not to serve.
        let authority = tls.and_then(|tls| tls.authority);
        let mut said = metrics_address.map_or_else(String::new, metrics::line);
        said.push_str(&welcome(&name, &addresses, authority));
        drop(io::stdout().write_all(said.as_bytes()));
        drop(io::stdout().flush());
        proxy.join();
        peers.drain();
        peers.join();
        info!("stopped");
        Ok(())
    }

    /// The identity in the data directory, or one got by joining: for the first time, or anew
    /// because control was away until the certificate had ended.
    fn identity(
        &self,
        runtime: &tokio::runtime::Runtime,
        clock: Clock,
    ) -> Result<Identity, NodeError> {
        if let Some(identity) = Identity::read(&self.data)?
            && (self.join.is_none() || !identity.has_ended(clock.now().unix))
        {
            return Ok(identity);
        }
        let token = self.join.as_ref().ok_or(NodeError::NotJoined)?;
        let name = match &self.name {
            Some(name) => NodeName::parse(name)?,
            None => NodeName::parse(&machine_name())?,
        };
        let control = self.control.first().ok_or(NodeError::NotJoined)?;
        Ok(runtime.block_on(Identity::join(&self.data, token, control, name))?)
    }

    /// The backends of this process, each with its part of the memory.
    fn backends(
        &self,
        identity: &Identity,
        memory_bytes: u64,
    ) -> Result<Vec<(Run, Arc<Backend>)>, NodeError> {
        let make = |number: u8| {
            let name = MemberName::parse(&format!("{}.b{number}", identity.node))
                .expect("a node's name leaves room for a backend's number");
            let run = Run { name, incarnation: identity.incarnation };
            let seed = random_seed().map_err(Box::new)?;
            let part = memory_bytes / u64::from(self.backends);
            let backend = Arc::new(Backend::member(part, seed, run.clone()));
            readiness::keep(&backend).map_err(|error| Box::new(UpError::Thread(error)))?;
            Ok((run, backend))
        };
        (0..self.backends).map(make).collect()
    }

    fn backend_mib(&self, memory_bytes: u64) -> u32 {
        let part = memory_bytes / u64::from(self.backends);
        u32::try_from(part >> 20).unwrap_or(u32::MAX)
    }

    /// Where others reach what listens here. Links are made to literal addresses only, so "all
    /// addresses" must become one.
    fn advertised(&self, listening: SocketAddr) -> SocketAddr {
        if self.advertise.is_none() && !listening.ip().is_unspecified() {
            return listening;
        }
        let ip = self.advertise.or_else(|| self.control.iter().find_map(|it| way_to(it)));
        ip.map_or_else(|| reachable(listening), |ip| SocketAddr::new(ip, listening.port()))
    }
}

/// What the proxy and the backends of a node need to speak TLS to those of others.
fn link_tls(
    identity: &Identity,
    wish: LinkTls,
) -> Result<Option<(proxy::tls::LinkTls, PeerTls)>, NodeError> {
    let is_required = match wish {
        LinkTls::Off => return Ok(None),
        LinkTls::Either => false,
        LinkTls::Only => true,
    };
    let client = identity.client_config().map_err(|error| NodeError::LinkTls(error.into()))?;
    let server = identity.server_config().map_err(|error| NodeError::LinkTls(error.into()))?;
    Ok(Some((
        proxy::tls::LinkTls { config: Arc::new(client), is_required },
        PeerTls { config: Arc::new(server), is_required },
    )))
}

/// This machine's address on the way to `host`. Nothing is sent.
fn way_to(host: &str) -> Option<IpAddr> {
    let to = host.to_socket_addrs().ok()?.next()?;
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn machine_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let label = name.trim().split('.').next().unwrap_or_default();
    label.to_ascii_lowercase()
}

/// Runs the link on a thread of its own: it waits for disks, and nothing that serves shall.
fn keep_copy(runtime: tokio::runtime::Runtime, link: Link) -> Result<JoinHandle<()>, NodeError> {
    let thread = std::thread::Builder::new().name("control-link".to_owned());
    thread.spawn(move || runtime.block_on(link.run())).map_err(NodeError::Start)
}

/// Waits until there is something to serve by; `false` when asked to stop before.
fn wait_for_copy(view: &View, shutdown: &Shutdown) -> Result<bool, NodeError> {
    if view.is_ready() {
        return Ok(true);
    }
    info!("waiting for the first copy from the control plane");
    let runtime =
        tokio::runtime::Builder::new_current_thread().build().map_err(NodeError::Start)?;
    Ok(runtime.block_on(async {
        tokio::select! {
            () = view.ready() => true,
            () = shutdown.draining() => false,
        }
    }))
}

/// `NAME=value` lines, as `larder up` prints them.
fn welcome(name: &NodeName, addresses: &NodeAddresses, authority: Option<PathBuf>) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            text.push_str(&format!("{key}={value}\n"));
        }
    };
    let shown = |at: Option<SocketAddr>| at.map(|at| at.to_string());
    line("MEMCACHIER_SERVERS", shown(addresses.clients));
    line("LARDER_TLS_SERVERS", shown(addresses.clients_tls));
    line("LARDER_TLS_CA", authority.map(|path| path.display().to_string()));
    line("LARDER_PEERS", shown(addresses.peers));
    line("LARDER_NODE", Some(name.to_string()));
    text
}
