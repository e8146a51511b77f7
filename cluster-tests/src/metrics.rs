//! A node's metrics, read from the text that Prometheus reads.

use std::collections::BTreeMap;

/// The values at one moment, by name and labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    // The key is the whole series, `name{label="value"}`.
    series: BTreeMap<String, f64>,
}

impl Metrics {
    pub fn parse(text: &str) -> Self {
        let series = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .filter_map(|(series, value)| Some((series.to_owned(), value.parse().ok()?)))
            .collect();
        Self { series }
    }

    /// The sum over all label sets of `name`; zero for a counter that has not counted yet.
    pub fn sum(&self, name: &str) -> f64 {
        let of_name = |series: &str| series.split('{').next() == Some(name);
        self.series.iter().filter(|(series, _)| of_name(series)).map(|(_, value)| value).sum()
    }

    /// The value of one series, as `name{label="value"}`; zero if it is not there.
    pub fn value(&self, series: &str) -> f64 {
        self.series.get(series).copied().unwrap_or_default()
    }

    /// Whether the node names this metric at all.
    pub fn has(&self, name: &str) -> bool {
        self.series.keys().any(|series| series.split('{').next() == Some(name))
    }

    /// How much the sum of `name` grew since `before`.
    pub fn growth(&self, before: &Self, name: &str) -> f64 {
        self.sum(name) - before.sum(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP flotilla_drops_total Packets dropped.
# TYPE flotilla_drops_total counter
flotilla_drops_total{reason=\"slow client\"} 2
flotilla_drops_total{reason=\"volatile\"} 3
flotilla_sockets 1.5e1

flotilla_sockets_other 7
";

    #[test]
    fn label_sets_are_summed_and_names_matched_whole() {
        let metrics = Metrics::parse(TEXT);
        assert_eq!(metrics.sum("flotilla_drops_total"), 5.0);
        assert_eq!(metrics.sum("flotilla_sockets"), 15.0);
        assert_eq!(metrics.sum("flotilla_absent"), 0.0);
        assert!(metrics.has("flotilla_drops_total") && !metrics.has("flotilla_absent"));
        assert_eq!(metrics.growth(&Metrics::default(), "flotilla_sockets_other"), 7.0);
    }
}
