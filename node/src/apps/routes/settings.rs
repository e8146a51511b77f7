//! The application's settings: `app.io.set`, `get`, `enable` … of express.io.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::Routes;

/// Settings of Socket.IO 0.9, which express.io hands through, and what stands for them here.
const ELSEWHERE: [(&str, &str); 33] = [
    ("authorization", "use Routes::with, or allow_request of io.engine()"),
    ("blacklist", "reserved events reach no route"),
    ("browser client", "use the node's setting socketio.serve_client"),
    ("browser client cache", "the bundle is read once, at start"),
    ("browser client etag", "the bundle always has one"),
    ("browser client expires", "clients ask whether the bundle is still the same"),
    ("browser client gzip", "use the node's setting engine.http_compression"),
    ("browser client handler", "use the node's setting socketio.client_dir"),
    ("browser client minification", "clients may ask for socket.io.min.js"),
    ("client store expiration", "sessions have an expiry of their own"),
    ("close timeout", "use the node's setting engine.ping_timeout"),
    ("destroy buffer size", "use the node's setting engine.max_payload_bytes"),
    (
        "destroy upgrade",
        "the HTTP server of the application answers upgrades that are not Socket.IO's",
    ),
    ("flash policy port", "there is no Flash transport"),
    ("flash policy server", "there is no Flash transport"),
    ("heartbeat interval", "use the node's setting engine.ping_interval"),
    ("heartbeat timeout", "use the node's setting engine.ping_timeout"),
    ("heartbeats", "there is no Engine.IO without them"),
    ("htmlfile", "there is no such transport"),
    ("jsonp-polling", "there is no such transport"),
    ("log", "use the node's setting log.filter"),
    ("log colors", "use the node's setting log.format"),
    ("log level", "use the node's setting log.filter"),
    ("logger", "use the node's settings log.filter and log.format"),
    ("match origin protocol", "use the node's setting engine.cors_origins"),
    ("origins", "use the node's setting engine.cors_origins"),
    ("polling duration", "use the node's setting engine.ping_interval"),
    ("resource", "use the node's setting engine.path"),
    ("static", "use the node's setting socketio.client_dir"),
    ("store", "the nodes of the cluster are the store"),
    ("transports", "use the node's setting engine.transports"),
    ("websocket", "use the node's setting engine.transports"),
    ("xhr-polling", "use the node's setting engine.transports"),
];

/// A setting of Socket.IO 0.9 that is said elsewhere on Flotilla, or not at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key:?} is not set here: {instead}")]
pub struct NotHere {
    pub key: String,
    pub instead: &'static str,
}

#[derive(Default)]
pub(super) struct Values(Mutex<BTreeMap<String, Value>>);

impl Values {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Value>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, key: &str, value: Value) -> Result<(), NotHere> {
        if let Some((_, instead)) = ELSEWHERE.iter().find(|(known, _)| *known == key) {
            return Err(NotHere { key: key.to_owned(), instead });
        }
        self.lock().insert(key.to_owned(), value);
        Ok(())
    }

    fn get(&self, key: &str) -> Option<Value> {
        self.lock().get(key).cloned()
    }

    fn is_enabled(&self, key: &str) -> bool {
        self.lock().get(key).is_some_and(is_truthy)
    }

    fn is_environment(&self, environment: &str) -> bool {
        match self.lock().get("env") {
            Some(current) => current == environment,
            None => environment == "development",
        }
    }
}

/// As JavaScript sees it.
fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is_true) => *is_true,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

/// Settings of the application, on this node. Those of Socket.IO 0.9 are the node's, which are fixed
/// when it starts; each is refused with the place where it is said now.
impl Routes {
    pub fn set(&self, key: &str, value: impl Into<Value>) -> Result<&Self, NotHere> {
        self.core.values.set(key, value.into()).map(|()| self)
    }

    pub fn get(&self, key: &str) -> Option<Value> {
        self.core.values.get(key)
    }

    /// Sets it to `true`.
    pub fn enable(&self, key: &str) -> Result<&Self, NotHere> {
        self.set(key, true)
    }

    /// Sets it to `false`.
    pub fn disable(&self, key: &str) -> Result<&Self, NotHere> {
        self.set(key, false)
    }

    /// Whether it is set, to what JavaScript takes for true.
    pub fn enabled(&self, key: &str) -> bool {
        self.core.values.is_enabled(key)
    }

    pub fn disabled(&self, key: &str) -> bool {
        !self.enabled(key)
    }

    /// Calls `configure`, if `environment` is the setting `env` or `None`. Unless it is set, that
    /// is `development`; the process's environment is the application's to read.
    pub fn configure<'a>(
        &self,
        environment: impl Into<Option<&'a str>>,
        configure: impl FnOnce(&Self),
    ) -> &Self {
        let environment = environment.into();
        if environment.is_none_or(|wanted| self.core.values.is_environment(wanted)) {
            configure(self);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_kept_and_seen_as_javascript_sees_them() {
        let values = Values::default();
        assert_eq!(values.get("title"), None);
        values.set("title", json!("chat")).unwrap();
        assert_eq!(values.get("title"), Some(json!("chat")));
        let falsy = [json!(null), json!(false), json!(0), json!("")];
        let truthy = [json!(true), json!(-1), json!("0"), json!([]), json!({})];
        for (expected, several) in [(false, falsy.as_slice()), (true, truthy.as_slice())] {
            for value in several {
                values.set("x", value.clone()).unwrap();
                assert_eq!(values.is_enabled("x"), expected, "{value}");
            }
        }
        assert!(!values.is_enabled("never set"));
    }

    #[test]
    fn settings_of_the_node_are_refused_and_say_where_they_are() {
        let values = Values::default();
        let refused = values.set("heartbeat interval", json!(25)).unwrap_err();
        assert!(refused.to_string().contains("engine.ping_interval"), "{refused}");
        assert_eq!(values.get("heartbeat interval"), None);
    }

    #[test]
    fn environment_is_development_unless_it_is_set() {
        let values = Values::default();
        assert!(values.is_environment("development"));
        values.set("env", json!("production")).unwrap();
        assert!(values.is_environment("production") && !values.is_environment("development"));
    }
}
