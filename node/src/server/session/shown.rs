//! Where a client shows which session is its own.

use std::borrow::Cow;

use http::{HeaderMap, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::Value;

use crate::engineio::query_parameter;

/// What `encodeURIComponent` leaves as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// A cookie's value as it is written into a header.
pub(super) fn cookie_value(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// The cookie's value; the first one, as npm's `cookie` has it.
pub(super) fn in_cookies(headers: &HeaderMap, name: &str) -> Option<String> {
    let headers = headers.get_all(header::COOKIE).into_iter();
    headers.filter_map(|value| value.to_str().ok()).find_map(|value| in_cookie(value, name))
}

fn in_cookie(header: &str, name: &str) -> Option<String> {
    let mut pairs = header.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(key, _)| key.trim() == name)?;
    let value = value.trim();
    let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    Some(percent_decode_str(value).decode_utf8().map_or_else(|_| value.into(), Cow::into_owned))
        .filter(|value| !value.is_empty())
}

/// The parameter's value: a session, or a whole cookie header that has one.
pub(super) fn in_query(query: &str, parameter: &str, cookie: &str) -> Option<String> {
    let value = query_parameter(query, parameter)?;
    let own = || Some(value.to_string()).filter(|value| !value.is_empty());
    in_cookie(&value, cookie).or_else(own)
}

/// A field of what the client sent with its CONNECT.
pub(super) fn in_auth(auth: &str, field: &str) -> Option<String> {
    // Looked for first: most clients send something else, which need not be parsed for this.
    if !auth.contains(field) {
        return None;
    }
    let mut auth: Value = serde_json::from_str(auth).ok()?;
    match auth.get_mut(field)?.take() {
        Value::String(token) if !token.is_empty() => Some(token),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn cookies(values: &[&str]) -> HeaderMap {
        let pairs = values.iter().map(|value| (header::COOKIE, HeaderValue::from_str(value)));
        pairs.map(|(name, value)| (name, value.unwrap())).collect()
    }

    #[test]
    fn cookies_are_found_among_others_and_decoded() {
        let headers = cookies(&["io=1; sid=s%3Aa.b%2B; sid=second", "other=3"]);
        assert_eq!(in_cookies(&headers, "sid").as_deref(), Some("s:a.b+"));
        assert_eq!(in_cookies(&headers, "other").as_deref(), Some("3"));
        assert_eq!(in_cookies(&headers, "id"), None);
        assert_eq!(in_cookies(&cookies(&["sid=\"x\""]), "sid").as_deref(), Some("x"));
        assert_eq!(in_cookies(&cookies(&["sid=; =; sid; ;"]), "sid"), None);
        assert_eq!(in_cookies(&cookies(&["sid=%ff%"]), "sid").as_deref(), Some("%ff%"));
    }

    #[test]
    fn cookie_value_is_what_express_writes() {
        let token = "s:AbC-_.x+/y";
        assert_eq!(cookie_value(token), "s%3AAbC-_.x%2B%2Fy");
        let headers = cookies(&[&format!("sid={}", cookie_value(token))]);
        assert_eq!(in_cookies(&headers, "sid").as_deref(), Some(token));
    }

    #[test]
    fn query_has_a_session_or_a_cookie_header() {
        let found = |query: &str| in_query(query, "cookie", "connect.sid");
        assert_eq!(found("EIO=4&cookie=s%3Aa.b").as_deref(), Some("s:a.b"));
        let header = "a=1;%20connect.sid=s%253Aa.b";
        assert_eq!(found(&format!("EIO=4&cookie={header}")).as_deref(), Some("s:a.b"));
        assert_eq!(found("EIO=4&cookie="), None);
        assert_eq!(found("EIO=4"), None);
    }

    #[test]
    fn auth_has_a_text_in_its_field() {
        assert_eq!(in_auth(r#"{"session":"s:a.b"}"#, "session").as_deref(), Some("s:a.b"));
        for auth in [r#"{"session":7}"#, r#"{"session":""}"#, r#"["session"]"#, "session", "{}"] {
            assert_eq!(in_auth(auth, "session"), None, "{auth}");
        }
    }
}
