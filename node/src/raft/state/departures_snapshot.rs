//! Sockets that wait to be told of, as snapshots hold them.

use bytes::Bytes;
use flotilla_proto::state as proto;

use super::State;
use super::change::Owner;
use super::departures::{Departed, Departure, Departures};
use super::id::{SessionId, SocketId};
use super::snapshot::{DecodeError, bits};

impl State {
    pub(super) fn encode_departures(&self) -> proto::Departures {
        proto::Departures {
            first: self.departures.first(),
            waiting: self.departures.waiting().map(encode).collect(),
            hearing: self
                .departures
                .hearing()
                .map(|owner| proto::Owner { node: owner.node, incarnation: owner.incarnation })
                .collect(),
        }
    }

    pub(super) fn restore_departures(
        &mut self,
        departures: proto::Departures,
    ) -> Result<(), DecodeError> {
        let owner =
            |owner: proto::Owner| Owner { node: owner.node, incarnation: owner.incarnation };
        let hearing = departures.hearing.into_iter().map(owner);
        self.departures = Departures::restored(departures.first, hearing);
        for departed in departures.waiting {
            self.departures.restore(decode(departed)?);
        }
        Ok(())
    }
}

fn encode(departed: &Departed) -> proto::Departed {
    let departure = match departed.departure {
        Departure::NodeDown => proto::Departure::NodeDown,
        Departure::WindowEnded => proto::Departure::WindowEnded,
        Departure::Disconnected => proto::Departure::Disconnected,
    };
    proto::Departed {
        socket: Bytes::copy_from_slice(&departed.socket.to_bits()),
        namespace: departed.namespace.to_string(),
        session: Bytes::copy_from_slice(&departed.session.to_bits()),
        node: departed.node,
        departure: departure.into(),
        rooms: departed.rooms().map(str::to_owned).collect(),
        stamp_ms: departed.stamp_ms,
    }
}

fn decode(departed: proto::Departed) -> Result<Departed, DecodeError> {
    let departure = match departed.departure() {
        proto::Departure::NodeDown => Departure::NodeDown,
        proto::Departure::WindowEnded => Departure::WindowEnded,
        proto::Departure::Disconnected => Departure::Disconnected,
        proto::Departure::Unspecified => {
            return Err(DecodeError::Invalid("a socket ended for no known reason"));
        }
    };
    Ok(Departed {
        socket: SocketId::from_bits(bits(&departed.socket)?),
        namespace: departed.namespace.into(),
        session: SessionId::from_bits(bits(&departed.session)?),
        node: departed.node,
        departure,
        rooms: departed.rooms.into_iter().map(Into::into).collect(),
        stamp_ms: departed.stamp_ms,
    })
}
