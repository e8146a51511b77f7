//! Who is meant by a packet, a join or a disconnect.

use bytestring::ByteString;
use serde_json::{Map, Value};
use smallvec::SmallVec;

/// Sockets of one namespace: in any of `rooms` (all, if there are none), in none of `except`,
/// and with a session that matches `filter`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Target {
    pub rooms: SmallVec<[ByteString; 1]>,
    pub except: SmallVec<[ByteString; 1]>,
    pub filter: Option<SessionFilter>,
}

impl Target {
    /// About what it takes on the wire: its texts, and a few bytes for each.
    pub fn bytes(&self) -> usize {
        let rooms = self.rooms.iter().chain(&self.except).map(|room| room.len() + TEXT_BYTES);
        rooms.sum::<usize>() + self.filter.as_ref().map_or(0, SessionFilter::bytes)
    }
}

/// What a text takes beside its characters.
const TEXT_BYTES: usize = 4;

/// An object of scalars. A session matches if it has every key with a strictly equal value
/// (api.io: `filter[key] === session[key]`; numbers are JavaScript's, so 1 equals 1.0).
#[derive(Clone, Debug, PartialEq)]
pub struct SessionFilter(Vec<(String, Value)>);

/// A filter must be an object whose values are strings, numbers, booleans or null.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("a session filter is an object")]
    NotAnObject,
    #[error("session filter key {key:?} is not a string, number, boolean or null")]
    NotAScalar { key: String },
}

impl SessionFilter {
    pub fn matches(&self, session: &Map<String, Value>) -> bool {
        self.0
            .iter()
            .all(|(key, wanted)| session.get(key).is_some_and(|is| strictly_equal(wanted, is)))
    }

    pub fn pairs(&self) -> &[(String, Value)] {
        &self.0
    }

    fn bytes(&self) -> usize {
        let text = |value: &Value| value.as_str().map_or(size_of::<f64>(), str::len);
        self.0.iter().map(|(key, value)| key.len() + text(value) + TEXT_BYTES).sum()
    }
}

impl TryFrom<Value> for SessionFilter {
    type Error = FilterError;

    fn try_from(value: Value) -> Result<Self, FilterError> {
        let Value::Object(object) = value else { return Err(FilterError::NotAnObject) };
        for (key, value) in &object {
            if value.is_object() || value.is_array() {
                return Err(FilterError::NotAScalar { key: key.clone() });
            }
        }
        Ok(Self(object.into_iter().collect()))
    }
}

fn strictly_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Null | Value::Bool(_) | Value::String(_), _) => a == b,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(filter: Value, session: Value) -> bool {
        let Value::Object(session) = session else { panic!("a session is an object") };
        SessionFilter::try_from(filter).unwrap().matches(&session)
    }

    #[test]
    fn every_key_must_be_strictly_equal() {
        assert!(matches(json!({"a": 1, "b": "x"}), json!({"b": "x", "a": 1.0, "c": true})));
        assert!(!matches(json!({"a": 1, "b": "x"}), json!({"a": 1})));
        assert!(!matches(json!({"a": 1}), json!({"a": "1"})));
        assert!(!matches(json!({"a": 0}), json!({"a": false})));
    }

    #[test]
    fn everything_that_a_client_may_choose_is_counted() {
        let filter = json!({"a": "x".repeat(1000), "b".repeat(1000): 1});
        let target = Target {
            rooms: smallvec::smallvec!["r".repeat(1000).into()],
            except: smallvec::smallvec!["e".repeat(1000).into()],
            filter: Some(SessionFilter::try_from(filter).unwrap()),
        };
        assert!((4000..4100).contains(&target.bytes()), "{}", target.bytes());
    }

    #[test]
    fn null_is_not_absence() {
        assert!(matches(json!({"a": null}), json!({"a": null})));
        assert!(!matches(json!({"a": null}), json!({})));
    }

    #[test]
    fn empty_filter_matches_every_session() {
        assert!(matches(json!({}), json!({})));
    }

    #[test]
    fn only_objects_of_scalars_are_filters() {
        assert_eq!(SessionFilter::try_from(json!([1])), Err(FilterError::NotAnObject));
        let nested = SessionFilter::try_from(json!({"a": {"b": 1}}));
        assert_eq!(nested, Err(FilterError::NotAScalar { key: "a".into() }));
    }
}
