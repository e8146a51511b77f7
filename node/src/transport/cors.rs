//! Which web pages of other origins may poll (cross-origin resource sharing).

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

/// The origins that are allowed; without any, browsers allow none, and no header is sent.
#[derive(Clone, Debug)]
pub(crate) enum Cors {
    Off,
    Any,
    Listed(Box<[String]>),
}

impl Cors {
    /// From the setting `cors_origins`.
    pub(crate) fn new(origins: &[String]) -> Self {
        if origins.is_empty() {
            Self::Off
        } else if origins.iter().any(|origin| origin == "*") {
            Self::Any
        } else {
            Self::Listed(origins.into())
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        !matches!(self, Self::Off)
    }

    /// What the browser asks before it sends a request that is not a simple one.
    pub(crate) fn preflight(&self, request: &HeaderMap) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        self.allow(request, headers);
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET,HEAD,PUT,PATCH,POST,DELETE"),
        );
        headers
            .append(header::VARY, HeaderValue::from_name(header::ACCESS_CONTROL_REQUEST_HEADERS));
        if let Some(names) = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        response
    }

    /// Adds to a response's `headers` whether the page that sent `request` may read it.
    pub(crate) fn allow(&self, request: &HeaderMap, headers: &mut HeaderMap) {
        match self {
            Self::Off => {}
            Self::Any => {
                let any = HeaderValue::from_static("*");
                headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
            }
            Self::Listed(origins) => {
                headers.append(header::VARY, HeaderValue::from_name(header::ORIGIN));
                if let Some(origin) = request.get(header::ORIGIN)
                    && origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
                {
                    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                }
            }
        }
    }
}
