//! Files served over HTTP beside Engine.IO: the client's bundle, and pages of the application.

use std::io;
use std::path::Path;
use std::sync::OnceLock;

use bytes::Bytes;
use hashbrown::HashMap;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use super::compression::{Encoding, encode};

/// What is served, by path. Read once, at start.
#[derive(Clone, Debug, Default)]
pub struct Pages(HashMap<String, Page>);

#[derive(Clone, Debug)]
struct Page {
    body: Bytes,
    content_type: HeaderValue,
    /// With a version clients may keep the page, and ask whether it is still the same.
    etag: Option<HeaderValue>,
    /// Made when a client first wants it.
    gzip: OnceLock<Bytes>,
    deflate: OnceLock<Bytes>,
}

impl Page {
    fn new(body: Bytes, content_type: HeaderValue, etag: Option<HeaderValue>) -> Self {
        Self { body, content_type, etag, gzip: OnceLock::new(), deflate: OnceLock::new() }
    }

    fn encoded(&self, encoding: Encoding) -> Bytes {
        let made = match encoding {
            Encoding::Gzip => &self.gzip,
            Encoding::Deflate => &self.deflate,
        };
        made.get_or_init(|| encode(encoding, LEVEL, &self.body)).clone()
    }
}

/// zlib's own default.
const LEVEL: u32 = 6;

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
        self.0.insert(path.to_owned(), Page::new(body.into(), content_type, None));
        self
    }

    /// Serves the bundles in `client_dir` (the directory `dist` of npm's `socket.io-client`) below
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
            let page = Page::new(body, content_type, Some(etag.clone()));
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
        let encoding = Encoding::choose(headers).filter(|_| page.etag.is_some());
        let body = encoding.map_or_else(|| page.body.clone(), |encoding| page.encoded(encoding));
        let mut response = Response::new(Full::new(body));
        let headers = response.headers_mut();
        if let Some(encoding) = encoding {
            let encoding = HeaderValue::from_static(encoding.as_str());
            headers.insert(header::CONTENT_ENCODING, encoding);
        }
        headers.insert(header::CONTENT_TYPE, page.content_type.clone());
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=0"));
        if let Some(etag) = &page.etag {
            headers.insert(header::ETAG, etag.clone());
            // Or a cache would give it to clients that cannot read it.
            headers.insert(header::VARY, HeaderValue::from_name(header::ACCEPT_ENCODING));
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
    use std::io::Read as _;

    use http_body_util::BodyExt as _;

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

    #[tokio::test]
    async fn bundle_is_compressed_as_the_client_likes_it() {
        let pages = pages();
        let plain = pages.respond("/socket.io/socket.io.js", &HeaderMap::new()).unwrap();
        assert!(!plain.headers().contains_key("content-encoding"));
        assert_eq!(plain.headers()["vary"], "accept-encoding");
        let plain = plain.into_body().collect().await.unwrap().to_bytes();
        // The second time it is there already.
        for _ in 0..2 {
            let mut headers = HeaderMap::new();
            headers.insert("accept-encoding", HeaderValue::from_static("br, gzip"));
            let response = pages.respond("/socket.io/socket.io.js", &headers).unwrap();
            assert_eq!(response.headers()["content-encoding"], "gzip");
            assert_eq!(response.headers()["etag"], "\"4.8.4\"");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let mut text = String::new();
            flate2::read::GzDecoder::new(&*body).read_to_string(&mut text).unwrap();
            assert_eq!(text.as_bytes(), plain);
        }
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
