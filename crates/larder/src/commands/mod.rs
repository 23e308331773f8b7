//! The commands of the command line, one file each.

pub(crate) mod settings;
pub(crate) mod up;
