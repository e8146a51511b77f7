//! The packets that a recoverable namespace keeps for clients that come back.
//!
//! A packet keeps its target, and each socket keeps what it was in and when ([`Kept`]); so whoever
//! was meant is decided by the state at the packet's place, though only when someone asks. That
//! costs a packet the same whatever the number of its recipients. Packets are found by room, and
//! each room remembers the last one that was evicted: a client that missed none of its own comes
//! back however many of others are gone.

use std::cmp::Reverse;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet, Vector};

use super::change::{NodeId, Packet, Place, RecoveryTerms, SessionValue};
use super::id::SocketId;
use super::rooms::SocketBits;
use super::sockets::is_own_room;
use super::stays::{Kept, Stay};
use super::target::Target;
use crate::socketio::Payload;

/// What a packet counts for beside its texts and attachments, so that small ones are bounded too.
pub const KEPT_PACKET_BYTES: u64 = 320;

/// How many packets in a row that leave a socket out are looked at.
const MAX_SPARING: usize = 64;

/// A packet as the window keeps it, without a hold on the log entry that it came in.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptPacket {
    pub place: Place,
    pub target: Target,
    pub payload: Payload,
    pub(super) stamp_ms: u64,
}

impl KeptPacket {
    pub(super) fn new(place: Place, stamp_ms: u64, target: &Target, payload: &Payload) -> Self {
        let copied = |texts: &[bytestring::ByteString]| {
            texts.iter().map(|text| text.to_string().into()).collect()
        };
        Self {
            place,
            stamp_ms,
            target: Target {
                rooms: copied(&target.rooms),
                except: copied(&target.except),
                filter: target.filter.clone(),
            },
            payload: Payload {
                json: payload.json.to_string().into(),
                attachments: payload
                    .attachments
                    .iter()
                    .map(|bytes| bytes::Bytes::copy_from_slice(bytes))
                    .collect(),
            },
        }
    }

    fn bytes(&self) -> u64 {
        let attachments = self.payload.attachments.iter().map(bytes::Bytes::len);
        let texts = self.target.bytes() + self.payload.json.len();
        KEPT_PACKET_BYTES + (texts + attachments.sum::<usize>()) as u64
    }

    /// The one socket that the packet leaves out, as far as that can be told without the state.
    fn spared(&self) -> Option<SocketBits> {
        self.target.except.iter().find_map(|room| Some(room.parse::<SocketId>().ok()?.to_bits()))
    }
}

/// What one recoverable namespace keeps. It is there as long as it has recoverable sockets.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Window {
    pub(super) terms: RecoveryTerms,
    packets: Vector<Arc<KeptPacket>>,
    /// The number of the packet in front; the others follow on.
    first: u64,
    bytes: u64,
    /// Of packets to all.
    all: Channel,
    /// Of packets to all whose session matches.
    filtered: Channel,
    /// Of packets to rooms. A room's channel stays while it has members.
    rooms: OrdMap<Arc<str>, Channel>,
    sockets: OrdMap<SocketBits, Arc<Kept>>,
    /// Those that are away, and since when.
    detached: OrdSet<(u64, SocketBits)>,
    /// Of what applications keep with them.
    data_bytes: u64,
    /// The latest stamp seen: proposers' clocks differ, and time does not go back.
    latest_ms: u64,
}

/// The packets that were meant for one room.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Channel {
    /// The place of its first packet.
    pub(super) since: Place,
    /// The numbers of those that are kept, ascending.
    kept: Vector<u64>,
    pub(super) evicted: Evicted,
}

/// The last packets of a room that are gone.
///
/// Whoever emits to all but himself is told apart, for he missed nothing: places only grow, so the
/// last two with different exceptions tell for each socket which was the last that it missed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Evicted {
    pub(super) last: Place,
    /// The socket that the last one left out.
    pub(super) spared: Option<SocketBits>,
    /// The last one that did not leave it out.
    pub(super) before: Place,
}

impl Evicted {
    fn note(&mut self, place: Place, spared: Option<SocketBits>) {
        if spared.is_none() || spared != self.spared {
            self.before = self.last;
        }
        self.last = place;
        self.spared = spared;
    }

    fn missed_by(&self, socket: &SocketBits) -> Place {
        if self.spared.as_ref() == Some(socket) { self.before } else { self.last }
    }
}

impl Window {
    /// One that was written down; its packets, sockets and channels follow.
    pub(super) fn restored(terms: RecoveryTerms, latest_ms: u64, first: u64) -> Self {
        Self { terms, latest_ms, first, ..Self::default() }
    }

    pub(super) fn latest_ms(&self) -> u64 {
        self.latest_ms
    }

    /// The number of the oldest packet.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn packets(&self) -> impl Iterator<Item = &Arc<KeptPacket>> {
        self.packets.iter()
    }

    pub(super) fn packets_len(&self) -> usize {
        self.packets.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = (&SocketBits, &Arc<Kept>)> {
        self.sockets.iter()
    }

    pub(super) fn is_unused(&self) -> bool {
        self.sockets.is_empty()
    }

    pub(super) fn kept(&self, socket: &SocketBits) -> Option<&Arc<Kept>> {
        self.sockets.get(socket)
    }

    pub(super) fn kept_mut(&mut self, socket: &SocketBits) -> Option<&mut Kept> {
        // Looked up first, for a search for one to change copies.
        if !self.sockets.contains_key(socket) {
            return None;
        }
        self.sockets.get_mut(socket).map(Arc::make_mut)
    }

    /// A socket that packets are kept for from its place on.
    pub(super) fn enter(&mut self, socket: SocketBits, kept: Kept) {
        self.detached.extend(kept.detached_ms.map(|since| (since, socket)));
        self.data_bytes += data_len(&kept);
        self.sockets.insert(socket, Arc::new(kept));
    }

    pub(super) fn remove(&mut self, socket: &SocketBits) {
        if let Some(kept) = self.sockets.remove(socket)
            && let Some(since) = kept.detached_ms
        {
            self.detached.remove(&(since, *socket));
            self.data_bytes -= data_len(&kept);
        }
        let own = SocketId::from_bits(*socket);
        self.release(own.as_str(), |_room| false);
    }

    /// A socket is away from now on, which `node` had. Its `data` is left out once that of all would be more than the
    /// packets may be.
    pub(super) fn detach(
        &mut self,
        socket: &SocketBits,
        stamp_ms: u64,
        node: NodeId,
        data: Option<&str>,
    ) {
        let now = self.now(stamp_ms);
        let room = self.terms.max_bytes.saturating_sub(self.data_bytes);
        let Some(kept) = self.kept_mut(socket) else { return };
        // Copied: it is a piece of a log entry, which it would keep in memory.
        let data = data.filter(|data| data.len() as u64 <= room).map(Arc::from);
        let data_before = data_len(kept);
        kept.data = data;
        kept.node = node;
        let (data_now, since_before) = (data_len(kept), kept.detached_ms.replace(now));
        self.data_bytes = self.data_bytes - data_before + data_now;
        if let Some(since) = since_before {
            self.detached.remove(&(since, *socket));
        }
        self.detached.insert((now, *socket));
    }

    /// A socket is back, by the connection that claimed it; the data that it was away with.
    pub(super) fn attach(&mut self, socket: &SocketBits, claim: u64) -> Option<Arc<str>> {
        let kept = self.kept_mut(socket)?;
        kept.claim = claim;
        let (data_bytes, since) = (data_len(kept), kept.detached_ms.take());
        let data = kept.data.take();
        self.data_bytes -= data_bytes;
        if let Some(since) = since {
            self.detached.remove(&(since, *socket));
        }
        data
    }

    pub(super) fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    pub(super) fn detached_len(&self) -> usize {
        self.detached.len()
    }

    /// Sockets that have been away for longer than the window, the longest first.
    pub(super) fn overdue(&self, now_ms: u64) -> impl Iterator<Item = SocketBits> {
        let max_age_ms = self.terms.max_age_ms;
        self.detached
            .iter()
            .take_while(move |(since, _)| since.saturating_add(max_age_ms) <= now_ms)
            .map(|(_, socket)| *socket)
    }

    pub(super) fn has_overdue(&self, now_ms: u64) -> bool {
        self.overdue(now_ms).next().is_some() || self.front_is_overdue(now_ms)
    }

    fn front_is_overdue(&self, now_ms: u64) -> bool {
        let front = self.packets.front();
        front.is_some_and(|packet| packet.stamp_ms.saturating_add(self.terms.max_age_ms) <= now_ms)
    }

    fn now(&mut self, stamp_ms: u64) -> u64 {
        self.latest_ms = self.latest_ms.max(stamp_ms);
        self.latest_ms
    }

    /// Keeps a packet, and evicts what there is no room for any more. `is_room`: whether a room
    /// has members.
    pub(super) fn push(
        &mut self,
        place: Place,
        stamp_ms: u64,
        packet: &Packet,
        is_room: impl Fn(&str) -> bool,
    ) {
        let stamp_ms = self.now(stamp_ms);
        self.add(KeptPacket::new(place, stamp_ms, &packet.target, &packet.payload));
        while self.bytes > self.terms.max_bytes {
            self.evict(&is_room);
        }
    }

    pub(super) fn add(&mut self, packet: KeptPacket) {
        let number = self.first + self.packets.len() as u64;
        self.latest_ms = self.latest_ms.max(packet.stamp_ms);
        self.bytes += packet.bytes();
        self.each_channel(&packet.target, packet.place, |channel| {
            // A room may be named twice.
            if channel.kept.last() != Some(&number) {
                channel.kept.push_back(number);
            }
        });
        self.packets.push_back(Arc::new(packet));
    }

    /// Visits the channels of a packet's target; they begin with the packet if need be.
    fn each_channel(&mut self, target: &Target, place: Place, mut visit: impl FnMut(&mut Channel)) {
        if target.rooms.is_empty() {
            return visit(if target.filter.is_some() { &mut self.filtered } else { &mut self.all });
        }
        for room in &target.rooms {
            if !self.rooms.contains_key(&**room) {
                let channel = Channel { since: place, ..Channel::default() };
                self.rooms.insert((**room).into(), channel);
            }
            visit(self.rooms.get_mut(&**room).expect("it was there or inserted"));
        }
    }

    /// Evicts up to `limit` packets that are too old.
    pub(super) fn evict_overdue(
        &mut self,
        now_ms: u64,
        limit: usize,
        is_room: impl Fn(&str) -> bool,
    ) {
        for _ in 0..limit {
            if !self.front_is_overdue(now_ms) {
                return;
            }
            self.evict(&is_room);
        }
    }

    fn evict(&mut self, is_room: impl Fn(&str) -> bool) {
        let Some(packet) = self.packets.pop_front() else { return };
        let number = self.first;
        self.first += 1;
        self.bytes -= packet.bytes();
        let spared = packet.spared();
        self.each_channel(&packet.target, packet.place, |channel| {
            if channel.kept.front() == Some(&number) {
                channel.kept.pop_front();
                channel.evicted.note(packet.place, spared);
            }
        });
        for room in &packet.target.rooms {
            self.release(room, &is_room);
        }
    }

    /// Forgets a room that has neither packets nor members. (Its name may be a socket's id: then
    /// it is there as long as the socket.)
    pub(super) fn release(&mut self, room: &str, is_room: impl Fn(&str) -> bool) {
        let is_empty = self.rooms.get(room).is_some_and(|channel| channel.kept.is_empty());
        if is_empty && !is_room(room) && !self.is_own_room(room) {
            self.rooms.remove(room);
        }
    }

    fn is_own_room(&self, room: &str) -> bool {
        room.parse::<SocketId>().is_ok_and(|id| self.sockets.contains_key(&id.to_bits()))
    }

    pub(super) fn channels(&self) -> impl Iterator<Item = (&str, &Channel)> {
        self.rooms.iter().map(|(room, channel)| (&**room, channel))
    }

    /// What is gone of the packets to all, and of those to all whose session matches.
    pub(super) fn general_evictions(&self) -> [Evicted; 2] {
        [self.all.evicted, self.filtered.evicted]
    }

    pub(super) fn restore_general_evictions(&mut self, [all, filtered]: [Evicted; 2]) {
        self.all.evicted = all;
        self.filtered.evicted = filtered;
    }

    /// After its packets were added.
    pub(super) fn restore_channel(&mut self, room: &str, since: Place, evicted: Evicted) {
        let kept = self.rooms.get(room).map(|channel| channel.kept.clone()).unwrap_or_default();
        self.rooms.insert(room.into(), Channel { since, kept, evicted });
    }

    /// The last packet of a room that `socket` is in, kept or gone, but for those that leave it out;
    /// of many such in a row the last one.
    pub(super) fn last_in(&self, room: &str, socket: &SocketBits) -> Place {
        let Some(channel) = self.rooms.get(room) else { return Place::default() };
        let mut latest = channel.kept.iter().rev().map(|number| self.packet(*number));
        let meant = latest
            .by_ref()
            .take(MAX_SPARING)
            .find(|packet| packet.spared().as_ref() != Some(socket));
        match (meant, channel.kept.last()) {
            (Some(packet), _) => packet.place,
            (None, Some(last)) if latest.next().is_some() => self.packet(*last).place,
            (None, _) => channel.evicted.missed_by(socket),
        }
    }

    /// The place of the oldest packet that is kept.
    pub(super) fn oldest(&self) -> Place {
        self.packets.front().map_or(Place::END, |packet| packet.place)
    }

    /// Whether a packet after `from` that may have been meant for the socket is gone. Exceptions
    /// other than of one socket, and filters, are not looked at: they err on the side of a gap.
    pub(super) fn has_gap(&self, socket: &SocketBits, kept: &Kept, from: Place) -> bool {
        let own = SocketId::from_bits(*socket);
        let channels = [Some(&self.all), Some(&self.filtered), self.rooms.get(own.as_str())];
        kept.lost > from
            || channels.into_iter().flatten().any(|is| is.evicted.missed_by(socket) > from)
            || kept.stays_after(from).any(|stay| self.has_gap_in(stay, socket, from))
    }

    fn has_gap_in(&self, stay: &Stay, socket: &SocketBits, from: Place) -> bool {
        let after = from.max(stay.joined);
        match self.rooms.get(&*stay.room) {
            Some(channel) if channel.since < stay.left => {
                channel.evicted.missed_by(socket) > after && (stay.is_open() || stay.last > after)
            }
            // The channel of the socket's time has ended with its last packet's eviction.
            Some(_) | None => stay.last > after,
        }
    }

    /// The packets after `from` that were meant for the socket, in order. `session`: as it is now.
    pub(super) fn missed(
        &self,
        socket: &SocketBits,
        kept: &Kept,
        from: Place,
        session: Option<&Arc<SessionValue>>,
    ) -> Vec<Arc<KeptPacket>> {
        let own = SocketId::from_bits(*socket);
        let stays = kept.stays_after(from).filter_map(|stay| self.rooms.get(&*stay.room));
        let channels = [Some(&self.all), Some(&self.filtered), self.rooms.get(own.as_str())];
        let mut numbers: Vec<u64> = Vec::new();
        for channel in channels.into_iter().flatten().chain(stays) {
            // From the end, for most come back soon.
            let kept = channel.kept.iter().rev().copied();
            numbers.extend(kept.take_while(|number| self.packet(*number).place > from));
        }
        numbers.sort_unstable_by_key(|number| Reverse(*number));
        numbers.dedup();
        let packets = numbers.into_iter().rev().map(|number| self.packet(number).clone());
        packets.filter(|packet| is_meant(packet, socket, kept, session)).collect()
    }

    fn packet(&self, number: u64) -> &Arc<KeptPacket> {
        let at = usize::try_from(number - self.first).expect("a window is in memory");
        self.packets.get(at).expect("a number that is kept is in the window")
    }
}

/// Whether a packet in one of the socket's channels was meant for it, at the packet's place.
fn is_meant(
    packet: &KeptPacket,
    socket: &SocketBits,
    kept: &Kept,
    session: Option<&Arc<SessionValue>>,
) -> bool {
    let KeptPacket { place, target, .. } = packet;
    let was_in =
        |room: &bytestring::ByteString| is_own_room(socket, room) || kept.was_in(room, *place);
    (target.rooms.is_empty() || target.rooms.iter().any(was_in))
        && !target.except.iter().any(was_in)
        && target.filter.as_ref().is_none_or(|filter| {
            match kept.session_at(*place, session) {
                Some(session) => filter.matches(&session.object),
                // A session that nobody wrote to is an empty object.
                None => filter.pairs().is_empty(),
            }
        })
}

/// The bytes of what an application keeps with a socket that is away.
fn data_len(kept: &Kept) -> u64 {
    kept.data.as_ref().map_or(0, |data| data.len() as u64)
}
