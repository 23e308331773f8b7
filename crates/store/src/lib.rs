//! Where items live: memory, index, eviction, expiry, CAS and accounts of many caches in one
//! process.
//!
//! ```text
//!   store.rs    Store, Cache, locks ───────────────┐ the doors
//!   turn.rs     one thread's batch of requests     │
//!   serve.rs    what clients may ask of a slice    │
//!   slice.rs    quota, eviction (S3-FIFO), expiry  │ one shard of one cache; knows no lock
//!     ├ index.rs  hash → place                     │
//!     ├ log.rs    items in chains of blocks        │
//!     │   └ item.rs  one item's bytes              │
//!     └ ghost.rs  keys evicted not long ago        │
//!   memory.rs   free blocks, graves of flushed caches ─ arena.rs: the bytes, and all unsafe code
//!   arbiter.rs  who gives memory to whom
//!   scan.rs, stream.rs  reading a whole cache
//!   stats.rs, watch.rs, working_set.rs  accounts, busiest keys, what other sizes would hit
//!   work.rs     counted steps that requests made necessary, to set bounds to
//!   sync.rs     locks and atomics, exchangeable for tests of all orders of threads
//!   model.rs    the same promises in the plainest code, to test against (twin.rs)
//! ```
//!
//! Pure: told the time with each call, no I/O, no chance but a seed. Why blocks, why locks:
//! `docs/decisions/0008…0010`; how well: `docs/benchmarks-store.md`.
//!
//! *What is charged* is key and value bytes. *What is guaranteed* is that many of them, because for
//! each guarantee blocks are set aside with allowance for overhead, and no more is promised than
//! there is. *What is lent* is memory of others that lies idle; its owner gets it back at once.

mod arbiter;
mod arena;
mod ghost;
mod index;
mod item;
mod log;
mod memory;
pub mod model;
mod number;
pub mod operation;
pub mod scan;
mod serve;
mod slice;
pub mod stats;
pub mod store;
pub mod stream;
mod sync;
pub mod turn;
#[cfg(test)]
mod twin;
pub mod watch;
pub mod work;
pub mod working_set;
