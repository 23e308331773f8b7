//! What nodes tell of the use of their caches, and what they are told of their shares.
//!
//! ```text
//!   node                                                        control
//!    │── USAGE(run, caches whose figures have changed) ──────────▶│  sums, divides each limit
//!    │◀─ SHARES(cache, backend, bytes) ───────────────────────────│
//! ```
//!
//! Both once a second, for what has changed only. Counters are sent as totals since the process began,
//! so a message may be said twice and counts once; [`Figure`] is the one table of them.

use tenancy::id::CacheId;

use super::message::NODE_BACKENDS_MAX;
use crate::codec::{CodecError, Reader, put_bool, put_count, put_u8, put_u16, put_u64, put_varint};

/// Caches in one USAGE message: by size, because one cache may say little or much.
pub const USAGE_BYTES_MAX: usize = 48 * 1024;
/// The most that one cache takes of it: every figure and every part, in varints of ten bytes.
const CACHE_BYTES_MAX: usize = 16 + 2 + Figure::ALL.len() * 11 + 1 + NODE_BACKENDS_MAX * 31;
/// Caches in one message at most, by the least that one of them takes.
const CACHES_MAX: usize = USAGE_BYTES_MAX / 19;
/// Shares in one SHARES message: some 70 KB.
pub const SHARES_MAX: usize = 4_096;

const _: () = assert!(CACHE_BYTES_MAX < USAGE_BYTES_MAX);

/// How a figure of several places becomes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FigureKind {
    /// Counts up from 0; the sum over all places.
    Counter,
    /// Counts up, and every place counts the same event; the most that any place has counted.
    Everywhere,
    /// How things stand now; the sum over all places.
    Gauge,
}

macro_rules! figures {
    ($($name:ident = $code:literal, $text:literal, $kind:ident;)+) => {
        /// One figure of a cache. New ones get new codes; one that the receiver does not know is
        /// passed over.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Figure { $($name = $code,)+ }

        impl Figure {
            /// In the order in which people are shown them.
            pub const ALL: &[Figure] = &[$(Figure::$name),+];

            /// As in memcached's `stats` (`doc/protocol.txt`, "General-purpose statistics"), where it
            /// has the same figure.
            pub const fn name(self) -> &'static str {
                match self { $(Figure::$name => $text,)+ }
            }

            pub const fn kind(self) -> FigureKind {
                match self { $(Figure::$name => FigureKind::$kind,)+ }
            }

            /// Stands for it where figures are sent or kept; never another's.
            pub const fn code(self) -> u8 {
                self as u8
            }

            pub fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Figure::$name),)+ _ => None }
            }
        }
    };
}

figures! {
    CurrConnections = 1, "curr_connections", Gauge;
    TotalConnections = 2, "total_connections", Counter;
    BytesRead = 3, "bytes_read", Counter;
    BytesWritten = 4, "bytes_written", Counter;
    AuthErrors = 5, "auth_errors", Counter;
    CmdGet = 16, "cmd_get", Counter;
    CmdSet = 17, "cmd_set", Counter;
    CmdFlush = 18, "cmd_flush", Everywhere;
    CmdTouch = 19, "cmd_touch", Counter;
    GetHits = 20, "get_hits", Counter;
    GetMisses = 21, "get_misses", Counter;
    GetExpired = 22, "get_expired", Counter;
    DeleteMisses = 23, "delete_misses", Counter;
    DeleteHits = 24, "delete_hits", Counter;
    IncrMisses = 25, "incr_misses", Counter;
    IncrHits = 26, "incr_hits", Counter;
    DecrMisses = 27, "decr_misses", Counter;
    DecrHits = 28, "decr_hits", Counter;
    CasMisses = 29, "cas_misses", Counter;
    CasHits = 30, "cas_hits", Counter;
    CasBadval = 31, "cas_badval", Counter;
    TouchHits = 32, "touch_hits", Counter;
    TouchMisses = 33, "touch_misses", Counter;
    StoreTooLarge = 34, "store_too_large", Counter;
    StoreNoMemory = 35, "store_no_memory", Counter;
    Bytes = 36, "bytes", Gauge;
    CurrItems = 37, "curr_items", Gauge;
    TotalItems = 38, "total_items", Counter;
    Evictions = 39, "evictions", Counter;
    EvictedUnfetched = 40, "evicted_unfetched", Counter;
    Expired = 41, "expired", Counter;
    ExpiredUnfetched = 42, "expired_unfetched", Counter;
    GhostHits = 43, "ghost_hits", Counter;
    HeldBytes = 44, "held_bytes", Gauge;
}

impl Figure {
    pub fn from_name(name: &str) -> Option<Self> {
        Figure::ALL.iter().copied().find(|figure| figure.name() == name)
    }
}

/// Figures of one cache; what is not in it is 0. Small, because most caches use few commands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures(Vec<(Figure, u64)>);

impl Figures {
    pub fn get(&self, figure: Figure) -> u64 {
        self.place(figure).map_or(0, |at| self.0[at].1)
    }

    pub fn set(&mut self, figure: Figure, count: u64) {
        match self.place(figure) {
            Ok(at) => self.0[at].1 = count,
            Err(_) if count == 0 => (),
            Err(at) => self.0.insert(at, (figure, count)),
        }
    }

    pub fn add(&mut self, figure: Figure, more: u64) {
        self.set(figure, self.get(figure).saturating_add(more));
    }

    /// Takes in the same figure of another place.
    pub fn join(&mut self, figure: Figure, count: u64) {
        match figure.kind() {
            FigureKind::Counter | FigureKind::Gauge => self.add(figure, count),
            FigureKind::Everywhere => self.set(figure, count.max(self.get(figure))),
        }
    }

    /// Every figure by its name, those that are 0 too.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Figure::ALL.iter().map(|&figure| (figure.name(), self.get(figure)))
    }

    /// Those that are not 0, or were not once.
    pub fn counted(&self) -> impl Iterator<Item = (Figure, u64)> {
        self.0.iter().copied()
    }

    fn place(&self, figure: Figure) -> Result<usize, usize> {
        self.0.binary_search_by_key(&figure, |(known, _)| *known)
    }
}

/// What one node tells of caches that have changed since it told last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageReport {
    /// When the process began, in milliseconds of Unix time: another one counts from 0 again.
    pub run: u64,
    /// The first on this connection: parts of which nothing is told from here on are empty.
    pub is_first: bool,
    /// Whether not everything has been told yet since the connection was made: what is told may have
    /// happened long ago, and something may be missing. The first message without it says that
    /// nothing is.
    pub is_catching_up: bool,
    pub caches: Vec<CacheReport>,
}

/// One cache at one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheReport {
    pub cache: CacheId,
    /// Unix time in seconds when a client of this node's proxy used it last; 0 when none did since
    /// the process began.
    pub last_used_at: u64,
    /// Totals of those figures that have changed, all backends of the node together.
    pub figures: Vec<(Figure, u64)>,
    /// Those that have changed.
    pub parts: Vec<PartReport>,
}

/// What one backend holds of a cache: what its share is worked out from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartReport {
    /// Its number at its node.
    pub backend: u8,
    pub bytes: u64,
    pub items: u64,
    /// Items dropped for want of room since the last report.
    pub evicted_items: u64,
}

/// How much of a cache one backend may hold from now on, in key and value bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub cache: CacheId,
    /// Its number at its node.
    pub backend: u8,
    pub bytes: u64,
}

impl UsageReport {
    /// With as many of these caches as fit into one message; takes them out.
    #[must_use]
    pub fn filled(mut self, caches: &mut impl Iterator<Item = CacheReport>) -> Self {
        let mut bytes = Vec::new();
        while bytes.len() + CACHE_BYTES_MAX <= USAGE_BYTES_MAX
            && let Some(cache) = caches.next()
        {
            cache.encode(&mut bytes);
            self.caches.push(cache);
        }
        self
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.run);
        put_bool(out, self.is_first);
        put_bool(out, self.is_catching_up);
        put_count(out, self.caches.len());
        self.caches.iter().for_each(|cache| cache.encode(out));
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let run = reader.u64()?;
        let (is_first, is_catching_up) = (reader.bool()?, reader.bool()?);
        let count = reader.count_u32("caches", CACHES_MAX)?;
        let caches = (0..count).map(|_| CacheReport::decode(reader)).collect::<Result<_, _>>()?;
        Ok(UsageReport { run, is_first, is_catching_up, caches })
    }
}

impl CacheReport {
    /// Nothing of it has changed.
    pub fn new(cache: CacheId) -> Self {
        CacheReport { cache, last_used_at: 0, figures: Vec::new(), parts: Vec::new() }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.cache.get());
        put_u64(out, self.last_used_at);
        let figures = u16::try_from(self.figures.len()).expect("a table of fewer figures");
        put_u16(out, figures);
        for (figure, total) in &self.figures {
            put_u8(out, figure.code());
            put_varint(out, *total);
        }
        put_u8(out, u8::try_from(self.parts.len()).expect("at most NODE_BACKENDS_MAX"));
        for part in &self.parts {
            put_u8(out, part.backend);
            for number in [part.bytes, part.items, part.evicted_items] {
                put_varint(out, number);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut report = CacheReport::new(CacheId::new(reader.u64()?));
        report.last_used_at = reader.u64()?;
        for _ in 0..reader.u16()? {
            let (code, total) = (reader.u8()?, reader.varint()?);
            report.figures.extend(Figure::from_code(code).map(|figure| (figure, total)));
        }
        for _ in 0..reader.u8()? {
            report.parts.push(PartReport {
                backend: backend(reader)?,
                bytes: reader.varint()?,
                items: reader.varint()?,
                evicted_items: reader.varint()?,
            });
        }
        Ok(report)
    }
}

impl Share {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.cache.get());
        put_u8(out, self.backend);
        put_varint(out, self.bytes);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let cache = CacheId::new(reader.u64()?);
        Ok(Share { cache, backend: backend(reader)?, bytes: reader.varint()? })
    }
}

fn backend(reader: &mut Reader<'_>) -> Result<u8, CodecError> {
    let number = reader.u8()?;
    if usize::from(number) < NODE_BACKENDS_MAX {
        Ok(number)
    } else {
        Err(CodecError::Invalid { what: "number of a backend" })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn one_report() -> UsageReport {
        let part = PartReport { backend: 1, bytes: 1 << 40, items: 300, evicted_items: 7 };
        UsageReport {
            run: 1_800_000_000_000,
            is_first: true,
            is_catching_up: false,
            caches: vec![CacheReport {
                cache: CacheId::new(7),
                last_used_at: 1_800_000_001,
                figures: vec![(Figure::CmdGet, u64::MAX), (Figure::Bytes, 0)],
                parts: vec![PartReport::default(), part],
            }],
        }
    }

    #[test]
    fn every_figure_has_a_name_and_a_code_of_its_own() {
        for (index, &figure) in Figure::ALL.iter().enumerate() {
            assert_eq!(Figure::from_code(figure.code()), Some(figure));
            assert_eq!(Figure::from_name(figure.name()), Some(figure));
            assert!(Figure::ALL[..index].iter().all(|other| other.name() != figure.name()));
        }
    }

    #[test]
    fn a_figure_of_a_later_version_is_passed_over() {
        let mut bytes = Vec::new();
        one_report().encode(&mut bytes);
        // The first figure's code, behind the head, the cache and the count of figures.
        let at = 8 + 2 + 4 + 16 + 2;
        assert_eq!(bytes[at], Figure::CmdGet.code());
        bytes[at] = 255;
        let report = UsageReport::decode(&mut Reader::new(&bytes));
        let figures = report.map(|report| report.caches[0].figures.clone());
        assert_eq!(figures, Ok(vec![(Figure::Bytes, 0)]));
    }

    #[test]
    fn many_caches_become_messages_within_the_limit() {
        let figures: Vec<_> = Figure::ALL.iter().map(|&figure| (figure, u64::MAX)).collect();
        let parts =
            vec![PartReport { bytes: u64::MAX, ..PartReport::default() }; NODE_BACKENDS_MAX];
        let cache = CacheReport { figures, parts, ..CacheReport::new(CacheId::new(1)) };
        let mut caches = vec![cache; 100].into_iter();
        let (mut told, mut messages) = (0, 0);
        while 0 < caches.len() {
            let report = UsageReport::default().filled(&mut caches);
            let mut bytes = Vec::new();
            report.encode(&mut bytes);
            assert!(bytes.len() <= USAGE_BYTES_MAX, "{} bytes", bytes.len());
            assert_eq!(UsageReport::decode(&mut Reader::new(&bytes)).as_ref(), Ok(&report));
            told += report.caches.len();
            messages += 1;
        }
        assert_eq!(told, 100);
        assert!(messages > 1);
    }

    #[test]
    fn figures_of_several_places_become_one() {
        let mut figures = Figures::default();
        for count in [3, 5] {
            figures.join(Figure::CmdGet, count);
            figures.join(Figure::CmdFlush, count);
        }
        assert_eq!((figures.get(Figure::CmdGet), figures.get(Figure::CmdFlush)), (8, 5));
        assert_eq!(figures.get(Figure::Bytes), 0);
        assert_eq!(figures.iter().count(), Figure::ALL.len());
    }
}
