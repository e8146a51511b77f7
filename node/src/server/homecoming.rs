//! What an application keeps with a socket comes back with it, where someone is there who knows it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tracing::debug;

use super::remote::{self, RemoteSocket};
use super::socket::Socket;
use crate::adapter::Claim;
use crate::metrics;

/// More text than this is not kept for a client that is away: every node holds it, and the log.
const MAX_DATA_BYTES: usize = 16 << 10;

/// How long a client that comes back waits for the node that still has its socket to tell what its
/// application keeps with it. That one lives, and answers at once; or it does not, and the client is
/// better off with its socket alone.
const TELL_TIMEOUT: Duration = Duration::from_millis(500);

/// The socket that a client wants back, while another connection still has it.
pub(crate) enum Previous {
    /// On this node: its data is read once it is over.
    Here(Socket),
    /// On another node, which has told of its data.
    Elsewhere(Map<String, Value>),
}

impl Socket {
    /// What the cluster keeps of [`data`](Self::data) while the client is away.
    pub(super) fn data_to_keep(&self) -> Option<String> {
        let data = self.data();
        if data.is_empty() {
            return None;
        }
        let text = serde_json::to_string(&*data).expect("a JSON object can be written");
        if text.len() > MAX_DATA_BYTES {
            metrics::RECOVERIES.data_left_out.add(1);
            debug!(socket = %self.id(), bytes = text.len(), "data too large to be kept");
            return None;
        }
        Some(text)
    }

    /// Looks for the socket that the client claims. The cluster has the data of one that is away; that
    /// of one whose old connection nobody has missed yet, only the node that has it.
    pub(super) async fn look_for_previous(&self, claim: &Claim) {
        let adapter = &self.namespace_inner().adapter;
        let Some(owner) = adapter.owner_of(claim) else { return };
        let previous = if owner == adapter.node_id() {
            let recipient = adapter.local_recipient(&claim.socket);
            recipient.and_then(|recipient| Self::of(&recipient)).map(Previous::Here)
        } else if adapter.cluster().is_in_reach(owner) {
            let socket = RemoteSocket {
                id: claim.socket,
                node: owner,
                session: self.session_id(),
                rooms: Vec::new(),
                adapter: adapter.clone(),
            };
            let told = remote::fetch_details(adapter, vec![socket], TELL_TIMEOUT).await;
            let details = told.sockets.into_iter().find_map(|(_, details)| details);
            details.map(|details| Previous::Elsewhere(details.data))
        } else {
            None
        };
        if let Some(previous) = previous {
            self.change_own(|own| own.previous = Some(previous));
        }
    }

    /// The socket is its client's old one, and was away with `kept`. What middleware has written to
    /// its data meanwhile stays.
    pub(super) fn restore_data(&self, kept: Option<&str>) {
        let previous = self.own().and_then(|mut own| own.previous.take());
        let data = match (kept, previous) {
            // Nodes keep nothing but objects; one of a later version may know more.
            (Some(text), _) => serde_json::from_str(text).map(Arc::new).unwrap_or_default(),
            (None, Some(Previous::Here(socket))) => socket.data(),
            (None, Some(Previous::Elsewhere(data))) => Arc::new(data),
            (None, None) => return,
        };
        if data.is_empty() {
            return;
        }
        self.change_own(|own| {
            let written = std::mem::replace(&mut own.data, data);
            if !written.is_empty() {
                let written = Arc::unwrap_or_clone(written);
                Arc::make_mut(&mut own.data).extend(written);
            }
        });
    }
}
