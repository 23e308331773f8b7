//! Reads the meta dialect: a line of two letters, a key, and flags of one letter each.
//!
//! ```text
//!   mg <key> <flag>*\r\n                          mg foo v t Oabc
//!   ms <key> <bytes> <flag>*\r\n <value>\r\n      ms foo 3 T60 c\r\nbar
//! ```
//!
//! As in memcached, every command takes every flag and heeds those that mean something to it
//! (`doc/protocol.txt`, "Meta Commands"; `proto_parser.c`). Flags that only shape the answer have no
//! field in the request: the [`Reply`] keeps the flags as written and walks them once more when it
//! answers, because answers come in the order of the flags.

use crate::command::Needs;
use crate::key_room::KeyRoom;
use crate::operation::{
    Arithmetic, Delete, Direction, Exptime, Get, Initial, Key, Store, StoreMode,
};
use crate::reply::{Form, MetaForm, Reply};
use crate::request::{Body, Decoded, Problem};
use crate::text::{Line, client_flags, value_bytes};
use crate::words::{Words, signed, unsigned};

/// Words that a line may have, command and key included (memcached `MFLAG_MAX_OPT_LENGTH`).
const WORDS_MAX: usize = 20;

/// Longest opaque, its letter included (memcached `MFLAG_MAX_OPAQUE_LENGTH`).
const OPAQUE_BYTES_MAX: usize = 32;

/// `mg <key> <flag>*`.
#[inline]
pub(crate) fn get<'a>(line: Line<'a>, room: &'a KeyRoom) -> Decoded<'a> {
    let mut words = Words(line.rest);
    let Some(key) = words.next() else {
        return wrong(line, Problem::BadFormat);
    };
    if let Some(seen) = only_show(words)
        && let Some(key) = Key::new(key)
    {
        let form = MetaForm { words, seen, ..MetaForm::PLAIN };
        let get = Get { leases: true, ..Get::plain(key) };
        return line.complete(Reply(Form::Meta(form)), Body::Get(get));
    }
    let flags = match Flags::read(key, words, WORDS_BEFORE_FLAGS, room) {
        Ok(flags) => flags,
        Err(problem) => return wrong(line, problem),
    };
    if flags.opaque_is_too_long {
        return wrong(line, OPAQUE_TOO_LONG);
    }
    // To win a recache is to promise to write; a reader that may not would only keep others waiting.
    let changes = flags.touch.is_some() || flags.vivify.is_some() || flags.recache.is_some();
    let needs = if changes { Needs::Write } else { line.command.needs };
    line.complete_needing(
        needs,
        flags.reply(0),
        Body::Get(Get {
            key: flags.key,
            touch: flags.touch,
            vivify: flags.vivify_or_touch,
            recache_below_seconds: flags.recache,
            new_cas: flags.new_cas,
            unseen: flags.form.has(b'u'),
            leases: true,
        }),
    )
}

/// `ms <key> <bytes> <flag>*`, then the value.
#[inline]
pub(crate) fn set<'a>(line: Line<'a>, room: &'a KeyRoom) -> Decoded<'a> {
    let mut words = Words(line.rest);
    let (Some(key), Some(Some(bytes))) = (words.next(), words.next_unsigned()) else {
        return wrong(line, Problem::BadFormat);
    };
    let Some(value_bytes) = value_bytes(bytes) else {
        return wrong(line, Problem::BadFormat);
    };
    let refused = |problem| line.refuse_value(ANSWERED, problem, value_bytes, None);
    let flags = match Flags::read(key, words, WORDS_BEFORE_FLAGS + 1, room) {
        Ok(flags) => flags,
        Err(problem) => return refused(problem),
    };
    let Some(mode) = flags.store_mode() else {
        return refused(Problem::Line("CLIENT_ERROR invalid mode for ms M token"));
    };
    if flags.opaque_is_too_long {
        return refused(OPAQUE_TOO_LONG);
    }
    let key = flags.key;
    line.take_value(flags.reply(value_bytes), key, value_bytes, true, |value| {
        flags.store(value, mode)
    })
}

/// `md <key> <flag>*`.
pub(crate) fn delete<'a>(line: Line<'a>, room: &'a KeyRoom) -> Decoded<'a> {
    let mut words = Words(line.rest);
    let Some(key) = words.next() else {
        return wrong(line, Problem::BadFormat);
    };
    let flags = match Flags::read(key, words, WORDS_BEFORE_FLAGS, room) {
        Ok(flags) => flags,
        Err(problem) => return wrong(line, problem),
    };
    if flags.opaque_is_too_long {
        return wrong(line, OPAQUE_TOO_LONG);
    }
    line.complete(
        flags.reply(0),
        Body::Delete(Delete {
            key: flags.key,
            compare_cas: flags.compare_cas,
            new_cas: flags.new_cas,
            invalidate: flags.form.has(b'I'),
            touch: flags.touch,
            remove_value: flags.form.has(b'x'),
        }),
    )
}

/// `ma <key> <flag>*`.
pub(crate) fn arithmetic<'a>(line: Line<'a>, room: &'a KeyRoom) -> Decoded<'a> {
    let mut words = Words(line.rest);
    let Some(key) = words.next() else {
        return wrong(line, Problem::BadFormat);
    };
    let Ok(flags) = Flags::read(key, words, WORDS_BEFORE_FLAGS, room) else {
        return wrong(line, Problem::Line("CLIENT_ERROR invalid or duplicate flag"));
    };
    let direction = match flags.mode {
        None | Some(b'I' | b'+') => Direction::Increment,
        Some(b'D' | b'-') => Direction::Decrement,
        Some(_) => return wrong(line, Problem::Line("CLIENT_ERROR invalid mode for ma M token")),
    };
    if flags.opaque_is_too_long {
        return wrong(line, OPAQUE_TOO_LONG);
    }
    line.complete(
        flags.reply(0),
        Body::Arithmetic(Arithmetic {
            key: flags.key,
            direction,
            delta: flags.delta,
            initial: flags
                .vivify_or_touch
                .map(|exptime| Initial { number: flags.initial, exptime }),
            compare_cas: flags.compare_cas.filter(|cas| *cas != ANY_CAS),
            new_cas: flags.new_cas,
            touch: flags.touch,
        }),
    )
}

/// `me <key> [b]`.
pub(crate) fn debug<'a>(line: Line<'a>, room: &'a KeyRoom) -> Decoded<'a> {
    let mut words = Words(line.rest);
    let Some(word) = words.next() else {
        return wrong(line, Problem::BadFormat);
    };
    let base64 = words.next() == Some(b"b");
    let key = Key::new(word);
    let key = if base64 { key.and_then(|key| room.decode(key.bytes())) } else { key };
    match key {
        Some(key) => {
            let form = MetaForm { base64, ..MetaForm::PLAIN };
            line.complete(Reply(Form::Meta(form)), Body::Peek(key))
        }
        None => wrong(line, Problem::BadFormat),
    }
}

/// `mn`.
pub(crate) fn noop(line: Line<'_>) -> Decoded<'_> {
    line.complete(ANSWERED, Body::Noop)
}

/// Command and key.
const WORDS_BEFORE_FLAGS: usize = 2;

/// In memcached no item has this CAS value, and to compare with it is mostly not to compare.
const ANY_CAS: u64 = 0;

const OPAQUE_TOO_LONG: Problem = Problem::Line("CLIENT_ERROR opaque token too long");
const BAD_TOKEN: Problem = Problem::Line("CLIENT_ERROR bad token in command line format");

/// Errors are said however quiet the request wanted its answer.
const ANSWERED: Reply<'static> = Reply(Form::Meta(MetaForm::PLAIN));

#[cold]
fn wrong<'a>(line: Line<'a>, problem: Problem) -> Decoded<'a> {
    line.wrong(ANSWERED, problem)
}

/// What the flags of one line ask for.
struct Flags<'a> {
    key: Key<'a>,
    form: MetaForm<'a>,
    /// `T`
    touch: Option<Exptime>,
    /// `N`
    vivify: Option<Exptime>,
    /// What an item lives that `N` creates: the later one of `N` and `T` is the last to set it.
    vivify_or_touch: Option<Exptime>,
    /// `R`
    recache: Option<i64>,
    /// `C`
    compare_cas: Option<u64>,
    /// `E`
    new_cas: Option<u64>,
    /// `F`
    client_flags: u32,
    /// `J`
    initial: u64,
    /// `D`
    delta: u64,
    /// `M`: its letter, or a space if there is none.
    mode: Option<u8>,
    /// Said only if nothing else is wrong.
    opaque_is_too_long: bool,
}

/// The flags of a line on which there are none but those that say what an answer shows, each once
/// and after one space, as most clients write them. Whatever else there is takes the longer way.
#[inline]
fn only_show(words: Words<'_>) -> Option<u64> {
    let (pairs, []) = words.0.as_chunks::<2>() else { return None };
    let mut seen = 0;
    for [space, letter] in pairs {
        let bit = match letter {
            b'c' | b'f' | b'h' | b'k' | b'l' | b's' | b't' | b'v' => MetaForm::bit(*letter),
            _ => return None,
        };
        if *space != b' ' || seen & bit != 0 {
            return None;
        }
        seen |= bit;
    }
    Some(seen)
}

impl<'a> Flags<'a> {
    /// Reads every flag, also after a bad one: memcached reports the last bad one, but stops at a
    /// flag that is unknown or comes twice.
    #[inline]
    fn read(
        key: &'a [u8],
        words: Words<'a>,
        words_before: usize,
        room: &'a KeyRoom,
    ) -> Result<Flags<'a>, Problem> {
        let Some(key) = Key::new(key) else {
            return Err(Problem::BadFormat);
        };
        let form = MetaForm { words, ..MetaForm::PLAIN };
        let mut flags = Flags {
            key,
            form,
            touch: None,
            vivify: None,
            vivify_or_touch: None,
            recache: None,
            compare_cas: None,
            new_cas: None,
            client_flags: 0,
            initial: 0,
            delta: 1,
            mode: None,
            opaque_is_too_long: false,
        };
        // A flag and the space before it are two bytes, so most lines are too short to have many.
        let words_left = WORDS_MAX - words_before;
        if 2 * words_left < words.0.len() && words_left < words.count() {
            return Err(Problem::Line("CLIENT_ERROR options flags are too long"));
        }
        let mut problem = None;
        for word in words {
            match flags.read_one(word, room)? {
                Ok(()) => (),
                // The words of a bad `F`, which memcached forgot to give its own.
                Err(Problem::BadFormat) => problem = problem.or(Some(Problem::BadFormat)),
                Err(found) => problem = Some(found),
            }
        }
        match problem {
            None => Ok(flags),
            Some(problem) => Err(problem),
        }
    }

    /// The outer error ends the reading, the inner one does not.
    #[inline]
    fn read_one(
        &mut self,
        word: &'a [u8],
        room: &'a KeyRoom,
    ) -> Result<Result<(), Problem>, Problem> {
        let (letter, token) = match word {
            [letter, token @ ..] => (*letter, token),
            [] => return Err(INVALID_FLAG),
        };
        self.form.see(letter)?;
        Ok(match letter {
            // These only shape the answer, or (`L`, `P`) are hints for a proxy in between.
            b'c' | b'f' | b'h' | b'k' | b'l' | b's' | b't' | b'u' | b'v' | b'x' | b'I' | b'L'
            | b'P' => Ok(()),
            b'q' => {
                self.form.quiet = true;
                Ok(())
            }
            b'O' => {
                self.opaque_is_too_long = OPAQUE_BYTES_MAX < word.len();
                Ok(())
            }
            b'M' => {
                self.mode = Some(token.first().copied().unwrap_or(b' '));
                Ok(())
            }
            b'b' => self.read_base64(room).ok_or(ERROR_DECODING_KEY),
            b'T' => keep(signed(token), BAD_TOKEN, |exptime| {
                self.touch = Some(Exptime(exptime));
                self.vivify_or_touch = self.vivify.and(self.touch);
            }),
            b'N' => keep(signed(token), BAD_TOKEN, |exptime| {
                self.vivify = Some(Exptime(exptime));
                self.vivify_or_touch = self.vivify;
            }),
            b'R' => keep(signed(token), BAD_TOKEN, |seconds| self.recache = Some(seconds)),
            b'C' => keep(unsigned(token), BAD_TOKEN, |cas| self.compare_cas = Some(cas)),
            b'E' => keep(unsigned(token), BAD_TOKEN, |cas| self.new_cas = Some(cas)),
            b'J' => keep(unsigned(token), INVALID_INITIAL, |number| self.initial = number),
            b'D' => keep(unsigned(token), INVALID_DELTA, |number| self.delta = number),
            b'F' => {
                let flags = unsigned(token).and_then(client_flags);
                keep(flags, Problem::BadFormat, |flags| self.client_flags = flags)
            }
            _ => return Err(INVALID_FLAG),
        })
    }

    #[cold]
    fn read_base64(&mut self, room: &'a KeyRoom) -> Option<()> {
        self.form.base64 = true;
        self.key = room.decode(self.key.bytes())?;
        Some(())
    }

    fn store_mode(&self) -> Option<StoreMode> {
        match self.mode {
            None | Some(b'S') => Some(StoreMode::Set),
            Some(b'E') => Some(StoreMode::Add),
            Some(b'A') => Some(StoreMode::Append),
            Some(b'P') => Some(StoreMode::Prepend),
            Some(b'R') => Some(StoreMode::Replace),
            Some(_) => None,
        }
    }

    #[inline]
    fn store(&self, value: &'a [u8], mode: StoreMode) -> Store<'a> {
        let mut store = Store {
            key: self.key,
            value,
            flags: self.client_flags,
            exptime: self.touch.unwrap_or(NEVER),
            mode,
            compare_cas: self.compare_cas,
            new_cas: self.new_cas,
            invalidate: false,
            vivify: None,
        };
        match mode {
            StoreMode::Set | StoreMode::Replace if store.compare_cas.is_some() => {
                // The CAS value says all that `replace` would: there must be an item.
                store.mode = StoreMode::Set;
                store.invalidate = self.form.has(b'I');
            }
            StoreMode::Set | StoreMode::Replace => (),
            // An item that is there refuses an `add`, whatever its CAS value.
            StoreMode::Add => store.compare_cas = None,
            StoreMode::Append | StoreMode::Prepend => {
                store.compare_cas = self.compare_cas.filter(|cas| *cas != ANY_CAS);
                store.vivify = self.vivify;
            }
        }
        store
    }

    fn reply(&self, value_bytes: u32) -> Reply<'a> {
        Reply(Form::Meta(MetaForm { value_bytes, ..self.form }))
    }
}

/// Does with a token what is to be done with it, if it could be read.
#[inline]
fn keep<T>(token: Option<T>, problem: Problem, keep: impl FnOnce(T)) -> Result<(), Problem> {
    token.map(keep).ok_or(problem)
}

const NEVER: Exptime = Exptime(0);

const INVALID_FLAG: Problem = Problem::Line("CLIENT_ERROR invalid flag");
const DUPLICATE_FLAG: Problem = Problem::Line("CLIENT_ERROR duplicate flag");
const ERROR_DECODING_KEY: Problem = Problem::Line("CLIENT_ERROR error decoding key");
const INVALID_INITIAL: Problem = Problem::Line("CLIENT_ERROR invalid numeric initial value");
const INVALID_DELTA: Problem = Problem::Line("CLIENT_ERROR invalid numeric delta value");

impl MetaForm<'_> {
    /// Notes a flag, or says what is wrong with seeing it here.
    #[inline]
    fn see(&mut self, letter: u8) -> Result<(), Problem> {
        match letter {
            b'A'..=b'z' => {
                let bit = MetaForm::bit(letter);
                if self.seen & bit != 0 {
                    return Err(DUPLICATE_FLAG);
                }
                self.seen |= bit;
                Ok(())
            }
            b'0'..=b'9' => Err(INVALID_FLAG),
            // memcached's tokeniser knows words with these beginnings only.
            _ => Err(Problem::BadFormat),
        }
    }
}
