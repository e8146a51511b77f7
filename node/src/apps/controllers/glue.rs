//! What the code that `#[controller]` writes leans on; for nobody else.
//!
//! Whether a parameter is injected or sent by the client, and how what a handler returns becomes
//! an ack, is told by types (`apps/by_type.rs`).

use std::fmt::Display;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use inventory;

pub use super::controller::{Created, Invoked};
use super::{Arguments, Call, Error, Inject, Output};
pub use crate::apps::by_type::{Parameter, Returned};

pub trait TakeInjected<T> {
    fn take(&self, call: &Call<'_>, arguments: &mut Arguments<'_>) -> Result<T, Error>;
}

impl<T: Inject> TakeInjected<T> for &Parameter<T> {
    fn take(&self, call: &Call<'_>, _: &mut Arguments<'_>) -> Result<T, Error> {
        inject(call)
    }
}

pub trait TakeSent<T> {
    fn take(&self, call: &Call<'_>, arguments: &mut Arguments<'_>) -> Result<T, Error>;
}

impl<T: DeserializeOwned> TakeSent<T> for Parameter<T> {
    fn take(&self, _: &Call<'_>, arguments: &mut Arguments<'_>) -> Result<T, Error> {
        arguments.take()
    }
}

pub fn inject<T: Inject>(call: &Call<'_>) -> Result<T, Error> {
    T::inject(call).map_err(|error| Error::injecting(&error))
}

/// The error is an object, or whatever else it serializes to; its text is the message, if that has none.
pub trait FromErrorObject {
    fn output(&self) -> Result<Output, Error>;
}

impl<T, E> FromErrorObject for &&&Returned<'_, Result<T, E>>
where
    T: Serialize,
    E: Serialize + std::error::Error,
{
    fn output(&self) -> Result<Output, Error> {
        match self.0 {
            Ok(value) => Output::new(value),
            Err(error) => Err(Error::from_serialize(error).with_message_of(error)),
        }
    }
}

/// The error is what it serializes to.
pub trait FromSerializedError {
    fn output(&self) -> Result<Output, Error>;
}

impl<T: Serialize, E: Serialize> FromSerializedError for &&Returned<'_, Result<T, E>> {
    fn output(&self) -> Result<Output, Error> {
        match self.0 {
            Ok(value) => Output::new(value),
            Err(error) => Err(Error::from_serialize(error)),
        }
    }
}

/// The error's text is the message.
pub trait FromDisplayedError {
    fn output(&self) -> Result<Output, Error>;
}

impl<T: Serialize, E: Display> FromDisplayedError for &Returned<'_, Result<T, E>> {
    fn output(&self) -> Result<Output, Error> {
        match self.0 {
            Ok(value) => Output::new(value),
            Err(error) => Err(Error::new(error.to_string())),
        }
    }
}

/// There can be no error.
pub trait FromValue {
    fn output(&self) -> Result<Output, Error>;
}

impl<T: Serialize> FromValue for Returned<'_, T> {
    fn output(&self) -> Result<Output, Error> {
        Output::new(self.0)
    }
}

/// What `#[create]` failed with, which is what the output of its error is.
pub fn failed<T>(output: Result<Output, Error>) -> Result<T, Error> {
    Err(output.err().unwrap_or_else(Error::internal))
}

/// How a controller without `#[create]` is made.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not `Default`, and has no `#[create]`",
    label = "nothing says how to make an instance for a socket"
)]
pub trait MadeByDefault: Sized {
    fn make() -> Self;
}

impl<T: Default> MadeByDefault for T {
    fn make() -> Self {
        T::default()
    }
}

pub fn make<C: MadeByDefault>() -> C {
    C::make()
}
