//! Files served over HTTP beside Engine.IO: the client's bundle, and pages of the application.

use std::io;
use std::path::Path;

use bytes::Bytes;
use hashbrown::HashMap;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

/// What is served, by path. Read once, at start.
#[derive(Clone, Debug, Default)]
pub struct Pages(HashMap<String, Page>);

#[derive(Clone, Debug)]
struct Page {
    body: Bytes,
    content_type: HeaderValue,
    /// With a version clients may keep the page, and ask whether it is still the same.
    etag: Option<HeaderValue>,
}

/// The files of npm's `socket.io` that the official server serves.
const CLIENT_FILES: [&str; 8] = [
    "socket.io.js",
    "socket.io.js.map",
    "socket.io.min.js",
    "socket.io.min.js.map",
    "socket.io.esm.min.js",
    "socket.io.esm.min.js.map",
    "socket.io.msgpack.min.js",
    "socket.io.msgpack.min.js.map",
];

impl Pages {
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves `body` at exactly `path`.
    pub fn with_page(
        mut self,
        path: &str,
        content_type: &'static str,
        body: impl Into<Bytes>,
    ) -> Self {
        let content_type = HeaderValue::from_static(content_type);
        self.0.insert(path.to_owned(), Page { body: body.into(), content_type, etag: None });
        self
    }

    /// Serves the bundles in `client_dir` (the directory `client-dist` of npm's `socket.io`) below
    /// `path`, which is Engine.IO's.
    pub fn with_client_bundle(mut self, path: &str, client_dir: &Path) -> io::Result<Self> {
        let version = bundle_version(&std::fs::read(client_dir.join(CLIENT_FILES[0]))?)?;
        let etag = HeaderValue::try_from(format!("\"{version}\"")).map_err(io::Error::other)?;
        for name in CLIENT_FILES {
            // Older versions lack some of them.
            let body = match std::fs::read(client_dir.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                read => Bytes::from(read?),
            };
            let content_type = HeaderValue::from_static(if name.ends_with(".map") {
                "application/json; charset=utf-8"
            } else {
                "application/javascript; charset=utf-8"
            });
            let page = Page { body, content_type, etag: Some(etag.clone()) };
            self.0.insert(format!("{}/{name}", path.trim_end_matches('/')), page);
        }
        Ok(self)
    }

    /// The page at `path`, or that the client's copy is still good.
    pub(crate) fn respond(&self, path: &str, headers: &HeaderMap) -> Option<Response<Full<Bytes>>> {
        let page = self.0.get(path)?;
        if let Some(etag) = &page.etag
            && headers.get(header::IF_NONE_MATCH).is_some_and(|known| is_same(known, etag))
        {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Some(response);
        }
        let mut response = Response::new(Full::new(page.body.clone()));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, page.content_type.clone());
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=0"));
        if let Some(etag) = &page.etag {
            headers.insert(header::ETAG, etag.clone());
        }
        Some(response)
    }
}

/// A proxy that compresses makes a tag weak.
fn is_same(known: &HeaderValue, etag: &HeaderValue) -> bool {
    known.as_bytes().strip_prefix(b"W/").unwrap_or(known.as_bytes()) == etag.as_bytes()
}

/// From the comment at the head of the bundle: `Socket.IO v4.8.4`.
fn bundle_version(bundle: &[u8]) -> io::Result<String> {
    let head = String::from_utf8_lossy(&bundle[..bundle.len().min(200)]);
    let version =
        head.split_once("Socket.IO v").and_then(|(_, rest)| rest.split_whitespace().next());
    version.map(str::to_owned).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "socket.io.js does not name its version")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages() -> Pages {
        let dir = tempfile::tempdir().unwrap();
        let bundle = "/*!\n * Socket.IO v4.8.4\n * (c) 2014-2025\n */\n";
        std::fs::write(dir.path().join("socket.io.js"), bundle).unwrap();
        std::fs::write(dir.path().join("socket.io.js.map"), "{}").unwrap();
        let pages = Pages::new().with_page("/", "text/html; charset=utf-8", "<p>");
        pages.with_client_bundle("/socket.io", dir.path()).unwrap()
    }

    fn respond(path: &str, if_none_match: Option<&'static str>) -> Option<Response<Full<Bytes>>> {
        let mut headers = HeaderMap::new();
        if let Some(tag) = if_none_match {
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static(tag));
        }
        pages().respond(path, &headers)
    }

    #[test]
    fn bundle_is_served_as_the_official_server_does() {
        let response = respond("/socket.io/socket.io.js", None).unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["etag"], "\"4.8.4\"");
        assert_eq!(response.headers()["cache-control"], "public, max-age=0");
        assert_eq!(response.headers()["content-type"], "application/javascript; charset=utf-8");
        let map = respond("/socket.io/socket.io.js.map", None).unwrap();
        assert_eq!(map.headers()["content-type"], "application/json; charset=utf-8");
    }

    #[test]
    fn known_version_is_not_sent_again() {
        for tag in ["\"4.8.4\"", "W/\"4.8.4\""] {
            let response = respond("/socket.io/socket.io.js", Some(tag)).unwrap();
            assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
        }
        let response = respond("/socket.io/socket.io.js", Some("\"4.8.3\"")).unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }

    #[test]
    fn pages_are_found_by_their_exact_path() {
        assert!(respond("/", None).is_some());
        assert!(respond("/other", None).is_none());
        assert!(respond("/socket.io/package.json", None).is_none());
        assert!(respond("/socket.io/socket.io.min.js", None).is_none());
    }

    #[test]
    fn directory_without_a_bundle_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Pages::new().with_client_bundle("/socket.io", dir.path()).is_err());
        std::fs::write(dir.path().join("socket.io.js"), "alert(1)").unwrap();
        assert!(Pages::new().with_client_bundle("/socket.io", dir.path()).is_err());
    }
}
