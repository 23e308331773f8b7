//! One node: the proxy, the backends and the copy of the records that one process has, and the disk
//! that outlives it.
//!
//! Everything that decides is the real thing. What `node::link` does with tasks and files (the order
//! of steps when control says something, what is on disk before it is acknowledged, when to ask
//! control again) is done here by the same rules with the simulator's time and a disk of memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use backend::Backend;
use backend::peer::PeerSettings;
use backend::peer::simulated::SimulatedServer;
use cluster::map::Epoch;
use cluster::member::{Incarnation, MemberName};
use cluster::mistake::{Mistake, is_made};
use cluster::ownership::Run;
use daemon::clock::{Clock, Hand, Now};
use daemon::memory_stream::NetworkEnd;
use daemon::networks::Networks;
use larder::local_link::LocalLink;
use larder::member::Members;
use node::comeback::Comeback;
use node::link::{
    ASKED_FIRST_MAX, DISK_RETRY_AFTER, RECONNECT_FIRST_MAX, RECONNECT_MAX, SILENT_AFTER,
    USAGE_EVERY,
};
use node::serving::{DataPlane, Serving};
use node::telling::Telling;
use node::view::Links;
use proxy::cluster_handle::ClusterHandle;
use proxy::link_usage::LinkUsage;
use proxy::settings::{Access, LinkSettings, ProxySettings};
use proxy::simulated::SimulatedProxy;
use proxy::usage::ProxyUsage;
use proxy::view::ViewIdentity;
use tenancy::directory::Directory;
use tenancy::secret::SecretKey;
use wire::control::epochs::Epochs;
use wire::control::message::{
    Alarms, FromControl, FromNode, Hello, NodeAddresses, Refusal, Report, USAGE_VERSION, VERSIONS,
};
use wire::control::name::{ClusterId, NodeName};
use wire::control::node_session::{NodeSession, Step};
use wire::control::record::Revision;
use wire::control::records::Records;
use wire::control::replica::Replica;
use wire::control::topology::{MemberSet, Topology};

use crate::network::{Parcel, StreamId, Way};
use crate::random::Random;
use crate::time::{MILLISECOND, Micros, SECOND, micros};

/// The one installation there is.
pub(crate) const CLUSTER: ClusterId = ClusterId::new([7; 16]);
/// Under which its passwords are hashed.
pub(crate) const SECRET: [u8; 32] = [3; 32];
/// The wall clock at the beginning of the simulation.
const UNIX_AT_START: i64 = 1_700_000_000;
/// How often every connection is looked at, in the proxy and in the server.
pub(crate) const SWEEP_EVERY: Micros = 250 * MILLISECOND;

/// A place in the cluster, with or without a process.
pub(crate) struct Node {
    pub(crate) number: usize,
    pub(crate) name: NodeName,
    incarnation: Incarnation,
    /// Memory of each of its backends.
    backends_mib: Vec<u32>,
    pub(crate) disk: Disk,
    pub(crate) process: Option<Process>,
    /// Whether the node is part of the cluster, or shall be: control knows it, and it is started
    /// again when it ends.
    pub(crate) is_wanted: bool,
    pub(crate) paused_until: Micros,
    /// What came while the process stood still.
    pub(crate) inbox: VecDeque<(StreamId, Way, Parcel)>,
    pub(crate) wall_offset: i64,
    pub(crate) disk_full_until: Micros,
    /// Processes there have been.
    pub(crate) runs: u64,
}

/// What a process leaves behind.
#[derive(Default)]
pub(crate) struct Disk {
    records: Option<(Revision, Records)>,
    topology: Option<Arc<Topology>>,
    settled: Option<Epoch>,
    prepared: Option<Arc<Topology>>,
}

pub(crate) struct Process {
    pub(crate) started: Micros,
    /// In the order of their numbers.
    pub(crate) backends: Vec<Arc<Backend>>,
    /// Where its proxy counts what it asks of others.
    pub(crate) asked: Arc<LinkUsage>,
    pub(crate) members: Arc<Members>,
    pub(crate) proxy: SimulatedProxy<LocalLink>,
    pub(crate) server: SimulatedServer,
    hand: Hand,
    hand_at: u32,
    pub(crate) copy: Copy,
    pub(crate) next_sweep: Micros,
    /// When it has its next turn, if nothing happens before.
    pub(crate) wakes_at: Micros,
    /// What its programs write into, until one side has closed.
    pub(crate) streams: BTreeMap<StreamId, (Way, NetworkEnd)>,
}

/// The node's copy of the records, and its way to control.
pub(crate) struct Copy {
    pub(crate) replica: Replica,
    pub(crate) epochs: Epochs,
    serving: Serving,
    pub(crate) link: ControlLink,
    comeback: Comeback,
    is_control_asked: bool,
    disk_failed_at: Option<Micros>,
    told: Option<(Epoch, cluster::digest::Digest, MemberSet)>,
    telling: Telling,
    usage_told_at: Micros,
    reconnect_max: Micros,
    random: Random,
}

pub(crate) enum ControlLink {
    Down { retry_at: Micros },
    Connecting { stream: StreamId, since: Micros },
    Open { stream: StreamId, engine: Box<NodeSession>, began: Micros, heard_at: Micros },
}

impl Node {
    pub(crate) fn new(number: usize, incarnation: u64, backends_mib: Vec<u32>) -> Self {
        Node {
            number,
            name: name(number),
            incarnation: Incarnation::new(incarnation),
            backends_mib,
            disk: Disk::default(),
            process: None,
            is_wanted: false,
            paused_until: 0,
            inbox: VecDeque::new(),
            wall_offset: 0,
            disk_full_until: 0,
            runs: 0,
        }
    }

    /// Another machine takes the node's place: nothing of the old one is left.
    pub(crate) fn replace(&mut self, incarnation: u64) {
        self.incarnation = Incarnation::new(incarnation);
        self.disk = Disk::default();
    }

    pub(crate) fn start(&mut self, now: Micros, seed: u64) {
        self.runs += 1;
        let seed = Random::of(seed, (self.number as u64) << 32 | self.runs).word();
        self.process = Some(Process::new(self, now, seed));
    }

    pub(crate) fn is_paused(&self, now: Micros) -> bool {
        now < self.paused_until
    }

    pub(crate) fn time(&self, now: Micros) -> Now {
        let started = self.process.as_ref().map_or(now, |process| process.started);
        let second = |at: Micros| u32::try_from(at / SECOND).expect("a simulation takes minutes");
        let unix = UNIX_AT_START + i64::from(second(now)) + self.wall_offset;
        Now { since_start: 1 + second(now - started), unix }
    }

    fn disk_works(&self, now: Micros) -> bool {
        self.disk_full_until <= now
    }
}

/// The name of a node's backend.
pub(crate) fn member_name(node: &NodeName, number: u64) -> MemberName {
    MemberName::parse(&format!("{node}.b{number}")).expect("a good name")
}

/// The name of a node.
pub(crate) fn name(number: usize) -> NodeName {
    NodeName::parse(&format!("node-{number}")).expect("letters and a digit")
}

fn addresses(number: usize) -> NodeAddresses {
    let ip = [10, 0, 0, u8::try_from(number + 1).expect("a few nodes")];
    NodeAddresses {
        clients: Some((ip, 11_211).into()),
        clients_tls: None,
        peers: Some((ip, 7_000).into()),
    }
}

/// The node that listens at this address.
pub(crate) fn node_at(address: std::net::SocketAddr) -> Option<usize> {
    match address.ip() {
        std::net::IpAddr::V4(ip) => usize::from(ip.octets()[3]).checked_sub(1),
        std::net::IpAddr::V6(_) => None,
    }
}

impl Process {
    fn new(node: &mut Node, now: Micros, seed: u64) -> Self {
        let (clock, hand) = Clock::by_hand(UNIX_AT_START);
        let seed = if is_made(Mistake::RepeatsTokens) { 0 } else { seed };
        let member = |(number, &mib): (u64, &u32)| {
            let run = Run { name: member_name(&node.name, number), incarnation: node.incarnation };
            let memory = u64::from(mib) << 20;
            (run.clone(), Arc::new(Backend::member(memory, seed.wrapping_add(number), run)))
        };
        let of_node: Vec<(Run, Arc<Backend>)> = (0..).zip(&node.backends_mib).map(member).collect();
        let backends: Vec<Arc<Backend>> =
            of_node.iter().map(|(_, backend)| Arc::clone(backend)).collect();
        let handle = ClusterHandle::default();
        let usage = Arc::<ProxyUsage>::default();
        let identity = ViewIdentity {
            cluster: CLUSTER,
            node: node.name.clone(),
            incarnation: node.incarnation,
            backends: backends.len(),
        };
        let asked = Arc::clone(handle.usage());
        let directory = Arc::new(Directory::new(SecretKey::new(SECRET)));
        let members = Arc::new(Members::new(
            of_node,
            handle.clone(),
            identity,
            Arc::clone(&usage),
            Arc::clone(&directory),
            Networks::private(),
            clock,
        ));
        let proxy = SimulatedProxy::new(
            proxy_settings(),
            Arc::clone(&directory),
            Arc::new(LocalLink(backends.clone())),
            usage,
            handle,
            seed,
        )
        .expect("a descriptor is free");
        let peer_settings = PeerSettings {
            listen: addresses(node.number).peers.expect("it has one"),
            threads: 1,
            cluster: CLUSTER,
            tls: None,
            drain_timeout: Duration::ZERO,
        };
        let server = SimulatedServer::new(peer_settings, backends.clone(), clock)
            .expect("a descriptor is free");
        let serving = Serving::new(directory, Arc::clone(&members) as _);
        let copy = Copy::open(&node.disk, serving, &members, now, seed);
        Process {
            started: now,
            backends,
            asked,
            members,
            proxy,
            server,
            hand,
            hand_at: 0,
            copy,
            next_sweep: now,
            wakes_at: Micros::MAX,
            streams: BTreeMap::new(),
        }
    }

    /// The loop's own time.
    pub(crate) fn loop_time(&self, now: Micros) -> Micros {
        now - self.started
    }

    /// Moves the clock that flushes and changes of limits read.
    pub(crate) fn move_hand(&mut self, now: Now) {
        self.hand.advance(now.since_start - 1 - self.hand_at);
        self.hand_at = now.since_start - 1;
    }
}

fn proxy_settings() -> ProxySettings {
    ProxySettings {
        listen: None,
        tls_listen: None,
        threads: 1,
        access: Access::Credentials,
        authentication_timeout: Duration::from_secs(5),
        request_timeout: Duration::from_secs(30),
        idle_timeout: None,
        drain_timeout: Duration::ZERO,
        connections_max: 100,
        output_bytes_max: 1 << 20,
        input_bytes_max: 16 << 20,
        links: LinkSettings::default(),
        spin: Duration::ZERO,
    }
}

/// What a node wants of the network.
pub(crate) enum Ask {
    Call,
    Say(StreamId, Box<FromNode>),
    HangUp(StreamId),
}

impl Copy {
    /// Serves by what is on disk; owns by it only once control has been asked.
    fn open(disk: &Disk, mut serving: Serving, links: &Members, now: Micros, seed: u64) -> Self {
        let mut epochs = Epochs::default();
        let replica = match &disk.records {
            Some((revision, records)) => {
                serving.replace(&Records::default(), records);
                Replica::restored(records.clone(), *revision)
            }
            None => Replica::default(),
        };
        if let Some(topology) = &disk.topology {
            epochs.committed = Some(Arc::clone(topology));
            epochs.settled = disk.settled;
        }
        let prepared = disk.prepared.as_deref();
        let comeback = Comeback::new(epochs.committed.as_ref(), prepared, links);
        Copy {
            replica,
            epochs,
            serving,
            link: ControlLink::Down { retry_at: now },
            comeback,
            is_control_asked: false,
            disk_failed_at: None,
            told: None,
            telling: Telling::default(),
            usage_told_at: now,
            reconnect_max: micros(RECONNECT_FIRST_MAX),
            random: Random::of(seed, 5),
        }
    }

    fn settled(&self) -> Epoch {
        self.epochs.settled.unwrap_or(Epoch::new(0))
    }

    fn look_at_others(&mut self, links: &Members) {
        if self.is_control_asked {
            self.comeback.look(links, self.settled());
        }
    }

    /// The way to control is lost, or was not made.
    pub(crate) fn lost(&mut self, now: Micros) {
        self.is_control_asked = true;
        if let ControlLink::Open { began, .. } = self.link
            && micros(SILENT_AFTER) < now - began
        {
            self.reconnect_max = micros(RECONNECT_FIRST_MAX);
        }
        let wait = self.random.below(self.reconnect_max + 1);
        self.reconnect_max = (2 * self.reconnect_max).min(micros(RECONNECT_MAX));
        self.link = ControlLink::Down { retry_at: now + wait };
    }

    pub(crate) fn connected(&mut self, stream: StreamId, now: Micros) {
        let engine = Box::new(NodeSession::new(VERSIONS));
        self.link = ControlLink::Open { stream, engine, began: now, heard_at: now };
        self.told = None;
        self.telling = Telling::default();
    }
}

/// The control side of a node, which needs its disk, its process and the time at once.
impl Node {
    pub(crate) fn hello(&self) -> Option<FromNode> {
        let copy = &self.process.as_ref()?.copy;
        Some(FromNode::Hello(Hello {
            versions: VERSIONS,
            cluster: CLUSTER,
            node: self.name.clone(),
            incarnation: self.incarnation,
            revision: copy.replica.revision(),
            digest: copy.replica.records().digest(),
            has_copy: copy.replica.has_copy(),
            epoch: copy.epochs.current(),
            addresses: addresses(self.number),
            backends_mib: self.backends_mib.clone(),
            software: "simulated".to_owned(),
        }))
    }

    /// Looks at the time: calls control, gives up on it, writes what could not be written.
    pub(crate) fn look_at_control(&mut self, now: Micros) -> Vec<Ask> {
        let disk_works = self.disk_works(now);
        let Some(process) = &mut self.process else { return Vec::new() };
        let (copy, links) = (&mut process.copy, &*process.members);
        copy.look_at_others(links);
        match &copy.link {
            ControlLink::Down { retry_at } if *retry_at <= now => return vec![Ask::Call],
            ControlLink::Down { .. } => return Vec::new(),
            ControlLink::Connecting { stream, since } => {
                let is_first = copy.comeback.is_asking() && !copy.is_control_asked;
                let patience = if is_first { micros(ASKED_FIRST_MAX) } else { 5 * SECOND };
                if since + patience <= now {
                    let stream = *stream;
                    copy.lost(now);
                    return vec![Ask::HangUp(stream)];
                }
                return Vec::new();
            }
            ControlLink::Open { stream, began, heard_at, .. } => {
                let (stream, began, heard_at) = (*stream, *began, *heard_at);
                copy.is_control_asked |= began + micros(ASKED_FIRST_MAX) <= now;
                if heard_at + micros(SILENT_AFTER) <= now {
                    copy.lost(now);
                    return vec![Ask::HangUp(stream)];
                }
            }
        }
        let mut says = Vec::new();
        copy.retry_disk(&mut self.disk, disk_works, links, now, &mut says);
        copy.tell_links(links, &mut says);
        copy.tell_usage(links, now, &mut says);
        copy.said(says)
    }

    /// Control said something.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub(crate) fn hear_control(
        &mut self,
        message: FromControl,
        now: Micros,
    ) -> Result<Vec<Ask>, Refusal> {
        let disk_works = self.disk_works(now);
        let Some(process) = &mut self.process else { return Ok(Vec::new()) };
        let (copy, links) = (&mut process.copy, &*process.members);
        let ControlLink::Open { engine, heard_at, .. } = &mut copy.link else {
            return Ok(Vec::new());
        };
        *heard_at = now;
        let steps = engine.hear(message, &mut copy.replica, &mut copy.epochs)?;
        let mut says = Vec::new();
        for step in steps {
            copy.carry_out(step, &mut self.disk, disk_works, links, now, &mut says);
        }
        copy.write_and_acknowledge(&mut self.disk, disk_works, now, &mut says);
        copy.tell_links(links, &mut says);
        Ok(copy.said(says))
    }
}

impl Copy {
    fn said(&self, says: Vec<FromNode>) -> Vec<Ask> {
        let ControlLink::Open { stream, .. } = &self.link else { return Vec::new() };
        says.into_iter().map(|message| Ask::Say(*stream, Box::new(message))).collect()
    }

    fn carry_out(
        &mut self,
        step: Step,
        disk: &mut Disk,
        disk_works: bool,
        links: &Members,
        now: Micros,
        says: &mut Vec<FromNode>,
    ) {
        match step {
            Step::Send(message) => {
                if let FromNode::Committed { epoch, .. } = message {
                    self.comeback.confirm(epoch, links, self.settled());
                }
                says.push(message);
            }
            Step::Changed { changes, .. } => self.serving.apply(&changes),
            Step::Replaced { before } => self.serving.replace(&before, self.replica.records()),
            Step::Share(shares) => links.share(&shares),
            // Nobody asks what a person would want to know.
            Step::Refused(_) | Step::Certificate(_) | Step::Answer { .. } => (),
            Step::Report => says.push(self.report(disk, links)),
            Step::Prepare { topology, forced } => {
                self.write_epochs(disk, disk_works, now);
                links.prepare(&topology, forced);
            }
            Step::Commit(topology) => {
                self.commit(&topology, disk, disk_works, links, now, says);
            }
            Step::Abort => {
                self.write_epochs(disk, disk_works, now);
                links.abort();
            }
            Step::Settled(epoch) => {
                self.write_epochs(disk, disk_works, now);
                links.settled(epoch);
            }
        }
    }

    fn write_epochs(&mut self, disk: &mut Disk, disk_works: bool, now: Micros) {
        if self.epochs.committed.is_none() || is_made(Mistake::AcknowledgesBeforeDisk) {
            return;
        }
        if !disk_works {
            self.disk_failed_at.get_or_insert(now);
            return;
        }
        disk.topology = self.epochs.committed.clone();
        disk.settled = self.epochs.settled;
        disk.prepared = self.epochs.prepared.clone();
    }

    /// Routes by a topology, once it is on disk.
    fn commit(
        &mut self,
        topology: &Arc<Topology>,
        disk: &mut Disk,
        disk_works: bool,
        links: &Members,
        now: Micros,
        says: &mut Vec<FromNode>,
    ) {
        let forgets_disk = is_made(Mistake::AcknowledgesBeforeDisk);
        if !disk_works && !forgets_disk {
            self.disk_failed_at.get_or_insert(now);
            self.epochs.not_written(disk.topology.clone());
            return;
        }
        // The mistake leaves it for later, and later never comes.
        if !forgets_disk || disk.topology.is_none() {
            disk.topology = Some(Arc::clone(topology));
            disk.settled = self.epochs.settled;
            disk.prepared = self.epochs.prepared.clone();
        }
        self.comeback.end();
        links.commit(topology, self.settled());
        says.push(FromNode::Committed { epoch: topology.epoch(), digest: topology.digest() });
    }

    fn write_and_acknowledge(
        &mut self,
        disk: &mut Disk,
        disk_works: bool,
        now: Micros,
        says: &mut Vec<FromNode>,
    ) {
        let ControlLink::Open { engine, .. } = &mut self.link else { return };
        let is_waiting = self.epochs.is_unwritten()
            || self.disk_failed_at.is_some_and(|at| now < at + micros(DISK_RETRY_AFTER));
        if disk_works && !is_waiting {
            self.disk_failed_at = None;
            write_records(disk, &self.replica);
            says.extend(engine.acknowledge(&self.replica));
        } else {
            self.disk_failed_at.get_or_insert(now);
            says.extend(engine.not_durable(&self.replica, "the disk is full"));
        }
    }

    fn retry_disk(
        &mut self,
        disk: &mut Disk,
        disk_works: bool,
        links: &Members,
        now: Micros,
        says: &mut Vec<FromNode>,
    ) {
        if self.disk_failed_at.is_none_or(|at| now < at + micros(DISK_RETRY_AFTER)) {
            return;
        }
        if !disk_works {
            self.disk_failed_at = Some(now);
            return;
        }
        self.disk_failed_at = None;
        write_records(disk, &self.replica);
        let (revision, digest) = (self.replica.revision(), self.replica.records().digest());
        says.push(FromNode::Ack { revision, digest });
        if let Some(topology) = self.epochs.take_up() {
            self.commit(&topology, disk, disk_works, links, now, says);
        }
    }

    fn tell_links(&mut self, links: &Members, says: &mut Vec<FromNode>) {
        let Some(prepared) = &self.epochs.prepared else { return };
        let now = (prepared.epoch(), prepared.digest(), links.connected(prepared));
        if self.told != Some(now) {
            self.told = Some(now);
            let (epoch, digest, connected) = now;
            says.push(FromNode::Prepared { epoch, digest, connected });
        }
    }

    /// Tells control what caches hold, as often as a node does.
    fn tell_usage(&mut self, links: &Members, now: Micros, says: &mut Vec<FromNode>) {
        let ControlLink::Open { engine, .. } = &self.link else { return };
        let is_due = self.usage_told_at + micros(USAGE_EVERY) <= now;
        if !is_due || !engine.is_open() || engine.version() < USAGE_VERSION {
            return;
        }
        self.usage_told_at = now;
        links.keep_shares();
        let (reports, told) = self.telling.next(links);
        says.extend(reports.into_iter().map(FromNode::Usage));
        self.telling = told;
    }

    fn report(&self, disk: &Disk, links: &Members) -> FromNode {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let records = self.replica.records();
        let committed = self.epochs.committed.as_ref();
        FromNode::Report(Report {
            revision: self.replica.revision(),
            digest: self.replica.reported_digest(),
            durable: disk.records.as_ref().map_or(Revision::ZERO, |(revision, _)| *revision),
            epoch: self.epochs.current(),
            connected: committed.map_or(MemberSet::NONE, |it| links.connected(it)),
            caches: count(records.caches()),
            credentials: count(records.credentials()),
            alarms: Alarms::NONE,
        })
    }
}

fn write_records(disk: &mut Disk, replica: &Replica) {
    let kept = disk.records.as_ref().map(|(revision, _)| *revision);
    if replica.has_copy() && kept != Some(replica.revision()) {
        disk.records = Some((replica.revision(), replica.records().clone()));
    }
}
