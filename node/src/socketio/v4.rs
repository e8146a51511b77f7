//! What Socket.IO v4 says otherwise, the version that goes with Engine.IO 3.

use bytestring::ByteString;
use serde_json::{Map, Value};

use crate::engineio::decode;

/// What a CONNECT tells of its client: v4 has no payload for that, but a query behind the
/// namespace's name (`0/chat?token=x`). A JSON object of strings; of a name that comes twice, the
/// last value counts, as with the official server.
pub(super) fn auth(packet: &str) -> Option<ByteString> {
    let name = packet.split(',').next().unwrap_or_default();
    let (_name, query) = name.split_once('?')?;
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let auth: Map<String, Value> = pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name).into_owned(), decode(value).into_owned().into()))
        .collect();
    Some(Value::Object(auth).to_string().into())
}

/// A namespace's name without the query behind it.
pub(super) fn name(namespace: &ByteString) -> ByteString {
    match namespace.split_once('?') {
        Some(("/", _query)) => ByteString::from_static("/"),
        Some((name, _query)) => name.into(),
        None => namespace.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_is_no_part_of_the_name() {
        assert_eq!(name(&"/chat?token=x".into()), "/chat");
        assert_eq!(name(&"/?token=x".into()), "/");
        assert_eq!(name(&"/chat".into()), "/chat");
    }

    #[test]
    fn query_of_a_namespace_is_the_auth() {
        let auth = |packet| auth(packet).map(|auth| auth.to_string());
        assert_eq!(auth("0/chat?tok=xyz").as_deref(), Some(r#"{"tok":"xyz"}"#));
        assert_eq!(auth("0/chat?tok=xyz,").as_deref(), Some(r#"{"tok":"xyz"}"#));
        assert_eq!(
            auth("0/chat?a=1&a=2&b&c=%22%C3%A9+%3D%22&d=x=y,").as_deref(),
            Some(r#"{"a":"2","b":"","c":"\"é =\"","d":"x=y"}"#)
        );
        assert_eq!(auth("0/chat?").as_deref(), Some("{}"));
        assert_eq!(auth("0/chat"), None);
        assert_eq!(auth("0/chat,"), None);
        assert_eq!(auth("0"), None);
    }
}
