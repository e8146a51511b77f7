//! Exported functions: async functions of an extractor and of arguments that travel by name.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::FutureExt as _;
use serde::Serialize;
use serde::de::{self, DeserializeOwned, Deserializer, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use tracing::error;

use super::glue::Call;
use crate::server::{Context, FromContext};
use crate::socketio::{Payload, from_ack, to_payload};

/// What a function fails with; clients get `{message}`. Any error converts to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    pub message: String,
}

impl ApiError {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

impl<E: std::error::Error> From<E> for ApiError {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// How a call is going to end: with what its ack carries.
pub type Answer = Pin<Box<dyn Future<Output = Result<Payload, ApiError>> + Send>>;

type Caller = dyn Fn(&Context<'_>, &Payload) -> Result<Answer, ApiError> + Send + Sync;

/// A function whose types are hidden, with the names of its arguments.
#[derive(Clone)]
pub(super) struct Exported {
    pub(super) names: Arc<[String]>,
    caller: Arc<Caller>,
}

impl Exported {
    /// `A` is read from what `arrange` makes of the call's arguments: [`in_order`], or
    /// [`as_object`].
    pub(super) fn new<C, A, R, F, Fut>(
        names: Vec<String>,
        arrange: fn(&Named<'_>, &[String]) -> String,
        function: F,
    ) -> Self
    where
        F: Fn(C, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, ApiError>> + Send + 'static,
        C: FromContext,
        A: DeserializeOwned,
        R: Serialize,
    {
        let expected = names.clone();
        Self::by_call(names, move |Call { context, payload, named }| {
            let text = arrange(named, &expected);
            let arguments: A = from_ack(&Payload::ack(&text, payload.attachments.clone()))?;
            let future = function(C::from_context(context)?, arguments);
            Ok(Box::pin(async move {
                let result = future.await?;
                Ok(to_payload(None, &((), result))?)
            }))
        })
    }

    /// It takes what it wants of the call.
    pub(super) fn by_call(
        names: Vec<String>,
        function: impl Fn(&Call<'_>) -> Result<Answer, ApiError> + Send + Sync + 'static,
    ) -> Self {
        let caller = move |context: &Context<'_>, payload: &Payload| {
            function(&Call { context, payload, named: named(payload)? })
        };
        Self { names: names.into(), caller: Arc::new(caller) }
    }

    /// Calls the function with the arguments of an event. One that panics fails.
    pub(super) fn call(
        &self,
        context: &Context<'_>,
        payload: &Payload,
    ) -> Result<Answer, ApiError> {
        let called = AssertUnwindSafe(|| (self.caller)(context, payload));
        let answer = std::panic::catch_unwind(called).unwrap_or_else(|_panic| Err(panicked()))?;
        Ok(Box::pin(async move {
            AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|_panic| Err(panicked()))
        }))
    }
}

fn panicked() -> ApiError {
    error!("an exported function panicked");
    ApiError::new("internal error")
}

/// A call's arguments, each as its text.
pub(super) type Named<'a> = HashMap<String, &'a RawValue>;

fn named(payload: &Payload) -> Result<Named<'_>, ApiError> {
    let first = payload.args().next().filter(|first| first.starts_with('{'));
    let first = first.ok_or_else(|| ApiError::new("the arguments are missing"))?;
    Ok(serde_json::from_str(first)?)
}

/// The values in the order of their names, what is missing as null: for a tuple with as many places
/// as there are names, or, for one name, what stands for it.
pub(super) fn in_order(named: &Named<'_>, names: &[String]) -> String {
    let values = names.iter().map(|name| named.get(name).map_or("null", |value| value.get()));
    values.collect::<Vec<_>>().join(",")
}

/// One object of those that are there: for a struct whose [`fields`] are the arguments.
pub(super) fn as_object(named: &Named<'_>, names: &[String]) -> String {
    let fields = names.iter().filter_map(|name| {
        let value = named.get(name)?;
        Some(format!("{}:{}", Value::from(name.as_str()), value.get()))
    });
    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
}

/// The names of a struct's fields; none of anything else.
pub(super) fn fields<A: DeserializeOwned>() -> Vec<String> {
    let mut fields = &[][..];
    // It learns what it is asked for, and then has nothing to give.
    let _ = A::deserialize(Fields(&mut fields));
    fields.iter().map(|field| (*field).to_owned()).collect()
}

struct Fields<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Self::Error> {
        Err(de::Error::custom("only its fields are wanted"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        Err(de::Error::custom("only its fields are wanted"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Sum {
        #[serde(rename = "first")]
        _a: f64,
        _b: Option<f64>,
    }

    fn payload(json: &str) -> Payload {
        Payload::parse(json.into(), Vec::new()).unwrap()
    }

    #[test]
    fn fields_of_a_struct_are_its_arguments() {
        assert_eq!(fields::<Sum>(), ["first", "_b"]);
        assert!(fields::<(f64, f64)>().is_empty() && fields::<Value>().is_empty());
    }

    #[test]
    fn arguments_are_arranged_by_their_names() {
        let event = payload(r#"["a.b",{"b": {"x":[1]},"__stack":"…","a":"\u0022","b":2}]"#);
        let named = named(&event).unwrap();
        let names = ["a", "c", "b"].map(str::to_owned);
        assert_eq!(in_order(&named, &names), r#""\u0022",null,2"#);
        assert_eq!(as_object(&named, &names), r#"{"a":"\u0022","b":2}"#);
    }

    #[test]
    fn arguments_that_are_no_object_are_an_error() {
        for json in [r#"["a.b"]"#, r#"["a.b",null]"#, r#"["a.b",[1]]"#, r#"["a.b","{"]"#] {
            let error = named(&payload(json)).unwrap_err();
            assert_eq!(error.message, "the arguments are missing", "{json}");
        }
    }
}
