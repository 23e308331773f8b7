//! Usernames and passwords as clients send them.

use crate::operation::Store;

/// A username and a password, as sent; neither is known to be right.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Candidate<'a> {
    pub username: &'a [u8],
    pub password: &'a [u8],
}

/// What the first `set` of a text session can mean, most likely first; the session tries each.
pub fn candidates_of_store<'a>(store: &Store<'a>) -> impl Iterator<Item = Candidate<'a>> + use<'a> {
    let _ = store;
    std::iter::empty()
}

/// Reads a SASL PLAIN message: `[authzid] NUL username NUL password` (RFC 4616, section 2).
pub fn plain(data: &[u8]) -> Option<Candidate<'_>> {
    let _ = data;
    None
}
