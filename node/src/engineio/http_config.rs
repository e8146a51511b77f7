//! The settings of Engine.IO that concern HTTP alone: the cookie, other origins, compression.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::engineio::InvalidSetting;

/// The cookie that tells a load balancer which connection a request belongs to; its value is the
/// sid. Set by the answer to a polling handshake, as with the official server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CookieConfig {
    pub name: String,
    /// None, if empty.
    pub path: String,
    pub domain: Option<String>,
    #[serde(with = "humantime_serde")]
    pub max_age: Option<Duration>,
    pub http_only: bool,
    pub secure: bool,
    pub partitioned: bool,
    pub priority: Option<CookiePriority>,
    pub same_site: SameSite,
}

impl Default for CookieConfig {
    fn default() -> Self {
        Self {
            name: "io".to_owned(),
            path: "/".to_owned(),
            domain: None,
            max_age: None,
            http_only: true,
            secure: false,
            partitioned: false,
            priority: None,
            same_site: SameSite::Lax,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CookiePriority {
    Low,
    Medium,
    High,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SameSite {
    Lax,
    Strict,
    None,
    /// The attribute is left out.
    Unset,
}

/// Which web pages of other origins may connect by polling (cross-origin resource sharing); the
/// options of npm's `cors`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CorsConfig {
    pub origin: Origins,
    pub methods: Vec<String>,
    /// Empty: whichever the browser asks for.
    pub allowed_headers: Vec<String>,
    pub exposed_headers: Vec<String>,
    pub credentials: bool,
    /// How long a browser may keep the answer to a preflight.
    #[serde(with = "humantime_serde")]
    pub max_age: Option<Duration>,
    /// A preflight is answered like any other request.
    pub preflight_continue: bool,
    pub options_success_status: u16,
}

impl Default for CorsConfig {
    fn default() -> Self {
        Self {
            origin: Origins::Any,
            methods: ["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE"].map(str::to_owned).into(),
            allowed_headers: Vec::new(),
            exposed_headers: Vec::new(),
            credentials: false,
            max_age: None,
            preflight_continue: false,
            options_success_status: 204,
        }
    }
}

/// The forms of `origin` in npm's `cors`, its function aside, which is
/// [`Engine::allow_origin`](crate::transport::Engine::allow_origin).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// `"*"`
    #[default]
    Any,
    /// `true`: whoever asks is named in the answer, which browsers want when there are credentials.
    Reflected,
    /// `false`: no header is sent.
    Off,
    /// A single one, named in every answer, whoever asks.
    One(String),
    /// Each as it is, or a regular expression between slashes (`"/\\.example\\.com$/"`).
    Listed(Vec<String>),
}

/// Compression of polling responses, with what the client accepts of gzip and deflate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompressionConfig {
    /// Shorter bodies go as they are.
    pub threshold_bytes: usize,
    /// From 1, fast, to 9, small.
    pub level: u32,
}

impl Default for CompressionConfig {
    fn default() -> Self {
        Self { threshold_bytes: 1024, level: 6 }
    }
}

impl CookieConfig {
    pub(crate) fn check(&self) -> Result<(), InvalidSetting> {
        // RFC 6265, section 4.1.1: a name is a token, and no attribute contains a semicolon.
        let is_value = |c: char| (' '..='~').contains(&c) && c != ';';
        require(is_token(&self.name), "cookie.name", "must be a token of ASCII characters")?;
        require(self.path.chars().all(is_value), "cookie.path", "must be ASCII without semicolon")?;
        // Browsers pass over any other (RFC 6265, section 5.2.4).
        let is_path = self.path.is_empty() || self.path.starts_with('/');
        require(is_path, "cookie.path", "must start with a slash, or be empty")?;
        // In whole seconds; none of them would take the cookie away at once.
        let lasts = self.max_age.is_none_or(|max_age| max_age.as_secs() > 0);
        require(lasts, "cookie.max_age", "must be at least a second")?;
        let domain = self.domain.as_deref().unwrap_or("d");
        let is_domain = !domain.is_empty() && domain.chars().all(|c| is_value(c) && c != ' ');
        require(is_domain, "cookie.domain", "must be ASCII without semicolon or space")
    }
}

impl CorsConfig {
    pub(super) fn check(&self) -> Result<(), InvalidSetting> {
        match &self.origin {
            Origins::One(origin) => check_origins(std::slice::from_ref(origin), "cors.origin")?,
            Origins::Listed(origins) => {
                let has_any = origins.iter().any(|origin| origin == "*");
                require(!has_any, "cors.origin", "must be \"*\" alone, not in a list")?;
                check_origins(origins, "cors.origin")?;
            }
            Origins::Any | Origins::Reflected | Origins::Off => {}
        }
        let require_names = |names: &[String], key| {
            let are_names = names.iter().all(|name| is_token(name));
            require(are_names, key, "must be a list of names, each without spaces and commas")
        };
        require_names(&self.methods, "cors.methods")?;
        require_names(&self.allowed_headers, "cors.allowed_headers")?;
        require_names(&self.exposed_headers, "cors.exposed_headers")?;
        let is_success = (200..=299).contains(&self.options_success_status);
        require(is_success, "cors.options_success_status", "must be from 200 to 299")
    }
}

impl CompressionConfig {
    pub(super) fn check(&self) -> Result<(), InvalidSetting> {
        require((1..=9).contains(&self.level), "http_compression.level", "must be from 1 to 9")
    }
}

fn require(holds: bool, key: &'static str, reason: &'static str) -> Result<(), InvalidSetting> {
    if holds { Ok(()) } else { Err(InvalidSetting { key, reason }) }
}

/// A name as HTTP has it (RFC 9110, section 5.6.2).
fn is_token(name: &str) -> bool {
    let is_of_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    !name.is_empty() && name.chars().all(is_of_token)
}

/// Each must be what a browser may call a page's origin, `"*"`, or a regular expression.
pub(super) fn check_origins(origins: &[String], key: &'static str) -> Result<(), InvalidSetting> {
    for origin in origins {
        match pattern(origin) {
            Some(pattern) => require(pattern.is_ok(), key, "has an invalid regular expression")?,
            None => require(
                origin == "*" || is_origin(origin),
                key,
                "must be origins as browsers send them, such as https://example.com or \
                 http://localhost:3000: in lower case, without a path and a slash at the end",
            )?,
        }
    }
    Ok(())
}

/// `scheme://host:port`, or `null` (RFC 6454, section 6.2): what differs by a slash at its end never
/// equals what a browser sends.
fn is_origin(origin: &str) -> bool {
    let is_of_host = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._:[]".contains(c);
    let is_of_scheme = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    let named = origin.split_once("://").is_some_and(|(scheme, host)| {
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase());
        is_scheme
            && scheme.chars().all(is_of_scheme)
            && !host.is_empty()
            && host.chars().all(is_of_host)
    });
    named || origin == "null"
}

/// The regular expression that an entry of a list is: `/…/`, or `/…/i` if case does not matter.
pub(crate) fn pattern(origin: &str) -> Option<Result<regex::Regex, regex::Error>> {
    let (pattern, flags) = origin.strip_prefix('/')?.rsplit_once('/')?;
    let is_case_insensitive = match flags {
        "" => false,
        "i" => true,
        _ => return None,
    };
    Some(regex::RegexBuilder::new(pattern).case_insensitive(is_case_insensitive).build())
}

/// `false`, `true` for the defaults, or a table.
pub(super) fn switch<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    struct Switch<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de> + Default> Visitor<'de> for Switch<T> {
        type Value = Option<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true, false or a table")
        }

        fn visit_bool<E: Error>(self, is_on: bool) -> Result<Self::Value, E> {
            Ok(is_on.then(T::default))
        }

        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }
    }

    deserializer.deserialize_any(Switch(PhantomData))
}

impl Serialize for Origins {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => serializer.serialize_str("*"),
            Self::Reflected => serializer.serialize_bool(true),
            Self::Off => serializer.serialize_bool(false),
            Self::One(origin) => serializer.serialize_str(origin),
            Self::Listed(origins) => origins.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Origins {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OriginsVisitor;

        impl<'de> Visitor<'de> for OriginsVisitor {
            type Value = Origins;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"*\", an origin, a list of origins, true or false")
            }

            fn visit_bool<E: Error>(self, is_reflected: bool) -> Result<Origins, E> {
                Ok(if is_reflected { Origins::Reflected } else { Origins::Off })
            }

            fn visit_str<E: Error>(self, origin: &str) -> Result<Origins, E> {
                // A single regular expression is a list of one.
                Ok(match origin {
                    "*" => Origins::Any,
                    _ if pattern(origin).is_some() => Origins::Listed(vec![origin.to_owned()]),
                    _ => Origins::One(origin.to_owned()),
                })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, origins: A) -> Result<Origins, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(origins)).map(Origins::Listed)
            }
        }

        deserializer.deserialize_any(OriginsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engineio::EngineConfig;

    fn parse(json: &str) -> EngineConfig {
        let config = serde_json::from_str(json).unwrap();
        let again = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<EngineConfig>(&again).unwrap(), config);
        config
    }

    #[test]
    fn cookie_is_off_or_the_official_one_or_a_table() {
        assert_eq!(parse("{}").cookie, None);
        assert_eq!(parse(r#"{"cookie":false}"#).cookie, None);
        assert_eq!(parse(r#"{"cookie":true}"#).cookie, Some(CookieConfig::default()));
        let cookie = parse(r#"{"cookie":{"name":"sid","max_age":"1day","same_site":"none"}}"#);
        let cookie = cookie.cookie.unwrap();
        assert_eq!((cookie.name.as_str(), cookie.path.as_str()), ("sid", "/"));
        assert_eq!(cookie.max_age, Some(Duration::from_secs(24 * 60 * 60)));
        assert_eq!(cookie.same_site, SameSite::None);
        let wrong = serde_json::from_str::<EngineConfig>(r#"{"cookie":{"nam":"sid"}}"#);
        assert!(wrong.unwrap_err().to_string().contains("nam"));
    }

    #[test]
    fn origin_has_the_forms_of_npm_cors() {
        let origin = |json: &str| parse(&format!(r#"{{"cors":{json}}}"#)).cors.unwrap().origin;
        assert_eq!(origin("true"), Origins::Any);
        assert_eq!(origin(r#"{"origin":"*"}"#), Origins::Any);
        assert_eq!(origin(r#"{"origin":true}"#), Origins::Reflected);
        assert_eq!(origin(r#"{"origin":false}"#), Origins::Off);
        assert_eq!(origin(r#"{"origin":"http://a"}"#), Origins::One("http://a".to_owned()));
        let listed = Origins::Listed(vec!["http://a".to_owned(), "/b$/".to_owned()]);
        assert_eq!(origin(r#"{"origin":["http://a","/b$/"]}"#), listed);
        let pattern = Origins::Listed(vec!["/b$/i".to_owned()]);
        assert_eq!(origin(r#"{"origin":"/b$/i"}"#), pattern);
    }

    #[test]
    fn values_that_cannot_work_are_refused_by_name() {
        let refused = |json: &str| parse(json).check().unwrap_err().key;
        assert_eq!(refused(r#"{"cookie":{"name":"a b"}}"#), "cookie.name");
        assert_eq!(refused(r#"{"cookie":{"path":"/;"}}"#), "cookie.path");
        assert_eq!(refused(r#"{"cookie":{"domain":""}}"#), "cookie.domain");
        assert_eq!(refused(r#"{"cookie":{"path":"a"}}"#), "cookie.path");
        assert_eq!(refused(r#"{"cookie":{"max_age":"1ms"}}"#), "cookie.max_age");
        assert_eq!(refused(r#"{"cors":{"origin":["/(/"]}}"#), "cors.origin");
        assert_eq!(refused(r#"{"cors":{"origin":["http://a","*"]}}"#), "cors.origin");
        assert_eq!(refused(r#"{"cors":{"allowed_headers":["a, b"]}}"#), "cors.allowed_headers");
        assert_eq!(refused(r#"{"cors":{"methods":["G\n"]}}"#), "cors.methods");
        let status = r#"{"cors":{"options_success_status":404}}"#;
        assert_eq!(refused(status), "cors.options_success_status");
        assert_eq!(refused(r#"{"http_compression":{"level":10}}"#), "http_compression.level");
    }

    #[test]
    fn what_no_browser_calls_an_origin_is_none() {
        for wrong in ["foo", "a b", "", "http://", "http://a/", "http://a/b", "HTTP://a", "://a"] {
            for key in ["cors_origins", "cors.origin"] {
                assert!(check_origins(&[wrong.to_owned()], key).is_err(), "{wrong}");
            }
            assert!(
                parse(&format!(r#"{{"cors_origins":["{wrong}"]}}"#)).check().is_err(),
                "{wrong}"
            );
        }
        let right = ["*", "null", "http://localhost:3000", "https://a.example", "http://[::1]:80"];
        let schemes = ["chrome-extension://abc", "capacitor://localhost", "/\\.example$/i"];
        for right in right.into_iter().chain(schemes) {
            assert_eq!(check_origins(&[right.to_owned()], "cors_origins"), Ok(()), "{right}");
        }
        assert!(check_origins(&["/(/".to_owned()], "cors_origins").is_err());
    }

    #[test]
    fn compression_is_on_until_it_is_switched_off() {
        assert_eq!(parse("{}").http_compression, Some(CompressionConfig::default()));
        assert_eq!(parse(r#"{"http_compression":false}"#).http_compression, None);
        let low = parse(r#"{"http_compression":{"threshold_bytes":10}}"#).http_compression;
        assert_eq!(low, Some(CompressionConfig { threshold_bytes: 10, level: 6 }));
    }
}
