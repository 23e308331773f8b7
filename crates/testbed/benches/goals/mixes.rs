//! Many tenants on one store: what lending is worth, and whom it costs.

use std::sync::Arc;

use store::operation::{
    ArithmeticArgs, DeleteArgs, Direction, Expiry, GetArgs, Initial, Seconds, StoreArgs,
};
use store::store::{Cache, CacheLimits, Settings, Store};
use tenancy::id::CacheId;
use testbed::workload::{Mix, Operation, mc20, saas, shapes, tw54};

use crate::keys::key;
use crate::report::Report;

/// Everything of MC20 is divided by this; `MC20_SCALE` says otherwise. The study has 16.
fn mc20_scale() -> u32 {
    let scale = std::env::var("MC20_SCALE").ok().and_then(|text| text.parse().ok());
    scale.unwrap_or(64)
}

/// Goal 7, and every shape that a store should stand.
pub(crate) fn run(report: &mut Report) {
    let scale = mc20_scale();
    let requests = mc20::requests(scale);
    compare(
        report,
        &format!("7: MC20 at 1/{scale}, {} M requests", requests / 1_000_000),
        || mc20::mix(scale, 5),
        requests / 7..requests,
        "study: .835 against .784 (at 1/16), slab LRU .715",
    );
    compare(
        report,
        "7: SaaS-120, 8 M requests",
        || saas::mix(120, 5),
        4_000_000..12_000_000,
        "study: .936 against .874, slab LRU .821",
    );
    compare(report, "TW54, 6 M requests", || tw54::mix(5), 3_000_000..9_000_000, "-");
    type Shape = fn(u64) -> Mix;
    let shapes: [(&str, Shape, u64); 8] = [
        ("scan", shapes::scan, 3_000_000),
        ("lifetimes", shapes::lifetimes, 3_000_000),
        ("sessions", shapes::sessions, 2_000_000),
        ("counters", shapes::counters, 2_000_000),
        ("large values", shapes::large_values, 1_000_000),
        ("deletions", shapes::deletions, 2_000_000),
        ("liar", shapes::liar, 4_000_000),
        ("diurnal", shapes::diurnal, 4 * 86_400 * 50),
    ];
    for (name, shape, requests) in shapes {
        compare(report, name, || shape(5), requests / 3..requests, "-");
    }
}

/// Replays a mix with each tenant on its own and with memory lent; counts requests in `counted`.
fn compare(
    report: &mut Report,
    name: &str,
    mix: impl Fn() -> Mix,
    counted: std::ops::Range<u64>,
    bar: &str,
) {
    let names: Vec<String> = mix().tenants.into_iter().map(|tenant| tenant.name).collect();
    let alone = hits(mix(), 100, &counted);
    let lent = hits(mix(), 400, &counted);
    let total = |hits: &[(u64, u64)]| {
        let (found, asked) = hits.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        found as f64 / asked.max(1) as f64
    };
    let mut worst = 0.0_f64;
    for ((alone, lent), tenant) in alone.iter().zip(&lent).zip(&names) {
        if alone.1 <= 1_000 {
            continue;
        }
        let [alone, lent] = [alone, lent].map(|(found, asked)| *found as f64 / *asked as f64);
        worst = worst.max(alone - lent);
        if alone - lent > 0.002 {
            println!("({tenant} hits {lent:.4} instead of {alone:.4})");
        }
    }
    let (alone, lent) = (total(&alone), total(&lent));
    report.figure(
        &format!("{name}: hits, memory lent against each its own"),
        format!(
            "{lent:.4} against {alone:.4}, {:.0} % fewer misses; worst tenant {:.2} points less",
            (lent - alone) * 100.0 / (1.0 - alone),
            worst * 100.0
        ),
        bar,
        "no tenant loses .5 points",
        worst <= 0.005 && lent >= alone - 0.001,
    );
}

/// Hits and reads of each tenant.
fn hits(mix: Mix, lending_percent: u64, counted: &std::ops::Range<u64>) -> Vec<(u64, u64)> {
    // What guarantees need, and nothing to spare.
    let open = mix.tenants.len() as u64 * 4 * 8_192;
    let memory_bytes = mix.memory_bytes() * 122 / 100 + open + (4 << 20);
    let store = Store::new(Settings { memory_bytes, seed: 2 }).lending(lending_percent);
    let caches: Vec<Arc<Cache>> = (0_u64..)
        .zip(&mix.tenants)
        .map(|(id, tenant)| {
            let limits = CacheLimits { memory_bytes: tenant.memory_bytes, item_bytes_max: 1 << 20 };
            store.create_cache(CacheId::new(id), limits).expect("all are promised")
        })
        .collect();
    let mut counts = vec![(0, 0); caches.len()];
    let value = vec![9; 1 << 20];
    for (number, request) in (0..counted.end).zip(mix) {
        let now = Seconds(1 + request.second);
        let tenant = request.tenant as usize;
        let cache = &caches[tenant];
        let key = key(request.key);
        let at = cache.locate(&key);
        let expiry = match request.lifetime_seconds {
            Some(seconds) => Expiry::At(Seconds(now.0 + seconds)),
            None => Expiry::Never,
        };
        let set = StoreArgs::set(&value[..request.value_bytes as usize], 0, expiry);
        match request.operation {
            Operation::Get => {
                let hit = cache.get(&at, GetArgs::default(), now, |hit| hit.is_some());
                if !hit {
                    cache.store(&at, set, now);
                }
                if counted.contains(&number) {
                    counts[tenant].0 += u64::from(hit);
                    counts[tenant].1 += 1;
                }
            }
            Operation::Set => {
                cache.store(&at, set, now);
            }
            Operation::Delete => {
                cache.delete(&at, DeleteArgs::default(), now);
            }
            Operation::Increment => {
                let one = ArithmeticArgs {
                    initial: Some(Initial { number: 0, expiry }),
                    ..ArithmeticArgs::plain(Direction::Increment, 1)
                };
                let before = cache.peek(&at, now, |hit| hit.is_some());
                cache.arithmetic(&at, one, now);
                if counted.contains(&number) {
                    counts[tenant].0 += u64::from(before);
                    counts[tenant].1 += 1;
                }
            }
        }
        if number % 4_096 == 0 {
            store.maintain(now, 1_000);
        }
    }
    counts
}
