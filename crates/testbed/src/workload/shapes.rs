//! Workloads that are each hard for one kind of cache: slabs, LRU, segments, static shares, lending.

use super::chance::Zipf;
use super::source::{Day, Keys, Sizes, Source};
use super::{Mix, Tenant};

const MIB: u64 = 1 << 20;

fn tenant(name: &str, memory_bytes: u64) -> Tenant {
    Tenant { name: name.to_owned(), memory_bytes }
}

fn popular(keys: usize, alpha: f64) -> Keys {
    Keys::Popular(Zipf::new(keys, alpha))
}

/// Three readers that fit, and one that reads 400,000 keys in order at ten times their rate: hard
/// for LRU, and for lending by demand alone.
pub fn scan(seed: u64) -> Mix {
    let mut tenants: Vec<_> = (0..3).map(|_| tenant("reader", 16 * MIB)).collect();
    tenants.push(tenant("scanner", 16 * MIB));
    let mut sources: Vec<_> = (0..3)
        .map(|number| Source::new(number, 1.0, popular(60_000, 0.9), Sizes::Fixed(300)))
        .collect();
    let in_order = Keys::InOrder { keys: 400_000, next: 0 };
    sources.push(Source::new(3, 10.0, in_order, Sizes::Fixed(300)));
    Mix::new(tenants, sources, 10_000.0, seed)
}

/// The lifetimes of a social network's cache, and sessions of 20 minutes: hard for a lazy LRU.
pub fn lifetimes(seed: u64) -> Mix {
    let tenants = vec![tenant("pages", 16 * MIB), tenant("sessions", 16 * MIB)];
    let sizes = Sizes::LogNormal { mean: 300.0, sigma: 1.0 };
    let mut pages = Source::new(0, 1.0, popular(200_000, 0.9), sizes);
    pages.lifetimes =
        vec![(0.39, 60), (0.24, 300), (0.13, 3_600), (0.12, 600), (0.09, 14_400), (0.03, 86_400)];
    let mut sessions = Source::new(1, 1.0, popular(100_000, 0.7), sizes);
    sessions.lifetimes = vec![(1.0, 1_200)];
    sessions.sets = 0.2;
    Mix::new(tenants, vec![pages, sessions], 600.0, seed)
}

/// The same keys written over and over, with sizes that change: hard for logs and slabs.
pub fn sessions(seed: u64) -> Mix {
    let sizes = Sizes::Restless { mean: 1_000.0, percent: 20.0 };
    let mut source = Source::new(0, 1.0, popular(30_000, 0.8), sizes);
    source.sets = 0.6;
    Mix::new(vec![tenant("sessions", 16 * MIB)], vec![source], 10_000.0, seed)
}

/// Nothing but counting.
pub fn counters(seed: u64) -> Mix {
    let mut source = Source::new(0, 1.0, popular(500_000, 0.9), Sizes::Fixed(8));
    source.increments = 1.0;
    Mix::new(vec![tenant("counters", 8 * MIB)], vec![source], 10_000.0, seed)
}

/// Values of 64 KB to 1 MB beside a tenant of small ones.
pub fn large_values(seed: u64) -> Mix {
    let tenants = vec![tenant("large", 64 * MIB), tenant("small", 16 * MIB)];
    let sizes = Sizes::LogNormal { mean: 300_000.0, sigma: 0.6 };
    let large = Source::new(0, 1.0, popular(500, 0.8), sizes);
    let small = Source::new(1, 10.0, popular(100_000, 0.9), Sizes::Fixed(200));
    Mix::new(tenants, vec![large, small], 5_000.0, seed)
}

/// 29 % deletions.
pub fn deletions(seed: u64) -> Mix {
    let sizes = Sizes::LogNormal { mean: 645.0, sigma: 1.0 };
    let mut source = Source::new(0, 1.0, popular(65_600, 0.9), sizes);
    source.deletes = 0.29;
    Mix::new(vec![tenant("deleter", 36 * MIB)], vec![source], 10_000.0, seed)
}

/// One tenant asks in turn for half as much again as it pays for, so that it always wants just what
/// it lost, as if to show how much it needs; the other is honest and a little short.
pub fn liar(seed: u64) -> Mix {
    let tenants = vec![tenant("liar", 16 * MIB), tenant("honest", 16 * MIB)];
    let keys = 24 * MIB / 316;
    let turn = Keys::InOrder { keys, next: 0 };
    let liar = Source::new(0, 3.0, turn, Sizes::Fixed(300));
    let honest = Source::new(1, 1.0, popular(100_000, 0.8), Sizes::Fixed(300));
    Mix::new(tenants, vec![liar, honest], 10_000.0, seed)
}

/// Two tenants that take turns, twelve hours each, and could use 1.8 times what they pay for: static
/// shares waste half.
pub fn diurnal(seed: u64) -> Mix {
    let tenants = vec![tenant("day", 16 * MIB), tenant("night", 16 * MIB)];
    let keys = (16.0 * 1.8 * MIB as f64 / 316.0) as usize;
    let half = |number: u32, first| {
        let mut source = Source::new(number, 1.0, popular(keys, 0.6), Sizes::Fixed(300));
        source.day = Day::Half { first };
        source
    };
    Mix::new(tenants, vec![half(0, true), half(1, false)], 50.0, seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_day_one_asks_and_by_night_the_other() {
        for request in diurnal(5).take(50 * 86_400).step_by(97) {
            assert_eq!(request.tenant, request.second / 43_200 % 2, "in second {}", request.second);
        }
    }

    #[test]
    fn a_liar_asks_for_everything_before_it_asks_again() {
        let keys: Vec<_> =
            liar(5).filter(|one| one.tenant == 0).take(160_000).map(|one| one.key).collect();
        assert!(keys.windows(2).all(|two| two[1] == two[0] + 1 || two[1] == 0));
        assert!(keys.iter().filter(|key| **key == 0).count() >= 2);
    }
}
