//! Says what is wrong with a value in an operator's words, and never what a secret is.

use std::borrow::Cow;

use figment::error::{Actual, Kind};

/// Whether the value of a key, or of something in it, is nobody's business.
pub(super) fn is_secret(key: &str) -> bool {
    let mut parts = key.split('.');
    // A section may also be given as a list of its values.
    let may_be_secrets = |part: &str| part == "secrets" || part.parse::<usize>().is_ok();
    parts.next() == Some("session") && parts.next().is_none_or(may_be_secrets)
}

/// An argument of `--set` as it may be shown: of a secret, the key alone.
pub(super) fn shown_argument(argument: &str) -> &str {
    let is_of_key = |c: char| c.is_ascii_alphanumeric() || "._-/\"".contains(c);
    let key = argument.split(|c| !is_of_key(c)).next().unwrap_or_default();
    if is_secret(key) { key } else { argument }
}

/// What is wrong with the value of a key.
pub(super) fn problem(key: &str, kind: &Kind) -> String {
    match kind {
        Kind::UnknownField(_, expected) => {
            format!("unknown key; there are {}", expected.join(", "))
        }
        Kind::UnknownVariant(found, expected) => {
            format!("{found:?} is none of {}", expected.join(", "))
        }
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
            let found = if is_secret(key) { "this".into() } else { shown(found) };
            format!("{found} is not {}", wanted(expected))
        }
        Kind::ISizeOutOfRange(number) => format!("{number} is out of range"),
        Kind::USizeOutOfRange(number) => format!("{number} is out of range"),
        Kind::Message(text) if text == "invalid socket address syntax" => {
            format!("must be {}", wanted("socket address"))
        }
        other => other.to_string(),
    }
}

fn shown(found: &Actual) -> Cow<'static, str> {
    match found {
        Actual::Bool(value) => value.to_string().into(),
        Actual::Unsigned(number) => number.to_string().into(),
        Actual::Signed(number) => number.to_string().into(),
        Actual::Float(number) => number.to_string().into(),
        Actual::Char(value) => format!("{value:?}").into(),
        Actual::Str(text) => format!("{text:?}").into(),
        Actual::Seq => "a list".into(),
        Actual::Map => "a table".into(),
        Actual::Unit | Actual::Option => "an empty value".into(),
        _ => "this".into(),
    }
}

/// What serde calls a type, as whoever writes a file thinks of it.
fn wanted(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "a nonzero usize" => "a whole number, 1 or more",
        "a boolean" => "true or false",
        "a string" | "path string" => "a text",
        "a duration" => "a duration with its unit, such as 300ms, 25s or 2m",
        "a sequence" => "a list",
        "socket address" => "an address with a port, such as 127.0.0.1:3001",
        "a map" => "a table",
        section if section.starts_with("struct ") => "a table of settings",
        // Which words there are, the error says where a text is none of them.
        word if word.starts_with("enum ") => "a text",
        other => other,
    }
}
