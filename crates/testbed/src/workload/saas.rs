//! Many small tenants of a hosted service: plans from half a megabyte (on one node) to 64, of which
//! half are not filled.

use super::chance::{Random, Zipf};
use super::source::{Day, Keys, Sizes, Source};
use super::{Mix, Tenant};

/// Plans, and how many of a hundred tenants have this one or a smaller one.
const PLANS: [(u64, f64); 8] = [
    (512 << 10, 35.0),
    (1 << 20, 60.0),
    (2 << 20, 76.0),
    (4 << 20, 87.0),
    (8 << 20, 94.0),
    (16 << 20, 98.0),
    (32 << 20, 99.5),
    (64 << 20, 100.0),
];
/// What a tenant would keep against its plan: the median fills it, so half do not.
const FOOTPRINT_SIGMA: f64 = 1.3;
/// Requests per second of an average tenant.
const RATE: f64 = 20.0;
const KEY_BYTES: f64 = 16.0;

/// A service with so many tenants.
pub fn mix(tenants: u32, seed: u64) -> Mix {
    let mut random = Random::new(seed);
    let mut all = Vec::new();
    let mut sources = Vec::new();
    for tenant in 0..tenants {
        let of_hundred = random.unit() * 100.0;
        let plan = PLANS.iter().find(|(_, up_to)| of_hundred < *up_to);
        let memory_bytes = plan.map_or(64 << 20, |(bytes, _)| *bytes);
        all.push(Tenant { name: format!("tenant {tenant}"), memory_bytes });
        let mean = 40.0 * 200.0_f64.powf(random.unit());
        let filled = random.log_normal(1.0, FOOTPRINT_SIGMA).clamp(0.02, 20.0);
        let footprint = memory_bytes as f64 * filled;
        let keys = (footprint / (mean + KEY_BYTES)).clamp(10.0, 2e6) as usize;
        let zipf = Zipf::new(keys, 0.6 + 0.7 * random.unit());
        // Who has more data asks more often.
        let weight = footprint.sqrt() * random.log_normal(1.0, 0.7);
        let sizes = Sizes::LogNormal { mean, sigma: 1.0 };
        let mut source = Source::new(tenant, weight, Keys::Drifting(zipf), sizes);
        source.day = Day::Wave { phase: random.unit(), swing: 0.8 };
        source.sets = 0.1 * random.unit();
        sources.push(source);
    }
    Mix::new(all, sources, RATE * f64::from(tenants), seed)
}
