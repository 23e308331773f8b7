//! Usernames and passwords as clients send them, in the text and in the binary dialect.

use crate::operation::{Store, StoreMode};

/// A username and a password, as sent; nobody has checked them.
///
/// Not printable, so that no password gets into a log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Candidate<'a> {
    pub username: &'a [u8],
    pub password: &'a [u8],
}

/// Longest username or password in bytes: what every client must be able to prepare (RFC 4616,
/// section 2), and several times what we hand out.
pub const SECRET_BYTES_MAX: usize = 255;

/// The one mechanism we speak.
pub const MECHANISM: &str = "PLAIN";

/// Longest name of a SASL mechanism (memcached `MAX_SASL_MECH_LEN`; RFC 4422 allows 20).
pub(crate) const MECHANISM_BYTES_MAX: usize = 32;

/// Longest SASL message that is read: three longest names and what separates them.
pub const MESSAGE_BYTES_MAX: usize = 3 * SECRET_BYTES_MAX + 2;

impl<'a> Candidate<'a> {
    fn new(username: &'a [u8], password: &'a [u8]) -> Option<Self> {
        let is_sensible = |bytes: &[u8]| !bytes.is_empty() && bytes.len() <= SECRET_BYTES_MAX;
        (is_sensible(username) && is_sensible(password)).then_some(Candidate { username, password })
    }
}

/// What the first `set` of a text session can mean; the session tries each.
///
/// | dialect | key | value |
/// |---|---|---|
/// | MemCachier | username | password |
/// | memcached `-Y` (`doc/protocol.txt`, "Authentication") | anything | username, space, password |
///
/// Client flags, expiry and `noreply` mean nothing here; real clients send all of them.
pub fn candidates_of_store<'a>(store: &Store<'a>) -> impl Iterator<Item = Candidate<'a>> + use<'a> {
    let is_set = store.mode == StoreMode::Set && store.compare_cas.is_none();
    let by_key = Candidate::new(store.key.bytes(), store.value);
    let by_value = memchr::memchr(b' ', store.value).and_then(|space| {
        let (username, password) = store.value.split_at(space);
        Candidate::new(username, &password[1..])
    });
    [by_key, by_value].into_iter().flatten().filter(move |_| is_set)
}

/// Reads a SASL PLAIN message: `[authzid] NUL username NUL password` (RFC 4616, section 2).
///
/// `None` if it has another form or empty or overlong parts. Who one would like to act for
/// (authzid) must be empty or the username: nobody acts for others here.
pub fn plain(message: &[u8]) -> Option<Candidate<'_>> {
    let mut parts = message.split(|byte| *byte == 0);
    let (authzid, username, password) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || !(authzid.is_empty() || authzid == username) {
        return None;
    }
    Candidate::new(username, password)
}

#[cfg(test)]
mod tests {
    use super::{Candidate, SECRET_BYTES_MAX, candidates_of_store, plain};
    use crate::operation::{Exptime, Key, Store, StoreMode};

    #[test]
    fn a_plain_message_is_three_parts() {
        check_plain(b"\0user\0secret", Some(("user", "secret")));
        check_plain(b"user\0user\0secret", Some(("user", "secret")));
        check_plain(b"\0user\0with spaces\r\n", Some(("user", "with spaces\r\n")));
    }

    #[test]
    fn what_is_not_a_plain_message_is_refused() {
        check_plain(b"", None);
        check_plain(b"user secret", None);
        check_plain(b"user\0secret", None);
        check_plain(b"\0user\0", None);
        check_plain(b"\0\0secret", None);
        check_plain(b"\0user\0sec\0ret", None);
        check_plain(b"other\0user\0secret", None);
        let long = "x".repeat(SECRET_BYTES_MAX + 1);
        check_plain(format!("\0user\0{long}").as_bytes(), None);
        check_plain(format!("\0{long}\0secret").as_bytes(), None);
    }

    #[test]
    fn a_set_means_what_either_dialect_makes_of_it() {
        check_set("user", "secret", &[("user", "secret")]);
        check_set("any", "user secret", &[("any", "user secret"), ("user", "secret")]);
        check_set("any", "user sec ret", &[("any", "user sec ret"), ("user", "sec ret")]);
        check_set("any", " secret", &[("any", " secret")]);
        check_set("any", "", &[]);
    }

    #[track_caller]
    fn check_plain(message: &[u8], expected: Option<(&str, &str)>) {
        assert_eq!(plain(message).map(readable), expected.map(owned));
    }

    #[track_caller]
    fn check_set(key: &str, value: &str, expected: &[(&str, &str)]) {
        let mut store = Store {
            key: Key::new(key.as_bytes()).expect("a short key"),
            value: value.as_bytes(),
            flags: 7,
            exptime: Exptime(60),
            mode: StoreMode::Set,
            compare_cas: None,
            new_cas: None,
            invalidate: false,
            vivify: None,
        };
        let found: Vec<_> = candidates_of_store(&store).map(readable).collect();
        assert_eq!(found, expected.iter().copied().map(owned).collect::<Vec<_>>());
        store.mode = StoreMode::Add;
        assert_eq!(candidates_of_store(&store).count(), 0, "only set authenticates");
    }

    fn readable(candidate: Candidate<'_>) -> (String, String) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(candidate.username), text(candidate.password))
    }

    fn owned((username, password): (&str, &str)) -> (String, String) {
        (username.to_owned(), password.to_owned())
    }
}
