//! Oracle clients: they ask as applications do, and know every answer they may see.
//!
//! A client speaks memcached's text protocol over one connection at a time, to whichever proxy it
//! finds. Each value it writes says whose it is, under which key, and has a number that is used once;
//! so whatever comes back can be judged.

use std::collections::{BTreeMap, VecDeque};

use crate::control::{password_of, username_of};
use crate::history::{KeyId, Number};
use crate::network::StreamId;
use crate::random::Random;
use crate::scenario::CROWD;
use crate::time::{MILLISECOND, Micros, SECOND};

/// A client that has waited for so long closes its connection and does not know what happened.
pub(crate) const PATIENCE: Micros = 4 * SECOND;
/// Requests of one batch.
const BATCH_MAX: u64 = 4;
/// Of the requests that may be one, so many are a flush: they are rare in life, too.
const FLUSH_PERCENT: u64 = 30;
/// Bytes that fill a value up.
const FILLER_BYTES_MAX: u64 = 600;
/// The same for the tenant that [crowds](CROWD) its cache, and how many keys it has: many times what it
/// may hold.
const CROWD_FILLER_BYTES_MAX: u64 = 48 << 10;
const CROWD_KEYS: usize = 1_000;

pub(crate) struct Client {
    pub(crate) number: usize,
    pub(crate) tenant: usize,
    keys: usize,
    seed: u64,
    pub(crate) state: State,
    /// The node whose proxy it talks to.
    pub(crate) through: usize,
    pub(crate) batches: u64,
    pub(crate) pending: VecDeque<Pending>,
    pub(crate) input: Vec<u8>,
    pub(crate) counter: Counter,
    /// The newest token of each key that it has seen.
    tokens: BTreeMap<usize, (u64, Number)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Away,
    Connecting { stream: StreamId, since: Micros },
    Ready { stream: StreamId },
}

/// A request on its way.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub(crate) ask: Ask,
    pub(crate) began: Micros,
    pub(crate) batch: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    Login,
    Set {
        key: usize,
        number: Number,
    },
    Add {
        key: usize,
        number: Number,
    },
    /// Only if the value is still the one that had this token.
    Cas {
        key: usize,
        number: Number,
        token: u64,
        of: Number,
    },
    Get {
        key: usize,
    },
    GetMany {
        keys: Vec<usize>,
    },
    Delete {
        key: usize,
    },
    /// Everything of the client's cache.
    Flush,
    /// The client's own counter: set to the beginning of a new count.
    Count {
        base: u64,
    },
    Increment,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    /// It was not the case: nothing was changed.
    Not,
    Found(Vec<Item>),
    Number(u64),
    /// Nobody knows whether it happened.
    Unsure(String),
    /// It did not happen.
    Refused(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) key: Vec<u8>,
    pub(crate) flags: u64,
    pub(crate) token: u64,
    pub(crate) value: Vec<u8>,
}

/// A number that only this client counts up, so it knows what it must be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counter {
    /// The count that was begun last and acknowledged.
    sure: Option<u64>,
    /// Counts of which nobody knows whether they were begun, or will be.
    unsure: Vec<u64>,
    next_base: u64,
    /// The count in force when a number was seen last, and that number.
    seen: (u64, u64),
    /// Increments of which nobody knows whether they happened, or will.
    unsure_steps: u64,
}

/// How far two counts are apart; no client increments so often.
const COUNT_STEP: u64 = 1_000_000;

impl Counter {
    fn begin(&mut self) -> u64 {
        self.next_base += 1;
        self.next_base
    }

    pub(crate) fn begun(&mut self, base: u64) {
        self.sure = Some(base);
        self.seen = (base, 0);
    }

    pub(crate) fn perhaps_begun(&mut self, base: u64) {
        self.unsure.push(base);
    }

    pub(crate) fn perhaps_counted(&mut self) {
        self.unsure_steps += 1;
    }

    /// It is not there any more.
    pub(crate) fn lost(&mut self) {
        self.sure = None;
    }

    /// An increment was answered with this number.
    ///
    /// # Errors
    /// Says what it may have been.
    pub(crate) fn counted(&mut self, number: u64) -> Result<(), String> {
        let (base, count) = (number / COUNT_STEP, number % COUNT_STEP);
        if self.unsure.contains(&base) {
            // It was begun late; of what was counted before nothing is left.
            self.unsure.retain(|&known| known != base);
            self.sure = Some(base);
            self.seen = (base, 0);
        }
        if self.sure != Some(base) {
            return Err(format!("count {:?}, or one of {:?}", self.sure, self.unsure));
        }
        let (least, most) = (self.seen.1 + 1, self.seen.1 + 1 + self.unsure_steps);
        if count < least || most < count {
            return Err(format!("between {least} and {most} of count {base}"));
        }
        self.unsure_steps -= count - least;
        self.seen.1 = count;
        Ok(())
    }
}

impl Client {
    pub(crate) fn new(number: usize, tenants: usize, keys: usize, seed: u64) -> Self {
        let tenant = number % tenants;
        Client {
            number,
            tenant,
            keys: if tenant == CROWD { CROWD_KEYS } else { keys },
            seed,
            state: State::Away,
            through: number,
            batches: 0,
            pending: VecDeque::new(),
            input: Vec::new(),
            counter: Counter::default(),
            tokens: BTreeMap::new(),
        }
    }

    pub(crate) fn stream(&self) -> Option<StreamId> {
        match self.state {
            State::Away => None,
            State::Connecting { stream, .. } | State::Ready { stream } => Some(stream),
        }
    }

    /// Chance for one batch, the same whatever became of the batches before.
    fn chance(&self, batch: u64) -> Random {
        Random::of(self.seed ^ (self.number as u64) << 40, batch << 8 | 7)
    }

    pub(crate) fn key_id(&self, key: usize) -> KeyId {
        KeyId { tenant: self.tenant, key }
    }

    pub(crate) fn login(&mut self, now: Micros) -> Vec<u8> {
        let words = format!("{} {}", username_of(self.tenant), password_of(self.tenant));
        self.pending.push_back(Pending { ask: Ask::Login, began: now, batch: self.batches });
        format!("set login 0 0 {}\r\n{words}\r\n", words.len()).into_bytes()
    }

    /// The next batch of requests, and when the one after it is due. `numbers` gives values their
    /// numbers.
    pub(crate) fn batch(
        &mut self,
        now: Micros,
        pause: Micros,
        is_left_out: bool,
    ) -> (Vec<u8>, Micros) {
        let batch = self.batches;
        self.batches += 1;
        let mut chance = self.chance(batch);
        let next = now + chance.between(MILLISECOND, (2 * pause).max(MILLISECOND));
        let mut bytes = Vec::new();
        if is_left_out {
            return (bytes, next);
        }
        for place in 0..chance.between(1, BATCH_MAX) {
            let number = batch * BATCH_MAX + place;
            // Of all clients' numbers no two are the same.
            let number = number << 8 | self.number as u64;
            let ask = self.draw(&mut chance, number);
            self.write(&ask, &mut bytes);
            self.pending.push_back(Pending { ask, began: now, batch });
        }
        (bytes, next)
    }

    fn draw(&mut self, chance: &mut Random, number: Number) -> Ask {
        let key = chance.place(self.keys);
        if self.tenant == CROWD {
            return if chance.percent(70) { Ask::Set { key, number } } else { Ask::Get { key } };
        }
        match chance.below(100) {
            0..30 => Ask::Set { key, number },
            30..36 => Ask::Add { key, number },
            36..44 => match self.tokens.get(&key) {
                Some(&(token, of)) => Ask::Cas { key, number, token, of },
                None => Ask::Get { key },
            },
            44..80 => Ask::Get { key },
            80..86 => {
                let count = chance.between(2, 6);
                Ask::GetMany { keys: (0..count).map(|_| chance.place(self.keys)).collect() }
            }
            86..91 => Ask::Delete { key },
            91 if chance.percent(FLUSH_PERCENT) => Ask::Flush,
            // A count that is not there yet must be begun before.
            _ if self.counter.sure.is_none() => Ask::Count { base: self.counter.begin() },
            _ => Ask::Increment,
        }
    }

    fn write(&self, ask: &Ask, out: &mut Vec<u8>) {
        let tenant = self.tenant;
        let mut store = |verb: &str, key: usize, number: Number, token: Option<u64>| {
            let value = value_of(KeyId { tenant, key }, number);
            let token = token.map_or_else(String::new, |token| format!(" {token}"));
            let (key_text, flags) = (key_text(key), flags_of(KeyId { tenant, key }));
            let head = format!("{verb} {key_text} {flags} 0 {}{token}\r\n", value.len());
            out.extend_from_slice(head.as_bytes());
            out.extend_from_slice(&value);
            out.extend_from_slice(b"\r\n");
        };
        match ask {
            Ask::Login => (),
            Ask::Set { key, number } => store("set", *key, *number, None),
            Ask::Add { key, number } => store("add", *key, *number, None),
            Ask::Cas { key, number, token, .. } => store("cas", *key, *number, Some(*token)),
            Ask::Get { key } => out.extend(format!("gets {}\r\n", key_text(*key)).bytes()),
            Ask::GetMany { keys } => {
                let keys: Vec<String> = keys.iter().map(|&key| key_text(key)).collect();
                out.extend(format!("gets {}\r\n", keys.join(" ")).bytes());
            }
            Ask::Delete { key } => out.extend(format!("delete {}\r\n", key_text(*key)).bytes()),
            Ask::Flush => out.extend_from_slice(b"flush_all\r\n"),
            Ask::Count { base } => {
                let value = (base * COUNT_STEP).to_string();
                let name = self.counter_text();
                out.extend(format!("set {name} 0 0 {}\r\n{value}\r\n", value.len()).bytes());
            }
            Ask::Increment => out.extend(format!("incr {} 1\r\n", self.counter_text()).bytes()),
        }
    }

    fn counter_text(&self) -> String {
        format!("count-of-{}", self.number)
    }

    pub(crate) fn note_token(&mut self, key: usize, token: u64, number: Number) {
        self.tokens.insert(key, (token, number));
    }

    pub(crate) fn forget_token(&mut self, key: usize) {
        self.tokens.remove(&key);
    }

    /// Takes the answer to the request at the front off the input, when it is whole.
    ///
    /// # Errors
    /// What came is no answer to it.
    pub(crate) fn next_answer(&mut self) -> Result<Option<(Pending, Answer)>, String> {
        let Some(pending) = self.pending.front() else {
            return if self.input.is_empty() {
                Ok(None)
            } else {
                Err(format!("{} came, and nothing was asked", shown(&self.input)))
            };
        };
        let Some((answer, length)) = read_answer(&self.input, &pending.ask)? else {
            return Ok(None);
        };
        self.input.drain(..length);
        let pending = self.pending.pop_front().expect("it is at the front");
        Ok(Some((pending, answer)))
    }
}

fn read_answer(input: &[u8], ask: &Ask) -> Result<Option<(Answer, usize)>, String> {
    let mut items = Vec::new();
    let mut at = 0;
    loop {
        let Some(length) = input[at..].windows(2).position(|pair| pair == b"\r\n") else {
            return Ok(None);
        };
        let line = &input[at..at + length];
        let line = std::str::from_utf8(line).map_err(|_| format!("{} came", shown(line)))?;
        at += length + 2;
        let strange = || Err(format!("{line:?} answered {ask:?}"));
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match (words.as_slice(), ask) {
            (["VALUE", key, flags, bytes, token], Ask::Get { .. } | Ask::GetMany { .. }) => {
                let (Ok(flags), Ok(bytes), Ok(token)) =
                    (flags.parse(), bytes.parse::<usize>(), token.parse())
                else {
                    return strange();
                };
                let Some(value) = input.get(at..at + bytes + 2) else { return Ok(None) };
                let Some(value) = value.strip_suffix(b"\r\n") else { return strange() };
                let (key, value) = (key.as_bytes().to_vec(), value.to_vec());
                items.push(Item { key, flags, token, value });
                at += bytes + 2;
                continue;
            }
            (["END"], Ask::Get { .. } | Ask::GetMany { .. }) => Answer::Found(items),
            (
                ["STORED"],
                Ask::Login
                | Ask::Set { .. }
                | Ask::Add { .. }
                | Ask::Cas { .. }
                | Ask::Count { .. },
            )
            | (["DELETED"], Ask::Delete { .. })
            | (["OK"], Ask::Flush) => Answer::Done,
            (["NOT_STORED"], Ask::Add { .. })
            | (["EXISTS"], Ask::Cas { .. })
            | (["NOT_FOUND"], Ask::Cas { .. } | Ask::Delete { .. } | Ask::Increment) => Answer::Not,
            ([number], Ask::Increment) => match number.parse() {
                Ok(number) => Answer::Number(number),
                Err(_) => return strange(),
            },
            (["SERVER_ERROR", "backend", "unreachable" | "timed", ..], _)
            | (["SERVER_ERROR", "not", "flushed", ..], Ask::Flush) => {
                Answer::Unsure(line.to_owned())
            }
            (["SERVER_ERROR" | "CLIENT_ERROR", ..], _) => Answer::Refused(line.to_owned()),
            _ => return strange(),
        };
        return Ok(Some((answer, at)));
    }
}

/// Bytes as people read them, and not too many.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let some = &bytes[..bytes.len().min(120)];
    format!("{:?}", String::from_utf8_lossy(some))
}

pub(crate) fn key_text(key: usize) -> String {
    format!("key-{key}")
}

pub(crate) fn key_of_text(text: &[u8]) -> Option<usize> {
    std::str::from_utf8(text.strip_prefix(b"key-")?).ok()?.parse().ok()
}

pub(crate) fn flags_of(key: KeyId) -> u64 {
    (key.tenant * 1_000 + key.key) as u64
}

/// The one value that has this number: it says whose it is, and is filled up to a length of its own.
pub(crate) fn value_of(key: KeyId, number: Number) -> Vec<u8> {
    let mut value = format!("tenant {} key {} number {number} ", key.tenant, key.key).into_bytes();
    let mut chance = Random::of(number, 11);
    let letter = b'a' + u8::try_from(chance.below(26)).expect("a letter");
    let most = if key.tenant == CROWD { CROWD_FILLER_BYTES_MAX } else { FILLER_BYTES_MAX };
    let filler = usize::try_from(chance.below(most)).expect("small");
    value.resize(value.len() + filler, letter);
    value
}

/// The number of a value, if it is one that was written under this key.
pub(crate) fn number_of(key: KeyId, value: &[u8]) -> Option<Number> {
    let text = std::str::from_utf8(value).ok()?;
    let number = text.split(' ').nth(5)?.parse().ok()?;
    (value_of(key, number) == value).then_some(number)
}
