//! Whole clusters in one thread, with a clock and chance of our own: proxies, backends, control and
//! clients over the real engines, on a network that does its worst.
//!
//! ```text
//!   scenario (drawn from a seed) ──▶ world ── events ──▶ node, control, client, network
//!        ▲                            │                        │ answers
//!        │ with less of it            ▼ a law did not hold     ▼
//!      shrink ◀───────────────── violation ◀── laws ◀────── history
//! ```
//!
//! What decides anything is the code that runs in production: sessions, links, the peer server,
//! ownership, the store, the node's copy, the rules of epochs. Sockets, disks, tasks and time are
//! played. `README.md` beside this says how a failure is read.

mod client;
mod control;
pub mod counts;
pub mod history;
mod inflict;
mod judge;
pub mod laws;
pub mod mistakes;
pub mod naive;
mod network;
mod node;
pub mod play;
mod random;
pub mod scenario;
pub mod shrink;
pub mod story;
pub mod time;
mod world;
