//! The commands of the command line, one file each.

pub(crate) mod bench;
pub(crate) mod cache;
pub(crate) mod credential;
pub(crate) mod settings;
mod table;
pub(crate) mod up;
