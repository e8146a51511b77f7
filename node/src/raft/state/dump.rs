//! The state as JSON, for `flotilla inspect`: what an operator reads, and tests compare.

use serde_json::{Map, Value, json};

use super::State;

impl State {
    /// Every row, in an order that is the same on every node.
    pub fn dump(&self) -> Value {
        json!({
            "index": self.index(),
            "digest": format!("{:016x}", self.digest()),
            "nodes": self.dump_nodes(),
            "sockets": self.dump_sockets(),
            "rooms": self.dump_rooms(),
            "sessions": self.dump_sessions(),
            "windows": self.dump_windows(),
            "departed_sockets": self.departures.waiting().count(),
            "applied_changes": self.dump_applied(),
        })
    }

    fn dump_nodes(&self) -> Vec<Value> {
        self.nodes()
            .map(|(id, node)| {
                json!({
                    "id": id,
                    "name": *node.up.name,
                    "address": *node.up.address,
                    "version": *node.up.version,
                    "incarnation": node.incarnation,
                    "status": node.status.as_str(),
                    "last_seq": node.last_seq,
                })
            })
            .collect()
    }

    fn dump_sockets(&self) -> Vec<Value> {
        self.sockets()
            .map(|socket| {
                json!({
                    "id": socket.id().as_str(),
                    "namespace": **socket.namespace(),
                    "node": socket.owner().node,
                    "detached": socket.is_detached(),
                    "session": socket.session().as_str(),
                    "rooms": socket.rooms().collect::<Vec<_>>(),
                })
            })
            .collect()
    }

    /// The number of members of each room.
    fn dump_rooms(&self) -> Vec<Value> {
        let rooms = |namespace| {
            self.rooms_of(namespace).map(
                move |(room, sockets)| json!({"namespace": namespace, "room": room, "sockets": sockets}),
            )
        };
        self.namespaces().flat_map(|namespace| rooms(&**namespace)).collect()
    }

    /// What each recoverable namespace keeps.
    fn dump_windows(&self) -> Vec<Value> {
        self.windows
            .iter()
            .map(|(namespace, window)| {
                json!({
                    "namespace": **namespace,
                    "packets": window.packets_len(),
                    "bytes": window.bytes(),
                    "detached": window.detached_len(),
                    "data_bytes": window.data_bytes(),
                    "max_age_ms": window.terms.max_age_ms,
                    "max_bytes": window.terms.max_bytes,
                })
            })
            .collect()
    }

    fn dump_applied(&self) -> Map<String, Value> {
        self.applied_changes().map(|(kind, count)| (kind.to_owned(), count.into())).collect()
    }

    fn dump_sessions(&self) -> Vec<Value> {
        self.sessions()
            .map(|(id, session)| {
                json!({
                    "id": id.as_str(),
                    "revision": session.revision,
                    "expires_ms": session.expires_ms,
                    "keep_ms": session.keep_ms,
                    "value": session.value.object,
                })
            })
            .collect()
    }
}
