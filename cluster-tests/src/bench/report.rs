//! What the load generator reports: a table for people, JSON for tools.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::histogram::Histogram;
use super::inbox::Counts;

/// The figures of one scenario. What a scenario does not measure is absent.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Row {
    pub scenario: String,
    pub clients: usize,
    /// Deliveries, acks or connections in the measured time.
    pub deliveries: u64,
    pub per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_micros: Option<Latency>,
    /// Over the whole run, warm-up included.
    pub lost: u64,
    pub doubled: u64,
    /// Came after a message that its sender wrote later.
    pub misordered: u64,
    /// Came at a place that no common order explains; absent where none is promised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<u64>,
    /// Acks that carried an error.
    pub refused: u64,
    /// Connections that ended unasked.
    pub broken: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu_micros_each: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_kib_each: Option<f64>,
    /// How busy the generator's own thread was: near 1, it was the bottleneck.
    pub generator_load: f64,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub max: u64,
}

impl Row {
    pub(super) fn new(scenario: &str, clients: usize) -> Self {
        Self { scenario: scenario.to_owned(), clients, ..Self::default() }
    }

    /// Puts in what was delivered within `span`.
    pub(super) fn rate(mut self, deliveries: u64, span: Duration) -> Self {
        self.deliveries = deliveries;
        self.per_second = deliveries as f64 / span.as_secs_f64();
        self
    }

    pub(super) fn cpu(mut self, servers: Option<Duration>, own: Duration, span: Duration) -> Self {
        let each = |spent: Duration| spent.as_secs_f64() * 1e6 / self.deliveries.max(1) as f64;
        self.server_cpu_micros_each = servers.map(each);
        self.generator_load = own.as_secs_f64() / span.as_secs_f64();
        self
    }

    pub(super) fn latency(mut self, histogram: &Histogram) -> Self {
        self.latency_micros = Some(Latency {
            p50: histogram.percentile(0.5),
            p90: histogram.percentile(0.9),
            p99: histogram.percentile(0.99),
            max: histogram.max(),
        });
        self
    }

    pub(super) fn counts(mut self, counts: Counts, one_order: bool) -> Self {
        self.lost = counts.lost();
        self.doubled = counts.doubled;
        self.misordered = counts.misordered;
        self.split = one_order.then_some(counts.split);
        self.refused = counts.refused;
        self.broken = counts.broken;
        self
    }

    /// Whether every message came once, in order, and nothing failed.
    pub fn is_clean(&self) -> bool {
        let split = self.split.unwrap_or(0);
        self.lost + self.doubled + self.misordered + split + self.refused + self.broken == 0
    }
}

/// All rows of one run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    pub urls: Vec<String>,
    pub namespace: String,
    pub rows: Vec<Row>,
}

/// The table's head; each row prints itself below it.
pub const HEAD: &str = "\
scenario    clients   per second     p50 ms     p90 ms     p99 ms     max ms    lost doubled misord. split  failed  CPU µs each  KiB each  gen.";

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<11} {:>7} {:>12.0}", self.scenario, self.clients, self.per_second)?;
        match self.latency_micros {
            Some(Latency { p50, p90, p99, max }) => {
                for micros in [p50, p90, p99, max] {
                    write!(f, " {:>10.2}", micros as f64 / 1000.0)?;
                }
            }
            None => write!(f, " {:>10} {:>10} {:>10} {:>10}", "–", "–", "–", "–")?,
        }
        let split = self.split.map_or_else(|| "–".to_owned(), |split| split.to_string());
        let failed = self.refused + self.broken;
        write!(f, " {:>7} {:>7} {:>7}", self.lost, self.doubled, self.misordered)?;
        write!(f, " {split:>5} {failed:>7}")?;
        let figure =
            |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |v| format!("{v:.2}"));
        write!(f, " {:>12}", figure(self.server_cpu_micros_each))?;
        write!(f, " {:>9} {:>4.0}%", figure(self.server_kib_each), self.generator_load * 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_lies_under_its_head() {
        let mut histogram = Histogram::new();
        histogram.record(1500);
        let second = Duration::from_secs(1);
        let counts = Counts { delivered: 9, expected: 10, split: 2, ..Counts::default() };
        let row = Row::new("bcast", 1000)
            .rate(9, second)
            .cpu(Some(Duration::from_micros(18)), second / 2, second)
            .latency(&histogram)
            .counts(counts, true);
        assert_eq!(row.to_string().chars().count(), HEAD.chars().count());
        assert_eq!((row.lost, row.server_cpu_micros_each), (1, Some(2.0)));
        assert!(!row.is_clean());
    }
}
