//! HTTP requests of the embedding application that are forwarded to a route.

use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::error::{Failure, RouteError};
use super::request::Request;
use super::{Routes, decode};
use crate::socketio::Payload;

/// Limits of requests that come by HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// How long a route may take to respond, before the request is answered with 504; and a body to
    /// arrive, before it is answered with 408.
    pub timeout: Duration,
    /// A longer body is answered with 413.
    pub max_body_bytes: usize,
}

impl Default for HttpLimits {
    /// 30 seconds, and a million bytes as for Socket.IO's packets.
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), max_body_bytes: 1_000_000 }
    }
}

/// The named parts of a request's path. Whoever forwards a request by hand may put them into its
/// extensions; a [`ForwardLayer`](super::ForwardLayer) does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(Vec<(String, String)>);

impl Params {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|(known, value)| (known == name).then_some(&**value))
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Params {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(params: I) -> Self {
        Self(params.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl From<&matchit::Params<'_, '_>> for Params {
    fn from(params: &matchit::Params<'_, '_>) -> Self {
        params.iter().map(|(name, value)| (name, decode(value))).collect()
    }
}

/// The HTTP side of a request.
pub(super) struct HttpCall {
    pub(super) routes: Routes,
    pub(super) parts: Parts,
    /// Until it has been answered.
    answer: Mutex<Option<oneshot::Sender<Answer>>>,
}

type Answer = Response<Full<Bytes>>;

impl HttpCall {
    /// Answers as `res.json` of Express 3 does.
    pub(super) fn respond(&self, args: &Payload) -> Result<(), RouteError> {
        let response = json_response(args)?;
        self.answer(response);
        Ok(())
    }

    pub(super) fn fail(&self, status: StatusCode, message: &str) {
        self.answer(failure(status, message));
    }

    /// The first answer counts; if the client has gone, none does.
    fn answer(&self, answer: Answer) {
        let waiting = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waiting) = waiting {
            let _ = waiting.send(answer);
        }
    }
}

impl Routes {
    /// Runs a route for an HTTP request, and gives the response that it makes by
    /// [`respond`](super::RequestIo::respond). Its data are the body's JSON, or `{}` if there is no
    /// body; its session is the one in the request's extensions.
    ///
    /// Answered without the route are a name that no route has (404), a body that is no JSON (400),
    /// says so (415), is too long (413) or does not arrive (408); a route that fails (500, or what
    /// [`RouteError::status`] says), or does not respond in time or at all (504). The body of an
    /// answer that is no success is `{"error": {"message"}}`. A route goes on when its client has
    /// gone or has been answered.
    pub async fn forward<B>(&self, request: http::Request<B>, route: &str) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
    {
        let Some(found) = self.core.router.find(route) else {
            let missing = RouteError::Missing(route.to_owned());
            return failure(missing.status(), &missing.message());
        };
        let limits = self.core.limits;
        let deadline = Instant::now() + limits.timeout;
        let (parts, body) = request.into_parts();
        let event = match timeout_at(deadline, read(&parts.headers, body, limits)).await {
            Ok(Ok(event)) => event,
            Ok(Err((status, message))) => return failure(status, message),
            Err(_elapsed) => {
                return failure(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time");
            }
        };
        let (answer, answered) = oneshot::channel();
        let call = HttpCall { routes: self.clone(), parts, answer: Mutex::new(Some(answer)) };
        let request = Request::of_http(self.core.clone(), route, event, call);
        self.io.cluster().spawn(request.serve(found));
        match timeout_at(deadline, answered).await {
            Ok(Ok(response)) => response,
            // Nobody is left who could.
            Ok(Err(_dropped)) => {
                failure(StatusCode::GATEWAY_TIMEOUT, "the route ended without a response")
            }
            Err(_elapsed) => {
                failure(StatusCode::GATEWAY_TIMEOUT, "the route did not respond in time")
            }
        }
    }
}

type Refused = (StatusCode, &'static str);

/// A body's JSON as the one argument of an event.
async fn read<B>(headers: &HeaderMap, body: B, limits: HttpLimits) -> Result<Payload, Refused>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
{
    let limited = Limited::new(body, limits.max_body_bytes);
    let body = limited.collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            (StatusCode::PAYLOAD_TOO_LARGE, "the body is too long")
        } else {
            (StatusCode::BAD_REQUEST, "the body broke off")
        }
    })?;
    let body = body.to_bytes();
    if body.is_empty() {
        return Ok(Payload::event("", "{}", Vec::new()));
    }
    // A page of another origin can send anything else without asking.
    if !is_json(headers) {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body should be application/json"));
    }
    one_argument(&body).ok_or((StatusCode::BAD_REQUEST, "the body is no JSON"))
}

/// By the rules of packets: what a route passes on reaches clients as it came.
fn one_argument(body: &[u8]) -> Option<Payload> {
    let text = std::str::from_utf8(body).ok()?;
    let event = Payload::parse(format!(r#"["",{text}]"#).into(), Vec::new()).ok()?;
    // A comma between values would make several of them.
    (event.args().count() == 1).then_some(event)
}

/// `application/json`, or a type that ends in `+json`.
fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    let essence = essence.trim().to_ascii_lowercase();
    essence == "application/json"
        || essence.starts_with("application/") && essence.ends_with("+json")
}

/// One argument is the body, and none is `null`. Of two, one is the status, the second if it is a
/// number; more than two are as good as the first.
fn json_response(args: &Payload) -> Result<Answer, RouteError> {
    if !args.attachments.is_empty() {
        return Err(RouteError::Response);
    }
    let elements: Vec<&str> = args.elements().collect();
    match elements[..] {
        [body, status] if status.parse::<f64>().is_ok() => Ok(answer(code(status)?, body)),
        [status, body] => Ok(answer(code(status)?, body)),
        [] => Ok(answer(StatusCode::OK, "null")),
        [body, ..] => Ok(answer(StatusCode::OK, body)),
    }
}

/// A final status: what comes before one is the HTTP server's to say.
fn code(status: &str) -> Result<StatusCode, RouteError> {
    let code = status.parse().ok().and_then(|code: u16| StatusCode::from_u16(code).ok());
    code.filter(|code| !code.is_informational()).ok_or(RouteError::Response)
}

fn failure(status: StatusCode, message: &str) -> Answer {
    answer(status, &serde_json::to_string(&Failure::new(message)).expect("text is JSON"))
}

fn answer(status: StatusCode, json: &str) -> Answer {
    let is_bodiless = [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED]
        .contains(&status);
    let body = if is_bodiless { Bytes::new() } else { Bytes::copy_from_slice(json.as_bytes()) };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    if !is_bodiless {
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, json);
    }
    response
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::socketio::{Binary, to_payload};

    async fn response(args: impl serde::Serialize) -> Result<(u16, String), RouteError> {
        let response = json_response(&to_payload(None, &args).unwrap())?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Ok((status, String::from_utf8(body.to_vec()).unwrap()))
    }

    #[tokio::test]
    async fn responses_are_those_of_express_3() {
        assert_eq!(response(json!({"a": 1})).await.unwrap(), (200, r#"{"a":1}"#.to_owned()));
        assert_eq!(response(()).await.unwrap(), (200, "null".to_owned()));
        assert_eq!(response((201, "made")).await.unwrap(), (201, r#""made""#.to_owned()));
        assert_eq!(response(("made", 201)).await.unwrap(), (201, r#""made""#.to_owned()));
        assert_eq!(response((7, 404)).await.unwrap(), (404, "7".to_owned()));
        assert_eq!(response((1, 2, 3)).await.unwrap(), (200, "1".to_owned()));
        assert_eq!(response((204, "")).await.unwrap(), (204, String::new()));
    }

    #[tokio::test]
    async fn what_is_no_response_is_an_error() {
        assert!(response(("a", "b")).await.is_err());
        assert!(response((99, "b")).await.is_err());
        assert!(response((101, "b")).await.is_err());
        assert!(response((20.5, "b")).await.is_err());
        assert!(response((Binary(Bytes::from_static(b"x")),)).await.is_err());
    }

    async fn body(content_type: &str, body: &'static str) -> Result<String, u16> {
        let mut headers = HeaderMap::new();
        if !content_type.is_empty() {
            headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        }
        let limits = HttpLimits { max_body_bytes: 20, ..HttpLimits::default() };
        let read = read(&headers, Full::new(Bytes::from_static(body.as_bytes())), limits).await;
        read.map(|event| event.args().text().to_owned()).map_err(|(status, _)| status.as_u16())
    }

    #[tokio::test]
    async fn bodies_are_json_or_refused() {
        assert_eq!(body("application/json", r#"{"a":1}"#).await, Ok(r#"{"a":1}"#.to_owned()));
        assert_eq!(body("Application/problem+json; x=y", "[1]").await, Ok("[1]".to_owned()));
        assert_eq!(body("", "").await, Ok("{}".to_owned()));
        assert_eq!(body("", "{}").await, Err(415));
        assert_eq!(body("text/plain", "{}").await, Err(415));
        assert_eq!(body("application/json", "{").await, Err(400));
        for no_json in ["1,2", " ", "1]", "],[1", "\u{feff}1", "[1,]"] {
            assert_eq!(body("application/json", no_json).await, Err(400), "{no_json:?}");
        }
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(one_argument(deep(126).as_bytes()).is_some());
        assert!(one_argument(deep(127).as_bytes()).is_none(), "deeper than any packet");
        assert_eq!(body("application/json", "\"more than twenty bytes\"").await, Err(413));
    }
}
