//! Takes nodes' connections: mutual TLS, joining, and one task per session.
//!
//! One listener for all. Who shows a certificate of our authority is that node; who shows none may
//! only join. A session's task owns its engine and its two buffers; both are bounded, so a node that
//! does not read costs [`OUT_BYTES_MAX`] and nothing else.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use rustls::RootCertStore;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use wire::codec::CodecError;
use wire::control::inquiry::{ANSWER_BYTES_MAX, Answer};
use wire::control::message::{
    FromControl, FromNode, MESSAGE_BYTES_MAX, Reason, Refusal, SnapshotHead, USAGE_VERSION,
    VERSIONS,
};
use wire::control::name::NodeName;
use wire::control::usage::{SHARES_MAX, USAGE_BYTES_MAX};
use wire::frame::{self, Decoded, FrameError};

use super::authority::{Authority, AuthorityError, NODE_CERTIFICATE_LIFE, key_digest};
use super::driver::Announced;
use super::fleet::{Ask, Connected, Fleet};
use super::publisher::{Publisher, SnapshotFrames};
use super::quota::Quota;
use super::session::{Act, HEARTBEAT, Moment, Push, Session};
use super::source::{RegisteredNode, Registry};
use crate::environment::Environment;
use crate::usage::Usage;

/// Connections at one time: every node of the largest cluster, some of them twice.
pub const CONNECTIONS_MAX: usize = 2_048;
/// A stranger, or a node that has gone away in between, holds a place for so long at most.
const GREETING_TIME_MAX: Duration = Duration::from_secs(5);
/// The longest messages of a node tell of the use of caches, or answer a question.
const NODE_MESSAGE_BYTES_MAX: usize = 64 * 1024;
const _: () = assert!(USAGE_BYTES_MAX < NODE_MESSAGE_BYTES_MAX);
const _: () = assert!(ANSWER_BYTES_MAX < NODE_MESSAGE_BYTES_MAX);
/// Questions that a node has not answered: of more, the oldest are given up.
const ASKED_MAX: usize = 64;
/// What waits for a node's socket. Beyond it, nothing more is encoded for that node.
pub const OUT_BYTES_MAX: usize = 512 * 1024;
/// How often a session looks at the clock; a quarter of a heartbeat, so that a deaf node is named
/// well within three seconds.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// All that sessions share.
pub struct Server {
    pub publisher: Arc<Publisher>,
    pub fleet: Arc<Fleet>,
    pub registry: Arc<dyn Registry>,
    pub authority: Arc<Authority>,
    /// Under which the data plane's password hashes are made; nodes get it when they join.
    pub secret_key: [u8; 32],
    /// Says what time it is for tokens and certificates.
    pub environment: Environment,
    pub announced: watch::Receiver<Announced>,
    pub(super) quota: Arc<Quota>,
    pub usage: Arc<Usage>,
    pub started: Instant,
    /// The same in milliseconds of Unix time.
    pub started_at: u64,
    /// Of connections, so that of one node's the newer is known.
    pub numbers: AtomicU64,
}

impl Server {
    /// Serves until the task is dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) -> Result<(), AuthorityError> {
        let acceptor = TlsAcceptor::from(Arc::new(self.tls()?));
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let permit =
                Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "connection of a node not accepted"
                    );
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (server, acceptor) = (Arc::clone(&self), acceptor.clone());
            tokio::spawn(async move {
                let peer = stream.peer_addr().map_or_else(|_| String::new(), |it| it.to_string());
                if let Err(error) = server.greet(stream, acceptor).await {
                    tracing::warn!(
                        peer,
                        error = &error as &dyn std::error::Error,
                        "connection of a node ended"
                    );
                }
                drop(permit);
            });
        }
    }

    fn tls(&self) -> Result<ServerConfig, AuthorityError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        let authority = self.authority.certificate().clone();
        roots.add(authority.clone()).expect("our own authority is a certificate");
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                // For those that join; [`Server::greet`] lets them do nothing else.
                .allow_unauthenticated()
                .build()
                .expect("there is one root");
        let (certificate, key) = self.authority.certify_control(self.unix_now())?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("ring speaks TLS 1.3")
            .with_client_cert_verifier(verifier)
            // The authority goes along: who joins knows it by its fingerprint only.
            .with_single_cert(vec![certificate, authority], key)
            .expect("the certificate was made for the key");
        Ok(config)
    }

    async fn greet(&self, stream: TcpStream, acceptor: TlsAcceptor) -> Result<(), SessionError> {
        stream.set_nodelay(true)?;
        let stream =
            timeout(GREETING_TIME_MAX, acceptor.accept(stream)).await.map_err(|_| {
                SessionError::Io(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "no TLS handshake in time",
                ))
            })??;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let peer = certificate.map(|certificate| Peer::of(certificate)).transpose()?;
        let (read, write) = tokio::io::split(stream);
        let mut pipe = Pipe { read, write, inbox: Vec::new(), out: Out::default() };
        match peer {
            None => self.join(&mut pipe).await,
            Some(peer) => match self.known(&peer).await {
                Ok(()) => self.session(&mut pipe, peer).await,
                Err(refusal) => pipe.refuse(VERSIONS.max, refusal).await,
            },
        }
    }

    /// Whether this certificate is (still) a node's.
    async fn known(&self, peer: &Peer) -> Result<(), Refusal> {
        let nodes = self.nodes().await?;
        let found = nodes.iter().find(|node| node.name == peer.name.as_str());
        match found {
            Some(node) if node.key_digest == peer.key_digest => Ok(()),
            Some(_) => Err(Refusal::new(Reason::NameTaken, "another key has this name now")),
            None => Err(Refusal::new(Reason::UnknownNode, "it was removed; join again")),
        }
    }

    async fn nodes(&self) -> Result<Vec<RegisteredNode>, Refusal> {
        let registry = Arc::clone(&self.registry);
        let asked = tokio::task::spawn_blocking(move || registry.nodes()).await;
        asked.map_err(|_| busy())?.map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "nodes not read");
            busy()
        })
    }

    /// Lets a node in that has a token: gives it a certificate, and what else it needs to serve.
    async fn join(&self, pipe: &mut Pipe) -> Result<(), SessionError> {
        let message =
            timeout(GREETING_TIME_MAX, pipe.receive()).await.map_err(|_| timed_out())??;
        let FromNode::Join { versions, token, node, public_key } = message else {
            let refusal = Refusal::new(Reason::Unexpected, "without a certificate, only JOIN");
            return pipe.refuse(VERSIONS.max, refusal).await;
        };
        let Some(version) = VERSIONS.agree(versions) else {
            let detail = format!("versions {VERSIONS} here, {versions} there");
            return pipe.refuse(versions.max, Refusal::new(Reason::Version, detail)).await;
        };
        match self.admit(&token, &node, &public_key).await {
            Err(refusal) => pipe.refuse(version, refusal).await,
            Ok(joined) => {
                tracing::info!(node = %node, "node joined");
                pipe.out.put(&joined, version);
                pipe.flush().await?;
                Ok(())
            }
        }
    }

    async fn admit(
        &self,
        token: &str,
        node: &NodeName,
        public_key: &[u8],
    ) -> Result<FromControl, Refusal> {
        let now = self.unix_now();
        let token = self.authority.check_token(token, node, now)?;
        let certificate = self.authority.certify(node, public_key, now, NODE_CERTIFICATE_LIFE)?;
        let key_digest = key_digest(public_key);
        let nodes = self.nodes().await?;
        let known = nodes.into_iter().find(|known| known.name == node.as_str());
        if known.as_ref().is_some_and(|known| known.key_digest != key_digest)
            && token.node.is_none()
        {
            let detail = "there is such a node; a token made for its name lets it in again";
            return Err(Refusal::new(Reason::NameTaken, detail));
        }
        let registered = RegisteredNode {
            name: node.to_string(),
            key_digest,
            ..known.unwrap_or(RegisteredNode {
                name: String::new(),
                key_digest,
                incarnation: 0,
                peers: None,
                backends_mib: Vec::new(),
            })
        };
        self.register(registered).await?;
        self.fleet.add(node);
        Ok(FromControl::Joined {
            cluster: self.authority.cluster(),
            certificate,
            authority: self.authority.certificate().to_vec(),
            secret_key: self.secret_key,
        })
    }

    async fn register(&self, node: RegisteredNode) -> Result<(), Refusal> {
        let registry = Arc::clone(&self.registry);
        let done = tokio::task::spawn_blocking(move || registry.register_node(&node)).await;
        done.map_err(|_| busy())?.map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "node not registered");
            busy()
        })
    }

    async fn session(&self, pipe: &mut Pipe, peer: Peer) -> Result<(), SessionError> {
        let number = self.numbers.fetch_add(1, Relaxed);
        let engine =
            Session::new(VERSIONS, self.authority.cluster(), peer.name.clone(), self.now());
        let connected = self.fleet.connect(&peer.name, number);
        let mut task = SessionTask {
            server: self,
            peer,
            engine,
            connected,
            snapshot: None,
            epoch_told: None,
            asked: BTreeMap::new(),
            asked_total: 0,
        };
        let ended = task.run(pipe).await;
        tracing::info!(node = %task.peer.name, "node disconnected");
        ended
    }

    fn now(&self) -> Moment {
        self.started.elapsed()
    }

    fn unix_now(&self) -> u64 {
        self.environment.now().0
    }
}

/// Who a certificate says is there.
struct Peer {
    name: NodeName,
    key_digest: [u8; 32],
}

impl Peer {
    fn of(certificate: &CertificateDer<'_>) -> Result<Self, SessionError> {
        let parsed =
            webpki::EndEntityCert::try_from(certificate).map_err(|_| SessionError::Certificate)?;
        let name = parsed.valid_dns_names().find_map(NodeName::from_certificate_name);
        let spki = parsed.subject_public_key_info();
        // The point is the last thing in it (RFC 5480): 65 bytes.
        let point = spki.as_ref().last_chunk::<65>().ok_or(SessionError::Certificate)?;
        let name = name.ok_or(SessionError::Certificate)?;
        Ok(Peer { name, key_digest: key_digest(point) })
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("the stream is no sequence of frames")]
    Frame(#[from] FrameError),
    #[error("a message could not be decoded")]
    Message(#[from] CodecError),
    #[error("the certificate is no node's")]
    Certificate,
    #[error("refused: {0}")]
    Refused(Refusal),
}

struct SessionTask<'a> {
    server: &'a Server,
    peer: Peer,
    engine: Session,
    connected: Connected,
    /// The snapshot that is being sent, and how many chunks have been.
    snapshot: Option<(Arc<SnapshotFrames>, usize)>,
    /// The newest phase this node was told of.
    epoch_told: Option<Announced>,
    /// Who waits for the answer of this number.
    asked: BTreeMap<u64, Sender<(NodeName, Answer)>>,
    asked_total: u64,
}

impl SessionTask<'_> {
    async fn run(&mut self, pipe: &mut Pipe) -> Result<(), SessionError> {
        let mut heads = self.server.publisher.subscribe();
        let mut announced = self.server.announced.clone();
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut beaten_at = None;
        let (force, end) = (Arc::clone(&self.connected.force), Arc::clone(&self.connected.end));
        loop {
            self.announce(pipe, &announced.borrow_and_update().clone());
            self.push(pipe).await?;
            let out_waits = pipe.out.waits();
            tokio::select! {
                read = pipe.read.read_buf(&mut pipe.inbox) => {
                    if read? == 0 {
                        return Ok(());
                    }
                    while let Some(message) = take_message(&mut pipe.inbox)? {
                        let (server, now) = (self.server, self.server.now());
                        let engine = &mut self.engine;
                        let acts =
                            server.publisher.with_history(|history| engine.hear(message, history, now));
                        self.act(pipe, acts).await?;
                    }
                }
                sent = pipe.out.send(&mut pipe.write), if out_waits => sent?,
                moved = heads.changed() => if moved.is_err() { return Ok(()) },
                told = announced.changed() => if told.is_err() { return Ok(()) },
                _ = look.tick() => {
                    let now = self.server.now();
                    let acts = self.engine.look(now);
                    self.act(pipe, acts).await?;
                    let is_due = beaten_at.is_none_or(|at| HEARTBEAT <= now.saturating_sub(at));
                    // To a node that does not read, the unread heartbeat says enough.
                    if self.engine.is_open() && is_due && !pipe.out.waits() {
                        beaten_at = Some(now);
                        let (revision, digest) = self.server.publisher.head();
                        let settled = self.server.announced.borrow().settled;
                        let beat = FromControl::Heartbeat { revision, digest, settled };
                        pipe.out.put(&beat, self.engine.version());
                    }
                    self.tell_shares(pipe);
                }
                Some(ask) = self.connected.asked.recv() => self.bring(pipe, ask),
                () = force.notified() => self.engine.force(),
                () = end.notified() => return Ok(()),
            }
            self.connected.troubles(self.engine.troubles());
        }
    }

    /// Tells the node of an epoch it has not been told of in this phase.
    fn announce(&mut self, pipe: &mut Pipe, announced: &Announced) {
        if !self.engine.is_open() || self.epoch_told.as_ref() == Some(announced) {
            return;
        }
        let before = self.epoch_told.replace(announced.clone()).unwrap_or_default();
        let version = self.engine.version();
        // First: a node that was cut off while an epoch was settled must know that before it takes a
        // newer topology for a reason to go on serving what it held.
        if announced.settled != before.settled {
            let (revision, digest) = self.server.publisher.head();
            let settled = announced.settled;
            pipe.out.put(&FromControl::Heartbeat { revision, digest, settled }, version);
        }
        if announced.committed != before.committed
            && let Some(topology) = &announced.committed
        {
            let (epoch, digest) = (topology.epoch(), topology.digest());
            if before.prepared.as_ref() != Some(topology) {
                // It was away when this was prepared.
                let prepare = FromControl::Prepare {
                    topology: Arc::clone(topology),
                    forced: announced.forced,
                };
                pipe.out.put(&prepare, version);
            }
            pipe.out.put(&FromControl::Commit { epoch, digest }, version);
        }
        if announced.prepared != before.prepared {
            if let Some(topology) = &announced.prepared {
                let prepare = FromControl::Prepare {
                    topology: Arc::clone(topology),
                    forced: announced.forced,
                };
                pipe.out.put(&prepare, version);
            } else if let Some(given_up) = &before.prepared
                && announced.committed.as_ref() != Some(given_up)
            {
                pipe.out.put(&FromControl::Abort { epoch: given_up.epoch() }, version);
            }
        }
    }

    /// Fills the buffer with what the node lacks.
    async fn push(&mut self, pipe: &mut Pipe) -> Result<(), SessionError> {
        while pipe.out.len() < OUT_BYTES_MAX {
            let version = self.engine.version();
            if let Some((frames, sent)) = &mut self.snapshot {
                match frames.chunks.get(*sent) {
                    Some(chunk) => {
                        pipe.out.put_frame(chunk);
                        *sent += 1;
                    }
                    None => {
                        pipe.out.put(&FromControl::SnapshotEnd, version);
                        self.snapshot = None;
                    }
                }
                continue;
            }
            let (publisher, now) = (&self.server.publisher, self.server.now());
            let engine = &mut self.engine;
            match publisher.with_history(|history| engine.next_push(history, now)) {
                Push::Nothing => return Ok(()),
                Push::Refused(refusal) => return self.turn_away(pipe, refusal).await,
                Push::Deltas { after, count } => {
                    for entry in publisher.entries_after(after, count) {
                        pipe.out.put_frame(&entry.frame);
                    }
                }
                Push::Snapshot { forced } => {
                    let publisher = Arc::clone(publisher);
                    let Ok(frames) =
                        tokio::task::spawn_blocking(move || publisher.snapshot()).await
                    else {
                        return Ok(()); // It panicked, and said so; the node asks again by its digest.
                    };
                    tracing::info!(node = %self.peer.name, revision = frames.head.revision.get(),
                        "node gets a snapshot");
                    let head = SnapshotHead { forced, ..frames.head };
                    self.engine.snapshot_sent(head.revision);
                    pipe.out.put(&FromControl::SnapshotBegin(head), version);
                    self.snapshot = Some((frames, 0));
                }
            }
        }
        Ok(())
    }

    /// Tells the node what its backends may hold, as far as that has changed. Nothing is lost while it
    /// does not read: the newest shares wait.
    fn tell_shares(&self, pipe: &mut Pipe) {
        let version = self.engine.version();
        if !self.engine.is_open() || version < USAGE_VERSION {
            return;
        }
        let epoch = self.epoch_told.as_ref().and_then(Announced::epoch);
        while pipe.out.len() < OUT_BYTES_MAX {
            let shares = self.server.quota.take(&self.peer.name, epoch, SHARES_MAX);
            if shares.is_empty() {
                return;
            }
            pipe.out.put(&FromControl::Shares(shares), version);
        }
    }

    /// Asks the node, unless it would not understand, or does not read.
    fn bring(&mut self, pipe: &mut Pipe, ask: Ask) {
        let version = self.engine.version();
        let is_understood = ask.question.version() <= version;
        if !self.engine.is_open() || !is_understood || OUT_BYTES_MAX <= pipe.out.len() {
            return;
        }
        let number = self.asked_total;
        self.asked_total += 1;
        self.asked.insert(number, ask.answer);
        if ASKED_MAX < self.asked.len() {
            self.asked.pop_first();
        }
        pipe.out.put(&FromControl::Ask { number, question: ask.question }, version);
    }

    async fn act(&mut self, pipe: &mut Pipe, acts: Vec<Act>) -> Result<(), SessionError> {
        for act in acts {
            match act {
                Act::Send(message) => pipe.out.put(&message, self.engine.version()),
                Act::Registered(hello) => {
                    let node = RegisteredNode {
                        name: self.peer.name.to_string(),
                        key_digest: self.peer.key_digest,
                        incarnation: hello.incarnation.get(),
                        peers: hello.addresses.peers,
                        backends_mib: hello.backends_mib.clone(),
                    };
                    tracing::info!(node = %self.peer.name, incarnation = %hello.incarnation,
                        revision = hello.revision.get(), "node connected");
                    self.connected.hello(hello);
                    if let Err(refusal) = self.server.register(node).await {
                        return pipe.refuse(self.engine.version(), refusal).await;
                    }
                }
                Act::Acknowledged(revision) => self.connected.acknowledged(revision),
                Act::Reported(report) => self.connected.reported(*report),
                Act::Prepared { epoch, digest, connected } => {
                    self.connected.prepared(epoch, digest, connected);
                }
                Act::Committed { epoch, digest } => self.connected.committed(epoch, digest),
                Act::Renew { public_key } => self.renew(pipe, &public_key),
                Act::Used(report) => {
                    let server = self.server;
                    server.quota.hear(&self.peer.name, &report);
                    server.usage.hear(&self.peer.name, &report, server.started_at);
                }
                Act::Answered { number, answer } => {
                    if let Some(waits) = self.asked.remove(&number) {
                        // Who asked may have given up.
                        drop(waits.send((self.peer.name.clone(), *answer)));
                    }
                }
                Act::Alarm(trouble) => {
                    tracing::error!(node = %self.peer.name, trouble = %trouble, "alarm");
                }
                Act::Close(refusal) => return self.turn_away(pipe, refusal).await,
            }
        }
        Ok(())
    }

    /// Ends the session, and keeps in mind why if it will always end so.
    async fn turn_away(&self, pipe: &mut Pipe, refusal: Refusal) -> Result<(), SessionError> {
        if refusal.reason == Reason::Version {
            self.connected.has_other_version(&refusal);
        }
        pipe.refuse(self.engine.version(), refusal).await
    }

    /// The same key only: who holds a certificate may have it for longer, not for something else.
    fn renew(&self, pipe: &mut Pipe, public_key: &[u8]) {
        let made = if key_digest(public_key) == self.peer.key_digest {
            let authority = &self.server.authority;
            let now = self.server.unix_now();
            authority.certify(&self.peer.name, public_key, now, NODE_CERTIFICATE_LIFE)
        } else {
            Err(Refusal::new(Reason::WrongName, "another key than the one it joined with"))
        };
        match made {
            Ok(certificate) => {
                pipe.out.put(&FromControl::Certificate(certificate), self.engine.version());
            }
            Err(refusal) => {
                tracing::warn!(node = %self.peer.name, %refusal, "certificate not renewed");
            }
        }
    }
}

/// A connection with its two buffers.
struct Pipe {
    read: ReadHalf<TlsStream<TcpStream>>,
    write: WriteHalf<TlsStream<TcpStream>>,
    inbox: Vec<u8>,
    out: Out,
}

impl Pipe {
    async fn receive(&mut self) -> Result<FromNode, SessionError> {
        loop {
            if let Some(message) = take_message(&mut self.inbox)? {
                return Ok(message);
            }
            if self.read.read_buf(&mut self.inbox).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    async fn flush(&mut self) -> Result<(), SessionError> {
        let send = async {
            while self.out.waits() {
                self.out.send(&mut self.write).await?;
            }
            self.write.shutdown().await
        };
        timeout(GREETING_TIME_MAX, send).await.map_err(|_| timed_out())??;
        Ok(())
    }

    /// Tells why, and ends.
    async fn refuse(&mut self, version: u8, refusal: Refusal) -> Result<(), SessionError> {
        self.out.put(&FromControl::Refused(refusal.clone()), version);
        self.flush().await?;
        Err(SessionError::Refused(refusal))
    }
}

/// Bytes on their way to a node.
#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    sent: usize,
    /// Whether TLS may still hold some of what was sent.
    is_unflushed: bool,
}

impl Out {
    fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    fn waits(&self) -> bool {
        self.len() > 0 || self.is_unflushed
    }

    fn put(&mut self, message: &FromControl, version: u8) {
        message.encode(version, &mut self.bytes);
    }

    fn put_frame(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
    }

    /// Sends some. May be dropped in the middle: what was not taken is still here.
    async fn send(&mut self, to: &mut WriteHalf<TlsStream<TcpStream>>) -> io::Result<()> {
        if self.len() > 0 {
            self.sent += to.write(&self.bytes[self.sent..]).await?;
            self.is_unflushed = true;
            if self.sent == self.bytes.len() {
                self.bytes.clear();
                self.sent = 0;
                // A snapshot has passed; do not keep its room for ever.
                self.bytes.shrink_to(OUT_BYTES_MAX);
            }
        }
        if self.len() == 0 {
            to.flush().await?;
            self.is_unflushed = false;
        }
        Ok(())
    }
}

/// Takes the first whole message off the front.
fn take_message(inbox: &mut Vec<u8>) -> Result<Option<FromNode>, SessionError> {
    match frame::decode(inbox, NODE_MESSAGE_BYTES_MAX)? {
        Decoded::NeedMore { .. } => Ok(None),
        Decoded::Frame { frame, consumed } => {
            let message = FromNode::decode(&frame)?;
            inbox.drain(..consumed);
            Ok(Some(message))
        }
    }
}

const _: () = assert!(NODE_MESSAGE_BYTES_MAX <= MESSAGE_BYTES_MAX);

fn busy() -> Refusal {
    Refusal::new(Reason::Busy, "the control state cannot be read now")
}

fn timed_out() -> SessionError {
    io::Error::from(io::ErrorKind::TimedOut).into()
}
