//! What layers have in common that answer some requests themselves, and pass all others on.

use bytes::Bytes;
use futures_util::future::{self, BoxFuture, MapOk, TryFuture};
use futures_util::{FutureExt as _, TryFutureExt as _};
use http::Response;
use http_body_util::{Either, Full};

/// A body of the layer's own, or of the service behind it.
pub type EitherBody<R> = Either<Full<Bytes>, R>;

type Ours<R, E> = BoxFuture<'static, Result<Response<EitherBody<R>>, E>>;
type Theirs<F, R> = MapOk<F, fn(Response<R>) -> Response<EitherBody<R>>>;

/// The answer of the layer, or of the service behind it, whose future is not boxed.
pub type EitherFuture<F, R, E> = future::Either<Ours<R, E>, Theirs<F, R>>;

/// The layer answers.
pub(crate) fn answer<F, R, E>(
    answer: impl Future<Output = Response<Full<Bytes>>> + Send + 'static,
) -> EitherFuture<F, R, E> {
    future::Either::Left(answer.map(|answer| Ok(answer.map(Either::Left))).boxed())
}

/// The service behind it answers.
pub(crate) fn pass<F, R, E>(passed: F) -> EitherFuture<F, R, E>
where
    F: TryFuture<Ok = Response<R>, Error = E>,
{
    let theirs: fn(Response<R>) -> _ = |response| response.map(Either::Right);
    future::Either::Right(passed.map_ok(theirs))
}
