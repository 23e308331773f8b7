//! How one request wants to hear its outcome, and the saying of it.

use crate::command::Needs;
use crate::operation::{
    ArithmeticOutcome, DeleteOutcome, GetOutcome, Hit, Key, StoreOutcome, TouchOutcome,
};
use crate::request::Problem;

/// How the outcome of one request is to be said: its dialect, whether it is quiet, and what it
/// wants echoed. Every method appends to `out`, and appends nothing where the client asked for
/// silence.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a>(pub(crate) Form<'a>);

#[derive(Debug, Clone, Copy)]
pub(crate) enum Form<'a> {
    Text(&'a [u8]),
}

/// Why a request that can be read is not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The session has not authenticated.
    Unauthenticated,
    /// Username or password are wrong.
    AuthenticationFailed,
    /// The credential lacks the capability for this.
    Capability(Needs),
    /// A service of many tenants does not offer this command.
    NotOffered,
    /// A limit of the cache or of the service was met; the text says which, without a line end.
    Limit(&'static str),
}

impl Reply<'_> {
    /// One item of a text multi-get.
    #[inline]
    pub fn item(&self, out: &mut Vec<u8>, key: Key<'_>, hit: &Hit<'_>) {
        let _ = (out, key, hit);
    }

    /// The end of a text multi-get.
    #[inline]
    pub fn items_end(&self, out: &mut Vec<u8>) {
        let _ = out;
    }

    #[inline]
    pub fn get(&self, out: &mut Vec<u8>, key: Key<'_>, outcome: &GetOutcome<'_>) {
        let _ = (out, key, outcome);
    }

    #[inline]
    pub fn store(&self, out: &mut Vec<u8>, key: Key<'_>, outcome: StoreOutcome) {
        let _ = (out, key, outcome);
    }

    pub fn delete(&self, out: &mut Vec<u8>, key: Key<'_>, outcome: DeleteOutcome) {
        let _ = (out, key, outcome);
    }

    pub fn arithmetic(&self, out: &mut Vec<u8>, key: Key<'_>, outcome: ArithmeticOutcome) {
        let _ = (out, key, outcome);
    }

    pub fn touch(&self, out: &mut Vec<u8>, key: Key<'_>, outcome: TouchOutcome) {
        let _ = (out, key, outcome);
    }

    /// Meta debug.
    pub fn peek(&self, out: &mut Vec<u8>, key: Key<'_>, outcome: Option<&Hit<'_>>) {
        let _ = (out, key, outcome);
    }

    /// A flush or a verbosity was done.
    pub fn ok(&self, out: &mut Vec<u8>) {
        let _ = out;
    }

    pub fn version(&self, out: &mut Vec<u8>, version: &str) {
        let _ = (out, version);
    }

    pub fn noop(&self, out: &mut Vec<u8>) {
        let _ = out;
    }

    /// The last words before the connection is closed.
    pub fn quit(&self, out: &mut Vec<u8>) {
        let _ = out;
    }

    pub fn stat(&self, out: &mut Vec<u8>, name: &str, value: &str) {
        let _ = (out, name, value);
    }

    pub fn stats_end(&self, out: &mut Vec<u8>) {
        let _ = out;
    }

    /// `stats reset` was done.
    pub fn stats_reset(&self, out: &mut Vec<u8>) {
        let _ = out;
    }

    pub fn sasl_mechanisms(&self, out: &mut Vec<u8>) {
        let _ = out;
    }

    pub fn authenticated(&self, out: &mut Vec<u8>) {
        let _ = out;
    }

    pub fn refused(&self, out: &mut Vec<u8>, refusal: Refusal) {
        let _ = (out, refusal);
    }

    pub fn wrong(&self, out: &mut Vec<u8>, problem: Problem) {
        let _ = (out, problem);
    }
}
