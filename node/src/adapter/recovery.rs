//! How clients come back to their sockets: what they show, what they missed, and how packets tell
//! them where they are.
//!
//! On the wire it is Socket.IO's connection state recovery: CONNECT carries a `pid`, each event an
//! offset as its last argument, and a client that connects again sends back both.

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::Deserialize;

use super::connecting::Connecting;
use super::encoded::Encoded;
use super::namespace::Adapter;
use super::projection::{Heard, Part};
use super::recipient::{Phase, Recipient};
use super::replays::Replays;
use crate::engineio::{CloseReason, Revision};
use crate::metrics;
use crate::raft::Receipt;
use crate::raft::state::{
    Backlog, Change, KeptPacket, NodeId, Pid, Place, Recovered, RecoveryTerms, SocketClaim,
    SocketId,
};
use crate::random;
use crate::socketio::Payload;
use crate::socketio::codec::Kind;

/// Connection state recovery of a namespace; its defaults are the official server's, as far as
/// that has such a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecoveryConfig {
    /// How long a client may be away, and how long packets are kept for it.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
    /// Of all packets that are kept; each counts as its text and 320 bytes.
    pub max_bytes: u64,
    /// Whether the namespace's middlewares are not asked about a client that comes back.
    pub skip_middlewares: bool,
}

impl Default for RecoveryConfig {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(120), max_bytes: 16 << 20, skip_middlewares: true }
    }
}

/// A recoverable namespace, on this node.
pub(super) struct Recovery {
    config: RecoveryConfig,
    /// How far the delivery task is in the log. Locked while it acts on a change, and by direct
    /// packets while they are queued: a packet that tells a client where it is tells the truth.
    reached: Mutex<Place>,
    /// Sockets that are adrift are about to be asked for again.
    pub(super) asks_again: AtomicBool,
    /// What clients missed that came back lately.
    replays: Arc<Replays>,
}

impl Recovery {
    pub(super) fn new(config: RecoveryConfig) -> Self {
        let replays = Arc::new(Replays::new(config.max_bytes));
        let asks_again = AtomicBool::new(false);
        Self { config, reached: Mutex::default(), asks_again, replays }
    }

    pub(super) fn terms(&self) -> RecoveryTerms {
        RecoveryTerms {
            max_age_ms: self.config.max_age.as_millis().try_into().unwrap_or(u64::MAX),
            max_bytes: self.config.max_bytes,
        }
    }

    pub(super) fn reached(&self) -> MutexGuard<'_, Place> {
        self.reached.lock().expect("nothing panics while it queues packets")
    }
}

/// What a client that comes back shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub socket: SocketId,
    pid: Pid,
    /// The last packet that it has. The beginning, if it has none: its socket began later.
    offset: Place,
    /// The packet after it that the client has some parts of, and the key of the last of them.
    seam: Option<(Place, u32)>,
    /// Names the connection by which it comes.
    pub key: u64,
}

/// What clients call these, in the payload of their CONNECT.
#[derive(Deserialize)]
struct Shown<'a> {
    #[serde(borrow)]
    pid: Cow<'a, str>,
    #[serde(borrow, default)]
    offset: Option<Cow<'a, str>>,
}

impl Claim {
    /// None if the client shows nothing, or what no node of this cluster gave it.
    fn parse(auth: &str, cluster: u64) -> Option<Self> {
        let shown: Shown<'_> = serde_json::from_str(auth).ok()?;
        let (socket, pid) = parse_pid(&shown.pid)?;
        let (place, part) = match shown.offset {
            Some(text) => parse_offset(&text, cluster)?,
            None => (Place::default(), None),
        };
        // Whoever has some parts of a packet may miss the others.
        let offset = if part.is_some() { place.before() } else { place };
        let seam = part.map(|part| (place, part));
        // 0 names the socket's first connection.
        Some(Self { socket, pid, offset, seam, key: random::number().max(1) })
    }
}

/// The pid that clients see names the socket, so that any node finds it, and proves that it is
/// theirs.
fn pid_text(socket: SocketId, pid: Pid) -> String {
    format!("{socket}{pid}")
}

fn parse_pid(text: &str) -> Option<(SocketId, Pid)> {
    let (socket, pid) = text.split_at_checked(20)?;
    Some((socket.parse().ok()?, pid.parse().ok()?))
}

/// The cluster is named, for a client may outlive it and come to another.
fn offset_text(cluster: u64, Place { index, position }: Place) -> String {
    format!("{cluster:x}-{index:x}-{position:x}")
}

/// The same, for a client that has the packet's parts up to the one of that key.
fn part_offset_text(cluster: u64, place: Place, key: u32) -> String {
    format!("{}-{key:x}", offset_text(cluster, place))
}

fn parse_offset(text: &str, cluster: u64) -> Option<(Place, Option<u32>)> {
    let mut parts = text.split('-');
    let mut part = || u64::from_str_radix(parts.next()?, 16).ok();
    let (of, index, position) = (part()?, part()?, part()?);
    let place = Place { index, position: position.try_into().ok()? };
    let part = match parts.next() {
        Some(key) => Some(u32::from_str_radix(key, 16).ok()?),
        None => None,
    };
    (of == cluster && parts.next().is_none()).then_some((place, part))
}

/// A packet as clients get it. While there is one, no other tells them where they are.
pub(super) struct Stamped<'a> {
    payload: Cow<'a, Payload>,
    _reached: Option<MutexGuard<'a, Place>>,
}

impl Deref for Stamped<'_> {
    type Target = Payload;

    fn deref(&self) -> &Payload {
        &self.payload
    }
}

/// Tells clients where they are by the parts of one packet. While there is one for direct packets,
/// no other packet does.
pub(super) struct Stamp<'a> {
    adapter: &'a Adapter,
    at: At<'a>,
}

enum At<'a> {
    /// Clients are not told.
    Nowhere,
    Place(Place),
    /// For direct packets, which leave clients where they are.
    Reached(MutexGuard<'a, Place>),
}

impl Stamp<'_> {
    /// `is_last`: the client has all of the packet with this part.
    pub(super) fn of_part<'p>(&self, part: &'p Part, is_last: bool) -> Cow<'p, Payload> {
        let adapter = self.adapter;
        let payload = &part.payload;
        match &self.at {
            At::Place(place) if is_last => Cow::Owned(adapter.with_offset(payload, *place)),
            At::Place(place) => {
                let offset = part_offset_text(adapter.cluster_id(), *place, part.key);
                Cow::Owned(with_last(payload, &offset))
            }
            At::Reached(place) if ends_in_text(payload) => {
                Cow::Owned(adapter.with_reached(payload, **place))
            }
            At::Reached(_) | At::Nowhere => Cow::Borrowed(payload),
        }
    }
}

impl Adapter {
    /// For the parts of a packet: one of the log, or (`None`) a direct one.
    pub(super) fn stamp(&self, place: Option<Place>) -> Stamp<'_> {
        let at = match (&self.recovery, place) {
            (None, _) => At::Nowhere,
            (Some(_), Some(place)) => At::Place(place),
            (Some(recovery), None) => At::Reached(recovery.reached()),
        };
        Stamp { adapter: self, at }
    }

    /// The namespace's connection state recovery, if it is on.
    pub fn recovery(&self) -> Option<&RecoveryConfig> {
        self.recovery.as_ref().map(|recovery| &recovery.config)
    }

    /// The socket that a client wants back, by what it sends with its CONNECT.
    pub fn claim_of(&self, auth: &str) -> Option<Claim> {
        self.recovery.as_ref()?;
        Claim::parse(auth, self.cluster_id())
    }

    /// The node that has the socket which a client wants back, as far as this one knows: none if it
    /// is away, or not the client's.
    pub fn owner_of(&self, claim: &Claim) -> Option<NodeId> {
        let view = self.view();
        let socket = view.socket(claim.socket)?;
        let is_its = socket.pid() == claim.pid && *socket.namespace() == self.name;
        (is_its && !socket.is_detached()).then(|| socket.owner().node)
    }

    /// Asks the cluster for a socket. Once it is given, the delivery task queues what the client
    /// missed and its CONNECT, and moves the socket to [`Phase::Connected`].
    pub fn claim(&self, recipient: Arc<Recipient>, claim: &Claim) -> Receipt {
        let change = SocketClaim {
            socket: claim.socket,
            pid: claim.pid,
            namespace: self.name.clone(),
            offset: claim.offset,
            key: claim.key,
            renews: false,
        };
        let connecting = Connecting { recipient, pid: claim.pid, seam: claim.seam, session: None };
        self.propose_connecting(connecting, Change::SocketClaim(Box::new(change)), false)
    }

    /// The cluster did not give a socket back: false if its client is not there any more.
    pub fn refuse_claim(&self, recipient: &Recipient) -> bool {
        metrics::RECOVERIES.refused.add(1);
        self.connecting().remove(&(recipient.id, recipient.claim));
        recipient.advance(Phase::NotRecovered)
    }

    /// A socket's connection was lost: if the namespace is recoverable its client may come back,
    /// otherwise it is over.
    pub fn lose_connection(&self, recipient: &Recipient) {
        let was_seen = match recipient.phase() {
            Phase::Connected => true,
            // The change that gives it back may be on its way, and the client has been here before.
            Phase::Connecting => recipient.claim != 0,
            // The application ended it, and its connection did not come to that any more.
            _ => false,
        };
        // A client of revision 3 was not told how.
        let may_return = was_seen && recipient.outbox.revision() == Revision::V4;
        if self.recovery.is_none() || !may_return {
            return self.leave_namespace(recipient);
        }
        let (socket, claim) = (recipient.id, recipient.claim);
        let data = recipient.above().and_then(|above| above.data()).map(Into::into);
        self.end(recipient, Change::SocketDetached { socket, claim, data });
    }

    /// Another connection has the socket: the one that had it is over, and most likely has been for
    /// a while.
    pub(super) fn take_away(&self, socket: &SocketId, claim: u64) {
        let Some(recipient) = self.local.get(socket) else { return };
        if recipient.claim == claim {
            self.local.remove_recipient(&recipient);
            recipient.outbox.close(CloseReason::ForcedServerClose);
        }
    }

    /// Lets a socket back in: what its client missed is queued, then its CONNECT, and it takes
    /// part. The official server has this order, and the client expects it.
    pub(super) fn let_back_in(&self, recovered: Recovered) -> Heard {
        // Held, so that the end of its connection comes before all of this or after it.
        let mut connecting = self.connecting();
        let Some(socket) = connecting.remove(&(recovered.socket, recovered.claim)) else {
            drop(connecting);
            // It never went, or its connection ended in the meantime and has said so already.
            return self.bring_in(recovered);
        };
        let Recovered { rooms, session, value, data, backlog, .. } = recovered;
        let recipient = &socket.recipient;
        // Another connection of this node may have it still, from before the cluster gave it up.
        if let Some(before) = self.local.remove(&recipient.id) {
            before.outbox.close(CloseReason::ForcedServerClose);
        }
        metrics::RECOVERIES.recovered.add(1);
        let heard = self.replay(recipient, &backlog, socket.seam);
        recipient.set_session(session);
        if let Some(above) = recipient.above() {
            above.restore(data.as_deref());
        }
        let connect = self.connect_packet(&socket);
        self.local.insert(socket.recipient, &rooms, value, |recipient| {
            recipient.advance(Phase::Connected);
            recipient.outbox.push_news(connect);
        });
        heard
    }

    /// Queues what a socket missed; who hears of it. `seam`: the packet that its client has some
    /// parts of, and the key of the last of them.
    pub(super) fn replay(
        &self,
        recipient: &Arc<Recipient>,
        backlog: &Backlog,
        seam: Option<(Place, u32)>,
    ) -> Heard {
        let missed = backlog.packets();
        metrics::RECOVERIES.replayed.add(missed.len() as u64);
        let hears = recipient.hears();
        let mut heard = Heard::default();
        for packet in missed {
            let has = seam.filter(|(place, _)| *place == packet.place).map(|(_, key)| key);
            let Some(parts) = self.missed_parts(&packet, backlog, has) else {
                recipient.outbox.push(self.frames_again(&packet));
                if hears {
                    heard.add(recipient, self.with_offset(&packet.payload, packet.place));
                }
                continue;
            };
            for part in parts {
                recipient.outbox.push(self.encode(Kind::Event, None, &part));
                if hears {
                    heard.add(recipient, part);
                }
            }
        }
        heard
    }

    /// A packet as those get it who missed it, with its offset: one encode for all of them.
    fn frames_again(&self, packet: &KeptPacket) -> Arc<Encoded> {
        let encode = || {
            let payload = self.with_offset(&packet.payload, packet.place);
            self.encode(Kind::Event, None, &payload).into_replay()
        };
        let Some(Recovery { replays, .. }) = &self.recovery else { return encode() };
        let frames = replays.frames(packet.place, encode);
        if replays.must_be_watched() {
            self.cluster.spawn(replays.clone().forget_once_idle());
        }
        frames
    }

    pub(super) fn connect_packet(&self, socket: &Connecting) -> Arc<Encoded> {
        let id = socket.recipient.id;
        let json = match (socket.recipient.outbox.revision(), &self.recovery) {
            // The client knows its id, and a payload would be none of its packet.
            (Revision::V3, _) => String::new(),
            (Revision::V4, None) => format!(r#"{{"sid":"{id}"}}"#),
            (Revision::V4, Some(_)) => {
                format!(r#"{{"sid":"{id}","pid":"{}"}}"#, pid_text(id, socket.pid))
            }
        };
        let payload = Payload { json: json.into(), attachments: Vec::new() };
        self.encode(Kind::Connect, None, &payload)
    }

    /// The delivery task acts on the change at `place` until the guard is dropped.
    pub(super) fn reach(&self, place: Place) -> Option<MutexGuard<'_, Place>> {
        let mut reached = self.recovery.as_ref()?.reached();
        *reached = place;
        Some(reached)
    }

    /// A packet of the log, which tells the client where it is. One that expects an ack does not:
    /// its last argument is the client's callback.
    pub(super) fn stamped_at<'a>(
        &self,
        place: Place,
        payload: &'a Payload,
        wants_ack: bool,
    ) -> Stamped<'a> {
        let payload = if self.recovery.is_some() && !wants_ack {
            Cow::Owned(self.with_offset(payload, place))
        } else {
            Cow::Borrowed(payload)
        };
        Stamped { payload, _reached: None }
    }

    /// A direct packet. Clients take any text at the end of an event for their offset, so one that
    /// ends in a text gets the true one after it.
    pub(super) fn stamped_now<'a>(&'a self, payload: &'a Payload, wants_ack: bool) -> Stamped<'a> {
        match &self.recovery {
            Some(recovery) if !wants_ack && ends_in_text(payload) => {
                let reached = recovery.reached();
                let payload = Cow::Owned(self.with_reached(payload, *reached));
                Stamped { payload, _reached: Some(reached) }
            }
            Some(_) | None => Stamped { payload: Cow::Borrowed(payload), _reached: None },
        }
    }

    /// An event that goes to a client ahead of its CONNECT. It leaves the client where it is.
    pub fn stamped_early(&self, payload: Payload, auth: Option<&str>) -> Payload {
        if self.recovery.is_none() || !ends_in_text(&payload) {
            return payload;
        }
        let claim = auth.and_then(|auth| self.claim_of(auth));
        self.with_offset(&payload, claim.map(|claim| claim.offset).unwrap_or_default())
    }

    fn with_offset(&self, payload: &Payload, place: Place) -> Payload {
        with_last(payload, &offset_text(self.cluster_id(), place))
    }

    /// For a direct packet. While sockets are adrift `reached` is not true for all who get it: then
    /// it tells nobody where he is.
    fn with_reached(&self, payload: &Payload, reached: Place) -> Payload {
        if self.local.has_adrift() {
            with_argument(payload, "null")
        } else {
            self.with_offset(payload, reached)
        }
    }

    /// The node is a member of a cluster before anything is agreed.
    fn cluster_id(&self) -> u64 {
        self.cluster.raft().cluster_id().unwrap_or_default()
    }
}

/// With an offset as its last argument.
fn with_last(payload: &Payload, offset: &str) -> Payload {
    with_argument(payload, &format!("\"{offset}\""))
}

/// With one more argument, which is JSON.
fn with_argument(payload: &Payload, argument: &str) -> Payload {
    let text = payload.json.trim_end().strip_suffix(']').unwrap_or(&payload.json);
    Payload {
        json: [text, ",", argument, "]"].concat().into(),
        attachments: payload.attachments.clone(),
    }
}

/// Whether the last element is a text, be it the event's name.
fn ends_in_text(payload: &Payload) -> bool {
    let text = payload.json.trim_end();
    text.strip_suffix(']').is_some_and(|rest| rest.trim_end().ends_with('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_survives_its_text_form_and_belongs_to_its_cluster() {
        let place = Place { index: 1 << 41, position: 17 };
        let text = offset_text(0xabc, place);
        assert_eq!(parse_offset(&text, 0xabc), Some((place, None)));
        let part = part_offset_text(0xabc, place, 0xf00d);
        assert_eq!(parse_offset(&part, 0xabc), Some((place, Some(0xf00d))));
        assert_eq!(parse_offset(&text, 0xabd), None);
        for text in [
            "",
            "abc",
            "abc-1",
            "abc-1-2-3-4",
            "abc-1-2-x",
            "abc-x-1",
            "abc-1-100000000",
            "abc--1-1",
        ] {
            assert_eq!(parse_offset(text, 0xabc), None, "{text}");
        }
    }

    #[test]
    fn client_shows_its_pid_and_maybe_an_offset() {
        let (socket, pid) = (SocketId::random(), Pid::random());
        let place = Place { index: 7, position: 2 };
        let [text, offset] = [pid_text(socket, pid), offset_text(1, place)];
        let parse = |auth: &str| Claim::parse(auth, 1).map(|claim| (claim.socket, claim.offset));
        let auth = format!(r#"{{"token":[1],"pid":"{text}","offset":"{offset}"}}"#);
        assert_eq!(parse(&auth), Some((socket, place)));
        let fresh = format!(r#"{{"pid":"{text}"}}"#);
        assert_eq!(parse(&fresh), Some((socket, Place::default())));
    }

    #[test]
    fn what_no_node_gave_is_no_claim() {
        let text = pid_text(SocketId::random(), Pid::random());
        for auth in [
            "{}".to_owned(),
            r#"{"offset":"1-2-3"}"#.to_owned(),
            r#"{"pid":7,"offset":"1-2-3"}"#.to_owned(),
            r#"{"pid":"short"}"#.to_owned(),
            format!(r#"{{"pid":"{text}x"}}"#),
            format!(r#"{{"pid":"é{}"}}"#, &text[2..]),
            format!(r#"{{"pid":"{text}","offset":"hello"}}"#),
            format!(r#"{{"pid":"{text}","offset":5}}"#),
            format!(r#"{{"pid":"{text}","offset":"2-2-3"}}"#),
        ] {
            assert_eq!(Claim::parse(&auth, 1), None, "{auth}");
        }
    }

    #[test]
    fn only_a_text_at_the_end_is_taken_for_an_offset() {
        let ends =
            |json: &str| ends_in_text(&Payload { json: json.into(), attachments: Vec::new() });
        assert!(ends(r#"["tick","now"]"#) && ends(r#"["tick"]"#) && ends("[\"a\", \"b\" ] "));
        assert!(
            !ends(r#"["tick",1]"#) && !ends(r#"["tick",["a"]]"#) && !ends(r#"["t",{"a":"b"}]"#)
        );
    }
}
