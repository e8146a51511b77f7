//! Every counter and histogram as a scrape shows it: name, unit, help text.

use ::metrics::Unit;

use super::{
    CONTROLLER_ERRORS, Counter, DELIVERIES, DELIVERY_DELAY, DROPS_INBOUND_FULL, DROPS_OUTBOX_FULL,
    DROPS_SLOW_CONSUMER, DROPS_VOLATILE, Delays, EARLY_COMMITS, ENCODES, EVENTS_REFUSED,
    LEADER_CHANGES, PACKETS_RECEIVED, PACKETS_SENT, PEER_MESSAGES_RECEIVED, PEER_MESSAGES_REFUSED,
    PEER_MESSAGES_SENT, PEER_SENT_BYTES, PROPOSAL_DURATION, PROPOSALS_REFUSED, PROPOSALS_REPEATED,
    PROTOCOL_ERRORS, QUERIES_GIVEN_UP, RECEIVED_BYTES, RECOVERIES, RELAY_FAILURES,
    RELAYED_REQUESTS, RELAYED_TO_CLIENT_BYTES, RELAYED_TO_OWNER_BYTES, SENT_BYTES,
    STRANGERS_REFUSED, STREAMS_REFUSED, lock_closed, lock_errors, refused,
};

/// A metric as a scrape shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample<T> {
    pub name: &'static str,
    pub unit: Unit,
    pub help: &'static str,
    pub label: Option<(&'static str, String)>,
    pub value: T,
}

/// Every counter of the hot path, added up now.
pub fn counters() -> Vec<Sample<u64>> {
    let plain = |name, unit, help, counter: &Counter| Sample {
        name,
        unit,
        help,
        label: None,
        value: counter.total(),
    };
    let mut samples = vec![
        plain(
            "flotilla_packets_received_total",
            Unit::Count,
            "Engine.IO packets from clients.",
            &PACKETS_RECEIVED,
        ),
        plain(
            "flotilla_packets_sent_total",
            Unit::Count,
            "Packets written to clients.",
            &PACKETS_SENT,
        ),
        plain("flotilla_received_bytes_total", Unit::Bytes, "Bytes from clients.", &RECEIVED_BYTES),
        plain("flotilla_sent_bytes_total", Unit::Bytes, "Bytes written to clients.", &SENT_BYTES),
        plain(
            "flotilla_encodes_total",
            Unit::Count,
            "Packets encoded into frames: one for each packet, whatever the number of recipients.",
            &ENCODES,
        ),
        plain("flotilla_deliveries_total", Unit::Count, "Packets queued to clients.", &DELIVERIES),
        plain(
            "flotilla_client_streams_refused_total",
            Unit::Count,
            "Streams of clients that were closed because too many files are open.",
            &STREAMS_REFUSED,
        ),
        plain(
            "flotilla_events_refused_total",
            Unit::Count,
            "Events that did not fit their handler.",
            &EVENTS_REFUSED,
        ),
        plain(
            "flotilla_api_queries_given_up_total",
            Unit::Count,
            "Queries of API subscribers that took too long for an emit, and counted as not met.",
            &QUERIES_GIVEN_UP,
        ),
        plain(
            "flotilla_controller_errors_total",
            Unit::Count,
            "Connects of controllers that failed, and errors of their handlers that no ack took to the client.",
            &CONTROLLER_ERRORS,
        ),
        plain(
            "flotilla_raft_changes_refused_total",
            Unit::Count,
            "Changes refused: for want of a quorum, or because too much was waiting.",
            &PROPOSALS_REFUSED,
        ),
        plain(
            "flotilla_raft_proposals_repeated_total",
            Unit::Count,
            "Proposals sent once more, for nobody knew what had become of the last attempt. They are applied once.",
            &PROPOSALS_REPEATED,
        ),
        plain(
            "flotilla_raft_early_commits_total",
            Unit::Count,
            "Rounds whose entries this node, a follower, knew to be committed before its leader told.",
            &EARLY_COMMITS,
        ),
        plain(
            "flotilla_raft_leader_changes_total",
            Unit::Count,
            "Times that this node saw another leader than before.",
            &LEADER_CHANGES,
        ),
        plain(
            "flotilla_peer_messages_sent_total",
            Unit::Count,
            "Messages written to the streams to peers.",
            &PEER_MESSAGES_SENT,
        ),
        plain(
            "flotilla_peer_messages_received_total",
            Unit::Count,
            "Messages read from the streams of peers.",
            &PEER_MESSAGES_RECEIVED,
        ),
        plain(
            "flotilla_peer_sent_bytes_total",
            Unit::Bytes,
            "Bytes written to the streams to peers.",
            &PEER_SENT_BYTES,
        ),
    ];
    samples.extend(recoveries());
    samples.extend(drops());
    samples.extend(connections_closed());
    samples.extend(relays());
    samples.extend(strangers());
    samples.extend(refused::samples());
    samples.extend(protocol_errors());
    samples
}

fn recoveries() -> impl Iterator<Item = Sample<u64>> {
    let sample = |name, help, label: Option<&str>, counter: &Counter| Sample {
        name,
        unit: Unit::Count,
        help,
        label: label.map(|outcome| ("outcome", outcome.to_owned())),
        value: counter.total(),
    };
    let help = "Clients that came back for their sockets.";
    let name = "flotilla_recoveries_total";
    [
        sample(name, help, Some("recovered"), &RECOVERIES.recovered),
        sample(name, help, Some("renewed"), &RECOVERIES.renewed),
        sample(name, help, Some("refused"), &RECOVERIES.refused),
        sample(
            "flotilla_replayed_packets_total",
            "Packets sent to clients that came back, because they had missed them.",
            None,
            &RECOVERIES.replayed,
        ),
        sample(
            "flotilla_socket_data_left_out_total",
            "Sockets whose clients went away, and whose data was too large to be kept for them.",
            None,
            &RECOVERIES.data_left_out,
        ),
    ]
    .into_iter()
}

fn drops() -> impl Iterator<Item = Sample<u64>> {
    [
        ("volatile", &DROPS_VOLATILE),
        ("outbox_full", &DROPS_OUTBOX_FULL),
        ("slow_consumer", &DROPS_SLOW_CONSUMER),
        ("peer_refused", &PEER_MESSAGES_REFUSED),
        ("inbound_full", &DROPS_INBOUND_FULL),
    ]
    .into_iter()
    .map(|(reason, counter)| Sample {
        name: "flotilla_drops_total",
        unit: Unit::Count,
        help: "Packets and messages that were dropped.",
        label: Some(("reason", reason.to_owned())),
        value: counter.total(),
    })
}

fn connections_closed() -> impl Iterator<Item = Sample<u64>> {
    let closed: Vec<(&str, u64)> =
        lock_closed().iter().map(|(reason, count)| (*reason, *count)).collect();
    closed.into_iter().map(|(reason, value)| Sample {
        name: "flotilla_connections_closed_total",
        unit: Unit::Count,
        help: "Connections that ended.",
        label: Some(("reason", reason.replace(' ', "_"))),
        value,
    })
}

fn relays() -> impl Iterator<Item = Sample<u64>> {
    let labelled = |name, unit, help, label, rows: &[(&str, &Counter)]| {
        let sample = |(value, counter): &(&str, &Counter)| Sample {
            name,
            unit,
            help,
            label: Some((label, (*value).to_owned())),
            value: counter.total(),
        };
        rows.iter().map(sample).collect::<Vec<_>>()
    };
    let requests = labelled(
        "flotilla_relayed_requests_total",
        Unit::Count,
        "Requests that were relayed to another node, and answered by it.",
        "kind",
        &[
            ("poll", &RELAYED_REQUESTS.poll),
            ("post", &RELAYED_REQUESTS.post),
            ("upgrade", &RELAYED_REQUESTS.upgrade),
        ],
    );
    let failures = labelled(
        "flotilla_relay_failures_total",
        Unit::Count,
        "Requests for another node's connection that it did not answer.",
        "reason",
        &[
            ("unknown_owner", &RELAY_FAILURES.unknown_owner),
            ("unreachable", &RELAY_FAILURES.unreachable),
            ("lost", &RELAY_FAILURES.lost),
        ],
    );
    let bytes = labelled(
        "flotilla_relayed_bytes_total",
        Unit::Bytes,
        "Bytes between clients and other nodes that this node has passed on.",
        "direction",
        &[("to_owner", &RELAYED_TO_OWNER_BYTES), ("to_client", &RELAYED_TO_CLIENT_BYTES)],
    );
    [requests, failures, bytes].into_iter().flatten()
}

fn strangers() -> impl Iterator<Item = Sample<u64>> {
    let refused = [("garbage", &STRANGERS_REFUSED.garbage), ("silent", &STRANGERS_REFUSED.silent)];
    refused.into_iter().map(|(reason, counter)| Sample {
        name: "flotilla_node_connections_refused_total",
        unit: Unit::Count,
        help: "Connections to the port for nodes that did not greet as nodes do.",
        label: Some(("reason", reason.to_owned())),
        value: counter.total(),
    })
}

fn protocol_errors() -> impl Iterator<Item = Sample<u64>> {
    let engine = PROTOCOL_ERRORS.by_kind().map(|(kind, counter)| (kind, counter.total()));
    let socketio: Vec<(&str, u64)> =
        lock_errors().iter().map(|(kind, count)| (*kind, *count)).collect();
    engine.into_iter().chain(socketio).map(|(kind, value)| Sample {
        name: "flotilla_protocol_errors_total",
        unit: Unit::Count,
        help: "What clients did wrong in HTTP, Engine.IO and Socket.IO.",
        label: Some(("kind", kind.replace(' ', "_"))),
        value,
    })
}

/// Every histogram: name, help, and the delays themselves, in seconds.
pub fn histograms() -> [(&'static str, &'static str, &'static Delays); 2] {
    [
        (
            "flotilla_delivery_delay_seconds",
            "From a packet's encoding until it has been written to a client.",
            &DELIVERY_DELAY,
        ),
        (
            "flotilla_raft_proposal_duration_seconds",
            "From the encoding of a batch of changes until it is known to be agreed.",
            &PROPOSAL_DURATION,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::Gauges;
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        for sample in counters() {
            assert!(sample.name.ends_with("_total"), "{}", sample.name);
            let in_bytes = sample.name.contains("_bytes");
            assert_eq!(in_bytes, sample.unit == Unit::Bytes, "{}", sample.name);
        }
        for sample in Gauges::default().samples() {
            assert!(!sample.name.ends_with("_total"), "{}", sample.name);
        }
        for (name, _, _) in histograms() {
            assert!(name.ends_with("_seconds"), "{name}");
        }
    }
}
