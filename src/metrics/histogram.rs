//! How long something took, in buckets that double.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram as Shape, LabelPair, Metric, MetricFamily, MetricType};

/// The first bucket holds up to 1 µs, the last but one up to 2^19 µs (0.5 s), the last one all.
const BUCKETS: usize = 21;

/// Counts that may be read while they are written.
#[derive(Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    nanoseconds: AtomicU64,
}

fn bucket(took: Duration) -> usize {
    let nanoseconds = took.as_nanos().min(u128::from(u64::MAX)) as u64;
    let microseconds = nanoseconds.div_ceil(1_000).max(1);
    // 1 → 0, 2 → 1, 3 and 4 → 2, 5 to 8 → 3.
    ((microseconds - 1).checked_ilog2().map_or(0, |log| log + 1) as usize).min(BUCKETS - 1)
}

impl Histogram {
    /// `count` of them took so long each.
    pub fn add(&self, count: u64, took: Duration) {
        self.buckets[bucket(took)].fetch_add(count, Relaxed);
        let nanoseconds = (took.as_nanos().min(u128::from(u64::MAX)) as u64).saturating_mul(count);
        self.nanoseconds.fetch_add(nanoseconds, Relaxed);
    }

    pub fn add_all(&self, other: &Histogram) {
        for (sum, more) in self.buckets.iter().zip(&other.buckets) {
            sum.fetch_add(more.load(Relaxed), Relaxed);
        }
        self.nanoseconds.fetch_add(other.nanoseconds.load(Relaxed), Relaxed);
    }

    fn metric(&self, label: Option<(&str, &str)>) -> Metric {
        let mut shape = Shape::default();
        let mut count = 0;
        let mut buckets = Vec::with_capacity(BUCKETS - 1);
        for (n, in_bucket) in self.buckets.iter().enumerate() {
            count += in_bucket.load(Relaxed);
            if n + 1 < BUCKETS {
                let mut bucket = Bucket::default();
                bucket.set_upper_bound((1_u64 << n) as f64 / 1e6);
                bucket.set_cumulative_count(count);
                buckets.push(bucket);
            }
        }
        shape.set_bucket(buckets);
        shape.set_sample_count(count);
        shape.set_sample_sum(self.nanoseconds.load(Relaxed) as f64 / 1e9);
        let mut metric = Metric::default();
        metric.set_histogram(shape);
        if let Some((name, value)) = label {
            let mut pair = LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(value.to_owned());
            metric.set_label(vec![pair]);
        }
        metric
    }
}

/// Histograms under one name, as they are at the moment.
pub struct Family {
    desc: Desc,
    family: MetricFamily,
}

impl Family {
    /// `members`: each with the value of the label, where there is one.
    pub fn new(
        name: &str,
        help: &str,
        label: Option<&str>,
        members: &[(&str, &Histogram)],
    ) -> Result<Family, prometheus::Error> {
        let labels = label.iter().map(|label| (*label).to_owned()).collect();
        let desc = Desc::new(name.to_owned(), help.to_owned(), labels, Default::default())?;
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(MetricType::HISTOGRAM);
        let metric = |(value, histogram): &(&str, &Histogram)| histogram.metric(label.map(|label| (label, *value)));
        family.set_metric(members.iter().map(metric).collect());
        Ok(Family { desc, family })
    }
}

impl Collector for Family {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        vec![self.family.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_ends_where_it_says() {
        let of = |nanoseconds| bucket(Duration::from_nanos(nanoseconds));
        assert_eq!([0, 1, 1_000, 1_001, 2_000, 2_001, 4_000, 4_001].map(of), [0, 0, 0, 1, 1, 2, 2, 3]);
        assert_eq!(of((1 << 19) * 1_000), BUCKETS - 2);
        assert_eq!(of((1 << 19) * 1_000 + 1), BUCKETS - 1);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }
}
