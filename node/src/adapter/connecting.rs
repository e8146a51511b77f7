//! Sockets on their way in: made known to the cluster, and welcomed before that where packets need no agreement.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::namespace::{Adapter, DeliveryMode};
use super::recipient::{Phase, Recipient};
use super::recovery::Recovery;
use crate::raft::state::{
    Change, Pid, Place, Rooms, SessionId, SessionValue, SocketId, SocketUp, State, Target,
};
use crate::raft::{ProposeError, Receipt};

/// The session with which a socket comes.
#[derive(Clone, Copy, Debug)]
pub struct Brought {
    pub id: SessionId,
    /// The session is made if it is not there, and outlives its sockets by so much.
    pub keep: Option<Duration>,
    /// A change of it is on its way.
    pub is_written: bool,
}

/// A socket that the delivery task has not let in yet.
pub(super) struct Connecting {
    pub(super) recipient: Arc<Recipient>,
    /// What its client comes back with.
    pub(super) pid: Pid,
    /// The packet that its client has some parts of, and the key of the last of them.
    pub(super) seam: Option<(Place, u32)>,
    /// Its session, unless it comes back and has one.
    pub(super) session: Option<SessionId>,
}

impl Connecting {
    pub(super) fn new(recipient: Arc<Recipient>, session: SessionId) -> Self {
        Self { recipient, pid: Pid::random(), seam: None, session: Some(session) }
    }
}

/// By their ids and claims.
pub(super) type ConnectingMap = HashMap<(SocketId, u64), Connecting, FixedState>;

impl Adapter {
    /// Makes a socket known to the cluster. Once that is agreed, the delivery task queues its
    /// CONNECT and moves it to [`Phase::Connected`].
    ///
    /// Where packets need no agreement ([`DeliveryMode::Direct`]) the CONNECT is queued at once, if that can be
    /// expected to be agreed, and the change lingers for others.
    pub fn connect(&self, recipient: Arc<Recipient>, session: SessionId, rooms: Rooms) -> Receipt {
        let session = Brought { id: session, keep: None, is_written: false };
        self.connect_with_session(recipient, session, rooms)
    }

    /// Makes a socket known to the cluster, with what its session is to be.
    pub fn connect_with_session(
        &self,
        recipient: Arc<Recipient>,
        session: Brought,
        rooms: Rooms,
    ) -> Receipt {
        // Nobody looks for a socket that is in no room and whose session has nothing in it.
        let is_welcome = self.welcomes()
            && rooms.is_empty()
            && session.keep.is_none()
            && !session.is_written
            && self.cluster.raft.glance(|state| state.session(session.id).is_none());
        let connecting = Connecting::new(recipient, session.id);
        let up = self.socket_up(&connecting, session.id, session.keep, rooms);
        self.propose_connecting(connecting, up, is_welcome)
    }

    fn socket_up(
        &self,
        socket: &Connecting,
        session: SessionId,
        keep: Option<Duration>,
        rooms: Rooms,
    ) -> Change {
        Change::SocketUp(Box::new(SocketUp {
            socket: socket.recipient.id,
            pid: socket.pid,
            namespace: self.name.clone(),
            session,
            keep_session_ms: keep.map_or(0, |keep| keep.as_millis() as u64),
            rooms,
            recovery: self.recovery.as_ref().map(Recovery::terms),
        }))
    }

    /// Proposes the change after which the delivery task lets a socket in. One that `is_welcome` takes part before.
    ///
    /// Nothing that others send passes by a socket of which only its own node knows: that node's own packets find it,
    /// and others' go to [all nodes](Self::may_be_unknown) if they may be for it. So it is in no room yet, and has no
    /// session by which it could be found.
    pub(super) fn propose_connecting(
        &self,
        socket: Connecting,
        change: Change,
        is_welcome: bool,
    ) -> Receipt {
        // Held while proposing, so that the end of its connection comes before or after both.
        let mut connecting = self.connecting();
        if socket.recipient.phase() > Phase::Connected {
            return Receipt::refused(ProposeError::NoQuorum);
        }
        let is_new = socket.recipient.phase() == Phase::Connecting;
        let key = (socket.recipient.id, socket.recipient.claim);
        if !is_new && !connecting.contains_key(&key) {
            // It has become known since it was proposed last.
            return Receipt::done();
        }
        let welcome = (is_welcome && is_new).then(|| self.connect_packet(&socket));
        let recipient = socket.recipient.clone();
        connecting.insert(key, socket);
        let Some(connect) = welcome else { return self.propose(change) };
        match self.cluster.raft.pump().try_propose_lingering(change) {
            Ok(receipt) => {
                self.local.insert(recipient, &[], None, |recipient| {
                    // In this order, as when it is let in.
                    recipient.advance(Phase::Welcomed);
                    recipient.outbox.push_news(connect);
                });
                receipt
            }
            Err(error) => Receipt::refused(error),
        }
    }

    /// Whether sockets may be welcomed here before the cluster knows them.
    pub(super) fn welcomes(&self) -> bool {
        self.mode == DeliveryMode::Direct && self.recovery.is_none()
    }

    /// A socket that was welcomed cannot be made known for now, or has no time for it: it goes on all the same, as those do
    /// that were known when the quorum was lost. False if it was not welcomed, or is over.
    pub fn go_on_unknown(&self, recipient: &Recipient) -> bool {
        let phase = recipient.phase();
        if !self.welcomes() {
            return false;
        }
        if phase == Phase::Welcomed && recipient.advance(Phase::Connected) {
            recipient.outbox.nudge();
        }
        (Phase::Welcomed..=Phase::Connected).contains(&phase)
    }

    /// Proposes those that were welcomed, and that the cluster could not be told of, before all that they do once proposals
    /// are taken again.
    pub(super) fn make_known_ahead(&self) {
        if !self.welcomes() {
            return;
        }
        for connecting in self.connecting().values() {
            let recipient = &connecting.recipient;
            // Others wait, for rooms that they come with or for the cluster's word, and are proposed anew with all they need.
            let is_welcomed = (Phase::Welcomed..=Phase::Connected).contains(&recipient.phase());
            // One that was given up with its node is being closed.
            let is_here = is_welcomed && self.local.get(&recipient.id).is_some();
            let Some(session) = connecting.session.filter(|_| is_here) else { continue };
            // It may be proposed a second time, by whoever made it connect, or be on its way: that changes nothing.
            let (waiter, _receipt) = Receipt::pending();
            let up = self.socket_up(connecting, session, None, Rooms::new());
            self.cluster.raft.pump().propose_ahead(up, waiter);
        }
    }

    /// This node's sockets that are meant and that the cluster does not know.
    pub(super) fn unknown_sockets(&self, target: &Target) -> Vec<SocketId> {
        if !self.welcomes() || self.connecting().is_empty() {
            return Vec::new();
        }
        let mut sockets = self.local_sockets(target);
        let connecting = self.connecting();
        sockets.retain(|id| connecting.contains_key(&(*id, 0)));
        sockets
    }

    /// Has the cluster know of sockets that were welcomed without waiting for others to go with them.
    pub fn hurry(&self) {
        if self.welcomes() {
            self.cluster.raft.pump().hurry();
        }
    }

    /// Lets a connecting socket in: it takes part, and its CONNECT is queued if it was not yet.
    pub(super) fn let_in(
        &self,
        id: &SocketId,
        rooms: &[ByteString],
        session: Option<Arc<SessionValue>>,
    ) {
        // Held, so that the end of its connection comes before all of this or after it.
        let mut connecting = self.connecting();
        // A connection that ended in the meantime has proposed the socket's end already.
        let Some(socket) = connecting.remove(&(*id, 0)) else { return };
        if socket.recipient.phase() != Phase::Connecting {
            if let Some(session) = session {
                self.local.set_session(id, session);
            }
            if socket.recipient.advance(Phase::Connected) {
                socket.recipient.outbox.nudge();
            }
            return;
        }
        let connect = self.connect_packet(&socket);
        self.local.insert(socket.recipient, rooms, session, |recipient| {
            // In this order: the client may answer its CONNECT at once, and nothing may overtake it.
            recipient.advance(Phase::Connected);
            recipient.outbox.push_news(connect);
        });
    }

    /// Whether a socket may be meant that another node has welcomed, and the cluster does not know yet: it is in no room
    /// but the one of its id, and has no session that is known.
    pub(super) fn may_be_unknown(&self, view: &State, target: &Target) -> bool {
        let is_unknown = |room: &ByteString| {
            room.parse::<SocketId>()
                .is_ok_and(|id| view.socket(id).is_none() && self.local.get(&id).is_none())
        };
        let is_for_all = target.rooms.is_empty()
            && target.filter.as_ref().is_none_or(|filter| filter.pairs().is_empty());
        self.welcomes() && (is_for_all || target.rooms.iter().any(is_unknown))
    }
}
