//! A memcached of a hundred lines: the codec with a map behind it, as a byte stream.
//!
//! Enough to answer every transcript, and nothing more: one connection at a time, a clock that
//! stands still, no eviction.

mod items;

use std::io::{self, ErrorKind, Read, Write};

use protocol::command::Dialect;
use protocol::decode::decode;
use protocol::key_room::KeyRoom;
use protocol::operation::Get;
use protocol::reply::{Refusal, Reply};
use protocol::request::{Body, Decoded, Limits, Problem, Request};
use protocol::sasl::{self, Candidate};

pub(crate) use items::Items;

pub(crate) const USERNAME: &str = "tester";
pub(crate) const PASSWORD: &str = "correct-horse-battery";

const ITEM_BYTES_MAX: u32 = 1024 * 1024;

/// A connection to the model.
pub(crate) struct Connection<'a> {
    items: &'a mut Items,
    /// Whether requests but those that authenticate are refused for now.
    locked: bool,
    /// How many bytes of what is sent arrive at a time.
    stride: usize,
    /// Told by the first byte.
    dialect: Option<Dialect>,
    input: Vec<u8>,
    output: Vec<u8>,
    skip: u64,
    /// Fewer bytes than these would not complete the request at the input's beginning.
    wanted: usize,
    closed: bool,
}

impl<'a> Connection<'a> {
    pub(crate) fn new(items: &'a mut Items, locked: bool, stride: usize) -> Self {
        Connection {
            items,
            locked,
            stride,
            dialect: None,
            input: Vec::new(),
            output: Vec::new(),
            skip: 0,
            wanted: 0,
            closed: false,
        }
    }

    fn receive(&mut self, bytes: &[u8]) {
        let skipped = bytes.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
        self.skip -= skipped as u64;
        self.input.extend_from_slice(&bytes[skipped..]);
        let mut room = KeyRoom::new();
        while !self.closed && !self.input.is_empty() && self.wanted <= self.input.len() {
            let input = std::mem::take(&mut self.input);
            let limits = Limits { item_bytes_max: ITEM_BYTES_MAX, is_login: self.locked };
            let dialect = *self.dialect.get_or_insert_with(|| Dialect::detect(input[0]));
            let consumed = match decode(dialect, &input, &limits, &room) {
                Decoded::Complete(request, consumed) => {
                    self.carry_out(&request);
                    consumed
                }
                Decoded::NeedMore { bytes_total } => {
                    assert!(input.len() < bytes_total, "asked for what it has");
                    self.wanted = bytes_total;
                    self.input = input;
                    return;
                }
                Decoded::Wrong(wrong) => {
                    match (self.locked, wrong.problem) {
                        (true, Problem::UnknownCommand) => {
                            wrong.reply.refused(&mut self.output, Refusal::Unauthenticated);
                        }
                        (_, problem) => wrong.reply.wrong(&mut self.output, problem),
                    }
                    if let Some(key) = wrong.forget {
                        self.items.forget(key);
                    }
                    let after = input.len() - wrong.consumed;
                    let skipped = after.min(usize::try_from(wrong.skip).unwrap_or(usize::MAX));
                    self.skip = wrong.skip - skipped as u64;
                    self.closed = wrong.close;
                    wrong.consumed + skipped
                }
            };
            self.wanted = 0;
            self.input = input;
            self.input.drain(..consumed);
            room.clear();
        }
    }

    fn carry_out(&mut self, request: &Request<'_>) {
        let Request { body, reply, .. } = request;
        if self.locked {
            return self.authenticate(request);
        }
        let (items, out) = (&mut *self.items, &mut self.output);
        match *body {
            Body::GetMany { keys, touch } => {
                for key in keys {
                    let get = Get { touch, ..Get::plain(key) };
                    if let Some(hit) = items.get(&get) {
                        reply.item(out, key, &hit);
                    }
                }
                reply.items_end(out);
            }
            Body::Get(get) => reply.get(out, get.key, &items.get(&get)),
            Body::Store(store) => reply.store(out, store.key, items.store(&store)),
            Body::Delete(delete) => reply.delete(out, delete.key, items.delete(&delete)),
            Body::Arithmetic(count) => reply.arithmetic(out, count.key, items.count(&count)),
            Body::Touch(touch) => reply.touch(out, touch.key, items.touch(&touch)),
            Body::Peek(key) => reply.peek(out, key, items.peek(key).as_ref()),
            Body::Flush { .. } => {
                items.clear();
                reply.ok(out);
            }
            Body::Stats { argument } => stats(reply, out, argument),
            Body::Version => reply.version(out, "1.6.45"),
            Body::Verbosity => reply.ok(out),
            Body::Noop => reply.noop(out),
            Body::Quit => {
                reply.quit(out);
                self.closed = true;
            }
            Body::SaslMechanisms => reply.sasl_mechanisms(out),
            Body::Sasl { .. } => reply.authenticated(out),
            Body::NotOffered => reply.refused(out, Refusal::NotOffered),
        }
    }

    fn authenticate(&mut self, request: &Request<'_>) {
        let Request { command, body, reply, .. } = request;
        let is_right = |candidate: Candidate<'_>| {
            candidate.username == USERNAME.as_bytes() && candidate.password == PASSWORD.as_bytes()
        };
        let out = &mut self.output;
        let authenticated = match body {
            _ if !command.before_authentication => {
                return reply.refused(out, Refusal::Unauthenticated);
            }
            Body::Sasl { mechanism: b"PLAIN", data: b"" } => return reply.sasl_continue(out),
            Body::Sasl { mechanism, data } => {
                *mechanism == sasl::MECHANISM.as_bytes() && sasl::plain(data).is_some_and(is_right)
            }
            Body::Store(store) => sasl::candidates_of_store(store).any(is_right),
            Body::SaslMechanisms => return reply.sasl_mechanisms(out),
            Body::Version => return reply.version(out, "1.6.45"),
            _ => {
                reply.quit(out);
                self.closed = true;
                return;
            }
        };
        if authenticated {
            self.locked = false;
            reply.authenticated(out);
        } else {
            reply.refused(out, Refusal::AuthenticationFailed);
        }
    }
}

fn stats(reply: &Reply<'_>, out: &mut Vec<u8>, argument: &[u8]) {
    match argument {
        b"" => {
            reply.stat(out, "pid", "1");
            reply.stat(out, "version", "1.6.45");
            reply.stats_end(out);
        }
        b"reset" => reply.stats_reset(out),
        b"settings" | b"items" | b"slabs" | b"sizes" | b"conns" => reply.stats_end(out),
        _ => reply.stats_unknown(out),
    }
}

impl Write for Connection<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for chunk in bytes.chunks(self.stride) {
            self.receive(chunk);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Connection<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.output.is_empty() && !self.closed {
            return Err(ErrorKind::WouldBlock.into());
        }
        let bytes = self.output.len().min(into.len());
        into[..bytes].copy_from_slice(&self.output[..bytes]);
        self.output.drain(..bytes);
        Ok(bytes)
    }
}
