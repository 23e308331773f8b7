//! Follows the source and keeps what is pushed: one copy of all records, and the newest deltas.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tenancy::id::CacheId;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use wire::control::digest::SetDigest;
use wire::control::message::{CHUNK_RECORDS_MAX, FromControl, SnapshotHead, VERSIONS};
use wire::control::record::{Delta, Record, Revision};
use wire::control::records::{Records, SHARDS};

use super::history::{Entry, History};
use super::source::{ChangeSource, Changes, SourceError};

/// Deltas asked of the source at a time.
const CHANGES_AT_ONCE: usize = 1_024;
/// After an error of the source; a database that restarts is back within seconds.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How often a part of the own copy is summed up again; all of it once a second.
const CHECK_EVERY: Duration = Duration::from_millis(125);
const SHARDS_AT_ONCE: usize = SHARDS / 8;

/// What sessions take from. Shared by all of them.
pub struct Publisher {
    source: Arc<dyn ChangeSource>,
    state: Mutex<State>,
    head: watch::Sender<Revision>,
}

struct State {
    records: Records,
    history: History,
    /// The frames of the newest snapshot, for as long as some session sends them.
    frames: Weak<SnapshotFrames>,
    next_shard: usize,
}

/// A snapshot as it is sent: encoded once, however many nodes want it.
pub struct SnapshotFrames {
    pub head: SnapshotHead,
    /// After the head, before the end.
    pub chunks: Vec<Vec<u8>>,
}

impl Publisher {
    /// Loads everything there is. Blocks.
    pub fn open(source: Arc<dyn ChangeSource>) -> Result<Self, SourceError> {
        let state = State::load(&*source)?;
        let head = watch::Sender::new(state.history.head().0);
        Ok(Publisher { source, state: Mutex::new(state), head })
    }

    /// Follows the source until the process ends.
    pub async fn run(self: Arc<Self>) {
        let mut commits = self.source.watch();
        let mut check = tokio::time::interval(CHECK_EVERY);
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_new = tokio::select! {
                changed = commits.changed() => {
                    if changed.is_err() {
                        return; // The source is gone: the process is stopping.
                    }
                    true
                }
                _ = check.tick() => false,
            };
            let this = Arc::clone(&self);
            let done = spawn_blocking(move || if is_new { this.catch_up() } else { this.check() });
            match done.await {
                Ok(Ok(())) => (),
                Ok(Err(error)) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "changes not read; nodes stay at what they have"
                    );
                    tokio::time::sleep(RETRY_AFTER).await;
                    commits.mark_changed();
                }
                Err(panicked) => {
                    tracing::error!(
                        error = &panicked as &dyn std::error::Error,
                        "publisher panicked"
                    );
                    commits.mark_changed();
                }
            }
        }
    }

    /// Takes in what was committed since the last time.
    fn catch_up(&self) -> Result<(), SourceError> {
        loop {
            let head = self.lock().history.head().0;
            match self.source.changes_since(head, CHANGES_AT_ONCE)? {
                Changes::Deltas(deltas) if deltas.is_empty() => return Ok(()),
                Changes::Deltas(deltas) => self.lock().apply(deltas)?,
                Changes::TooOld => self.reload()?,
            }
            self.head.send_replace(self.lock().history.head().0);
        }
    }

    /// Sums up a part of the own copy. What does not add up any more is read anew, so that no node
    /// is ever judged by a damaged copy for longer than a second.
    fn check(&self) -> Result<(), SourceError> {
        let is_good = {
            let mut state = self.lock();
            let first = state.next_shard;
            state.next_shard = (first + SHARDS_AT_ONCE) % SHARDS;
            (first..first + SHARDS_AT_ONCE).all(|shard| state.records.check_shard(shard))
        };
        if is_good {
            return Ok(());
        }
        tracing::error!("the copy in memory is damaged and is read anew");
        self.reload()?;
        self.head.send_replace(self.lock().history.head().0);
        Ok(())
    }

    fn reload(&self) -> Result<(), SourceError> {
        let state = State::load(&*self.source)?;
        *self.lock() = state;
        Ok(())
    }

    pub fn head(&self) -> (Revision, SetDigest) {
        self.lock().history.head()
    }

    /// Wakes when the head moves.
    pub fn subscribe(&self) -> watch::Receiver<Revision> {
        self.head.subscribe()
    }

    pub(super) fn with_history<R>(&self, look: impl FnOnce(&History) -> R) -> R {
        look(&self.lock().history)
    }

    pub(super) fn entries_after(&self, after: Revision, count: u64) -> Vec<Entry> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let state = self.lock();
        let entries = state.history.after(after).into_iter().flatten();
        entries.take(count).cloned().collect()
    }

    /// Looks at how much memory caches may have; for a moment, commits wait for it.
    pub(super) fn with_limits<R>(
        &self,
        look: impl FnOnce(&dyn Fn(CacheId) -> Option<u64>) -> R,
    ) -> R {
        let state = self.lock();
        look(&|id| state.records.cache(id).map(|cache| cache.limits.memory_bytes))
    }

    /// Caches and credentials that there are.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.records.caches(), state.records.credentials())
    }

    /// The frames of a snapshot from which the deltas at hand lead on. Encodes when no other session
    /// has them, which takes a tenth of a second for a million records.
    pub(super) fn snapshot(&self) -> Arc<SnapshotFrames> {
        let (records, head) = {
            let state = self.lock();
            if let Some(frames) = state.frames.upgrade()
                && state.history.digest_at(frames.head.revision) == Some(frames.head.digest)
            {
                return frames;
            }
            (state.records.clone(), state.history.head())
        };
        let frames = Arc::new(SnapshotFrames::new(&records, head));
        self.lock().frames = Arc::downgrade(&frames);
        frames
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn load(source: &dyn ChangeSource) -> Result<Self, SourceError> {
        let (revision, all) = source.snapshot()?;
        let mut records = Records::default();
        for record in all {
            records.put(record);
        }
        records.shrink();
        let history = History::new(revision, records.digest()).with_rules(0 < records.rules());
        Ok(State { records, history, frames: Weak::new(), next_shard: 0 })
    }

    fn apply(&mut self, deltas: Vec<Delta>) -> Result<(), SourceError> {
        for delta in deltas {
            let wanted = self.history.head().0.next();
            if delta.revision != wanted {
                let text = format!("revision {} came where {wanted} was due", delta.revision);
                return Err(SourceError::Broken(text));
            }
            for key in &delta.deletes {
                self.records.remove(key);
            }
            for record in &delta.puts {
                self.records.put(*record);
            }
            self.history.push(delta, self.records.digest());
        }
        Ok(())
    }
}

impl SnapshotFrames {
    fn new(records: &Records, (revision, digest): (Revision, SetDigest)) -> Self {
        let head = SnapshotHead {
            revision,
            digest,
            caches: u32::try_from(records.caches()).unwrap_or(u32::MAX),
            credentials: u32::try_from(records.credentials()).unwrap_or(u32::MAX),
            forced: false,
        };
        let mut chunks = Vec::new();
        let mut all = records.iter().peekable();
        while all.peek().is_some() {
            let chunk: Vec<Record> = all.by_ref().take(CHUNK_RECORDS_MAX).collect();
            let mut frame = Vec::new();
            FromControl::SnapshotChunk(chunk).encode(VERSIONS.max, &mut frame);
            chunks.push(frame);
        }
        SnapshotFrames { head, chunks }
    }
}
