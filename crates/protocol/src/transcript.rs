//! Transcripts: what a client says and what it hears, as data.
//!
//! One file, three witnesses: the codec with a map behind it, a running Larder, a running memcached.
//! The format is described in `transcripts/README.md`; [`parse`] reads it, [`run`] plays one case
//! against anything that is a byte stream.
//!
//! Only for tests, so it is behind the feature `transcript`.

mod message;
mod parse;
mod play;

pub use message::Names;
pub use parse::{Mistake, parse};
pub use play::{Failure, run};

use message::Message;

/// One conversation on one connection. Cases of one run share a server, so each has its own keys.
#[derive(Debug)]
pub struct Case {
    /// A fact: what the case shows.
    pub name: String,
    /// Whether the server must ask for a username and a password.
    pub locked: bool,
    exceptions: Vec<Exception>,
    steps: Vec<(usize, Step)>,
}

#[derive(Debug)]
enum Step {
    Send(Message),
    Expect(Message),
    /// Anything, until this has come.
    ExpectUntil(Message),
    Closed,
}

/// Who hears the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Witness {
    /// The decoders and encoders of this crate.
    Codec,
    Larder,
    Memcached {
        version: Version,
    },
}

/// A witness for whom a case does not hold; the reason stands in the transcript, and in
/// `docs/compatibility.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Exception {
    /// Only from this memcached on.
    from: Option<Version>,
    /// Only memcached older than this.
    before: Option<Version>,
}

/// Such as 1.6.18.
pub type Version = (u32, u32, u32);

impl Case {
    /// Whether this witness is expected to say the same.
    pub fn holds_for(&self, witness: Witness) -> bool {
        match witness {
            Witness::Codec | Witness::Larder => true,
            Witness::Memcached { version } => !self.exceptions.iter().any(|exception| {
                exception.from.is_none_or(|from| from <= version)
                    && exception.before.is_none_or(|before| version < before)
            }),
        }
    }
}
