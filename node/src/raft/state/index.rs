//! Sessions by the values of keys that are filtered by often.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use serde_json::{Map, Value};

use super::sessions::SessionBits;
use super::target::SessionFilter;

/// The keys that are indexed, in their order. A filter by one of them does not look at every
/// socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionKeys(Arc<[Box<str>]>);

/// A key, by its place among the indexed ones, with a scalar that sessions have there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndexEntry {
    key: u16,
    value: Scalar,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Scalar {
    Null,
    Bool(bool),
    /// The bits of a JavaScript number: 1 and 1.0 are one, as they are for filters.
    Number(u64),
    Text(Box<str>),
}

impl Scalar {
    /// None for what no filter matches: objects and arrays.
    fn of(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            // Zero has two spellings, which are equal.
            Value::Number(number) => Self::Number((number.as_f64()? + 0.0).to_bits()),
            Value::String(text) => Self::Text(text.as_str().into()),
            Value::Array(_) | Value::Object(_) => return None,
        })
    }
}

impl SessionKeys {
    /// More keys than 65,536 are not indexed.
    pub fn new(keys: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        Self(keys.into_iter().map(Into::into).take(usize::from(u16::MAX) + 1).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the index has of a session.
    pub fn entries<'a>(
        &'a self,
        session: &'a Map<String, Value>,
    ) -> impl Iterator<Item = IndexEntry> + 'a {
        let value_of = |key: &str| session.get(key).and_then(Scalar::of);
        (0..)
            .zip(&*self.0)
            .filter_map(move |(key, name)| value_of(name).map(|value| IndexEntry { key, value }))
    }

    /// Where the index has all sessions that a filter may match; None if it has none of its keys.
    pub fn entry_of(&self, filter: &SessionFilter) -> Option<IndexEntry> {
        (0..).zip(&*self.0).find_map(|(key, name)| {
            let (_, wanted) = filter.pairs().iter().find(|(wanted, _)| **wanted == **name)?;
            Scalar::of(wanted).map(|value| IndexEntry { key, value })
        })
    }
}

/// All sessions by what they have at the indexed keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SessionIndex {
    keys: SessionKeys,
    sessions: OrdMap<IndexEntry, OrdSet<SessionBits>>,
}

impl SessionIndex {
    pub(super) fn new(keys: SessionKeys) -> Self {
        Self { keys, sessions: OrdMap::new() }
    }

    pub(super) fn keys(&self) -> &SessionKeys {
        &self.keys
    }

    /// A session is `after` now, from `before`.
    pub(super) fn change(
        &mut self,
        id: SessionBits,
        before: Option<&Map<String, Value>>,
        after: Option<&Map<String, Value>>,
    ) {
        if self.keys.is_empty() {
            return;
        }
        for entry in before.into_iter().flat_map(|session| self.keys.entries(session)) {
            if let Some(sessions) = self.sessions.get_mut(&entry) {
                sessions.remove(&id);
                if sessions.is_empty() {
                    self.sessions.remove(&entry);
                }
            }
        }
        for entry in after.into_iter().flat_map(|session| self.keys.entries(session)) {
            self.sessions.entry(entry).or_default().insert(id);
        }
    }

    /// The sessions that a filter may match, in the order of their ids; None if the index has none
    /// of the filter's keys.
    pub(super) fn candidates(
        &self,
        filter: &SessionFilter,
    ) -> Option<impl Iterator<Item = &SessionBits>> {
        let entry = self.keys.entry_of(filter)?;
        Some(self.sessions.get(&entry).into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn index() -> SessionIndex {
        SessionIndex::new(SessionKeys::new(["name", "level"]))
    }

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(object) = value else { panic!("a session is an object") };
        object
    }

    fn found(index: &SessionIndex, filter: Value) -> Option<Vec<u8>> {
        let filter = SessionFilter::try_from(filter).unwrap();
        index.candidates(&filter).map(|ids| ids.map(|id| id[0]).collect())
    }

    #[test]
    fn sessions_are_found_by_what_they_are_now() {
        let mut index = index();
        let [guest, admin] = [json!({"name": "guest"}), json!({"name": "admin"})].map(object);
        index.change([1; 15], None, Some(&guest));
        index.change([2; 15], None, Some(&guest));
        assert_eq!(found(&index, json!({"name": "guest"})), Some(vec![1, 2]));
        index.change([1; 15], Some(&guest), Some(&admin));
        assert_eq!(found(&index, json!({"name": "guest"})), Some(vec![2]));
        index.change([2; 15], Some(&guest), None);
        assert_eq!(found(&index, json!({"name": "guest"})), Some(vec![]));
        assert_eq!(found(&index, json!({"name": "admin"})), Some(vec![1]));
    }

    #[test]
    fn numbers_are_found_as_filters_compare_them() {
        let mut index = index();
        index.change([1; 15], None, Some(&object(json!({"level": 1}))));
        index.change([2; 15], None, Some(&object(json!({"level": -0.0}))));
        index.change([3; 15], None, Some(&object(json!({"level": [1]}))));
        assert_eq!(found(&index, json!({"level": 1.0})), Some(vec![1]));
        assert_eq!(found(&index, json!({"level": 0})), Some(vec![2]));
        assert_eq!(found(&index, json!({"level": "1"})), Some(vec![]));
    }

    #[test]
    fn filter_without_an_indexed_key_is_not_answered() {
        assert_eq!(found(&index(), json!({"team": 1})), None);
        assert_eq!(found(&index(), json!({})), None);
        assert_eq!(found(&SessionIndex::default(), json!({"name": "guest"})), None);
    }
}
