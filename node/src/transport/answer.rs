//! What every answer of Engine.IO gets on its way out: compression, headers, and the word on a refusal.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;

use crate::engineio::{RequestError, query_parameter};
use crate::metrics;

use super::compression::{Encoding, compress_response};
use super::connections::Connections;
use super::hooks::{ConnectionError, ErrorContext, Forbidden, Hooks, head};
use super::listener::Transport;
use super::polling::Uncompressed;

/// What is kept of a request until its answer is there.
pub(crate) struct Asked {
    is_upgrade: bool,
    /// The first request of a connection, if it is let in.
    is_initial: bool,
    encoding: Option<Encoding>,
    is_explorer: bool,
    /// Only if a hook wants to see it.
    head: Option<Parts>,
}

impl Asked {
    pub(crate) fn new<B>(request: &Request<B>, is_upgrade: bool, hooks: &Hooks) -> Self {
        let query = request.uri().query().unwrap_or_default();
        let agent = request.headers().get(header::USER_AGENT);
        let agent = agent.and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        Self {
            is_upgrade,
            is_initial: query_parameter(query, "sid").is_none_or(|sid| sid.is_empty()),
            encoding: Encoding::choose(request.headers()),
            is_explorer: agent.contains(";MSIE") || agent.contains("Trident/"),
            head: hooks.want_head().then(|| head(request)),
        }
    }
}

impl Transport {
    /// Completes the answer to a request that was served.
    pub(super) async fn complete(
        &self,
        mut response: Response<Full<Bytes>>,
        asked: &Asked,
        hooks: &Hooks,
    ) -> Response<Full<Bytes>> {
        match response.status() {
            StatusCode::OK => {}
            StatusCode::SWITCHING_PROTOCOLS => {
                asked.edit_headers(&mut response, hooks);
                return response;
            }
            _ => return response,
        }
        if asked.is_explorer {
            // It would take packets for an attack.
            response.headers_mut().insert(header::X_XSS_PROTECTION, HeaderValue::from_static("0"));
        }
        let is_compressible = response.extensions().get::<Uncompressed>().is_none();
        if let (Some(config), Some(encoding)) = (self.config.http_compression, asked.encoding)
            && is_compressible
        {
            response = compress_response(config, encoding, response).await;
        }
        asked.edit_headers(&mut response, hooks);
        response
    }

    /// Answers a request that cannot be served, and tells the application.
    pub(super) fn refuse(
        &self,
        refused: Refused,
        asked: &Asked,
        hooks: &Hooks,
    ) -> Response<Full<Bytes>> {
        let Refused { code, context, headers } = refused;
        count(code);
        let message = match &context {
            Some(ErrorContext::Forbidden { message }) => message.clone(),
            _ => None,
        };
        if let Some(request) = asked.head.clone().filter(|_| hooks.want_errors()) {
            let context =
                context.unwrap_or_else(|| ErrorContext::of(code, &request, &self.connections));
            hooks.tell(&ConnectionError { request, code, message: code.to_string(), context });
        }
        let message = message.filter(|message| !message.is_empty());
        let mut response = refusal(code, message, asked.is_upgrade);
        response.headers_mut().extend(headers);
        response
    }
}

fn count(code: RequestError) {
    let errors = &metrics::PROTOCOL_ERRORS;
    let counter = match code {
        RequestError::UnknownTransport => &errors.unknown_transport,
        RequestError::UnknownSid => &errors.unknown_sid,
        RequestError::BadHandshakeMethod => &errors.bad_handshake_method,
        RequestError::BadRequest => &errors.bad_request,
        RequestError::Forbidden => &errors.forbidden,
        RequestError::UnsupportedProtocolVersion => &errors.unsupported_version,
    };
    counter.add(1);
}

/// Why a request is refused.
pub(crate) struct Refused {
    code: RequestError,
    /// What the request itself does not show.
    context: Option<ErrorContext>,
    /// What the answer has besides.
    headers: HeaderMap,
}

impl From<RequestError> for Refused {
    fn from(code: RequestError) -> Self {
        Self { code, context: None, headers: HeaderMap::new() }
    }
}

impl From<Forbidden> for Refused {
    fn from(forbidden: Forbidden) -> Self {
        let context = ErrorContext::Forbidden { message: forbidden.message };
        Self { code: RequestError::Forbidden, context: Some(context), headers: HeaderMap::new() }
    }
}

impl Refused {
    pub(crate) fn middleware_failure() -> Self {
        let context = Some(ErrorContext::MiddlewareFailure);
        Self { code: RequestError::BadRequest, context, headers: HeaderMap::new() }
    }

    /// The same, with headers for its answer.
    pub(crate) fn with_headers(self, headers: HeaderMap) -> Self {
        Self { headers, ..self }
    }
}

impl Asked {
    fn edit_headers(&self, response: &mut Response<Full<Bytes>>, hooks: &Hooks) {
        if let Some(head) = &self.head {
            hooks.edit(response.headers_mut(), head, self.is_initial);
        }
    }
}

impl ErrorContext {
    /// Reads from the request what made it fail.
    fn of(code: RequestError, request: &Parts, connections: &Connections) -> Self {
        let query = request.uri.query().unwrap_or_default();
        let parameter = |name| query_parameter(query, name).map(|value| value.into_owned());
        let protocol = if parameter("EIO").as_deref() == Some("4") { 4 } else { 3 };
        match code {
            RequestError::UnknownTransport => {
                Self::UnknownTransport { transport: parameter("transport") }
            }
            RequestError::UnknownSid => {
                Self::UnknownSid { sid: parameter("sid").unwrap_or_default() }
            }
            RequestError::BadHandshakeMethod => {
                Self::BadHandshakeMethod { method: request.method.to_string() }
            }
            RequestError::BadRequest => {
                let sid = parameter("sid").filter(|sid| !sid.is_empty());
                let transport = parameter("transport").unwrap_or_default();
                match sid.and_then(|sid| connections.transport_of(&sid)) {
                    None => Self::TransportHandshakeError,
                    Some((previous, _)) if previous.as_str() != transport => {
                        Self::TransportMismatch { transport, previous_transport: previous.as_str() }
                    }
                    Some((_, revision)) => match u8::from(revision) {
                        same if same == protocol => Self::TransportHandshakeError,
                        previous_protocol => Self::ProtocolMismatch { protocol, previous_protocol },
                    },
                }
            }
            RequestError::Forbidden => Self::Forbidden { message: None },
            RequestError::UnsupportedProtocolVersion => Self::UnsupportedProtocol { protocol },
        }
    }
}

/// The official server's answers: JSON to a request, plain text to a WebSocket.
pub(crate) fn refusal(
    error: RequestError,
    message: Option<String>,
    is_upgrade: bool,
) -> Response<Full<Bytes>> {
    let status = match error {
        RequestError::Forbidden if !is_upgrade => StatusCode::FORBIDDEN,
        _ => StatusCode::BAD_REQUEST,
    };
    let (body, content_type) = match message {
        None if is_upgrade => (error.to_string(), "text/html"),
        None => (error.to_json(), "application/json"),
        Some(message) if is_upgrade => (message, "text/html"),
        Some(message) => {
            let body = serde_json::json!({"code": error as u8, "message": message});
            (body.to_string(), "application/json")
        }
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if is_upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Adds headers to a response, which keeps those that it has.
pub(crate) fn add_headers(response: &mut Response<Full<Bytes>>, headers: HeaderMap) {
    let own = response.headers_mut();
    if own.is_empty() {
        *own = headers;
        return;
    }
    for name in headers.keys() {
        let is_list = *name == header::VARY || *name == header::SET_COOKIE;
        if is_list || !own.contains_key(name) {
            for value in headers.get_all(name) {
                own.append(name, value.clone());
            }
        }
    }
}
