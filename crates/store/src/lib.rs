//! Where items live: memory, index, eviction, expiry, CAS and accounts of many caches in one
//! process.
//!
//! Pure: told the time with each call, no I/O, no chance but a seed.

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
#[cfg(test)]
mod twin;
pub mod watch;
