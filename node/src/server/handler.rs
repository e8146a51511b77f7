//! Handlers: async functions of extractors, and how they are run.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use futures_util::FutureExt as _;
use tracing::{debug, error};

use super::extract::{Context, ExtractError, FromContext};
use crate::adapter::Cluster;
use crate::metrics;

pub(crate) type HandlerFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A handler whose extractors are hidden.
pub(crate) type BoxHandler =
    Arc<dyn Fn(&Context<'_>) -> Result<HandlerFuture, ExtractError> + Send + Sync>;

/// An async function of up to six extractors ([`FromContext`]).
pub trait Handler<Args>: Send + Sync + 'static {
    fn call(&self, context: &Context<'_>) -> Result<HandlerFuture, ExtractError>;
}

macro_rules! handler {
    ($($arg:ident),*) => {
        impl<F, Fut, $($arg),*> Handler<($($arg,)*)> for F
        where
            F: Fn($($arg),*) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = ()> + Send + 'static,
            $($arg: FromContext,)*
        {
            fn call(&self, _context: &Context<'_>) -> Result<HandlerFuture, ExtractError> {
                Ok(Box::pin(self($($arg::from_context(_context)?),*)))
            }
        }
    };
}

handler!();
handler!(A);
handler!(A, B);
handler!(A, B, C);
handler!(A, B, C, D);
handler!(A, B, C, D, E);
handler!(A, B, C, D, E, G);

pub(crate) fn boxed<Args>(handler: impl Handler<Args>) -> BoxHandler {
    Arc::new(move |context| handler.call(context))
}

/// Calls a handler and runs it in place as far as it goes at once; the rest goes on beside.
///
/// So the events of one client start in the order in which they came, and a handler that waits
/// holds up nobody.
pub(crate) fn run(handler: &BoxHandler, context: &Context<'_>, cluster: &Cluster) {
    let called = catch_unwind(AssertUnwindSafe(|| handler(context)));
    match called {
        Ok(Ok(future)) => run_in_place(future, cluster),
        Ok(Err(error)) => {
            metrics::EVENTS_REFUSED.add(1);
            debug!(socket = %context.socket.id(), %error, "event does not fit its handler");
        }
        Err(_) => error!("handler panicked"),
    }
}

/// The same for a handler that needs no extractors.
pub(crate) fn call_in_place(call: impl FnOnce() -> HandlerFuture, cluster: &Cluster) {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(future) => run_in_place(future, cluster),
        Err(_) => error!("handler panicked"),
    }
}

pub(crate) fn run_in_place(mut future: HandlerFuture, cluster: &Cluster) {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let poll = || future.as_mut().poll(&mut context);
    match catch_unwind(AssertUnwindSafe(poll)) {
        Ok(Poll::Ready(())) => {}
        // Its task polls it again at once, which registers a waker that wakes it.
        Ok(Poll::Pending) => cluster.spawn(async move {
            if AssertUnwindSafe(future).catch_unwind().await.is_err() {
                error!("handler panicked");
            }
        }),
        Err(_) => error!("handler panicked"),
    }
}
