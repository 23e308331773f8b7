//! A node's side of one connection to the control plane.
//!
//! ```text
//!            HELLO sent                WELCOME(version)
//!   Greeted ─────────────▶ (waiting) ─────────────────▶ Open: deltas, snapshots, heartbeats, epochs
//!      │ REFUSED, anything else                            │ what makes no sense
//!      ▼                                                   ▼
//!    the connection is closed; the node goes on serving, and tries again later
//! ```
//!
//! Pure: the shell reads frames, hands the messages in, carries out the [`Step`]s in order, writes to
//! disk, and only then sends [`NodeSession::acknowledge`].

use std::sync::Arc;

use cluster::map::Epoch;

use super::epochs::Epochs;
use super::inquiry::Question;
use super::message::{Certificate, FromControl, FromNode, Reason, Refusal, Versions};
use super::record::Delta;
use super::records::{Change, Records};
use super::replica::Replica;
use super::topology::Topology;
use super::usage::Share;

/// What the shell must do, in this order.
#[derive(Debug)]
pub enum Step {
    /// Answer this.
    Send(FromNode),
    /// Serve by these changes, and append the delta to what is on disk.
    Changed { delta: Delta, changes: Vec<Change> },
    /// The whole copy was replaced: serve by what differs from `before`, and write the copy to disk.
    Replaced { before: Records },
    /// Something was refused and the copy stayed; already answered by a [`Step::Send`] before this.
    Refused(Refusal),
    /// Send a report.
    Report,
    /// Make links to the members of this topology. `forced`: a person has confirmed whom it leaves out.
    Prepare { topology: Arc<Topology>, forced: bool },
    /// Route by this topology, and write it to disk; then answer [`FromNode::Committed`].
    Commit(Arc<Topology>),
    /// Give up the links that only the prepared topology needed.
    Abort,
    /// A newer epoch is settled ([`Epochs::settled`]).
    Settled(Epoch),
    /// Use this certificate from the next connection on.
    Certificate(Certificate),
    /// Let the backends hold so much.
    Share(Vec<Share>),
    /// Send the answer under this number.
    Answer { number: u64, question: Question },
}

/// The engine of one connection.
#[derive(Debug)]
pub struct NodeSession {
    versions: Versions,
    state: State,
    /// Whether something was applied that has not been acknowledged yet.
    owes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Greeted,
    Open { version: u8 },
}

impl NodeSession {
    /// For a connection on which HELLO with these versions has just been sent.
    pub fn new(versions: Versions) -> Self {
        NodeSession { versions, state: State::Greeted, owes: false }
    }

    /// The version to encode messages in.
    pub fn version(&self) -> u8 {
        match self.state {
            State::Greeted => self.versions.max,
            State::Open { version } => version,
        }
    }

    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Takes a message in.
    ///
    /// # Errors
    /// Close the connection: the other side refuses us, or is not what we think.
    pub fn hear(
        &mut self,
        message: FromControl,
        replica: &mut Replica,
        epochs: &mut Epochs,
    ) -> Result<Vec<Step>, Refusal> {
        match (self.state, message) {
            (State::Greeted, FromControl::Welcome { version }) => {
                if version < self.versions.min || self.versions.max < version {
                    let detail = format!("version {version}, of {} offered", self.versions);
                    return Err(Refusal::new(Reason::Version, detail));
                }
                self.state = State::Open { version };
                Ok(Vec::new())
            }
            (_, FromControl::Refused(refusal)) => Err(refusal),
            (State::Open { .. }, message) => self.hear_open(message, replica, epochs),
            (State::Greeted, other) => Err(unexpected(&other)),
        }
    }

    fn hear_open(
        &mut self,
        message: FromControl,
        replica: &mut Replica,
        epochs: &mut Epochs,
    ) -> Result<Vec<Step>, Refusal> {
        Ok(match message {
            FromControl::Delta(delta) => match replica.apply(&delta) {
                Ok(changes) => {
                    self.owes = true;
                    vec![Step::Changed { delta, changes }]
                }
                Err(refusal) => refuse(replica, refusal),
            },
            FromControl::SnapshotBegin(head) => answer(replica, |copy| copy.begin(head)),
            FromControl::SnapshotChunk(records) => match replica.chunk(records) {
                // The rest of a snapshot whose beginning was refused, and answered then.
                Err(refusal) if refusal.reason == Reason::Unexpected => Vec::new(),
                Err(refusal) => refuse(replica, refusal),
                Ok(()) => Vec::new(),
            },
            FromControl::SnapshotEnd => match replica.end() {
                Err(refusal) if refusal.reason == Reason::Unexpected => Vec::new(),
                Err(refusal) => refuse(replica, refusal),
                Ok(before) => {
                    self.owes = true;
                    vec![Step::Replaced { before }]
                }
            },
            FromControl::Heartbeat { settled, .. } => {
                let mut steps = Vec::new();
                if epochs.settled < Some(settled) && settled.get() > 0 {
                    epochs.settled = Some(settled);
                    steps.push(Step::Settled(settled));
                }
                steps.push(Step::Report);
                steps
            }
            FromControl::Prepare { topology, forced } => {
                match epochs.prepare(Arc::clone(&topology), forced) {
                    Ok(()) => vec![Step::Prepare { topology, forced }],
                    Err(refusal) => refuse(replica, refusal),
                }
            }
            FromControl::Commit { epoch, digest } => match epochs.commit(epoch, digest) {
                Ok(Some(topology)) => vec![Step::Commit(topology)],
                Ok(None) => vec![Step::Send(FromNode::Committed { epoch, digest })],
                Err(refusal) => refuse(replica, refusal),
            },
            FromControl::Abort { epoch } => {
                if epochs.abort(epoch) {
                    vec![Step::Abort]
                } else {
                    Vec::new()
                }
            }
            FromControl::Certificate(certificate) => vec![Step::Certificate(certificate)],
            FromControl::Shares(shares) => vec![Step::Share(shares)],
            FromControl::Ask { number, question } => vec![Step::Answer { number, question }],
            other @ (FromControl::Welcome { .. }
            | FromControl::Joined { .. }
            | FromControl::Refused(_)) => return Err(unexpected(&other)),
        })
    }

    /// What to send when everything applied so far is on disk; nothing when nothing is owed.
    pub fn acknowledge(&mut self, replica: &Replica) -> Option<FromNode> {
        std::mem::take(&mut self.owes).then(|| FromNode::Ack {
            revision: replica.revision(),
            digest: replica.records().digest(),
        })
    }

    /// What to send when it could not be written: it is served by, but would not survive a crash.
    pub fn not_durable(&mut self, replica: &Replica, why: &str) -> Option<FromNode> {
        std::mem::take(&mut self.owes).then(|| FromNode::Nack {
            revision: replica.revision(),
            refusal: Refusal::new(Reason::Storage, why),
        })
    }
}

fn answer(
    replica: &mut Replica,
    act: impl FnOnce(&mut Replica) -> Result<(), Refusal>,
) -> Vec<Step> {
    match act(replica) {
        Ok(()) => Vec::new(),
        Err(refusal) => refuse(replica, refusal),
    }
}

fn refuse(replica: &Replica, refusal: Refusal) -> Vec<Step> {
    let nack = FromNode::Nack { revision: replica.revision(), refusal: refusal.clone() };
    vec![Step::Send(nack), Step::Refused(refusal)]
}

fn unexpected(message: &FromControl) -> Refusal {
    Refusal::new(Reason::Unexpected, format!("{} is not expected here", message.name()))
}
