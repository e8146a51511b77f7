//! One run of a scenario.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rust_socketio::TransportType;
use serde_json::{Map, Value, json};

use crate::client::{Client, PATIENCE};

type Done = Result<(), String>;

pub struct Play<'a> {
    transport: TransportType,
    urls: &'a [String],
    run: String,
    clients: HashMap<String, Client>,
    saved: HashMap<String, Value>,
}

impl<'a> Play<'a> {
    pub fn new(transport: TransportType, urls: &'a [String]) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is past 1970");
        let run = format!("run-{:x}", now.as_nanos());
        Self { transport, urls, run, clients: HashMap::new(), saved: HashMap::new() }
    }

    pub fn play(mut self, scenario: &Value) -> Done {
        let steps = scenario["steps"].as_array().expect("a scenario has steps");
        let result = steps.iter().enumerate().try_for_each(|(index, step)| {
            let shown: String = step.to_string().chars().take(200).collect();
            self.perform(step).map_err(|error| format!("step {}, {shown}: {error}", index + 1))
        });
        for client in self.clients.values() {
            // It may be gone already.
            let _ = client.leave();
        }
        result
    }

    fn perform(&mut self, step: &Value) -> Done {
        match name(&step["do"]) {
            "connect" => self.connect(step),
            "refused" => self.refused(step),
            "call" => self.call(step),
            "emit" => self.emit(step),
            "round trip" => self.round_trip(step),
            "heard" => self.heard(step),
            "seen" => self.seen(step),
            "leave" => self.client(step).leave(),
            // The crate does not say by whom.
            "gone" => self.client(step).until("its disconnect", |hall| hall.is_gone),
            other => Err(format!("no such step: {other}")),
        }
    }

    fn open(&mut self, step: &Value) -> Result<&Client, String> {
        let url = &self.urls[step["node"].as_u64().unwrap_or(0) as usize];
        let namespace = step["namespace"].as_str().unwrap_or("/");
        let client =
            Client::open(url, self.transport.clone(), namespace, step.get("auth").cloned())?;
        Ok(self.clients.entry(name(&step["who"]).to_owned()).insert_entry(client).into_mut())
    }

    fn connect(&mut self, step: &Value) -> Done {
        self.open(step)?.until("a connection", |hall| hall.is_connected)
    }

    fn refused(&mut self, step: &Value) -> Done {
        let client = self.open(step)?;
        client.until("a refusal", |hall| !hall.refusals.is_empty())?;
        let mut expected = json!({"message": step["message"]});
        if let Some(data) = step.get("data") {
            expected["data"] = data.clone();
        }
        equal(&client.hall.lock().unwrap().refusals[0], &expected)
    }

    fn call(&mut self, step: &Value) -> Done {
        let give_up =
            Instant::now() + if step["eventually"] == true { PATIENCE } else { Duration::ZERO };
        loop {
            let mut got =
                self.client(step).ask(name(&step["event"]), self.values(&step["args"], 0))?;
            if let Some(key) = step.get("save") {
                self.saved.insert(name(key).to_owned(), got.swap_remove(0));
                return Ok(());
            }
            let result = equal(&got, &self.values(&step["acked"], 0));
            if result.is_ok() || Instant::now() >= give_up {
                return result;
            }
        }
    }

    fn emit(&self, step: &Value) -> Done {
        let times = step["times"].as_u64().unwrap_or(1);
        (0..times).try_for_each(|n| {
            self.client(step).emit(name(&step["event"]), self.values(&step["args"], n))
        })
    }

    fn round_trip(&self, step: &Value) -> Done {
        let client = self.client(step);
        let args = self.values(&step["args"], 0);
        equal(&client.ask("echo", args.clone())?, &args)?;
        let please = [vec![json!("back to you")], args].concat();
        client.emit("please", please)?;
        self.heard(&json!({"who": step["who"], "event": "back to you", "list": [step["args"]]}))
    }

    fn heard(&self, step: &Value) -> Done {
        let expected: Vec<_> = match step["list"].as_array() {
            Some(list) => list.iter().map(|args| self.values(args, 0)).collect(),
            None => (0..step["times"].as_u64().unwrap_or(1))
                .map(|n| self.values(&step["args"], n))
                .collect(),
        };
        let event = name(&step["event"]);
        let client = self.client(step);
        client.until(&format!("{} of {event}", expected.len()), |hall| {
            hall.heard.get(event).map_or(0, Vec::len) >= expected.len()
        })?;
        let got = client.hall.lock().unwrap().heard.remove(event).unwrap_or_default();
        equal(&got, &expected)
    }

    fn seen(&self, step: &Value) -> Done {
        let expected = self.values(&step["args"], 0);
        let event = name(&step["event"]);
        let leading = step["leading"] == true;
        let fits = |args: &Vec<Value>| {
            if leading { args.starts_with(&expected) } else { *args == expected }
        };
        self.client(step).until(&format!("{event} {expected:?}"), |hall| {
            hall.heard.get(event).is_some_and(|heard| heard.iter().any(fits))
        })
    }

    fn client(&self, step: &Value) -> &Client {
        let who = name(&step["who"]);
        self.clients.get(who).unwrap_or_else(|| panic!("nobody is called {who}"))
    }

    fn values(&self, args: &Value, n: u64) -> Vec<Value> {
        args.as_array()
            .expect("arguments are a list")
            .iter()
            .map(|value| self.expand(value, n))
            .collect()
    }

    /// What a value of the list stands for; binary stays as it is written.
    fn expand(&self, value: &Value, n: u64) -> Value {
        match value {
            Value::Array(list) => list.iter().map(|each| self.expand(each, n)).collect(),
            Value::Object(object) => self.expand_object(object, n),
            scalar => scalar.clone(),
        }
    }

    fn expand_object(&self, object: &Map<String, Value>, n: u64) -> Value {
        if let Some(key) = object.get("$") {
            self.saved[name(key)].clone()
        } else if let Some(text) = object.get("$unique") {
            json!(format!("{} {}", name(text), self.run))
        } else if object.contains_key("$n") {
            json!(n)
        } else if let Some(text) = object.get("$text") {
            json!(name(text).repeat(object["times"].as_u64().expect("a number of times") as usize))
        } else if object.contains_key("$bytes") {
            Value::Object(object.clone())
        } else {
            object.iter().map(|(key, each)| (key.clone(), self.expand(each, n))).collect()
        }
    }
}

fn name(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn equal<T: PartialEq + std::fmt::Debug>(got: &T, expected: &T) -> Done {
    if got == expected {
        return Ok(());
    }
    let shown = |value: &T| format!("{value:?}").chars().take(400).collect::<String>();
    Err(format!("got {}, expected {}", shown(got), shown(expected)))
}
