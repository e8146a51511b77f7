//! From what a client sends to a query that is known to be good.

use serde_json::{Map, Value};

use super::{Choice, Comparison, Node, Query, Wanted, pattern};

/// How large a client's query may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryLimits {
    /// Of its JSON text.
    pub max_bytes: usize,
    /// Objects and arrays inside one another.
    pub max_depth: usize,
    /// Values, operators and paths, all together.
    pub max_parts: usize,
    /// Regular expressions.
    pub max_regexes: usize,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self { max_bytes: 2048, max_depth: 16, max_parts: 256, max_regexes: 8 }
    }
}

/// Why a query is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    #[error("unknown operator {0:?}")]
    UnknownOperator(String),
    /// `$where` would run the client's code, and `$type` wants a constructor.
    #[error("operator {0} is not supported")]
    Unsupported(&'static str),
    #[error("{operator} wants {wanted}")]
    Operand { operator: &'static str, wanted: &'static str },
    #[error("invalid regular expression: {0}")]
    Regex(String),
    #[error("the query is longer than {0} bytes")]
    TooLong(usize),
    #[error("the query is nested deeper than {0}")]
    TooDeep(usize),
    #[error("the query has more than {0} parts")]
    TooManyParts(usize),
    #[error("the query has more than {0} regular expressions")]
    TooManyRegexes(usize),
}

pub(super) fn parse(query: &Value, limits: &QueryLimits) -> Result<Query, QueryError> {
    check_length(query, limits)?;
    let mut parser = Parser { limits, depth: 0, parts: 0, regexes: 0 };
    let root = parser.query(query)?;
    Ok(Query { root, regexes: parser.regexes })
}

/// Values are written to a sink that counts, so that a huge query is not copied to be refused.
pub(super) fn check_length(query: &Value, limits: &QueryLimits) -> Result<(), QueryError> {
    let is_short = fits(query, limits.max_bytes);
    if is_short { Ok(()) } else { Err(QueryError::TooLong(limits.max_bytes)) }
}

fn fits(query: &Value, max_bytes: usize) -> bool {
    struct Room(usize);
    impl std::io::Write for Room {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::WriteZero)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    serde_json::to_writer(Room(max_bytes), query).is_ok()
}

struct Parser<'a> {
    limits: &'a QueryLimits,
    depth: usize,
    parts: usize,
    regexes: usize,
}

impl Parser<'_> {
    /// A whole query, or what stands at a path or under an operator such as `$not`.
    fn query(&mut self, query: &Value) -> Result<Node, QueryError> {
        self.count(1)?;
        let Value::Object(object) = query else { return Ok(Node::Equals(self.wanted(query)?)) };
        self.deeper(|parser| {
            let mut nodes = Vec::new();
            for (key, operand) in object {
                nodes.extend(parser.condition(key, operand, object)?);
            }
            Ok(match nodes.len() {
                1 => nodes.swap_remove(0),
                _ => Node::All(nodes),
            })
        })
    }

    fn condition(
        &mut self,
        key: &str,
        operand: &Value,
        beside: &Map<String, Value>,
    ) -> Result<Option<Node>, QueryError> {
        self.count(1)?;
        Ok(Some(match key {
            "$eq" => Node::Equals(self.wanted(operand)?),
            "$ne" => Node::Differs(self.wanted(operand)?),
            "$gt" => self.compares(Comparison::Greater, operand)?,
            "$gte" => self.compares(Comparison::GreaterOrEqual, operand)?,
            "$lt" => self.compares(Comparison::Less, operand)?,
            "$lte" => self.compares(Comparison::LessOrEqual, operand)?,
            "$mod" => modulo(operand)?,
            "$in" => self.choices("$in", operand)?,
            "$nin" => Node::Not(Box::new(self.choices("$nin", operand)?)),
            "$and" => Node::All(self.queries("$and", operand)?),
            "$all" => Node::All(self.queries("$all", operand)?),
            "$or" => Node::Any(self.queries("$or", operand)?),
            "$nor" => Node::Not(Box::new(Node::Any(self.queries("$nor", operand)?))),
            "$not" => Node::Not(Box::new(self.query(operand)?)),
            "$elemMatch" => Node::Element(Box::new(self.query(operand)?)),
            "$exists" => Node::Exists(is_truthy(operand)),
            "$size" => {
                let wanted = QueryError::Operand { operator: "$size", wanted: "a number" };
                Node::Size(operand.as_f64().ok_or(wanted)?)
            }
            "$regex" => self.regex(operand, beside.get("$options"))?,
            // It belongs to the `$regex` beside it.
            "$options" => return Ok(None),
            "$where" => return Err(QueryError::Unsupported("$where")),
            "$type" => return Err(QueryError::Unsupported("$type")),
            unknown if unknown.starts_with('$') => {
                return Err(QueryError::UnknownOperator(unknown.to_owned()));
            }
            path => {
                let path: Vec<Box<str>> = path.split('.').map(Into::into).collect();
                self.count(path.len())?;
                Node::Path(path, Box::new(self.query(operand)?))
            }
        }))
    }

    fn compares(&mut self, comparison: Comparison, operand: &Value) -> Result<Node, QueryError> {
        self.check(operand)?;
        Ok(Node::Compares(comparison, operand.clone()))
    }

    fn wanted(&mut self, operand: &Value) -> Result<Wanted, QueryError> {
        self.check(operand)?;
        Ok(match operand {
            Value::Null => Wanted::Null,
            Value::Array(elements) if elements.is_empty() => Wanted::EmptyArray,
            Value::Array(_) | Value::Object(_) => Wanted::Nothing,
            scalar => Wanted::Scalar(scalar.clone()),
        })
    }

    fn queries(
        &mut self,
        operator: &'static str,
        operand: &Value,
    ) -> Result<Vec<Node>, QueryError> {
        let elements = array(operator, operand)?;
        self.deeper(|parser| elements.iter().map(|element| parser.query(element)).collect())
    }

    fn choices(&mut self, operator: &'static str, operand: &Value) -> Result<Node, QueryError> {
        let elements = array(operator, operand)?;
        self.deeper(|parser| {
            let choices = elements
                .iter()
                .map(|value| Ok(Choice { value: value.clone(), query: parser.query(value)? }));
            choices.collect::<Result<_, _>>().map(Node::In)
        })
    }

    fn regex(&mut self, operand: &Value, options: Option<&Value>) -> Result<Node, QueryError> {
        let wanted = |wanted| QueryError::Operand { operator: "$regex", wanted };
        let source = operand.as_str().ok_or_else(|| wanted("a text"))?;
        let flags = match options {
            None => "",
            Some(options) => options.as_str().ok_or_else(|| wanted("a text as its $options"))?,
        };
        self.regexes += 1;
        if self.regexes > self.limits.max_regexes {
            return Err(QueryError::TooManyRegexes(self.limits.max_regexes));
        }
        pattern::compile(source, flags).map(Node::Matches)
    }

    /// An operand that is no query: only its size matters.
    fn check(&mut self, operand: &Value) -> Result<(), QueryError> {
        match operand {
            Value::Array(elements) => self.deeper(|parser| {
                parser.count(elements.len())?;
                elements.iter().try_for_each(|element| parser.check(element))
            }),
            Value::Object(object) => self.deeper(|parser| {
                parser.count(object.len())?;
                object.values().try_for_each(|value| parser.check(value))
            }),
            _ => Ok(()),
        }
    }

    fn deeper<T>(
        &mut self,
        parse: impl FnOnce(&mut Self) -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        if self.depth >= self.limits.max_depth {
            return Err(QueryError::TooDeep(self.limits.max_depth));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn count(&mut self, parts: usize) -> Result<(), QueryError> {
        self.parts += parts;
        if self.parts > self.limits.max_parts {
            return Err(QueryError::TooManyParts(self.limits.max_parts));
        }
        Ok(())
    }
}

fn array<'a>(operator: &'static str, operand: &'a Value) -> Result<&'a [Value], QueryError> {
    let wanted = QueryError::Operand { operator, wanted: "an array" };
    operand.as_array().map(Vec::as_slice).ok_or(wanted)
}

fn modulo(operand: &Value) -> Result<Node, QueryError> {
    let numbers = operand.as_array().and_then(|operand| match operand.as_slice() {
        [divisor, remainder, ..] => Some((divisor.as_f64()?, remainder.as_f64()?)),
        _ => None,
    });
    let wanted = QueryError::Operand { operator: "$mod", wanted: "two numbers" };
    let (divisor, remainder) = numbers.ok_or(wanted)?;
    Ok(Node::Modulo { divisor, remainder })
}

/// What JavaScript takes for true.
fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(bool) => *bool,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}
