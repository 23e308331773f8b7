//! Chance from a seed: even, log-normal, Zipf.

/// xorshift64*.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// Seeds that are near one another give numbers that are not.
    pub fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.word();
        random
    }

    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// In [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.word()) * u128::from(limit)) >> 64) as u64
    }

    /// Log-normal with this median and sigma.
    pub fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * self.unit()).cos();
        median * (sigma * normal).exp()
    }
}

/// Ranks from 0 with weight 1 / (rank + 1)^alpha, by rejection and inversion (Hörmann and
/// Derflinger, 1996), so that there is no table.
#[derive(Debug, Clone)]
pub struct Zipf {
    ranks: f64,
    alpha: f64,
    /// Integral of the weights up to half a rank beyond the first, less that one's weight …
    low: f64,
    /// … and up to half a rank beyond the last.
    high: f64,
    /// Within this distance of a rank every draw is accepted.
    sure: f64,
}

impl Zipf {
    pub fn new(ranks: usize, alpha: f64) -> Self {
        let mut zipf = Zipf { ranks: ranks.max(1) as f64, alpha, low: 0.0, high: 0.0, sure: 0.0 };
        zipf.low = zipf.integral(1.5) - 1.0;
        zipf.high = zipf.integral(zipf.ranks + 0.5);
        zipf.sure = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.weight(2.0));
        zipf
    }

    pub fn ranks(&self) -> usize {
        self.ranks as usize
    }

    pub fn rank(&self, random: &mut Random) -> usize {
        loop {
            let point = self.high + random.unit() * (self.low - self.high);
            let x = self.inverse(point);
            let rank = x.round().clamp(1.0, self.ranks);
            if rank - x <= self.sure || point >= self.integral(rank + 0.5) - self.weight(rank) {
                return rank as usize - 1;
            }
        }
    }

    /// How many different ranks so many draws give, about.
    pub fn distinct(&self, draws: f64) -> f64 {
        let total = self.high - self.low;
        let (mut sum, mut rank) = (0.0, 1.0);
        while rank <= self.ranks {
            // Single ranks at first, then as many as differ by one percent.
            let step = (rank * 0.01).floor().max(1.0).min(self.ranks - rank + 1.0);
            let share = self.weight(rank + (step - 1.0) / 2.0) / total;
            sum += step * -(draws * (-share).ln_1p()).exp_m1();
            rank += step;
        }
        sum
    }

    fn weight(&self, x: f64) -> f64 {
        x.powf(-self.alpha)
    }

    fn integral(&self, x: f64) -> f64 {
        let power = 1.0 - self.alpha;
        if power.abs() < 1e-9 { x.ln() } else { (x.powf(power) - 1.0) / power }
    }

    fn inverse(&self, y: f64) -> f64 {
        let power = 1.0 - self.alpha;
        if power.abs() < 1e-9 { y.exp() } else { (1.0 + y * power).max(0.0).powf(1.0 / power) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_come_as_often_as_their_weight_says() {
        for alpha in [0.0, 0.6, 1.0, 1.6] {
            let zipf = Zipf::new(100, alpha);
            let mut random = Random::new(4);
            let mut counts = [0_u32; 100];
            (0..200_000).for_each(|_| counts[zipf.rank(&mut random)] += 1);
            let total: f64 = (1..=100).map(|rank| f64::from(rank).powf(-alpha)).sum();
            for rank in [0, 1, 9, 99] {
                let expected = 200_000.0 * (rank as f64 + 1.0).powf(-alpha) / total;
                let found = f64::from(counts[rank]);
                let error = (found - expected).abs();
                assert!(error < 5.0 * expected.sqrt() + 3.0, "{found} of rank {rank} at {alpha}");
            }
        }
    }

    #[test]
    fn the_number_of_distinct_ranks_is_foretold() {
        for (ranks, alpha, draws) in
            [(10_000, 0.9, 20_000), (5_000, 0.5, 3_000), (100_000, 1.2, 50_000)]
        {
            let zipf = Zipf::new(ranks, alpha);
            let mut random = Random::new(9);
            let mut seen = vec![false; ranks];
            (0..draws).for_each(|_| seen[zipf.rank(&mut random)] = true);
            let found = seen.iter().filter(|seen| **seen).count() as f64;
            let foretold = zipf.distinct(f64::from(draws));
            assert!((found / foretold - 1.0).abs() < 0.03, "{found} found, {foretold} foretold");
        }
    }
}
