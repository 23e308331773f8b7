//! The last known good copy on disk.
//!
//! | file | content |
//! |---|---|
//! | `records` | a whole copy: the frames of a snapshot |
//! | `records.log` | the deltas since then: a frame each |
//! | `topology` | the topology in force: the frame of its PREPARE, and of a HEARTBEAT with what is settled; then the PREPARE of one that is being prepared |
//!
//! Every frame stands in an entry with its length and an XXH3 checksum, and is replayed through the
//! same rules by which it was taken from the control plane. `records` and `topology` are written
//! aside, synced and renamed, so a crash or a full disk leaves the old file or the new one, whole.
//! What a crash has left of an entry at the end of the log is cut off.
//!
//! ```text
//!   entry:  length u32 │ checksum u64 │ frame
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cluster::map::Epoch;
use rustix::fs::{FlockOperation, flock};
use wire::codec::{Reader, checksum};
use wire::control::digest::SetDigest;
use wire::control::message::{
    CHUNK_RECORDS_MAX, FromControl, MESSAGE_BYTES_MAX, SnapshotHead, VERSIONS,
};
use wire::control::record::{Delta, Record, Revision};
use wire::control::replica::Replica;
use wire::control::topology::Topology;
use wire::frame::{self, Decoded};

const LOCK_FILE: &str = "node.lock";
const RECORDS_FILE: &str = "records";
const LOG_FILE: &str = "records.log";
const TOPOLOGY_FILE: &str = "topology";

/// When the log is longer than this, the whole copy is written anew: some hundred thousand changes,
/// which a start replays within a tenth of a second.
pub const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The files of one node's copy.
#[derive(Debug)]
pub struct Disk {
    directory: PathBuf,
    /// Locked for as long as it is open: two processes with one identity would both own its slots.
    _lock: File,
    log: Option<File>,
    log_bytes: u64,
    /// Appended since the last sync.
    unsynced: Vec<u8>,
    durable: Revision,
    /// What is on disk does not lead up to what is in memory: the whole copy must be written.
    is_behind: bool,
}

/// What was found on disk.
#[derive(Debug, Default)]
pub struct Found {
    /// `None` when there is no copy, or none that can be trusted.
    pub replica: Option<Replica>,
    pub topology: Option<Arc<Topology>>,
    pub settled: Option<Epoch>,
    /// What was being prepared. Whether it came into force, control knows.
    pub prepared: Option<Arc<Topology>>,
    /// What could not be read, for the log.
    pub problems: Vec<String>,
}

impl Disk {
    /// Reads what is there. A file that is damaged is told of and left out; it is written anew with
    /// the next snapshot.
    pub fn open(directory: &Path) -> io::Result<(Self, Found)> {
        let mut found = Found::default();
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(directory.join(LOCK_FILE))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::other("another process is using the directory"))?;
        let mut disk = Disk {
            directory: directory.to_owned(),
            _lock: lock,
            log: None,
            log_bytes: 0,
            unsynced: Vec::new(),
            durable: Revision::ZERO,
            is_behind: false,
        };
        match disk.read_records() {
            Ok(replica) => found.replica = replica,
            Err(why) => found.problems.push(format!("{RECORDS_FILE}: {why}")),
        }
        match (&mut found.replica, disk.open_log()) {
            (Some(replica), Ok(log)) => {
                if let Err(why) = disk.replay(log, replica) {
                    found.problems.push(format!("{LOG_FILE}: {why}"));
                }
                disk.durable = replica.revision();
            }
            (None, Ok(_)) => disk.is_behind = true,
            (_, Err(why)) => {
                disk.is_behind = true;
                found.problems.push(format!("{LOG_FILE}: {why}"));
            }
        }
        match read_topology(&directory.join(TOPOLOGY_FILE)) {
            Ok(Some(read)) => {
                found.topology = Some(read.committed);
                found.settled = read.settled;
                found.prepared = read.prepared;
            }
            Ok(None) => (),
            Err(why) => found.problems.push(format!("{TOPOLOGY_FILE}: {why}")),
        }
        Ok((disk, found))
    }

    /// The revision that a start would find.
    pub fn durable(&self) -> Revision {
        self.durable
    }

    /// Whether what is in memory is not on disk, so that [`Disk::sync`] would write all of it.
    pub fn is_behind(&self) -> bool {
        self.is_behind
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "a new message does not belong here either")]
    fn read_records(&self) -> Result<Option<Replica>, String> {
        let bytes = match fs::read(self.directory.join(RECORDS_FILE)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let mut replica = Replica::default();
        let mut reader = Reader::new(&bytes);
        while !reader.is_empty() {
            let message = read_entry(&mut reader).ok_or("an entry is damaged")?;
            let taken = match message {
                FromControl::SnapshotBegin(head) => replica.begin(head),
                FromControl::SnapshotChunk(records) => replica.chunk(records),
                FromControl::SnapshotEnd => replica.end().map(drop),
                other => return Err(format!("{} does not belong here", other.name())),
            };
            taken.map_err(|refusal| refusal.to_string())?;
        }
        if replica.has_copy() { Ok(Some(replica)) } else { Err("it ends too early".to_owned()) }
    }

    fn open_log(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.open(self.directory.join(LOG_FILE))
    }

    /// Applies what follows on the copy, and cuts the log off where it stops making sense.
    fn replay(&mut self, mut log: File, replica: &mut Replica) -> Result<(), String> {
        let mut bytes = Vec::new();
        log.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        let mut reader = Reader::new(&bytes);
        let mut good = 0;
        let mut problem = None;
        while !reader.is_empty() {
            match read_entry(&mut reader) {
                Some(FromControl::Delta(delta)) if delta.revision <= replica.revision() => (),
                Some(FromControl::Delta(delta)) => {
                    if let Err(refusal) = replica.apply(&delta) {
                        problem = Some(refusal.to_string());
                        break;
                    }
                }
                Some(_) | None => {
                    problem = Some(format!("the last {} bytes are damaged", bytes.len() - good));
                    break;
                }
            }
            good = bytes.len() - reader.rest().len();
        }
        let kept = u64::try_from(good).unwrap_or(u64::MAX);
        let cut = log.set_len(kept).and_then(|()| log.seek(io::SeekFrom::Start(kept)));
        cut.map_err(|error| error.to_string())?;
        self.log_bytes = kept;
        self.log = Some(log);
        problem.map_or(Ok(()), Err)
    }

    /// Takes a delta that was applied; [`Disk::sync`] writes it.
    pub fn append(&mut self, delta: &Delta) {
        if !self.is_behind {
            let message = FromControl::Delta(delta.clone());
            write_entry(&mut self.unsynced, &message);
        }
    }

    /// The copy was replaced as a whole; [`Disk::sync`] writes it.
    pub fn replace(&mut self) {
        self.is_behind = true;
    }

    /// Writes what was appended, or the whole copy, and returns when the disk has it.
    ///
    /// # Errors
    /// The disk is full or broken. What was there stays, and the next call tries to write the whole
    /// copy.
    pub fn sync(&mut self, replica: &Replica) -> io::Result<()> {
        let written = if self.is_behind || LOG_BYTES_MAX < self.log_bytes || self.log.is_none() {
            self.write_all(replica)
        } else {
            self.write_log()
        };
        match &written {
            Ok(()) => {
                self.durable = replica.revision();
                self.is_behind = false;
            }
            // Some of an entry may be in the log; what would follow on it could not be read.
            Err(_) => self.is_behind = true,
        }
        self.unsynced.clear();
        written
    }

    fn write_log(&mut self) -> io::Result<()> {
        if self.unsynced.is_empty() {
            return Ok(());
        }
        let Some(log) = &mut self.log else { return Err(io::ErrorKind::NotFound.into()) };
        log.write_all(&self.unsynced)?;
        log.sync_data()?;
        self.log_bytes += self.unsynced.len() as u64;
        Ok(())
    }

    fn write_all(&mut self, replica: &Replica) -> io::Result<()> {
        self.put_file(RECORDS_FILE, |out| {
            let records = replica.records();
            let head = SnapshotHead {
                revision: replica.revision(),
                digest: records.digest(),
                caches: u32::try_from(records.caches()).unwrap_or(u32::MAX),
                credentials: u32::try_from(records.credentials()).unwrap_or(u32::MAX),
                forced: true,
            };
            let mut entry = Vec::new();
            write_entry(&mut entry, &FromControl::SnapshotBegin(head));
            out.write_all(&entry)?;
            let mut all = records.iter().peekable();
            while all.peek().is_some() {
                let chunk: Vec<Record> = all.by_ref().take(CHUNK_RECORDS_MAX).collect();
                entry.clear();
                write_entry(&mut entry, &FromControl::SnapshotChunk(chunk));
                out.write_all(&entry)?;
            }
            entry.clear();
            write_entry(&mut entry, &FromControl::SnapshotEnd);
            out.write_all(&entry)
        })?;
        // Everything in the log is older than the copy; were we to crash here, it would be skipped.
        let mut log = match self.log.take() {
            Some(log) => log,
            None => self.open_log()?,
        };
        log.set_len(0)?;
        log.rewind()?;
        self.log = Some(log);
        self.log_bytes = 0;
        Ok(())
    }

    /// Writes the topology that is in force, what is settled, and what is being prepared.
    pub fn write_topology(
        &self,
        committed: &Arc<Topology>,
        settled: Option<Epoch>,
        prepared: Option<&Arc<Topology>>,
    ) -> io::Result<()> {
        let prepare = |topology: &Arc<Topology>| FromControl::Prepare {
            topology: Arc::clone(topology),
            forced: true,
        };
        let mut entry = Vec::new();
        write_entry(&mut entry, &prepare(committed));
        if let Some(settled) = settled {
            let (revision, digest) = (Revision::ZERO, SetDigest::EMPTY);
            write_entry(&mut entry, &FromControl::Heartbeat { revision, digest, settled });
        }
        if let Some(prepared) = prepared {
            write_entry(&mut entry, &prepare(prepared));
        }
        self.put_file(TOPOLOGY_FILE, |out| out.write_all(&entry))
    }

    /// Puts a whole file in place at once.
    fn put_file(
        &self,
        name: &str,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> io::Result<()> {
        let path = self.directory.join(name);
        let draft = self.directory.join(format!("{name}.new"));
        let put = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            let mut out = BufWriter::with_capacity(1 << 20, options.open(&draft)?);
            write(&mut out)?;
            out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            fs::rename(&draft, &path)?;
            File::open(&self.directory)?.sync_all()
        };
        put().inspect_err(|_| {
            // Half a draft would only keep the disk full.
            drop(fs::remove_file(&draft));
        })
    }
}

struct FoundTopology {
    committed: Arc<Topology>,
    settled: Option<Epoch>,
    prepared: Option<Arc<Topology>>,
}

fn read_topology(path: &Path) -> Result<Option<FoundTopology>, String> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let mut reader = Reader::new(&bytes);
    let Some(FromControl::Prepare { topology: committed, .. }) = read_entry(&mut reader) else {
        return Err("it is damaged".to_owned());
    };
    // Without it nothing is settled, which is always safe to believe.
    let mut found = FoundTopology { committed, settled: None, prepared: None };
    while !reader.is_empty() {
        match read_entry(&mut reader) {
            Some(FromControl::Heartbeat { settled, .. }) => found.settled = Some(settled),
            Some(FromControl::Prepare { topology, .. }) => found.prepared = Some(topology),
            Some(_) | None => break,
        }
    }
    Ok(Some(found))
}

fn write_entry(out: &mut Vec<u8>, message: &FromControl) {
    let start = out.len();
    out.extend_from_slice(&[0; 12]);
    message.encode(VERSIONS.max, out);
    let frame = &out[start + 12..];
    let length = u32::try_from(frame.len()).expect("a frame has a limit below u32");
    let sum = checksum(frame);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + 12].copy_from_slice(&sum.to_le_bytes());
}

/// The next entry; `None` when it is not whole or not what was written.
fn read_entry(reader: &mut Reader<'_>) -> Option<FromControl> {
    let length = reader.count_u32("bytes", MESSAGE_BYTES_MAX + frame::HEADER_BYTES).ok()?;
    let sum = reader.u64().ok()?;
    let bytes = reader.bytes(length).ok()?;
    if checksum(bytes) != sum {
        return None;
    }
    match frame::decode(bytes, MESSAGE_BYTES_MAX) {
        Ok(Decoded::Frame { frame, consumed }) if consumed == length => {
            FromControl::decode(&frame).ok()
        }
        Ok(_) | Err(_) => None,
    }
}
