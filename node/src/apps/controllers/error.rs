//! What a client is told when a handler fails.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::server::ExtractError;

/// The error of a handler, as the object that its client gets: `{"message", "code"?, …}`.
///
/// Every [`std::error::Error`] becomes one by `?`, its text the message. What must not reach
/// clients is mapped to something else before.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Error(Map<String, Value>);

impl Error {
    /// An argument that is missing, or of another type than its handler takes.
    pub const INVALID_ARGUMENT: &'static str = "INVALID_ARGUMENT";
    /// The handler panicked, or asked for what is not there: the application's fault.
    pub const INTERNAL: &'static str = "INTERNAL";
    /// Too much waits for the connect handlers.
    pub const OVERLOADED: &'static str = "OVERLOADED";
    /// The connect handlers took too long.
    pub const TIMEOUT: &'static str = "TIMEOUT";

    pub fn new(message: impl Into<String>) -> Self {
        Self(Map::new()).with("message", message.into())
    }

    /// Sets `code`, by which clients tell errors apart.
    pub fn with_code(self, code: impl Into<String>) -> Self {
        self.with("code", code.into())
    }

    /// Sets another property.
    pub fn with(mut self, property: &str, value: impl Into<Value>) -> Self {
        self.0.insert(property.to_owned(), value.into());
        self
    }

    /// An object is taken as it is; a text, or any other value, is the message.
    pub fn from_serialize(error: &(impl Serialize + ?Sized)) -> Self {
        match serde_json::to_value(error) {
            Ok(Value::Object(properties)) => Self(properties),
            Ok(Value::Null) => Self(Map::new()),
            Ok(Value::String(message)) => Self::new(message),
            Ok(other) => Self::new(other.to_string()),
            Err(error) => Self::new(error.to_string()).with_code(Self::INTERNAL),
        }
    }

    pub fn message(&self) -> Option<&str> {
        self.0.get("message")?.as_str()
    }

    pub fn code(&self) -> Option<&str> {
        self.0.get("code")?.as_str()
    }

    /// What the client gets.
    pub fn properties(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Adds the message of an object that has none.
    pub(super) fn with_message_of(mut self, error: &impl fmt::Display) -> Self {
        if !self.0.contains_key("message") {
            self.0.insert("message".to_owned(), error.to_string().into());
        }
        self
    }

    pub(super) fn internal() -> Self {
        Self::new("internal server error").with_code(Self::INTERNAL)
    }

    pub(super) fn argument(number: usize, what: impl fmt::Display) -> Self {
        Self::new(format!("argument {number} {what}")).with_code(Self::INVALID_ARGUMENT)
    }

    /// What could not be injected: the client's fault, if it was to be read from what it sent.
    pub(super) fn injecting(error: &ExtractError) -> Self {
        match error {
            ExtractError::Shape(shape) => {
                Self::new(format!("{error}: {shape}")).with_code(Self::INVALID_ARGUMENT)
            }
            ExtractError::Absent(_) => Self::new(error.to_string()).with_code(Self::INTERNAL),
        }
    }
}

// This is why `Error` is no `std::error::Error` itself.
impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.message() {
            Some(message) => f.write_str(message),
            None => write!(f, "{}", Value::Object(self.0.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn json(error: &Error) -> Value {
        serde_json::to_value(error).unwrap()
    }

    #[test]
    fn error_is_an_object_with_a_message() {
        let error = Error::new("no").with_code("E_NO").with("retry", true);
        assert_eq!(json(&error), json!({"message": "no", "code": "E_NO", "retry": true}));
        assert_eq!((error.message(), error.code()), (Some("no"), Some("E_NO")));
        assert_eq!(error.to_string(), "no");
    }

    #[test]
    fn objects_travel_as_they_are_and_other_values_are_the_message() {
        let of = |value: Value| json(&Error::from_serialize(&value));
        assert_eq!(of(json!({"code": "E_X"})), json!({"code": "E_X"}));
        assert_eq!(of(json!("no")), json!({"message": "no"}));
        assert_eq!(of(json!([1])), json!({"message": "[1]"}));
        assert_eq!(of(json!(null)), json!({}));
        assert_eq!(Error::from_serialize(&json!({"code": 7})).to_string(), r#"{"code":7}"#);
    }

    #[test]
    fn standard_errors_are_their_text() {
        let parse = || -> Result<u8, Error> { Ok("x".parse::<u8>()?) };
        let error = parse().unwrap_err();
        assert_eq!(json(&error), json!({"message": "invalid digit found in string"}));
    }
}
