//! One client of the crate, and what it heard.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rust_socketio::client::Client as Inner;
use rust_socketio::{ClientBuilder, Event, Payload, TransportType};
use serde_json::{Value, json};

pub const PATIENCE: Duration = Duration::from_secs(20);
/// What the crate puts before the payload of a CONNECT_ERROR.
const REFUSED: &str = "Received an ConnectError frame: ";

/// What one socket heard.
#[derive(Debug, Default)]
pub struct Hall {
    pub is_connected: bool,
    pub is_gone: bool,
    pub refusals: Vec<Value>,
    pub errors: Vec<String>,
    pub heard: HashMap<String, Vec<Vec<Value>>>,
}

pub struct Client {
    inner: Inner,
    pub hall: Arc<Mutex<Hall>>,
}

impl Client {
    pub fn open(
        url: &str,
        transport: TransportType,
        namespace: &str,
        auth: Option<Value>,
    ) -> Result<Self, String> {
        let hall = Arc::new(Mutex::new(Hall::default()));
        let [opened, failed, closed, heard] = std::array::from_fn(|_| hall.clone());
        let mut builder = ClientBuilder::new(url)
            .namespace(namespace)
            .transport_type(transport)
            .reconnect(false)
            .on(Event::Connect, move |_, _| opened.lock().unwrap().is_connected = true)
            .on(Event::Error, move |payload, _| failed.lock().unwrap().fail(&values(payload)))
            .on(Event::Close, move |_, _| closed.lock().unwrap().is_gone = true)
            .on_any(move |event, payload, _| heard.lock().unwrap().hear(&event, values(payload)));
        if let Some(auth) = auth {
            builder = builder.auth(auth);
        }
        let inner = builder.connect().map_err(|error| error.to_string())?;
        Ok(Self { inner, hall })
    }

    pub fn emit(&self, event: &str, args: Vec<Value>) -> Result<(), String> {
        self.inner.emit(event, payload(args)).map_err(|error| error.to_string())
    }

    pub fn ask(&self, event: &str, args: Vec<Value>) -> Result<Vec<Value>, String> {
        let answer = Arc::new(Mutex::new(None));
        let slot = answer.clone();
        let answered = move |payload: Payload, _: _| *slot.lock().unwrap() = Some(values(payload));
        self.inner
            .emit_with_ack(event, payload(args), PATIENCE, answered)
            .map_err(|error| error.to_string())?;
        self.until(&format!("the ack of {event}"), |_hall| answer.lock().unwrap().is_some())?;
        // The crate hands on the whole list of arguments as one value.
        match answer.lock().unwrap().take().and_then(|mut values| values.pop()) {
            Some(Value::Array(args)) => Ok(args),
            other => Err(format!("an ack of {other:?}")),
        }
    }

    pub fn leave(&self) -> Result<(), String> {
        self.inner.disconnect().map_err(|error| error.to_string())
    }

    pub fn until(&self, what: &str, probe: impl Fn(&Hall) -> bool) -> Result<(), String> {
        let give_up = Instant::now() + PATIENCE;
        while !probe(&self.hall.lock().unwrap()) {
            if Instant::now() > give_up {
                let state: String =
                    format!("{:?}", self.hall.lock().unwrap()).chars().take(600).collect();
                return Err(format!("waited for {what}; last state: {state}"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Hall {
    fn fail(&mut self, values: &[Value]) {
        let text = values.first().and_then(Value::as_str).unwrap_or_default();
        match text.strip_prefix(REFUSED).map(serde_json::from_str) {
            Some(Ok(refusal)) => self.refusals.push(refusal),
            _ => self.errors.push(text.to_owned()),
        }
    }

    fn hear(&mut self, event: &Event, mut args: Vec<Value>) {
        let mut name = event.as_str().to_owned();
        // The crate calls an event without arguments `message`, with the event's name for an argument.
        if let (Event::Message, [Value::String(event)]) = (event, args.as_slice()) {
            name = event.clone();
            args.clear();
        }
        self.heard.entry(name).or_default().push(args);
    }
}

/// A list with one binary value in it is the crate's binary payload; it has no other.
fn payload(args: Vec<Value>) -> Payload {
    match args.as_slice() {
        [Value::Object(object)] if object.contains_key("$bytes") => {
            let bytes = object["$bytes"].as_array().into_iter().flatten();
            let bytes: Vec<u8> = bytes.map(|byte| byte.as_u64().expect("a byte") as u8).collect();
            Payload::from(bytes)
        }
        _ => Payload::Text(args),
    }
}

fn values(payload: Payload) -> Vec<Value> {
    match payload {
        Payload::Text(values) => values,
        Payload::Binary(bytes) => vec![json!({"$bytes": bytes.to_vec()})],
        other => panic!("an old kind of payload: {other:?}"),
    }
}
