//! The control plane's side of one node's connection.
//!
//! ```text
//!                HELLO: versions, cluster, name fit
//!   AwaitsHello ────────────────────────────────────▶ Open
//!       │ anything else, or does not fit                │
//!       ▼                                               │ what the node has
//!    REFUSED, close                                     ▼
//!                     known to us, with this digest ──▶ deltas, at most WINDOW unacknowledged
//!                     unknown, differs, or refused  ──▶ snapshot; nothing else until it is answered
//! ```
//!
//! Pure: told the time, the messages and the history; answers what to do.

use std::time::Duration;

use cluster::digest::Digest;
use cluster::map::Epoch;
use wire::control::digest::SetDigest;
use wire::control::inquiry::Answer;
use wire::control::message::{FromControl, FromNode, Hello, Reason, Refusal, Report, Versions};
use wire::control::name::{ClusterId, NodeName};
use wire::control::record::Revision;
use wire::control::topology::MemberSet;
use wire::control::usage::UsageReport;

use super::history::History;

/// How often a node is told what is true, and asked how it is.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// A node that has said nothing for so long is deaf: two heartbeats it did not answer.
pub const DEAF_AFTER: Duration = Duration::from_millis(2_000);
/// Then its connection is closed, so that a new one can be made.
pub const GIVEN_UP_AFTER: Duration = Duration::from_secs(15);
/// While it takes a snapshot in: a million records go through its directory and to its disk meanwhile.
pub const GIVEN_UP_IN_SNAPSHOT_AFTER: Duration = Duration::from_secs(120);
/// A node that has not acknowledged a delta for so long is behind.
pub const BEHIND_AFTER: Duration = Duration::from_secs(2);
/// Deltas sent and not acknowledged. A node writes them to its disk together, so more would not be
/// faster, and one that takes none holds up no more than this.
pub const WINDOW: u64 = 256;
/// Deltas taken for a node at once, in bytes; the one that passes it goes along. A delta may have most of a
/// megabyte, and a node that takes none shall not hold hundreds of them.
pub const BITE_BYTES_MAX: usize = 256 * 1024;
/// How long a node that refused a snapshot is left alone: what it refused will mostly still be so.
pub const REFUSED_PAUSE: Duration = Duration::from_secs(10);

/// Time since some moment that the shell chose.
pub type Moment = Duration;

/// What the shell must do.
#[derive(Debug, PartialEq, Eq)]
pub enum Act {
    Send(FromControl),
    /// The node has introduced itself.
    Registered(Hello),
    /// It has this, on disk.
    Acknowledged(Revision),
    /// It has told how it is.
    Reported(Box<Report>),
    Prepared {
        epoch: Epoch,
        digest: Digest,
        connected: MemberSet,
    },
    Committed {
        epoch: Epoch,
        digest: Digest,
    },
    Renew {
        public_key: Vec<u8>,
    },
    /// It has told what its caches hold and count.
    Used(Box<UsageReport>),
    /// It has answered the question of this number.
    Answered {
        number: u64,
        answer: Box<Answer>,
    },
    /// Someone should know; once for each time that it begins.
    Alarm(Trouble),
    /// Send this and close.
    Close(Refusal),
}

/// What to send next of the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Push {
    Nothing,
    /// At most `count` deltas that follow on `after`.
    Deltas {
        after: Revision,
        count: u64,
    },
    /// Everything; [`Session::snapshot_sent`] when its revision is known.
    Snapshot {
        forced: bool,
    },
    /// Nothing ever: send this and close. What there is cannot be said in the node's version.
    Refused(Refusal),
}

/// What is wrong with a node, seen from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It has said nothing for [`DEAF_AFTER`].
    Deaf,
    /// It has not acknowledged a delta for [`BEHIND_AFTER`].
    Behind,
    /// At this revision its records are not ours. It is given a snapshot.
    DigestDiffers { revision: Revision },
    /// It refused what it was sent.
    Refused(Refusal),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Deaf => f.write_str("deaf"),
            Trouble::Behind => f.write_str("behind"),
            Trouble::DigestDiffers { revision } => write!(f, "digest differs at {revision}"),
            Trouble::Refused(refusal) => write!(f, "refused: {refusal}"),
        }
    }
}

/// The engine of one connection.
#[derive(Debug)]
pub struct Session {
    versions: Versions,
    cluster: ClusterId,
    /// Who its certificate says it is.
    peer: NodeName,
    state: State,
    /// What the node will have when all that was sent has arrived; `None` asks for a snapshot.
    sent: Option<Revision>,
    acknowledged: Revision,
    /// Since when something is unacknowledged.
    waiting_since: Option<Moment>,
    snapshot_under_way: bool,
    /// The next snapshot is sent as confirmed by a person.
    forced: bool,
    held_until: Option<Moment>,
    heard_at: Moment,
    deaf: bool,
    behind: bool,
    differs: Option<Revision>,
    refused: Option<Refusal>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    AwaitsHello,
    Open { version: u8 },
}

impl Session {
    pub fn new(versions: Versions, cluster: ClusterId, peer: NodeName, now: Moment) -> Self {
        Session {
            versions,
            cluster,
            peer,
            state: State::AwaitsHello,
            sent: None,
            acknowledged: Revision::ZERO,
            waiting_since: None,
            snapshot_under_way: false,
            forced: false,
            held_until: None,
            heard_at: now,
            deaf: false,
            behind: false,
            differs: None,
            refused: None,
        }
    }

    /// The version to encode messages in.
    pub fn version(&self) -> u8 {
        match self.state {
            State::AwaitsHello => self.versions.max,
            State::Open { version } => version,
        }
    }

    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Takes a message in.
    pub fn hear(&mut self, message: FromNode, history: &History, now: Moment) -> Vec<Act> {
        self.heard_at = now;
        self.deaf = false;
        match (self.state, message) {
            (State::AwaitsHello, FromNode::Hello(hello)) => self.greet(hello, history),
            (State::Open { .. }, message) => self.hear_open(message, history, now),
            (State::AwaitsHello, _) => vec![unexpected("a session begins with HELLO")],
        }
    }

    fn greet(&mut self, hello: Hello, history: &History) -> Vec<Act> {
        let Some(version) = self.versions.agree(hello.versions) else {
            let detail = format!("versions {} here, {} there", self.versions, hello.versions);
            return vec![Act::Close(Refusal::new(Reason::Version, detail))];
        };
        if let Some(refusal) = too_old(version, history) {
            return vec![Act::Close(refusal)];
        }
        if hello.cluster != self.cluster {
            let detail = format!("this is {:.8}, not {:.8}", self.cluster, hello.cluster);
            return vec![Act::Close(Refusal::new(Reason::WrongCluster, detail))];
        }
        if hello.node != self.peer {
            let detail = format!("the certificate is {}'s, not {}'s", self.peer, hello.node);
            return vec![Act::Close(Refusal::new(Reason::WrongName, detail))];
        }
        self.state = State::Open { version };
        let mut acts = vec![Act::Send(FromControl::Welcome { version })];
        match history.digest_at(hello.revision) {
            Some(digest) if hello.has_copy && digest == hello.digest => {
                self.sent = Some(hello.revision);
                self.acknowledged = hello.revision;
            }
            Some(_) if hello.has_copy => acts.extend(self.differ(hello.revision)),
            Some(_) | None => (),
        }
        let revision = self.acknowledged;
        acts.push(Act::Registered(hello));
        acts.push(Act::Acknowledged(revision));
        acts
    }

    fn hear_open(&mut self, message: FromNode, history: &History, now: Moment) -> Vec<Act> {
        match message {
            FromNode::Ack { revision, digest } => self.acknowledge(revision, digest, history, now),
            FromNode::Nack { revision, refusal } => self.refuse(revision, refusal, now),
            FromNode::Report(report) => {
                let mut acts = Vec::new();
                match history.digest_at(report.revision) {
                    Some(digest) if digest != report.digest => {
                        if !self.snapshot_under_way {
                            acts.extend(self.differ(report.revision));
                        }
                    }
                    Some(_) if !self.snapshot_under_way => self.differs = None,
                    Some(_) | None => (),
                }
                acts.push(Act::Reported(Box::new(report)));
                acts
            }
            FromNode::Prepared { epoch, digest, connected } => {
                vec![Act::Prepared { epoch, digest, connected }]
            }
            FromNode::Committed { epoch, digest } => vec![Act::Committed { epoch, digest }],
            FromNode::Renew { public_key } => vec![Act::Renew { public_key }],
            FromNode::Usage(report) => vec![Act::Used(Box::new(report))],
            FromNode::Answer { number, answer } => {
                vec![Act::Answered { number, answer: Box::new(answer) }]
            }
            FromNode::Hello(_) | FromNode::Join { .. } => {
                vec![unexpected("a session has begun already")]
            }
        }
    }

    fn acknowledge(
        &mut self,
        revision: Revision,
        digest: SetDigest,
        history: &History,
        now: Moment,
    ) -> Vec<Act> {
        self.snapshot_under_way = false;
        self.behind = false;
        if history.digest_at(revision).is_some_and(|ours| ours != digest) {
            return self.differ(revision);
        }
        self.acknowledged = revision;
        self.waiting_since = (Some(revision) != self.sent).then_some(now);
        self.refused = None;
        vec![Act::Acknowledged(revision)]
    }

    /// Its records are not ours: say so once, and replace them.
    fn differ(&mut self, revision: Revision) -> Vec<Act> {
        self.sent = None;
        let is_new = self.differs.replace(revision).is_none();
        is_new.then_some(Act::Alarm(Trouble::DigestDiffers { revision })).into_iter().collect()
    }

    fn refuse(&mut self, revision: Revision, refusal: Refusal, now: Moment) -> Vec<Act> {
        self.waiting_since = None;
        if refusal.reason == Reason::Storage {
            // It serves by it all the same, and acknowledges once it has written it.
            self.snapshot_under_way = false;
        } else if !matches!(refusal.reason, Reason::OldEpoch | Reason::Unexpected) {
            // Those two are about topologies, which are the driver's.
            let was_snapshot = std::mem::take(&mut self.snapshot_under_way);
            self.held_until = was_snapshot.then(|| now + REFUSED_PAUSE);
            self.sent = None;
            self.acknowledged = revision;
        }
        let is_new = self.refused.as_ref() != Some(&refusal);
        self.refused = Some(refusal.clone());
        is_new.then_some(Act::Alarm(Trouble::Refused(refusal))).into_iter().collect()
    }

    /// Sends the next snapshot as confirmed by a person, and at once.
    pub fn force(&mut self) {
        self.forced = true;
        self.sent = None;
        self.snapshot_under_way = false;
        self.held_until = None;
    }

    /// What to send next. Ask again after each send, each message and each commit.
    pub fn next_push(&mut self, history: &History, now: Moment) -> Push {
        if !self.is_open() || self.snapshot_under_way || self.held_until.is_some_and(|it| now < it)
        {
            return Push::Nothing;
        }
        if let Some(refusal) = too_old(self.version(), history) {
            return Push::Refused(refusal);
        }
        self.held_until = None;
        let Some(sent) = self.sent else { return self.snapshot(now) };
        if sent == history.head().0 {
            return Push::Nothing;
        }
        let Some(waiting) = history.after(sent) else { return self.snapshot(now) };
        let unacknowledged = sent.get().saturating_sub(self.acknowledged.get());
        let window = WINDOW.saturating_sub(unacknowledged);
        let mut bytes = 0;
        let bite = waiting.zip(0..window).take_while(|(entry, _)| {
            let fits = bytes < BITE_BYTES_MAX;
            bytes += entry.frame.len();
            fits
        });
        let count = bite.count() as u64;
        if count == 0 {
            return Push::Nothing;
        }
        self.sent = Some(Revision::new(sent.get() + count));
        self.waiting_since.get_or_insert(now);
        Push::Deltas { after: sent, count }
    }

    fn snapshot(&mut self, now: Moment) -> Push {
        self.snapshot_under_way = true;
        self.waiting_since = Some(now);
        Push::Snapshot { forced: std::mem::take(&mut self.forced) }
    }

    /// Says which revision the snapshot of the last [`Push::Snapshot`] has.
    pub fn snapshot_sent(&mut self, revision: Revision) {
        self.sent = Some(revision);
    }

    /// Looks at the clock; a few times a second.
    pub fn look(&mut self, now: Moment) -> Vec<Act> {
        let mut acts = Vec::new();
        let silent = now.saturating_sub(self.heard_at);
        let patience =
            if self.snapshot_under_way { GIVEN_UP_IN_SNAPSHOT_AFTER } else { GIVEN_UP_AFTER };
        if patience <= silent {
            acts.push(Act::Close(Refusal::new(Reason::Busy, "no word from you")));
        } else if DEAF_AFTER <= silent && !self.deaf {
            self.deaf = true;
            acts.push(Act::Alarm(Trouble::Deaf));
        }
        let waited = self.waiting_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        if BEHIND_AFTER <= waited && !self.snapshot_under_way && !self.behind && !self.deaf {
            self.behind = true;
            acts.push(Act::Alarm(Trouble::Behind));
        }
        acts
    }

    /// Everything that is wrong now.
    pub fn troubles(&self) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        if self.deaf {
            troubles.push(Trouble::Deaf);
        }
        if self.behind {
            troubles.push(Trouble::Behind);
        }
        troubles.extend(self.differs.map(|revision| Trouble::DigestDiffers { revision }));
        troubles.extend(self.refused.clone().map(Trouble::Refused));
        troubles
    }
}

/// Why a node of this version cannot be told what there is. It goes on serving by what it has, and is
/// missed in the status.
fn too_old(version: u8, history: &History) -> Option<Refusal> {
    let wanted = history.version_min();
    (version < wanted).then(|| {
        let detail = format!("there are rules for addresses, which are said in version {wanted}");
        Refusal::new(Reason::Version, detail)
    })
}

fn unexpected(detail: &str) -> Act {
    Act::Close(Refusal::new(Reason::Unexpected, detail))
}

#[cfg(test)]
mod tests;
