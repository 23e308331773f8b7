//! Keeps every node of the cluster at the same view, and knows that it is the same.
//!
//! ```text
//!   database ── ChangeSource ──▶ publisher ── History, Records ──▶ session of node 1 ── mTLS ──▶ node
//!                (commits)         │  one copy in memory,     ├──▶ session of node 2 …
//!                                  │  deltas encoded once     └──▶ …
//!                                  ▼                                   │ ACK, REPORT, PREPARED …
//!                                Fleet ◀───────────────────────────────┘
//!                                  │ who has what, since when, what is wrong
//!                                  ├──▶ driver: epochs, PREPARE → COMMIT     (Registry)
//!                                  └──▶ API: cluster status, ?wait=applied
//! ```
//!
//! A session holds no queue: it remembers how far its node has come and takes the next deltas from the
//! one [`history`]. So a slow node costs nothing, and one that falls out of the history gets a snapshot.

pub mod authority;
pub mod history;
pub mod session;
pub mod source;
