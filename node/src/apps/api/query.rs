//! Queries of subscribers: MongoDB's operators as `sift` 3.3.12 understands them, on JSON values.
//!
//! A query comes from a client. It is checked when it is parsed, and can neither fail nor take long
//! after that.

mod js;
mod parse;
mod pattern;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::cmp::Ordering;

use regex::Regex;
use serde_json::Value;
use smallvec::SmallVec;

pub use parse::{QueryError, QueryLimits};

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
    Matches(Regex),
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

    /// Whether a value matches; `None` is JavaScript's `undefined`.
    pub fn matches(&self, value: Option<&Value>) -> bool {
        self.root.matches(value)
    }

    /// How many regular expressions it holds, each of which costs memory.
    pub fn regexes(&self) -> usize {
        self.regexes
    }
}

impl Node {
    fn matches(&self, value: Option<&Value>) -> bool {
        match self {
            Self::Path(path, node) => {
                let mut found = SmallVec::new();
                find(value.map(Cow::Borrowed), path, &mut found);
                found.iter().any(|value| node.matches(value.as_deref()))
            }
            Self::All(nodes) => nodes.iter().all(|node| node.matches(value)),
            Self::Any(nodes) => nodes.iter().any(|node| node.matches(value)),
            Self::Not(node) => !node.matches(value),
            Self::Equals(wanted) => any_of(value, |value| wanted.is(value)),
            Self::Differs(wanted) => !any_of(value, |value| wanted.is(value)),
            Self::Compares(comparison, other) => any_of(value, |value| {
                value
                    .and_then(|value| js::compare(value, other))
                    .is_some_and(|order| comparison.holds(order))
            }),
            Self::Modulo { divisor, remainder } => {
                any_of(value, |value| js::to_number(value) % divisor == *remainder)
            }
            Self::In(choices) => is_in(choices, value),
            Self::Size(size) => js::length(value).is_some_and(|length| length == *size),
            Self::Matches(regex) => any_of(value, |value| {
                value.and_then(Value::as_str).is_some_and(|text| regex.is_match(text))
            }),
            Self::Element(node) => match value {
                Some(Value::Array(elements)) => {
                    elements.iter().any(|element| node.matches(Some(element)))
                }
                other => node.matches(other),
            },
            Self::Exists(wanted) => value.is_some_and(|value| !value.is_null()) == *wanted,
        }
    }
}

impl Wanted {
    fn is(&self, value: Option<&Value>) -> bool {
        match self {
            Self::Null => value.is_none_or(Value::is_null),
            Self::EmptyArray => {
                value.and_then(Value::as_array).is_some_and(|array| array.is_empty())
            }
            Self::Scalar(wanted) => {
                value.is_some_and(|value| js::compare(value, wanted) == Some(Ordering::Equal))
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
fn any_of(value: Option<&Value>, is_met: impl Fn(Option<&Value>) -> bool) -> bool {
    match value {
        Some(Value::Array(elements)) if !elements.is_empty() => {
            elements.iter().any(|element| is_met(Some(element)))
        }
        other => is_met(other),
    }
}

fn is_in(choices: &[Choice], value: Option<&Value>) -> bool {
    let is_choice = |value| choices.iter().any(|choice| js::is_identical(&choice.value, value));
    match value {
        Some(Value::Array(elements)) => elements.iter().any(is_choice),
        // An object is identical to none, and sift does not ask it queries either.
        Some(Value::Object(_)) => false,
        Some(Value::Null) if choices.iter().any(|choice| js::text(&choice.value) == "null") => true,
        other => choices.iter().any(|choice| choice.query.matches(other)),
    }
}

type Found<'a> = SmallVec<[Option<Cow<'a, Value>>; 4]>;

/// The values at a path. An array stands for its elements, unless the path names one by its index.
fn find<'a>(value: Option<Cow<'a, Value>>, path: &[Box<str>], found: &mut Found<'a>) {
    let (Some(current), Some((key, rest))) = (&value, path.split_first()) else {
        return found.push(value);
    };
    match current {
        Cow::Borrowed(Value::Null) | Cow::Owned(Value::Null) => found.push(value),
        Cow::Borrowed(Value::Array(elements)) if !js::is_number(key) => {
            for element in elements {
                find(Some(Cow::Borrowed(element)), path, found);
            }
        }
        Cow::Borrowed(current) => find(js::property(current, key), rest, found),
        // What is made for a property is a character or a length, which has no elements.
        Cow::Owned(current) => {
            let property = js::property(current, key).map(|value| Cow::Owned(value.into_owned()));
            find(property, rest, found);
        }
    }
}
