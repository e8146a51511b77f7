//! A handshake's fields as the official server names them, for applications and other nodes.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::transport::Handshake;

/// `socket.handshake` of the official server, field by field; what other nodes see of a socket's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HandshakeDetails {
    /// By name in lower case; values of headers that came more than once are joined with `, `.
    pub headers: Map<String, Value>,
    /// When the client connected, as JavaScript writes a date.
    pub time: String,
    /// The client's IP address, as the stream has it, or as a trusted proxy says.
    pub address: String,
    /// Whether the request names an origin.
    pub xdomain: bool,
    /// Whether the client came by TLS: as the embedding application, or a trusted proxy, says, for
    /// the node itself takes none.
    pub secure: bool,
    /// Milliseconds since the Unix epoch.
    pub issued: u64,
    /// Path and query, as they came.
    pub url: String,
    /// The parameters of the query; the values of one that came more than once are an array.
    pub query: Map<String, Value>,
    /// What the client sent with its CONNECT; an empty object if nothing.
    pub auth: Value,
}

impl HandshakeDetails {
    pub(crate) fn new(handshake: &Handshake, auth: Value) -> Self {
        let mut headers = Map::new();
        for (name, value) in &handshake.headers {
            match headers.get_mut(&**name) {
                Some(Value::String(values)) => *values = format!("{values}, {value}"),
                _ => drop(headers.insert(name.to_string(), Value::from(&**value))),
            }
        }
        Self {
            time: javascript_date(handshake.issued_ms),
            address: handshake.address.ip().to_string(),
            xdomain: headers.contains_key("origin"),
            secure: handshake.secure,
            issued: handshake.issued_ms,
            url: handshake.url.to_string(),
            query: query(&handshake.url),
            auth: if auth.is_null() { Value::Object(Map::new()) } else { auth },
            headers,
        }
    }
}

fn query(url: &str) -> Map<String, Value> {
    let query = url.split_once('?').map_or("", |(_path, query)| query);
    let mut parsed = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = Value::String(decode(value));
        match parsed.get_mut(&decode(name)) {
            None => drop(parsed.insert(decode(name), value)),
            Some(Value::Array(values)) => values.push(value),
            Some(single) => *single = Value::Array(vec![single.take(), value]),
        }
    }
    parsed
}

/// Undoes percent-encoding; what is not UTF-8 then is replaced.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let encoded = match (byte, behind) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        rest = if encoded.is_some() { &behind[2..] } else { behind };
        bytes.push(match (encoded, byte) {
            (Some((high, low)), _) => high << 4 | low,
            (None, b'+') => b' ',
            (None, byte) => byte,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|digit| digit as u8)
}

/// `Sun Nov 22 2026 00:39:59 GMT+0000 (Coordinated Universal Time)`.
fn javascript_date(ms: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, seconds) = (ms / 86_400_000, ms / 1000 % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{} {} {day:02} {year} {:02}:{:02}:{:02} GMT+0000 (Coordinated Universal Time)",
        DAYS[(days % 7) as usize],
        MONTHS[month],
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
    )
}

/// Year, month from 0 and day of a number of days since the Unix epoch (Gregorian calendar).
fn civil(mut days: u64) -> (u64, usize, u64) {
    let is_leap =
        |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn dates_are_written_as_javascript_does() {
        let zone = "GMT+0000 (Coordinated Universal Time)";
        assert_eq!(javascript_date(0), format!("Thu Jan 01 1970 00:00:00 {zone}"));
        assert_eq!(javascript_date(951_782_400_000), format!("Tue Feb 29 2000 00:00:00 {zone}"));
        assert_eq!(javascript_date(1_795_307_999_999), format!("Sun Nov 22 2026 00:39:59 {zone}"));
    }

    #[test]
    fn queries_are_decoded_and_repeated_parameters_are_arrays() {
        let parsed = query("/socket.io/?EIO=4&a=1&a=%C3%BC+x&a=3&b&%zz=%4");
        let wanted = json!({"EIO": "4", "a": ["1", "ü x", "3"], "b": "", "%zz": "%4"});
        assert_eq!(Value::Object(parsed), wanted);
    }

    #[test]
    fn fields_are_the_official_ones() {
        let handshake = Handshake {
            sid: "sid".into(),
            address: ([10, 0, 0, 7], 1234).into(),
            secure: true,
            issued_ms: 0,
            url: "/socket.io/?x=1".into(),
            headers: [("origin", "http://a"), ("x-a", "1"), ("x-a", "2")]
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
            extensions: http::Extensions::new(),
        };
        let details = HandshakeDetails::new(&handshake, Value::Null);
        let time = "Thu Jan 01 1970 00:00:00 GMT+0000 (Coordinated Universal Time)";
        let wanted = json!({
            "headers": {"origin": "http://a", "x-a": "1, 2"}, "time": time, "address": "10.0.0.7",
            "xdomain": true, "secure": true, "issued": 0, "url": "/socket.io/?x=1",
            "query": {"x": "1"}, "auth": {},
        });
        assert_eq!(serde_json::to_value(&details).unwrap(), wanted);
    }
}
