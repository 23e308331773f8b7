//! What a cache would hit if it were larger or smaller, from a sample of its keys.
//!
//! For each request of a sampled key we ask how many bytes of *other* keys were asked for since its
//! last one: a cache of at least that size would have had it (Mattson's stack distance). A sample of
//! keys, chosen by hash, gives the same figure divided by its share (SHARDS: Waldspurger et al.,
//! FAST 2015). That is what an LRU cache would hit. Ours hits more, so of it we take only by how much
//! the misses change with size, and apply that to what was really missed.
//!
//! ```text
//!   oldest │ k7 │ k3 │ k9 │ k1 │ newest        k3 is asked for: the bytes of k9, k1 and itself,
//!               ╰─────────────▶ to the end     times 2^shift, are its distance
//! ```

/// Sizes at which hits are counted, in percent of the cache's limit.
pub const SIZES_PERCENT: [u32; 5] = [25, 50, 100, 200, 400];

/// Which of them is the limit itself.
const LIMIT: usize = 2;
const _: () = assert!(SIZES_PERCENT[LIMIT] == 100);

/// Most sampled keys: 80 for each multiple of the limit, in 2.5 KB.
const KEYS_MAX: usize = 320;
/// At most one key in 2^this is sampled: what it costs a request stays near a nanosecond.
const SHIFT_MIN: u32 = 5;

/// Hits at several sizes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Curve {
    /// Requests that the estimate stands for, older ones counting less.
    pub requests: u64,
    /// Those of them that were hits.
    pub hits: u64,
    /// Those that an LRU cache of each of [`SIZES_PERCENT`] of the limit would have hit.
    pub lru_hits: [u64; SIZES_PERCENT.len()],
    /// Key and value bytes asked for lately, as far as four times the limit: the working set.
    pub touched_bytes: u64,
}

impl Curve {
    /// Hits in percent of the requests that this cache would have at each of [`SIZES_PERCENT`] of
    /// its limit, about.
    pub fn hits_percent(&self) -> [f64; SIZES_PERCENT.len()] {
        let misses = |hits: u64| (self.requests - hits) as f64;
        let now = misses(self.lru_hits[LIMIT]).max(1.0);
        self.lru_hits.map(|hits| {
            let missed = misses(self.hits) * misses(hits) / now;
            (100.0 - missed * 100.0 / self.requests.max(1) as f64).max(0.0)
        })
    }

    /// Adds what another shard of the same cache has seen.
    pub(crate) fn add(&mut self, other: &Curve) {
        self.requests += other.requests;
        self.hits += other.hits;
        self.touched_bytes += other.touched_bytes;
        self.lru_hits.iter_mut().zip(other.lru_hits).for_each(|(sum, more)| *sum += more);
    }
}

pub(crate) struct WorkingSet {
    limit_bytes: u64,
    /// One key in 2^shift is sampled.
    shift: u32,
    /// Sampled keys, the one asked for last at the end.
    keys: Vec<Sampled>,
    /// The sum of their bytes.
    bytes: u64,
    requests: u64,
    hits: u64,
    /// LRU hits by the smallest size that would do.
    lru_hits: [u64; SIZES_PERCENT.len()],
}

#[derive(Clone, Copy)]
struct Sampled {
    tag: Tag,
    bytes: u32,
}

/// Bits of a key's hash: the first choose whether it is sampled, all say which it is. The
/// [`SHIFT_MIN`] before them are zero for every sampled key.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Tag(u32);

impl Tag {
    /// `None` for most keys.
    #[inline]
    fn of(hash: u64, shift: u32) -> Option<Self> {
        // Other bits than those that choose shard, segment and bucket, which a slice's keys share.
        let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> (64 - shift) == 0).then_some(Tag((mixed >> (32 - SHIFT_MIN)) as u32))
    }

    fn is_sampled(self, shift: u32) -> bool {
        u64::from(self.0) >> (32 + SHIFT_MIN - shift) == 0
    }
}

impl WorkingSet {
    pub(crate) fn new(limit_bytes: u64) -> Self {
        WorkingSet {
            limit_bytes,
            shift: SHIFT_MIN,
            keys: Vec::with_capacity(KEYS_MAX + 1),
            bytes: 0,
            requests: 0,
            hits: 0,
            lru_hits: [0; SIZES_PERCENT.len()],
        }
    }

    /// With another limit the old counts mean nothing.
    pub(crate) fn set_limit(&mut self, limit_bytes: u64) {
        if limit_bytes != self.limit_bytes {
            *self = WorkingSet::new(limit_bytes);
        }
    }

    /// Notes that a key was asked for; `bytes` of key and value if it was there.
    #[inline]
    pub(crate) fn see_read(&mut self, hash: u64, bytes: Option<usize>) {
        if let Some(tag) = Tag::of(hash, self.shift) {
            self.read(tag, bytes);
        }
    }

    /// Notes the size a key has now. A write is no request that could hit.
    #[inline]
    pub(crate) fn see_write(&mut self, hash: u64, bytes: usize) {
        if let Some(tag) = Tag::of(hash, self.shift) {
            let known = self.keys.iter().rposition(|key| key.tag == tag);
            let at = known.unwrap_or_else(|| self.append(tag, 0));
            self.resize(at, bytes);
            self.keep_in_bounds();
        }
    }

    pub(crate) fn fade(&mut self) {
        self.requests /= 2;
        self.hits /= 2;
        self.lru_hits.iter_mut().for_each(|hits| *hits /= 2);
    }

    pub(crate) fn curve(&self) -> Curve {
        let mut sum = 0;
        let lru_hits = self.lru_hits.map(|more| {
            sum += more;
            sum
        });
        let WorkingSet { requests, hits, .. } = *self;
        Curve { requests, hits, lru_hits, touched_bytes: self.bytes << self.shift }
    }

    /// Heap bytes.
    pub(crate) fn bytes(&self) -> u64 {
        (self.keys.capacity() * size_of::<Sampled>()) as u64
    }

    #[cold]
    fn read(&mut self, tag: Tag, bytes: Option<usize>) {
        self.requests += 1 << self.shift;
        self.hits += u64::from(bytes.is_some()) << self.shift;
        let mut distance = 0;
        let mut found = None;
        for (at, key) in self.keys.iter().enumerate().rev() {
            distance += u64::from(key.bytes);
            if key.tag == tag {
                found = Some(at);
                break;
            }
        }
        let at = match found {
            Some(at) => {
                let distance = distance << self.shift;
                let fits = |percent| distance <= self.limit_bytes * u64::from(percent) / 100;
                if let Some(size) = SIZES_PERCENT.iter().position(|&percent| fits(percent)) {
                    self.lru_hits[size] += 1 << self.shift;
                }
                self.keys[at..].rotate_left(1);
                self.keys.len() - 1
            }
            // Its size is not known before it is written.
            None => self.append(tag, bytes.unwrap_or(0)),
        };
        if let Some(bytes) = bytes {
            self.resize(at, bytes);
        }
        self.keep_in_bounds();
    }

    fn append(&mut self, tag: Tag, bytes: usize) -> usize {
        self.keys.push(Sampled { tag, bytes: bytes as u32 });
        self.bytes += bytes as u64;
        self.keys.len() - 1
    }

    fn resize(&mut self, at: usize, bytes: usize) {
        self.bytes = self.bytes - u64::from(self.keys[at].bytes) + bytes as u64;
        self.keys[at].bytes = bytes as u32;
    }

    /// Forgets keys whose next request would be beyond the largest size, and samples fewer when they
    /// are still too many, or more when they are few.
    fn keep_in_bounds(&mut self) {
        let largest = SIZES_PERCENT[SIZES_PERCENT.len() - 1];
        let bytes_max = (self.limit_bytes * u64::from(largest) / 100) >> self.shift;
        let mut gone = 0;
        let mut left = self.bytes;
        while left > bytes_max && gone + 1 < self.keys.len() {
            left -= u64::from(self.keys[gone].bytes);
            gone += 1;
        }
        // Many at a time, because the rest must move up.
        if gone >= KEYS_MAX / 8 || self.keys.len() > KEYS_MAX && gone > 0 {
            self.keys.drain(..gone);
            self.bytes = left;
            if self.keys.len() < KEYS_MAX / 4 && self.shift > SHIFT_MIN {
                self.shift -= 1;
            }
        }
        while self.keys.len() > KEYS_MAX {
            self.shift += 1;
            let shift = self.shift;
            self.keys.retain(|key| key.tag.is_sampled(shift));
            self.bytes = self.keys.iter().map(|key| u64::from(key.bytes)).sum();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u64) -> u64 {
        (number + 1).wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(31)
            ^ number.wrapping_mul(0xa076_1d64_78bd_642f)
    }

    /// Asks for every key in turn, so that each is as far away as all of them are large.
    #[track_caller]
    fn check_loop(keys: u64, item_bytes: usize, limit_bytes: u64, expected: [f64; 5]) {
        let mut set = WorkingSet::new(limit_bytes);
        for _ in 0..8 {
            for key in 0..keys {
                set.see_read(hash(key), None);
                set.see_write(hash(key), item_bytes);
            }
        }
        assert!(set.keys.len() <= KEYS_MAX);
        let curve = set.curve();
        for (found, expected) in curve.lru_hits.iter().zip(expected) {
            let percent = *found as f64 * 100.0 / curve.requests as f64;
            assert!((percent - expected).abs() < 5.0, "{percent} for {expected}: {curve:?}");
        }
        let touched = (keys * item_bytes as u64).min(limit_bytes * 4) as f64;
        let share = curve.touched_bytes as f64 / touched;
        assert!((0.8..1.25).contains(&share), "{share} of what was touched");
    }

    /// The first of eight rounds is cold, so the most is seven of eight.
    const ALL: f64 = 87.5;

    #[test]
    fn a_loop_that_fits_is_hit_at_every_size() {
        check_loop(2_000, 100, 2_000_000, [ALL; 5]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "it takes minutes there; no `unsafe` is near")]
    fn a_loop_of_one_and_a_half_limits_would_fit_twice_the_limit() {
        check_loop(15_000, 1_000, 10_000_000, [0.0, 0.0, 0.0, ALL, ALL]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "it takes minutes there; no `unsafe` is near")]
    fn many_keys_are_sampled_less() {
        check_loop(300_000, 100, 10_000_000, [0.0, 0.0, 0.0, 0.0, ALL]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "it takes minutes there; no `unsafe` is near")]
    fn a_loop_beyond_four_limits_is_never_hit() {
        check_loop(100_000, 1_000, 20_000_000, [0.0; 5]);
    }
}
