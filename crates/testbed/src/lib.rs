//! The bench of real processes: starts Larder and memcached as their users would, and talks to them
//! over real sockets.
//!
//! Everything else tests a crate; this tests the program. It knows nothing of Larder but its command
//! line, its printed lines and the memcached protocol, so that it can judge without sharing Larder's
//! mistakes. [`push`] alone is made of its parts.
//!
//! * [`process`]: a child process that cannot outlive its test, its log, its memory and CPU time.
//! * [`larder`], [`memcached`]: the two servers, ready to be connected to; [`postgres`]: one to keep the truth.
//! * [`cluster`]: a control plane and nodes; [`fleet`]: a whole cluster, its nodes killed and restarted.
//! * [`owner`]: the owner of a cache, with curl.
//! * [`faults`]: experiments on clusters, `cargo xtask faults`. [`network`]: places with a network between
//!   them that is as bad as it shall be; [`cgroup`]: limits of CPU time and memory; [`cores`]: who
//!   runs where, and after whom; [`disk`]: one that can be filled.
//! * [`keys`]: many keys with known values, to see which are left.
//! * [`client_scripts`]: real clients. [`relay`]: a way between two processes that can be held up;
//!   [`distance`]: one that is long.
//! * [`oracle`]: a well-behaved client beside a test that misbehaves.
//! * [`freshness`]: clients of all proxies of a cluster that know which values may be read.
//! * [`connection`]: raw bytes, plain or TLS, never waiting without a deadline.
//! * [`eventually`]: waits for a condition instead of for time.
//! * [`verdict`]: whether a count is more than chance.
//! * [`workload`]: requests of many tenants, drawn from a seed, to replay on a cache.
//! * [`push`]: a control plane and many nodes in one process, to measure how changes reach them.
//! * [`kill_control`]: kills the control plane under load, and looks whether what it said was so.
//! * [`differential`]: the same random commands to both servers, and the same answers wanted.

pub mod cgroup;
pub mod client_scripts;
pub mod cluster;
pub mod connection;
pub mod cores;
pub mod differential;
pub mod disk;
pub mod distance;
pub mod eventually;
pub mod faults;
pub mod fleet;
pub mod freshness;
pub mod keys;
pub mod kill_control;
pub mod larder;
pub mod memcached;
pub mod network;
pub mod oracle;
pub mod owner;
pub mod postgres;
pub mod process;
pub mod push;
pub mod relay;
pub mod verdict;
pub mod workload;
