//! Who may do what, and how much: caches, credentials, capabilities, plans, limits, rules for addresses.
//!
//! Pure: no file, no socket, no clock, no random source. The control plane writes a [`Directory`];
//! the data plane asks it once per connection and from then on reads the [`Grant`] it was given,
//! which stays live, so that a change reaches connections that are already open.
//!
//! ```text
//!   control ── put_cache, put_credential, set_capabilities, … ──▶ Directory
//!                                                                   │ authenticate (once per connection)
//!                                                                   ▼
//!   session ── holds ──▶ Arc<Grant> { username, capabilities* } ──▶ Arc<CacheEntry> { id, limits*, state* }
//!                        (* atomics: read per request, without a lock)
//! ```

pub mod capability;
pub mod directory;
pub mod id;
pub mod plan;
pub mod rate;
pub mod rules;
pub mod secret;
pub mod turns;
