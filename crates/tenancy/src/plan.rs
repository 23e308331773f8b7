//! What a cache may use: plans, and the limits they give.

/// How much one cache may use. A plan gives them; the data plane enforces them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory for the cache's items, keys and their bookkeeping.
    pub memory_bytes: u64,
    /// Largest key and value together.
    pub item_bytes_max: u32,
    /// Authenticated connections at one time.
    pub connections_max: u32,
    /// How fast it may be used at each proxy.
    pub rates: Rates,
}

/// How fast one cache may be used at each proxy; what is 0 has no limit. Whoever wants more waits:
/// nothing is refused for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// Keys asked for or written, and other commands.
    pub operations_per_second: u64,
    /// Bytes from and to its clients.
    pub bytes_per_second: u64,
}

impl Rates {
    pub const UNLIMITED: Rates = Rates { operations_per_second: 0, bytes_per_second: 0 };
}

/// A size of cache that can be had.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// `dev`, or the memory in MiB: what people write after `--plan`.
    pub name: &'static str,
    pub limits: Limits,
}

impl Plan {
    /// The plan of this name.
    pub fn named(name: &str) -> Option<&'static Plan> {
        PLANS.iter().find(|plan| plan.name == name)
    }

    /// For trying things out and for development: 25 MiB.
    pub const DEVELOPMENT: &'static Plan = &PLANS[0];
}

const MIB: u64 = 1 << 20;
/// Key and value together, as memcached and its clients expect by default.
const ITEM_BYTES: u32 = 1 << 20;
/// For caches large enough that a few such items do not crowd out everything else.
const LARGE_ITEM_BYTES: u32 = 4 << 20;

const fn plan(name: &'static str, mib: u64, item_bytes_max: u32, connections_max: u32) -> Plan {
    let rates = Rates::UNLIMITED;
    let memory_bytes = mib * MIB;
    Plan { name, limits: Limits { memory_bytes, item_bytes_max, connections_max, rates } }
}

/// Every plan, by rising memory. Connections grow with the plan, because larger caches serve larger
/// fleets; they end at 20,000, what one process can hold open under common descriptor limits.
pub const PLANS: &[Plan] = &[
    plan("dev", 25, ITEM_BYTES, 1_000),
    plan("100", 100, ITEM_BYTES, 2_000),
    plan("250", 250, ITEM_BYTES, 5_000),
    plan("500", 500, ITEM_BYTES, 10_000),
    plan("1000", 1_000, ITEM_BYTES, 20_000),
    plan("2500", 2_500, ITEM_BYTES, 20_000),
    plan("5000", 5_000, LARGE_ITEM_BYTES, 20_000),
    plan("10000", 10_000, LARGE_ITEM_BYTES, 20_000),
    plan("20000", 20_000, LARGE_ITEM_BYTES, 20_000),
    plan("50000", 50_000, LARGE_ITEM_BYTES, 20_000),
    plan("100000", 100_000, LARGE_ITEM_BYTES, 20_000),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_development_cache_has_25_mib() {
        assert_eq!(Plan::DEVELOPMENT.name, "dev");
        assert_eq!(Plan::DEVELOPMENT.limits.memory_bytes, 26_214_400);
    }

    #[test]
    fn a_larger_plan_has_no_smaller_limit() {
        for pair in PLANS.windows(2) {
            let (small, large) = (pair[0].limits, pair[1].limits);
            assert!(small.memory_bytes < large.memory_bytes, "{}", pair[1].name);
            assert!(small.item_bytes_max <= large.item_bytes_max, "{}", pair[1].name);
            assert!(small.connections_max <= large.connections_max, "{}", pair[1].name);
        }
    }

    #[test]
    fn a_name_says_the_memory_in_mib() {
        for plan in &PLANS[1..] {
            assert_eq!(plan.name.parse::<u64>().map(|mib| mib * MIB), Ok(plan.limits.memory_bytes));
            assert_eq!(Plan::named(plan.name), Some(plan));
        }
        assert_eq!(Plan::named("33"), None);
    }
}
