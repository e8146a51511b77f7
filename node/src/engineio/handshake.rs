//! What a request asks for, and the packet that opens a connection.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::engineio::{Encoding, EngineConfig, Sid};

/// How packets travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportKind {
    Polling,
    WebSocket,
}

impl TransportKind {
    /// As the protocol spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Polling => "polling",
            Self::WebSocket => "websocket",
        }
    }
}

/// A valid request, as far as it can be judged without the connection it may belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Opens a new connection.
    Open { transport: TransportKind, encoding: Encoding },
    /// Belongs to a connection, which must be of the encoding's revision.
    Continue { sid: Sid, transport: TransportKind, encoding: Encoding },
}

/// The six answers to requests that cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RequestError {
    #[error("Transport unknown")]
    UnknownTransport = 0,
    #[error("Session ID unknown")]
    UnknownSid = 1,
    #[error("Bad handshake method")]
    BadHandshakeMethod = 2,
    #[error("Bad request")]
    BadRequest = 3,
    #[error("Forbidden")]
    Forbidden = 4,
    #[error("Unsupported protocol version")]
    UnsupportedProtocolVersion = 5,
}

impl RequestError {
    /// The body of the response to a polling request.
    pub fn to_json(self) -> String {
        format!(r#"{{"code":{},"message":"{self}"}}"#, self as u8)
    }
}

impl Request {
    /// The connection that a request belongs to, whatever else it says.
    pub fn sid(query: &str) -> Option<Sid> {
        Query::parse(query).sid.as_deref().and_then(Sid::parse)
    }

    /// Checks in the official server's order, on which the code depends when several are wrong.
    ///
    /// `is_get` and `is_upgrade` tell of the HTTP request that carries `query`.
    pub fn parse(
        query: &str,
        is_get: bool,
        is_upgrade: bool,
        config: &EngineConfig,
    ) -> Result<Self, RequestError> {
        let Query { transport, sid, eio, b64 } = Query::parse(query);
        let transport = match transport.as_deref() {
            Some("polling") => TransportKind::Polling,
            Some("websocket") => TransportKind::WebSocket,
            _ => return Err(RequestError::UnknownTransport),
        };
        if !config.allows(transport) {
            return Err(RequestError::UnknownTransport);
        }
        // Whatever a client calls its revision, and if it names none: what is not 4 is 3.
        let encoding = match (eio.as_deref(), b64.as_deref()) {
            (Some("4"), _) => Encoding::V4,
            (_, None | Some("")) => Encoding::V3Bytes,
            (_, Some(_)) => Encoding::V3Text,
        };
        if let Some(sid) = sid.filter(|sid| !sid.is_empty()) {
            let sid = Sid::parse(&sid).ok_or(RequestError::UnknownSid)?;
            return Ok(Self::Continue { sid, transport, encoding });
        }
        if !is_get {
            return Err(RequestError::BadHandshakeMethod);
        }
        if is_upgrade != (transport == TransportKind::WebSocket) {
            return Err(RequestError::BadRequest);
        }
        if encoding != Encoding::V4 && !config.allow_eio3 {
            return Err(RequestError::UnsupportedProtocolVersion);
        }
        Ok(Self::Open { transport, encoding })
    }
}

/// The parameters that matter here; the last of a name counts.
#[derive(Default)]
struct Query<'a> {
    transport: Option<Cow<'a, str>>,
    sid: Option<Cow<'a, str>>,
    eio: Option<Cow<'a, str>>,
    b64: Option<Cow<'a, str>>,
}

impl<'a> Query<'a> {
    fn parse(query: &'a str) -> Self {
        let mut parsed = Self::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match &*decode(name) {
                "transport" => parsed.transport = Some(decode(value)),
                "sid" => parsed.sid = Some(decode(value)),
                "EIO" => parsed.eio = Some(decode(value)),
                "b64" => parsed.b64 = Some(decode(value)),
                _ => {}
            }
        }
        parsed
    }
}

/// A parameter of a query; the last of its name counts.
pub(crate) fn query_parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.rev().find(|(key, _)| decode(key) == name).map(|(_, value)| decode(value))
}

/// Undoes percent-encoding. What is not UTF-8 then is none of our words, whatever it becomes.
pub(crate) fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let hex = |digit: Option<&u8>| digit.and_then(|&digit| char::from(digit).to_digit(16));
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], hex(bytes.get(at + 1)), hex(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', ..) => decoded.push(b' '),
            (byte, ..) => decoded.push(byte),
        }
        at += 1;
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

/// The first packet to a client, with its type digit (Engine.IO v4, "Handshake"); the official
/// server sends the same one to clients of both revisions.
pub fn open_packet(sid: Sid, transport: TransportKind, config: &EngineConfig) -> String {
    let upgrades = UpgradeList(config.upgrades(transport));
    format!(
        r#"0{{"sid":"{sid}","upgrades":{upgrades},"pingInterval":{},"pingTimeout":{},"maxPayload":{}}}"#,
        config.ping_interval.as_millis(),
        config.ping_timeout.as_millis(),
        config.max_payload_bytes,
    )
}

struct UpgradeList(&'static [TransportKind]);

impl fmt::Display for UpgradeList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|transport| transport.as_str())).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn get(query: &str) -> Result<Request, RequestError> {
        Request::parse(query, true, false, &EngineConfig::default())
    }

    fn sid() -> Sid {
        Sid::new(7, *b"ninebytes")
    }

    #[test]
    fn open_requests_name_their_transport() {
        let open = |transport| Ok(Request::Open { transport, encoding: Encoding::V4 });
        assert_eq!(get("EIO=4&transport=polling&t=x"), open(TransportKind::Polling));
        assert_eq!(get("EIO=4&transport=%70olling"), open(TransportKind::Polling));
        let upgrade =
            Request::parse("EIO=4&transport=websocket", true, true, &EngineConfig::default());
        assert_eq!(upgrade, open(TransportKind::WebSocket));
        assert_eq!(get("EIO=4&transport=polling&sid="), open(TransportKind::Polling));
    }

    #[test]
    fn requests_with_a_sid_belong_to_a_connection() {
        let continued = get(&format!("EIO=4&transport=polling&sid={}", sid()));
        let transport = TransportKind::Polling;
        assert_eq!(
            continued,
            Ok(Request::Continue { sid: sid(), transport, encoding: Encoding::V4 })
        );
    }

    #[test]
    fn unknown_transports_come_first() {
        for query in ["", "EIO=4", "EIO=4&transport=constructor", "transport=webtransport&sid=x"] {
            assert_eq!(get(query), Err(RequestError::UnknownTransport), "{query}");
        }
        let polling_only =
            EngineConfig { transports: vec![TransportKind::Polling], ..EngineConfig::default() };
        assert_eq!(
            Request::parse("EIO=4&transport=websocket", true, true, &polling_only),
            Err(RequestError::UnknownTransport)
        );
    }

    #[test]
    fn ill_formed_sids_are_unknown() {
        assert_eq!(get("EIO=4&transport=polling&sid=abc"), Err(RequestError::UnknownSid));
    }

    #[test]
    fn handshakes_are_gets() {
        let post = Request::parse("transport=polling", false, false, &EngineConfig::default());
        assert_eq!(post, Err(RequestError::BadHandshakeMethod));
    }

    #[test]
    fn websocket_needs_an_upgrade() {
        assert_eq!(get("EIO=4&transport=websocket"), Err(RequestError::BadRequest));
    }

    #[test]
    fn other_revisions_are_spoken_only_if_allowed() {
        for query in ["transport=polling", "EIO=3&transport=polling", "EIO=44&transport=polling"] {
            assert_eq!(get(query), Err(RequestError::UnsupportedProtocolVersion), "{query}");
            let allowing = EngineConfig { allow_eio3: true, ..EngineConfig::default() };
            let transport = TransportKind::Polling;
            let open = Request::Open { transport, encoding: Encoding::V3Bytes };
            assert_eq!(Request::parse(query, true, false, &allowing), Ok(open), "{query}");
        }
    }

    #[test]
    fn clients_of_revision_3_may_ask_for_text_only() {
        let allowing = EngineConfig { allow_eio3: true, ..EngineConfig::default() };
        let encoding = |query: &str| match Request::parse(query, true, false, &allowing).unwrap() {
            Request::Open { encoding, .. } | Request::Continue { encoding, .. } => encoding,
        };
        assert_eq!(encoding("EIO=3&transport=polling&b64=1"), Encoding::V3Text);
        assert_eq!(encoding("EIO=3&transport=polling&b64="), Encoding::V3Bytes);
        assert_eq!(encoding("EIO=4&transport=polling&b64=1"), Encoding::V4);
        let continued = format!("EIO=3&transport=polling&b64=1&sid={}", sid());
        assert_eq!(encoding(&continued), Encoding::V3Text);
    }

    #[test]
    fn errors_have_the_official_bodies() {
        let bodies = [
            (RequestError::UnknownTransport, r#"{"code":0,"message":"Transport unknown"}"#),
            (RequestError::UnknownSid, r#"{"code":1,"message":"Session ID unknown"}"#),
            (RequestError::BadHandshakeMethod, r#"{"code":2,"message":"Bad handshake method"}"#),
            (RequestError::BadRequest, r#"{"code":3,"message":"Bad request"}"#),
            (RequestError::Forbidden, r#"{"code":4,"message":"Forbidden"}"#),
            (
                RequestError::UnsupportedProtocolVersion,
                r#"{"code":5,"message":"Unsupported protocol version"}"#,
            ),
        ];
        for (error, body) in bodies {
            assert_eq!(error.to_json(), body);
        }
    }

    #[test]
    fn open_packet_is_the_official_one() {
        let config = EngineConfig::default();
        assert_eq!(
            open_packet(sid(), TransportKind::Polling, &config),
            format!(
                r#"0{{"sid":"{}","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}}"#,
                sid()
            )
        );
        assert!(
            open_packet(sid(), TransportKind::WebSocket, &config).contains(r#""upgrades":[],"#)
        );
    }

    proptest! {
        #[test]
        fn no_query_panics(query in "\\PC{0,60}|(EIO|transport|sid|=|&|%[0-9a-f]{0,2}|4){0,12}") {
            let _ = get(&query);
        }
    }
}
