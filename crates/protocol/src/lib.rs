//! What memcached clients say and hear: bytes to requests, outcomes to bytes.
//!
//! ```text
//!   client bytes ──▶ decode ──▶ Request { command, needs, body, reply }
//!                                              │             │
//!                                   whoever holds the items  │
//!                                              ▼             ▼
//!   client bytes ◀───────────────── Reply::store(out, key, outcome)
//! ```
//!
//! Pure: no socket, no clock, no counters, no tenant. A decoder is a function from the bytes that
//! have come so far to [`request::Decoded`]; an encoder appends to a buffer. Neither allocates on
//! the way of an ordinary request, and no input makes either panic.
//!
//! Three dialects share one vocabulary ([`operation`]) and one table of commands ([`command`]):
//!
//! | dialect | decoder | encoder |
//! |---|---|---|
//! | text | `text` | [`reply`] |
//! | meta (lines beginning with `m`, mixed freely with text) | `meta` | [`reply`] |
//! | binary (frames beginning with 0x80) | `binary` | [`reply`] |

mod binary;
pub mod command;
pub mod decode;
pub mod key_room;
#[cfg(feature = "transcript")]
pub mod laws;
mod meta;
pub mod operation;
pub mod reply;
pub mod request;
pub mod sasl;
mod text;
#[cfg(feature = "transcript")]
pub mod transcript;
mod words;
