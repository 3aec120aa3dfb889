//! Latencies in buckets whose width grows with the value (as in HDR histograms): 128 buckets per power of two, so a
//! quantile is off by less than 1 %, at any scale, in constant memory and a few instructions per value.

/// log2 of the number of buckets per power of two.
const PRECISION: u32 = 7;
const PER_POWER: usize = 1 << PRECISION;
const BUCKETS: usize = (64 - PRECISION as usize + 1) * PER_POWER;

/// Counts of values (nanoseconds here).
#[derive(Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    largest: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: vec![0; BUCKETS], total: 0, largest: 0 }
    }
}

impl Histogram {
    pub(crate) fn record(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.total += 1;
        self.largest = self.largest.max(value);
    }

    pub(crate) fn largest(&self) -> u64 {
        self.largest
    }

    /// The value that `share` (0 to 1) of all values do not exceed; none without values.
    pub(crate) fn quantile(&self, share: f64) -> Option<u64> {
        if self.total == 0 {
            return None;
        }
        let rank = ((self.total as f64 * share).ceil() as u64).clamp(1, self.total);
        let mut seen = 0;
        let index = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(upper_edge(index).min(self.largest))
    }
}

/// Values below 2 × [`PER_POWER`] have buckets of their own; above, the leading bits after the first one choose.
fn bucket(value: u64) -> usize {
    if value < PER_POWER as u64 {
        return value as usize;
    }
    let power = value.ilog2() - PRECISION;
    (power as usize + 1) * PER_POWER + ((value >> power) as usize - PER_POWER)
}

fn upper_edge(index: usize) -> u64 {
    if index < PER_POWER {
        return index as u64;
    }
    let (power, rest) = ((index / PER_POWER - 1) as u32, (index % PER_POWER) as u128);
    let edge = ((PER_POWER as u128 + rest + 1) << power) - 1;
    u64::try_from(edge).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_and_the_edges_are_within_one_percent() {
        let mut value = 1_u64;
        while value < u64::MAX / 3 {
            for value in [value - 1, value, value + 1, value + value / 3] {
                let edge = upper_edge(bucket(value));
                assert!(edge >= value && edge - value <= value / 100 + 1, "{value} {edge}");
                assert_eq!(bucket(edge), bucket(value));
            }
            value *= 2;
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_values() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        for value in 1..=1000 {
            histogram.record(value * 1000);
        }
        for (share, exact) in [(0.5, 500_000_u64), (0.99, 990_000), (0.999, 999_000), (1.0, 1_000_000)] {
            let found = histogram.quantile(share).expect("there are values");
            assert!(found.abs_diff(exact) <= exact / 100, "{share}: {found}");
        }
        assert_eq!(histogram.largest(), 1_000_000);
    }
}
