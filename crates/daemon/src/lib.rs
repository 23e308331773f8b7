//! What every long-running program of ours does alike.
//!
//! ```text
//!  flags, environment, file ──settings──▶ Settings        all mistakes told at once
//!  kernel ──descriptors──▶ how many connections fit
//!  SIGTERM, SIGINT, SIGHUP ──shutdown──▶ drain once, exit on the second, reload
//!  clock ──▶ Now                                          the only place that looks at a clock
//!  log ──▶ stderr                                         a storm costs ten lines a second
//!  tls_stream ──▶ a socket and what rustls makes of it    without blocking, at either end
//! ```
//!
//! Nothing here knows of caches, connections or protocols.

pub mod clock;
pub mod descriptors;
pub mod log;
#[cfg(feature = "simulation")]
pub mod memory_stream;
pub mod networks;
pub mod settings;
pub mod shutdown;
pub mod tls_stream;
