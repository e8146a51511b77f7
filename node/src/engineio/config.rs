//! The settings of Engine.IO: their defaults, and what values they may have.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use crate::engineio::http_config::{
    CompressionConfig, CookieConfig, CorsConfig, Origins, check_origins, switch,
};
use crate::engineio::{TransportKind, TrustProxy};

/// The section `[engine]`. Defaults are the official server's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineConfig {
    /// Where the endpoint lives; requests to anything below it are Engine.IO's.
    pub path: String,
    /// Whether a request must have a slash behind the path, as official clients send it.
    pub add_trailing_slash: bool,
    /// How long after a pong the next ping is sent.
    #[serde(with = "humantime_serde")]
    pub ping_interval: Duration,
    /// How long a client may take to answer a ping.
    #[serde(with = "humantime_serde")]
    pub ping_timeout: Duration,
    /// How long a client may take to finish an upgrade that it started.
    #[serde(with = "humantime_serde")]
    pub upgrade_timeout: Duration,
    /// The longest body of a POST, and the longest WebSocket message.
    pub max_payload_bytes: usize,
    pub transports: Vec<TransportKind>,
    /// Whether a polling client may go on by WebSocket.
    pub allow_upgrades: bool,
    /// Whether clients of Engine.IO 3 are served, Socket.IO's of generation 2; without it they are
    /// refused as the official server refuses them (code 5).
    pub allow_eio3: bool,
    /// Web pages of which origins may connect by polling: `"*"`, or a list. Empty: no CORS headers.
    #[serde(deserialize_with = "one_or_many")]
    pub cors_origins: Vec<String>,
    /// The same with all that npm's `cors` can; it has precedence over `cors_origins`.
    #[serde(deserialize_with = "switch")]
    pub cors: Option<CorsConfig>,
    #[serde(deserialize_with = "switch")]
    pub cookie: Option<CookieConfig>,
    #[serde(deserialize_with = "switch")]
    pub http_compression: Option<CompressionConfig>,
    /// Proxies that are believed about their clients' addresses, and whether they came by TLS.
    pub trust_proxy: TrustProxy,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            path: "/socket.io".to_owned(),
            add_trailing_slash: true,
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            upgrade_timeout: Duration::from_secs(10),
            max_payload_bytes: 1_000_000,
            transports: vec![TransportKind::Polling, TransportKind::WebSocket],
            allow_upgrades: true,
            allow_eio3: false,
            cors_origins: Vec::new(),
            cors: None,
            cookie: None,
            http_compression: Some(CompressionConfig::default()),
            trust_proxy: TrustProxy::default(),
        }
    }
}

/// A setting whose value cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct InvalidSetting {
    /// Within the section, such as `ping_interval`.
    pub key: &'static str,
    pub reason: &'static str,
}

/// 1 GiB: what a message may count for, whatever is added to it.
const MAX_PAYLOAD_BYTES: usize = 1 << 30;

/// What requests can have as their path (RFC 3986, section 3.3); no client sends `.` and `..`.
fn is_path(path: &str) -> bool {
    let is_of_path = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/%".contains(c);
    let is_encoded = |rest: &str| {
        let mut digits = rest.chars();
        (0..2).all(|_| digits.next().is_some_and(|c| c.is_ascii_hexdigit()))
    };
    path.chars().all(is_of_path)
        && path.split('%').skip(1).all(is_encoded)
        && path.split('/').all(|segment| segment != "." && segment != "..")
}

impl EngineConfig {
    pub fn check(&self) -> Result<(), InvalidSetting> {
        let require = |holds: bool, key, reason| {
            if holds { Ok(()) } else { Err(InvalidSetting { key, reason }) }
        };
        require(self.path.starts_with('/'), "path", "must start with a slash")?;
        require(self.path.len() > 1, "path", "must not be the root, where pages live")?;
        require(
            is_path(&self.path),
            "path",
            "must be a path as it stands in a URL, without query; a space is %20 there",
        )?;
        require(!self.ping_interval.is_zero(), "ping_interval", "must be more than zero")?;
        require(!self.ping_timeout.is_zero(), "ping_timeout", "must be more than zero")?;
        require(!self.upgrade_timeout.is_zero(), "upgrade_timeout", "must be more than zero")?;
        // Each interval travels in milliseconds; a day is far beyond any proxy's patience.
        let day = Duration::from_secs(24 * 60 * 60);
        require(self.ping_interval <= day, "ping_interval", "must not exceed a day")?;
        require(self.ping_timeout <= day, "ping_timeout", "must not exceed a day")?;
        require(self.upgrade_timeout <= day, "upgrade_timeout", "must not exceed a day")?;
        let is_size = (1024..=MAX_PAYLOAD_BYTES).contains(&self.max_payload_bytes);
        require(is_size, "max_payload_bytes", "must be from 1024 to 1073741824")?;
        require(!self.transports.is_empty(), "transports", "must name at least one transport")?;
        check_origins(&self.cors_origins, "cors_origins")?;
        self.cors.as_ref().map_or(Ok(()), CorsConfig::check)?;
        self.cookie.as_ref().map_or(Ok(()), CookieConfig::check)?;
        self.http_compression.as_ref().map_or(Ok(()), CompressionConfig::check)
    }

    /// What requests to the endpoint start with.
    pub fn prefix(&self) -> String {
        let path = self.path.strip_suffix('/').unwrap_or(&self.path);
        if self.add_trailing_slash { format!("{path}/") } else { path.to_owned() }
    }

    /// `cors`, or what `cors_origins` says in short.
    pub fn cross_origin(&self) -> Option<CorsConfig> {
        let origin = match self.cors_origins.as_slice() {
            [] => return self.cors.clone(),
            origins if origins.iter().any(|origin| origin == "*") => Origins::Any,
            origins => Origins::Listed(origins.to_owned()),
        };
        let short = || CorsConfig { origin, ..CorsConfig::default() };
        Some(self.cors.clone().unwrap_or_else(short))
    }

    pub fn allows(&self, transport: TransportKind) -> bool {
        self.transports.contains(&transport)
    }

    /// What the handshake offers a client that came by `transport`.
    pub fn upgrades(&self, transport: TransportKind) -> &'static [TransportKind] {
        let can_upgrade = self.allow_upgrades && self.allows(TransportKind::WebSocket);
        match transport {
            TransportKind::Polling if can_upgrade => &[TransportKind::WebSocket],
            TransportKind::Polling | TransportKind::WebSocket => &[],
        }
    }
}

/// A list, or one string of which commas part the entries, as an environment variable has it.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "must be \"*\" or a list of origins")]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::Many(origins) => origins,
        OneOrMany::One(origins) => {
            let origins = origins.split(',').map(str::trim).filter(|origin| !origin.is_empty());
            origins.map(str::to_owned).collect()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<EngineConfig, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn defaults_are_valid_and_the_official_ones() {
        let config = parse("{}").unwrap();
        assert_eq!(config, EngineConfig::default());
        assert_eq!(config.check(), Ok(()));
        let timers = [config.ping_interval, config.ping_timeout, config.upgrade_timeout];
        assert_eq!(timers.map(|timer| timer.as_secs()), [25, 20, 10]);
        assert_eq!((config.max_payload_bytes, config.path.as_str()), (1_000_000, "/socket.io"));
        assert!(config.allow_upgrades && config.add_trailing_slash && !config.allow_eio3);
        assert_eq!(config.upgrades(TransportKind::Polling), [TransportKind::WebSocket]);
        assert_eq!(config.upgrades(TransportKind::WebSocket), []);
    }

    #[test]
    fn unknown_keys_and_transports_are_refused_by_name() {
        let error = parse(r#"{"ping_intervall":"1s"}"#).unwrap_err().to_string();
        assert!(error.contains("ping_intervall"), "{error}");
        let error = parse(r#"{"transports":["carrier pigeon"]}"#).unwrap_err().to_string();
        assert!(error.contains("carrier pigeon"), "{error}");
    }

    #[test]
    fn values_that_cannot_work_are_refused_by_name() {
        let refused = |json: &str| parse(json).unwrap().check().unwrap_err().key;
        assert_eq!(refused(r#"{"path":"socket.io"}"#), "path");
        assert_eq!(refused(r#"{"path":"/"}"#), "path");
        for path in ["/a b", "/ä", "/a?b", "/a\\\\b", "/a%2", "/a%zz", "/..", "/a/./b"] {
            assert_eq!(refused(&format!(r#"{{"path":"{path}"}}"#)), "path", "{path}");
        }
        for path in ["/ws", "/a%20b", "/v1.2/ws/", "/a:b@c;d=e,f"] {
            let config = parse(&format!(r#"{{"path":"{path}"}}"#)).unwrap();
            assert_eq!(config.check(), Ok(()), "{path}");
        }
        assert_eq!(refused(r#"{"ping_interval":"0s"}"#), "ping_interval");
        assert_eq!(refused(r#"{"ping_timeout":"2days"}"#), "ping_timeout");
        assert_eq!(refused(r#"{"max_payload_bytes":10}"#), "max_payload_bytes");
        assert_eq!(refused(r#"{"transports":[]}"#), "transports");
    }

    #[test]
    fn origins_are_a_star_or_a_list() {
        assert_eq!(parse(r#"{"cors_origins":"*"}"#).unwrap().cors_origins, ["*"]);
        assert_eq!(parse(r#"{"cors_origins":"a, b"}"#).unwrap().cors_origins, ["a", "b"]);
        assert_eq!(parse(r#"{"cors_origins":["a","b"]}"#).unwrap().cors_origins, ["a", "b"]);
        assert!(parse(r#"{"cors_origins":7}"#).is_err());
    }

    #[test]
    fn upgrades_are_not_offered_when_switched_off() {
        let off = parse(r#"{"allow_upgrades":false}"#).unwrap();
        assert_eq!(off.upgrades(TransportKind::Polling), []);
        let polling_only = parse(r#"{"transports":["polling"]}"#).unwrap();
        assert_eq!(polling_only.upgrades(TransportKind::Polling), []);
    }
}
