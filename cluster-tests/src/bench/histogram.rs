//! Latencies, counted in buckets that are at most 1.6 % wide.

const SUB_BITS: u32 = 6;
const SUB: u64 = 1 << SUB_BITS;
const BUCKETS: usize = (64 - SUB_BITS as usize + 1) * SUB as usize;

/// A histogram of microseconds.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Histogram {
    pub(super) fn new() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, max: 0 }
    }

    pub(super) fn record(&mut self, micros: u64) {
        self.buckets[bucket(micros)] += 1;
        self.count += 1;
        self.max = self.max.max(micros);
    }

    pub(super) fn clear(&mut self) {
        self.buckets.fill(0);
        self.count = 0;
        self.max = 0;
    }

    /// The value that a share of all values (0.5, 0.99) do not exceed; zero if there are none.
    pub(super) fn percentile(&self, share: f64) -> u64 {
        let wanted = (self.count as f64 * share).ceil() as u64;
        let mut passed = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            passed += count;
            if passed >= wanted && *count > 0 {
                return upper_bound(index).min(self.max);
            }
        }
        self.max
    }

    pub(super) fn max(&self) -> u64 {
        self.max
    }
}

// Below 64 each value has a bucket; above, each power of two is cut into 64.
fn bucket(micros: u64) -> usize {
    if micros < SUB {
        return micros as usize;
    }
    let shift = 63 - micros.leading_zeros() - SUB_BITS;
    ((u64::from(shift) + 1) * SUB + (micros >> shift) - SUB) as usize
}

fn upper_bound(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SUB {
        return bucket;
    }
    let shift = bucket / SUB - 1;
    let low = (bucket % SUB + SUB) << shift;
    low + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_a_narrow_bucket() {
        for value in (0..5000).chain([1 << 20, (1 << 20) + 12345, u64::MAX >> 1, u64::MAX]) {
            let bound = upper_bound(bucket(value));
            assert!(bound >= value, "{value} {bound}");
            assert!(bound - value <= value / 64, "{value} {bound}");
        }
    }

    #[test]
    fn percentiles_of_one_to_a_hundred() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.percentile(0.5), 0);
        for value in 1..=100 {
            histogram.record(value);
        }
        assert_eq!(histogram.percentile(0.5), 50);
        assert_eq!(histogram.percentile(0.9), 90);
        assert_eq!(histogram.percentile(1.0), 100);
        assert_eq!(histogram.max(), 100);
        histogram.clear();
        assert_eq!(histogram.percentile(0.99), 0);
    }
}
