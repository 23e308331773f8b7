//! The caches of a social network: one tenant for each cluster of the statistics of March 2020 that
//! Twitter published with its traces (Yang et al., OSDI 2020; <https://github.com/twitter/cache-trace>,
//! `stat/2020Mar.md`). Cluster 5 is not in them.
//!
//! Known of each are the mean sizes of keys and values, the rate, how often a key is asked for and
//! how many are asked for once, what is asked, how popularity falls (Zipf), and the most common
//! lifetimes. Sizes around the mean are log-normal, which is our choice; so is the memory: half of
//! what an hour's keys take.

use super::chance::Zipf;
use super::source::{Keys, Sizes, Source};
use super::{Mix, Tenant};

struct Cluster {
    number: u32,
    key_bytes: u32,
    value_bytes: u32,
    thousand_per_second: f64,
    /// Requests for a key, on average.
    frequency: f64,
    /// Keys of a hundred that are asked for once.
    once_percent: f64,
    alpha: f64,
    sets: f64,
    deletes: f64,
    increments: f64,
    /// Share and seconds.
    lifetimes: &'static [(f64, u32)],
}

/// All rates are divided by this, so that an hour of all of them is a few million requests.
const SCALE: f64 = 500.0;
/// Time whose keys a tenant may ask for.
const HOUR_SECONDS: f64 = 3_600.0;
/// A key that is asked for rarely may be one of so many; more are not told apart.
const KEYS_MAX: f64 = 2e6;

pub fn mix(seed: u64) -> Mix {
    let mut tenants = Vec::new();
    let mut sources = Vec::new();
    let mut all = 0.0;
    for (number, cluster) in (0..).zip(CLUSTERS) {
        let rate = cluster.thousand_per_second * 1e3 / SCALE;
        all += rate;
        let keys = (rate * HOUR_SECONDS / cluster.frequency).clamp(10.0, KEYS_MAX);
        let item_bytes = f64::from(cluster.key_bytes + cluster.value_bytes);
        let memory_bytes = ((keys * item_bytes / 2.0) as u64).clamp(512 << 10, 64 << 20);
        tenants.push(Tenant { name: format!("cluster {}", cluster.number), memory_bytes });
        let sizes = match cluster.value_bytes {
            bytes @ 0..16 => Sizes::Fixed(bytes),
            bytes => Sizes::LogNormal { mean: f64::from(bytes), sigma: 0.8 },
        };
        // Keys that are asked for once are not drawn: they come in order, and never again.
        let once = cluster.once_percent / 100.0 / cluster.frequency;
        let popular = Keys::Drifting(Zipf::new(keys as usize, cluster.alpha));
        let in_order = Keys::InOrder { keys: u64::MAX / 2, next: 0 };
        for (share, keys, first_key) in [(1.0 - once, popular, 0), (once, in_order, ONCE)] {
            let mut source = Source::new(number, rate * share, keys, sizes);
            source.first_key = first_key;
            source.sets = cluster.sets;
            source.deletes = cluster.deletes;
            source.increments = cluster.increments;
            source.lifetimes = cluster.lifetimes.to_vec();
            sources.push(source);
        }
    }
    Mix::new(tenants, sources, all, seed)
}

/// Numbers of keys that are asked for once begin here, beyond all others.
const ONCE: u64 = 1 << 40;

#[rustfmt::skip]
const CLUSTERS: &[Cluster] = &[
    Cluster { number: 1, key_bytes: 80, value_bytes: 267, thousand_per_second: 11.4, frequency: 26574.9, once_percent: 0.01, alpha: 2.6774, sets: 0.0, deletes: 0.0, increments: 0.0, lifetimes: &[(1.0, 240)] },
    Cluster { number: 2, key_bytes: 21, value_bytes: 68, thousand_per_second: 12.15, frequency: 934.5, once_percent: 0.01, alpha: 1.4908, sets: 0.0, deletes: 0.0, increments: 0.0, lifetimes: &[(0.59, 345_600), (0.41, 172_800)] },
    Cluster { number: 3, key_bytes: 19, value_bytes: 120, thousand_per_second: 1.36, frequency: 91.4, once_percent: 15.66, alpha: 1.6414, sets: 0.0, deletes: 0.0, increments: 0.0, lifetimes: &[(1.0, 604_800)] },
    Cluster { number: 4, key_bytes: 67, value_bytes: 2439, thousand_per_second: 5.26, frequency: 26.5, once_percent: 29.33, alpha: 1.1004, sets: 0.07, deletes: 0.0, increments: 0.0, lifetimes: &[(0.39, 60), (0.24, 300), (0.13, 3_600), (0.12, 600), (0.09, 14_400), (0.03, 86_400)] },
    Cluster { number: 6, key_bytes: 44, value_bytes: 252, thousand_per_second: 12.61, frequency: 327.3, once_percent: 0.63, alpha: 1.882, sets: 0.02, deletes: 0.0, increments: 0.0, lifetimes: &[(0.03, 520), (0.03, 510), (0.03, 490), (0.03, 590), (0.03, 540), (0.03, 550), (0.02, 570), (0.02, 500), (0.02, 580), (0.02, 596)] },
    Cluster { number: 7, key_bytes: 17, value_bytes: 1936, thousand_per_second: 1.62, frequency: 72.9, once_percent: 0.01, alpha: 1.0666, sets: 0.18, deletes: 0.0, increments: 0.0, lifetimes: &[(0.28, 6_480), (0.24, 6_120), (0.23, 6_840), (0.13, 5_760), (0.12, 7_200)] },
    Cluster { number: 8, key_bytes: 23, value_bytes: 9497, thousand_per_second: 2.11, frequency: 1532.6, once_percent: 0.34, alpha: 1.7366, sets: 0.5, deletes: 0.0, increments: 0.0, lifetimes: &[(0.95, 1_380), (0.05, 1_379)] },
    Cluster { number: 9, key_bytes: 32, value_bytes: 39, thousand_per_second: 18.83, frequency: 463.9, once_percent: 8.5, alpha: 1.6796, sets: 0.0, deletes: 0.0, increments: 0.0, lifetimes: &[(0.79, 7_200), (0.02, 5_040), (0.02, 3_960), (0.02, 6_840), (0.02, 5_760), (0.02, 4_320), (0.02, 6_480), (0.02, 5_400), (0.02, 6_120), (0.02, 4_680)] },
    Cluster { number: 10, key_bytes: 22, value_bytes: 2333, thousand_per_second: 0.22, frequency: 2.0, once_percent: 0.08, alpha: 0.0, sets: 0.5, deletes: 0.0, increments: 0.0, lifetimes: &[(1.0, 7_200)] },
    Cluster { number: 11, key_bytes: 24, value_bytes: 170, thousand_per_second: 4.16, frequency: 45.7, once_percent: 6.18, alpha: 1.4891, sets: 0.03, deletes: 0.0, increments: 0.0, lifetimes: &[(0.97, 432_000), (0.03, 20)] },
    Cluster { number: 12, key_bytes: 44, value_bytes: 1030, thousand_per_second: 4.36, frequency: 1.3, once_percent: 81.43, alpha: 0.3048, sets: 0.8, deletes: 0.0, increments: 0.0, lifetimes: &[(0.98, 300), (0.02, 299)] },
    Cluster { number: 13, key_bytes: 44, value_bytes: 4266, thousand_per_second: 1.34, frequency: 1.6, once_percent: 64.39, alpha: 0.4565, sets: 0.62, deletes: 0.0, increments: 0.0, lifetimes: &[(0.97, 300), (0.03, 299)] },
    Cluster { number: 14, key_bytes: 96, value_bytes: 414, thousand_per_second: 5.81, frequency: 35.4, once_percent: 10.94, alpha: 1.2959, sets: 0.13, deletes: 0.22, increments: 0.0, lifetimes: &[(1.0, 86_400)] },
    Cluster { number: 15, key_bytes: 18, value_bytes: 102, thousand_per_second: 9.02, frequency: 1.0, once_percent: 99.57, alpha: 0.0242, sets: 1.0, deletes: 0.0, increments: 0.0, lifetimes: &[(1.0, 30)] },
    Cluster { number: 16, key_bytes: 18, value_bytes: 115, thousand_per_second: 17.51, frequency: 277.0, once_percent: 1.89, alpha: 1.7862, sets: 0.05, deletes: 0.0, increments: 0.0, lifetimes: &[(0.99, 3_600)] },
    Cluster { number: 17, key_bytes: 19, value_bytes: 212, thousand_per_second: 0.35, frequency: 60.8, once_percent: 38.87, alpha: 2.1106, sets: 0.0, deletes: 0.0, increments: 0.0, lifetimes: &[(1.0, 432_000)] },
    Cluster { number: 18, key_bytes: 18, value_bytes: 37, thousand_per_second: 26.4, frequency: 660.5, once_percent: 0.71, alpha: 2.0994, sets: 0.02, deletes: 0.0, increments: 0.0, lifetimes: &[(1.0, 43_200)] },
    Cluster { number: 19, key_bytes: 42, value_bytes: 101, thousand_per_second: 3.31, frequency: 4.7, once_percent: 7.46, alpha: 0.735, sets: 0.25, deletes: 0.0, increments: 0.0, lifetimes: &[(0.08, 27_000), (0.07, 26_640), (0.07, 23_760), (0.07, 25_920), (0.07, 24_120), (0.07, 25_200), (0.07, 25_560), (0.07, 24_480), (0.07, 24_840), (0.06, 26_280)] },
    Cluster { number: 20, key_bytes: 26, value_bytes: 55, thousand_per_second: 5.63, frequency: 29.7, once_percent: 61.54, alpha: 1.3699, sets: 0.03, deletes: 0.0, increments: 0.0, lifetimes: &[(0.99, 432_000)] },
    Cluster { number: 21, key_bytes: 25, value_bytes: 1, thousand_per_second: 2.18, frequency: 1.1, once_percent: 98.96, alpha: 0.0521, sets: 1.0, deletes: 0.0, increments: 0.0, lifetimes: &[(0.62, 7_920), (0.23, 10), (0.14, 900)] },
    Cluster { number: 22, key_bytes: 54, value_bytes: 4, thousand_per_second: 3.24, frequency: 4.3, once_percent: 41.48, alpha: 0.7624, sets: 0.1, deletes: 0.0, increments: 0.18, lifetimes: &[(0.85, 86_400), (0.11, 3_600), (0.03, 1_800)] },
    Cluster { number: 23, key_bytes: 35, value_bytes: 224, thousand_per_second: 8.69, frequency: 3.9, once_percent: 1.17, alpha: 0.274, sets: 0.31, deletes: 0.02, increments: 0.3, lifetimes: &[(0.93, 120), (0.05, 2_700), (0.03, 5)] },
    Cluster { number: 24, key_bytes: 32, value_bytes: 699, thousand_per_second: 5.29, frequency: 134.8, once_percent: 5.65, alpha: 1.3726, sets: 0.0, deletes: 0.0, increments: 0.0, lifetimes: &[(0.71, 1_209_600), (0.19, 60), (0.03, 2_592_000), (0.02, 86_400), (0.02, 3_600)] },
    Cluster { number: 25, key_bytes: 49, value_bytes: 28, thousand_per_second: 18.97, frequency: 662.7, once_percent: 3.22, alpha: 0.9929, sets: 0.04, deletes: 0.0, increments: 0.0, lifetimes: &[(0.99, 2_592_000)] },
    Cluster { number: 26, key_bytes: 122, value_bytes: 1745, thousand_per_second: 0.25, frequency: 13.0, once_percent: 0.11, alpha: 0.6299, sets: 0.29, deletes: 0.0, increments: 0.0, lifetimes: &[(0.67, 60), (0.1, 120), (0.09, 360), (0.06, 600), (0.03, 660), (0.02, 180)] },
    Cluster { number: 27, key_bytes: 66, value_bytes: 8, thousand_per_second: 24.55, frequency: 9.0, once_percent: 22.21, alpha: 1.065, sets: 0.15, deletes: 0.0, increments: 0.0, lifetimes: &[(0.28, 8_000_640), (0.25, 86_400), (0.2, 3_600), (0.18, 14_400), (0.06, 21_600), (0.02, 43_200)] },
    Cluster { number: 28, key_bytes: 45, value_bytes: 85, thousand_per_second: 9.05, frequency: 66.2, once_percent: 27.13, alpha: 1.503, sets: 0.06, deletes: 0.0, increments: 0.0, lifetimes: &[(0.56, 10_800), (0.43, 103_680)] },
    Cluster { number: 29, key_bytes: 36, value_bytes: 799, thousand_per_second: 10.73, frequency: 22.5, once_percent: 23.04, alpha: 1.2323, sets: 0.13, deletes: 0.0, increments: 0.0, lifetimes: &[(0.67, 3_600), (0.33, 7_200)] },
    Cluster { number: 30, key_bytes: 22, value_bytes: 689, thousand_per_second: 3.85, frequency: 154.4, once_percent: 2.77, alpha: 1.4259, sets: 0.0, deletes: 0.0, increments: 0.0, lifetimes: &[(0.36, 43_200), (0.04, 36_720), (0.04, 42_480), (0.03, 34_920), (0.03, 38_160), (0.03, 41_400), (0.03, 39_600), (0.03, 40_680), (0.03, 42_120), (0.03, 42_840)] },
    Cluster { number: 31, key_bytes: 41, value_bytes: 15, thousand_per_second: 2.52, frequency: 1.1, once_percent: 94.06, alpha: 0.0, sets: 0.94, deletes: 0.0, increments: 0.0, lifetimes: &[(1.0, 60)] },
    Cluster { number: 32, key_bytes: 41, value_bytes: 138, thousand_per_second: 7.35, frequency: 1.0, once_percent: 97.56, alpha: 0.0, sets: 0.98, deletes: 0.0, increments: 0.0, lifetimes: &[(1.0, 60)] },
    Cluster { number: 33, key_bytes: 24, value_bytes: 1118, thousand_per_second: 10.53, frequency: 254.5, once_percent: 0.99, alpha: 1.354, sets: 0.01, deletes: 0.0, increments: 0.0, lifetimes: &[(0.05, 38_520), (0.05, 40_320), (0.04, 42_120), (0.04, 41_760), (0.04, 41_400), (0.04, 39_240), (0.04, 40_680), (0.04, 38_160), (0.04, 35_280), (0.04, 39_960)] },
    Cluster { number: 34, key_bytes: 33, value_bytes: 322, thousand_per_second: 3.4, frequency: 49.4, once_percent: 0.26, alpha: 1.1401, sets: 0.06, deletes: 0.0, increments: 0.0, lifetimes: &[(0.04, 38_160), (0.04, 37_800), (0.04, 39_960), (0.04, 35_280), (0.04, 40_320), (0.04, 38_520), (0.04, 34_920), (0.04, 36_000), (0.03, 36_360), (0.03, 37_440)] },
    Cluster { number: 35, key_bytes: 19, value_bytes: 1796, thousand_per_second: 3.06, frequency: 14.8, once_percent: 31.01, alpha: 0.0, sets: 0.04, deletes: 0.0, increments: 0.0, lifetimes: &[(1.0, 60)] },
    Cluster { number: 36, key_bytes: 23, value_bytes: 78, thousand_per_second: 9.08, frequency: 46.8, once_percent: 2.4, alpha: 1.2169, sets: 0.05, deletes: 0.0, increments: 0.0, lifetimes: &[(1.0, 2_592_000)] },
    Cluster { number: 37, key_bytes: 72, value_bytes: 20134, thousand_per_second: 4.15, frequency: 3.8, once_percent: 14.88, alpha: 0.4251, sets: 0.37, deletes: 0.0, increments: 0.0, lifetimes: &[(0.91, 20), (0.06, 300), (0.02, 7_200), (0.01, 600)] },
    Cluster { number: 38, key_bytes: 41, value_bytes: 185, thousand_per_second: 2.52, frequency: 1.1, once_percent: 94.06, alpha: 0.0, sets: 0.94, deletes: 0.0, increments: 0.0, lifetimes: &[(1.0, 60)] },
    Cluster { number: 39, key_bytes: 41, value_bytes: 80, thousand_per_second: 2.52, frequency: 1.1, once_percent: 94.06, alpha: 0.0, sets: 0.94, deletes: 0.0, increments: 0.0, lifetimes: &[(1.0, 60)] },
    Cluster { number: 40, key_bytes: 44, value_bytes: 155, thousand_per_second: 6.26, frequency: 11.8, once_percent: 0.1, alpha: 0.8551, sets: 0.5, deletes: 0.0, increments: 0.0, lifetimes: &[(0.95, 28_800), (0.05, 86_400)] },
    Cluster { number: 41, key_bytes: 44, value_bytes: 171, thousand_per_second: 5.18, frequency: 11.8, once_percent: 0.0, alpha: 0.8542, sets: 0.5, deletes: 0.0, increments: 0.0, lifetimes: &[(0.95, 28_800), (0.05, 86_400)] },
    Cluster { number: 42, key_bytes: 40, value_bytes: 4703, thousand_per_second: 6.84, frequency: 229.9, once_percent: 0.05, alpha: 1.5974, sets: 0.04, deletes: 0.0, increments: 0.0, lifetimes: &[(0.82, 600), (0.16, 300), (0.02, 21_600)] },
    Cluster { number: 43, key_bytes: 44, value_bytes: 304, thousand_per_second: 14.54, frequency: 18.4, once_percent: 0.0, alpha: 0.0, sets: 0.5, deletes: 0.0, increments: 0.0, lifetimes: &[(1.0, 28_800)] },
    Cluster { number: 44, key_bytes: 25, value_bytes: 22, thousand_per_second: 9.41, frequency: 60.5, once_percent: 20.24, alpha: 1.4084, sets: 0.01, deletes: 0.0, increments: 0.0, lifetimes: &[(1.0, 2_592_000)] },
    Cluster { number: 45, key_bytes: 10, value_bytes: 120, thousand_per_second: 0.33, frequency: 2.9, once_percent: 48.74, alpha: 0.6372, sets: 0.15, deletes: 0.0, increments: 0.0, lifetimes: &[(1.0, 1_296_000)] },
    Cluster { number: 46, key_bytes: 44, value_bytes: 928, thousand_per_second: 10.47, frequency: 5.2, once_percent: 0.12, alpha: 0.0, sets: 0.32, deletes: 0.0, increments: 0.0, lifetimes: &[(0.58, 43_200), (0.41, 3_600)] },
    Cluster { number: 47, key_bytes: 44, value_bytes: 267, thousand_per_second: 9.54, frequency: 838.6, once_percent: 4.28, alpha: 2.0637, sets: 0.0, deletes: 0.0, increments: 0.0, lifetimes: &[(1.0, 172_800)] },
    Cluster { number: 48, key_bytes: 44, value_bytes: 70, thousand_per_second: 1.84, frequency: 3.5, once_percent: 44.28, alpha: 0.8191, sets: 0.35, deletes: 0.0, increments: 0.0, lifetimes: &[(1.0, 86_400)] },
    Cluster { number: 49, key_bytes: 44, value_bytes: 10658, thousand_per_second: 1.25, frequency: 154.2, once_percent: 0.88, alpha: 1.5095, sets: 0.43, deletes: 0.0, increments: 0.0, lifetimes: &[(0.99, 86_400), (0.01, 86_400)] },
    Cluster { number: 50, key_bytes: 18, value_bytes: 67485, thousand_per_second: 0.24, frequency: 22.1, once_percent: 7.86, alpha: 1.2816, sets: 0.48, deletes: 0.0, increments: 0.0, lifetimes: &[(0.73, 900), (0.24, 1_200), (0.03, 1_199)] },
    Cluster { number: 51, key_bytes: 44, value_bytes: 221, thousand_per_second: 10.4, frequency: 814.8, once_percent: 5.65, alpha: 1.9745, sets: 0.1, deletes: 0.0, increments: 0.0, lifetimes: &[(1.0, 172_800)] },
    Cluster { number: 52, key_bytes: 20, value_bytes: 273, thousand_per_second: 24.25, frequency: 32.6, once_percent: 19.36, alpha: 1.2117, sets: 0.06, deletes: 0.0, increments: 0.0, lifetimes: &[(0.65, 86_400), (0.27, 1_209_600), (0.07, 43_200)] },
    Cluster { number: 53, key_bytes: 36, value_bytes: 9213, thousand_per_second: 1.38, frequency: 27.6, once_percent: 13.19, alpha: 1.2061, sets: 0.12, deletes: 0.0, increments: 0.0, lifetimes: &[(0.66, 2_592_000), (0.34, 1_814_400)] },
    Cluster { number: 54, key_bytes: 19, value_bytes: 246, thousand_per_second: 0.65, frequency: 9.8, once_percent: 54.83, alpha: 1.611, sets: 0.03, deletes: 0.0, increments: 0.0, lifetimes: &[(0.13, 13_680), (0.13, 11_880), (0.13, 12_240), (0.12, 14_040), (0.12, 12_600), (0.12, 12_960), (0.11, 13_320), (0.07, 14_400), (0.06, 11_520)] },
];

#[cfg(test)]
mod tests {
    use super::super::Operation;
    use super::*;

    #[test]
    fn shares_of_operations_and_lifetimes_are_those_published() {
        assert_eq!(CLUSTERS.len(), 53);
        let at = CLUSTERS.iter().position(|cluster| cluster.number == 22).expect("it is there");
        let requests: Vec<_> =
            mix(3).filter(|one| one.tenant as usize == at).take(20_000).collect();
        let share = |is: &dyn Fn(&super::super::Request) -> bool| {
            requests.iter().filter(|one| is(one)).count() as f64 / 20_000.0
        };
        let near = |found: f64, expected: f64| (found - expected).abs() < 0.03;
        assert!(near(share(&|one| one.operation == Operation::Increment), 0.18));
        assert!(near(share(&|one| one.operation == Operation::Set), 0.10));
        // A key keeps its lifetime and some keys come often, so this is less exact.
        assert!((share(&|one| one.lifetime_seconds == Some(86_400)) - 0.85).abs() < 0.1);
    }
}
