//! What joins a node's proxy, its backends and its copy of the records: for the binary, and for the
//! simulator, which runs the same nodes without a kernel.

pub mod introspection;
pub mod local_link;
pub mod member;
mod usage;
