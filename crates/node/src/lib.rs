//! A node's side of the control plane: joins the cluster, keeps a copy of its records on disk and in
//! the directory that proxies ask, and goes on serving by it when the control plane is away.
//!
//! ```text
//!   control ──mTLS──▶ link ── messages ──▶ wire's NodeSession, Replica, Epochs    (rules, pure)
//!                      │ steps
//!                      ├──▶ serving    Directory and data plane: all of a revision at once
//!                      ├──▶ disk       log and snapshot; synced before it is acknowledged
//!                      ├──▶ comeback   after a start: is the epoch on disk still in force?
//!                      └──▶ view       the topology that requests are routed by (arc-swap)
//! ```
//!
//! Nothing that serves a client ever waits for anything here.

pub mod comeback;
pub mod disk;
pub mod identity;
pub mod link;
pub mod serving;
pub mod telling;
pub mod view;
