//! What clients of Socket.IO v4 know and hear otherwise: their ids, and why they are refused.

use bytestring::ByteString;
use serde_json::Value;

use super::middleware::ConnectError;
use crate::engineio::Sid;

/// The id that a client of v4 goes by. No packet tells it: the client makes it of its Engine.IO id,
/// and so does the official server.
///
/// In `/` it is the socket's id as well. Elsewhere it is longer than ids are, and connections have
/// several of them; so the socket is in a room of that name, which makes it reachable by it.
pub(super) fn client_id(namespace: &str, sid: &str) -> ByteString {
    match namespace {
        "/" => sid.into(),
        _ => format!("{namespace}#{sid}").into(),
    }
}

/// The room that is named after a client's own id, among those of its socket.
pub(super) fn find_client_id(namespace: &str, rooms: &[ByteString]) -> Option<ByteString> {
    let names_a_sid = |room: &&ByteString| {
        let rest = room.strip_prefix(namespace).and_then(|rest| rest.strip_prefix('#'));
        rest.is_some_and(|sid| Sid::parse(sid).is_some())
    };
    rooms.iter().find(names_a_sid).cloned()
}

/// What an ERROR packet of v4 says: the error's data if there is any worth the name, else its
/// message. Which data that is JavaScript decides, as in the official server.
pub(super) fn refusal(error: &ConnectError) -> String {
    let is_something = |data: &&Value| match data {
        Value::Null => false,
        Value::Bool(bool) => *bool,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    };
    match error.data.as_ref().filter(is_something) {
        Some(data) => data.to_string(),
        None => Value::from(error.message.as_str()).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SID: &str = "AAAAAAAAAAAAAAAAAAAA";

    #[test]
    fn id_is_made_of_the_namespace_and_the_sid() {
        assert_eq!(client_id("/", SID), SID);
        assert_eq!(client_id("/chat", SID), format!("/chat#{SID}"));
    }

    #[test]
    fn id_is_found_among_the_rooms() {
        let own = client_id("/chat", SID);
        let rooms = ["x".into(), "/chat#x".into(), client_id("/other", SID), own.clone()];
        assert_eq!(find_client_id("/chat", &rooms), Some(own));
        assert_eq!(find_client_id("/chat", &rooms[..3]), None);
    }

    #[test]
    fn refusal_is_the_data_or_the_message() {
        let said = |data: Value| refusal(&ConnectError::with_data("not \"now\"", data));
        assert_eq!(refusal(&ConnectError::new("not \"now\"")), r#""not \"now\"""#);
        assert_eq!(said(json!({"code": 7})), r#"{"code":7}"#);
        assert_eq!(said(json!("why")), r#""why""#);
        for nothing in [json!(null), json!(false), json!(0), json!("")] {
            assert_eq!(said(nothing), r#""not \"now\"""#);
        }
    }
}
