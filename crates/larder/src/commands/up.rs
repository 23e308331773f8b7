//! `larder up`: the whole service on one machine, in one process.
//!
//! ```text
//!   settings ─▶ data directory ─▶ control (SQLite) ──▶ directory ┐
//!                                      │ puts every cache        ├─▶ proxy (event loops)
//!                                      └──▶ backend (store) ─────┘
//!   SIGTERM ─▶ proxy drains ─▶ control API stops ─▶ exit
//! ```

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backend::{Backend, readiness};
use control::api::ApiSettings;
use control::control::Control;
use control::couriers::{Couriers, Patience};
use control::data_dir::DataDirError;
use control::data_plane::DataPlane;
use control::error::{ControlError, OpenError};
use control::housekeeping::Housekeeping;
use control::mailer::{Mailer, MailerError};
use control::model::{CacheRef, Issued};
use control::server::{self, ServerLimits};
use daemon::clock::Clock;
use daemon::descriptors;
use daemon::settings::{self, Settings};
use daemon::shutdown::Shutdown;
use proxy::cluster_handle::ClusterHandle;
use proxy::settings::{Access, LinkSettings, ProxySettings};
use proxy::tls::{Tls, TlsFiles};
use proxy::usage::ProxyUsage;
use proxy::{Proxy, StartError};
use tracing::info;
use wire::control::message::NODE_BACKENDS_MAX;

use super::serving::{self, environment, reload_certificate};
use super::up_cluster::{self, ClusterUpError, ClusterWish};
use crate::development_tls;
use crate::local_data_plane::LocalDataPlane;
use larder::local_link::LocalLink;

/// Serve password-protected caches to memcached clients, everything in this one process; or a whole
/// cluster on this machine, to try it.
///
/// The first start makes a development cache and prints how to connect to it; later starts find the
/// caches that were there. Stop it with Ctrl-C: clients finish what they have begun.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder up                                  a cache on 127.0.0.1:11211, state in ./larder-data
  larder up --env-file .env                  and write MEMCACHIER_… where your application reads it
  larder up --no-auth                        no passwords, for development on your own machine
  larder up --listen 0.0.0.0:11211 --tls-listen 0.0.0.0:11212
  larder up --nodes 3 --backends 2           a cluster of processes, to try what happens to it
  larder up --config larder.toml             every other setting; see `larder settings`

Then, in another terminal:
  larder cache create shop --plan 100
  larder credential add shop
  larder bench --duration 5")]
pub(crate) struct UpArgs {
    /// Directory for everything that must survive a restart
    #[arg(long, value_name = "DIR", default_value = crate::DATA_DIR_DEFAULT, env = "LARDER_DATA")]
    data: PathBuf,

    /// Where clients connect; port 0 takes any free port [default: 127.0.0.1:11211]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,

    /// Where clients connect with TLS; makes a development certificate if none is set
    #[arg(long, value_name = "ADDR")]
    tls_listen: Option<String>,

    /// Where the control API answers [default: 127.0.0.1:11280]
    #[arg(long, value_name = "ADDR")]
    control: Option<String>,

    /// Also write the MEMCACHIER_… lines to this file
    #[arg(long, value_name = "PATH")]
    env_file: Option<PathBuf>,

    /// Serve the development cache to everyone without a password
    #[arg(long)]
    no_auth: bool,

    /// Event loops; 0 is one per core [default: 0]
    #[arg(long, value_name = "N")]
    threads: Option<String>,

    /// Memory for the items of all caches, such as 512MiB or 4GiB [default: 1 GiB]
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,

    /// Start a cluster: control and this many nodes, each a process of its own. Their ports follow
    /// on that of --listen
    #[arg(long, value_name = "N", conflicts_with_all = ["no_auth", "tls_listen"],
        value_parser = clap::value_parser!(u8).range(1..=NODES_MAX))]
    nodes: Option<u8>,

    /// Backends of each node
    #[arg(long, value_name = "M", default_value_t = 1, requires = "nodes",
        value_parser = clap::value_parser!(u8).range(1..=NODE_BACKENDS_MAX as i64))]
    backends: u8,

    /// Settings file; `larder settings` prints one with every setting explained
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// On one machine more would only share its cores.
const NODES_MAX: i64 = 16;

impl UpArgs {
    fn settings(&self) -> Result<Settings, settings::SettingsError> {
        let given = [
            ("listen", "--listen", &self.listen),
            ("tls_listen", "--tls-listen", &self.tls_listen),
            ("control_listen", "--control", &self.control),
            ("threads", "--threads", &self.threads),
            ("memory_bytes", "--memory", &self.memory),
        ];
        serving::settings(self.config.as_deref(), &given)
    }
}

/// Why the service could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpError {
    #[error("the settings are not right\n{0}")]
    Settings(#[from] settings::SettingsError),
    #[error("cannot set up the log")]
    Log(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot hear signals")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Descriptors(#[from] descriptors::TooFewDescriptors),
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    #[error("cannot draw random numbers")]
    Random(#[source] io::Error),
    #[error("cannot use the data directory {path}")]
    Open { path: PathBuf, source: OpenError },
    #[error("cannot make the development cache")]
    DevelopmentCache(#[from] ControlError),
    #[error("cannot make a development certificate")]
    DevelopmentTls(#[from] development_tls::DevelopmentTlsError),
    #[error("cannot set up TLS")]
    Tls(#[from] proxy::tls::TlsError),
    #[error(transparent)]
    Proxy(#[from] StartError),
    #[error("cannot listen for the control API on {address}")]
    ControlListen { address: SocketAddr, source: io::Error },
    #[error("cannot say where the control API is")]
    Announce(#[from] DataDirError),
    #[error("the control API ended")]
    ControlEnded(#[source] io::Error),
    #[error("cannot write {path}")]
    EnvFile { path: PathBuf, source: io::Error },
    #[error("cannot send e-mail as it is set")]
    Mail(#[from] MailerError),
    #[error("cannot run a cluster")]
    Cluster(#[from] ClusterUpError),
}

/// Serves until a signal asks to stop and the clients have finished.
pub(crate) fn run(args: &UpArgs) -> Result<(), UpError> {
    let settings = args.settings()?;
    let _log = daemon::log::start(settings.log_level, settings.log_format)
        .map_err(|error| UpError::Log(error.into()))?;
    let shutdown = Shutdown::on_signals().map_err(UpError::Signals)?;
    if let Some(nodes) = args.nodes {
        let wish = ClusterWish {
            data: &args.data,
            nodes,
            backends: args.backends,
            listen: settings.listen,
            control_listen: settings.control_listen,
            metrics_listen: settings.metrics_listen,
            memory_bytes: settings.memory_bytes,
            threads: threads(settings.threads),
            config: args.config.as_deref(),
        };
        return Ok(up_cluster::run(&wish, args.env_file.as_deref(), &shutdown)?);
    }
    let connections_max =
        descriptors::connections_max(settings.connections_max, descriptors::raise())?;
    let clock = Clock::start();
    let usage = Arc::new(ProxyUsage::default());
    let backend = Arc::new(Backend::new(settings.memory_bytes, random_seed()?));
    readiness::keep(&backend).map_err(UpError::Thread)?;
    let data_plane =
        LocalDataPlane { backend: Arc::clone(&backend), usage: Arc::clone(&usage), clock };
    let control = Arc::new(open_control(&args.data, clock, Arc::new(data_plane))?);
    let (cache, issued) = control.ensure_development_cache()?;

    let tls = tls(&settings, &args.data)?;
    let access = if args.no_auth { Access::Everyone(cache.id) } else { Access::Credentials };
    let proxy = Proxy::start(
        proxy_settings(&settings, access, connections_max as usize),
        tls.as_ref().map(|tls| tls.tls.clone()),
        Arc::clone(control.directory()),
        Arc::new(LocalLink(vec![backend])),
        usage,
        clock,
        ClusterHandle::default(),
    )?;
    let stopper = proxy.stopper();
    shutdown.on_drain(move || stopper.drain());
    if let Some(tls) = &tls {
        reload_certificate(&shutdown, &tls.tls);
    }

    let listener = std::net::TcpListener::bind(settings.control_listen)
        .map_err(|source| UpError::ControlListen { address: settings.control_listen, source })?;
    let control_address = listener.local_addr().map_err(UpError::ControlEnded)?;
    // Before anything is printed: whoever reads that may use the command line at once.
    let _announcement = control.announce(control_address)?;
    let servers = proxy.plain_address().map(|address| reachable(address).to_string());
    let api = ApiSettings {
        servers: servers.into_iter().collect(),
        public_url: public_url(&settings, control_address),
        slack_prefix: settings.slack_prefix.clone(),
        ..ApiSettings::default()
    };
    let (_, secret) = control.dashboard_secret(&CacheRef::Id(cache.id))?;
    let welcome = Welcome {
        plain: proxy.plain_address(),
        tls: proxy.tls_address(),
        authority: tls.and_then(|tls| tls.authority),
        control: control_address,
        dashboard: api.dashboard_url(cache.id, &secret),
        credential: (!args.no_auth).then_some(&issued),
    };
    let mailer = mailer(&settings)?;
    let _couriers = Couriers::start_with(&control, Patience::default(), mailer)
        .map_err(UpError::ControlEnded)?;
    let _housekeeping = Housekeeping::start(&control).map_err(UpError::ControlEnded)?;
    let control_thread = serve_control(listener, control, api, shutdown.clone())?;
    if let Some(path) = &args.env_file {
        write_private(path, &welcome.variables())
            .map_err(|source| UpError::EnvFile { path: path.clone(), source })?;
    }
    // Nobody may be reading our output; that is no reason not to serve.
    drop(io::stdout().write_all(welcome.text().as_bytes()));
    drop(io::stdout().flush());

    proxy.join();
    // Also when every event loop has failed by itself.
    shutdown.drain();
    let ended = control_thread.join().unwrap_or_else(|_| Err(io::Error::other("it panicked")));
    info!("stopped");
    ended.map_err(UpError::ControlEnded)
}

/// The mail server for alerts, if there is one.
pub(super) fn mailer(settings: &Settings) -> Result<Option<Mailer>, MailerError> {
    let url = settings.smtp_url.as_deref();
    url.map(|url| Mailer::new(url, &settings.mail_from)).transpose()
}

pub(super) fn random_seed() -> Result<u64, UpError> {
    getrandom::u64().map_err(|error| UpError::Random(io::Error::other(error)))
}

fn open_control(
    path: &Path,
    clock: Clock,
    data_plane: Arc<dyn DataPlane>,
) -> Result<Control, UpError> {
    Control::open(path, environment(clock), data_plane)
        .map_err(|source| UpError::Open { path: path.to_owned(), source })
}

pub(super) fn proxy_settings(
    settings: &Settings,
    access: Access,
    connections_max: usize,
) -> ProxySettings {
    ProxySettings {
        listen: Some(settings.listen),
        tls_listen: settings.tls_listen,
        threads: threads(settings.threads),
        spin: settings.spin,
        access,
        authentication_timeout: settings.authentication_timeout,
        request_timeout: settings.request_timeout,
        idle_timeout: settings.idle_timeout,
        drain_timeout: settings.drain_timeout,
        connections_max,
        output_bytes_max: usize::try_from(settings.output_bytes_max).unwrap_or(usize::MAX),
        input_bytes_max: usize::try_from(settings.input_bytes_max).unwrap_or(usize::MAX),
        links: LinkSettings {
            request_timeout: settings.link_timeout,
            silence: settings.link_silence,
            ..LinkSettings::default()
        },
    }
}

fn threads(asked: Option<u32>) -> usize {
    match asked {
        Some(threads) => threads as usize,
        None => std::thread::available_parallelism().map_or(1, usize::from),
    }
}

pub(super) struct UpTls {
    pub(super) tls: Tls,
    /// Of a certificate that we made ourselves.
    pub(super) authority: Option<PathBuf>,
}

pub(super) fn tls(settings: &Settings, data: &Path) -> Result<Option<UpTls>, UpError> {
    if settings.tls_listen.is_none() {
        return Ok(None);
    }
    let client_authorities = settings.tls_client_ca.clone();
    let (files, authority) = match (&settings.tls_certificate, &settings.tls_key) {
        (Some(certificate), Some(key)) => {
            let (certificate, key) = (certificate.clone(), key.clone());
            (TlsFiles { certificate, key, client_authorities }, None)
        }
        _ => {
            let made = development_tls::find_or_make(&data.join("tls"), client_authorities)?;
            (made.files, Some(made.authority))
        }
    };
    Ok(Some(UpTls { tls: Tls::load(files)?, authority }))
}

/// Runs the control API on a thread of its own: the data plane shares none of its worries.
fn serve_control(
    listener: std::net::TcpListener,
    control: Arc<Control>,
    api: ApiSettings,
    shutdown: Shutdown,
) -> Result<std::thread::JoinHandle<io::Result<()>>, UpError> {
    let serve = move || -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            server::serve(listener, control, api, ServerLimits::default(), shutdown.draining())
                .await;
            Ok(())
        })
    };
    std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(serve)
        .map_err(UpError::ControlEnded)
}

/// What someone needs to know to use the service that has just come up.
struct Welcome<'a> {
    plain: Option<SocketAddr>,
    tls: Option<SocketAddr>,
    authority: Option<PathBuf>,
    control: SocketAddr,
    /// Of the development cache's dashboard.
    dashboard: String,
    /// `None` where no password is asked for.
    credential: Option<&'a Issued>,
}

impl Welcome<'_> {
    /// `NAME=value` lines, as an application's environment file has them.
    fn variables(&self) -> String {
        let mut lines = Vec::new();
        if let Some(address) = self.plain {
            lines.push(format!("MEMCACHIER_SERVERS={}", reachable(address)));
        }
        if let Some(issued) = self.credential {
            lines.push(format!("MEMCACHIER_USERNAME={}", issued.credential.username));
            lines.push(format!("MEMCACHIER_PASSWORD={}", issued.secret.reveal()));
        }
        if let Some(address) = self.tls {
            lines.push(format!("LARDER_TLS_SERVERS={}", reachable(address)));
        }
        if let Some(authority) = &self.authority {
            lines.push(format!("LARDER_TLS_CA={}", authority.display()));
        }
        lines.push(format!("LARDER_DASHBOARD={}", self.dashboard));
        lines.push(format!("LARDER_CONTROL=http://{}", reachable(self.control)));
        lines.join("\n") + "\n"
    }

    fn text(&self) -> String {
        let variables = self.variables();
        let Some(address) = self.plain.map(reachable) else { return variables };
        let (host, port) = (address.ip(), address.port());
        let login = self.credential.map_or(String::new(), |issued| {
            let password = issued.secret.reveal();
            let username = &issued.credential.username;
            format!("set {username} 0 0 {}\\r\\n{password}\\r\\n", password.len())
        });
        let talk =
            format!("{login}set greeting 0 0 5\\r\\nhello\\r\\nget greeting\\r\\nquit\\r\\n");
        // Telnet ends a line by itself, and makes something else of a carriage return.
        let typed = talk.replace("\\r", "");
        format!(
            "{variables}\nTry it, from another terminal (paste one line):\n\
             (printf '{typed}'; sleep 1) | telnet {host} {port}\n\
             python3 -c \"import socket; s = socket.create_connection(('{host}', {port})); \
             s.sendall(b'{talk}'); print(s.makefile().read())\"\n\n\
             Look at it in a browser at the address after LARDER_DASHBOARD. \
             Manage it with `larder cache --help` and `larder credential --help`; stop it with \
             Ctrl-C.\n"
        )
    }
}

/// How browsers reach the dashboard.
pub(super) fn public_url(settings: &Settings, control: SocketAddr) -> String {
    let set = settings.dashboard_url.clone();
    set.unwrap_or_else(|| format!("http://{}", reachable(control)))
}

/// An address that a client on this machine can use: "every address" becomes loopback.
pub(crate) fn reachable(listening: SocketAddr) -> SocketAddr {
    let mut address = listening;
    if listening.ip().is_unspecified() {
        address.set_ip(match listening {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// Writes a file that holds a password: readable by its owner only.
pub(super) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}
