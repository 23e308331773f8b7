//! The connection to the control plane: made, kept, lost and made again, for as long as the process
//! lives.
//!
//! ```text
//!   connect (each address in turn) ──▶ HELLO ──▶ session: hear, serve, write, acknowledge
//!        ▲                                          │ lost, silent, refused
//!        └── wait: full jitter, at most 2 s ◀──────┘ marked stale; serving goes on
//! ```

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cluster::digest::Digest;
use cluster::map::Epoch;
use tenancy::directory::Directory;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_rustls::client::TlsStream;
use wire::codec::CodecError;
use wire::control::epochs::Epochs;
use wire::control::message::{
    Alarms, FromControl, FromNode, Hello, MESSAGE_BYTES_MAX, NodeAddresses, Report, USAGE_VERSION,
    VERSIONS,
};
use wire::control::node_session::{NodeSession, Step};
use wire::control::records::{Records, SHARDS};
use wire::control::replica::Replica;
use wire::control::topology::{MemberSet, Topology};
use wire::frame::{self, Decoded, FrameError};

use crate::comeback::Comeback;
use crate::disk::Disk;
use crate::identity::{ANSWER_TIME_MAX, Identity, Refused, connect};
use crate::serving::{DataPlane, Serving};
use crate::telling::Telling;
use crate::view::{Links, View};

/// Without a word for so long, the copy is called stale, and the connection is given up: three
/// heartbeats that did not come.
pub const SILENT_AFTER: Duration = Duration::from_secs(3);
/// How long a node that was started again asks control whether its slots are still its own, before it
/// asks the other nodes: static stability wants it to go on without control, and a control plane that is
/// there answers in milliseconds.
pub const ASKED_FIRST_MAX: Duration = Duration::from_secs(1);
/// How often it looks at what the others say.
const OTHERS_LOOK: Duration = Duration::from_millis(50);
/// The first wait before connecting again is somewhere below this, each further one below twice as
/// much ("full jitter"), so that a thousand nodes do not come back at one moment.
pub const RECONNECT_FIRST_MAX: Duration = Duration::from_millis(200);
/// And never longer than this, so that all is well five seconds after something was mended. A hundred
/// nodes, the most there are, then come back within these two seconds: a hundred handshakes of a
/// millisecond each for control.
pub const RECONNECT_MAX: Duration = Duration::from_secs(2);
/// How often a part of the records is summed up again.
const CHECK_EVERY: Duration = Duration::from_millis(50);
/// Within this time all records are summed up again, so that a flipped bit is in the next heartbeat. A
/// million take 30 ms of a processor.
pub const CHECK_ALL_WITHIN: Duration = Duration::from_secs(1);
/// After a write to the disk that failed. The whole copy is written then, some 100 MB at most; until it
/// is, no epoch after this one can begin.
pub const DISK_RETRY_AFTER: Duration = Duration::from_secs(2);
/// How often control is told what caches hold and count, and so how often their shares follow.
pub const USAGE_EVERY: Duration = Duration::from_secs(1);
/// For a message to be taken by the control plane's socket.
const SEND_TIME_MAX: Duration = Duration::from_secs(5);
/// A certificate is renewed when this is left of it: a third of its life.
const RENEW_BEFORE: Duration = Duration::from_secs(10 * 86_400);
/// And asked for no more often than this.
const RENEW_EVERY: Duration = Duration::from_secs(3_600);

/// What a node says of itself. Its addresses may change: then it introduces itself anew.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// `host:port` of each control plane; the next one is tried when one does not answer.
    pub control: Vec<String>,
    /// Where the copy is kept.
    pub directory: PathBuf,
    pub addresses: watch::Receiver<NodeAddresses>,
    /// Memory of each backend in MiB.
    pub backends_mib: Vec<u32>,
    /// [`CHECK_ALL_WITHIN`], unless many nodes are played on one machine.
    pub check_all_within: Duration,
}

/// The task that keeps this node's copy.
pub struct Link {
    settings: NodeSettings,
    identity: Identity,
    replica: Replica,
    epochs: Epochs,
    disk: Disk,
    serving: Serving,
    data_plane: Arc<dyn DataPlane>,
    links: Arc<dyn Links>,
    view: Arc<View>,
    /// What was refused last; told in reports until something is accepted again.
    was_refused: bool,
    disk_failed_at: Option<Instant>,
    /// What was in force before the process was started. The others may have been given its slots
    /// since.
    comeback: Comeback,
    /// Control has had its time to say so; now the others are asked.
    is_control_asked: bool,
    renewal_asked_at: Option<Instant>,
}

impl Link {
    /// Reads the copy from disk and has the data plane serve by it; without one, nothing is served
    /// until the first snapshot has come.
    pub fn open(
        settings: NodeSettings,
        identity: Identity,
        directory: Arc<Directory>,
        data_plane: Arc<dyn DataPlane>,
        links: Arc<dyn Links>,
    ) -> io::Result<Self> {
        let began = Instant::now();
        let (disk, found) = Disk::open(&settings.directory)?;
        for problem in &found.problems {
            tracing::error!(problem, "the copy on disk is damaged");
        }
        let mut serving = Serving::new(directory, Arc::clone(&data_plane));
        let view = Arc::new(View::default());
        let mut epochs = Epochs::default();
        let replica = match found.replica {
            Some(replica) => {
                serving.replace(&Records::default(), replica.records());
                view.set_revision(replica.revision().get());
                tracing::info!(
                    revision = replica.revision().get(),
                    caches = replica.records().caches(),
                    credentials = replica.records().credentials(),
                    took_ms = began.elapsed().as_millis() as u64,
                    "serving by the copy on disk until the control plane is heard"
                );
                replica
            }
            None => Replica::default(),
        };
        view.set_stale(true);
        if let Some(topology) = found.topology {
            epochs.committed = Some(Arc::clone(&topology));
            epochs.settled = found.settled;
            view.set_epochs(&epochs);
        }
        let prepared = found.prepared.as_deref();
        let comeback = Comeback::new(epochs.committed.as_ref(), prepared, &*links);
        Ok(Link {
            settings,
            identity,
            replica,
            epochs,
            disk,
            serving,
            data_plane,
            links,
            view,
            was_refused: false,
            disk_failed_at: None,
            comeback,
            is_control_asked: false,
            renewal_asked_at: None,
        })
    }

    /// Serves by the topology that was on disk, if the others say so.
    fn look_at_others(&mut self) {
        if self.is_control_asked {
            self.comeback.look(&*self.links, self.settled());
        }
    }

    /// Looks at what the others say while something else is waited for.
    async fn meanwhile<F: Future>(&mut self, waited_for: F) -> F::Output {
        let mut waited_for = pin!(waited_for);
        let mut look = interval(OTHERS_LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                done = &mut waited_for => return done,
                _ = look.tick() => self.look_at_others(),
            }
        }
    }

    /// What others read of it.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view)
    }

    /// For tests of what notices it: flips a bit of the copy in memory.
    pub fn damage(&mut self) -> bool {
        self.replica.damage()
    }

    /// Keeps the copy until the task is dropped. Blocks its thread for as long as a disk takes, so it
    /// should have one of its own.
    pub async fn run(mut self) {
        let mut wait_max = RECONNECT_FIRST_MAX;
        let mut next_address = 0;
        let mut is_told = false;
        loop {
            let count = self.settings.control.len().max(1);
            let address = self.settings.control.get(next_address % count).cloned();
            next_address += 1;
            let began = Instant::now();
            let ended = match &address {
                Some(address) => self.session(address).await,
                None => Err(LinkError::Silent),
            };
            // Ended by ourselves, to introduce this node anew.
            let Err(error) = ended else { continue };
            let error = self.because_of_certificate(error);
            self.is_control_asked = true;
            let error = &error as &dyn std::error::Error;
            let control = address.unwrap_or_default();
            if self.view.set_stale(true) {
                tracing::error!(control, error, "control is away; serving by the last copy");
            } else if !std::mem::replace(&mut is_told, true) {
                tracing::warn!(control, error, "control is not heard yet");
            } else {
                tracing::debug!(control, error, "control is still away");
            }
            // A session that lasted was a good one.
            if SILENT_AFTER < began.elapsed() {
                wait_max = RECONNECT_FIRST_MAX;
            }
            self.meanwhile(sleep(jitter(wait_max))).await;
            wait_max = (wait_max * 2).min(RECONNECT_MAX);
        }
    }

    /// Whoever reads the log shall not have to guess why a connection with an old certificate ends.
    fn because_of_certificate(&self, error: LinkError) -> LinkError {
        match unix_now().checked_sub(self.identity.not_after()) {
            Some(seconds) => LinkError::CertificateEnded { seconds, source: Box::new(error) },
            None => error,
        }
    }

    /// One connection, from HELLO to its end.
    async fn session(&mut self, address: &str) -> Result<(), LinkError> {
        let config = self.identity.client_config()?;
        let began = Instant::now();
        let is_first = self.comeback.is_asking() && !self.is_control_asked;
        let time_max = if is_first { ASKED_FIRST_MAX } else { ANSWER_TIME_MAX };
        let stream = self.meanwhile(timeout(time_max, connect(address, config))).await;
        let stream = stream.map_err(|_| LinkError::Silent)??;
        let (read, write) = tokio::io::split(stream);
        let mut pipe =
            Pipe { read, write, inbox: Vec::with_capacity(INBOX_BYTES), out: Vec::new() };
        let mut engine = NodeSession::new(VERSIONS);
        let mut addresses = self.settings.addresses.clone();
        addresses.mark_unchanged();
        self.hello().encode(VERSIONS.max, &mut pipe.out);
        pipe.flush().await?;
        let mut check = interval(CHECK_EVERY);
        let shards_at_once = shards_at_once(self.settings.check_all_within);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tell_usage = interval(USAGE_EVERY);
        tell_usage.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut telling = Telling::default();
        let mut heard_at = Instant::now();
        // What control was told last of the links for an epoch.
        let mut told = None;
        loop {
            tokio::select! {
                read = pipe.read.read_buf(&mut pipe.inbox) => {
                    if read? == 0 {
                        return Err(LinkError::Ended);
                    }
                    self.take_in(&mut pipe, &mut engine)?;
                    // After, not before: a large snapshot or a slow disk is no silence of control's.
                    heard_at = Instant::now();
                    if engine.is_open() && self.view.set_stale(false) {
                        tracing::info!(control = address, "control is heard");
                    }
                }
                Ok(()) = addresses.changed() => {
                    // Whether the goodbye arrives does not matter.
                    drop(timeout(SEND_TIME_MAX, pipe.write.shutdown()).await);
                    return Ok(());
                }
                _ = tell_usage.tick(), if USAGE_VERSION <= engine.version() && engine.is_open() => {
                    telling = self.tell_usage(&mut pipe, &engine, telling);
                }
                _ = check.tick() => {
                    self.replica.check_shards(shards_at_once);
                    self.is_control_asked |= ASKED_FIRST_MAX <= began.elapsed();
                    self.look_at_others();
                    if SILENT_AFTER <= heard_at.elapsed() {
                        return Err(LinkError::Silent);
                    }
                    if engine.is_open() {
                        self.retry_disk(&mut pipe, &engine);
                        self.tell_links(&mut pipe, &engine, &mut told);
                        self.ask_renewal(&mut pipe, &engine);
                    }
                }
            }
            pipe.flush().await?;
        }
    }

    fn hello(&self) -> FromNode {
        FromNode::Hello(Hello {
            versions: VERSIONS,
            cluster: self.identity.cluster,
            node: self.identity.node.clone(),
            incarnation: self.identity.incarnation,
            revision: self.replica.revision(),
            digest: self.replica.records().digest(),
            has_copy: self.replica.has_copy(),
            epoch: self.epochs.current(),
            addresses: *self.settings.addresses.borrow(),
            backends_mib: self.settings.backends_mib.clone(),
            software: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    /// Everything that has come: served at once, written together, acknowledged after.
    fn take_in(&mut self, pipe: &mut Pipe, engine: &mut NodeSession) -> Result<(), LinkError> {
        let mut taken = 0;
        while let Decoded::Frame { frame, consumed } =
            frame::decode(&pipe.inbox[taken..], MESSAGE_BYTES_MAX)?
        {
            let message = FromControl::decode(&frame)?;
            taken += consumed;
            let steps = engine
                .hear(message, &mut self.replica, &mut self.epochs)
                .map_err(|refusal| LinkError::Refused(Refused(refusal)))?;
            for step in steps {
                self.carry_out(step, pipe, engine.version());
            }
        }
        pipe.inbox.drain(..taken);
        self.write_and_acknowledge(pipe, engine);
        Ok(())
    }

    fn carry_out(&mut self, step: Step, pipe: &mut Pipe, version: u8) {
        match step {
            Step::Send(message) => {
                if let FromNode::Committed { epoch, .. } = message {
                    self.comeback.confirm(epoch, &*self.links, self.settled());
                }
                message.encode(version, &mut pipe.out);
            }
            Step::Changed { delta, changes } => {
                self.serving.apply(&changes);
                self.disk.append(&delta);
                self.accepted();
            }
            Step::Replaced { before } => {
                self.serving.replace(&before, self.replica.records());
                self.disk.replace();
                self.accepted();
                tracing::info!(
                    revision = self.replica.revision().get(),
                    caches = self.replica.records().caches(),
                    "a snapshot has replaced the copy"
                );
            }
            Step::Refused(refusal) => {
                self.was_refused = true;
                tracing::error!(%refusal, "refused what control sent; the copy stays");
            }
            Step::Report => self.report().encode(version, &mut pipe.out),
            Step::Prepare { topology, forced } => {
                self.view.set_epochs(&self.epochs);
                self.write_epochs();
                self.links.prepare(&topology, forced);
            }
            Step::Commit(topology) => self.commit(&topology, pipe, version),
            Step::Abort => {
                self.view.set_epochs(&self.epochs);
                self.write_epochs();
                self.links.abort();
            }
            Step::Settled(epoch) => {
                self.view.set_epochs(&self.epochs);
                self.write_epochs();
                self.links.settled(epoch);
            }
            Step::Share(shares) => self.data_plane.share(&shares),
            Step::Answer { number, question } => {
                let answer = self.serving.answer(&question, unix_now());
                FromNode::Answer { number, answer }.encode(version, &mut pipe.out);
            }
            Step::Certificate(certificate) => match self.identity.renew(certificate) {
                Ok(()) => tracing::info!("the certificate was renewed"),
                Err(error) => self.disk_failed(&error),
            },
        }
    }

    /// Routes by a topology, once it is on disk: a node that came back with an older one could own
    /// what another serves by then. Until it can be written, this node stays with what it had.
    fn commit(&mut self, topology: &Arc<Topology>, pipe: &mut Pipe, version: u8) {
        let (settled, prepared) = (self.epochs.settled, self.epochs.prepared.as_ref());
        if let Err(error) = self.disk.write_topology(topology, settled, prepared) {
            self.disk_failed(&error);
            self.epochs.not_written(self.view.epochs().committed.clone());
            return;
        }
        self.comeback.end();
        self.links.commit(topology, self.settled());
        self.view.set_epochs(&self.epochs);
        tracing::info!(epoch = topology.epoch().get(), "routing by a new epoch");
        let (epoch, digest) = (topology.epoch(), topology.digest());
        FromNode::Committed { epoch, digest }.encode(version, &mut pipe.out);
    }

    /// Writes what is known of epochs. What is being prepared, too: should this process end before it
    /// hears more, the next one must not tell a node that this epoch gives up that it knows of none
    /// (`cluster::comeback`). A disk that fails keeps nobody from preparing: it would keep every node
    /// from being given up.
    fn write_epochs(&mut self) {
        let epochs = &self.epochs;
        if let Some(committed) = &epochs.committed
            && let Err(error) =
                self.disk.write_topology(committed, epochs.settled, epochs.prepared.as_ref())
        {
            self.disk_failed(&error);
        }
    }

    fn settled(&self) -> Epoch {
        self.epochs.settled.unwrap_or(Epoch::new(0))
    }

    fn accepted(&mut self) {
        self.was_refused = false;
        self.view.set_revision(self.replica.revision().get());
    }

    fn write_and_acknowledge(&mut self, pipe: &mut Pipe, engine: &mut NodeSession) {
        // A topology that could not be written is written by the same retry as all the rest: if the
        // disk were taken for mended here, nobody would come back to it.
        let is_waiting = self.epochs.is_unwritten()
            || self.disk_failed_at.is_some_and(|at| at.elapsed() < DISK_RETRY_AFTER);
        let written = if is_waiting {
            Err(io::Error::other("the disk failed a moment ago"))
        } else if self.replica.has_copy() {
            self.disk.sync(&self.replica)
        } else {
            Ok(())
        };
        let answer = match written {
            Ok(()) => {
                self.disk_works();
                engine.acknowledge(&self.replica)
            }
            Err(error) => {
                if !is_waiting {
                    self.disk_failed(&error);
                }
                engine.not_durable(&self.replica, &error.to_string())
            }
        };
        if let Some(answer) = answer {
            answer.encode(engine.version(), &mut pipe.out);
        }
    }

    /// After the disk has failed, the whole copy is written as soon as it works again.
    fn retry_disk(&mut self, pipe: &mut Pipe, engine: &NodeSession) {
        if self.disk_failed_at.is_none_or(|at| at.elapsed() < DISK_RETRY_AFTER) {
            return;
        }
        match self.disk.sync(&self.replica) {
            Ok(()) => {
                self.disk_works();
                let (revision, digest) = (self.replica.revision(), self.replica.records().digest());
                FromNode::Ack { revision, digest }.encode(engine.version(), &mut pipe.out);
                if let Some(topology) = self.epochs.take_up() {
                    self.commit(&topology, pipe, engine.version());
                }
            }
            Err(error) => self.disk_failed(&error),
        }
    }

    fn disk_works(&mut self) {
        if self.disk_failed_at.take().is_some() {
            tracing::info!("the disk works again");
        }
    }

    fn disk_failed(&mut self, error: &io::Error) {
        let is_new = self.disk_failed_at.replace(Instant::now()).is_none();
        if is_new {
            let error = error as &dyn std::error::Error;
            tracing::error!(error, "the copy could not be written; serving goes on from memory");
        }
    }

    fn report(&self) -> FromNode {
        let mut alarms = Alarms::NONE;
        for (is_raised, alarm) in [
            (self.disk_failed_at.is_some(), Alarms::DISK),
            (self.serving.lacks_room(), Alarms::NO_ROOM),
            (self.replica.is_damaged(), Alarms::CORRUPT),
            (self.was_refused, Alarms::REFUSED),
        ] {
            if is_raised {
                alarms = alarms.with(alarm);
            }
        }
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let records = self.replica.records();
        let committed = self.epochs.committed.as_ref();
        FromNode::Report(Report {
            revision: self.replica.revision(),
            digest: self.replica.reported_digest(),
            durable: self.disk.durable(),
            epoch: self.epochs.current(),
            connected: committed.map_or(MemberSet::NONE, |it| self.links.connected(it)),
            caches: count(records.caches()),
            credentials: count(records.credentials()),
            alarms,
        })
    }

    /// Tells control which members of the prepared epoch there are links to, whenever that changes.
    fn tell_links(&self, pipe: &mut Pipe, engine: &NodeSession, told: &mut Option<Told>) {
        let Some(prepared) = &self.epochs.prepared else { return };
        let now = (prepared.epoch(), prepared.digest(), self.links.connected(prepared));
        if *told != Some(now) {
            let (epoch, digest, connected) = now;
            FromNode::Prepared { epoch, digest, connected }.encode(engine.version(), &mut pipe.out);
            *told = Some(now);
        }
    }

    /// Tells control what caches hold and count.
    fn tell_usage(&self, pipe: &mut Pipe, engine: &NodeSession, telling: Telling) -> Telling {
        self.data_plane.keep_shares();
        let (reports, told) = telling.next(&*self.data_plane);
        for report in reports {
            FromNode::Usage(report).encode(engine.version(), &mut pipe.out);
        }
        told
    }

    fn ask_renewal(&mut self, pipe: &mut Pipe, engine: &NodeSession) {
        let left = self.identity.not_after().saturating_sub(unix_now());
        let is_asked = self.renewal_asked_at.is_some_and(|at| at.elapsed() < RENEW_EVERY);
        if left < RENEW_BEFORE.as_secs() && !is_asked {
            self.renewal_asked_at = Some(Instant::now());
            let public_key = self.identity.public_key();
            FromNode::Renew { public_key }.encode(engine.version(), &mut pipe.out);
        }
    }
}

type Told = (Epoch, Digest, MemberSet);

/// Room for what comes at once; a snapshot's chunk makes it grow to some 300 KB.
const INBOX_BYTES: usize = 64 * 1024;

struct Pipe {
    read: tokio::io::ReadHalf<TlsStream<TcpStream>>,
    write: tokio::io::WriteHalf<TlsStream<TcpStream>>,
    inbox: Vec<u8>,
    out: Vec<u8>,
}

impl Pipe {
    async fn flush(&mut self) -> Result<(), LinkError> {
        if self.out.is_empty() {
            return Ok(());
        }
        let send = async {
            self.write.write_all(&self.out).await?;
            self.write.flush().await
        };
        timeout(SEND_TIME_MAX, send).await.map_err(|_| LinkError::Silent)??;
        self.out.clear();
        Ok(())
    }
}

/// Why a connection to the control plane ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("the certificate cannot be used")]
    Tls(#[from] rustls::Error),
    #[error(
        "this node's certificate ended {seconds} s ago: join again, with a token made for its name"
    )]
    CertificateEnded { seconds: u64, source: Box<LinkError> },
    #[error("the stream is no sequence of frames")]
    Frame(#[from] FrameError),
    #[error("a message could not be decoded")]
    Message(#[from] CodecError),
    #[error("control refused this node")]
    Refused(#[source] Refused),
    #[error("control closed the connection")]
    Ended,
    #[error("no word from control")]
    Silent,
}

/// Shards to look at every [`CHECK_EVERY`].
fn shards_at_once(all_within: Duration) -> usize {
    let part = CHECK_EVERY.as_secs_f64() / all_within.max(CHECK_EVERY).as_secs_f64();
    (SHARDS as f64 * part).ceil() as usize
}

/// Somewhere between nothing and `max`, evenly.
fn jitter(max: Duration) -> Duration {
    // Without chance the middle is as good as any; nothing depends on it.
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    max.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
