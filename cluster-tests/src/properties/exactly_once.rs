//! Every acknowledged message reaches every listener once; no message comes twice or from nowhere.

use std::collections::HashMap;
use std::fmt;

use crate::client::EmitError;
use crate::traffic::{Heard, Label, Sent};

/// How the promise was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    Lost {
        label: Label,
        by: String,
    },
    Doubled {
        label: Label,
        by: String,
        times: usize,
    },
    /// Its sender was told that it would never be delivered.
    Refused {
        label: Label,
        by: String,
    },
    NeverSent {
        label: Label,
        by: String,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { label, by } => write!(f, "{label} was acknowledged; {by} lacks it"),
            Self::Doubled { label, by, times } => write!(f, "{by} heard {label} {times} times"),
            Self::Refused { label, by } => write!(f, "{label} was refused; {by} heard it"),
            Self::NeverSent { label, by } => write!(f, "{by} heard {label}, which nobody sent"),
        }
    }
}

/// Checks listeners that were connected all the time, in a namespace with replicated delivery.
///
/// A message whose outcome is unknown may come or not, but not twice.
pub fn check(sent: &[Sent], heard: &[Heard]) -> Vec<Violation> {
    let outcomes: HashMap<&Label, &Result<(), EmitError>> =
        sent.iter().map(|sent| (&sent.label, &sent.outcome)).collect();
    heard.iter().flat_map(|heard| check_one(&outcomes, sent, heard)).collect()
}

fn check_one(
    outcomes: &HashMap<&Label, &Result<(), EmitError>>,
    sent: &[Sent],
    heard: &Heard,
) -> Vec<Violation> {
    let by = || heard.by.clone();
    let mut times: HashMap<&Label, usize> = HashMap::new();
    for label in &heard.labels {
        *times.entry(label).or_default() += 1;
    }
    let mut violations = Vec::new();
    for (&label, &times) in &times {
        if times > 1 {
            violations.push(Violation::Doubled { label: label.clone(), by: by(), times });
        }
        match outcomes.get(label) {
            Some(Err(EmitError::Refused(reason))) if reason != "Timeout" => {
                violations.push(Violation::Refused { label: label.clone(), by: by() });
            }
            Some(_) => {}
            None => violations.push(Violation::NeverSent { label: label.clone(), by: by() }),
        }
    }
    let lost = sent.iter().filter(|sent| sent.outcome.is_ok() && !times.contains_key(&sent.label));
    violations.extend(lost.map(|sent| Violation::Lost { label: sent.label.clone(), by: by() }));
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties::examples::{heard, labels};

    fn sent(text: &str, outcome: Result<(), EmitError>) -> Vec<Sent> {
        let sent = |label| Sent { label, outcome: outcome.clone() };
        labels(text).into_iter().map(sent).collect()
    }

    #[test]
    fn once_each_is_right_in_any_order() {
        let sent = sent("a:0 a:1", Ok(()));
        assert_eq!(check(&sent, &[heard("x", "a:0 a:1"), heard("y", "a:1 a:0")]), []);
    }

    #[test]
    fn an_unknown_outcome_may_come_or_not_but_only_once() {
        for outcome in [EmitError::Lost, EmitError::TimedOut, EmitError::Refused("Timeout".into())]
        {
            let sent = sent("a:0", Err(outcome));
            assert_eq!(check(&sent, &[heard("x", "a:0"), heard("y", "")]), []);
            assert!(matches!(
                check(&sent, &[heard("x", "a:0 a:0")])[..],
                [Violation::Doubled { times: 2, .. }]
            ));
        }
    }

    #[test]
    fn loss_refusal_and_invention_are_found() {
        let acknowledged = sent("a:0 a:1", Ok(()));
        assert!(matches!(check(&acknowledged, &[heard("x", "a:1")])[..], [Violation::Lost { .. }]));
        let refused = sent("a:0", Err(EmitError::Refused("NoQuorum".into())));
        assert!(matches!(check(&refused, &[heard("x", "a:0")])[..], [Violation::Refused { .. }]));
        assert!(matches!(check(&[], &[heard("x", "a:0")])[..], [Violation::NeverSent { .. }]));
    }
}
