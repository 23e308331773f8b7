//! The commands of the command line, one file each.

pub(crate) mod audit;
pub(crate) mod bench;
pub(crate) mod cache;
pub(crate) mod cluster;
pub(crate) mod control;
pub(crate) mod credential;
mod members;
pub(crate) mod node;
pub(crate) mod operator;
pub(crate) mod outbox;
mod output;
pub(crate) mod rule;
mod serving;
pub(crate) mod settings;
pub(crate) mod simulate;
pub(crate) mod up;
mod up_cluster;
pub(crate) mod webhook;
