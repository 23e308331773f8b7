//! The same random commands to memcached and to Larder, and the same answers wanted.
//!
//! ```text
//!  seed ─► sequence ─► rendered per server ─► one connection per round and server ─► bytes back
//!           │ commands   │ key prefix, CAS       │ written in random pieces,         │
//!           │ in rounds  │ tokens learned        │ half closed where out of step     ▼
//!           │            │ from its answers                                 replies, with what may
//!           │                                                               differ made alike
//!           ◄──────────── fewer commands, while they still differ ◄──────────────── compare
//! ```
//!
//! Sequences have keys of their own (a prefix), so many travel in one write and each can be judged
//! alone. Rounds exist because a `cas` needs a token from an earlier answer, and a pipelined client has
//! none: the first round's answers are in before the second is written. Reading until the server closes
//! needs no idea of how many answers a broken command gets.
//!
//! What differs is told at its first sight; that it does not differ again is no excuse, for a race
//! would not either. So nothing may be compared that rightly depends on the moment: memcached runs
//! without the threads that disturb its flush (`Memcached::start_exact`), and a time that comes to pass
//! does so while nobody asks ([`times`]).

pub mod batch;
pub mod binary;
pub mod command;
pub mod exchange;
pub mod explained;
pub mod judge;
pub mod keys;
pub mod login;
pub mod meta;
pub mod random;
pub mod reply;
pub mod run;
pub mod sequence;
pub mod text;
pub mod times;
