//! What is kept of a cache for one span of time, and how it is stored.
//!
//! A stored sample is pairs of a figure's number (one byte) and its value (LEB128), for the figures that
//! are not 0: some thirty bytes for a cache that is used in the usual way.

/// How a figure behaves over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What happened in a span: spans add up.
    Counter,
    /// How things stood at the end of a span.
    Gauge,
}

macro_rules! figures {
    ($($name:ident $text:literal $kind:ident,)+) => {
        /// A figure that is kept over time. The order is that of the stored numbers: new ones are
        /// added at the end, and none is taken away.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Figure { $($name,)+ }

        impl Figure {
            pub(crate) const ALL: &[Figure] = &[$(Figure::$name,)+];

            /// As `stats` says it.
            pub const fn name(self) -> &'static str {
                match self { $(Figure::$name => $text,)+ }
            }

            pub(crate) const fn kind(self) -> Kind {
                match self { $(Figure::$name => Kind::$kind,)+ }
            }
        }
    };
}

figures! {
    CmdGet "cmd_get" Counter,
    CmdSet "cmd_set" Counter,
    CmdFlush "cmd_flush" Counter,
    CmdTouch "cmd_touch" Counter,
    GetHits "get_hits" Counter,
    GetMisses "get_misses" Counter,
    GetExpired "get_expired" Counter,
    DeleteHits "delete_hits" Counter,
    DeleteMisses "delete_misses" Counter,
    IncrHits "incr_hits" Counter,
    IncrMisses "incr_misses" Counter,
    DecrHits "decr_hits" Counter,
    DecrMisses "decr_misses" Counter,
    CasHits "cas_hits" Counter,
    CasMisses "cas_misses" Counter,
    CasBadval "cas_badval" Counter,
    TouchHits "touch_hits" Counter,
    TouchMisses "touch_misses" Counter,
    Evictions "evictions" Counter,
    Expired "expired" Counter,
    AuthErrors "auth_errors" Counter,
    TotalConnections "total_connections" Counter,
    BytesRead "bytes_read" Counter,
    BytesWritten "bytes_written" Counter,
    Bytes "bytes" Gauge,
    CurrItems "curr_items" Gauge,
    CurrConnections "curr_connections" Gauge,
}

const FIGURES: usize = Figure::ALL.len();

const _: () = assert!(FIGURES <= u8::MAX as usize);

/// All figures of one span, or all totals at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample([u64; FIGURES]);

impl Default for Sample {
    fn default() -> Self {
        Sample([0; FIGURES])
    }
}

impl Sample {
    /// What `stats` says, as far as it is kept.
    pub(crate) fn of<'a>(statistics: impl IntoIterator<Item = (&'a str, u64)>) -> Self {
        let mut sample = Sample::default();
        for (name, value) in statistics {
            if let Some(figure) = Figure::ALL.iter().find(|figure| figure.name() == name) {
                sample.set(*figure, value);
            }
        }
        sample
    }

    pub fn get(&self, figure: Figure) -> u64 {
        self.0[figure as usize]
    }

    pub(crate) fn set(&mut self, figure: Figure, value: u64) {
        self.0[figure as usize] = value;
    }

    /// Only how things stood.
    pub(crate) fn gauges(mut self) -> Self {
        for figure in Figure::ALL.iter().filter(|figure| figure.kind() == Kind::Counter) {
            self.set(*figure, 0);
        }
        self
    }

    /// Takes in the span that follows.
    pub(crate) fn then(&mut self, later: &Sample) {
        for figure in Figure::ALL {
            let value = match figure.kind() {
                Kind::Counter => self.get(*figure).saturating_add(later.get(*figure)),
                Kind::Gauge => later.get(*figure),
            };
            self.set(*figure, value);
        }
    }

    /// What was counted between two readings of the totals, and how things stood at the later one. A
    /// counter that fell began anew in between, and all it says is news.
    pub(crate) fn since(&self, before: &Sample) -> Self {
        let mut between = *self;
        for figure in Figure::ALL.iter().filter(|figure| figure.kind() == Kind::Counter) {
            let (now, then) = (self.get(*figure), before.get(*figure));
            between.set(*figure, if then <= now { now - then } else { now });
        }
        between
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, value) in (0u8..).zip(self.0).filter(|(_, value)| *value != 0) {
            bytes.push(number);
            let mut left = value;
            while left >= 0x80 {
                bytes.push(left.to_le_bytes()[0] | 0x80);
                left >>= 7;
            }
            bytes.push(left.to_le_bytes()[0]);
        }
        bytes
    }

    /// `None` when these are not the bytes of a sample. A figure that this program does not know is
    /// passed over: a newer one wrote it.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (mut sample, mut left) = (Sample::default(), bytes.iter().copied());
        while let Some(number) = left.next() {
            let (mut value, mut shift) = (0u64, 0);
            loop {
                let byte = left.next()?;
                let bits = u64::from(byte & 0x7f);
                if shift > 63 || (shift == 63 && bits > 1) {
                    return None;
                }
                value |= bits << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            if let Some(figure) = Figure::ALL.get(usize::from(number)) {
                sample.set(*figure, value);
            }
        }
        Some(sample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(pairs: &[(Figure, u64)]) -> Sample {
        let mut sample = Sample::default();
        pairs.iter().for_each(|(figure, value)| sample.set(*figure, *value));
        sample
    }

    #[test]
    fn a_stored_sample_is_read_as_it_was_written() {
        let all = [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX - 1, u64::MAX];
        for value in all {
            let written = sample(&[(Figure::CmdGet, value), (Figure::CurrConnections, value)]);
            assert_eq!(Sample::decode(&written.encode()), Some(written), "{value}");
        }
        assert_eq!(Sample::default().encode(), Vec::<u8>::new());
        let usual = sample(&[
            (Figure::CmdGet, 5_000),
            (Figure::GetHits, 4_900),
            (Figure::Bytes, 9_000_000),
        ]);
        assert_eq!(usual.encode().len(), 3 + 3 + 5);
    }

    #[test]
    fn bytes_that_are_no_sample_are_refused() {
        for bad in
            [&[0][..], &[0, 0x80], &[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]]
        {
            assert_eq!(Sample::decode(bad), None, "{bad:?}");
        }
        assert_eq!(Sample::decode(&[250, 3]), Some(Sample::default()), "of a newer program");
    }

    #[test]
    fn counters_add_up_and_gauges_are_the_latest() {
        let mut hour = sample(&[(Figure::CmdGet, 5), (Figure::Bytes, 100)]);
        hour.then(&sample(&[(Figure::CmdGet, 2), (Figure::Bytes, 40)]));
        assert_eq!(hour, sample(&[(Figure::CmdGet, 7), (Figure::Bytes, 40)]));
    }

    #[test]
    fn a_counter_that_began_anew_is_news() {
        let before = sample(&[(Figure::CmdGet, 100), (Figure::CmdSet, 3)]);
        let now = sample(&[(Figure::CmdGet, 4), (Figure::CmdSet, 5), (Figure::Bytes, 7)]);
        let expected = sample(&[(Figure::CmdGet, 4), (Figure::CmdSet, 2), (Figure::Bytes, 7)]);
        assert_eq!(now.since(&before), expected);
    }
}
