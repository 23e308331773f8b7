//! Why the control plane did not do what it was asked.

use std::io;

use tenancy::id::{CacheId, Username};

use crate::data_dir::DataDirError;
use crate::data_plane::DataPlaneError;
use crate::model::{CacheName, CacheRef};
use crate::schema::SchemaError;
use crate::seal::BrokenSeal;

/// Why a change or a question was refused. Nothing of a refused change is left behind.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("there is no cache {0}")]
    UnknownCache(CacheRef),
    #[error("cache {cache} has no credential {username}")]
    UnknownCredential { cache: CacheName, username: Username },
    #[error("there is no credential {0}")]
    UnknownUsername(Username),
    #[error("there is already a cache named {0}")]
    NameTaken(CacheName),
    #[error("{username} is the primary credential of cache {cache}; promote another one first")]
    PrimaryStays { cache: CacheName, username: Username },
    #[error("cache {cache} already has {max} credentials, the most a cache can have")]
    TooManyCredentials { cache: CacheName, max: usize },
    #[error("there are already {max} caches, the most an installation can have")]
    TooManyCaches { max: usize },
    #[error("the data plane refused")]
    DataPlane(#[from] DataPlaneError),
    #[error("the database failed")]
    Database(#[from] rusqlite::Error),
    #[error("the database holds a {what} that this program does not understand")]
    Corrupt { what: &'static str },
    #[error("the password of {username} could not be read")]
    Sealed { username: Username, source: BrokenSeal },
    #[error("no random bytes could be had")]
    Random(#[from] io::Error),
}

/// Who can do something about a [`ControlError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The caller named something that is not there.
    Missing,
    /// The request contradicts what is there; the caller must ask for something else.
    Conflict,
    /// Not now; the same request may be repeated.
    Busy,
    /// Ours: logged, and not shown to the caller in detail.
    Ours,
}

impl ControlError {
    pub fn fault(&self) -> Fault {
        match self {
            ControlError::UnknownCache(_)
            | ControlError::UnknownCredential { .. }
            | ControlError::UnknownUsername(_) => Fault::Missing,
            ControlError::NameTaken(_)
            | ControlError::PrimaryStays { .. }
            | ControlError::TooManyCredentials { .. }
            | ControlError::TooManyCaches { .. }
            | ControlError::DataPlane(DataPlaneError::NoRoom { .. }) => Fault::Conflict,
            ControlError::DataPlane(DataPlaneError::Unavailable { .. }) => Fault::Busy,
            ControlError::Database(_)
            | ControlError::Corrupt { .. }
            | ControlError::Sealed { .. }
            | ControlError::Random(_) => Fault::Ours,
        }
    }
}

/// Why the control plane could not start. Each is the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("could not open the database")]
    Database(#[from] rusqlite::Error),
    #[error("could not load the caches")]
    Load(#[from] ControlError),
    #[error("cache {cache} could not be served again")]
    DataPlane { cache: CacheId, source: DataPlaneError },
}
