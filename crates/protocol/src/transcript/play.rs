//! Plays one case against a byte stream.

use std::fmt;
use std::io::{ErrorKind, Read, Write};

use super::message::{Comparison, Frame, Message, Names, Piece};
use super::{Case, Step};

/// Where a witness said something else.
#[derive(Debug)]
pub struct Failure {
    /// The line of the transcript, counted from 1; 0 is after its end.
    pub line: usize,
    pub problem: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

/// Plays `case` on a fresh connection. `stream` must not wait for ever: a read that finds nothing in
/// good time returns an error, and that ends the case.
///
/// What is sent without an answer expected in between goes out in one write. After the last line a
/// noop is sent, whose answer must be all that comes.
pub fn run<S: Read + Write>(case: &Case, stream: &mut S, names: &Names) -> Result<(), Failure> {
    let mut player =
        Player { stream, names: names.clone(), unsent: Vec::new(), received: Vec::new() };
    let mut is_open = true;
    for (line, step) in &case.steps {
        let failed = |problem| Failure { line: *line, problem };
        match step {
            Step::Send(message) => {
                let bytes = message.bytes(&player.names).map_err(failed)?;
                player.unsent.extend_from_slice(&bytes);
            }
            Step::Expect(message) => player.expect(message).map_err(failed)?,
            Step::ExpectUntil(message) => player.expect_until(message).map_err(failed)?,
            Step::Closed => {
                player.expect_closed().map_err(failed)?;
                is_open = false;
            }
        }
    }
    if is_open && !case.locked {
        let (noop, answer) = farewell(case);
        let failed = |problem| Failure { line: 0, problem };
        player.unsent.extend_from_slice(&noop.bytes(&player.names).map_err(failed)?);
        player.expect(&answer).map_err(failed)?;
    }
    Ok(())
}

/// A noop in the case's own dialect, and its answer.
fn farewell(case: &Case) -> (Message, Message) {
    let is_binary =
        case.steps.iter().any(|(_, step)| matches!(step, Step::Send(Message::Frame(_))));
    if is_binary {
        const NOOP: u8 = 0x0a;
        let opaque = 0xfa5e_3311;
        let noop = Frame { opaque, ..Frame::request(NOOP) };
        let answer = Frame { magic: 0x81, ..noop.clone() };
        (Message::Frame(noop), Message::Frame(answer))
    } else {
        let line = |text: &[u8]| Message::Text(vec![Piece::Bytes(text.to_vec())]);
        (line(b"mn\r\n"), line(b"MN\r\n"))
    }
}

struct Player<'a, S> {
    stream: &'a mut S,
    names: Names,
    unsent: Vec<u8>,
    /// Received, but not yet compared.
    received: Vec<u8>,
}

impl<S: Read + Write> Player<'_, S> {
    fn expect(&mut self, message: &Message) -> Result<(), String> {
        loop {
            match message.compare(&self.received, &mut self.names) {
                Comparison::Same(bytes) => {
                    self.received.drain(..bytes);
                    return Ok(());
                }
                Comparison::Different => return Err(self.told(message, "heard something else")),
                Comparison::NeedMore => {
                    if !self.receive().map_err(|problem| self.told(message, &problem))? {
                        return Err(self.told(message, "the connection was closed"));
                    }
                }
            }
        }
    }

    fn expect_until(&mut self, message: &Message) -> Result<(), String> {
        loop {
            if let Comparison::Same(bytes) = message.compare(&self.received, &mut self.names) {
                self.received.drain(..bytes);
                return Ok(());
            }
            match message.unit(&self.received) {
                Some(bytes) => {
                    self.received.drain(..bytes);
                }
                None => {
                    if !self.receive()? {
                        return Err(self.told(message, "the connection was closed"));
                    }
                }
            }
        }
    }

    fn expect_closed(&mut self) -> Result<(), String> {
        while self.receive()? {}
        if self.received.is_empty() {
            Ok(())
        } else {
            Err(format!("expected a closed connection, heard {}", shown(&self.received)))
        }
    }

    /// Says what is to be said, then takes what comes. False once the connection is closed.
    fn receive(&mut self) -> Result<bool, String> {
        if !self.unsent.is_empty() {
            let sent = self.stream.write_all(&self.unsent).and_then(|()| self.stream.flush());
            self.unsent.clear();
            if let Err(error) = sent
                && !is_end(error.kind())
            {
                return Err(format!("could not send: {error}"));
            }
        }
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(bytes) => {
                self.received.extend_from_slice(&chunk[..bytes]);
                Ok(0 < bytes)
            }
            Err(error) if is_end(error.kind()) => Ok(false),
            Err(error) => Err(format!("nothing more came: {error}")),
        }
    }

    fn told(&self, expected: &Message, problem: &str) -> String {
        let expected = match expected {
            Message::Text(pieces) => format!("{pieces:?}"),
            Message::Frame(frame) => format!("{frame:?}"),
        };
        let received = shown(&self.received);
        format!("{problem}\n  expected {expected}\n  heard    {received}")
    }
}

/// A server that closes while we still send looks like this.
fn is_end(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// Enough to see what is wrong; values can be long.
const SHOWN_BYTES_MAX: usize = 400;

fn shown(bytes: &[u8]) -> String {
    let beginning = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    format!("\"{}\" ({} bytes)", beginning.escape_ascii(), bytes.len())
}
