//! What a controller is, as the attribute describes it.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::call::Call;
use super::error::Error;
use super::sequence::Output;

/// A type bound to a namespace, one instance for each of its sockets.
///
/// The attribute [`controller`](super::controller) implements it.
pub trait Controller: Send + Sync + Sized + 'static {
    /// The type's name, for logs and errors.
    const NAME: &'static str;

    /// Where it is bound unless it is told otherwise.
    fn namespace() -> Matcher {
        Matcher::from("/")
    }

    /// The name under which the server knows its namespace.
    fn namespace_name() -> Option<&'static str> {
        None
    }

    /// Its handlers, in their order.
    fn description() -> Description<Self>;

    /// An instance for the socket of `call`, which has just connected.
    fn create(call: &Call<'_>) -> Result<Created<Self>, Error>;
}

pub type Created<C> = Pin<Box<dyn Future<Output = Result<C, Error>> + Send>>;
pub type Invoked = Pin<Box<dyn Future<Output = Result<Output, Error>> + Send>>;

/// A controller's handlers.
pub struct Description<C> {
    pub connect: Vec<Method<C>>,
    pub subscriptions: Vec<Subscription<C>>,
    pub disconnect: Vec<Method<C>>,
}

/// One handler.
pub struct Method<C> {
    pub name: &'static str,
    /// Takes what it needs from the call at once, so that the future borrows nothing of it.
    pub invoke: fn(Arc<C>, &Call<'_>) -> Result<Invoked, Error>,
}

// Not derived: a method is copied whatever its controller is.
impl<C> Clone for Method<C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Method<C> {}

/// A handler, and the events that it is for.
pub struct Subscription<C> {
    pub events: Vec<Matcher>,
    pub method: Method<C>,
}

/// Names one event or one namespace, or by a regular expression (of the crate `regex`) several.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Matcher {
    Name(Cow<'static, str>),
    Pattern(Cow<'static, str>),
}

impl Matcher {
    /// All whose names match; anywhere in them, unless the pattern says `^` and `$`.
    pub fn pattern(pattern: impl Into<Cow<'static, str>>) -> Self {
        Self::Pattern(pattern.into())
    }
}

impl From<&'static str> for Matcher {
    fn from(name: &'static str) -> Self {
        Self::Name(name.into())
    }
}

impl From<String> for Matcher {
    fn from(name: String) -> Self {
        Self::Name(name.into())
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name:?}"),
            Self::Pattern(pattern) => write!(f, "/{pattern}/"),
        }
    }
}
