//! Where items live: memory, index, eviction, expiry, CAS and accounts of many caches in one
//! process.
//!
//! Pure: told the time with each call, no I/O, no chance but a seed.

pub mod model;
mod number;
pub mod operation;
pub mod stats;
pub mod store;
