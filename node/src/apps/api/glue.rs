//! What the code that `#[api]` writes leans on; for nobody else.
//!
//! Whether a parameter is injected or sent by the client is told by its type (`apps/by_type.rs`).

use std::fmt::Display;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use super::function::Answer;
use super::function::{Exported, Named};
use super::{ApiError, Exports};
pub use crate::apps::by_type::{Parameter, Returned};
use crate::server::{Context, FromContext};
use crate::socketio::{Payload, from_element, to_payload};

/// A call of an exported function.
pub struct Call<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) payload: &'a Payload,
    pub(super) named: Named<'a>,
}

/// Adds a function. Of `names`, those that are there are arguments of the client.
pub fn function<F>(exports: Exports, name: &str, names: &[Option<&'static str>], call: F) -> Exports
where
    F: Fn(&Call<'_>) -> Result<Answer, ApiError> + Send + Sync + 'static,
{
    let names = names.iter().flatten().map(|name| (*name).to_owned());
    exports.with_function(name, Exported::by_call(names.collect(), call))
}

pub trait TakeInjected<T> {
    fn told(&self, name: &'static str) -> Option<&'static str>;
    fn take(&self, call: &Call<'_>, name: &str) -> Result<T, ApiError>;
}

impl<T: FromContext> TakeInjected<T> for &Parameter<T> {
    fn told(&self, _: &'static str) -> Option<&'static str> {
        None
    }

    fn take(&self, call: &Call<'_>, _: &str) -> Result<T, ApiError> {
        Ok(T::from_context(call.context)?)
    }
}

/// The bounds stand with the functions, so that a type that is neither is told so in our words.
pub trait TakeSent<T> {
    fn told(&self, name: &'static str) -> Option<&'static str>;
    fn take(&self, call: &Call<'_>, name: &str) -> Result<T, ApiError>
    where
        T: Argument;
}

impl<T> TakeSent<T> for Parameter<T> {
    fn told(&self, name: &'static str) -> Option<&'static str> {
        Some(name)
    }

    fn take(&self, call: &Call<'_>, name: &str) -> Result<T, ApiError>
    where
        T: Argument,
    {
        let text = call.named.get(name).map_or("null", |value| value.get());
        from_element(call.payload, text).map_err(|error| {
            let is_missing = !call.named.contains_key(name);
            ApiError::new(if is_missing {
                format!("the argument {name:?} is missing")
            } else {
                format!("the argument {name:?} is wrong: {error}")
            })
        })
    }
}

/// What a client can send.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no argument of an exported function",
    label = "it can neither be injected (`FromContext`) nor be read from what a client sends (`DeserializeOwned`)"
)]
pub trait Argument: DeserializeOwned {}

impl<T: DeserializeOwned> Argument for T {}

/// The answer of a function that may fail; clients get the error's text.
pub fn result<T: Serialize, E: Display>(returned: Result<T, E>) -> Result<Payload, ApiError> {
    Returned(&returned).answer()
}

/// For results whose type is not spelled `Result`.
pub trait AnswerResult {
    fn answer(&self) -> Result<Payload, ApiError>;
}

impl<T: Serialize, E: Display> AnswerResult for Returned<'_, Result<T, E>> {
    fn answer(&self) -> Result<Payload, ApiError> {
        match self.0 {
            Ok(value) => (&Returned(value)).answer(),
            Err(error) => Err(ApiError::new(error.to_string())),
        }
    }
}

pub trait AnswerValue {
    fn answer(&self) -> Result<Payload, ApiError>;
}

impl<T: Serialize> AnswerValue for &Returned<'_, T> {
    fn answer(&self) -> Result<Payload, ApiError> {
        Ok(to_payload(None, &((), self.0))?)
    }
}
