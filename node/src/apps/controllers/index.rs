//! Which of a controller's subscriptions an event is for.

use std::collections::HashMap;

use regex::RegexSet;
use smallvec::SmallVec;

use super::controller::{Matcher, Subscription};

/// Finds subscriptions by an event's name, in time linear in the name whatever the patterns are.
#[derive(Debug)]
pub(super) struct Index {
    names: HashMap<String, Vec<usize>>,
    patterns: RegexSet,
    /// Whose pattern each is.
    owners: Vec<usize>,
}

/// A subscription that an event is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) subscription: usize,
    /// Not by the event's name.
    pub(super) is_by_pattern: bool,
}

/// Mostly one.
pub(super) type Matches = SmallVec<[Match; 2]>;

impl Index {
    pub(super) fn new<C>(subscriptions: &[Subscription<C>]) -> Result<Self, regex::Error> {
        let mut names: HashMap<String, Vec<usize>> = HashMap::new();
        let (mut patterns, mut owners) = (Vec::new(), Vec::new());
        for (place, subscription) in subscriptions.iter().enumerate() {
            for event in &subscription.events {
                match event {
                    Matcher::Name(name) => {
                        let named = names.entry(name.to_string()).or_default();
                        if named.last() != Some(&place) {
                            named.push(place);
                        }
                    }
                    Matcher::Pattern(pattern) => {
                        patterns.push(pattern.as_ref());
                        owners.push(place);
                    }
                }
            }
        }
        Ok(Self { names, patterns: RegexSet::new(patterns)?, owners })
    }

    /// Each subscription once: those by pattern first, as LoopBack has it, and each kind in the
    /// order of the methods.
    pub(super) fn find(&self, event: &str) -> Matches {
        let named = self.names.get(event).map_or(&[][..], Vec::as_slice);
        let mut found = Matches::new();
        if !self.patterns.is_empty() {
            for pattern in self.patterns.matches(event) {
                let found_one = Match { subscription: self.owners[pattern], is_by_pattern: true };
                if found.last() != Some(&found_one) && !named.contains(&found_one.subscription) {
                    found.push(found_one);
                }
            }
        }
        let by_name = |&subscription| Match { subscription, is_by_pattern: false };
        found.extend(named.iter().map(by_name));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::controllers::Method;

    fn index(subscriptions: &[&[Matcher]]) -> Index {
        let method: Method<()> = Method { name: "", invoke: |_, _| unreachable!() };
        let subscriptions: Vec<_> = subscriptions
            .iter()
            .map(|events| Subscription { events: events.to_vec(), method })
            .collect();
        Index::new(&subscriptions).unwrap()
    }

    fn found(index: &Index, event: &str) -> Vec<(usize, bool)> {
        index.find(event).iter().map(|found| (found.subscription, found.is_by_pattern)).collect()
    }

    #[test]
    fn all_that_match_are_found_patterns_first() {
        let index = index(&[
            &["a".into(), "b".into()],
            &[Matcher::pattern("^.$")],
            &["a".into()],
            &[Matcher::pattern("a"), Matcher::pattern("b")],
        ]);
        assert_eq!(found(&index, "a"), [(1, true), (3, true), (0, false), (2, false)]);
        assert_eq!(found(&index, "b"), [(1, true), (3, true), (0, false)]);
        assert_eq!(found(&index, "ab"), [(3, true)]);
        assert_eq!(found(&index, ""), []);
    }

    #[test]
    fn subscription_by_name_and_pattern_is_found_once_by_name() {
        let index = index(&[&["tick".into(), "tick".into(), Matcher::pattern("^t")]]);
        assert_eq!(found(&index, "tick"), [(0, false)]);
        assert_eq!(found(&index, "tock"), [(0, true)]);
    }

    #[test]
    fn pattern_that_is_none_is_refused() {
        let method: Method<()> = Method { name: "", invoke: |_, _| unreachable!() };
        let subscription = Subscription { events: vec![Matcher::pattern("(?=a)")], method };
        assert!(Index::new(&[subscription]).is_err());
    }

    #[test]
    fn hostile_names_cost_time_linear_in_their_length() {
        // A backtracking engine needs 2^40 steps for this.
        let index = index(&[&[Matcher::pattern("^(a+)+$")]]);
        assert_eq!(found(&index, &format!("{}b", "a".repeat(100_000))), []);
    }
}
