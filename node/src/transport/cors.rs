//! Which web pages of other origins may poll (cross-origin resource sharing), as npm's `cors` says it.

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use regex::Regex;

use crate::engineio::{CorsConfig, EngineConfig, Origins, origin_pattern};

/// The answer to what browsers ask; without a policy they allow nothing, and no header is sent.
#[derive(Clone, Debug)]
pub(crate) struct Cors(Option<Policy>);

#[derive(Clone, Debug)]
struct Policy {
    origin: Origin,
    methods: HeaderValue,
    allowed_headers: Option<HeaderValue>,
    exposed_headers: Option<HeaderValue>,
    has_credentials: bool,
    max_age: Option<HeaderValue>,
    /// Preflights are answered with it here; otherwise Engine.IO answers them.
    preflight_status: Option<StatusCode>,
}

#[derive(Clone, Debug)]
enum Origin {
    Any,
    Reflected,
    Off,
    One(HeaderValue),
    Listed(Box<[Entry]>),
}

#[derive(Clone, Debug)]
enum Entry {
    Exact(String),
    Pattern(Regex),
}

/// What is to be said to one request.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) headers: HeaderMap,
    /// The request was but a question, and this answers it.
    pub(crate) preflight: Option<StatusCode>,
}

/// Decides over an origin in the application's stead; a request may have none.
pub(crate) type AllowOrigin = dyn Fn(Option<&str>) -> bool + Send + Sync;

impl Cors {
    pub(crate) fn new(config: &EngineConfig) -> Self {
        Self(config.cross_origin().as_ref().map(Policy::new))
    }

    /// `ask` is the application's own judgement, which replaces the configured origins.
    pub(crate) fn judge(
        &self,
        method: &Method,
        request: &HeaderMap,
        ask: Option<&AllowOrigin>,
    ) -> Verdict {
        match (&self.0, ask) {
            (None, None) => Verdict::default(),
            (Some(policy), ask) => policy.judge(method, request, ask),
            // Its other options have their defaults then.
            (None, ask) => Policy::new(&CorsConfig::default()).judge(method, request, ask),
        }
    }
}

impl Policy {
    /// From settings that were checked.
    fn new(config: &CorsConfig) -> Self {
        let max_age = config.max_age.map(|max_age| HeaderValue::from(max_age.as_secs()));
        let status = StatusCode::from_u16(config.options_success_status);
        let status = status.expect("the settings allow 200 to 299 only");
        Self {
            origin: Origin::new(&config.origin),
            methods: list(&config.methods).unwrap_or(HeaderValue::from_static("")),
            allowed_headers: list(&config.allowed_headers),
            exposed_headers: list(&config.exposed_headers),
            has_credentials: config.credentials,
            max_age,
            preflight_status: (!config.preflight_continue).then_some(status),
        }
    }

    fn judge(&self, method: &Method, request: &HeaderMap, ask: Option<&AllowOrigin>) -> Verdict {
        let mut verdict = Verdict::default();
        let origin = request.get(header::ORIGIN);
        let is_refused = ask.is_some_and(|ask| !ask(origin.and_then(|o| o.to_str().ok())));
        if is_refused || matches!((&self.origin, ask), (Origin::Off, None)) {
            // As if there were no policy; a preflight is then no request that anyone answers.
            return verdict;
        }
        let headers = &mut verdict.headers;
        let named = if ask.is_some() { &Origin::Reflected } else { &self.origin };
        named.allow(origin, headers);
        if self.has_credentials {
            let yes = HeaderValue::from_static("true");
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        if method == Method::OPTIONS {
            self.allow_request(request, headers);
            verdict.preflight = self.preflight_status;
        }
        if let Some(names) = &self.exposed_headers {
            verdict.headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, names.clone());
        }
        verdict
    }

    /// What the browser asks before it sends a request that is not a simple one.
    fn allow_request(&self, request: &HeaderMap, headers: &mut HeaderMap) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
        let names = match &self.allowed_headers {
            Some(names) => Some(names),
            None => {
                vary(headers, "Access-Control-Request-Headers");
                request.get(header::ACCESS_CONTROL_REQUEST_HEADERS)
            }
        };
        if let Some(names) = names.filter(|names| !names.is_empty()) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        if let Some(max_age) = &self.max_age {
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, max_age.clone());
        }
    }
}

impl Origin {
    fn new(config: &Origins) -> Self {
        match config {
            Origins::Any => Self::Any,
            Origins::Reflected => Self::Reflected,
            Origins::Off => Self::Off,
            Origins::One(origin) => {
                Self::One(HeaderValue::try_from(origin).expect("the settings allow ASCII only"))
            }
            Origins::Listed(origins) => Self::Listed(origins.iter().map(Entry::new).collect()),
        }
    }

    /// Names who may read the response.
    fn allow(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        let named = match self {
            Self::Any => {
                let any = HeaderValue::from_static("*");
                headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
                return;
            }
            Self::One(one) => Some(one),
            Self::Reflected => origin,
            Self::Listed(entries) => origin.filter(|&origin| {
                let origin = origin.to_str().unwrap_or_default();
                entries.iter().any(|entry| entry.is_match(origin))
            }),
            Self::Off => return,
        };
        if let Some(named) = named {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, named.clone());
        }
        // The response differs from origin to origin, which caches must know.
        vary(headers, "Origin");
    }
}

impl Entry {
    fn new(origin: impl AsRef<str>) -> Self {
        let origin = origin.as_ref();
        match origin_pattern(origin) {
            Some(pattern) => Self::Pattern(pattern.expect("the settings were checked")),
            None => Self::Exact(origin.to_owned()),
        }
    }

    fn is_match(&self, origin: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == origin,
            Self::Pattern(pattern) => pattern.is_match(origin),
        }
    }
}

/// Adds to the one `Vary` that there is, as npm's `vary` does.
fn vary(headers: &mut HeaderMap, name: &'static str) {
    let value = match headers.get(header::VARY) {
        None => HeaderValue::from_static(name),
        Some(names) => {
            let names = names.to_str().unwrap_or_default();
            HeaderValue::try_from(format!("{names}, {name}")).expect("names are valid values")
        }
    };
    headers.insert(header::VARY, value);
}

fn list(names: &[String]) -> Option<HeaderValue> {
    let names = (!names.is_empty()).then(|| names.join(","))?;
    Some(HeaderValue::try_from(names).expect("the settings allow ASCII only"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All headers of the answer, sorted, and the status of a preflight.
    fn judge(
        config: &str,
        method: Method,
        origin: &'static str,
        ask: Option<&AllowOrigin>,
    ) -> (Vec<String>, Option<u16>) {
        let config: EngineConfig = serde_json::from_str(config).unwrap();
        config.check().unwrap();
        let mut request = HeaderMap::new();
        if !origin.is_empty() {
            request.insert(header::ORIGIN, HeaderValue::from_static(origin));
        }
        let asked = HeaderValue::from_static("x-one,x-two");
        request.insert(header::ACCESS_CONTROL_REQUEST_HEADERS, asked);
        let verdict = Cors::new(&config).judge(&method, &request, ask);
        let lines = verdict.headers.iter().map(|(name, value)| {
            let name = name.as_str().trim_start_matches("access-control-");
            format!("{name}: {}", value.to_str().unwrap())
        });
        let mut lines: Vec<_> = lines.collect();
        lines.sort();
        (lines, verdict.preflight.map(|status| status.as_u16()))
    }

    fn get(config: &str, origin: &'static str) -> Vec<String> {
        judge(config, Method::GET, origin, None).0
    }

    #[test]
    fn without_a_policy_nothing_is_said() {
        assert_eq!(judge("{}", Method::OPTIONS, "http://a", None), (vec![], None));
        let off = r#"{"cors":{"origin":false,"credentials":true}}"#;
        assert_eq!(judge(off, Method::OPTIONS, "http://a", None), (vec![], None));
    }

    #[test]
    fn any_origin_is_a_star_without_vary() {
        for config in [r#"{"cors":true}"#, r#"{"cors_origins":"*"}"#] {
            assert_eq!(get(config, "http://a"), ["allow-origin: *"]);
            assert_eq!(get(config, ""), ["allow-origin: *"]);
        }
    }

    #[test]
    fn single_origin_is_named_whoever_asks() {
        let config = r#"{"cors":{"origin":"http://a"}}"#;
        for origin in ["http://a", "http://b", ""] {
            assert_eq!(get(config, origin), ["allow-origin: http://a", "vary: Origin"]);
        }
    }

    #[test]
    fn listed_origins_are_named_when_they_ask() {
        let config = r#"{"cors":{"origin":["http://a","/\\.example\\.com$/i"]}}"#;
        assert_eq!(get(config, "http://a"), ["allow-origin: http://a", "vary: Origin"]);
        let other = "https://b.EXAMPLE.com";
        assert_eq!(get(config, other), [format!("allow-origin: {other}"), "vary: Origin".into()]);
        assert_eq!(get(config, "http://ab"), ["vary: Origin"]);
        assert_eq!(get(config, ""), ["vary: Origin"]);
        let short = r#"{"cors_origins":["http://a"]}"#;
        assert_eq!(get(short, "http://a"), ["allow-origin: http://a", "vary: Origin"]);
        assert_eq!(get(short, "http://b"), ["vary: Origin"]);
    }

    #[test]
    fn reflected_origin_is_whoever_asks() {
        let config = r#"{"cors":{"origin":true,"credentials":true}}"#;
        assert_eq!(
            get(config, "http://b"),
            ["allow-credentials: true", "allow-origin: http://b", "vary: Origin"]
        );
        assert_eq!(get(config, ""), ["allow-credentials: true", "vary: Origin"]);
    }

    #[test]
    fn preflight_is_answered_as_npm_cors_does() {
        let (lines, status) = judge(r#"{"cors":true}"#, Method::OPTIONS, "http://a", None);
        assert_eq!(
            lines,
            [
                "allow-headers: x-one,x-two",
                "allow-methods: GET,HEAD,PUT,PATCH,POST,DELETE",
                "allow-origin: *",
                "vary: Access-Control-Request-Headers",
            ]
        );
        assert_eq!(status, Some(204));
    }

    #[test]
    fn preflight_has_all_that_is_configured() {
        let config = r#"{"cors":{"origin":["http://a"],"methods":["GET","POST"],
            "allowed_headers":["x-a","x-b"],"exposed_headers":["x-c"],"credentials":true,
            "max_age":"10min","options_success_status":200}}"#;
        let (lines, status) = judge(config, Method::OPTIONS, "http://a", None);
        assert_eq!(
            lines,
            [
                "allow-credentials: true",
                "allow-headers: x-a,x-b",
                "allow-methods: GET,POST",
                "allow-origin: http://a",
                "expose-headers: x-c",
                "max-age: 600",
                "vary: Origin",
            ]
        );
        assert_eq!(status, Some(200));
        let actual = get(config, "http://a");
        let expected = ["allow-credentials: true", "allow-origin: http://a", "expose-headers: x-c"];
        assert_eq!(actual[..3], expected);
    }

    #[test]
    fn varying_by_both_is_one_header() {
        let config = r#"{"cors":{"origin":true}}"#;
        let (lines, _) = judge(config, Method::OPTIONS, "http://a", None);
        assert_eq!(lines.last().unwrap(), "vary: Origin, Access-Control-Request-Headers");
    }

    #[test]
    fn preflight_goes_on_when_it_is_to() {
        let config = r#"{"cors":{"preflight_continue":true}}"#;
        let (lines, status) = judge(config, Method::OPTIONS, "http://a", None);
        assert_eq!((lines.len(), status), (4, None));
    }

    #[test]
    fn application_decides_in_place_of_the_settings() {
        let ask: &AllowOrigin = &|origin| origin == Some("http://a");
        for config in ["{}", r#"{"cors":{"origin":"http://other"}}"#] {
            let (lines, _) = judge(config, Method::GET, "http://a", Some(ask));
            assert_eq!(lines, ["allow-origin: http://a", "vary: Origin"]);
            let refused = judge(config, Method::OPTIONS, "http://b", Some(ask));
            assert_eq!(refused, (vec![], None));
            assert_eq!(judge(config, Method::OPTIONS, "", Some(ask)), (vec![], None));
        }
    }
}
