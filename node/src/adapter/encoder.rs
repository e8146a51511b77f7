//! Makes packets what this server's clients read: once for each packet and node.

use std::sync::Arc;

use bytes::Bytes;

use super::encoded::Encoded;
use crate::socketio::codec::Kind;
use crate::socketio::{Decoder, OutgoingPacket, Parser, Payload};

/// The server's parser, if it is another than the default one, whose frames are written without
/// a detour.
#[derive(Clone, Debug, Default)]
pub struct Encoder(Option<Arc<dyn Parser>>);

impl Encoder {
    pub fn new(parser: Option<Arc<dyn Parser>>) -> Self {
        Self(parser)
    }

    pub fn packet(
        &self,
        kind: Kind,
        namespace: &str,
        id: Option<u64>,
        payload: &Payload,
    ) -> Arc<Encoded> {
        self.pieces(kind, namespace, id, &[&payload.json], &payload.attachments)
    }

    /// A packet whose JSON is put together from `json`.
    pub fn pieces(
        &self,
        kind: Kind,
        namespace: &str,
        id: Option<u64>,
        json: &[&str],
        attachments: &[Bytes],
    ) -> Arc<Encoded> {
        let Some(parser) = &self.0 else {
            return Encoded::pieces(kind, namespace, id, json, attachments);
        };
        let json = json.concat();
        let packet = OutgoingPacket { kind, namespace, id, json: &json, attachments };
        Encoded::messages(&parser.encode(&packet))
    }

    /// What reads a new connection's messages, if the default parser does not.
    pub fn decoder(&self) -> Option<Box<dyn Decoder>> {
        self.0.as_ref().map(|parser| parser.decoder())
    }
}
