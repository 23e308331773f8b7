//! The figures that people look at, worked out from what was counted: the 36 names of "processed stats".
//!
//! Rates are per second. Fractions are parts of all requests, and hit rates are parts of the lookups that
//! they are about, both 0 to 1; where there was none there is nothing to tell.

use super::sample::{Figure, Sample};
use super::step::Step;

/// How a name is worked out.
enum Rule {
    /// The sum of these per second.
    Rate(&'static [Figure]),
    /// The first per request.
    Fraction(&'static [Figure]),
    /// The first out of both.
    HitRate(Figure, Figure),
    Gauge(Figure),
    /// The cache's limit.
    Limit,
}

use Figure::{
    AuthErrors, Bytes, BytesRead, BytesWritten, CasBadval, CasHits, CasMisses, CmdFlush, CmdGet,
    CmdSet, CmdTouch, CurrConnections, CurrItems, DecrHits, DecrMisses, DeleteHits, DeleteMisses,
    Evictions, GetExpired, GetHits, GetMisses, IncrHits, IncrMisses, TotalConnections, TouchHits,
    TouchMisses,
};
use Rule::{Fraction, Gauge, HitRate, Limit, Rate};

const CAS: &[Figure] = &[CasHits, CasMisses, CasBadval];
const DECR: &[Figure] = &[DecrHits, DecrMisses];
const DELETE: &[Figure] = &[DeleteHits, DeleteMisses];
const INCR: &[Figure] = &[IncrHits, IncrMisses];
/// A `cas` is counted among the sets, as memcached does.
const REQUESTS: &[Figure] = &[
    CmdGet,
    CmdSet,
    CmdFlush,
    CmdTouch,
    DecrHits,
    DecrMisses,
    DeleteHits,
    DeleteMisses,
    IncrHits,
    IncrMisses,
];

/// Every name, sorted.
const NAMES: [(&str, Rule); 36] = [
    ("auth_cmds_rate", Rate(&[TotalConnections, AuthErrors])),
    ("auth_errors_rate", Rate(&[AuthErrors])),
    ("bytes", Gauge(Bytes)),
    ("bytes_read_rate", Rate(&[BytesRead])),
    ("bytes_write_rate", Rate(&[BytesWritten])),
    ("cas_badval_rate", Rate(&[CasBadval])),
    ("cas_fraction", Fraction(CAS)),
    ("cas_hit_rate", HitRate(CasHits, CasMisses)),
    ("cas_rate", Rate(CAS)),
    ("connection_rate", Rate(&[TotalConnections])),
    ("connections", Gauge(CurrConnections)),
    ("decr_fraction", Fraction(DECR)),
    ("decr_hit_rate", HitRate(DecrHits, DecrMisses)),
    ("decr_rate", Rate(DECR)),
    ("delete_fraction", Fraction(DELETE)),
    ("delete_hit_rate", HitRate(DeleteHits, DeleteMisses)),
    ("delete_rate", Rate(DELETE)),
    ("eviction_rate", Rate(&[Evictions])),
    ("flush_fraction", Fraction(&[CmdFlush])),
    ("flush_rate", Rate(&[CmdFlush])),
    ("get_expired_rate", Rate(&[GetExpired])),
    ("get_fraction", Fraction(&[CmdGet])),
    ("get_hit_rate", HitRate(GetHits, GetMisses)),
    ("get_rate", Rate(&[CmdGet])),
    ("hit_rate", HitRate(GetHits, GetMisses)),
    ("incr_fraction", Fraction(INCR)),
    ("incr_hit_rate", HitRate(IncrHits, IncrMisses)),
    ("incr_rate", Rate(INCR)),
    ("items", Gauge(CurrItems)),
    ("max_bytes", Limit),
    ("request_rate", Rate(REQUESTS)),
    ("set_fraction", Fraction(&[CmdSet])),
    ("set_rate", Rate(&[CmdSet])),
    ("touch_fraction", Fraction(&[CmdTouch])),
    ("touch_hit_rate", HitRate(TouchHits, TouchMisses)),
    ("touch_rate", Rate(&[CmdTouch])),
];

/// One of the names.
#[derive(Clone, Copy)]
pub(crate) struct Name(usize);

impl Name {
    pub(crate) fn named(name: &str) -> Option<Self> {
        NAMES.binary_search_by_key(&name, |(known, _)| known).ok().map(Name)
    }

    pub(crate) fn all() -> impl Iterator<Item = Name> {
        (0..NAMES.len()).map(Name)
    }

    pub(crate) fn text(self) -> &'static str {
        NAMES[self.0].0
    }

    /// Its value for one point of a series; `None` where there was nothing to measure.
    pub(crate) fn value(self, sample: &Sample, step: Step, limit_bytes: u64) -> Option<f64> {
        let sum = |figures: &[Figure]| -> u64 { figures.iter().map(|it| sample.get(*it)).sum() };
        match &NAMES[self.0].1 {
            Rate(figures) => Some(sum(figures) as f64 / step.seconds() as f64),
            Fraction(figures) => ratio(sum(figures), sum(REQUESTS)),
            HitRate(hits, misses) => ratio(sample.get(*hits), sum(&[*hits, *misses])),
            Gauge(figure) => Some(sample.get(*figure) as f64),
            Limit => Some(limit_bytes as f64),
        }
    }
}

pub(crate) fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole != 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str, pairs: &[(Figure, u64)]) -> Option<f64> {
        let mut sample = Sample::default();
        pairs.iter().for_each(|(figure, value)| sample.set(*figure, *value));
        Name::named(name).expect("a name").value(&sample, Step::Minute, 1_000)
    }

    #[test]
    fn every_name_is_found() {
        assert!(NAMES.is_sorted_by_key(|(name, _)| name));
        for name in Name::all() {
            assert_eq!(Name::named(name.text()).map(Name::text), Some(name.text()));
        }
        assert!(Name::named("hit").is_none());
    }

    #[test]
    fn rates_are_per_second_and_fractions_of_all_requests() {
        let counted = [(CmdGet, 90), (GetHits, 60), (GetMisses, 30), (CmdSet, 30), (Bytes, 512)];
        assert_eq!(value("get_rate", &counted), Some(1.5));
        assert_eq!(value("request_rate", &counted), Some(2.0));
        assert_eq!(value("get_fraction", &counted), Some(0.75));
        assert_eq!(value("set_fraction", &counted), Some(0.25));
        assert_eq!(value("hit_rate", &counted), Some(60.0 / 90.0));
        assert_eq!(value("bytes", &counted), Some(512.0));
        assert_eq!(value("max_bytes", &counted), Some(1_000.0));
        assert_eq!(value("touch_rate", &counted), Some(0.0));
    }

    #[test]
    fn of_nothing_there_is_no_part() {
        assert_eq!(value("hit_rate", &[(CmdSet, 5)]), None);
        assert_eq!(value("get_fraction", &[]), None);
    }
}
