//! Queries of subscribers: MongoDB's operators as `sift` 3.3.12 understands them, on JSON values.
//!
//! A query comes from a client. It is checked when it is parsed, and cannot fail after that. How long
//! it takes also depends on what it looks at, so each match has a bound of its own ([`Work`]).

mod js;
mod parse;
mod pattern;
#[cfg(test)]
mod tests;
mod work;

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;
use smallvec::SmallVec;

pub use parse::{QueryError, QueryLimits};
use pattern::Expression;
pub use work::Work;

/// A query that is known to be good.
#[derive(Debug)]
pub struct Query {
    root: Node,
    regexes: usize,
}

/// One condition.
#[derive(Debug)]
enum Node {
    Path(Vec<Box<str>>, Box<Self>),
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Equals(Wanted),
    Differs(Wanted),
    Compares(Comparison, Value),
    Modulo { divisor: f64, remainder: f64 },
    In(Vec<Choice>),
    Size(f64),
    Matches(Expression),
    Element(Box<Self>),
    Exists(bool),
}

/// What `$eq` compares with.
#[derive(Debug)]
enum Wanted {
    /// Missing is null too.
    Null,
    EmptyArray,
    Scalar(Value),
    /// An object, or an array that holds something: compared by identity, so equal to nothing.
    Nothing,
}

#[derive(Clone, Copy, Debug)]
enum Comparison {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// One element of `$in`: a value, and the query that it is as well.
#[derive(Debug)]
struct Choice {
    value: Value,
    query: Node,
}

impl Query {
    /// Checks a query that comes from a client. Anything but an object is a value to be equal to.
    pub fn parse(query: &Value, limits: &QueryLimits) -> Result<Self, QueryError> {
        parse::parse(query, limits)
    }

    /// Whether its JSON text is as short as it has to be.
    pub(super) fn check_length(query: &Value, limits: &QueryLimits) -> Result<(), QueryError> {
        parse::check_length(query, limits)
    }

    /// Whether a value matches; `None` is JavaScript's `undefined`. False too if that takes more than
    /// `work` has left, which has nothing left then.
    pub fn matches(&self, value: Option<&Value>, work: &Work) -> bool {
        self.root.matches(value, work) && !work.is_spent()
    }

    /// How many regular expressions it holds, each of which costs memory.
    pub fn regexes(&self) -> usize {
        self.regexes
    }
}

impl Node {
    /// Once the work is spent this says true, which ends each search through elements at once; nobody
    /// asks what came of it then.
    fn matches(&self, value: Option<&Value>, work: &Work) -> bool {
        if !work.spend(1) {
            return true;
        }
        match self {
            Self::Path(path, node) => {
                let mut found = SmallVec::new();
                find(value.map(Cow::Borrowed), path, &mut found, work);
                found.iter().any(|value| node.matches(value.as_deref(), work))
            }
            Self::All(nodes) => nodes.iter().all(|node| node.matches(value, work)),
            Self::Any(nodes) => nodes.iter().any(|node| node.matches(value, work)),
            Self::Not(node) => !node.matches(value, work),
            Self::Equals(wanted) => any_of(value, work, |value| wanted.is(value, work)),
            Self::Differs(wanted) => !any_of(value, work, |value| wanted.is(value, work)),
            Self::Compares(comparison, other) => any_of(value, work, |value| {
                value
                    .and_then(|value| js::compare(value, other, work))
                    .is_some_and(|order| comparison.holds(order))
            }),
            Self::Modulo { divisor, remainder } => {
                any_of(value, work, |value| js::to_number(value, work) % divisor == *remainder)
            }
            Self::In(choices) => is_in(choices, value, work),
            Self::Size(size) => js::length(value, work).is_some_and(|length| length == *size),
            Self::Matches(expression) => any_of(value, work, |value| {
                value.and_then(Value::as_str).is_some_and(|text| expression.is_match(text, work))
            }),
            Self::Element(node) => match value {
                Some(Value::Array(elements)) => {
                    elements.iter().any(|element| node.matches(Some(element), work))
                }
                other => node.matches(other, work),
            },
            Self::Exists(wanted) => value.is_some_and(|value| !value.is_null()) == *wanted,
        }
    }
}

impl Wanted {
    fn is(&self, value: Option<&Value>, work: &Work) -> bool {
        match self {
            Self::Null => value.is_none_or(Value::is_null),
            Self::EmptyArray => {
                value.and_then(Value::as_array).is_some_and(|array| array.is_empty())
            }
            Self::Scalar(wanted) => {
                value.is_some_and(|value| js::compare(value, wanted, work) == Some(Ordering::Equal))
            }
            Self::Nothing => false,
        }
    }
}

impl Comparison {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
        }
    }
}

/// Most operators look at the elements of an array that has some, otherwise at the value itself.
fn any_of(value: Option<&Value>, work: &Work, is_met: impl Fn(Option<&Value>) -> bool) -> bool {
    match value {
        Some(Value::Array(elements)) if !elements.is_empty() => {
            elements.iter().any(|element| !work.spend(1) || is_met(Some(element)))
        }
        other => is_met(other),
    }
}

fn is_in(choices: &[Choice], value: Option<&Value>, work: &Work) -> bool {
    let is_choice = |value| {
        !work.spend(choices.len())
            || choices.iter().any(|choice| js::is_identical(&choice.value, value))
    };
    match value {
        Some(Value::Array(elements)) => elements.iter().any(is_choice),
        // An object is identical to none, and sift does not ask it queries either.
        Some(Value::Object(_)) => false,
        Some(Value::Null)
            if choices.iter().any(|choice| js::text(&choice.value, work) == "null") =>
        {
            true
        }
        other => choices.iter().any(|choice| choice.query.matches(other, work)),
    }
}

type Found<'a> = SmallVec<[Option<Cow<'a, Value>>; 4]>;

/// The values at a path. An array stands for its elements, unless the path names one by its index.
fn find<'a>(value: Option<Cow<'a, Value>>, path: &[Box<str>], found: &mut Found<'a>, work: &Work) {
    if !work.spend(1) {
        return;
    }
    let (Some(current), Some((key, rest))) = (&value, path.split_first()) else {
        return found.push(value);
    };
    match current {
        Cow::Borrowed(Value::Null) | Cow::Owned(Value::Null) => found.push(value),
        Cow::Borrowed(Value::Array(elements)) if !js::is_number(key) => {
            for element in elements.iter().take_while(|_| !work.is_spent()) {
                find(Some(Cow::Borrowed(element)), path, found, work);
            }
        }
        Cow::Borrowed(current) => find(js::property(current, key, work), rest, found, work),
        // What is made for a property is a character or a length, which has no elements.
        Cow::Owned(current) => {
            let property = js::property(current, key, work);
            find(property.map(|value| Cow::Owned(value.into_owned())), rest, found, work);
        }
    }
}
