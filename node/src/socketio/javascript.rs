//! JSON text as JavaScript writes it: a client cannot tell a Rust server's numbers from the original's.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Error;
use serde_json::ser::{Formatter, Serializer};

/// What `JSON.stringify` writes for the same value: `3` for a whole float, `1e+21`, no `-0`.
pub fn to_json(value: &(impl Serialize + ?Sized)) -> Result<String, Error> {
    let mut text = Vec::with_capacity(64);
    write_json(&mut text, value)?;
    String::from_utf8(text).map_err(serde::ser::Error::custom)
}

pub(super) fn write_json(
    text: &mut Vec<u8>,
    value: &(impl Serialize + ?Sized),
) -> Result<(), Error> {
    value.serialize(&mut Serializer::with_formatter(text, JavaScript))
}

/// Compact JSON whose floats are in ECMAScript's notation (ECMA-262, "Number::toString"). What is
/// text already ([`Raw`](super::Raw)) stays as it is, and NaN and infinities are `null`, as in JavaScript.
struct JavaScript;

impl Formatter for JavaScript {
    fn write_f32<W: Write + ?Sized>(&mut self, writer: &mut W, value: f32) -> io::Result<()> {
        writer.write_all(ryu_js::Buffer::new().format_finite(value).as_bytes())
    }

    fn write_f64<W: Write + ?Sized>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(ryu_js::Buffer::new().format_finite(value).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn floats_are_in_javascripts_notation() {
        // The right column is what Node.js 20 says to `JSON.stringify`.
        for (value, text) in [
            (3.0, "3"),
            (-0.0, "0"),
            (1.5, "1.5"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e16, "10000000000000000"),
            (2f64.powi(60), "1152921504606847000"),
            (1e21, "1e+21"),
            (-1.5e300, "-1.5e+300"),
            (0.000001, "0.000001"),
            (0.0000001, "1e-7"),
            (5e-324, "5e-324"),
            (f64::NAN, "null"),
            (f64::INFINITY, "null"),
        ] {
            assert_eq!(to_json(&value).unwrap(), text);
        }
        assert_eq!(to_json(&[0.1f32, 16_777_216.0]).unwrap(), "[0.1,16777216]");
    }

    #[test]
    fn other_values_are_serde_jsons() {
        let value = json!({"a": [1, -2, u64::MAX, "é\u{1}\""], "b": null, "c": {"d": true}});
        assert_eq!(to_json(&value).unwrap(), serde_json::to_string(&value).unwrap());
        assert_eq!(to_json(&json!({"pi": 3.0})).unwrap(), r#"{"pi":3}"#);
        assert_eq!(to_json(&Value::from(7)).unwrap(), "7");
    }
}
