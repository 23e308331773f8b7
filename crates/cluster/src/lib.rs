//! Who holds which keys, and how that changes.
//!
//! Pure: no file, no socket, no clock; chance only from a seed, and only in [`experiment`]. So every
//! proxy, every backend and the control plane compute the same answer from the same members, and
//! can prove it to one another with a digest.
//!
//! ```text
//!   (cache, key) ── SlotHasher, keyed per cluster ──▶ Slot 0..65,536
//!                                                       │
//!   Members (names, weights) ── Scheme::place ──▶ Table: slot → member, with a digest
//!          │                                            │
//!          │                                   ClusterMap: epoch + Table ──▶ owner of a slot
//!          └── Change ── plan ──▶ Plan: which slots move from whom to whom
//!
//!   Ownership: which slots one backend may serve, whatever map anyone holds
//!   comeback: whether a node that was started again may serve before it hears control
//!   shares: how one cache's limit is divided over the backends
//! ```
//!
//! Three laws. Members are known by stable *names*, never by number or address, so a machine can be
//! replaced without moving a slot. The order in which members are listed has no influence. A slot
//! always has exactly one owner in a table; whether that owner really serves it at this moment, the
//! backend decides.

pub mod comeback;
pub mod digest;
pub mod experiment;
pub mod handoff;
pub mod maglev;
pub mod map;
pub mod member;
pub mod mistake;
pub mod ownership;
pub mod plan;
mod random;
pub mod ring;
pub mod scheme;
pub mod shares;
pub mod slot;
pub mod table;
