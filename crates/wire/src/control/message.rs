//! The messages, and how each stands in a frame.
//!
//! HELLO and JOIN open a connection and keep their first bytes in every version, so that any two
//! programs can at least find out that they have no version in common. All else is said in the
//! version that WELCOME names.

use core::net::SocketAddr;
use std::fmt;
use std::sync::Arc;

use cluster::digest::Digest;
use cluster::map::Epoch;
use cluster::member::Incarnation;

use super::digest::SetDigest;
use super::inquiry::{Answer, Question};
use super::name::{ClusterId, NodeName};
use super::record::{DELTA_BYTES_MAX, Delta, RECORD_BYTES_MAX, Record, Revision};
use super::topology::{MemberSet, Topology, address, put_address};
use super::usage::{SHARES_MAX, Share, UsageReport};
use crate::codec::{
    CodecError, Reader, put_bool, put_count, put_long_bytes, put_short_str, put_u8, put_u16,
    put_u32, put_u64, put_u128,
};
use crate::frame::{self, Frame};

/// The versions of this protocol that this program speaks. Below 3, a cache's record has no rates: such a
/// program would not understand ours, nor would its digests be the same.
pub const VERSIONS: Versions = Versions { min: 3, max: 4 };

/// From this version on, nodes tell what their caches hold and count, and are told their shares.
pub const USAGE_VERSION: u8 = 2;

/// From this version on, records may be rules for addresses, and nodes answer whom a change of them
/// would cut off. A node that knows no rules could not enforce them: it is refused while there are any.
pub const RULES_VERSION: u8 = 3;

/// From this version on, nodes answer what they are asked.
pub const ASK_VERSION: u8 = 3;

/// From this version on, they also answer what was asked for under certain prefixes.
pub const PREFIXES_VERSION: u8 = 4;

/// The longest body of a message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// Records in one chunk of a snapshot: some 200 KB, so that a heartbeat behind it waits little.
pub const CHUNK_RECORDS_MAX: usize = 4_096;

const _: () = assert!(DELTA_BYTES_MAX <= MESSAGE_BYTES_MAX);
const _: () = assert!(8 + CHUNK_RECORDS_MAX * RECORD_BYTES_MAX <= MESSAGE_BYTES_MAX);
const _: () = assert!(MESSAGE_BYTES_MAX <= frame::BODY_BYTES_MAX);

/// Backends in one process: more would only share its cores.
pub const NODE_BACKENDS_MAX: usize = 64;
/// A certificate of ours has some 500 bytes.
pub const CERTIFICATE_BYTES_MAX: usize = 8 * 1024;
/// An uncompressed P-256 point has 65.
pub const PUBLIC_KEY_BYTES_MAX: usize = 256;

/// A range of versions of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    pub min: u8,
    pub max: u8,
}

impl Versions {
    /// The newest version that both sides speak.
    pub fn agree(self, other: Versions) -> Option<u8> {
        let newest = self.max.min(other.max);
        (self.min.max(other.min) <= newest).then_some(newest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

/// What a node says of itself when it connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    pub versions: Versions,
    pub cluster: ClusterId,
    pub node: NodeName,
    pub incarnation: Incarnation,
    pub revision: Revision,
    pub digest: SetDigest,
    /// Whether it has any copy at all. Without one, revision and digest say nothing.
    pub has_copy: bool,
    /// Of the topology it routes by; 0 when it has none.
    pub epoch: Epoch,
    pub addresses: NodeAddresses,
    /// Memory of each of its backends in MiB, by number.
    pub backends_mib: Vec<u32>,
    /// The program's version, for people.
    pub software: String,
}

/// Where a node listens. Literal addresses as others reach it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeAddresses {
    pub clients: Option<SocketAddr>,
    pub clients_tls: Option<SocketAddr>,
    /// For the proxies of other nodes.
    pub peers: Option<SocketAddr>,
}

/// How a node is, said once for every heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    pub revision: Revision,
    /// Summed up from the node's own records since the last report, not remembered.
    pub digest: SetDigest,
    /// What it would come back with after a crash.
    pub durable: Revision,
    /// Of the topology it routes by; 0 when it has none.
    pub epoch: Epoch,
    /// Which members of that topology it has a link to.
    pub connected: MemberSet,
    pub caches: u32,
    pub credentials: u32,
    pub alarms: Alarms,
}

/// What is wrong at a node, as bits.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Alarms(u16);

impl Alarms {
    pub const NONE: Alarms = Alarms(0);
    /// Its copy on disk could not be written; it serves from memory.
    pub const DISK: Alarms = Alarms(1);
    /// A backend could not make room for some cache.
    pub const NO_ROOM: Alarms = Alarms(1 << 1);
    /// Its records differed from their digest and are being replaced.
    pub const CORRUPT: Alarms = Alarms(1 << 2);
    /// It refused the last thing it was told.
    pub const REFUSED: Alarms = Alarms(1 << 3);

    /// Each alarm with the words for people.
    pub const ALL: [(Alarms, &'static str); 4] = [
        (Alarms::DISK, "disk"),
        (Alarms::NO_ROOM, "no room"),
        (Alarms::CORRUPT, "corrupt"),
        (Alarms::REFUSED, "refused"),
    ];

    #[must_use]
    pub const fn with(self, other: Alarms) -> Self {
        Alarms(self.0 | other.0)
    }

    #[must_use]
    pub const fn without(self, other: Alarms) -> Self {
        Alarms(self.0 & !other.0)
    }

    pub const fn has(self, one: Alarms) -> bool {
        self.0 & one.0 == one.0
    }

    /// The names of those that are raised.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Alarms::ALL.into_iter().filter(move |(alarm, _)| self.has(*alarm)).map(|(_, name)| name)
    }
}

impl fmt::Debug for Alarms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// Why something was refused: a code for programs, a text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub detail: String,
}

impl Refusal {
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Refusal { reason, detail: detail.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.name(), self.detail)
    }
}

macro_rules! reasons {
    ($($(#[doc = $help:literal])+ $name:ident = $code:literal, $text:literal;)+) => {
        /// Why a message, a push or a connection is refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason { $($(#[doc = $help])+ $name = $code,)+ }

        impl Reason {
            pub const ALL: &[Reason] = &[$(Reason::$name),+];

            /// Words for people and for `cluster status`.
            pub const fn name(self) -> &'static str {
                match self { $(Reason::$name => $text,)+ }
            }

            fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Reason::$name),)+ _ => None }
            }
        }
    };
}

reasons! {
    /// The two programs have no version in common.
    Version = 1, "no common version";
    /// The message makes no sense here.
    Unexpected = 2, "unexpected message";
    /// It belongs to another installation.
    WrongCluster = 3, "wrong cluster";
    /// The certificate is another node's.
    WrongName = 4, "wrong name";
    /// The token was not made by this control plane, or changed on the way.
    WrongToken = 5, "wrong token";
    /// The token's time is over.
    TokenExpired = 6, "token expired";
    /// There is such a node already, with another key.
    NameTaken = 7, "name taken";
    /// The node was removed, or never joined.
    UnknownNode = 8, "unknown node";
    /// It would undo changes: its revision is lower than what the node has.
    RevisionBack = 9, "revision goes back";
    /// Changes between what the node has and this are missing.
    Gap = 10, "changes are missing";
    /// The records do not add up to the digest.
    DigestDiffers = 11, "digest differs";
    /// It drops more caches at once than any wish of a person would.
    DropsTooMuch = 12, "drops too much";
    /// It has many times more records than before.
    GrowsTooMuch = 13, "grows too much";
    /// It exceeds a limit of size.
    TooLarge = 14, "too large";
    /// It contradicts itself.
    Inconsistent = 15, "inconsistent";
    /// It could not be decoded.
    Garbage = 16, "not understood";
    /// The node could not write it down.
    Storage = 17, "not written";
    /// The epoch is not newer than what the node has.
    OldEpoch = 18, "old epoch";
    /// Too many at once; try again.
    Busy = 19, "busy";
}

/// What nodes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromNode {
    Hello(Hello),
    /// The first connection, without a certificate yet.
    Join {
        versions: Versions,
        token: String,
        node: NodeName,
        public_key: Vec<u8>,
    },
    /// The node has it, serves by it and has it on disk.
    Ack {
        revision: Revision,
        digest: SetDigest,
    },
    /// The node stays with what it had (at `revision`).
    Nack {
        revision: Revision,
        refusal: Refusal,
    },
    Report(Report),
    /// The node knows the topology and has links to these members of it.
    Prepared {
        epoch: Epoch,
        digest: Digest,
        connected: MemberSet,
    },
    /// The node routes by it.
    Committed {
        epoch: Epoch,
        digest: Digest,
    },
    /// Asks for a certificate that lasts longer.
    Renew {
        public_key: Vec<u8>,
    },
    /// What its caches hold and count. Only from [`USAGE_VERSION`] on.
    Usage(UsageReport),
    /// To the question of this number. Only from [`ASK_VERSION`] on.
    Answer {
        number: u64,
        answer: Answer,
    },
}

/// What the control plane says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromControl {
    Welcome {
        version: u8,
    },
    Joined {
        cluster: ClusterId,
        certificate: Certificate,
        authority: Vec<u8>,
        secret_key: [u8; 32],
    },
    Refused(Refusal),
    Delta(Delta),
    SnapshotBegin(SnapshotHead),
    SnapshotChunk(Vec<Record>),
    SnapshotEnd,
    /// Says every second what is true. `settled` is the newest epoch that every node of it routes by
    /// while no run of a member that is not in it can still answer; 0 when there is none.
    Heartbeat {
        revision: Revision,
        digest: SetDigest,
        settled: Epoch,
    },
    /// `forced`: a person has confirmed that it may drop as many members as it does.
    Prepare {
        topology: Arc<Topology>,
        forced: bool,
    },
    Commit {
        epoch: Epoch,
        digest: Digest,
    },
    Abort {
        epoch: Epoch,
    },
    Certificate(Certificate),
    /// What the node's backends may hold. Only from [`USAGE_VERSION`] on.
    Shares(Vec<Share>),
    /// Wants an answer under this number. Only from [`ASK_VERSION`] on.
    Ask {
        number: u64,
        question: Question,
    },
}

/// What a snapshot will be, said before its chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotHead {
    pub revision: Revision,
    pub digest: SetDigest,
    pub caches: u32,
    pub credentials: u32,
    /// A person has confirmed that it may drop or add as much as it does, and that its revision may
    /// be lower than what nodes have.
    pub forced: bool,
}

/// A certificate for a node, DER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    pub der: Vec<u8>,
    /// Unix time in seconds.
    pub not_after: u64,
}

mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const JOIN: u8 = 2;
    pub(super) const ACK: u8 = 3;
    pub(super) const NACK: u8 = 4;
    pub(super) const REPORT: u8 = 5;
    pub(super) const PREPARED: u8 = 6;
    pub(super) const COMMITTED: u8 = 7;
    pub(super) const RENEW: u8 = 8;
    pub(super) const USAGE: u8 = 9;
    pub(super) const ANSWER: u8 = 10;

    pub(super) const WELCOME: u8 = 65;
    pub(super) const JOINED: u8 = 66;
    pub(super) const REFUSED: u8 = 67;
    pub(super) const DELTA: u8 = 68;
    pub(super) const SNAPSHOT_BEGIN: u8 = 69;
    pub(super) const SNAPSHOT_CHUNK: u8 = 70;
    pub(super) const SNAPSHOT_END: u8 = 71;
    pub(super) const HEARTBEAT: u8 = 72;
    pub(super) const PREPARE: u8 = 73;
    pub(super) const COMMIT: u8 = 74;
    pub(super) const ABORT: u8 = 75;
    pub(super) const CERTIFICATE: u8 = 76;
    pub(super) const SHARES: u8 = 77;
    pub(super) const ASK: u8 = 78;
}

impl FromNode {
    /// Appends the message as a frame in the agreed version (any, for HELLO and JOIN).
    pub fn encode(&self, version: u8, out: &mut Vec<u8>) {
        frame::write(out, version, self.kind(), |out| self.encode_body(out));
    }

    fn kind(&self) -> u8 {
        match self {
            FromNode::Hello(_) => kind::HELLO,
            FromNode::Join { .. } => kind::JOIN,
            FromNode::Ack { .. } => kind::ACK,
            FromNode::Nack { .. } => kind::NACK,
            FromNode::Report(_) => kind::REPORT,
            FromNode::Prepared { .. } => kind::PREPARED,
            FromNode::Committed { .. } => kind::COMMITTED,
            FromNode::Renew { .. } => kind::RENEW,
            FromNode::Usage(_) => kind::USAGE,
            FromNode::Answer { .. } => kind::ANSWER,
        }
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        match self {
            FromNode::Hello(hello) => hello.encode(out),
            FromNode::Join { versions, token, node, public_key } => {
                versions.encode(out);
                put_short_str(out, token);
                node.encode(out);
                put_long_bytes(out, public_key);
            }
            FromNode::Ack { revision, digest } => put_state(out, *revision, *digest),
            FromNode::Nack { revision, refusal } => {
                put_u64(out, revision.get());
                refusal.encode(out);
            }
            FromNode::Report(report) => report.encode(out),
            FromNode::Prepared { epoch, digest, connected } => {
                put_epoch(out, *epoch, digest);
                connected.encode(out);
            }
            FromNode::Committed { epoch, digest } => put_epoch(out, *epoch, digest),
            FromNode::Renew { public_key } => put_long_bytes(out, public_key),
            FromNode::Usage(report) => report.encode(out),
            FromNode::Answer { number, answer } => {
                put_u64(out, *number);
                answer.encode(out);
            }
        }
    }

    /// Reads a whole frame as one message.
    pub fn decode(frame: &Frame<'_>) -> Result<Self, CodecError> {
        let mut reader = Reader::new(frame.body);
        let message = FromNode::decode_body(frame.kind, &mut reader)?;
        reader.end()?;
        Ok(message)
    }

    fn decode_body(kind: u8, reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(match kind {
            kind::HELLO => FromNode::Hello(Hello::decode(reader)?),
            kind::JOIN => FromNode::Join {
                versions: Versions::decode(reader)?,
                token: reader.short_str("token")?.to_owned(),
                node: NodeName::decode(reader)?,
                public_key: public_key(reader)?,
            },
            kind::ACK => {
                let (revision, digest) = state(reader)?;
                FromNode::Ack { revision, digest }
            }
            kind::NACK => FromNode::Nack {
                revision: Revision::new(reader.u64()?),
                refusal: Refusal::decode(reader)?,
            },
            kind::REPORT => FromNode::Report(Report::decode(reader)?),
            kind::PREPARED => {
                let (epoch, digest) = epoch(reader)?;
                FromNode::Prepared { epoch, digest, connected: MemberSet::decode(reader)? }
            }
            kind::COMMITTED => {
                let (epoch, digest) = epoch(reader)?;
                FromNode::Committed { epoch, digest }
            }
            kind::RENEW => FromNode::Renew { public_key: public_key(reader)? },
            kind::USAGE => FromNode::Usage(UsageReport::decode(reader)?),
            kind::ANSWER => {
                FromNode::Answer { number: reader.u64()?, answer: Answer::decode(reader)? }
            }
            _ => return Err(CodecError::Invalid { what: "kind of message" }),
        })
    }
}

impl FromControl {
    /// What it is called in logs.
    pub fn name(&self) -> &'static str {
        match self {
            FromControl::Welcome { .. } => "WELCOME",
            FromControl::Joined { .. } => "JOINED",
            FromControl::Refused(_) => "REFUSED",
            FromControl::Delta(_) => "DELTA",
            FromControl::SnapshotBegin(_) => "SNAPSHOT",
            FromControl::SnapshotChunk(_) => "SNAPSHOT CHUNK",
            FromControl::SnapshotEnd => "SNAPSHOT END",
            FromControl::Heartbeat { .. } => "HEARTBEAT",
            FromControl::Prepare { .. } => "PREPARE",
            FromControl::Commit { .. } => "COMMIT",
            FromControl::Abort { .. } => "ABORT",
            FromControl::Certificate(_) => "CERTIFICATE",
            FromControl::Shares(_) => "SHARES",
            FromControl::Ask { .. } => "ASK",
        }
    }

    /// Appends the message as a frame in the agreed version.
    pub fn encode(&self, version: u8, out: &mut Vec<u8>) {
        frame::write(out, version, self.kind(), |out| self.encode_body(out));
    }

    fn kind(&self) -> u8 {
        match self {
            FromControl::Welcome { .. } => kind::WELCOME,
            FromControl::Joined { .. } => kind::JOINED,
            FromControl::Refused(_) => kind::REFUSED,
            FromControl::Delta(_) => kind::DELTA,
            FromControl::SnapshotBegin(_) => kind::SNAPSHOT_BEGIN,
            FromControl::SnapshotChunk(_) => kind::SNAPSHOT_CHUNK,
            FromControl::SnapshotEnd => kind::SNAPSHOT_END,
            FromControl::Heartbeat { .. } => kind::HEARTBEAT,
            FromControl::Prepare { .. } => kind::PREPARE,
            FromControl::Commit { .. } => kind::COMMIT,
            FromControl::Abort { .. } => kind::ABORT,
            FromControl::Certificate(_) => kind::CERTIFICATE,
            FromControl::Shares(_) => kind::SHARES,
            FromControl::Ask { .. } => kind::ASK,
        }
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        match self {
            FromControl::Welcome { version } => put_u8(out, *version),
            FromControl::Joined { cluster, certificate, authority, secret_key } => {
                out.extend_from_slice(cluster.bytes());
                certificate.encode(out);
                put_long_bytes(out, authority);
                out.extend_from_slice(secret_key);
            }
            FromControl::Refused(refusal) => refusal.encode(out),
            FromControl::Delta(delta) => delta.encode(out),
            FromControl::SnapshotBegin(head) => head.encode(out),
            FromControl::SnapshotChunk(records) => {
                put_count(out, records.len());
                records.iter().for_each(|record| record.encode(out));
            }
            FromControl::SnapshotEnd => (),
            FromControl::Heartbeat { revision, digest, settled } => {
                put_state(out, *revision, *digest);
                put_u64(out, settled.get());
            }
            FromControl::Prepare { topology, forced } => {
                put_bool(out, *forced);
                topology.encode(out);
            }
            FromControl::Commit { epoch, digest } => put_epoch(out, *epoch, digest),
            FromControl::Abort { epoch } => put_u64(out, epoch.get()),
            FromControl::Certificate(certificate) => certificate.encode(out),
            FromControl::Shares(shares) => {
                put_count(out, shares.len());
                shares.iter().for_each(|share| share.encode(out));
            }
            FromControl::Ask { number, question } => {
                put_u64(out, *number);
                question.encode(out);
            }
        }
    }

    /// Reads a whole frame as one message.
    pub fn decode(frame: &Frame<'_>) -> Result<Self, CodecError> {
        let mut reader = Reader::new(frame.body);
        let message = FromControl::decode_body(frame.kind, &mut reader)?;
        reader.end()?;
        Ok(message)
    }

    fn decode_body(kind: u8, reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(match kind {
            kind::WELCOME => FromControl::Welcome { version: reader.u8()? },
            kind::JOINED => FromControl::Joined {
                cluster: ClusterId::new(reader.array()?),
                certificate: Certificate::decode(reader)?,
                authority: reader.long_bytes("authority bytes", CERTIFICATE_BYTES_MAX)?.to_vec(),
                secret_key: reader.array()?,
            },
            kind::REFUSED => FromControl::Refused(Refusal::decode(reader)?),
            kind::DELTA => FromControl::Delta(Delta::decode(reader)?),
            kind::SNAPSHOT_BEGIN => FromControl::SnapshotBegin(SnapshotHead::decode(reader)?),
            kind::SNAPSHOT_CHUNK => {
                let count = reader.count_u32("records", CHUNK_RECORDS_MAX)?;
                let records =
                    (0..count).map(|_| Record::decode(reader)).collect::<Result<_, _>>()?;
                FromControl::SnapshotChunk(records)
            }
            kind::SNAPSHOT_END => FromControl::SnapshotEnd,
            kind::HEARTBEAT => {
                let (revision, digest) = state(reader)?;
                FromControl::Heartbeat { revision, digest, settled: Epoch::new(reader.u64()?) }
            }
            kind::PREPARE => FromControl::Prepare {
                forced: reader.bool()?,
                topology: Arc::new(Topology::decode(reader)?),
            },
            kind::COMMIT => {
                let (epoch, digest) = epoch(reader)?;
                FromControl::Commit { epoch, digest }
            }
            kind::ABORT => FromControl::Abort { epoch: Epoch::new(reader.u64()?) },
            kind::CERTIFICATE => FromControl::Certificate(Certificate::decode(reader)?),
            kind::SHARES => {
                let count = reader.count_u32("shares", SHARES_MAX)?;
                let shares = (0..count).map(|_| Share::decode(reader)).collect::<Result<_, _>>()?;
                FromControl::Shares(shares)
            }
            kind::ASK => {
                FromControl::Ask { number: reader.u64()?, question: Question::decode(reader)? }
            }
            _ => return Err(CodecError::Invalid { what: "kind of message" }),
        })
    }
}

impl Versions {
    fn encode(self, out: &mut Vec<u8>) {
        put_u8(out, self.min);
        put_u8(out, self.max);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Versions { min: reader.u8()?, max: reader.u8()? })
    }
}

impl Hello {
    fn encode(&self, out: &mut Vec<u8>) {
        self.versions.encode(out);
        out.extend_from_slice(self.cluster.bytes());
        self.node.encode(out);
        put_u64(out, self.incarnation.get());
        put_state(out, self.revision, self.digest);
        put_bool(out, self.has_copy);
        put_u64(out, self.epoch.get());
        for each in [self.addresses.clients, self.addresses.clients_tls, self.addresses.peers] {
            put_bool(out, each.is_some());
            if let Some(address) = each {
                put_address(out, address);
            }
        }
        put_count(out, self.backends_mib.len());
        self.backends_mib.iter().for_each(|&mib| put_u32(out, mib));
        put_short_str(out, &self.software);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let versions = Versions::decode(reader)?;
        let cluster = ClusterId::new(reader.array()?);
        let node = NodeName::decode(reader)?;
        let incarnation = Incarnation::new(reader.u64()?);
        let (revision, digest) = state(reader)?;
        let has_copy = reader.bool()?;
        let epoch = Epoch::new(reader.u64()?);
        let addresses = NodeAddresses {
            clients: optional_address(reader)?,
            clients_tls: optional_address(reader)?,
            peers: optional_address(reader)?,
        };
        let backends = reader.count_u32("backends", NODE_BACKENDS_MAX)?;
        let backends_mib = (0..backends).map(|_| reader.u32()).collect::<Result<_, _>>()?;
        let software = reader.short_str("software version")?.to_owned();
        Ok(Hello {
            versions,
            cluster,
            node,
            incarnation,
            revision,
            digest,
            has_copy,
            epoch,
            addresses,
            backends_mib,
            software,
        })
    }
}

impl Report {
    fn encode(&self, out: &mut Vec<u8>) {
        put_state(out, self.revision, self.digest);
        put_u64(out, self.durable.get());
        put_u64(out, self.epoch.get());
        self.connected.encode(out);
        put_u32(out, self.caches);
        put_u32(out, self.credentials);
        put_u16(out, self.alarms.0);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let (revision, digest) = state(reader)?;
        Ok(Report {
            revision,
            digest,
            durable: Revision::new(reader.u64()?),
            epoch: Epoch::new(reader.u64()?),
            connected: MemberSet::decode(reader)?,
            caches: reader.u32()?,
            credentials: reader.u32()?,
            // Bits of a later version are kept and not understood.
            alarms: Alarms(reader.u16()?),
        })
    }
}

impl Refusal {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u8(out, self.reason as u8);
        put_short_str(out, &self.detail);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let reason = Reason::from_code(reader.u8()?);
        Ok(Refusal {
            reason: reason.ok_or(CodecError::Invalid { what: "reason" })?,
            detail: reader.short_str("detail")?.to_owned(),
        })
    }
}

impl SnapshotHead {
    fn encode(&self, out: &mut Vec<u8>) {
        put_state(out, self.revision, self.digest);
        put_u32(out, self.caches);
        put_u32(out, self.credentials);
        put_bool(out, self.forced);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let (revision, digest) = state(reader)?;
        Ok(SnapshotHead {
            revision,
            digest,
            caches: reader.u32()?,
            credentials: reader.u32()?,
            forced: reader.bool()?,
        })
    }
}

impl Certificate {
    fn encode(&self, out: &mut Vec<u8>) {
        put_long_bytes(out, &self.der);
        put_u64(out, self.not_after);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Certificate {
            der: reader.long_bytes("certificate bytes", CERTIFICATE_BYTES_MAX)?.to_vec(),
            not_after: reader.u64()?,
        })
    }
}

fn put_state(out: &mut Vec<u8>, revision: Revision, digest: SetDigest) {
    put_u64(out, revision.get());
    put_u128(out, digest.number());
}

fn state(reader: &mut Reader<'_>) -> Result<(Revision, SetDigest), CodecError> {
    Ok((Revision::new(reader.u64()?), SetDigest::from_number(reader.u128()?)))
}

fn put_epoch(out: &mut Vec<u8>, epoch: Epoch, digest: &Digest) {
    put_u64(out, epoch.get());
    out.extend_from_slice(digest.as_bytes());
}

fn epoch(reader: &mut Reader<'_>) -> Result<(Epoch, Digest), CodecError> {
    Ok((Epoch::new(reader.u64()?), Digest::new(reader.array()?)))
}

fn optional_address(reader: &mut Reader<'_>) -> Result<Option<SocketAddr>, CodecError> {
    reader.bool()?.then(|| address(reader)).transpose()
}

fn public_key(reader: &mut Reader<'_>) -> Result<Vec<u8>, CodecError> {
    Ok(reader.long_bytes("public key bytes", PUBLIC_KEY_BYTES_MAX)?.to_vec())
}

#[cfg(test)]
mod tests {
    use cluster::scheme::Scheme;
    use proptest::prelude::{any, proptest};
    use tenancy::id::CacheId;

    use super::*;
    use crate::control::topology::Placement;
    use crate::frame::{Decoded, decode};

    #[test]
    fn versions_agree_on_the_newest_both_speak() {
        let range = |min, max| Versions { min, max };
        assert_eq!(range(1, 1).agree(range(1, 2)), Some(1));
        assert_eq!(range(1, 3).agree(range(2, 2)), Some(2));
        assert_eq!(range(2, 3).agree(range(1, 1)), None);
        assert_eq!(range(9, 1).agree(range(1, 9)), None);
    }

    #[test]
    fn every_reason_comes_back_by_its_code() {
        for &reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason as u8), Some(reason));
        }
        assert_eq!(Reason::from_code(0), None);
    }

    #[test]
    fn every_message_of_a_node_comes_back_and_no_part_of_it_does() {
        for message in from_node() {
            let mut bytes = Vec::new();
            message.encode(1, &mut bytes);
            let frame = whole(&bytes);
            assert_eq!(FromNode::decode(&frame).as_ref(), Ok(&message));
            for cut in 0..frame.body.len() {
                let part = Frame { body: &frame.body[..cut], ..frame };
                assert!(FromNode::decode(&part).is_err(), "{message:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn every_message_of_control_comes_back_and_no_part_of_it_does() {
        for message in from_control() {
            let mut bytes = Vec::new();
            message.encode(1, &mut bytes);
            let frame = whole(&bytes);
            assert_eq!(FromControl::decode(&frame).as_ref(), Ok(&message));
            for cut in 0..frame.body.len() {
                let part = Frame { body: &frame.body[..cut], ..frame };
                assert!(FromControl::decode(&part).is_err(), "{message:?} cut at {cut}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_have_an_answer(version in any::<u8>(), kind in any::<u8>(), body: Vec<u8>) {
            let frame = Frame { version, kind, body: &body };
            drop((FromNode::decode(&frame), FromControl::decode(&frame)));
        }
    }

    fn whole(bytes: &[u8]) -> Frame<'_> {
        match decode(bytes, MESSAGE_BYTES_MAX) {
            Ok(Decoded::Frame { frame, consumed }) if consumed == bytes.len() => frame,
            other => panic!("not one frame: {other:?}"),
        }
    }

    fn from_node() -> Vec<FromNode> {
        let node = NodeName::parse("node-1").expect("a good name");
        let (revision, digest) = (Revision::new(7), SetDigest::from_number(9));
        let (epoch, hash) = (Epoch::new(3), Digest::new([5; 32]));
        let answers = crate::control::inquiry::tests::answers();
        let answer = |answer| FromNode::Answer { number: 5, answer };
        let mut all: Vec<FromNode> = answers.into_iter().map(answer).collect();
        all.extend([
            FromNode::Hello(Hello {
                versions: VERSIONS,
                cluster: ClusterId::new([1; 16]),
                node: node.clone(),
                incarnation: Incarnation::new(77),
                revision,
                digest,
                has_copy: true,
                epoch,
                addresses: NodeAddresses {
                    clients: Some(SocketAddr::from(([127, 0, 0, 1], 11_211))),
                    clients_tls: None,
                    peers: Some(SocketAddr::from(([1_u16; 8], 1))),
                },
                backends_mib: vec![1024, 2048],
                software: "0.1.0".to_owned(),
            }),
            FromNode::Join {
                versions: VERSIONS,
                token: "larder1.abc".to_owned(),
                node,
                public_key: vec![4; 65],
            },
            FromNode::Ack { revision, digest },
            FromNode::Nack { revision, refusal: Refusal::new(Reason::Gap, "8 is missing") },
            FromNode::Report(Report {
                revision,
                digest,
                durable: revision,
                epoch,
                connected: MemberSet::first(3),
                caches: 1,
                credentials: 2,
                alarms: Alarms::DISK.with(Alarms::NO_ROOM),
            }),
            FromNode::Prepared { epoch, digest: hash, connected: MemberSet::first(9) },
            FromNode::Committed { epoch, digest: hash },
            FromNode::Renew { public_key: vec![4; 65] },
            FromNode::Usage(crate::control::usage::tests::one_report()),
        ]);
        all
    }

    fn from_control() -> Vec<FromControl> {
        use crate::control::record::tests::{one_cache, one_credential, one_rule};
        let (revision, digest) = (Revision::new(7), SetDigest::from_number(9));
        let (epoch, hash) = (Epoch::new(3), Digest::new([5; 32]));
        let certificate = Certificate { der: vec![9; 400], not_after: 1_800_000_000 };
        let topology = crate::control::topology::tests::topology;
        let questions = crate::control::inquiry::tests::questions();
        let ask = |question| FromControl::Ask { number: 5, question };
        let mut all: Vec<FromControl> = questions.into_iter().map(ask).collect();
        all.extend([
            FromControl::Welcome { version: 1 },
            FromControl::Joined {
                cluster: ClusterId::new([1; 16]),
                certificate: certificate.clone(),
                authority: vec![8; 300],
                secret_key: [6; 32],
            },
            FromControl::Refused(Refusal::new(Reason::WrongToken, "it was made elsewhere")),
            FromControl::Delta(Delta {
                revision,
                puts: vec![one_cache(1), one_credential("ann", 1), one_rule(1, Some(1))],
                deletes: vec![
                    one_credential("bob", 1).key(),
                    one_cache(2).key(),
                    one_rule(2, None).key(),
                ],
            }),
            FromControl::SnapshotBegin(SnapshotHead {
                revision,
                digest,
                caches: 1,
                credentials: 2,
                forced: true,
            }),
            FromControl::SnapshotChunk(vec![one_cache(1), one_credential("ann", 1)]),
            FromControl::SnapshotEnd,
            FromControl::Heartbeat { revision, digest, settled: epoch },
            FromControl::Prepare {
                topology: Arc::new(topology(3, 2, Placement::Scheme(Scheme::Maglev))),
                forced: false,
            },
            FromControl::Commit { epoch, digest: hash },
            FromControl::Abort { epoch },
            FromControl::Certificate(certificate),
            FromControl::Shares(vec![Share { cache: CacheId::new(7), backend: 1, bytes: 1 << 40 }]),
        ]);
        all
    }
}
