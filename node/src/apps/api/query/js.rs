//! JavaScript's ideas of equality, order and conversion, as far as queries meet them.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

use super::Work;

/// `sift.compare`: values of one `typeof` have an order, if JavaScript gives them one.
pub(super) fn compare(a: &Value, b: &Value, work: &Work) -> Option<Ordering> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Number(_), Value::Number(_)) => number(a).partial_cmp(&number(b)),
        (Value::String(a), Value::String(b)) => Some(compare_texts(a, b, work)),
        (Value::Null, Value::Null) => Some(Ordering::Equal),
        (
            Value::Null | Value::Array(_) | Value::Object(_),
            Value::Null | Value::Array(_) | Value::Object(_),
        ) => compare_objects(a, b, work),
        _ => None,
    }
}

/// Null, arrays and objects are all of type `object`. Two of them are compared as texts, or as
/// numbers if one is null, and are never equal, being two.
fn compare_objects(a: &Value, b: &Value, work: &Work) -> Option<Ordering> {
    let order = match (a, b) {
        (Value::Null, b) => 0.0.partial_cmp(&parse_number(&text(b, work))),
        (a, Value::Null) => parse_number(&text(a, work)).partial_cmp(&0.0),
        (a, b) => Some(compare_texts(&text(a, work), &text(b, work), work)),
    };
    order.filter(|order| order.is_ne())
}

/// By UTF-16 code units.
fn compare_texts(a: &str, b: &str, work: &Work) -> Ordering {
    work.spend_bytes(a.len().min(b.len()));
    a.encode_utf16().cmp(b.encode_utf16())
}

/// `===`, for values that are not one and the same object.
pub(super) fn is_identical(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(_) | Value::Object(_), _) => false,
        (Value::Number(_), Value::Number(_)) => number(a) == number(b),
        _ => a == b,
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

/// `Number(value)`.
pub(super) fn to_number(value: Option<&Value>, work: &Work) -> f64 {
    match value {
        None | Some(Value::Object(_)) => f64::NAN,
        Some(Value::Null) => 0.0,
        Some(Value::Bool(bool)) => f64::from(u8::from(*bool)),
        Some(value @ Value::Number(_)) => number(value),
        Some(Value::String(text)) => {
            work.spend_bytes(text.len());
            parse_number(text)
        }
        Some(value @ Value::Array(_)) => parse_number(&text(value, work)),
    }
}

/// `String(value)`.
pub(super) fn text<'a>(value: &'a Value, work: &Work) -> Cow<'a, str> {
    let Value::Array(elements) = value else { return text_of_one(value) };
    let mut text = String::new();
    write_elements(elements, &mut text, work);
    text.into()
}

/// Into one text, for arrays may be nested as deep as JSON goes: with a text for each level, each
/// would copy all that is inside of it.
fn write_elements(elements: &[Value], text: &mut String, work: &Work) {
    for (at, element) in elements.iter().enumerate() {
        if !work.spend(1) {
            return;
        }
        if at > 0 {
            text.push(',');
        }
        match element {
            Value::Null => {}
            Value::Array(elements) => write_elements(elements, text, work),
            one => {
                let one = text_of_one(one);
                work.spend_bytes(one.len());
                text.push_str(&one);
            }
        }
    }
}

/// Of a value that is no array.
fn text_of_one(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => "null".into(),
        Value::Bool(true) => "true".into(),
        Value::Bool(false) => "false".into(),
        Value::Number(_) => number_text(number(value)).into(),
        Value::String(text) => text.into(),
        Value::Array(_) | Value::Object(_) => "[object Object]".into(),
    }
}

fn number_text(number: f64) -> String {
    match number.abs() {
        0.0 => "0".to_owned(),
        size if size >= 1e21 => format!("{number:e}").replacen('e', "e+", 1),
        size if size < 1e-6 => format!("{number:e}"),
        _ => number.to_string(),
    }
}

/// Whether a path's key counts as a number: `!isNaN(Number(key))`.
pub(super) fn is_number(key: &str) -> bool {
    !parse_number(key).is_nan()
}

/// `Number(text)`.
fn parse_number(text: &str) -> f64 {
    let text = text.trim_matches(is_whitespace);
    let radix = |digits: &str, radix| {
        let is_digits = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
        let value = digits.chars().filter_map(|digit| digit.to_digit(radix));
        let sum = value.fold(0.0, |sum, digit| sum * f64::from(radix) + f64::from(digit));
        if is_digits { sum } else { f64::NAN }
    };
    match text.as_bytes() {
        [] => 0.0,
        [b'0', b'x' | b'X', ..] => radix(&text[2..], 16),
        [b'0', b'o' | b'O', ..] => radix(&text[2..], 8),
        [b'0', b'b' | b'B', ..] => radix(&text[2..], 2),
        _ => match text.strip_prefix(['+', '-']).unwrap_or(text) {
            "Infinity" if text.starts_with('-') => f64::NEG_INFINITY,
            "Infinity" => f64::INFINITY,
            // Rust takes words for numbers that JavaScript does not.
            digits if digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') => {
                text.parse().unwrap_or(f64::NAN)
            }
            _ => f64::NAN,
        },
    }
}

/// JavaScript's white space and line terminators.
fn is_whitespace(char: char) -> bool {
    (char.is_whitespace() && char != '\u{85}') || char == '\u{feff}'
}

/// `value[key]`, of what the value has itself.
pub(super) fn property<'a>(value: &'a Value, key: &str, work: &Work) -> Option<Cow<'a, Value>> {
    if let Value::String(text) = value {
        work.spend_bytes(text.len());
    }
    match value {
        Value::Object(object) => object.get(key).map(Cow::Borrowed),
        Value::Array(elements) => elements.get(index(key)?).map(Cow::Borrowed),
        Value::String(text) if key == "length" => {
            Some(Cow::Owned(text.encode_utf16().count().into()))
        }
        Value::String(text) => {
            let unit = text.encode_utf16().nth(index(key)?)?;
            Some(Cow::Owned(String::from_utf16_lossy(&[unit]).into()))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// A key that is an index, written as JavaScript writes it.
fn index(key: &str) -> Option<usize> {
    let index = key.parse().ok()?;
    let is_canonical = key == "0" || (!key.starts_with(['0', '+']));
    is_canonical.then_some(index)
}

/// What `$size` looks at: the `length` of a value that counts as true.
pub(super) fn length(value: Option<&Value>, work: &Work) -> Option<f64> {
    if let Some(Value::String(text)) = value {
        work.spend_bytes(text.len());
    }
    match value? {
        Value::Array(elements) => Some(elements.len() as f64),
        Value::String(text) if !text.is_empty() => Some(text.encode_utf16().count() as f64),
        Value::Object(object) => object.get("length")?.as_f64(),
        _ => None,
    }
}
