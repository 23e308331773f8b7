//! What control asks of nodes when a person wants to know: what a cache is asked for, one key, the last
//! commands, what is asked for under watched prefixes, how long requests take, whom a rule would cut off.
//!
//! ```text
//!   owner ─▶ control ── ASK(number, question) ──▶ every node (or the one that has the key)
//!                    ◀─ ANSWER(number, answer) ──
//! ```
//!
//! Nothing is told before it is asked, so what nobody looks at costs nothing. An answer is a few
//! kilobytes, and never more than [`ANSWER_BYTES_MAX`].

use tenancy::id::CacheId;
use tenancy::rules::RuleChange;

use super::latency::Histogram;
use super::message::{ASK_VERSION, NODE_BACKENDS_MAX, PREFIXES_VERSION};
use super::rules::{self, CUT_BYTES_MAX, Cut};
use crate::codec::{
    CodecError, Reader, put_bool, put_long_bytes, put_short_str, put_u8, put_u32, put_u64,
    put_varint,
};

/// Keys and prefixes in an answer at most: so many of those that are hit most, missed most and written
/// most, because the one that is missed most may stand behind many that are hit.
pub const TOPS_OF_A_KIND_MAX: usize = 20;
pub const TOPS_MAX: usize = 3 * TOPS_OF_A_KIND_MAX;
/// Commands in an answer at most.
pub const COMMANDS_MAX: usize = 100;
/// Longest key in bytes, as in memcached.
pub const KEY_BYTES_MAX: usize = 250;
/// Prefixes in a question at most: as many as one cache has watched.
pub const PREFIXES_MAX: usize = 50;
/// Sizes of which it is told what they would hit, at most.
pub const SIZES_MAX: usize = 16;
/// The longest answer: keys, prefixes or commands of the greatest length, and the rest.
pub const ANSWER_BYTES_MAX: usize = 48 * 1024;

/// What one key or prefix takes at most: its length, its bytes, three counts.
const TOP_BYTES_MAX: usize = 4 + KEY_BYTES_MAX + 3 * 10;
/// What one command takes at most: time, key, name, status, size.
const COMMAND_BYTES_MAX: usize = 8 + 4 + KEY_BYTES_MAX + 32 + 1 + 4;
const NAME_BYTES_MAX: usize = 31;

const _: () = assert!(64 + 2 * TOPS_MAX * TOP_BYTES_MAX + SIZES_MAX * 14 < ANSWER_BYTES_MAX);
const _: () = assert!(64 + COMMANDS_MAX * COMMAND_BYTES_MAX < ANSWER_BYTES_MAX);
const _: () = assert!(64 + CUT_BYTES_MAX < ANSWER_BYTES_MAX);

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// What is the cache asked for most? Has a quiet cache watched from now on.
    Popular(CacheId),
    /// What is known of this key at this backend, by its number?
    Key { cache: CacheId, backend: u8, key: Vec<u8> },
    /// What were the last commands? They are recorded from the first question on.
    Recent(CacheId),
    /// Set the cache's counters to zero.
    ResetStatistics(CacheId),
    /// What is asked for under these prefixes? They are counted from the first question on, for as long
    /// as there is another one now and then.
    Prefixes { cache: CacheId, prefixes: Vec<Vec<u8>> },
    /// How long did requests take, all caches together, since the process began?
    Latency,
    /// Whose open connections would this change of the rules for addresses close?
    Cut(RuleChange),
}

/// What a node answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Popular(Popular),
    Key(KeyFigures),
    /// In the order in which they came.
    Recent(Vec<Command>),
    Done,
    /// One for each that was asked about, in the same order.
    Prefixes(Vec<PrefixFigures>),
    Latency(Box<Histogram>),
    Cut(Cut),
    /// The node does not know the cache (yet).
    NoCache,
}

/// What a cache is asked for, from a sample, older requests counting less.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Popular {
    /// In no order that means anything.
    pub keys: Vec<Popularity>,
    pub prefixes: Vec<Popularity>,
    pub sizes: Sizes,
}

/// How a key or prefix is asked for, about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Popularity {
    pub text: Vec<u8>,
    pub hits: u64,
    pub misses: u64,
    pub writes: u64,
}

impl Popularity {
    pub fn requests(&self) -> u64 {
        self.hits.saturating_add(self.misses).saturating_add(self.writes)
    }
}

/// What a cache would hit if it were larger or smaller, about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Lookups that the estimate stands for.
    pub requests: u64,
    /// Size in percent of the limit, and how many of them it would hit. By size.
    pub hits: Vec<(u32, u64)>,
}

impl Sizes {
    /// Hits in percent of the lookups, by size.
    pub fn hits_percent(&self) -> Vec<(u32, f64)> {
        let all = self.requests.max(1) as f64;
        self.hits.iter().map(|(size, hits)| (*size, *hits as f64 * 100.0 / all)).collect()
    }

    /// Takes in what another part of the cache has seen.
    pub fn add(&mut self, other: &Sizes) {
        self.requests = self.requests.saturating_add(other.requests);
        for &(percent, hits) in &other.hits {
            match self.hits.binary_search_by_key(&percent, |(known, _)| *known) {
                Ok(at) => self.hits[at].1 = self.hits[at].1.saturating_add(hits),
                Err(at) => self.hits.insert(at, (percent, hits)),
            }
        }
    }
}

/// What is known of one key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyFigures {
    /// Length of its value in bytes; absent when it is not in the cache.
    pub value_bytes: Option<u64>,
    /// Where it is among those asked for most.
    pub counted: Option<Popularity>,
}

/// What is asked for under one prefix and held of it at one node, about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PrefixFigures {
    /// Counted since someone wanted to know.
    pub hits: u64,
    pub misses: u64,
    pub writes: u64,
    /// As it stands now, of keys and values.
    pub items: u64,
    pub bytes: u64,
}

/// One command that a client gave; never its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Unix time in seconds.
    pub at: u64,
    pub key: Vec<u8>,
    /// As in the protocol: `get`, `ms`, `bin_set`.
    pub name: String,
    pub status: Status,
    /// Of the value that was found or stored, in bytes.
    pub value_bytes: u32,
}

macro_rules! statuses {
    ($($name:ident = $code:literal, $text:literal;)+) => {
        /// What came of a command.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Status { $($name = $code,)+ }

        impl Status {
            pub const ALL: &[Status] = &[$(Status::$name),+];

            /// For people, in the words of the text protocol where it has one.
            pub const fn name(self) -> &'static str {
                match self { $(Status::$name => $text,)+ }
            }

            fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Status::$name),)+ _ => None }
            }
        }
    };
}

statuses! {
    Hit = 1, "HIT";
    Miss = 2, "MISS";
    Stored = 3, "STORED";
    NotStored = 4, "NOT_STORED";
    Exists = 5, "EXISTS";
    NotFound = 6, "NOT_FOUND";
    Deleted = 7, "DELETED";
    Touched = 8, "TOUCHED";
    Changed = 9, "CHANGED";
    Refused = 10, "REFUSED";
    Failed = 11, "FAILED";
}

mod kind {
    pub(super) const POPULAR: u8 = 1;
    pub(super) const KEY: u8 = 2;
    pub(super) const RECENT: u8 = 3;
    pub(super) const RESET: u8 = 4;
    pub(super) const LATENCY: u8 = 5;
    pub(super) const NO_CACHE: u8 = 6;
    pub(super) const CUT: u8 = 7;
    pub(super) const PREFIXES: u8 = 8;
}

impl Question {
    /// The first version of the protocol in which it can be asked.
    pub fn version(&self) -> u8 {
        match self {
            Question::Prefixes { .. } => PREFIXES_VERSION,
            Question::Popular(_)
            | Question::Key { .. }
            | Question::Recent(_)
            | Question::ResetStatistics(_)
            | Question::Latency
            | Question::Cut(_) => ASK_VERSION,
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let head = |out: &mut Vec<u8>, kind, cache: &CacheId| {
            put_u8(out, kind);
            put_u64(out, cache.get());
        };
        match self {
            Question::Popular(cache) => head(out, kind::POPULAR, cache),
            Question::Key { cache, backend, key } => {
                head(out, kind::KEY, cache);
                put_u8(out, *backend);
                put_long_bytes(out, key);
            }
            Question::Recent(cache) => head(out, kind::RECENT, cache),
            Question::ResetStatistics(cache) => head(out, kind::RESET, cache),
            Question::Prefixes { cache, prefixes } => {
                head(out, kind::PREFIXES, cache);
                let prefixes = &prefixes[..prefixes.len().min(PREFIXES_MAX)];
                put_u8(out, u8::try_from(prefixes.len()).expect("at most PREFIXES_MAX"));
                prefixes.iter().for_each(|prefix| put_long_bytes(out, cut(prefix)));
            }
            Question::Latency => put_u8(out, kind::LATENCY),
            Question::Cut(change) => {
                put_u8(out, kind::CUT);
                rules::put_change(out, change);
            }
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let kind = reader.u8()?;
        match kind {
            kind::LATENCY => return Ok(Question::Latency),
            kind::CUT => return rules::change(reader).map(Question::Cut),
            _ => (),
        }
        let cache = CacheId::new(reader.u64()?);
        Ok(match kind {
            kind::POPULAR => Question::Popular(cache),
            kind::KEY => {
                let backend = reader.u8()?;
                if NODE_BACKENDS_MAX <= usize::from(backend) {
                    return Err(CodecError::Invalid { what: "number of a backend" });
                }
                Question::Key { cache, backend, key: key(reader)? }
            }
            kind::RECENT => Question::Recent(cache),
            kind::RESET => Question::ResetStatistics(cache),
            kind::PREFIXES => {
                let count = count(reader, "prefixes", PREFIXES_MAX)?;
                let prefixes = (0..count).map(|_| key(reader)).collect::<Result<_, _>>()?;
                Question::Prefixes { cache, prefixes }
            }
            _ => return Err(CodecError::Invalid { what: "kind of question" }),
        })
    }
}

impl Answer {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Answer::Popular(popular) => {
                put_u8(out, kind::POPULAR);
                put_tops(out, &popular.keys);
                put_tops(out, &popular.prefixes);
                let Sizes { requests, hits } = &popular.sizes;
                put_varint(out, *requests);
                let count = hits.len().min(SIZES_MAX);
                put_u8(out, u8::try_from(count).expect("at most SIZES_MAX"));
                for (percent, hits) in &hits[..count] {
                    put_u32(out, *percent);
                    put_varint(out, *hits);
                }
            }
            Answer::Key(key) => {
                put_u8(out, kind::KEY);
                put_bool(out, key.value_bytes.is_some());
                put_varint(out, key.value_bytes.unwrap_or(0));
                put_bool(out, key.counted.is_some());
                if let Some(counted) = &key.counted {
                    counted.encode(out);
                }
            }
            Answer::Recent(commands) => {
                put_u8(out, kind::RECENT);
                let newest = &commands[commands.len().saturating_sub(COMMANDS_MAX)..];
                put_u8(out, u8::try_from(newest.len()).expect("at most COMMANDS_MAX"));
                newest.iter().for_each(|command| command.encode(out));
            }
            Answer::Done => put_u8(out, kind::RESET),
            Answer::Prefixes(figures) => {
                put_u8(out, kind::PREFIXES);
                let figures = &figures[..figures.len().min(PREFIXES_MAX)];
                put_u8(out, u8::try_from(figures.len()).expect("at most PREFIXES_MAX"));
                figures.iter().for_each(|figures| figures.encode(out));
            }
            Answer::Latency(histogram) => {
                put_u8(out, kind::LATENCY);
                histogram.encode(out);
            }
            Answer::Cut(cut) => {
                put_u8(out, kind::CUT);
                cut.encode(out);
            }
            Answer::NoCache => put_u8(out, kind::NO_CACHE),
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(match reader.u8()? {
            kind::POPULAR => {
                let (keys, prefixes) = (tops(reader)?, tops(reader)?);
                let requests = reader.varint()?;
                let count = count(reader, "sizes", SIZES_MAX)?;
                let size = |_| Ok((reader.u32()?, reader.varint()?));
                let hits = (0..count).map(size).collect::<Result<_, CodecError>>()?;
                Answer::Popular(Popular { keys, prefixes, sizes: Sizes { requests, hits } })
            }
            kind::KEY => {
                let (is_there, bytes) = (reader.bool()?, reader.varint()?);
                let value_bytes = is_there.then_some(bytes);
                let is_counted = reader.bool()?;
                let counted = is_counted.then(|| Popularity::decode(reader)).transpose()?;
                Answer::Key(KeyFigures { value_bytes, counted })
            }
            kind::RECENT => {
                let count = count(reader, "commands", COMMANDS_MAX)?;
                let commands = (0..count).map(|_| Command::decode(reader));
                Answer::Recent(commands.collect::<Result<_, _>>()?)
            }
            kind::RESET => Answer::Done,
            kind::PREFIXES => {
                let count = count(reader, "prefixes", PREFIXES_MAX)?;
                let figures = (0..count).map(|_| PrefixFigures::decode(reader));
                Answer::Prefixes(figures.collect::<Result<_, _>>()?)
            }
            kind::LATENCY => Answer::Latency(Box::new(Histogram::decode(reader)?)),
            kind::CUT => Answer::Cut(Cut::decode(reader)?),
            kind::NO_CACHE => Answer::NoCache,
            _ => return Err(CodecError::Invalid { what: "kind of answer" }),
        })
    }
}

impl Popularity {
    fn encode(&self, out: &mut Vec<u8>) {
        put_long_bytes(out, cut(&self.text));
        for count in [self.hits, self.misses, self.writes] {
            put_varint(out, count);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let text = key(reader)?;
        let (hits, misses, writes) = (reader.varint()?, reader.varint()?, reader.varint()?);
        Ok(Popularity { text, hits, misses, writes })
    }
}

impl PrefixFigures {
    fn encode(&self, out: &mut Vec<u8>) {
        for figure in [self.hits, self.misses, self.writes, self.items, self.bytes] {
            put_varint(out, figure);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let (hits, misses, writes) = (reader.varint()?, reader.varint()?, reader.varint()?);
        Ok(PrefixFigures { hits, misses, writes, items: reader.varint()?, bytes: reader.varint()? })
    }
}

impl Command {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.at);
        put_long_bytes(out, cut(&self.key));
        let name = self.name.get(..NAME_BYTES_MAX).unwrap_or(&self.name);
        put_short_str(out, name);
        put_u8(out, self.status as u8);
        put_u32(out, self.value_bytes);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let (at, key) = (reader.u64()?, key(reader)?);
        let name = reader.short_str("name of a command")?.to_owned();
        let status = Status::from_code(reader.u8()?);
        let status = status.ok_or(CodecError::Invalid { what: "status of a command" })?;
        Ok(Command { at, key, name, status, value_bytes: reader.u32()? })
    }
}

fn put_tops(out: &mut Vec<u8>, tops: &[Popularity]) {
    let count = tops.len().min(TOPS_MAX);
    put_u8(out, u8::try_from(count).expect("at most TOPS_MAX"));
    tops[..count].iter().for_each(|top| top.encode(out));
}

fn tops(reader: &mut Reader<'_>) -> Result<Vec<Popularity>, CodecError> {
    let count = count(reader, "popular keys", TOPS_MAX)?;
    (0..count).map(|_| Popularity::decode(reader)).collect()
}

fn count(reader: &mut Reader<'_>, what: &'static str, max: usize) -> Result<usize, CodecError> {
    let count = usize::from(reader.u8()?);
    if count > max { Err(CodecError::TooMany { what, count, max }) } else { Ok(count) }
}

fn key(reader: &mut Reader<'_>) -> Result<Vec<u8>, CodecError> {
    Ok(reader.long_bytes("bytes of a key", KEY_BYTES_MAX)?.to_vec())
}

/// No key is longer; this is what makes sure that none is sent.
fn cut(text: &[u8]) -> &[u8] {
    &text[..text.len().min(KEY_BYTES_MAX)]
}

#[cfg(test)]
pub(super) mod tests {
    use tenancy::rules::RuleId;

    use super::*;

    const CACHE: CacheId = CacheId::new(7);

    pub(in super::super) fn questions() -> Vec<Question> {
        vec![
            Question::Popular(CACHE),
            Question::Key { cache: CACHE, backend: 3, key: b"hot:1".to_vec() },
            Question::Recent(CACHE),
            Question::ResetStatistics(CACHE),
            Question::Prefixes { cache: CACHE, prefixes: vec![b"user:".to_vec(), b"p".to_vec()] },
            Question::Prefixes { cache: CACHE, prefixes: Vec::new() },
            Question::Latency,
            Question::Cut(RuleChange::Put(rules::tests::one_rule(9, Some(7), "192.0.2.0/24"))),
            Question::Cut(RuleChange::Remove(RuleId(3))),
        ]
    }

    pub(in super::super) fn answers() -> Vec<Answer> {
        let top = Popularity { text: b"hot:1".to_vec(), hits: 9, misses: 0, writes: 1 << 40 };
        let sizes = Sizes { requests: 1_000, hits: vec![(100, 800), (200, 900)] };
        let command = Command {
            at: 1_800_000_000,
            key: b"k".to_vec(),
            name: "get".to_owned(),
            status: Status::Miss,
            value_bytes: 5,
        };
        let mut histogram = Histogram::default();
        histogram.note(5_000);
        vec![
            Answer::Popular(Popular { keys: vec![top.clone()], prefixes: Vec::new(), sizes }),
            Answer::Key(KeyFigures { value_bytes: Some(5), counted: Some(top) }),
            Answer::Key(KeyFigures::default()),
            Answer::Recent(vec![command]),
            Answer::Done,
            Answer::Prefixes(vec![
                PrefixFigures { hits: 9, misses: 8, writes: 7, items: 1 << 40, bytes: 5 },
                PrefixFigures::default(),
            ]),
            Answer::Latency(Box::new(histogram)),
            Answer::Cut(rules::tests::one_cut()),
            Answer::NoCache,
        ]
    }

    #[test]
    fn the_longest_answers_keep_to_their_limit_and_are_cut_where_they_would_not() {
        let top = Popularity {
            text: vec![b'x'; 2 * KEY_BYTES_MAX],
            hits: u64::MAX,
            misses: u64::MAX,
            writes: u64::MAX,
        };
        let sizes = Sizes { requests: u64::MAX, hits: vec![(u32::MAX, u64::MAX); 99] };
        let tops = vec![top; 99];
        let command = Command {
            at: u64::MAX,
            key: vec![b'x'; 2 * KEY_BYTES_MAX],
            name: "n".repeat(99),
            status: Status::Failed,
            value_bytes: u32::MAX,
        };
        for answer in [
            Answer::Popular(Popular { keys: tops.clone(), prefixes: tops, sizes }),
            Answer::Recent(vec![command; 200]),
            Answer::Prefixes(vec![
                PrefixFigures {
                    hits: u64::MAX,
                    misses: u64::MAX,
                    writes: u64::MAX,
                    items: u64::MAX,
                    bytes: u64::MAX,
                };
                99
            ]),
        ] {
            let mut bytes = Vec::new();
            answer.encode(&mut bytes);
            assert!(bytes.len() <= ANSWER_BYTES_MAX, "{} bytes", bytes.len());
            assert!(Answer::decode(&mut Reader::new(&bytes)).is_ok());
        }
    }

    #[test]
    fn every_status_comes_back_by_its_code() {
        for &status in Status::ALL {
            assert_eq!(Status::from_code(status as u8), Some(status));
        }
    }

    #[test]
    fn sizes_of_several_places_add_up() {
        let mut sum = Sizes { requests: 10, hits: vec![(100, 5), (200, 8)] };
        sum.add(&Sizes { requests: 30, hits: vec![(50, 1), (200, 9)] });
        assert_eq!(sum, Sizes { requests: 40, hits: vec![(50, 1), (100, 5), (200, 17)] });
    }
}
