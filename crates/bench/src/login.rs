//! How a connection says who it is, before anything else.

use crate::dialect::Scan;
use crate::dialect::binary;

/// What is said first on every connection, made once.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    request: Vec<u8>,
    speaks: Speaks,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Text,
    Binary,
}

/// What the server answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    NeedMore,
    Accepted {
        consumed: usize,
    },
    /// In the server's own words.
    Refused(String),
}

impl Login {
    /// SASL PLAIN in a binary frame.
    pub(crate) fn sasl(username: &str, password: &str) -> Login {
        let mut request = Vec::new();
        binary::sasl_plain(username, password, &mut request);
        Login { request, speaks: Speaks::Binary }
    }

    /// MemCachier's way in text: a `set` of the username to the password.
    pub(crate) fn memcachier(username: &str, password: &str) -> Login {
        Login::text(username, password)
    }

    /// memcached's way in text (`-Y`): a `set` of any key to `username password`.
    pub(crate) fn memcached(username: &str, password: &str) -> Login {
        Login::text("auth", &format!("{username} {password}"))
    }

    fn text(key: &str, value: &str) -> Login {
        let request = format!("set {key} 0 0 {}\r\n{value}\r\n", value.len()).into_bytes();
        Login { request, speaks: Speaks::Text }
    }

    pub(crate) fn request(&self) -> &[u8] {
        &self.request
    }

    pub(crate) fn verdict(&self, bytes: &[u8]) -> Verdict {
        match self.speaks {
            Speaks::Text => text_verdict(bytes),
            Speaks::Binary => binary_verdict(bytes),
        }
    }
}

fn text_verdict(bytes: &[u8]) -> Verdict {
    match bytes.iter().position(|&byte| byte == b'\n') {
        None if bytes.len() < SAID_BYTES_MAX => Verdict::NeedMore,
        Some(end) if bytes[..=end] == *b"STORED\r\n" => Verdict::Accepted { consumed: end + 1 },
        Some(_) | None => Verdict::Refused(said(bytes)),
    }
}

fn binary_verdict(bytes: &[u8]) -> Verdict {
    match binary::reply(bytes) {
        Ok(reply) if reply.answers_sasl() && reply.status == 0 => {
            Verdict::Accepted { consumed: reply.consumed }
        }
        Ok(reply) => {
            let words = said(reply.value);
            Verdict::Refused(format!("{words} (status {:#04x})", reply.status))
        }
        Err(Scan::NeedMore) => Verdict::NeedMore,
        Err(Scan::Wrong | Scan::Piece { .. }) => Verdict::Refused(said(bytes)),
    }
}

/// The beginning of what a server said, for people to read.
pub(crate) fn said(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(SAID_BYTES_MAX)];
    String::from_utf8_lossy(head).trim_end().to_owned()
}

/// A line of a terminal or two.
const SAID_BYTES_MAX: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_text_dialects_are_written_as_their_servers_want() {
        assert_eq!(Login::memcachier("me", "pass").request(), b"set me 0 0 4\r\npass\r\n");
        assert_eq!(Login::memcached("me", "pass").request(), b"set auth 0 0 7\r\nme pass\r\n");
    }

    #[test]
    fn a_text_verdict_waits_for_its_line() {
        let login = Login::memcachier("me", "pass");
        assert_eq!(login.verdict(b"STOR"), Verdict::NeedMore);
        assert_eq!(login.verdict(b"STORED\r\n"), Verdict::Accepted { consumed: 8 });
        let refusal = Verdict::Refused("CLIENT_ERROR authentication failure".to_owned());
        assert_eq!(login.verdict(b"CLIENT_ERROR authentication failure\r\n"), refusal);
    }

    #[test]
    fn a_binary_verdict_reads_the_status() {
        let login = Login::sasl("me", "pass");
        let mut reply = vec![0; binary::HEADER_BYTES];
        reply[..2].copy_from_slice(&[0x81, 0x21]);
        assert_eq!(login.verdict(&reply[..10]), Verdict::NeedMore);
        assert_eq!(login.verdict(&reply), Verdict::Accepted { consumed: 24 });
        reply[7] = 0x20;
        assert_eq!(login.verdict(&reply), Verdict::Refused(" (status 0x20)".to_owned()));
        assert_eq!(login.verdict(b"ERROR\r\n"), Verdict::Refused("ERROR".to_owned()));
    }
}
