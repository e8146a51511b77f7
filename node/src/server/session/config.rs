//! The settings of sessions that clients come back to.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::engineio::{CookieConfig, InvalidSetting, SameSite};

/// The section `[session]`. Without `sources` each connection has a session of its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionConfig {
    /// Where a client shows which session is its own. The first that names one which is there
    /// counts.
    pub sources: Vec<SessionSource>,
    pub cookie: SessionCookieConfig,
    /// The first signs, all verify: so a secret can be replaced while sessions live.
    pub secrets: Vec<Secret>,
    /// Whether an id without a signature is refused.
    pub require_signed: bool,
    /// Whether a client that shows no session at all is refused, as express.io does.
    pub required: bool,
    /// How long a session is kept while nobody uses it.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
    /// Of a session's JSON text: a write beyond it fails. Also where each connection has its own.
    pub max_bytes: usize,
    /// The field of what clients send with their CONNECT.
    pub auth_field: String,
    /// The parameter of the handshake's query. Its value may also be a whole cookie header, as
    /// express.io has it.
    pub query_parameter: String,
    /// Keys of sessions that are filtered by often: emits to them do not look at every socket.
    pub index: Vec<String>,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            cookie: SessionCookieConfig::default(),
            secrets: Vec::new(),
            require_signed: true,
            required: false,
            max_age: Duration::from_secs(24 * 60 * 60),
            max_bytes: 64 * 1024,
            auth_field: "session".to_owned(),
            query_parameter: "session".to_owned(),
            index: Vec::new(),
        }
    }
}

/// Where a client shows its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionSource {
    /// A cookie of the handshake, which its answer sets for a client that has none.
    Cookie,
    /// What the client sends with its CONNECT.
    Auth,
    /// The query of the handshake.
    Query,
}

/// The cookie that holds a session's id.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionCookieConfig {
    pub name: String,
    /// None, if empty.
    pub path: String,
    pub domain: Option<String>,
    pub http_only: bool,
    pub same_site: SameSite,
    pub secure: bool,
    /// How long a browser keeps it, from the last time that it was set; until it is closed, if
    /// absent.
    #[serde(with = "humantime_serde")]
    pub max_age: Option<Duration>,
}

impl Default for SessionCookieConfig {
    fn default() -> Self {
        Self {
            name: "flotilla.sid".to_owned(),
            path: "/".to_owned(),
            domain: None,
            http_only: true,
            same_site: SameSite::Lax,
            secure: false,
            max_age: None,
        }
    }
}

impl SessionCookieConfig {
    /// As what cookies are written by.
    pub(super) fn attributes(&self) -> CookieConfig {
        CookieConfig {
            name: self.name.clone(),
            path: self.path.clone(),
            domain: self.domain.clone(),
            max_age: self.max_age,
            http_only: self.http_only,
            secure: self.secure,
            partitioned: false,
            priority: None,
            same_site: self.same_site,
        }
    }
}

/// A key for signatures. It does not show in logs.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A year: a stamp in milliseconds with so much added is far from overflowing.
const LONGEST_AGE: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// A session travels in one change of the log, which has a bound of its own.
const LARGEST_BYTES: usize = 8 << 20;

/// What Engine.IO itself writes into a query.
const ENGINE_PARAMETERS: [&str; 6] = ["EIO", "transport", "sid", "t", "b64", "j"];

impl SessionConfig {
    /// Whether clients come back to their sessions.
    pub fn is_on(&self) -> bool {
        !self.sources.is_empty()
    }

    pub(super) fn has(&self, source: SessionSource) -> bool {
        self.sources.contains(&source)
    }

    pub fn check(&self) -> Result<(), InvalidSetting> {
        let require = |holds: bool, key, reason| {
            if holds { Ok(()) } else { Err(InvalidSetting { key, reason }) }
        };
        self.cookie.attributes().check()?;
        let is_secure = self.cookie.secure || self.cookie.same_site != SameSite::None;
        require(
            is_secure,
            "cookie.same_site",
            "\"none\" needs cookie.secure, or browsers drop it",
        )?;
        let are_keys = self.secrets.iter().all(|secret| !secret.0.is_empty());
        require(are_keys, "secrets", "must not be empty texts")?;
        let can_verify = !self.is_on() || !self.require_signed || !self.secrets.is_empty();
        require(can_verify, "secrets", "are missing; or set require_signed to false")?;
        let is_age = (Duration::from_secs(1)..=LONGEST_AGE).contains(&self.max_age);
        require(is_age, "max_age", "must be from a second to a year")?;
        let is_size = (64..=LARGEST_BYTES).contains(&self.max_bytes);
        require(is_size, "max_bytes", "must be from 64 bytes to 8 MiB")?;
        require(!self.auth_field.is_empty(), "auth_field", "must not be empty")?;
        require(!self.query_parameter.is_empty(), "query_parameter", "must not be empty")?;
        let is_own = !ENGINE_PARAMETERS.contains(&self.query_parameter.as_str());
        require(is_own, "query_parameter", "is a parameter of Engine.IO")?;
        let is_key = |key: &String| !key.is_empty();
        require(self.index.iter().all(is_key), "index", "must be names of keys")?;
        require(self.index.len() <= 64, "index", "must be 64 keys at most")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> SessionConfig {
        serde_json::from_str(json).unwrap()
    }

    fn refused(json: &str) -> &'static str {
        parse(json).check().unwrap_err().key
    }

    #[test]
    fn sessions_of_clients_are_off_until_there_is_a_source() {
        assert_eq!(SessionConfig::default().check(), Ok(()));
        assert!(!SessionConfig::default().is_on());
        let on = parse(r#"{"sources":["auth","cookie"],"secrets":["s"],"max_age":"7days"}"#);
        assert_eq!((on.check(), on.is_on()), (Ok(()), true));
        assert_eq!(on.sources, [SessionSource::Auth, SessionSource::Cookie]);
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        assert_eq!(refused(r#"{"sources":["cookie"]}"#), "secrets");
        assert_eq!(refused(r#"{"sources":["cookie"],"secrets":["a",""]}"#), "secrets");
        assert_eq!(refused(r#"{"max_age":"0s"}"#), "max_age");
        assert_eq!(refused(r#"{"max_age":"3years"}"#), "max_age");
        assert_eq!(refused(r#"{"max_bytes":10}"#), "max_bytes");
        assert_eq!(refused(r#"{"cookie":{"name":"a b"}}"#), "cookie.name");
        assert_eq!(refused(r#"{"cookie":{"same_site":"none"}}"#), "cookie.same_site");
        assert_eq!(refused(r#"{"auth_field":""}"#), "auth_field");
        assert_eq!(refused(r#"{"query_parameter":"sid"}"#), "query_parameter");
        assert_eq!(refused(r#"{"index":[""]}"#), "index");
        let unsigned = parse(r#"{"sources":["cookie"],"require_signed":false}"#);
        assert_eq!(unsigned.check(), Ok(()));
    }

    #[test]
    fn secrets_do_not_show() {
        let config = parse(r#"{"secrets":["hunter2"]}"#);
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
