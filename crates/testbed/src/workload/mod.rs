//! Requests of many tenants as they come to caches in the field, drawn from a seed.
//!
//! * [`mc20`]: twenty applications of a memcached service; half need more than they pay for.
//! * [`tw54`]: the caches of a social network, with its lifetimes and writes.
//! * [`saas`]: many small tenants, of whom half do not fill their plan.
//! * [`shapes`]: what is hard for one kind of cache or another, one tenant or two each.
//!
//! A [`Mix`] says who pays for how much and gives an endless row of requests. It knows no cache: who
//! replays it stores what a read has missed, with the size and lifetime that the read names.

pub mod chance;
pub mod mc20;
pub mod saas;
pub mod shapes;
mod source;
pub mod tw54;

use source::Source;

use chance::Random;

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Time since the beginning.
    pub second: u32,
    /// Number in [`Mix::tenants`].
    pub tenant: u32,
    pub operation: Operation,
    /// Two tenants' keys are apart even with the same number.
    pub key: u64,
    /// Of what is written, by this request or because it missed. The same for a key each time,
    /// unless the workload is about its changing.
    pub value_bytes: u32,
    /// `None` is for ever.
    pub lifetime_seconds: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Get,
    Set,
    Delete,
    Increment,
}

/// Who pays, and for how much.
#[derive(Debug, Clone, PartialEq)]
pub struct Tenant {
    pub name: String,
    /// Key and value bytes.
    pub memory_bytes: u64,
}

/// Tenants and their requests, which never end.
pub struct Mix {
    pub tenants: Vec<Tenant>,
    sources: Vec<Source>,
    requests_per_second: f64,
    /// Sums of the sources' rates, as they are in the minute that `minute` says.
    cumulated: Vec<f64>,
    minute: Option<u32>,
    drawn: u64,
    random: Random,
}

impl Mix {
    fn new(
        tenants: Vec<Tenant>,
        sources: Vec<Source>,
        requests_per_second: f64,
        seed: u64,
    ) -> Self {
        Mix {
            tenants,
            sources,
            requests_per_second,
            cumulated: Vec::new(),
            minute: None,
            drawn: 0,
            random: Random::new(seed),
        }
    }

    /// Key and value bytes that all tenants pay for.
    pub fn memory_bytes(&self) -> u64 {
        self.tenants.iter().map(|tenant| tenant.memory_bytes).sum()
    }

    /// Who asks next.
    fn pick(&mut self, second: u32) -> usize {
        if self.minute != Some(second / 60) {
            self.minute = Some(second / 60);
            let mut sum = 0.0;
            self.cumulated.clear();
            self.cumulated.extend(self.sources.iter().map(|source| {
                sum += source.rate(second);
                sum
            }));
        }
        let all = self.cumulated.last().expect("a mix has sources");
        let point = self.random.unit() * all;
        self.cumulated.partition_point(|&sum| sum <= point).min(self.sources.len() - 1)
    }
}

impl Iterator for Mix {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        let second = (self.drawn as f64 / self.requests_per_second) as u32;
        self.drawn += 1;
        let source = self.pick(second);
        Some(self.sources[source].request(second, &mut self.random))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_requests_again() {
        let mixes: [fn(u64) -> Mix; 4] =
            [|seed| mc20::mix(256, seed), tw54::mix, |seed| saas::mix(50, seed), shapes::diurnal];
        for mix in mixes {
            let first: Vec<_> = mix(3).take(2_000).collect();
            assert_eq!(first, mix(3).take(2_000).collect::<Vec<_>>());
            assert_ne!(first, mix(4).take(2_000).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_keys_size_stays() {
        let mut sizes = std::collections::HashMap::new();
        for request in mc20::mix(256, 3).take(50_000) {
            let key = (request.tenant, request.key);
            assert_eq!(*sizes.entry(key).or_insert(request.value_bytes), request.value_bytes);
        }
    }
}
