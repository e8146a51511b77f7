//! What the code of our macros wraps, so that the compiler chooses by a type what is done with it.
//!
//! A macro cannot see types. It writes method calls on a reference to a reference to a wrapper, and
//! the compiler takes the first of several traits whose bounds hold, the one with most references
//! before the others.

use std::marker::PhantomData;

/// A parameter of this type.
pub struct Parameter<T>(PhantomData<T>);

impl<T> Parameter<T> {
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Default for Parameter<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// What a function or a handler returned.
pub struct Returned<'a, T>(pub &'a T);
