//! Reads the text dialect: a line, and after some lines a value.
//!
//! ```text
//!   get <key>*\r\n                                          line only
//!   set <key> <flags> <exptime> <bytes> [noreply]\r\n       line,
//!   <value>\r\n                                             then as many bytes as it said
//! ```
//!
//! The order in which things are checked is memcached's (`proto_parser.c`, `proto_text.c`), because
//! it shows: it decides which error a client sees, whether `noreply` silences it, and whether the
//! value after a refused line is skipped or read as the next command. Where we differ,
//! `docs/compatibility.md` says why.

use memchr::memchr;

use crate::command::{CommandSpec, Grammar, Needs, find_word, named};
use crate::key_room::KeyRoom;
use crate::meta;
use crate::operation::{
    Arithmetic, Delete, Direction, Exptime, Get, KEY_BYTES_MAX, Key, Store, StoreMode, Touch,
};
use crate::reply::{Form, Reply, TextForm};
use crate::request::{
    Body, Decoded, Keys, LINE_BYTES_MAX, Limits, Problem, RETRIEVAL_LINE_BYTES_MAX, Request, Wrong,
};
use crate::words::{Words, find_blank, find_newline, signed, take_digits, unsigned};

/// Shortest line, its end included; memcached refuses a shorter one before it looks the command up.
const LINE_BYTES_MIN: usize = 4;

const DELETE_USAGE: Problem =
    Problem::Line("CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]");

/// Longest value that a command line may announce; memcached keeps lengths in an `int`, with room
/// for the value's line end.
const VALUE_BYTES_MAX: u32 = i32::MAX as u32 - LINE_END.len() as u32;

const LINE_END: &[u8] = b"\r\n";

/// Reads the first request of a connection that speaks text and meta.
#[inline]
pub(crate) fn decode<'a>(buffer: &'a [u8], limits: &Limits, room: &'a KeyRoom) -> Decoded<'a> {
    if let Some(decoded) = plain_get(buffer) {
        return decoded;
    }
    if let Some(decoded) = plain_set(buffer, limits) {
        return decoded;
    }
    any_line(buffer, limits, room)
}

#[inline]
fn any_line<'a>(buffer: &'a [u8], limits: &Limits, room: &'a KeyRoom) -> Decoded<'a> {
    let window = &buffer[..buffer.len().min(LINE_BYTES_MAX)];
    match find_newline(window) {
        Some(end) => whole_line(buffer, end, limits, room),
        None => long_line(buffer, limits, room),
    }
}

/// The commonest request, `get <key>`, in one pass if there is nothing unusual about it.
#[inline]
fn plain_get(buffer: &[u8]) -> Option<Decoded<'_>> {
    const NAME: &[u8] = b"get ";
    const GET: &CommandSpec = named("get");
    let rest = buffer.strip_prefix(NAME)?;
    let window = &rest[..rest.len().min(KEY_BYTES_MAX + 1)];
    let (key, after) = rest.split_at(find_blank(window)?);
    let line_end = match after {
        [b'\r', b'\n', ..] => 2,
        [b'\n', ..] => 1,
        _ => return None,
    };
    let consumed = NAME.len() + key.len() + line_end;
    let body = Body::Get(Get::plain(Key::new(key)?));
    Some(Decoded::Complete(
        Request { command: GET, needs: GET.needs, body, reply: ANSWERED },
        consumed,
    ))
}

/// The commonest write, `set <key> <flags> <exptime> <bytes>`, likewise.
#[inline]
fn plain_set<'a>(buffer: &'a [u8], limits: &Limits) -> Option<Decoded<'a>> {
    const NAME: &[u8] = b"set ";
    const SET: &CommandSpec = named("set");
    let rest = buffer.strip_prefix(NAME)?;
    let window = &rest[..rest.len().min(KEY_BYTES_MAX + 1)];
    let (key, rest) = rest.split_at(find_blank(window)?);
    let (flags, rest) = take_digits(rest.strip_prefix(b" ")?)?;
    let (exptime, rest) = take_digits(rest.strip_prefix(b" ")?)?;
    let (value_bytes, rest) = take_digits(rest.strip_prefix(b" ")?)?;
    let consumed = buffer.len() - rest.strip_prefix(LINE_END)?.len();
    let line = Line { command: SET, rest: b"", consumed, buffer, limits: *limits };
    let key = Key::new(key)?;
    let exptime = Exptime(i64::from(exptime));
    Some(line.take_value(ANSWERED, key, value_bytes, true, |value| Store {
        key,
        value,
        flags,
        exptime,
        mode: StoreMode::Set,
        compare_cas: None,
        new_cas: None,
        invalidate: false,
        vivify: None,
    }))
}

#[inline]
fn whole_line<'a>(buffer: &'a [u8], end: usize, limits: &Limits, room: &'a KeyRoom) -> Decoded<'a> {
    let consumed = end + 1;
    let line = match &buffer[..end] {
        [line @ .., b'\r'] => line,
        line => line,
    };
    if consumed < LINE_BYTES_MIN {
        return wrong(ANSWERED, Problem::BadFormat, consumed);
    }
    let (name, rest) = split_name(line);
    match find_word(name).map(|command| (command, rest)).or_else(|| after_blanks(line)) {
        Some((command, rest)) => {
            Line { command, rest, consumed, buffer, limits: *limits }.decode(room)
        }
        None => unknown(line, consumed),
    }
}

/// The command of a line that begins with blanks. memcached looks commands up by what stands before
/// the first blank, and a few that it does not find so once more by the first word.
#[cold]
fn after_blanks(line: &[u8]) -> Option<(&'static CommandSpec, &[u8])> {
    let mut words = Words(line);
    let command = find_word(words.next()?)?;
    matches!(command.grammar, Grammar::Flush | Grammar::Verbosity).then_some((command, words.0))
}

/// The first word of a line, which is short if it is a command.
#[inline]
fn split_name(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line.iter().position(|byte| *byte == b' ');
    line.split_at(end.unwrap_or(line.len()))
}

/// A line that did not end within [`LINE_BYTES_MAX`].
#[cold]
fn long_line<'a>(buffer: &'a [u8], limits: &Limits, room: &'a KeyRoom) -> Decoded<'a> {
    let is_retrieval = [b"get ".as_slice(), b"gets ", b"gat ", b"gats "]
        .iter()
        .any(|beginning| buffer.starts_with(beginning));
    let bytes_max = if is_retrieval { retrieval_line_bytes_max(limits) } else { LINE_BYTES_MAX };
    match memchr(b'\n', &buffer[..buffer.len().min(bytes_max)]) {
        Some(end) => whole_line(buffer, end, limits, room),
        None if buffer.len() < bytes_max => Decoded::NeedMore { bytes_total: buffer.len() + 1 },
        None => Decoded::Wrong(Wrong {
            reply: ANSWERED,
            problem: Problem::Line("CLIENT_ERROR line too long"),
            consumed: bytes_max,
            skip: 0,
            close: true,
            forget: None,
        }),
    }
}

/// A line of many keys may be as long as an item, because the connection must be able to hold an
/// item anyway; but never shorter than any other line.
fn retrieval_line_bytes_max(limits: &Limits) -> usize {
    (limits.item_bytes_max as usize).clamp(LINE_BYTES_MAX, RETRIEVAL_LINE_BYTES_MAX)
}

/// A whole line whose command is known.
#[derive(Clone, Copy)]
pub(crate) struct Line<'a> {
    pub(crate) command: &'static CommandSpec,
    /// What follows the command's name, without the line end.
    pub(crate) rest: &'a [u8],
    /// Bytes of `buffer` that the line took, its end included.
    consumed: usize,
    buffer: &'a [u8],
    limits: Limits,
}

const ANSWERED: Reply<'static> = text_reply(TextForm::ANSWERED);

impl<'a> Line<'a> {
    #[inline]
    fn decode(self, room: &'a KeyRoom) -> Decoded<'a> {
        match self.command.grammar {
            Grammar::Store(mode) => self.store(mode, false),
            Grammar::CompareAndStore => self.store(StoreMode::Set, true),
            Grammar::Get { with_cas } => {
                self.retrieve(self.rest, None, TextForm { quiet: false, with_cas })
            }
            Grammar::GetAndTouch { with_cas } => self.get_and_touch(with_cas),
            Grammar::Delete => self.delete(),
            Grammar::Arithmetic(direction) => self.arithmetic(direction),
            Grammar::Touch => self.touch(),
            Grammar::Flush => self.flush(),
            Grammar::Stats => {
                self.complete(ANSWERED, Body::Stats { argument: self.rest.trim_ascii() })
            }
            Grammar::Version => self.complete(ANSWERED, Body::Version),
            Grammar::Verbosity => self.verbosity(),
            Grammar::Quit => self.complete(ANSWERED, Body::Quit),
            Grammar::NotOffered => self.complete(self.reply(), Body::NotOffered),
            Grammar::MetaGet => meta::get(self, room),
            Grammar::MetaSet => meta::set(self, room),
            Grammar::MetaDelete => meta::delete(self, room),
            Grammar::MetaArithmetic => meta::arithmetic(self, room),
            Grammar::MetaDebug => meta::debug(self, room),
            Grammar::Noop => meta::noop(self),
            // The binary dialect's: no word leads here.
            Grammar::SaslList | Grammar::SaslStart | Grammar::SaslStep => {
                unknown(self.rest, self.consumed)
            }
        }
    }

    /// `<key>*`. One key is by far the commonest, and is an ordinary read.
    #[inline]
    fn retrieve(self, keys: &'a [u8], touch: Option<Exptime>, form: TextForm) -> Decoded<'a> {
        let mut words = Words(keys);
        let Some(key) = words.next().and_then(Key::new) else {
            return self.wrong(ANSWERED, Problem::BadFormat);
        };
        let mut others = words;
        if others.next().is_none() {
            let get = Get { touch, ..Get::plain(key) };
            return self.complete(text_reply(form), Body::Get(get));
        }
        if words.any(|word| Key::new(word).is_none()) {
            return self.wrong(ANSWERED, Problem::BadFormat);
        }
        self.complete(text_reply(form), Body::GetMany { keys: Keys(Words(keys)), touch })
    }

    /// `<exptime> <key>*`.
    fn get_and_touch(self, with_cas: bool) -> Decoded<'a> {
        let mut words = Words(self.rest);
        let Some(exptime) = words.next() else {
            return self.wrong(ANSWERED, Problem::BadFormat);
        };
        let keys = words.0;
        if words.next().is_none() {
            return self.wrong(ANSWERED, Problem::BadFormat);
        }
        match signed(exptime) {
            Some(exptime) => {
                let form = TextForm { quiet: false, with_cas };
                self.retrieve(keys, Some(Exptime(exptime)), form)
            }
            None => self.wrong(ANSWERED, INVALID_EXPTIME),
        }
    }

    /// `<key> <flags> <exptime> <bytes> [<cas>] [noreply]`, then the value.
    #[inline]
    fn store(self, mode: StoreMode, compares: bool) -> Decoded<'a> {
        let mut words = Words(self.rest);
        let (Some(key), Some(flags), Some(exptime), Some(Some(bytes))) =
            (words.next(), words.next_unsigned(), words.next_signed(), words.next_unsigned())
        else {
            return self.wrong(ANSWERED, Problem::BadFormat);
        };
        let Some(value_bytes) = value_bytes(bytes) else {
            return self.wrong(ANSWERED, Problem::BadFormat);
        };
        let reply = reply_unless_asked_not_to(words);
        let compare_cas = if compares { words.next().and_then(unsigned) } else { None };
        let unread = self.limits.is_login;
        let (Some(key), Some(flags), Some(exptime), true) = (
            Key::new(key),
            flags.and_then(client_flags).or(unread.then_some(0)),
            exptime.or(unread.then_some(0)),
            compare_cas.is_some() == compares,
        ) else {
            return self.refuse_value(reply, Problem::BadFormat, value_bytes, None);
        };
        self.take_value(reply, key, value_bytes, mode == StoreMode::Set && !compares, |value| {
            Store {
                key,
                value,
                flags,
                exptime: Exptime(exptime),
                mode,
                compare_cas,
                new_cas: None,
                invalidate: false,
                vivify: None,
            }
        })
    }

    /// `<key> [0] [noreply]`: old clients send a time, which must be none. Other words are refused,
    /// as memcached did until it stopped looking, and as its conformance test wants.
    fn delete(self) -> Decoded<'a> {
        let mut words = Words(self.rest);
        let Some(key) = words.next() else {
            return self.wrong(ANSWERED, Problem::BadFormat);
        };
        if !matches!(words.0.trim_ascii(), b"" | b"0" | b"noreply" | b"0 noreply") {
            return self.wrong(ANSWERED, DELETE_USAGE);
        }
        match Key::new(key) {
            Some(key) => self.complete(
                self.reply(),
                Body::Delete(Delete {
                    key,
                    compare_cas: None,
                    new_cas: None,
                    invalidate: false,
                    touch: None,
                    remove_value: false,
                }),
            ),
            None => self.wrong(self.reply(), Problem::BadFormat),
        }
    }

    /// `<key> <delta> [noreply]`.
    fn arithmetic(self, direction: Direction) -> Decoded<'a> {
        let mut words = Words(self.rest);
        let (Some(key), Some(delta)) = (words.next(), words.next()) else {
            return self.wrong(ANSWERED, Problem::BadFormat);
        };
        let Some(key) = Key::new(key) else {
            return self.wrong(self.reply(), Problem::BadFormat);
        };
        let Some(delta) = unsigned(delta) else {
            let problem = Problem::Line("CLIENT_ERROR invalid numeric delta argument");
            return self.wrong(self.reply(), problem);
        };
        self.complete(
            self.reply(),
            Body::Arithmetic(Arithmetic {
                key,
                direction,
                delta,
                initial: None,
                compare_cas: None,
                new_cas: None,
                touch: None,
            }),
        )
    }

    /// `<key> <exptime> [noreply]`.
    fn touch(self) -> Decoded<'a> {
        let mut words = Words(self.rest);
        let (Some(key), Some(exptime)) = (words.next(), words.next()) else {
            return self.wrong(ANSWERED, Problem::BadFormat);
        };
        let Some(key) = Key::new(key) else {
            return self.wrong(self.reply(), Problem::BadFormat);
        };
        match signed(exptime) {
            Some(exptime) => {
                let exptime = Exptime(exptime);
                self.complete(self.reply(), Body::Touch(Touch { key, exptime }))
            }
            None => self.wrong(self.reply(), INVALID_EXPTIME),
        }
    }

    /// `[<delay>] [noreply]`.
    fn flush(self) -> Decoded<'a> {
        let reply = self.reply();
        let delay = match Words(self.rest).next() {
            None => 0,
            Some(b"noreply") if Words(self.rest).count() == 1 => 0,
            Some(word) => match signed(word) {
                Some(delay) => delay.max(0),
                None => return self.wrong(reply, INVALID_EXPTIME),
            },
        };
        self.complete(reply, Body::Flush { delay: Exptime(delay) })
    }

    /// `<level> [noreply]`.
    fn verbosity(self) -> Decoded<'a> {
        match Words(self.rest).next().and_then(unsigned) {
            Some(level) if level <= u64::from(u32::MAX) => {
                self.complete(self.reply(), Body::Verbosity)
            }
            Some(_) | None => self.wrong(self.reply(), Problem::BadFormat),
        }
    }

    /// Silent if the line's last word says `noreply`.
    fn reply(&self) -> Reply<'a> {
        reply_unless_asked_not_to(Words(self.rest))
    }

    /// A request without a value that needs what its command needs.
    #[inline]
    pub(crate) fn complete(self, reply: Reply<'a>, body: Body<'a>) -> Decoded<'a> {
        self.complete_needing(self.command.needs, reply, body)
    }

    /// A request without a value.
    #[inline]
    pub(crate) fn complete_needing(
        self,
        needs: Needs,
        reply: Reply<'a>,
        body: Body<'a>,
    ) -> Decoded<'a> {
        Decoded::Complete(Request { command: self.command, needs, body, reply }, self.consumed)
    }

    /// A refused line that nothing belongs to but itself.
    #[cold]
    pub(crate) fn wrong(self, reply: Reply<'a>, problem: Problem) -> Decoded<'a> {
        wrong(reply, problem, self.consumed)
    }

    /// Makes a request of the line and the value that follows it, once the value is there.
    /// `forgets` says whether the old value of the key must go if the new one is too large.
    #[inline]
    pub(crate) fn take_value(
        self,
        reply: Reply<'a>,
        key: Key<'a>,
        value_bytes: u32,
        forgets: bool,
        store: impl FnOnce(&'a [u8]) -> Store<'a>,
    ) -> Decoded<'a> {
        if self.limits.exceeded_by(key, value_bytes) {
            let forget = forgets.then_some(key);
            return self.refuse_value(reply, Problem::TooLarge, value_bytes, forget);
        }
        let value_end = self.consumed + value_bytes as usize;
        let total = value_end + LINE_END.len();
        let (Some(value), Some(end)) =
            (self.buffer.get(self.consumed..value_end), self.buffer.get(value_end..total))
        else {
            return Decoded::NeedMore { bytes_total: total };
        };
        if end != LINE_END {
            return wrong(reply, Problem::BadDataChunk, total);
        }
        let body = Body::Store(store(value));
        let request = Request { command: self.command, needs: self.command.needs, body, reply };
        Decoded::Complete(request, total)
    }

    /// A refused line whose announced value is still to come, and is to be thrown away.
    #[cold]
    pub(crate) fn refuse_value(
        self,
        reply: Reply<'a>,
        problem: Problem,
        value_bytes: u32,
        forget: Option<Key<'a>>,
    ) -> Decoded<'a> {
        Decoded::Wrong(Wrong {
            reply,
            problem,
            consumed: self.consumed,
            skip: u64::from(value_bytes) + LINE_END.len() as u64,
            close: false,
            forget,
        })
    }
}

const INVALID_EXPTIME: Problem = Problem::Line("CLIENT_ERROR invalid exptime argument");

/// The length that a line announces for its value.
#[inline]
pub(crate) fn value_bytes(number: u64) -> Option<u32> {
    u32::try_from(number).ok().filter(|bytes| *bytes <= VALUE_BYTES_MAX)
}

/// Flags of the client: kept with the item, meaning nothing to us.
#[inline]
pub(crate) fn client_flags(number: u64) -> Option<u32> {
    u32::try_from(number).ok()
}

#[inline]
fn reply_unless_asked_not_to<'a>(words: Words<'_>) -> Reply<'a> {
    let quiet = words.last_word() == Some(b"noreply");
    text_reply(TextForm { quiet, with_cas: false })
}

const fn text_reply<'a>(form: TextForm) -> Reply<'a> {
    Reply(Form::Text(form))
}

fn wrong<'a>(reply: Reply<'a>, problem: Problem, consumed: usize) -> Decoded<'a> {
    Decoded::Wrong(Wrong { reply, problem, consumed, skip: 0, close: false, forget: None })
}

/// A line whose command nobody knows.
#[cold]
fn unknown<'a>(line: &[u8], consumed: usize) -> Decoded<'a> {
    let words = Words(line);
    let reply = reply_unless_asked_not_to(words);
    // A browser that was tricked into talking to us: the headers it sends next must not be read as
    // commands.
    let is_http = words.last_word().is_some_and(|word| word.starts_with(b"HTTP/"));
    let problem = if is_http { Problem::OutOfStep } else { Problem::UnknownCommand };
    Decoded::Wrong(Wrong { reply, problem, consumed, skip: 0, close: is_http, forget: None })
}

#[cfg(test)]
mod tests {
    use super::{any_line, decode};
    use crate::key_room::KeyRoom;
    use crate::request::Limits;

    #[test]
    fn the_short_ways_find_what_the_long_way_finds() {
        let key = "k".repeat(250);
        for line in [
            "get a\r\n",
            "get a\n",
            "get  a\r\n",
            "get a \r\n",
            "get a b\r\n",
            "get a\r\r\n",
            "get a\rb\r\n",
            "get \r\n",
            "get a\0\r\n",
            &format!("get {key}\r\n"),
            &format!("get {key}k\r\n"),
            "set a 1 2 3\r\nabc\r\n",
            "set a 1 2 3\r\nabcd\r\n",
            "set a 1 2 3\nabc\r\n",
            "set  a 1 2 3\r\nabc\r\n",
            "set a 1 2 3 \r\nabc\r\n",
            "set a 1 2 3 noreply\r\nabc\r\n",
            "set a 1 -2 3\r\nabc\r\n",
            "set a 4294967295 2147483648 003\r\nabc\r\n",
            "set a 999999999 999999999 0\r\n\r\n",
            "set a 1 2 101\r\n",
            "set a 1 2 999999999\r\n",
            "set a 1 2 9999999999\r\n",
            "set a 1 2 \r\n",
            "set a 1 2 x\r\n",
            &format!("set {key} 1 2 3\r\nabc\r\n"),
            &format!("set {key}k 1 2 3\r\nabc\r\n"),
        ] {
            check(line.as_bytes());
        }
    }

    #[track_caller]
    fn check(line: &[u8]) {
        let limits = Limits { item_bytes_max: 300, is_login: false };
        let room = KeyRoom::new();
        for length in 1..=line.len() {
            let beginning = &line[..length];
            let found = format!("{:?}", decode(beginning, &limits, &room));
            assert_eq!(found, format!("{:?}", any_line(beginning, &limits, &room)));
        }
    }
}
