//! Log format, and the metrics exporter.

use std::fmt::Write as _;

use metrics::{Key, KeyName, Label, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{LogConfig, LogFormat};
use crate::metrics::{self as ours, Delays, Gauges, Sample};

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("the log filter is wrong")]
    Filter(#[from] ParseError),
    #[error("another logger is installed")]
    Installed(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// Logs to standard error, for the whole process.
pub fn start_log(config: &LogConfig) -> Result<(), LogError> {
    let subscriber = subscriber(config, std::io::stderr)?;
    Ok(tracing::subscriber::set_global_default(subscriber)?)
}

fn subscriber<W>(
    config: &LogConfig,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, ParseError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&config.filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    Ok(match config.format {
        // Colours are for terminals, and a log is mostly read from a file.
        LogFormat::Text => Box::new(builder.with_ansi(false).finish()),
        LogFormat::Json => Box::new(builder.json().flatten_event(true).finish()),
    })
}

/// Renders all metrics as Prometheus reads them.
///
/// The hot path counts in statics of its own, which are copied here at each scrape. The recorder
/// is not installed for the process: several nodes of one process each have their exporter.
pub struct Exporter {
    recorder: PrometheusRecorder,
    gauges: Box<dyn Fn() -> Gauges + Send + Sync>,
}

const METADATA: Metadata<'static> =
    Metadata::new("flotilla", metrics::Level::INFO, Some("flotilla::metrics"));

impl Exporter {
    /// `gauges` is asked at each scrape, and must be quick.
    pub fn new(gauges: impl Fn() -> Gauges + Send + Sync + 'static) -> Self {
        let exporter =
            Self { recorder: PrometheusBuilder::new().build_recorder(), gauges: Box::new(gauges) };
        exporter.describe();
        exporter
    }

    pub fn render(&self) -> String {
        for sample in ours::counters() {
            let counter = self.recorder.register_counter(&key(&sample), &METADATA);
            counter.absolute(sample.value);
        }
        for sample in (self.gauges)().samples() {
            let gauge = self.recorder.register_gauge(&key(&sample), &METADATA);
            gauge.set(sample.value as f64);
        }
        let mut text = self.recorder.handle().render();
        for (name, help, delays) in ours::histograms() {
            write_histogram(name, help, delays, &mut text);
        }
        text
    }

    fn describe(&self) {
        for sample in ours::counters() {
            let (name, unit, help) = description(&sample);
            self.recorder.describe_counter(name, unit, help);
        }
        for sample in Gauges::default().samples() {
            let (name, unit, help) = description(&sample);
            self.recorder.describe_gauge(name, unit, help);
        }
    }
}

fn description(sample: &Sample<u64>) -> (KeyName, Option<Unit>, metrics::SharedString) {
    (sample.name.into(), Some(sample.unit), sample.help.into())
}

fn key(sample: &Sample<u64>) -> Key {
    let labels = sample.label.iter().map(|(name, value)| Label::new(*name, value.clone()));
    Key::from_parts(sample.name, labels.collect::<Vec<_>>())
}

/// Written here, for the exporter builds histograms from single values only, and the hot path
/// counts by bucket.
fn write_histogram(name: &str, help: &str, delays: &Delays, text: &mut String) {
    let totals = delays.totals();
    let mut count = 0;
    let mut write = |line: std::fmt::Arguments<'_>| {
        text.write_fmt(line).expect("writing to a string does not fail");
    };
    write(format_args!("# HELP {name} {help}\n# TYPE {name} histogram\n"));
    for (total, bound) in totals.iter().zip(Delays::BOUNDS_SECONDS) {
        count += total;
        write(format_args!("{name}_bucket{{le=\"{bound}\"}} {count}\n"));
    }
    count += totals.last().expect("the last bucket has no bound");
    write(format_args!("{name}_bucket{{le=\"+Inf\"}} {count}\n"));
    write(format_args!("{name}_sum {}\n{name}_count {count}\n\n", delays.sum_seconds()));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, filter: &str) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let config = LogConfig { filter: filter.to_owned(), format };
        let subscriber = subscriber(&config, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(peer = "n2", queued = 7, "peer is slow");
            tracing::debug!("not shown");
        });
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn text_log_is_a_line_for_each_event_that_passes_the_filter() {
        let log = logged(LogFormat::Text, "info");
        assert_eq!(log.lines().count(), 1);
        assert!(log.contains("INFO") && log.contains("peer is slow peer=\"n2\" queued=7"), "{log}");
        assert_eq!(logged(LogFormat::Text, "warn"), "");
    }

    #[test]
    fn json_log_is_an_object_for_each_event() {
        let log: serde_json::Value =
            serde_json::from_str(&logged(LogFormat::Json, "info")).unwrap();
        assert_eq!((&log["message"], &log["peer"]), (&"peer is slow".into(), &"n2".into()));
        assert_eq!(log["queued"], 7);
    }

    #[test]
    fn wrong_filter_is_refused() {
        let config = LogConfig { filter: "a=loud".to_owned(), format: LogFormat::Text };
        assert!(subscriber(&config, io::sink).is_err());
    }

    #[test]
    fn scrape_shows_what_was_counted_and_what_the_node_says() {
        let exporter = Exporter::new(|| Gauges {
            connections: 3,
            raft_is_leader: true,
            raft_role: Some("candidate"),
            ..Gauges::default()
        });
        ours::EVENTS_REFUSED.add(5);
        let text = exporter.render();
        let value = |metric: &str| -> f64 {
            let line = text.lines().find(|line| line.split(' ').next() == Some(metric));
            let line = line.unwrap_or_else(|| panic!("{metric} is not in\n{text}"));
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        assert_eq!(value("flotilla_connections"), 3.0);
        assert_eq!(value("flotilla_raft_is_leader"), 1.0);
        assert_eq!(value("flotilla_raft_role{role=\"candidate\"}"), 1.0);
        assert_eq!(value("flotilla_raft_role{role=\"leader\"}"), 0.0);
        assert!(value("flotilla_events_refused_total") >= 5.0);
        assert!(text.contains("# TYPE flotilla_drops_total counter"), "{text}");
        assert!(text.contains("flotilla_drops_total{reason=\"slow_consumer\"} "), "{text}");
        assert!(text.contains("# HELP flotilla_rooms Rooms with members, on whatever node."));
    }

    #[test]
    fn every_metric_of_the_contract_is_there() {
        let text = Exporter::new(Gauges::default).render();
        for name in [
            "connections",
            "sockets",
            "rooms",
            "packets_received_total",
            "packets_sent_total",
            "encodes_total",
            "deliveries_total",
            "delivery_delay_seconds",
            "drops_total",
            "raft_term",
            "raft_is_leader",
            "raft_role",
            "namesakes",
            "raft_leader_changes_total",
            "raft_commit_index",
            "raft_applied_index",
            "raft_proposal_duration_seconds",
            "peers_up",
            "peer_messages_sent_total",
            "peer_messages_received_total",
            "peer_sent_bytes_total",
            "peer_queue_bytes",
            "received_bytes_total",
            "sent_bytes_total",
            "protocol_errors_total",
            "connects_refused_total",
            "client_streams_refused_total",
        ] {
            for head in ["TYPE", "HELP"] {
                let line = format!("# {head} flotilla_{name} ");
                assert_eq!(text.matches(&line).count(), 1, "{line} in\n{text}");
            }
        }
    }

    /// The names of metrics in a text.
    fn named(text: &str) -> BTreeSet<&str> {
        let name = regex::Regex::new("flotilla_[a-z_]+").unwrap();
        let names = name.find_iter(text).map(|name| name.as_str());
        names.map(|name| name.strip_suffix("_bucket").unwrap_or(name)).collect()
    }

    #[test]
    fn documentation_and_alerts_name_the_metrics_that_there_are() {
        // This one shows from the first connection on.
        ours::connection_closed("transport close");
        let text = Exporter::new(Gauges::default).render();
        let heads = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let there: BTreeSet<&str> = heads.filter_map(|head| head.split(' ').next()).collect();
        let operating = named(include_str!("../../docs/operating.md"));
        assert_eq!(operating, there, "docs/operating.md and /metrics");
        let unknown = &named(include_str!("../../deploy/alerts.yml")) - &there;
        assert_eq!(unknown, BTreeSet::new(), "of deploy/alerts.yml");
    }

    #[test]
    fn histogram_counts_up_to_each_bound() {
        let delays = Delays::new();
        let millis = [1, 2, 50, 20_000];
        delays.record_all(millis.into_iter().map(Duration::from_millis));
        let mut text = String::new();
        write_histogram("h_seconds", "Help.", &delays, &mut text);
        assert!(text.contains("h_seconds_bucket{le=\"0.0005\"} 0\n"), "{text}");
        assert!(text.contains("h_seconds_bucket{le=\"0.0025\"} 2\n"), "{text}");
        assert!(text.contains("h_seconds_bucket{le=\"10\"} 3\n"), "{text}");
        assert!(text.contains("h_seconds_bucket{le=\"+Inf\"} 4\n"), "{text}");
        assert!(text.ends_with("h_seconds_sum 20.053\nh_seconds_count 4\n\n"), "{text}");
    }
}
