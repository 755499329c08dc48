//! How long calls took, in bounded memory.
//!
//! Exact as long as there are no more calls than are kept; from then on the quantiles are those of a uniform sample of them
//! (Vitter's algorithm R), and the report says so. The longest is always exact. A quantile is the value at the nearest
//! rank: of `n` sorted values the one at `ceil(q * n)`, counted from 1.

/// Microseconds of calls.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    kept: Vec<u32>,
    kept_max: usize,
    pub(crate) count: u64,
    pub(crate) max: u64,
    /// Draws the sample; always the same for the same calls, so that a report can be made again.
    random: u64,
}

/// What is reported of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quantiles {
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    /// All calls were looked at.
    pub(crate) exact: bool,
}

impl Latencies {
    pub(crate) fn new(kept_max: usize) -> Self {
        Self {
            kept: Vec::new(),
            kept_max,
            count: 0,
            max: 0,
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    pub(crate) fn add(&mut self, us: u64) {
        self.count += 1;
        self.max = self.max.max(us);
        // Over an hour: what is longer is as long.
        let us = u32::try_from(us).unwrap_or(u32::MAX);
        if self.kept.len() < self.kept_max {
            self.kept.push(us);
            return;
        }
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let place = self.random % self.count;
        if let Some(kept) = usize::try_from(place)
            .ok()
            .and_then(|it| self.kept.get_mut(it))
        {
            *kept = us;
        }
    }

    /// `None` when there was no call that said how long it took.
    pub(crate) fn quantiles(&self) -> Option<Quantiles> {
        let mut sorted = self.kept.clone();
        sorted.sort_unstable();
        let rank = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100);
            sorted.get(rank.saturating_sub(1)).copied().map(u64::from)
        };
        Some(Quantiles {
            p50: rank(50)?,
            p90: rank(90)?,
            p99: rank(99)?,
            exact: self.count == sorted.len() as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn quantiles_are_at_the_nearest_rank_and_say_when_they_are_of_a_sample() {
        let mut latencies = Latencies::new(100);
        assert_eq!(latencies.quantiles(), None);
        latencies.add(7);
        let one = latencies.quantiles().unwrap();
        assert_eq!((one.p50, one.p90, one.p99, one.exact), (7, 7, 7, true));
        let mut latencies = Latencies::new(100);
        (1..=100).rev().for_each(|us| latencies.add(us));
        let all = latencies.quantiles().unwrap();
        assert_eq!((all.p50, all.p90, all.p99, all.exact), (50, 90, 99, true));

        let mut latencies = Latencies::new(1_000);
        (0..100_000).for_each(|us| latencies.add(us));
        let sample = latencies.quantiles().unwrap();
        assert!(!sample.exact && latencies.kept.len() == 1_000);
        assert!((45_000..55_000).contains(&sample.p50), "{sample:?}");
        assert!((87_000..93_000).contains(&sample.p90), "{sample:?}");
        assert_eq!((latencies.count, latencies.max), (100_000, 99_999));
        latencies.add(u64::MAX);
        assert_eq!(latencies.max, u64::MAX);
    }
}
