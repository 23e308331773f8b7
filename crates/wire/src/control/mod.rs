//! What the control plane and the nodes of a cluster say to one another.
//!
//! ```text
//!   node                                             control
//!    │── HELLO(versions, cluster, node, incarnation, revision, digest) ──▶│
//!    │◀─ WELCOME(version) ────────────────────────────────────────────────│
//!    │◀─ DELTA(revision, puts, deletes) … or SNAPSHOT in chunks ──────────│
//!    │── ACK(revision, digest) │ NACK(revision, reason) ─────────────────▶│
//!    │◀─ HEARTBEAT(revision, digest, settled epoch), every second ────────│
//!    │── REPORT(revision, digest, epoch, alarms), for every heartbeat ───▶│
//!    │── USAGE(what caches hold and count), every second ────────────────▶│
//!    │◀─ SHARES(what each backend may hold of them) ──────────────────────│
//!    │◀─ ASK(number, what a person wants to know) ────────────────────────│
//!    │── ANSWER(number, …) ──────────────────────────────────────────────▶│
//!    │◀─ PREPARE(topology) ───────────────────────────────────────────────│
//!    │── PREPARED(epoch, digest, members it could connect to) ───────────▶│
//!    │◀─ COMMIT(epoch, digest) │ ABORT(epoch) ────────────────────────────│
//! ```
//!
//! [`record`] says what is pushed, [`digest`] how two sides find out that they have the same,
//! [`topology`] who the members are, [`message`] how it is all said. [`usage`] is what nodes count, and
//! what they may hold; [`inquiry`] what they are asked, and [`latency`] how long requests take. [`rules`]
//! is how rules for addresses are said, and whom a change of them would cut off. [`records`] and [`replica`] are a
//! node's copy and the rules by which it changes, [`epochs`] the same for topologies, and
//! [`node_session`] puts them to work on one connection.

pub mod digest;
pub mod epochs;
pub mod inquiry;
pub mod latency;
pub mod message;
pub mod name;
pub mod node_session;
pub mod record;
pub mod records;
pub mod replica;
pub mod rules;
pub mod token;
pub mod topology;
pub mod usage;
