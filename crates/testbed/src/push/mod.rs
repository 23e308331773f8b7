//! The push to many nodes: real sockets, TLS, disks and engines, all in this one process; the database
//! and the data plane are pretended.
//!
//! Unlike the rest of the bench this knows Larder from within: seventy processes with a million
//! credentials each would fit no machine that people develop on, and no program can be told to send
//! garbage.

pub mod measure;
pub mod pretend;
pub mod rogue;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use control::environment::Environment;
use control::model::UnixSeconds;
use control::push::PushControl;
use control::push::authority::Authority;
use control::push::session::Trouble;
use node::identity::Identity;
use node::link::{CHECK_ALL_WITHIN, Link, NodeSettings};
use node::serving::{DataPlane, UsageChanges};
use node::view::NoLinks;
use tenancy::directory::Directory;
use tenancy::id::CacheId;
use tenancy::plan::Limits;
use tenancy::rules::Open;
use tenancy::secret::SecretKey;
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};
use wire::control::message::NodeAddresses;
use wire::control::name::NodeName;
use wire::control::usage::Share;

use self::pretend::{Pretend, credential};
use crate::eventually::DEADLINE;

/// The key of password hashes, everywhere here.
const KEY: [u8; 32] = [7; 32];

/// A control plane that pushes from a [`Pretend`]; stops when it is dropped.
pub struct Control {
    pub source: Arc<Pretend>,
    pub push: PushControl,
    /// Where nodes connect.
    pub address: SocketAddr,
    pub runtime: Runtime,
}

impl Control {
    /// Starts one whose authority is in this folder, and whose time is always this (Unix seconds).
    ///
    /// # Panics
    /// When the folder cannot be written to, or there is no free port.
    #[track_caller]
    pub fn start(source: Arc<Pretend>, directory: &Path, now: u64) -> Control {
        let authority = Authority::open(directory).expect("the folder is ours");
        let chance = |bytes: &mut [u8]| {
            bytes.fill(9);
            Ok(())
        };
        let environment = Environment::new(move || UnixSeconds(now), chance);
        let (push, tasks) = PushControl::open(
            Arc::clone(&source) as _,
            Arc::clone(&source) as _,
            authority,
            KEY,
            Arc::default(),
            environment,
        )
        .expect("a pretended source always answers");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("threads can be started");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        runtime.spawn(tasks.run(listener));
        Control { source, push, address, runtime }
    }

    /// Commits a new credential of cache 1 and waits until all nodes have it.
    ///
    /// # Panics
    /// When some node does not have it in time.
    #[track_caller]
    pub fn commit_and_wait(&self, name: &str) -> Duration {
        let began = Instant::now();
        let revision = self.source.commit(vec![credential(name, 1)]);
        let waited = self.push.fleet.wait_applied(revision, DEADLINE);
        let applied = self.runtime.block_on(waited);
        assert!(applied.missing.is_empty(), "{applied:?}");
        began.elapsed()
    }

    /// Has a node join, and gives it its data directory.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn join(&self, directory: &Path, name: &str) -> Identity {
        let (token, _) = self.push.token(None, None).expect("chance is pretended");
        let address = self.address.to_string();
        let joined = Identity::join(directory, &token, &address, node_name(name));
        self.runtime.block_on(joined).expect("the token is good")
    }

    /// Everything that is wrong with a node, in words; "disconnected" when it is.
    ///
    /// # Panics
    /// When it never joined.
    #[track_caller]
    pub fn troubles(&self, name: &str) -> Vec<String> {
        let nodes = self.push.fleet.nodes();
        let node = nodes.get(&node_name(name)).expect("it has joined");
        match &node.link {
            None => vec!["disconnected".to_owned()],
            Some(link) => link.troubles.iter().map(Trouble::to_string).collect(),
        }
    }
}

/// A node that serves nobody; stops when it is dropped.
pub struct Node {
    pub directory: Arc<Directory>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What is not as with every node.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// A bit of its copy in memory has flipped.
    pub damage: bool,
    pub check_all_within: Duration,
}

impl Default for Manner {
    fn default() -> Self {
        Manner { damage: false, check_all_within: CHECK_ALL_WITHIN }
    }
}

/// A data plane that has room for everything and keeps nothing.
struct NoBackend;

impl DataPlane for NoBackend {
    fn put_cache(&self, _: CacheId, _: Limits) -> Result<(), String> {
        Ok(())
    }

    fn remove_cache(&self, _: CacheId) {}

    fn flush_cache(&self, _: CacheId) {}

    fn usage(&self, _: bool) -> UsageChanges {
        UsageChanges { is_all: true, ..UsageChanges::default() }
    }

    fn share(&self, _: &[Share]) {}

    fn keep_shares(&self) {}

    fn open(&self) -> Vec<Open> {
        Vec::new()
    }
}

impl Node {
    /// Starts the node whose data directory this is.
    ///
    /// # Panics
    /// When it has not joined, or another node uses the directory.
    #[track_caller]
    pub fn start(control: &str, at: &Path, directory: Arc<Directory>) -> Node {
        Node::start_as(control, at, directory, Manner::default())
    }

    /// The same in some other manner.
    ///
    /// # Panics
    /// As [`Node::start`].
    #[track_caller]
    pub fn start_as(control: &str, at: &Path, directory: Arc<Directory>, manner: Manner) -> Node {
        let identity = Identity::read(at).expect("it is readable").expect("it has joined");
        let (_keep, addresses) = watch::channel(NodeAddresses::default());
        let settings = NodeSettings {
            control: vec![control.to_owned()],
            directory: at.to_owned(),
            addresses,
            backends_mib: Vec::new(),
            check_all_within: manner.check_all_within,
        };
        let (backend, links) = (Arc::new(NoBackend), Arc::new(NoLinks));
        let mut link = Link::open(settings, identity, Arc::clone(&directory), backend, links)
            .expect("the folder is ours");
        assert!(!manner.damage || link.damage(), "there is nothing to damage");
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a thread can have a runtime");
            runtime.block_on(async {
                tokio::select! {
                    () = link.run() => (),
                    _ = stopped => (),
                }
            });
        });
        Node { directory, stop: Some(stop), thread: Some(thread) }
    }

    /// Whether the credential of this name can authenticate here.
    pub fn lets_in(&self, name: &str) -> bool {
        self.directory.authenticate(name.as_bytes(), name.as_bytes()).is_ok()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Unix time in seconds.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

/// A directory that knows nobody yet.
pub fn empty_directory() -> Arc<Directory> {
    Arc::new(Directory::new(SecretKey::new(KEY)))
}

/// # Panics
/// When it is no name.
#[track_caller]
pub fn node_name(name: &str) -> NodeName {
    NodeName::parse(name).expect("a name in the test's own words")
}
