//! Sessions that clients come back to: by cookie, query and CONNECT, on any node.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::client::Client;
use common::roaming::{Answer, receive, send};
use common::{TestNode, start, start_with, until};
use flotilla::adapter::RecoveryConfig;
use flotilla::config::Config;
use flotilla::raft::state::SessionId;
use flotilla::server::{
    Ack, Data, ErrorContext, Io, Secret, Session, SessionConfig, SessionError, SessionSource,
    Socket,
};
use http::HeaderMap;
use serde_json::{Value, json};

const OPEN: &str = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\n";

fn application(io: &Io) {
    let kept = io.of_recoverable("/kept", RecoveryConfig::default());
    for namespace in [io.of("/"), io.of("/other"), kept] {
        namespace
            .on("get", async |session: Session, ack: Ack| ack.send(&*session.get()).unwrap())
            .on("id", async |session: Session, ack: Ack| ack.send(&session.id()).unwrap())
            .on("token", async |session: Session, ack: Ack| ack.send(&session.token()).unwrap())
            .on(
                "set",
                async |session: Session, Data((key, value)): Data<(String, Value)>, ack: Ack| {
                    let set = session.update(move |session| {
                        session.insert(key.clone(), value.clone());
                    });
                    ack.send(&set.await.map_err(SessionError::as_str)).unwrap();
                },
            )
            .on("destroy", async |session: Session, ack: Ack| {
                ack.send(&session.destroy().await.map_err(SessionError::as_str)).unwrap();
            })
            .on("regenerate", async |session: Session, ack: Ack| {
                let regenerated = session.regenerate().await;
                ack.send(&regenerated.map(|session| session.token()).map_err(SessionError::as_str))
                    .unwrap();
            })
            .on("ping", async |ack: Ack| ack.send(&()).unwrap());
    }
}

fn settings() -> SessionConfig {
    SessionConfig {
        sources: vec![SessionSource::Auth, SessionSource::Cookie, SessionSource::Query],
        secrets: vec![Secret::from("new"), Secret::from("old")],
        index: vec!["name".to_owned()],
        ..SessionConfig::default()
    }
}

async fn one(session: SessionConfig) -> TestNode {
    start_with("n1", Vec::new(), |config| config.session = session, application).await
}

async fn three(session: SessionConfig) -> [TestNode; 3] {
    let with = |expect| {
        let session = session.clone();
        move |config: &mut Config| {
            config.session = session;
            config.cluster.bootstrap_expect = expect;
        }
    };
    let first = start_with("n1", Vec::new(), with(1), application).await;
    let seeds = vec![first.node.addresses().cluster.to_string()];
    let second = start_with("n2", seeds.clone(), with(3), application).await;
    let third = start_with("n3", seeds, with(3), application).await;
    [first, second, third]
}

/// The cookie that an answer sets, as a browser would send it.
fn set_cookie(headers: &HeaderMap) -> Option<String> {
    let cookie = headers.get("set-cookie")?.to_str().unwrap();
    Some(cookie.split(';').next().unwrap().to_owned())
}

fn cookie_of(answer: &Answer) -> Option<&str> {
    let (_, cookie) = answer.headers.iter().find(|(name, _)| name == "set-cookie")?;
    Some(cookie)
}

/// A client in `/`, with the cookie that it was given.
async fn newcomer(node: &TestNode) -> (Client, String) {
    let (mut client, headers) = Client::open_by(node.node.addresses().listen, "EIO=4", &[]).await;
    client.connect("/", "").await;
    (client, set_cookie(&headers).expect("a new client gets a cookie"))
}

/// A client in `/` that comes with a cookie, and the one that it was given, if any.
async fn with_cookie(node: &TestNode, cookie: &str) -> (Client, Option<String>) {
    let headers = [("cookie", cookie)];
    let (mut client, headers) =
        Client::open_by(node.node.addresses().listen, "EIO=4", &headers).await;
    client.connect("/", "").await;
    (client, set_cookie(&headers))
}

async fn set(client: &mut Client, key: &str, value: Value) {
    assert_eq!(client.call(&json!(["set", key, value])).await, json!({"Ok": null}));
}

async fn open_polling(node: &TestNode, headers: &str) -> Answer {
    let head = format!("{OPEN}{headers}");
    receive(send(node.node.addresses().listen, &head, b"").await).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_finds_its_session_on_every_node() {
    let nodes = three(settings()).await;
    let (mut first, cookie) = newcomer(&nodes[0]).await;
    assert!(cookie.starts_with("flotilla.sid=s%3A"), "{cookie}");
    set(&mut first, "name", json!("ann")).await;
    let id = first.call(&json!(["id"])).await;
    for node in &nodes {
        let (mut again, news) = with_cookie(node, &cookie).await;
        assert_eq!(news, None, "it has its cookie");
        assert_eq!(again.call(&json!(["id"])).await, id);
        assert_eq!(again.call(&json!(["get"])).await, json!({"name": "ann"}));
        set(&mut again, "name", json!("bob")).await;
        until("the other socket to see it", async || {
            (first.call(&json!(["get"])).await == json!({"name": "bob"})).then_some(())
        })
        .await;
        set(&mut again, "name", json!("ann")).await;
    }
    // It outlives its sockets.
    drop(first);
    until("all sockets to be gone", async || {
        nodes[1].io().of("/").fetch_sockets().is_empty().then_some(())
    })
    .await;
    let (mut again, news) = with_cookie(&nodes[2], &cookie).await;
    assert_eq!((again.call(&json!(["id"])).await, news), (id, None));
    assert_eq!(again.call(&json!(["get"])).await, json!({"name": "ann"}));
}

#[tokio::test]
async fn cookie_has_the_attributes_of_the_settings() {
    let node = one(settings()).await;
    let cookie = cookie_of(&open_polling(&node, "").await).unwrap().to_owned();
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{cookie}");
    // It holds before there is a socket.
    let known = open_polling(&node, &format!("Cookie: {cookie}\r\n")).await;
    assert_eq!(cookie_of(&known), None, "{known:?}");
    assert_eq!(node.io().of("/").fetch_sockets().len(), 0);

    let mut session = settings();
    session.cookie.name = "apiio".to_owned();
    session.cookie.max_age = Some(Duration::from_secs(60));
    session.cookie.secure = true;
    session.secrets = Vec::new();
    session.require_signed = false;
    let node = one(session).await;
    let cookie = cookie_of(&open_polling(&node, "").await).unwrap().to_owned();
    assert!(cookie.starts_with("apiio=") && !cookie.contains("s%3A"), "{cookie}");
    assert!(cookie.contains("; Max-Age=60; Path=/; HttpOnly; Secure;"), "{cookie}");
}

#[tokio::test]
async fn bad_signature_is_refused_and_its_cookie_taken_away() {
    let node = one(settings()).await;
    let refusals = Arc::new(Mutex::new(Vec::new()));
    let kept = refusals.clone();
    node.io().engine().on_connection_error(move |error| {
        kept.lock().unwrap().push(error.context.clone());
    });
    let (_client, cookie) = newcomer(&node).await;
    let forged = format!("{}x", &cookie[..cookie.len() - 1]);
    let why = "the session's signature is not valid";
    for value in [&forged[..], "flotilla.sid=s:nonsense", "flotilla.sid=s%3AAAAAAAAAAAAAAAAAAAAA."]
    {
        let refused = open_polling(&node, &format!("Cookie: {value}\r\n")).await;
        assert_eq!(refused.status, 403, "{value}: {refused:?}");
        assert_eq!(refused.body, format!(r#"{{"code":4,"message":"{why}"}}"#));
        let cleared = cookie_of(&refused).unwrap();
        assert!(cleared.starts_with("flotilla.sid=; Max-Age=0;"), "{cleared}");
    }
    let unsigned = open_polling(&node, "Cookie: flotilla.sid=AAAAAAAAAAAAAAAAAAAA\r\n").await;
    assert_eq!(unsigned.status, 403, "{unsigned:?}");
    let forbidden = |message: &str| ErrorContext::Forbidden { message: Some(message.to_owned()) };
    let mut told = vec![forbidden(why); 3];
    told.push(forbidden("the session's id is not signed"));
    assert_eq!(*refusals.lock().unwrap(), told);

    let mut client = node.open().await;
    client.ask("/", r#"{"session":"s:nonsense"}"#).await;
    client.expect(&format!(r#"4{{"message":"{why}","data":{{"code":"BadSession"}}}}"#)).await;
    client.connect("/", "").await;
}

#[tokio::test]
async fn client_cannot_choose_an_id_that_does_not_exist() {
    let mut session = settings();
    session.secrets = Vec::new();
    session.require_signed = false;
    let node = one(session).await;
    let chosen = "AAAAAAAAAAAAAAAAAAAA";
    let (mut client, news) = with_cookie(&node, &format!("flotilla.sid={chosen}")).await;
    let id = client.call(&json!(["id"])).await;
    assert_ne!(id, json!(chosen));
    assert_eq!(news, Some(format!("flotilla.sid={}", id.as_str().unwrap())));
    let mut shown = node.open().await;
    shown.connect("/", &json!({"session": chosen}).to_string()).await;
    assert_ne!(shown.call(&json!(["id"])).await, json!(chosen));
    // Nor what is no id at all.
    for value in ["", "%00", "../../etc/passwd", "s:a.b"] {
        let opened = open_polling(&node, &format!("Cookie: flotilla.sid={value}\r\n")).await;
        assert_eq!(opened.status, 200, "{value}: {opened:?}");
        assert!(cookie_of(&opened).is_some(), "{value}");
    }
}

#[tokio::test]
async fn sources_are_asked_in_their_order() {
    let node = one(settings()).await;
    let (mut ann, ann_cookie) = newcomer(&node).await;
    let (mut bob, _) = newcomer(&node).await;
    let [ann_id, bob_id] = [ann.call(&json!(["id"])).await, bob.call(&json!(["id"])).await];
    let bob_token = bob.call(&json!(["token"])).await.as_str().unwrap().to_owned();
    let address = node.node.addresses().listen;

    // The query, if there is no cookie; as it is, or as a whole cookie header (express.io).
    let escaped = bob_token.replace('+', "%2B");
    for query in [
        format!("session={escaped}"),
        format!("session=a%3D1;flotilla.sid%3D{}", escaped.replace('%', "%25")),
    ] {
        let (mut client, news) = Client::open_by(address, &format!("EIO=4&{query}"), &[]).await;
        client.connect("/", "").await;
        assert_eq!(client.call(&json!(["id"])).await, bob_id, "{query}");
        assert!(set_cookie(&news).is_none());
    }
    // A cookie goes before the query, and what comes with the CONNECT before both.
    let headers = [("cookie", &*ann_cookie)];
    let query = format!("EIO=4&session={escaped}");
    let (mut client, _) = Client::open_by(address, &query, &headers).await;
    client.connect("/", "").await;
    assert_eq!(client.call(&json!(["id"])).await, ann_id);
    let (mut client, _) = Client::open_by(address, "EIO=4", &headers).await;
    client.connect("/", &json!({"session": bob_token}).to_string()).await;
    assert_eq!(client.call(&json!(["id"])).await, bob_id);

    let mut session = settings();
    session.sources = vec![SessionSource::Cookie, SessionSource::Auth];
    let node = one(session).await;
    let (mut ann, ann_cookie) = newcomer(&node).await;
    let (mut bob, _) = newcomer(&node).await;
    let ann_id = ann.call(&json!(["id"])).await;
    let bob_id = bob.call(&json!(["id"])).await;
    let auth = json!({"session": bob.call(&json!(["token"])).await}).to_string();
    let headers = [("cookie", &*ann_cookie)];
    let (mut client, _) = Client::open_by(node.node.addresses().listen, "EIO=4", &headers).await;
    client.connect("/", &auth).await;
    assert_eq!(client.call(&json!(["id"])).await, ann_id, "the cookie goes before");
    let mut client = node.open().await;
    client.connect("/", &auth).await;
    assert_eq!(client.call(&json!(["id"])).await, bob_id, "there is no cookie");
}

#[tokio::test]
async fn client_without_a_session_is_refused_where_one_is_required() {
    let required = |sources| SessionConfig { required: true, sources, ..settings() };
    let node = one(required(vec![SessionSource::Cookie, SessionSource::Query])).await;
    let refused = open_polling(&node, "").await;
    assert_eq!(refused.status, 403);
    assert_eq!(refused.body, r#"{"code":4,"message":"no session is shown"}"#);
    // A page gives clients theirs; what a client shows need not be there any more.
    let session = node.io().session("AAAAAAAAAAAAAAAAAAAA".parse().unwrap());
    let shown = session.cookie().unwrap().to_str().unwrap().to_owned();
    let (_client, news) = with_cookie(&node, shown.split(';').next().unwrap()).await;
    assert!(news.is_some());

    let node = one(required(vec![SessionSource::Cookie, SessionSource::Auth])).await;
    let mut client = node.open().await;
    client.ask("/", "").await;
    client.expect(r#"4{"message":"no session is shown","data":{"code":"NoSession"}}"#).await;
    client.connect("/", &json!({"session": session.token()}).to_string()).await;
}

#[tokio::test]
async fn secrets_can_be_replaced_while_sessions_live() {
    let node = one(SessionConfig { secrets: vec![Secret::from("old")], ..settings() }).await;
    let (mut client, cookie) = newcomer(&node).await;
    let old = client.call(&json!(["token"])).await;
    let signed_by = |secrets: &[&str]| {
        let secrets = secrets.iter().map(|secret| Secret::from(*secret)).collect();
        one(SessionConfig { secrets, ..settings() })
    };
    // Each node is a cluster of its own: what the old secret signed is known, though no session.
    let rotated = signed_by(&["new", "old"]).await;
    let (mut client, news) = with_cookie(&rotated, &cookie).await;
    assert!(news.is_some());
    assert_ne!(client.call(&json!(["token"])).await, old);
    let forgotten = signed_by(&["new"]).await;
    let refused = open_polling(&forgotten, &format!("Cookie: {cookie}\r\n")).await;
    assert_eq!(refused.status, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_that_nobody_uses_ends_on_all_nodes() {
    let nodes = three(SessionConfig { max_age: Duration::from_secs(1), ..settings() }).await;
    let (mut client, cookie) = newcomer(&nodes[0]).await;
    set(&mut client, "name", json!("ann")).await;
    let id = client.call(&json!(["id"])).await.as_str().unwrap().parse().unwrap();
    let sessions: Vec<Session> = nodes.iter().map(|node| node.io().session(id)).collect();
    assert!(sessions[0].expires_at().is_some());
    drop(client);
    for session in &sessions {
        until("the session to end", async || session.expires_at().is_none().then_some(())).await;
        assert!(session.get().is_empty());
    }
    let (mut again, news) = with_cookie(&nodes[2], &cookie).await;
    assert!(news.is_some(), "a session that is over is another one");
    assert_eq!(again.call(&json!(["get"])).await, json!({}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn destroyed_session_is_empty_and_takes_no_writes() {
    let nodes = three(settings()).await;
    let (mut ann, cookie) = newcomer(&nodes[0]).await;
    let (mut twin, _) = with_cookie(&nodes[1], &cookie).await;
    set(&mut ann, "name", json!("ann")).await;
    assert_eq!(ann.call(&json!(["destroy"])).await, json!({"Ok": null}));
    assert_eq!(ann.call(&json!(["get"])).await, json!({}));
    until("the other node to know", async || {
        (twin.call(&json!(["get"])).await == json!({})).then_some(())
    })
    .await;
    for client in [&mut ann, &mut twin] {
        assert_eq!(client.call(&json!(["set", "name", "eve"])).await, json!({"Err": "Over"}));
    }
    nodes[2].io().of("/").session(json!({"name": "ann"})).emit("msg", &1).await.unwrap();
    assert_eq!(ann.so_far().await, [""; 0]);
    // A further namespace of the connection does not bring it back.
    ann.connect("/other", "").await;
    ann.send(r#"2/other,1["set","name","eve"]"#).await;
    ann.expect(r#"3/other,1[{"Err":"Over"}]"#).await;
    let (mut again, news) = with_cookie(&nodes[2], &cookie).await;
    assert!(news.is_some());
    set(&mut again, "name", json!("new")).await;
}

#[tokio::test]
async fn regenerated_session_has_an_id_that_nobody_knew() {
    let node = one(settings()).await;
    let (mut client, cookie) = newcomer(&node).await;
    set(&mut client, "name", json!("ann")).await;
    let token = client.call(&json!(["regenerate"])).await["Ok"].as_str().unwrap().to_owned();
    assert_eq!(client.call(&json!(["set", "name", "eve"])).await, json!({"Err": "Over"}));
    let mut fresh = node.open().await;
    fresh.connect("/", &json!({"session": token}).to_string()).await;
    assert_eq!(fresh.call(&json!(["token"])).await, json!(token));
    assert_eq!(fresh.call(&json!(["get"])).await, json!({}));
    set(&mut fresh, "name", json!("ann")).await;
    assert!(with_cookie(&node, &cookie).await.1.is_some(), "the old id is none any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_is_saved_only_if_nothing_came_between() {
    let nodes = three(settings()).await;
    let (mut client, _) = newcomer(&nodes[0]).await;
    set(&mut client, "n", json!(1)).await;
    let id = client.call(&json!(["id"])).await.as_str().unwrap().parse().unwrap();
    let [here, there] = [nodes[0].io().session(id), nodes[1].io().session(id)];
    let mut reading = there.reload().await.unwrap();
    assert_eq!(Value::Object(reading.object.clone()), json!({"n": 1}));
    let late = reading.clone();
    reading.object.insert("n".to_owned(), json!(2));
    there.save(reading).await.unwrap();
    let stale = here.reload().await.unwrap();
    assert_eq!(Value::Object(stale.object.clone()), json!({"n": 2}));
    let conflict = there.save(late.clone()).await;
    assert!(
        matches!(conflict, Err(SessionError::Conflict { read, .. }) if read == late.revision),
        "{conflict:?}"
    );
    // One that the other node has not heard of yet conflicts at its place in the log.
    let updated = here.update(|session| drop(session.insert("n".to_owned(), json!(3))));
    let raced = there.save(stale.clone());
    updated.await.unwrap();
    let raced = raced.await;
    assert!(matches!(raced, Ok(()) | Err(SessionError::Conflict { .. })), "{raced:?}");
    assert_eq!(here.reload().await.unwrap().object["n"], json!(3));
    #[derive(serde::Deserialize, PartialEq, Debug)]
    struct Counter {
        n: u64,
    }
    assert_eq!(here.get_as::<Counter>().unwrap(), Counter { n: 3 });
    here.touch().await.unwrap();
    assert!(here.expires_at().unwrap() > std::time::SystemTime::now());
}

#[tokio::test]
async fn without_sources_each_connection_has_a_session_of_its_own() {
    let node = start(application).await;
    let opened = open_polling(&node, "Cookie: flotilla.sid=s:x.y\r\n").await;
    assert_eq!((opened.status, cookie_of(&opened)), (200, None));
    let [mut ann, mut bob] = [node.connect().await, node.connect().await];
    assert_ne!(ann.call(&json!(["id"])).await, bob.call(&json!(["id"])).await);
    assert_eq!(ann.call(&json!(["token"])).await, Value::Null);
    assert_eq!(ann.call(&json!(["regenerate"])).await, json!({"Err": "OfConnection"}));
    set(&mut ann, "n", json!(1)).await;
    assert_eq!(ann.call(&json!(["destroy"])).await, json!({"Ok": null}));
    assert_eq!(ann.call(&json!(["get"])).await, json!({}));
    set(&mut ann, "n", json!(2)).await;
}

/// Filters see the session of the packet's place, for who is away too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filtered_packets_reach_who_was_meant_though_away() {
    let nodes = three(settings()).await;
    let (mut client, headers) =
        Client::open_by(nodes[0].node.addresses().listen, "EIO=4", &[]).await;
    let cookie = set_cookie(&headers).unwrap();
    client.ask("/kept", "").await;
    let connect: Value = serde_json::from_str(&client.text().await["0/kept,".len()..]).unwrap();
    client.send(r#"2/kept,1["set","name","ann"]"#).await;
    client.expect(r#"3/kept,1[{"Ok":null}]"#).await;
    drop(client);
    let away = || nodes[1].io().of("/kept").fetch_sockets().is_empty().then_some(());
    until("the client to be away", async || away()).await;

    let kept = nodes[1].io().of("/kept");
    let tell = async |name: &str, n: u32| {
        kept.session(json!({"name": name})).emit("n", &n).await.unwrap();
    };
    tell("ann", 1).await;
    tell("bob", 2).await;
    // Another socket of the client, which has its cookie, changes the session meanwhile.
    let (mut twin, _) = with_cookie(&nodes[2], &cookie).await;
    set(&mut twin, "name", json!("bob")).await;
    tell("ann", 3).await;
    tell("bob", 4).await;

    let mut back = nodes[2].open().await;
    back.ask("/kept", &json!({"pid": connect["pid"]}).to_string()).await;
    let mut missed = Vec::new();
    loop {
        let text = back.text().await;
        let Some(event) = text.strip_prefix("2/kept,") else { break };
        let event: Value = serde_json::from_str(event).unwrap();
        missed.push(event[1].as_u64().unwrap());
    }
    assert_eq!(missed, [1, 4]);
    back.send(r#"2/kept,1["get"]"#).await;
    back.expect(r#"3/kept,1[{"name":"bob"}]"#).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn change_may_look_at_sessions_itself() {
    let node = start(application).await;
    let [ann, bob] = [SessionId::random(), SessionId::random()].map(|id| node.io().session(id));
    for (session, other) in [(&ann, &bob), (&bob, &ann)].repeat(10) {
        let (own, other) = (session.clone(), other.clone());
        let seen = session.update(move |session| {
            let n = other.get().len() + own.get().len();
            session.insert(format!("{}", session.len()), json!(n));
        });
        drop(seen);
    }
    for session in [ann, bob] {
        session.update(|_| ()).await.unwrap();
        assert_eq!(session.get().len(), 10);
    }
}

#[tokio::test]
async fn write_beyond_the_settings_bytes_fails() {
    let node = one(SessionConfig { max_bytes: 1000, ..settings() }).await;
    let (mut client, _) = newcomer(&node).await;
    set(&mut client, "name", json!("ann")).await;
    let refused = client.call(&json!(["set", "large", "x".repeat(1000)])).await;
    assert_eq!(refused, json!({"Err": "TooLarge"}));
    assert_eq!(client.call(&json!(["get"])).await, json!({"name": "ann"}));
}

/// A page logs in while a socket is away, which then comes back with the session from before.
#[tokio::test]
async fn socket_that_comes_back_does_not_make_its_destroyed_session_again() {
    let node = one(settings()).await;
    let mut client = node.open().await;
    client.ask("/kept", "").await;
    let connect: Value = serde_json::from_str(&client.text().await["0/kept,".len()..]).unwrap();
    client.send(r#"2/kept,1["id"]"#).await;
    let answer: Value = serde_json::from_str(&client.text().await["3/kept,1".len()..]).unwrap();
    let id = answer[0].as_str().unwrap().parse().unwrap();
    drop(client);
    let away = || node.io().of("/kept").fetch_sockets().is_empty().then_some(());
    until("the client to be away", async || away()).await;
    node.io().session(id).regenerate().await.unwrap();

    let mut back = node.open().await;
    back.ask("/kept", &json!({"pid": connect["pid"]}).to_string()).await;
    let again: Value = serde_json::from_str(&back.text().await["0/kept,".len()..]).unwrap();
    assert_eq!(again["sid"], connect["sid"], "it is the same socket");
    let refused = [r#"["set","name","eve"]"#, r#"["get"]"#];
    for (event, answer) in refused.into_iter().zip([r#"[{"Err":"Over"}]"#, "[{}]"]) {
        back.send(&format!("2/kept,2{event}")).await;
        back.expect(&format!("3/kept,2{answer}")).await;
    }
    // The connection's next namespace shares it.
    back.connect("/other", "").await;
    back.send(r#"2/other,1["set","name","eve"]"#).await;
    back.expect(r#"3/other,1[{"Err":"Over"}]"#).await;
    let late = node.io().session(id).update(|session| session.clear());
    assert_eq!(late.await, Err(SessionError::Over));
}

#[tokio::test]
async fn middleware_sees_the_session_that_the_client_came_with() {
    let node = start_with(
        "n1",
        Vec::new(),
        |config| config.session = settings(),
        |io| {
            application(io);
            io.of("/members").with(async |socket: Socket| {
                match socket.session().get().get("name") {
                    Some(_) => Ok(()),
                    None => Err(flotilla::server::ConnectError::new("log in first")),
                }
            });
        },
    )
    .await;
    let (mut client, cookie) = newcomer(&node).await;
    client.ask("/members", "").await;
    client.expect(r#"4/members,{"message":"log in first"}"#).await;
    set(&mut client, "name", json!("ann")).await;
    let (mut again, _) = with_cookie(&node, &cookie).await;
    again.connect("/members", "").await;
}
