//! A database in memory: what control pushes from when only the push is of interest.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use control::push::source::{
    ChangeSource, Changes, KeptEpochs, RegisteredNode, Registry, SourceError,
};
use tenancy::capability::Capabilities;
use tenancy::id::{CacheId, Username};
use tenancy::plan::{Limits, Rates};
use tenancy::secret::SecretKey;
use tokio::sync::watch;
use wire::control::record::{CacheRecord, CredentialRecord, Delta, Record, Revision};

use super::KEY;

/// One database and registry in memory.
pub struct Pretend {
    state: Mutex<State>,
    head: watch::Sender<Revision>,
}

#[derive(Default)]
struct State {
    first: Vec<Record>,
    log: Vec<Delta>,
    nodes: BTreeMap<String, RegisteredNode>,
    epochs: KeptEpochs,
    prepared: Option<Vec<u8>>,
}

impl Pretend {
    pub fn new(caches: u64, credentials_of_each: u64) -> Self {
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
    pub fn commit(&self, puts: Vec<Record>) -> Revision {
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
        let mut all = state.first.clone();
        // Nothing is ever deleted, and later ones take the place of earlier ones.
        all.extend(state.log.iter().flat_map(|delta| &delta.puts));
        Ok((Revision::new(state.log.len() as u64 + 1), all))
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

    fn epochs(&self) -> Result<KeptEpochs, SourceError> {
        Ok(self.lock().epochs.clone())
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
        state.epochs.highest = epoch;
        Ok(())
    }

    fn acknowledge_epoch(&self, _: u64, _: &str) -> Result<(), SourceError> {
        Ok(())
    }

    fn commit_epoch(&self, _: u64) -> Result<(), SourceError> {
        let mut state = self.lock();
        let committed = state.prepared.take();
        state.epochs.topologies.extend(committed);
        Ok(())
    }

    fn abort_epoch(&self, _: u64, _: &str) -> Result<(), SourceError> {
        self.lock().prepared = None;
        Ok(())
    }

    fn settle_epoch(&self, epoch: u64) -> Result<(), SourceError> {
        let mut state = self.lock();
        let before = state.epochs.topologies.len().saturating_sub(1);
        state.epochs.topologies.drain(..before);
        state.epochs.settled = epoch;
        Ok(())
    }
}

pub fn cache(id: u64) -> Record {
    Record::Cache(CacheRecord {
        id: CacheId::new(id),
        limits: Limits {
            memory_bytes: 25 << 20,
            item_bytes_max: 1 << 20,
            connections_max: 1_000,
            rates: Rates::UNLIMITED,
        },
        enabled: true,
        flush_generation: 0,
    })
}

/// Its password is its name.
pub fn credential(name: &str, cache: u64) -> Record {
    Record::Credential(CredentialRecord {
        username: Username::parse(name).expect("a good name"),
        cache: CacheId::new(cache),
        hash: SecretKey::new(KEY).hash(name.as_bytes(), name.as_bytes()),
        capabilities: Capabilities::ALL,
    })
}
