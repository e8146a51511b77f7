//! The API registry in `/`: the application of api.io's README, and what its suites ask for besides.

use std::sync::Arc;
use std::time::Duration;

use flotilla::apps::api::{
    Api, ApiError, ApiHandle, Exports, Query, QueryLimits, Refusal, Work, api,
};
use flotilla::server::{EmitError, Io, Session, Socket};
use flotilla::socketio::Binary;
use serde::Serialize;
use serde_json::{Map, Value, json};

pub fn register(io: &Io) {
    let api = Api::new(io);
    let registered = [
        api.register("myApi", Exports::from(MyApi).constant("OBJ", json!({"a": [1, {"b": 2}]}))),
        api.register("myApi2", MyApi2),
        api.register("tools", tools(&api)),
    ];
    for result in registered {
        result.expect("none of these names is taken");
    }
    api.serve_definitions(io, "/api.io/definitions.json");
    api.auth_handler(async |socket: Socket| match cookie(&socket) {
        Some("apiio=refused by error") => Err(Refusal::Error("unauthorized".to_owned())),
        Some("apiio=refused by text") => Err(Refusal::Text("nope".to_owned())),
        Some("apiio=refused by nothing") => Err(Refusal::Unsaid),
        _ => Ok(()),
    });
    api.on_connection(async |socket: Socket| {
        let written = socket.session().update(|session| {
            session.insert("username".to_owned(), "guest".into());
        });
        // A client without its name would only miss what is meant for guests.
        let _ = written.await;
    });
}

fn cookie(socket: &Socket) -> Option<&str> {
    let mut headers = socket.handshake().headers.iter();
    headers.find(|(name, _)| &**name == "cookie").map(|(_, value)| &**value)
}

/// The README's, with the emits of its `run` behind a call.
struct MyApi;

#[api]
impl MyApi {
    #[export]
    const VALUE: &'static str = "const";
    #[export]
    const NOTHING: () = ();

    #[export]
    fn sum(a: f64, b: f64) -> f64 {
        a + b
    }

    #[export("sumAsync")]
    async fn sum_async(a: f64, b: f64) -> f64 {
        tokio::task::yield_now().await;
        a + b
    }

    #[export]
    async fn send(my_api: ApiHandle, data: Value) -> Result<(), EmitError> {
        my_api.emit("event4", &data).await
    }

    #[export]
    async fn announce(my_api: ApiHandle) -> Result<(), EmitError> {
        my_api.emit("event1", "Hello World!").await?;
        my_api.emit_filtered("event2", "Hello World!", json!({"username": "guest"})).await?;
        my_api.emit_filtered("event2", "for nobody", json!({"username": "admin"})).await?;
        for value in 1..=5 {
            my_api.emit("event3", &value).await?;
        }
        Ok(())
    }

    #[export]
    fn who(session: Session) -> Arc<Map<String, Value>> {
        session.get()
    }

    #[export]
    fn fail(x: String) -> Result<(), String> {
        Err(format!("boom {x}"))
    }

    #[export]
    fn buf(b: Binary) -> Buffer {
        Buffer { len: b.0.len(), is_buf: true, echo: b }
    }
}

#[derive(Serialize)]
struct Buffer {
    len: usize,
    #[serde(rename = "isBuf")]
    is_buf: bool,
    echo: Binary,
}

struct MyApi2;

#[api]
impl MyApi2 {
    #[export]
    async fn send(my_api2: ApiHandle) -> Result<(), EmitError> {
        my_api2.emit("eventX", "Over myApi2").await
    }
}

/// For the suites: what a query makes of values, names that are registered late, and a way to wait
/// until all nodes know of a subscription.
fn tools(api: &Api) -> Exports {
    let [late, waiting] = [api.clone(), api.clone()];
    Exports::new()
        .function("matches", ["query", "values"], async |_: Session, (query, values)| {
            matches(&query, values)
        })
        .function("remember", ["key", "value"], async |session: Session, (key, value): Pair| {
            let written = session.update(move |session| {
                session.insert(key.clone(), value.clone());
            });
            Ok(written.await?)
        })
        .function("registerLate", ["name"], move |_: Session, name: String| {
            let registered =
                late.register(&name, Exports::new().constant("NAME", name.as_str())).map(drop);
            async move { Ok(registered?) }
        })
        .function("emit", ["name", "event", "data"], {
            move |_: Session, (name, event, data): (String, String, Value)| {
                let handle = waiting.handle(&name);
                async move { emit(handle.emit(&event, &data)).await }
            }
        })
}

async fn emit(sent: impl Future<Output = Result<(), EmitError>>) -> Result<(), ApiError> {
    tokio::time::timeout(Duration::from_secs(10), sent).await??;
    Ok(())
}

type Pair = (String, Value);

/// For each value whether it matches; or why the query is refused, as a text.
fn matches(query: &Value, values: Vec<Value>) -> Result<Value, ApiError> {
    Ok(match Query::parse(query, &QueryLimits::default()) {
        Ok(query) => {
            let work = || Work::new(1_000_000);
            values.iter().map(|value| query.matches(Some(value), &work())).collect()
        }
        Err(error) => error.to_string().into(),
    })
}
