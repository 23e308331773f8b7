//! `larder bench`: a load generator for everything that speaks memcached's protocol.
//!
//! It speaks all three dialects, authenticates, encrypts, and checks every value it gets back. It
//! shares no code with the servers it measures, so it can bear witness against ours as well as
//! against memcached.
//!
//! ```text
//! args ──► plan ──► run ──► worker (one per thread) ──► tally ──► report
//! as written  as used       generator ─► connection ─► pipeline
//!                           what to ask   bytes         what came back
//! ```
//!
//! * [`BenchArgs`] is the command line, [`run`] does what it says, [`Report`] is what came out.
//! * [`run_observed`] also tells when the measured part begins and ends, so that the caller can
//!   read a server's CPU time at exactly these moments.

mod args;
mod connection;
mod dialect;
mod entry;
mod error;
mod events;
mod generator;
mod handshakes;
mod items;
mod login;
mod machine;
mod mix;
mod pace;
mod pipeline;
mod plan;
mod popularity;
mod progress;
mod random;
mod report;
mod run;
mod size;
mod tally;
mod timer;
mod tls;
mod transport;
mod worker;

pub use args::{AuthKind, BenchArgs, Handshakes};
pub use dialect::Dialect;
pub use error::BenchError;
pub use mix::{Act, Mix};
pub use popularity::Distribution;
pub use report::{ActCount, GeneratorCost, Percentiles, Report};
pub use run::{Moment, run, run_observed};
pub use size::Size;
