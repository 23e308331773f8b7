//! The push to many nodes: real sockets, TLS, disks and engines, all nodes in this one process; the
//! database and the data plane are pretended.
//!
//! A small fleet in every run; the large one on demand, with figures:
//!
//! ```text
//! cargo test -p testbed --test push -- --ignored --nocapture
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use control::push::PushControl;
use control::push::authority::Authority;
use control::push::session::Trouble;
use control::push::source::{ChangeSource, Changes, RegisteredNode, Registry, SourceError};
use node::identity::Identity;
use node::link::{Link, NodeSettings};
use node::serving::{DataPlane, UsageChanges};
use node::view::NoLinks;
use tenancy::capability::Capabilities;
use tenancy::directory::Directory;
use tenancy::id::{CacheId, Username};
use tenancy::plan::Limits;
use tenancy::secret::SecretKey;
use testbed::eventually::{DEADLINE, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};
use wire::control::digest::SetDigest;
use wire::control::message::{FromNode, Hello, NodeAddresses, VERSIONS};
use wire::control::name::NodeName;
use wire::control::record::{CacheRecord, CredentialRecord, Delta, Record, Revision};
use wire::control::usage::Share;

/// The key of password hashes, everywhere here.
const KEY: [u8; 32] = [7; 32];

/// One database and registry in memory.
struct Pretend {
    state: Mutex<State>,
    head: watch::Sender<Revision>,
}

#[derive(Default)]
struct State {
    first: Vec<Record>,
    log: Vec<Delta>,
    nodes: BTreeMap<String, RegisteredNode>,
    topology: Option<Vec<u8>>,
    prepared: Option<Vec<u8>>,
    epoch: u64,
}

impl Pretend {
    fn new(caches: u64, credentials_of_each: u64) -> Self {
        let mut first = Vec::new();
        for id in 1..=caches {
            first.push(cache(id));
            first.extend((0..credentials_of_each).map(|n| credential(&format!("u{id}-{n}"), id)));
        }
        let state = State { first, ..State::default() };
        Pretend { state: Mutex::new(state), head: watch::Sender::new(Revision::new(1)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits one transaction and says its revision.
    fn commit(&self, puts: Vec<Record>) -> Revision {
        let mut state = self.lock();
        let revision = Revision::new(state.log.len() as u64 + 2);
        state.log.push(Delta { revision, puts, deletes: Vec::new() });
        drop(state);
        self.head.send_replace(revision);
        revision
    }
}

impl ChangeSource for Pretend {
    fn snapshot(&self) -> Result<(Revision, Vec<Record>), SourceError> {
        let state = self.lock();
        assert!(state.log.is_empty(), "it is asked once, at the start");
        Ok((Revision::new(1), state.first.clone()))
    }

    fn changes_since(&self, after: Revision, limit: usize) -> Result<Changes, SourceError> {
        let state = self.lock();
        let skip = usize::try_from(after.get() - 1).expect("small");
        Ok(Changes::Deltas(state.log.iter().skip(skip).take(limit).cloned().collect()))
    }

    fn watch(&self) -> watch::Receiver<Revision> {
        self.head.subscribe()
    }
}

impl Registry for Pretend {
    fn register_node(&self, node: &RegisteredNode) -> Result<(), SourceError> {
        self.lock().nodes.insert(node.name.clone(), node.clone());
        Ok(())
    }

    fn remove_node(&self, name: &str) -> Result<bool, SourceError> {
        Ok(self.lock().nodes.remove(name).is_some())
    }

    fn nodes(&self) -> Result<Vec<RegisteredNode>, SourceError> {
        Ok(self.lock().nodes.values().cloned().collect())
    }

    fn slot_key(&self) -> Result<[u8; 16], SourceError> {
        Ok([3; 16])
    }

    fn topology(&self) -> Result<(Option<Vec<u8>>, u64), SourceError> {
        let state = self.lock();
        Ok((state.topology.clone(), state.epoch))
    }

    fn prepare_epoch(
        &self,
        epoch: u64,
        topology: &[u8],
        _: [u8; 32],
        _: &[String],
    ) -> Result<(), SourceError> {
        let mut state = self.lock();
        state.prepared = Some(topology.to_vec());
        state.epoch = epoch;
        Ok(())
    }

    fn acknowledge_epoch(&self, _: u64, _: &str) -> Result<(), SourceError> {
        Ok(())
    }

    fn commit_epoch(&self, _: u64) -> Result<(), SourceError> {
        let mut state = self.lock();
        state.topology = state.prepared.take();
        Ok(())
    }

    fn abort_epoch(&self, _: u64, _: &str) -> Result<(), SourceError> {
        self.lock().prepared = None;
        Ok(())
    }

    fn settle_epoch(&self, _: u64) -> Result<(), SourceError> {
        Ok(())
    }
}

fn cache(id: u64) -> Record {
    Record::Cache(CacheRecord {
        id: CacheId::new(id),
        limits: Limits { memory_bytes: 25 << 20, item_bytes_max: 1 << 20, connections_max: 1_000 },
        enabled: true,
        flush_generation: 0,
    })
}

/// Its password is its name.
fn credential(name: &str, cache: u64) -> Record {
    Record::Credential(CredentialRecord {
        username: Username::parse(name).expect("a good name"),
        cache: CacheId::new(cache),
        hash: SecretKey::new(KEY).hash(name.as_bytes(), name.as_bytes()),
        capabilities: Capabilities::ALL,
    })
}

/// A control plane that pushes from a [`Pretend`].
struct Control {
    source: Arc<Pretend>,
    push: PushControl,
    address: SocketAddr,
    runtime: Runtime,
    _dir: tempfile::TempDir,
}

impl Control {
    fn start(source: Pretend) -> Control {
        let source = Arc::new(source);
        let dir = tempfile::tempdir().expect("a folder");
        let authority = Authority::open(dir.path()).expect("made");
        let chance = |bytes: &mut [u8]| {
            bytes.fill(9);
            Ok(())
        };
        let (push, tasks) = PushControl::open(
            Arc::clone(&source) as _,
            Arc::clone(&source) as _,
            authority,
            KEY,
            Arc::default(),
            chance,
        )
        .expect("a pretended source always answers");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        runtime.spawn(tasks.run(listener));
        Control { source, push, address, runtime, _dir: dir }
    }

    /// Commits a new credential and waits until all nodes have it.
    fn commit_and_wait(&self, name: &str) -> Duration {
        let began = Instant::now();
        let revision = self.source.commit(vec![credential(name, 1)]);
        let waited = self.push.fleet.wait_applied(revision, DEADLINE);
        let applied = self.runtime.block_on(waited);
        assert!(applied.missing.is_empty(), "{applied:?}");
        began.elapsed()
    }

    fn join(&self, directory: &Path, name: &str) -> Identity {
        let (token, _) = self.push.token(None, None).expect("no chance is needed");
        let name = NodeName::parse(name).expect("a good name");
        let address = self.address.to_string();
        let joined = Identity::join(directory, &token, &address, name);
        self.runtime.block_on(joined).expect("the token is good")
    }

    /// Everything that is wrong with a node, in words.
    fn troubles(&self, name: &str) -> Vec<String> {
        let nodes = self.push.fleet.nodes();
        let node = nodes.get(&NodeName::parse(name).expect("a good name")).expect("it has joined");
        match &node.link {
            None => vec!["disconnected".to_owned()],
            Some(link) => link.troubles.iter().map(Trouble::to_string).collect(),
        }
    }
}

/// A node that serves nobody; stops when it is dropped.
struct Node {
    directory: Arc<Directory>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

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
}

impl Node {
    fn start(control: &str, at: &Path, directory: Arc<Directory>, damage: bool) -> Node {
        let identity = Identity::read(at).expect("readable").expect("it has joined");
        let (_keep, addresses) = watch::channel(NodeAddresses::default());
        let settings = NodeSettings {
            control: vec![control.to_owned()],
            directory: at.to_owned(),
            addresses,
            backends_mib: Vec::new(),
        };
        let mut link = Link::open(
            settings,
            identity,
            Arc::clone(&directory),
            Arc::new(NoBackend),
            Arc::new(NoLinks),
        )
        .expect("the folder is ours");
        assert!(!damage || link.damage(), "there is nothing to damage");
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("made");
            runtime.block_on(async {
                tokio::select! {
                    () = link.run() => (),
                    _ = stopped => (),
                }
            });
        });
        Node { directory, stop: Some(stop), thread: Some(thread) }
    }

    fn lets_in(&self, name: &str) -> bool {
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

fn empty_directory() -> Arc<Directory> {
    Arc::new(Directory::new(SecretKey::new(KEY)))
}

/// Introduces itself and then says nothing more.
async fn be_deaf(identity: Identity, address: SocketAddr) {
    let config = identity.client_config().expect("it has a certificate");
    let stream = tokio::net::TcpStream::connect(address).await.expect("control listens");
    let name = rustls::pki_types::ServerName::try_from("control.larder.internal").expect("a name");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, stream).await.expect("the certificate is good");
    let hello = FromNode::Hello(Hello {
        versions: VERSIONS,
        cluster: identity.cluster,
        node: identity.node.clone(),
        incarnation: identity.incarnation,
        revision: Revision::ZERO,
        digest: SetDigest::EMPTY,
        has_copy: false,
        epoch: cluster::map::Epoch::new(0),
        addresses: NodeAddresses::default(),
        backends_mib: Vec::new(),
        software: String::new(),
    });
    let mut bytes = Vec::new();
    hello.encode(VERSIONS.max, &mut bytes);
    stream.write_all(&bytes).await.expect("sent");
    stream.flush().await.expect("sent");
    let mut sink = vec![0; 64 * 1024];
    while stream.read(&mut sink).await.is_ok_and(|count| count > 0) {}
}

#[test]
fn a_fleet_has_every_commit_and_names_who_has_not() {
    play(&Fleet { nodes: 3, caches: 50, credentials_of_each: 10, commits: 50 });
}

#[test]
#[ignore = "takes minutes and gigabytes: cargo test -p testbed --test push -- --ignored --nocapture"]
fn seventy_nodes_a_hundred_thousand_credentials() {
    // Ten times as many do not fit 24 GiB: each node holds all differences of a snapshot at once.
    play(&Fleet { nodes: 70, caches: 10_000, credentials_of_each: 10, commits: 500 });
}

struct Fleet {
    nodes: usize,
    caches: u64,
    credentials_of_each: u64,
    commits: usize,
}

fn play(fleet: &Fleet) {
    let control = Control::start(Pretend::new(fleet.caches, fleet.credentials_of_each));
    let dir = tempfile::tempdir().expect("a folder");
    // One directory for all: seventy of a million credentials would not fit this machine. What each
    // has of its own is the copy in memory and on disk.
    let directory = empty_directory();
    let began = Instant::now();
    let mut nodes = Vec::new();
    for number in 0..fleet.nodes {
        let at = dir.path().join(format!("n{number}"));
        control.join(&at, &format!("n{number}"));
        let address = control.address.to_string();
        nodes.push(Node::start(&address, &at, Arc::clone(&directory), false));
    }
    let all = control.push.fleet.wait_applied(Revision::new(1), Duration::from_secs(600));
    let all = control.runtime.block_on(all);
    assert!(all.missing.is_empty(), "{all:?}");
    say(&format!("{} nodes have the first copy after {:?}", fleet.nodes, began.elapsed()));

    let mut took: Vec<Duration> =
        (0..fleet.commits).map(|n| control.commit_and_wait(&format!("new-{n}"))).collect();
    assert!(nodes.iter().all(|node| node.lets_in("new-0")));
    took.sort();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    say(&format!(
        "commit to all acknowledged: p50 {:?}, p99 {:?}, max {:?}",
        at(50),
        at(99),
        at(100)
    ));

    // A flipped bit: the node comes back with it and is found out, named and healed.
    let last = nodes.pop().expect("there are nodes");
    drop(last);
    let name = format!("n{}", fleet.nodes - 1);
    let at = dir.path().join(&name);
    eventually("the node is away", DEADLINE, || {
        (control.troubles(&name) == ["disconnected"]).then_some(())
    });
    let address = control.address.to_string();
    let damaged = Node::start(&address, &at, Arc::clone(&directory), true);
    eventually("the node is back", DEADLINE, || {
        (control.troubles(&name) != ["disconnected"]).then_some(())
    });
    let began = Instant::now();
    eventually("the flipped bit is named", DEADLINE, || {
        let troubles = control.troubles(&name);
        troubles.iter().any(|it| it.starts_with("digest differs")).then_some(())
    });
    say(&format!("a flipped bit is named after {:?}", began.elapsed()));
    assert!(began.elapsed() < Duration::from_secs(3));
    eventually("the copy is healed", DEADLINE, || control.troubles(&name).is_empty().then_some(()));
    say(&format!("and healed after {:?}", began.elapsed()));
    control.commit_and_wait("after-healing");

    // A deaf node is named, and holds nobody up.
    let deaf = control.join(&dir.path().join("deaf"), "deaf");
    let began = Instant::now();
    let task = control.runtime.spawn(be_deaf(deaf, control.address));
    eventually("the deaf node is named", DEADLINE, || {
        control.troubles("deaf").iter().any(|it| it == "deaf").then_some(())
    });
    say(&format!("a deaf node is named after {:?}", began.elapsed()));
    assert!(began.elapsed() < Duration::from_secs(3));
    let revision = control.source.commit(vec![credential("past-the-deaf", 1)]);
    let applied =
        control.runtime.block_on(control.push.fleet.wait_applied(revision, Duration::from_secs(1)));
    assert_eq!(applied.missing.iter().map(NodeName::as_str).collect::<Vec<_>>(), ["deaf"]);
    task.abort();

    // Control goes; what a node has on disk is enough.
    drop(damaged);
    let started = Instant::now();
    let alone = Node::start("127.0.0.1:1", &at, empty_directory(), false);
    assert!(alone.lets_in("past-the-deaf"));
    say(&format!("from disk, without control, after {:?}", started.elapsed()));
}

#[expect(clippy::print_stdout, reason = "figures for who runs it by hand")]
fn say(text: &str) {
    println!("{text}");
}
