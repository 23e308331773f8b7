//! `larder control`: the truth for nodes that are other processes, pushed to them as it is committed.
//!
//! ```text
//!   data directory ─▶ control (SQLite) ─▶ publisher ─▶ nodes, over mutual TLS      --nodes-listen
//!   or --postgres
//!                        ▲
//!                        └── HTTP API ◀── larder cache …, cluster …, node …        --listen
//! ```
//!
//! On PostgreSQL several of these share the truth and one leads. The others stand by: they listen for
//! nobody until they lead, so that nodes and clients, which know all addresses, find the one that does.
//! One that no longer leads starts itself anew, as one that stands by: half a leader would be harder to
//! get right than none.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use control::api::ApiSettings;
use control::campaign::{Campaign, Pace};
use control::control::Control;
use control::couriers::{Couriers, Patience};
use control::data_dir::DataDirError;
use control::database::PostgresAccess;
use control::environment::Environment;
use control::error::OpenError;
use control::feed::Feed;
use control::housekeeping::Housekeeping;
use control::model::ClusterId;
use control::push::authority::{Authority, AuthorityError};
use control::push::driver::{ClusterRules, Failover};
use control::push::source::SourceError;
use control::push::{PushControl, PushTasks};
use control::server::{self, ServerLimits};
use daemon::clock::Clock;
use daemon::settings::{self, Settings};
use daemon::shutdown::Shutdown;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tracing::info;

use super::serving;
use super::up::{self, public_url, reachable};
use crate::metrics;

/// Keep caches, credentials and members for nodes that serve them, and push every change to them.
///
/// Nodes go on serving when this is away; only changes wait for it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder control --data ./control --nodes-listen 10.0.0.1:11290
  larder control --data ./control --postgres 'postgresql://larder@db/larder' --postgres-ca db-ca.pem
  larder node token --data ./control         what a node joins with
  larder cluster status --data ./control     what each node has")]
pub(crate) struct ControlArgs {
    /// Directory for everything that must survive a restart
    #[arg(long, value_name = "DIR", default_value = crate::DATA_DIR_DEFAULT, env = "LARDER_DATA")]
    data: PathBuf,

    /// Where the control API answers [default: 127.0.0.1:11280]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,

    /// Where nodes connect; port 0 takes any free port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:11290")]
    nodes_listen: SocketAddr,

    /// Keep the truth on a PostgreSQL server instead, which other control planes with a copy of this
    /// data directory may share; one leads, the others wait to take over
    #[arg(long, value_name = "URL", env = "LARDER_POSTGRES", hide_env_values = true)]
    postgres: Option<String>,

    /// Encrypt the connection to PostgreSQL, and trust only a server whose certificate this authority
    /// (PEM) has signed for the URL's host
    #[arg(long, value_name = "FILE", env = "LARDER_POSTGRES_CA", requires = "postgres")]
    postgres_ca: Option<PathBuf>,

    /// Wait for the database for as long as it is away, instead of ending with an error
    #[arg(long)]
    await_database: bool,

    /// Settings file; `larder settings` prints one with every setting explained
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// End when standard input does; for whoever starts this process to take it along
    #[arg(long, hide = true)]
    end_with_stdin: bool,
}

impl ControlArgs {
    fn settings(&self) -> Result<Settings, settings::SettingsError> {
        let given = [("control_listen", "--listen", &self.listen)];
        serving::settings(self.config.as_deref(), &given)
    }
}

/// Why the control plane could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("the settings are not right\n{0}")]
    Settings(#[from] settings::SettingsError),
    #[error("cannot set up the log")]
    Log(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot send e-mail as it is set")]
    Mail(#[source] control::mailer::MailerError),
    #[error("cannot hear signals")]
    Signals(#[source] io::Error),
    #[error("cannot use the data directory {path}")]
    Open { path: PathBuf, source: OpenError },
    #[error("cannot use the cluster's authority")]
    Authority(#[from] AuthorityError),
    #[error("cannot read what shall be pushed")]
    Source(#[from] SourceError),
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot say where the control API is")]
    Announce(#[from] DataDirError),
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    #[error("cannot read {path}, the authority of PostgreSQL")]
    PostgresAuthority { path: PathBuf, source: io::Error },
    #[error("cannot start anew to stand by")]
    Again(#[source] io::Error),
}

/// Serves until a signal asks to stop.
pub(crate) fn run(args: &ControlArgs) -> Result<(), RunError> {
    let settings = args.settings()?;
    let _log = daemon::log::start(settings.log_level, settings.log_format)
        .map_err(|error| RunError::Log(error.into()))?;
    let shutdown = Shutdown::on_signals().map_err(RunError::Signals)?;
    if args.end_with_stdin {
        shutdown.drain_when_stdin_ends().map_err(RunError::Signals)?;
    }
    let environment = serving::environment(Clock::start());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("control")
        .build()
        .map_err(RunError::Runtime)?;
    let waited = || {
        let told = async { timeout(DATABASE_RETRY_AFTER, shutdown.draining()).await };
        runtime.block_on(told).is_err()
    };
    let Some(control) = open(args, &environment, waited)? else { return Ok(()) };
    let authority = Authority::open(&args.data)?;
    let refused = |source| RunError::Open { path: args.data.clone(), source };
    control.check_authority(&authority.fingerprint(), false).map_err(refused)?;
    let campaign = match &args.postgres {
        None => None,
        Some(_) => {
            let campaign = Campaign::start(&control, control.holder(), Pace::default());
            Some(campaign.map_err(RunError::Thread)?)
        }
    };
    if !runtime.block_on(leads_before(&control, shutdown.draining())) {
        return Ok(());
    }
    // Again, because another one may have led for the first time meanwhile.
    control.check_authority(&authority.fingerprint(), true).map_err(refused)?;
    let mailer = up::mailer(&settings).map_err(RunError::Mail)?;
    let _couriers =
        Couriers::start_with(&control, Patience::default(), mailer).map_err(RunError::Thread)?;
    let _housekeeping = Housekeeping::start(&control).map_err(RunError::Thread)?;
    let feed = Feed::new(Arc::clone(&control), ClusterId::DEFAULT);
    let (mut push, mut tasks) = PushControl::open(
        Arc::new(feed.clone()),
        Arc::new(feed),
        authority,
        control.node_key(),
        control.usage_of_nodes(),
        environment,
    )?;
    let rules = ClusterRules {
        failover: Failover { hold_down: settings.hold_down, cold_interval: settings.cold_interval },
        networks: settings.cluster_networks.clone(),
    };
    push.keep_to(&mut tasks, rules);
    control.ask_nodes_of(&push);
    let (api_listener, api_address) = bind(settings.control_listen)?;
    let (nodes_listener, nodes_address) = bind(args.nodes_listen)?;
    // Before anything is printed: whoever reads that may use the command line at once.
    let announcement = control.announce(api_address)?;
    let push = Arc::new(push);
    let mut metrics_line = String::new();
    if let Some(listen) = settings.metrics_listen {
        let caches_max = settings.metrics_caches_max.unwrap_or(0) as usize;
        let registry = metrics::of_control(Arc::clone(&control), Arc::clone(&push), caches_max);
        let address = metrics::serve(listen, registry, &shutdown)
            .map_err(|source| RunError::Listen { address: listen, source })?;
        metrics_line = metrics::line(address);
    }
    let api = ApiSettings {
        servers: Vec::new(),
        applied: Arc::clone(&push.fleet) as _,
        push: Some(push),
        public_url: public_url(&settings, api_address),
        slack_prefix: settings.slack_prefix.clone(),
    };
    // Nobody may be reading our output; that is no reason not to serve.
    let welcome = format!(
        "{metrics_line}LARDER_CONTROL=http://{}\nLARDER_NODES={}\n",
        reachable(api_address),
        reachable(nodes_address)
    );
    drop(io::stdout().write_all(welcome.as_bytes()));
    drop(io::stdout().flush());
    let mut leading = control.leading();
    serve(&runtime, api_listener, nodes_listener, control, api, tasks, &shutdown)?;
    if *leading.borrow_and_update() {
        info!("stopped");
        return Ok(());
    }
    info!("starting anew, to stand by");
    drop((announcement, campaign));
    Err(RunError::Again(again()))
}

/// Opens the control state. `wait` waits until a database that is away may be tried again; when it says
/// that the process is to stop instead, there is none.
fn open(
    args: &ControlArgs,
    environment: &Environment,
    wait: impl Fn() -> bool,
) -> Result<Option<Arc<Control>>, RunError> {
    let access = match &args.postgres {
        None => None,
        Some(url) => {
            let authority = args.postgres_ca.as_ref().map(|path| {
                let failed = |source| RunError::PostgresAuthority { path: path.clone(), source };
                fs::read(path).map_err(failed)
            });
            Some(PostgresAccess { url: url.clone(), authority: authority.transpose()? })
        }
    };
    let mut is_told = false;
    loop {
        let control = match &access {
            None => Control::open_for_nodes(&args.data, environment.clone()),
            Some(access) => Control::open_postgres(&args.data, access, environment.clone()),
        };
        match control {
            Ok(control) => return Ok(Some(Arc::new(control))),
            Err(error) if args.await_database && error.is_passing() => {
                if !std::mem::replace(&mut is_told, true) {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "the database does not answer; trying until it does");
                }
                if !wait() {
                    return Ok(None);
                }
            }
            Err(source) => return Err(RunError::Open { path: args.data.clone(), source }),
        }
    }
}

/// Between two attempts to reach a database that is away.
const DATABASE_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Puts a new run of this program in the place of this one, under the same process id: whoever started
/// it need not do anything. Returns only when that fails.
fn again() -> io::Error {
    let program = match env::current_exe() {
        Ok(program) => program,
        Err(error) => return error,
    };
    let mut command = Command::new(program);
    command.args(env::args_os().skip(1));
    // The lead was lost because another one took it, or because the database is away; it will be back.
    if env::args_os().all(|argument| argument != AWAIT_DATABASE) {
        command.arg(AWAIT_DATABASE);
    }
    command.exec()
}

const AWAIT_DATABASE: &str = "--await-database";

/// Waits until this process leads. Returns `false` when it is to stop before.
async fn leads_before(control: &Control, stop: impl Future<Output = ()>) -> bool {
    let mut leading = control.leading();
    if !*leading.borrow() {
        info!("standing by until the control plane that leads is gone");
    }
    tokio::select! {
        led = leading.wait_for(|leading| *leading) => led.is_ok(),
        () = stop => false,
    }
}

fn serve(
    runtime: &Runtime,
    api_listener: TcpListener,
    nodes_listener: TcpListener,
    control: Arc<Control>,
    api: ApiSettings,
    tasks: PushTasks,
    shutdown: &Shutdown,
) -> Result<(), RunError> {
    runtime.block_on(async {
        let api_listener =
            tokio::net::TcpListener::from_std(api_listener).map_err(RunError::Runtime)?;
        let nodes_listener =
            tokio::net::TcpListener::from_std(nodes_listener).map_err(RunError::Runtime)?;
        let pushing = tokio::spawn(tasks.run(nodes_listener));
        let mut leading = control.leading();
        let draining = shutdown.draining();
        let stop = async move {
            tokio::select! {
                () = draining => (),
                _ = leading.wait_for(|leading| !leading) => (),
            }
        };
        server::serve(api_listener, control, api, ServerLimits::default(), stop).await;
        pushing.abort();
        match pushing.await {
            Ok(served) => Ok(served?),
            Err(_) => Ok(()), // Cancelled just now.
        }
    })
}

fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), RunError> {
    let failed = |source| RunError::Listen { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
