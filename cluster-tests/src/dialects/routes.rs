//! Routes in the namespace `/routes`: what a suite needs to see each verb of them from clients of three nodes.

use flotilla::apps::routes::{Group, Request, RouteError, Routes};
use flotilla::server::{ConnectError, Io, Socket};
use serde_json::{Value, json};

pub fn register(io: &Io) {
    let app = Routes::of(io, "/routes");
    app.with(async |socket: Socket| match socket.auth::<Value>() {
        Ok(auth) if auth["banned"] == true => Err(ConnectError::new("banned")),
        _ => Ok(()),
    });
    serve(&app).expect("none of these names is reserved");
}

fn serve(app: &Routes) -> Result<(), RouteError> {
    app.route("ready", async |req: Request| {
        req.io().emit("talk", &("several", json!({"arguments": true})));
    })?;
    app.route("echo", async |req: Request| -> Result<(), RouteError> {
        req.io().respond(&(req.raw(), req.route_name()));
        Ok(())
    })?;
    app.route("who", who)?;
    app.route("shout", async |req: Request| -> Result<(), RouteError> {
        let sent = req.io().broadcast("shouted", &req.raw()).await;
        answer(&req, sent)
    })?;
    app.route("news", async |req: Request| -> Result<(), RouteError> {
        let sent = req.routes().broadcast("news", &("for all", req.raw())).await;
        answer(&req, sent)
    })?;
    app.route("rooms", rooms())?;
    app.route("forward", forwarding())?;
    app.route("fails", async |req: Request| -> Result<(), RouteError> {
        let reason: String = req.data()?;
        if reason == "panic" {
            panic!("as the client wants")
        }
        Err(RouteError::new(reason))
    })?;
    app.route("own", Group::new().route("set", own))?;
    app.route("boot", async |req: Request| {
        req.io().disconnect();
    })?;
    app.route("add", async |req: Request| -> Result<(), RouteError> {
        req.routes().route("added", async |req: Request| req.io().respond(&"late"))?;
        req.io().respond(&());
        Ok(())
    })?;
    Ok(())
}

fn answer<E: Into<RouteError>>(req: &Request, done: Result<(), E>) -> Result<(), RouteError> {
    done.map_err(Into::into)?;
    req.io().respond(&());
    Ok(())
}

async fn who(req: Request) -> Result<(), RouteError> {
    let name = req.io().get("name")?;
    let session = req.session()?;
    let visits = session.update(|session| {
        let visits = session.get("visits").and_then(Value::as_u64).unwrap_or(0);
        session.insert("visits".to_owned(), (visits + 1).into());
    });
    visits.await?;
    req.io().respond(&json!({
        "id": req.socket()?.id(),
        "name": name,
        "visits": session.get()["visits"],
        "taste": req.cookie("taste"),
        "agent": req.headers().get("x-agent").and_then(|agent| agent.to_str().ok()),
        "query": req.handshake()?.query.get("lang"),
    }));
    Ok(())
}

fn rooms() -> Group {
    Group::new()
        .route("join", async |req: Request| -> Result<(), RouteError> {
            let joined = req.io().join(req.data::<String>()?).await;
            answer(&req, joined)
        })
        .route("leave", async |req: Request| -> Result<(), RouteError> {
            let left = req.io().leave(req.data::<String>()?).await;
            answer(&req, left)
        })
        .route("tell", async |req: Request| -> Result<(), RouteError> {
            let room: String = req.data()?;
            let told = req.io().room(&*room).broadcast("told", &("but me", &room)).await;
            answer(&req, told)
        })
        .route("tell all", async |req: Request| -> Result<(), RouteError> {
            let room: String = req.data()?;
            let told = req.routes().room(&*room).broadcast("told", &("all", &room)).await;
            answer(&req, told)
        })
}

fn forwarding() -> Group {
    Group::new()
        .route("on", async |req: Request| req.io().route("echo").await)
        .route("nested", async |req: Request| req.io().route("forward:on").await)
        .route("nowhere", async |req: Request| req.io().route("nowhere").await)
        .route("circle", async |req: Request| req.io().route("forward:circle").await)
}

async fn own(req: Request) -> Result<(), RouteError> {
    req.io().set("name", req.data::<Value>()?)?;
    req.io().on("own", async |req: Request| -> Result<(), RouteError> {
        req.io().respond(&req.io().get("name")?);
        Ok(())
    })?;
    req.io().respond(&());
    Ok(())
}
