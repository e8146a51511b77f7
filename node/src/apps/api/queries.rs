//! The queries of all subscribers of a node, each compiled once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use serde_json::Value;

use super::query::{Query, QueryError, QueryLimits};

/// Queries by their JSON text, while anyone has them.
///
/// To compile a query may take a millisecond, for its regular expressions: that is done where its
/// subscriber asks for it, and holds up nobody else. What is emitted finds it here.
#[derive(Debug)]
pub(super) struct Queries {
    limits: QueryLimits,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_text: HashMap<Box<str>, Weak<Query>>,
    /// The last ones, which a client that comes back asks for again for each packet that it missed.
    recent: VecDeque<Arc<Query>>,
    /// At so many texts those are dropped that nobody has any more.
    sweep_at: usize,
}

/// So many queries are kept that nobody may have.
const RECENT: usize = 64;

const FIRST_SWEEP: usize = 1024;

impl Queries {
    pub(super) fn new(limits: QueryLimits) -> Self {
        Self { limits, known: Mutex::default() }
    }

    /// The query of a client, checked.
    pub(super) fn of(&self, query: &Value) -> Result<(String, Arc<Query>), QueryError> {
        // First, so that a huge one is not copied to be refused.
        Query::check_length(query, &self.limits)?;
        let text = query.to_string();
        if let Some(known) = self.find(&text) {
            return Ok((text, known));
        }
        let query = Arc::new(Query::parse(query, &self.limits)?);
        self.known().add(&text, &query);
        Ok((text, query))
    }

    /// The query that a room's name holds; none if it is not a good one here.
    pub(super) fn of_text(&self, text: &str) -> Option<Arc<Query>> {
        self.find(text).or_else(|| Some(self.of(&serde_json::from_str(text).ok()?).ok()?.1))
    }

    fn find(&self, text: &str) -> Option<Arc<Query>> {
        self.known().by_text.get(text).and_then(Weak::upgrade)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics while it holds the queries")
    }
}

impl Default for Queries {
    fn default() -> Self {
        Self::new(QueryLimits::default())
    }
}

impl Known {
    fn add(&mut self, text: &str, query: &Arc<Query>) {
        if self.by_text.len() >= self.sweep_at.max(FIRST_SWEEP) {
            self.by_text.retain(|_, query| query.strong_count() > 0);
            self.sweep_at = 2 * self.by_text.len();
        }
        self.by_text.insert(text.into(), Arc::downgrade(query));
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(query.clone());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn query_is_compiled_once_for_all_who_have_it() {
        let queries = Queries::default();
        let (text, query) = queries.of(&json!({"$regex": "a"})).unwrap();
        assert!(Arc::ptr_eq(&queries.of(&json!({"$regex": "a"})).unwrap().1, &query));
        assert!(Arc::ptr_eq(&queries.of_text(&text).unwrap(), &query));
        assert!(queries.of_text("{").is_none() && queries.of_text(r#"{"$where":"1"}"#).is_none());
    }

    #[test]
    fn queries_that_nobody_has_are_forgotten() {
        let queries = Queries::default();
        let kept = queries.of(&json!(0)).unwrap().1;
        for n in 1..10 * FIRST_SWEEP {
            queries.of(&json!(n)).unwrap();
        }
        assert!(Arc::ptr_eq(&queries.of(&json!(0)).unwrap().1, &kept));
        assert!(queries.known().by_text.len() <= FIRST_SWEEP + 1);
    }
}
