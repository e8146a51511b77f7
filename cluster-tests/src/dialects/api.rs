//! The API registry in `/`: the application of api.io's README, and what its suites ask for besides.

use std::time::Duration;

use flotilla::apps::api::{Api, ApiError, Exports, Query, QueryLimits, Refusal};
use flotilla::server::{EmitError, Io, Session, Socket};
use flotilla::socketio::Binary;
use serde::Deserialize;
use serde_json::{Map, Value, json};

pub fn register(io: &Io) {
    let api = Api::new(io);
    let registered = [
        api.register("myApi", my_api(&api)),
        api.register("myApi2", my_api2(&api)),
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

#[derive(Deserialize)]
struct Terms {
    a: i64,
    b: i64,
}

/// The README's, with the emits of its `run` behind a call.
fn my_api(api: &Api) -> Exports {
    let [sending, announcing] = [api.handle("myApi"), api.handle("myApi")];
    Exports::new()
        .constant("VALUE", "const")
        .constant("OBJ", json!({"a": [1, {"b": 2}]}))
        .constant("NOTHING", Value::Null)
        .function("sum", ["a", "b"], async |_: Session, (a, b): (i64, i64)| Ok(a + b))
        .function_of("sumAsync", async |_: Session, Terms { a, b }: Terms| {
            tokio::task::yield_now().await;
            Ok(a + b)
        })
        .function("send", ["data"], move |_: Session, data: Value| {
            let sending = sending.clone();
            async move { Ok(sending.emit("event4", &data).await?) }
        })
        .function("announce", [""; 0], move |_: Session, ()| {
            let announcing = announcing.clone();
            async move {
                announcing.emit("event1", "Hello World!").await?;
                let guests = json!({"username": "guest"});
                announcing.emit_filtered("event2", "Hello World!", guests).await?;
                let admins = json!({"username": "admin"});
                announcing.emit_filtered("event2", "for nobody", admins).await?;
                for value in 1..=5 {
                    announcing.emit("event3", &value).await?;
                }
                Ok(())
            }
        })
        .function("who", [""; 0], async |session: Session, ()| Ok(session.get()))
        .function("fail", ["x"], async |_: Session, x: String| {
            Err::<(), _>(ApiError::new(format!("boom {x}")))
        })
        .function("buf", ["b"], async |_: Session, b: Binary| {
            let mut answer = Map::new();
            answer.insert("len".to_owned(), b.0.len().into());
            answer.insert("isBuf".to_owned(), true.into());
            Ok(Buffer { answer, echo: b })
        })
}

#[derive(serde::Serialize)]
struct Buffer {
    #[serde(flatten)]
    answer: Map<String, Value>,
    echo: Binary,
}

fn my_api2(api: &Api) -> Exports {
    let my_api2 = api.handle("myApi2");
    Exports::new().function("send", [""; 0], move |_: Session, ()| {
        let my_api2 = my_api2.clone();
        async move { Ok(my_api2.emit("eventX", "Over myApi2").await?) }
    })
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
        Ok(query) => values.iter().map(|value| query.matches(Some(value))).collect(),
        Err(error) => error.to_string().into(),
    })
}
