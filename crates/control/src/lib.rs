//! The control plane: what caches and credentials there shall be, kept in SQLite, changed over an
//! HTTP API, and told to the data plane of the same process.
//!
//! ```text
//!  larder cache …, curl
//!        │ HTTP, bearer token
//!        ▼
//!     server    connections, timeouts, shutdown
//!     api       request → typed command → problem or JSON            (contract: the JSON types)
//!        │ one blocking call each, a bounded number at a time
//!        ▼
//!     control   one change at a time:
//!        │        begin → rows → audit + change log → ask the data plane → commit → tell the Directory
//!        ├──▶ database   SQLite or PostgreSQL: constraints, transactions
//!        ├──▶ DataPlane  makes room, forgets, flushes, counts          (implemented by the program)
//!        └──▶ Directory  what proxies ask and sessions read            (crate `tenancy`)
//! ```
//!
//! The data plane is asked *before* the commit, because it may refuse (no memory) and can undo; the
//! directory is told *after*, because it cannot refuse and must never show what was not committed.
//! Nothing here speaks memcached or touches an item.

pub mod alerts;
pub mod api;
pub mod applied;
pub mod campaign;
pub mod contract;
pub mod control;
pub mod couriers;
pub mod dashboard;
pub mod data_dir;
pub mod data_plane;
pub mod database;
pub mod environment;
pub mod error;
pub mod feed;
pub mod housekeeping;
pub mod mailer;
pub mod model;
pub mod password;
pub mod push;
pub mod rules;
pub mod series;
pub mod server;
pub mod usage;

mod bell;
mod guesses;
#[cfg(test)]
mod pretend;
mod seal;
