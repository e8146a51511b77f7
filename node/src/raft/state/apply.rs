//! Applies changes: the rules of DESIGN 3, each in one place.

use std::sync::Arc;

use smallvec::SmallVec;

use super::State;
use super::change::{
    Change, Effect, Incarnation, Namespace, NodeId, NodeUp, Outcome, Owner, Place, Proposal, Rooms,
    SessionValue, SocketUp,
};
use super::departures::Departure;
use super::id::{SessionId, SocketId};
use super::nodes::NodeStatus;
use super::rooms::SocketBits;
use super::sessions::SessionBits;
use super::sockets::{NotMoved, is_own_room};
use super::target::Target;

/// What follows from one change; mostly one effect.
pub type Effects = SmallVec<[Effect; 1]>;

/// One change that was applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// Its sequence number, by which the proposer knows it.
    pub seq: u64,
    pub outcome: Outcome,
    pub effects: Effects,
}

/// What became of a whole proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Applied, but for the first `skipped` changes, which had been applied before.
    Applied { skipped: usize },
    /// Nothing was applied: the incarnation that proposed it is not alive. `alive` is the one
    /// that is, if any.
    Refused { alive: Option<Incarnation> },
    /// Nothing was applied: a change before these is missing.
    Gap { expected: u64 },
}

/// Who proposes, when, and where in the log.
#[derive(Clone, Copy)]
pub(super) struct Proposer {
    pub(super) owner: Owner,
    pub(super) stamp_ms: u64,
    /// Where the change stands that is being applied.
    pub(super) place: Place,
}

/// What a socket does with rooms.
#[derive(Clone, Copy)]
enum Step {
    Join,
    Leave,
}

impl State {
    /// Applies what is new of a proposal at its place in the log, and pushes to `applied` what
    /// follows from each change, in order.
    pub fn apply(&mut self, index: u64, proposal: Proposal, applied: &mut Vec<Applied>) -> Verdict {
        self.index = index;
        let Proposal { node, incarnation, first_seq, stamp_ms, mut changes } = proposal;
        if incarnation == 0 {
            return match (changes.pop(), changes.is_empty()) {
                (Some(Change::NodeUp(up)), true) => {
                    applied.push(self.register(node, first_seq, *up, stamp_ms));
                    Verdict::Applied { skipped: 0 }
                }
                _ => Verdict::Refused { alive: self.nodes.alive(node) },
            };
        }
        let owner = Owner { node, incarnation };
        if !self.nodes.is_alive(owner) {
            return Verdict::Refused { alive: self.nodes.alive(node) };
        }
        let expected = self.nodes.last_seq(node) + 1;
        if first_seq > expected {
            return Verdict::Gap { expected };
        }
        let skipped =
            usize::try_from(expected - first_seq).unwrap_or(usize::MAX).min(changes.len());
        let mut proposer = Proposer { owner, stamp_ms, place: Place { index, position: 0 } };
        let mut last_seq = expected - 1;
        for change in changes.into_iter().skip(skipped) {
            last_seq += 1;
            proposer.place = Place::of(index, first_seq, last_seq);
            self.applied[change.kind()] += 1;
            let mut effects = Effects::new();
            let outcome = self.apply_change(proposer, change, &mut effects);
            applied.push(Applied { seq: last_seq, outcome, effects });
        }
        self.nodes.set_last_seq(node, last_seq);
        Verdict::Applied { skipped }
    }

    /// Notes that the log went on without a proposal.
    pub fn advance_to(&mut self, index: u64) {
        self.index = index;
    }

    fn apply_change(&mut self, by: Proposer, change: Change, effects: &mut Effects) -> Outcome {
        match change {
            Change::NodeUp(_) => self.registered_already(by.owner),
            Change::NodeDraining => {
                self.nodes.set_status(by.owner, NodeStatus::Draining);
                Outcome::Applied
            }
            Change::NodeDown { node, incarnation } => {
                self.node_down(by, Owner { node, incarnation }, effects)
            }
            Change::SocketUp(up) => self.socket_up(by, *up, effects),
            Change::SocketGone { socket, claim } => self.socket_gone(by, socket, claim, effects),
            Change::Join { socket, rooms } => {
                self.change_rooms(by, socket, rooms, Step::Join, effects)
            }
            Change::Leave { socket, rooms } => {
                self.change_rooms(by, socket, rooms, Step::Leave, effects)
            }
            Change::JoinMatching { namespace, target, rooms } => {
                self.change_rooms_matching(by, &namespace, &target, &rooms, Step::Join, effects)
            }
            Change::LeaveMatching { namespace, target, rooms } => {
                self.change_rooms_matching(by, &namespace, &target, &rooms, Step::Leave, effects)
            }
            Change::DisconnectMatching { namespace, target, close } => {
                self.disconnect_matching(by, &namespace, &target, close, effects)
            }
            Change::SessionPut { session, expected, salt, value } => {
                self.session_put(by, (session, expected, salt), &value, effects)
            }
            Change::SessionExpired { session, revision } => {
                self.sessions.expire(&session.to_bits(), revision, by.stamp_ms);
                Outcome::Applied
            }
            Change::SessionTouch { session, keep_ms } => {
                self.sessions.keep(&session.to_bits(), keep_ms, by.owner.node, by.stamp_ms)
            }
            Change::SessionDestroy { session } => self.session_destroy(by, session, effects),
            Change::Packet(packet) => {
                self.keep_packet(by, &packet);
                effects.push(Effect::Packet(packet, by.owner));
                Outcome::Applied
            }
            Change::SocketDetached { socket, claim, data } => {
                self.socket_detached(by, socket, claim, data.as_deref(), effects)
            }
            Change::SocketClaim(claim) => self.socket_claim(by, &claim, effects),
            Change::WindowExpired { namespace } => self.window_expired(by, &namespace),
            Change::HearDeparted => self.hear_departed(by),
            Change::DepartedTold { end } => self.departed_told(end),
        }
    }

    /// A process registers: what its node's previous incarnation had is gone.
    fn register(&mut self, node: NodeId, seq: u64, up: NodeUp, stamp_ms: u64) -> Applied {
        self.applied[0] += 1;
        let registration = self.nodes.register(node, up, self.index);
        let mut effects = Effects::new();
        if let Some(owner) = registration.ended {
            self.purge(owner, stamp_ms);
            effects.push(Effect::NodeDown { owner });
        }
        effects.extend(registration.new.map(|owner| Effect::NodeUp { owner }));
        Applied { seq, outcome: registration.outcome, effects }
    }

    /// A registration comes alone, before its node has an incarnation; one among other changes
    /// tells nothing new.
    fn registered_already(&self, owner: Owner) -> Outcome {
        let last_seq = self.nodes.get(owner.node).map_or(0, |node| node.previous_seq);
        Outcome::Registered { incarnation: owner.incarnation, last_seq }
    }

    fn node_down(&mut self, by: Proposer, owner: Owner, effects: &mut Effects) -> Outcome {
        // A node whose change is in the log is alive: it cannot declare itself dead, and what
        // follows in the same proposal is still its own.
        if self.nodes.is_alive(owner) && owner != by.owner {
            self.nodes.set_status(owner, NodeStatus::Down);
            self.purge(owner, by.stamp_ms);
            effects.push(Effect::NodeDown { owner });
        }
        Outcome::Applied
    }

    /// Drops the sockets of an incarnation that ended, but those whose clients may come back for
    /// them. There is no effect for each of them, since only their owner would act on it.
    fn purge(&mut self, owner: Owner, stamp_ms: u64) {
        let gone: Vec<SocketBits> = self
            .sockets
            .iter()
            .filter(|(_, row)| row.home.owner == owner)
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            if self.may_return(&id) {
                self.detach(&id, stamp_ms, None);
            } else if let Some(row) = self.remove_socket(&id) {
                self.note_departed(&id, &row, owner.node, Departure::NodeDown, stamp_ms);
                self.sessions.abandon(row.session, id, stamp_ms);
            }
        }
        self.departures.forget_hearing(owner);
    }

    fn socket_up(&mut self, by: Proposer, up: SocketUp, effects: &mut Effects) -> Outcome {
        let (id, session_bits) = (up.socket.to_bits(), up.session.to_bits());
        if !self.sockets.insert(id, up.pid.to_bits(), session_bits, &up.namespace, by.owner) {
            // It is there already, proposed twice; 120 random bits are not another socket's by chance.
            return Outcome::UnknownSocket;
        }
        self.sockets.join(&id, &up.rooms);
        self.keep_socket(by, &up);
        let SocketUp { socket, namespace, session, keep_session_ms, rooms, .. } = up;
        self.sessions.enter(session_bits, id, by.stamp_ms);
        if keep_session_ms > 0 {
            self.sessions.keep(&session_bits, keep_session_ms, by.owner.node, by.stamp_ms);
        }
        let value = self.sessions.get(&session_bits).map(|row| row.value.clone());
        let rooms = without_own(&id, rooms);
        let owner = by.owner;
        effects.push(Effect::SocketUp { namespace, owner, socket, rooms, session, value });
        Outcome::Applied
    }

    pub(super) fn socket_gone(
        &mut self,
        by: Proposer,
        socket: SocketId,
        claim: u64,
        effects: &mut Effects,
    ) -> Outcome {
        let id = socket.to_bits();
        // Nobody's, and this connection's last: its node was given up before it could say so.
        let is_free = self.sockets.get(&id).is_some_and(|row| row.home.owner == Owner::NOBODY);
        if !(self.owns(by, &id) || is_free) || self.claim_of(&id) != claim {
            return Outcome::UnknownSocket;
        }
        let row = self.remove_socket(&id).expect("it was just looked at");
        self.sessions.leave(row.session, id, by.stamp_ms);
        let namespace = row.home.namespace.clone();
        effects.push(Effect::SocketGone { namespace, owner: by.owner, socket });
        Outcome::Applied
    }

    /// A socket's owner has it join rooms, or leave them.
    fn change_rooms(
        &mut self,
        by: Proposer,
        socket: SocketId,
        rooms: Rooms,
        step: Step,
        effects: &mut Effects,
    ) -> Outcome {
        let id = socket.to_bits();
        self.step(by, (socket, &id), Some(by.owner), rooms, step, effects)
    }

    /// All sockets that match join rooms, or leave them. Those that would be in too many join none.
    fn change_rooms_matching(
        &mut self,
        by: Proposer,
        namespace: &Namespace,
        target: &Target,
        rooms: &Rooms,
        step: Step,
        effects: &mut Effects,
    ) -> Outcome {
        for id in self.select(namespace, target) {
            let socket = SocketId::from_bits(id);
            self.step(by, (socket, &id), None, rooms.clone(), step, effects);
        }
        Outcome::Applied
    }

    /// One socket, of `owner` if that is given, joins rooms, or leaves them. The effect names the rooms also where it was
    /// in or out before, so that whoever asked finds his answer in it.
    fn step(
        &mut self,
        by: Proposer,
        (socket, id): (SocketId, &SocketBits),
        owner: Option<Owner>,
        rooms: Rooms,
        step: Step,
        effects: &mut Effects,
    ) -> Outcome {
        let (home, moved): (_, Moved) = match step {
            Step::Join => (self.sockets.try_join(id, owner, &rooms), joined),
            Step::Leave => (self.sockets.leave(id, owner, &rooms), left),
        };
        let home = match home {
            Ok(home) => home,
            Err(NotMoved::UnknownSocket) => return Outcome::UnknownSocket,
            Err(NotMoved::TooManyRooms) => return Outcome::TooManyRooms,
        };
        self.note_rooms(id, &rooms, by.place);
        let rooms = without_own(id, rooms);
        if !rooms.is_empty() {
            effects.push(moved(home.namespace.clone(), home.owner, socket, rooms));
        }
        Outcome::Applied
    }

    /// Only the incarnation that owns a socket may change it.
    pub(super) fn owns(&self, by: Proposer, id: &SocketBits) -> bool {
        self.sockets.get(id).is_some_and(|row| row.home.owner == by.owner)
    }

    /// None of them comes back: one that is away is over at once, others once their owner says so,
    /// or is dead.
    fn disconnect_matching(
        &mut self,
        by: Proposer,
        namespace: &Namespace,
        target: &Target,
        close: bool,
        effects: &mut Effects,
    ) -> Outcome {
        for id in self.select(namespace, target) {
            let Some(row) = self.sockets.get(&id) else { continue };
            if row.home.owner == Owner::NOBODY {
                self.give_up(&id, by.stamp_ms, Departure::Disconnected);
                continue;
            }
            self.note_over(&id);
            let Some(row) = self.sockets.get(&id) else { continue };
            effects.push(Effect::Disconnect {
                namespace: namespace.clone(),
                owner: row.home.owner,
                socket: SocketId::from_bits(id),
                close,
            });
        }
        Outcome::Applied
    }

    fn session_put(
        &mut self,
        by: Proposer,
        (session, expected, salt): (SessionId, u64, u64),
        text: &str,
        effects: &mut Effects,
    ) -> Outcome {
        let id = session.to_bits();
        let before = self.sessions.get(&id).map(|row| row.value.clone());
        let outcome = self.sessions.put(id, expected, text, by.owner.node ^ salt, by.stamp_ms);
        if matches!(outcome, Outcome::Written { .. }) {
            self.note_session(&id, by.place, before.as_ref());
        }
        if let (Outcome::Written { .. }, Some(row)) = (&outcome, self.sessions.get(&id)) {
            self.tell_sockets(&id, &row.value, effects);
        }
        outcome
    }

    fn session_destroy(
        &mut self,
        by: Proposer,
        session: SessionId,
        effects: &mut Effects,
    ) -> Outcome {
        let id = session.to_bits();
        let Some(row) = self.sessions.destroy(&id) else { return Outcome::UnknownSession };
        self.note_session(&id, by.place, Some(&row.value));
        self.tell_sockets(&id, &SessionValue::empty(), effects);
        Outcome::Applied
    }

    /// The session of these sockets is another one from here on.
    fn tell_sockets(&self, id: &SessionBits, value: &Arc<SessionValue>, effects: &mut Effects) {
        for socket in self.sessions.sockets_of(id) {
            let Some(home) = self.sockets.get(socket).map(|row| &row.home) else { continue };
            effects.push(Effect::SessionChanged {
                namespace: home.namespace.clone(),
                owner: home.owner,
                socket: SocketId::from_bits(*socket),
                value: value.clone(),
            });
        }
    }
}

type Moved = fn(Namespace, Owner, SocketId, Rooms) -> Effect;

fn joined(namespace: Namespace, owner: Owner, socket: SocketId, rooms: Rooms) -> Effect {
    Effect::Joined { namespace, owner, socket, rooms }
}

fn left(namespace: Namespace, owner: Owner, socket: SocketId, rooms: Rooms) -> Effect {
    Effect::Left { namespace, owner, socket, rooms }
}

/// Without the room named after the socket's own id, which it neither joins nor leaves.
fn without_own(id: &SocketBits, mut rooms: Rooms) -> Rooms {
    rooms.retain(|room| !is_own_room(id, room));
    rooms
}
