//! Compression of HTTP responses, in what the client accepts of gzip and deflate.

use std::cmp::Reverse;
use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::{BodyExt as _, Collected, Full};
use hyper::body::Body as _;
use smallvec::SmallVec;

use crate::engineio::CompressionConfig;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Gzip,
    /// zlib's format, which HTTP calls so (RFC 9110, section 8.4.1.2).
    Deflate,
}

impl Encoding {
    /// What the client likes best, and of equals what it names first (npm's `negotiator`).
    pub(crate) fn choose(headers: &HeaderMap) -> Option<Self> {
        let lines = headers.get_all(header::ACCEPT_ENCODING).into_iter();
        let lines = lines.filter_map(|line| line.to_str().ok());
        let accepted: SmallVec<[_; 8]> =
            lines.flat_map(|line| line.split(',')).map(parse).collect();
        // A name counts more than a star, and what stands first more than what follows.
        let rank = |encoding: Self| {
            let named = |wanted: &str| {
                let mut places = accepted.iter().enumerate();
                let found = places.find(|(_, (name, _))| name.eq_ignore_ascii_case(wanted));
                found.map(|(place, &(_, quality))| (quality, wanted != "*", Reverse(place)))
            };
            let named = named(encoding.as_str()).or_else(|| named("*"));
            named.filter(|&(quality, ..)| quality > 0.0)
        };
        let (gzip, deflate) = (rank(Self::Gzip), rank(Self::Deflate));
        let best = if deflate > gzip { Self::Deflate } else { Self::Gzip };
        gzip.or(deflate).map(|_| best)
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }
}

/// From this length on, compressing would keep a thread from its other clients for too long.
const ASIDE_FROM_BYTES: usize = 64 * 1024;

/// Compresses a response, if it is long enough.
pub(crate) async fn compress_response(
    config: CompressionConfig,
    encoding: Encoding,
    response: Response<Full<Bytes>>,
) -> Response<Full<Bytes>> {
    let len = response.body().size_hint().lower();
    let is_encoded = response.headers().contains_key(header::CONTENT_ENCODING);
    if is_encoded || len < config.threshold_bytes as u64 {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let compress = move || encode(encoding, config.level, &whole(body));
    let body = if len < ASIDE_FROM_BYTES as u64 {
        compress()
    } else {
        let compressed = tokio::task::spawn_blocking(compress).await;
        compressed.expect("compressing does not panic, and nobody cancels it")
    };
    let encoding = HeaderValue::from_static(encoding.as_str());
    head.headers.insert(header::CONTENT_ENCODING, encoding);
    Response::from_parts(head, Full::new(body))
}

/// The bytes of a body that has them all.
fn whole(body: Full<Bytes>) -> Bytes {
    let collected = body.collect().now_or_never().expect("nothing of it is still to come");
    collected.map_or_else(|never| match never {}, Collected::to_bytes)
}

pub(crate) fn encode(encoding: Encoding, level: u32, body: &[u8]) -> Bytes {
    let level = Compression::new(level);
    let encoded = match encoding {
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), level);
            encoder.write_all(body).and_then(|()| encoder.finish())
        }
        Encoding::Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(body).and_then(|()| encoder.finish())
        }
    };
    encoded.expect("writing to memory does not fail").into()
}

/// An encoding and its quality, as in `gzip;q=0.5`.
fn parse(accepted: &str) -> (&str, f32) {
    let mut parts = accepted.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let quality = parts.find_map(|part| part.strip_prefix("q="));
    // What is no number is no wish.
    let quality = quality.map_or(1.0, |quality| quality.trim().parse().unwrap_or(0.0));
    (name, quality)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::{GzDecoder, ZlibDecoder};

    use super::*;

    fn accepting(accepted: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, accepted.parse().unwrap());
        headers
    }

    #[test]
    fn client_chooses_the_encoding() {
        let (gzip, deflate) = (Some(Encoding::Gzip), Some(Encoding::Deflate));
        for (accepted, chosen) in [
            ("gzip, deflate, br, zstd", gzip),
            ("deflate, gzip", deflate),
            ("gzip;q=0.5, deflate;q=0.8", deflate),
            ("GZIP", gzip),
            ("deflate", deflate),
            ("*", gzip),
            ("*, deflate", deflate),
            ("gzip;q=0, *", deflate),
            ("br", None),
            ("identity", None),
            ("gzip;q=0", None),
            ("", None),
        ] {
            assert_eq!(Encoding::choose(&accepting(accepted)), chosen, "{accepted}");
        }
        assert_eq!(Encoding::choose(&HeaderMap::new()), None);
    }

    async fn compressed(body: &str, accepted: &str) -> (Option<String>, Vec<u8>) {
        let config = CompressionConfig::default();
        let response = Response::new(Full::from(body.to_owned()));
        let Some(encoding) = Encoding::choose(&accepting(accepted)) else {
            return (None, body.into());
        };
        let response = compress_response(config, encoding, response).await;
        let encoding = response.headers().get(header::CONTENT_ENCODING);
        let encoding = encoding.map(|encoding| encoding.to_str().unwrap().to_owned());
        (encoding, response.into_body().collect().await.unwrap().to_bytes().into())
    }

    #[tokio::test]
    async fn long_bodies_are_compressed_and_short_ones_are_not() {
        let short = "x".repeat(1023);
        assert_eq!(compressed(&short, "gzip").await, (None, short.clone().into_bytes()));
        assert_eq!(compressed(&short, "").await.0, None);
        // The last is long enough to be compressed aside.
        for len in [1024, 200_000] {
            let long = "abc,".repeat(len / 4);
            let mut text = String::new();
            let (encoding, bytes) = compressed(&long, "gzip").await;
            assert_eq!(encoding.as_deref(), Some("gzip"));
            GzDecoder::new(&*bytes).read_to_string(&mut text).unwrap();
            assert!(text == long && bytes.len() < long.len() / 4);

            let mut text = String::new();
            let (encoding, bytes) = compressed(&long, "deflate").await;
            assert_eq!(encoding.as_deref(), Some("deflate"));
            ZlibDecoder::new(&*bytes).read_to_string(&mut text).unwrap();
            assert!(text == long);
        }
    }
}
