//! The top twenty applications of a memcached service over a week, rebuilt from their published
//! aggregates (Cidon et al., "Cliffhanger", NSDI 2016 and "Memshare", ATC 2017).
//!
//! Known of each are its memory, its requests, how many different keys they name and their mean
//! size. The popularity of keys is chosen so that so many requests name so many keys; sizes are
//! log-normal, popularity drifts, and everyone has days and nights. References do not depend on one
//! another, as they would in the true trace, so figures compare with figures on this mix only.

use super::chance::{Random, Zipf};
use super::source::{Day, Keys, Sizes, Source};
use super::{Mix, Tenant};

struct App {
    number: u32,
    megabytes: f64,
    million_requests: f64,
    thousand_keys: f64,
    mean_bytes: f64,
    /// Share of the requests.
    deletes: f64,
}

#[rustfmt::skip]
const APPS: [App; 20] = [
    App { number: 1, megabytes: 701.0, million_requests: 508.0, thousand_keys: 83_170.0, mean_bytes: 48.0, deletes: 0.0 },
    App { number: 2, megabytes: 119.0, million_requests: 16.3, thousand_keys: 20.0, mean_bytes: 141_133.0, deletes: 0.0 },
    App { number: 3, megabytes: 19.5, million_requests: 253.0, thousand_keys: 1_383.0, mean_bytes: 14.0, deletes: 0.0 },
    App { number: 5, megabytes: 35.7, million_requests: 79.9, thousand_keys: 23_443.0, mean_bytes: 32.0, deletes: 0.0 },
    App { number: 6, megabytes: 7.1, million_requests: 82.2, thousand_keys: 1.5, mean_bytes: 587.0, deletes: 0.0 },
    App { number: 7, megabytes: 77.8, million_requests: 19.5, thousand_keys: 305.0, mean_bytes: 6_571.0, deletes: 0.17 },
    App { number: 8, megabytes: 10.5, million_requests: 61.4, thousand_keys: 4.6, mean_bytes: 618.0, deletes: 0.0 },
    App { number: 10, megabytes: 685.0, million_requests: 28.1, thousand_keys: 2_160.0, mean_bytes: 489.0, deletes: 0.0 },
    App { number: 11, megabytes: 7.8, million_requests: 8.4, thousand_keys: 301.0, mean_bytes: 19_581.0, deletes: 0.0 },
    App { number: 13, megabytes: 36.6, million_requests: 25.1, thousand_keys: 65.6, mean_bytes: 661.0, deletes: 0.29 },
    App { number: 18, megabytes: 6.3, million_requests: 97.5, thousand_keys: 5_179.0, mean_bytes: 16.0, deletes: 0.0 },
    App { number: 19, megabytes: 51.2, million_requests: 158.0, thousand_keys: 413.0, mean_bytes: 3_468.0, deletes: 0.0 },
    App { number: 20, megabytes: 71.0, million_requests: 84.3, thousand_keys: 127.0, mean_bytes: 1_026.0, deletes: 0.0 },
    App { number: 23, megabytes: 4_543.0, million_requests: 18.1, thousand_keys: 1_197.0, mean_bytes: 6_012.0, deletes: 0.0 },
    App { number: 29, megabytes: 187.0, million_requests: 28.6, thousand_keys: 1_364.0, mean_bytes: 1_791.0, deletes: 0.0 },
    App { number: 31, megabytes: 1_410.0, million_requests: 12.3, thousand_keys: 318.0, mean_bytes: 4_709.0, deletes: 0.0 },
    App { number: 53, megabytes: 11.0, million_requests: 13.5, thousand_keys: 25.0, mean_bytes: 139.0, deletes: 0.0 },
    App { number: 59, megabytes: 1.7, million_requests: 55.1, thousand_keys: 128.0, mean_bytes: 4_619.0, deletes: 0.0 },
    App { number: 94, megabytes: 23.2, million_requests: 20.6, thousand_keys: 1_435.0, mean_bytes: 187.0, deletes: 0.0 },
    App { number: 227, megabytes: 20.2, million_requests: 45.6, thousand_keys: 35.5, mean_bytes: 261.0, deletes: 0.0 },
];

const WEEK_SECONDS: f64 = 7.0 * 86_400.0;
/// The keys that are named are so many of those there are.
const NAMED_SHARE: f64 = 0.9;
/// Bytes of a key; the published sizes are of whole items.
const KEY_BYTES: f64 = 16.0;

/// Requests of the whole week, at the scale of [`mix`].
pub fn requests(scale: u32) -> u64 {
    let millions: f64 = APPS.iter().map(|app| app.million_requests).sum();
    (millions * 1e6 / f64::from(scale)) as u64
}

/// Memory, requests and keys of every tenant divided by `scale`.
pub fn mix(scale: u32, seed: u64) -> Mix {
    let mut random = Random::new(seed);
    let scale = f64::from(scale);
    let tenants = APPS.iter().map(|app| Tenant {
        name: format!("app {}", app.number),
        memory_bytes: (app.megabytes * f64::from(1 << 20) / scale) as u64,
    });
    let sources = (0..).zip(&APPS).map(|(tenant, app)| {
        let draws = app.million_requests * 1e6 / scale;
        let named = (app.thousand_keys * 1e3 / scale).max(10.0);
        let keys = Keys::Drifting(zipf_naming(named, draws));
        let mean = (app.mean_bytes - KEY_BYTES).max(2.0);
        let mut source = Source::new(tenant, draws, keys, Sizes::LogNormal { mean, sigma: 1.0 });
        source.day = Day::Wave { phase: random.unit(), swing: 0.8 };
        source.deletes = app.deletes;
        // Reads are 56 to 100 % of the requests; who deletes much writes what it has deleted.
        source.sets = if app.deletes > 0.0 { 0.0 } else { 0.44 * random.unit() * random.unit() };
        source
    });
    let (tenants, sources) = (tenants.collect(), sources.collect());
    let per_second = requests(1) as f64 / scale / WEEK_SECONDS;
    Mix::new(tenants, sources, per_second, seed)
}

/// A popularity of which so many draws name so many keys.
fn zipf_naming(named: f64, draws: f64) -> Zipf {
    let ranks = (named / NAMED_SHARE) as usize;
    let (mut flat, mut steep) = (0.0, 3.0);
    for _ in 0..30 {
        let alpha = (flat + steep) / 2.0;
        if Zipf::new(ranks, alpha).distinct(draws) > named {
            flat = alpha;
        } else {
            steep = alpha;
        }
    }
    Zipf::new(ranks, flat)
}

#[cfg(test)]
mod tests {
    use super::super::Operation;
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn tenants_ask_as_much_for_as_many_keys_as_was_published() {
        const SCALE: u32 = 1_000;
        let mut asked = [0_u32; APPS.len()];
        let mut deletes = [0_u32; APPS.len()];
        let mut keys = vec![HashSet::new(); APPS.len()];
        let mix = mix(SCALE, 7);
        assert_eq!(mix.tenants.len(), 20);
        for request in mix.take(requests(SCALE) as usize) {
            let tenant = request.tenant as usize;
            asked[tenant] += 1;
            deletes[tenant] += u32::from(request.operation == Operation::Delete);
            keys[tenant].insert(request.key);
        }
        for (number, app) in APPS.iter().enumerate() {
            let requests = f64::from(asked[number]);
            let share = requests / (app.million_requests * 1e3);
            assert!((0.93..1.07).contains(&share), "app {}: {share} of its requests", app.number);
            let deleted = f64::from(deletes[number]) / requests;
            assert!((deleted - app.deletes).abs() < 0.01, "app {}: {deleted}", app.number);
            // Popularity drifts, so rather more keys are named than without.
            let named = keys[number].len() as f64 / app.thousand_keys;
            assert!(
                app.thousand_keys < 20.0 || (0.85..1.15).contains(&named),
                "{named} of {}",
                app.number
            );
        }
    }
}
