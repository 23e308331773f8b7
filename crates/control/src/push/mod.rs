//! Keeps every node of the cluster at the same view, and knows that it is the same.
//!
//! ```text
//!   database ── ChangeSource ──▶ publisher ── History, Records ──▶ session of node 1 ── mTLS ──▶ node
//!                (commits)         │  one copy in memory,     ├──▶ session of node 2 …
//!                                  │  deltas encoded once     └──▶ …
//!                                  ▼                                   │ ACK, REPORT, PREPARED …
//!                                Fleet ◀───────────────────────────────┘
//!                                  │ who has what, since when, what is wrong
//!                                  ├──▶ driver: epochs, PREPARE → COMMIT     (Registry)
//!                                  ├──▶ quota: what backends hold → their shares of each limit
//!                                  ├──▶ what a person wants to know: ASK → ANSWER
//!                                  └──▶ API: cluster status, ?wait=applied
//! ```
//!
//! A session holds no queue: it remembers how far its node has come and takes the next deltas from the
//! one [`history`]. So a slow node costs nothing, and one that falls out of the history gets a snapshot.

pub mod authority;
pub mod chain;
pub mod diagnosis;
pub mod driver;
mod feed;
pub mod fleet;
pub mod history;
pub mod operate;
pub mod publisher;
pub mod quota;
pub mod server;
pub mod session;
pub mod source;

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::watch;
use wire::control::name::NodeName;

use self::authority::{Authority, AuthorityError, TOKEN_LIFE};
use self::driver::{Announced, ClusterRules, Driver, Wishes};
use self::fleet::Fleet;
use self::publisher::Publisher;
use self::quota::{Divider, Quota};
use self::server::Server;
use self::source::{ChangeSource, Registry, SourceError};
use crate::environment::Environment;
use crate::usage::Usage;

/// The push of one control plane: its parts, and what the API asks of them.
pub struct PushControl {
    pub publisher: Arc<Publisher>,
    pub fleet: Arc<Fleet>,
    pub authority: Arc<Authority>,
    pub announced: watch::Receiver<Announced>,
    /// What operators want; the driver carries it out.
    wishes: Arc<watch::Sender<Wishes>>,
    rules: ClusterRules,
    environment: Environment,
}

/// What runs: hand it to a runtime.
pub struct PushTasks {
    publisher: Arc<Publisher>,
    driver: Driver,
    divider: Divider,
    server: Arc<Server>,
}

impl PushControl {
    /// Loads everything. Blocks.
    ///
    /// `secret_key` is the key under which the data plane's password hashes are made; `usage` is where
    /// nodes' figures go.
    pub fn open(
        source: Arc<dyn ChangeSource>,
        registry: Arc<dyn Registry>,
        authority: Authority,
        secret_key: [u8; 32],
        usage: Arc<Usage>,
        environment: Environment,
    ) -> Result<(Self, PushTasks), SourceError> {
        let publisher = Arc::new(Publisher::open(source)?);
        let fleet = Arc::<Fleet>::default();
        let driver = Driver::open(Arc::clone(&registry), Arc::clone(&fleet))?;
        let authority = Arc::new(authority);
        let quota = Arc::<Quota>::default();
        let divider = Divider {
            quota: Arc::clone(&quota),
            usage: Arc::clone(&usage),
            publisher: Arc::clone(&publisher),
            fleet: Arc::clone(&fleet),
            announced: driver.subscribe(),
        };
        let server = Arc::new(Server {
            publisher: Arc::clone(&publisher),
            fleet: Arc::clone(&fleet),
            registry: Arc::clone(&registry),
            authority: Arc::clone(&authority),
            secret_key,
            environment: environment.clone(),
            announced: driver.subscribe(),
            quota,
            usage,
            started: Instant::now(),
            started_at: environment.now().0 * 1_000,
            numbers: AtomicU64::new(1),
        });
        let (announced, wishes) = (driver.subscribe(), driver.wishes());
        let tasks = PushTasks { publisher: Arc::clone(&publisher), driver, divider, server };
        let rules = ClusterRules::default();
        let push =
            PushControl { publisher, fleet, authority, announced, wishes, rules, environment };
        Ok((push, tasks))
    }

    /// Follows other rules than the default ones from now on.
    pub fn keep_to(&mut self, tasks: &mut PushTasks, rules: ClusterRules) {
        tasks.driver.set_failover(rules.failover);
        self.rules = rules;
    }

    /// A token for a node to join with, and when it ends (Unix seconds).
    pub fn token(&self, node: Option<NodeName>, seconds: Option<u64>) -> io::Result<(String, u64)> {
        let life = seconds.map_or(TOKEN_LIFE, Duration::from_secs);
        let expires_at = self.environment.now().0.saturating_add(life.as_secs());
        let nonce = self.environment.random()?;
        Ok((self.authority.token(expires_at, node, nonce).to_text(), expires_at))
    }
}

impl PushTasks {
    /// Serves nodes on this listener until the task is dropped.
    pub async fn run(self, listener: TcpListener) -> Result<(), AuthorityError> {
        let (publisher, driver) = (self.publisher.run(), self.driver.run());
        let divider = self.divider.run();
        tokio::select! {
            served = self.server.serve(listener) => served,
            () = publisher => Ok(()),
            () = driver => Ok(()),
            () = divider => Ok(()),
        }
    }
}
