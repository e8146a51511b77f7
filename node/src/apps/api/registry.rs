//! What is exported, by name: the definitions that clients are told, and the functions behind them.

use std::collections::HashMap;
use std::future::Future;

use indexmap::IndexMap;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::function::{ApiError, Exported, as_object, fields, in_order};
use crate::server::FromContext;
use crate::socketio::to_json;

/// Constants and functions, to be registered under a name.
#[derive(Clone, Default)]
pub struct Exports {
    items: IndexMap<String, Item>,
    /// What was wrong first; registering says so.
    invalid: Option<RegisterError>,
}

#[derive(Clone)]
enum Item {
    Constant(Value),
    Function(Exported),
}

/// Why something cannot be registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// api.io keeps names that begin with `_` private.
    #[error("a name is a text that does not begin with an underscore: {0:?}")]
    Name(String),
    /// Clients have something of their own there, which the export would hide.
    #[error("the name {0:?} is taken by the client")]
    Taken(String),
    #[error("the constant {name:?} cannot be written as JSON: {reason}")]
    Constant { name: String, reason: String },
}

/// Members of the client itself, and of each of its namespaces.
const CLIENT_MEMBERS: [&str; 3] = ["connect", "disconnect", "create"];
const NAMESPACE_MEMBERS: [&str; 2] = ["on", "off"];

impl Exports {
    pub fn new() -> Self {
        Self::default()
    }

    /// Clients read it as `client.<name>.<constant>`.
    pub fn constant(mut self, name: &str, value: impl Serialize) -> Self {
        match serde_json::to_value(value) {
            Ok(value) => self.add(name, Item::Constant(value)),
            Err(error) => {
                let reason = error.to_string();
                let error = RegisterError::Constant { name: name.to_owned(), reason };
                self.invalid.get_or_insert(error);
            }
        }
        self
    }

    /// Clients call it as `client.<name>.<function>(…)`. It takes an extractor of the server API,
    /// such as [`Session`](crate::server::Session), and its arguments: a tuple with a place for each
    /// name, or, if there is one name, the argument alone. What a client leaves out is null.
    pub fn function<C, A, R, F, Fut>(
        self,
        name: &str,
        arguments: impl IntoIterator<Item: Into<String>>,
        function: F,
    ) -> Self
    where
        F: Fn(C, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, ApiError>> + Send + 'static,
        C: FromContext,
        A: DeserializeOwned,
        R: Serialize,
    {
        let names = arguments.into_iter().map(Into::into).collect();
        self.with_function(name, Exported::new(names, in_order, function))
    }

    /// The same, with a struct whose fields are the arguments, by their names.
    pub fn function_of<C, A, R, F, Fut>(self, name: &str, function: F) -> Self
    where
        F: Fn(C, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, ApiError>> + Send + 'static,
        C: FromContext,
        A: DeserializeOwned,
        R: Serialize,
    {
        self.with_function(name, Exported::new(fields::<A>(), as_object, function))
    }

    pub(super) fn with_function(mut self, name: &str, function: Exported) -> Self {
        self.add(name, Item::Function(function));
        self
    }

    fn add(&mut self, name: &str, item: Item) {
        if let Err(error) = check(name, &NAMESPACE_MEMBERS) {
            self.invalid.get_or_insert(error);
        }
        self.items.insert(name.to_owned(), item);
    }
}

fn check(name: &str, taken: &[&str]) -> Result<(), RegisterError> {
    if name.is_empty() || name.starts_with('_') || name.contains(char::is_control) {
        return Err(RegisterError::Name(name.to_owned()));
    }
    if taken.contains(&name) { Err(RegisterError::Taken(name.to_owned())) } else { Ok(()) }
}

/// All that is registered at one moment. A connection keeps what it was told at its beginning.
#[derive(Clone, Default)]
pub(super) struct Definitions {
    namespaces: Map<String, Value>,
    /// By the name of the event that calls it; a constant is here too.
    methods: HashMap<String, Option<Exported>>,
    /// What clients are told, as JSON.
    json: String,
}

impl Definitions {
    pub(super) fn json(&self) -> &str {
        if self.json.is_empty() { "{}" } else { &self.json }
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.namespaces.contains_key(name)
    }

    /// Registers, in the place of what had the name before.
    pub(super) fn add(&mut self, name: &str, exports: Exports) -> Result<(), RegisterError> {
        check(name, &CLIENT_MEMBERS)?;
        if let Some(error) = exports.invalid {
            return Err(error);
        }
        self.remove(name);
        let mut definitions = Map::new();
        for (item_name, item) in exports.items {
            let (definition, function) = match item {
                Item::Constant(value) => (json!({"type": "constant", "value": value}), None),
                Item::Function(function) => {
                    let names: &[String] = &function.names;
                    (json!({"type": "function", "value": names}), Some(function))
                }
            };
            self.methods.insert(format!("{name}.{item_name}"), function);
            definitions.insert(item_name, definition);
        }
        self.namespaces.insert(name.to_owned(), definitions.into());
        self.write();
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &str) -> bool {
        let Some(Value::Object(definitions)) = self.namespaces.shift_remove(name) else {
            return false;
        };
        for item_name in definitions.keys() {
            self.methods.remove(&format!("{name}.{item_name}"));
        }
        self.write();
        true
    }

    fn write(&mut self) {
        self.json = to_json(&self.namespaces).expect("definitions are JSON");
    }

    /// The name under which the function or constant of an event is registered.
    pub(super) fn name_of(&self, event: &str) -> Option<&str> {
        let is_of = |(name, items): &(&String, &Value)| {
            let item = event.strip_prefix(&***name).and_then(|rest| rest.strip_prefix('.'));
            item.is_some_and(|item| items.get(item).is_some())
        };
        self.namespaces.iter().find(is_of).map(|(name, _)| &**name)
    }

    /// The function that an event calls.
    pub(super) fn function(&self, event: &str) -> Result<&Exported, ApiError> {
        match self.methods.get(event) {
            Some(Some(function)) => Ok(function),
            Some(None) => Err(ApiError::new("Call on non-function")),
            None => {
                let is_of = |name: &String| {
                    event.strip_prefix(&**name).is_some_and(|rest| rest.starts_with('.'))
                };
                let is_known = self.namespaces.keys().any(is_of);
                Err(ApiError::new(if is_known { "No such method" } else { "No such namespace" }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Session;

    fn exports() -> Exports {
        Exports::new()
            .constant("VALUE", "const")
            .constant("NOTHING", Value::Null)
            .constant("PI", 3.0)
            .function("sum", ["a", "b"], async |_: Session, (a, b): (f64, f64)| Ok(a + b))
            .function("noop", [""; 0], async |_: Session, ()| Ok(()))
    }

    #[test]
    fn definitions_are_api_ios() {
        let mut definitions = Definitions::default();
        assert_eq!(definitions.json(), "{}");
        definitions.add("myApi", exports()).unwrap();
        definitions.add("myApi2", Exports::new()).unwrap();
        let json = r#"{"myApi":{"VALUE":{"type":"constant","value":"const"},"NOTHING":{"type":"constant","value":null},"PI":{"type":"constant","value":3},"sum":{"type":"function","value":["a","b"]},"noop":{"type":"function","value":[]}},"myApi2":{}}"#;
        assert_eq!(definitions.json(), json);
        assert!(definitions.contains("myApi") && !definitions.contains("other"));
    }

    #[test]
    fn what_cannot_be_called_says_why() {
        let mut definitions = Definitions::default();
        definitions.add("myApi", exports()).unwrap();
        assert!(definitions.function("myApi.sum").is_ok());
        let error = |event| definitions.function(event).err().unwrap().message;
        assert_eq!(error("myApi.VALUE"), "Call on non-function");
        assert_eq!(error("myApi.product"), "No such method");
        assert_eq!(error("myApi2.sum"), "No such namespace");
        assert_eq!(error("nothing"), "No such namespace");
    }

    #[test]
    fn registering_again_replaces_and_removing_forgets() {
        let mut definitions = Definitions::default();
        definitions.add("myApi", exports()).unwrap();
        definitions.add("myApi", Exports::new().constant("VALUE", 1)).unwrap();
        assert!(definitions.function("myApi.sum").is_err());
        assert!(definitions.remove("myApi") && !definitions.remove("myApi"));
        assert_eq!(definitions.json(), "{}");
        assert!(definitions.methods.is_empty());
    }

    #[test]
    fn names_that_clients_cannot_use_are_refused() {
        let mut definitions = Definitions::default();
        let mut refused = |name: &str, item: &str| {
            definitions.add(name, Exports::new().constant(item, 1)).unwrap_err()
        };
        assert_eq!(refused("myApi", "_private"), RegisterError::Name("_private".into()));
        assert_eq!(refused("", "a"), RegisterError::Name(String::new()));
        assert_eq!(refused("_call", "a"), RegisterError::Name("_call".into()));
        assert_eq!(refused("myApi", "on"), RegisterError::Taken("on".into()));
        assert_eq!(refused("connect", "a"), RegisterError::Taken("connect".into()));
        let lists = std::collections::BTreeMap::from([([1], 1)]);
        let error = definitions.add("a", Exports::new().constant("b", lists)).unwrap_err();
        assert!(matches!(error, RegisterError::Constant { .. }));
    }
}
