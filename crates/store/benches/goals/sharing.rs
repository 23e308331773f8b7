//! What lending is worth: many tenants of whom half do not fill what they pay for.

use std::sync::Arc;

use store::operation::{Expiry, GetArgs, Seconds, StoreArgs};
use store::store::{Cache, CacheLimits, Settings, Store};
use tenancy::id::CacheId;

use crate::report::Report;
use crate::workload::{Random, Zipf, key};

const TENANTS: usize = 120;
const REQUESTS: usize = 8_000_000;
/// Requests before counting begins.
const WARM_UP: usize = 4_000_000;

struct Tenant {
    share: u64,
    value_bytes: usize,
    keys: Zipf,
    /// Requests of this tenant and those before it in the list, of all.
    cumulated: f64,
}

/// Goal 7, with tenants like SaaS-N of the study on a smaller scale.
pub(crate) fn run(report: &mut Report) {
    let tenants = tenants();
    let alone = hits(&tenants, 100);
    let lent = hits(&tenants, 400);
    let total = |hits: &[(u64, u64)]| {
        let (found, asked) = hits.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        found as f64 / asked as f64
    };
    let worst = alone
        .iter()
        .zip(&lent)
        .filter(|((_, asked), _)| *asked > 1_000)
        .map(|(alone, lent)| alone.0 as f64 / alone.1 as f64 - lent.0 as f64 / lent.1 as f64)
        .fold(0.0, f64::max);
    let (alone, lent) = (total(&alone), total(&lent));
    report.figure(
        "7: hits of 120 tenants, memory lent against each its own",
        format!(
            "{lent:.3} against {alone:.3}: {:.0} % of the misses gone",
            (lent - alone) * 100.0 / (1.0 - alone)
        ),
        "study: .936 against .874, 49 % (other tenants)",
        "more hits",
        lent > alone,
    );
    report.figure(
        "7: most that any tenant lost by lending",
        format!("{:.2} points", worst * 100.0),
        "one greedy LRU 11 points",
        "<= .5 points",
        worst <= 0.005,
    );
}

fn tenants() -> Vec<Tenant> {
    let mut random = Random(21);
    let mut cumulated = 0.0;
    (0..TENANTS)
        .map(|_| {
            let share = match random.below(100) {
                0..35 => 512 << 10,
                35..60 => 1 << 20,
                60..80 => 2 << 20,
                80..92 => 4 << 20,
                _ => 8 << 20,
            };
            let value_bytes = (40.0 * 200.0_f64.powf(random.unit())) as usize;
            let footprint = share as f64 * random.log_normal(1.0, 1.3).clamp(0.02, 20.0);
            let keys = (footprint / (value_bytes + 16) as f64).clamp(10.0, 200_000.0) as usize;
            // Who has more data asks more often.
            cumulated += footprint.sqrt() * random.log_normal(1.0, 0.7);
            Tenant {
                share,
                value_bytes,
                keys: Zipf::new(keys, 0.6 + 0.7 * random.unit()),
                cumulated,
            }
        })
        .collect()
}

/// Hits and requests of each tenant.
fn hits(tenants: &[Tenant], lending_percent: u64) -> Vec<(u64, u64)> {
    let promised: u64 = tenants.iter().map(|tenant| tenant.share).sum();
    let memory_bytes = promised * 124 / 100 + (4 << 20);
    let store = Store::new(Settings { memory_bytes, seed: 2 }).lending(lending_percent);
    let caches: Vec<Arc<Cache>> = (0_u64..)
        .zip(tenants)
        .map(|(id, tenant)| {
            let limits = CacheLimits { memory_bytes: tenant.share, item_bytes_max: 1 << 20 };
            store.create_cache(CacheId::new(id), limits).expect("all are promised")
        })
        .collect();
    let all = tenants.last().map_or(0.0, |tenant| tenant.cumulated);
    let value = [9; 8_192];
    let mut random = Random(22);
    let mut counts = vec![(0, 0); tenants.len()];
    for request in 0..REQUESTS {
        let now = Seconds(1 + (request / 100_000) as u32);
        let point = random.unit() * all;
        let number = tenants.partition_point(|tenant| tenant.cumulated <= point);
        let (tenant, cache) = (&tenants[number], &caches[number]);
        let key = key(tenant.keys.rank(&mut random) as u64);
        let at = cache.locate(&key);
        let hit = cache.get(&at, GetArgs::default(), now, |hit| hit.is_some());
        if !hit {
            let value = &value[..tenant.value_bytes];
            cache.store(&at, StoreArgs::set(value, 0, Expiry::Never), now);
        }
        if request % 10_000 == 0 {
            store.maintain(now, 1_000);
        }
        if request >= WARM_UP {
            counts[number].0 += u64::from(hit);
            counts[number].1 += 1;
        }
    }
    counts
}
