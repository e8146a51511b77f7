//! The server API across three nodes in this process, a client on each.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::time::Duration;

use flotilla::adapter::DeliveryMode;
use flotilla::server::{Ack, AckError, Data, Io, NamespaceHandle, Socket};
use serde_json::{Value, json};

use common::client::Client;
use common::{PATIENCE, TestNode, spawn, start_three, until};

const NAMESPACES: [&str; 2] = ["/replicated", "/direct"];

fn application(io: &Io) {
    for namespace in [io.of("/replicated"), io.of_mode("/direct", DeliveryMode::Direct)] {
        namespace
            .on("join", async |socket: Socket, Data(rooms): Data<Vec<String>>, ack: Ack| {
                socket.join(rooms).await.unwrap();
                ack.send(&()).unwrap();
            })
            .on("burst", async |socket: Socket, Data(count): Data<u32>, ack: Ack| {
                for n in 0..count {
                    socket.namespace().emit("msg", &(socket.id(), n));
                }
                ack.send(&()).unwrap();
            });
    }
}

/// A client on each node, all in room `all`, each in a room named after its node.
async fn one_each(nodes: &[TestNode; 3], namespace: &str) -> [Client; 3] {
    let mut clients = Vec::new();
    for (n, node) in nodes.iter().enumerate() {
        let mut client = node.open().await;
        client.connect(namespace, "").await;
        client.send(&format!(r#"2{namespace},0["join",["all","r{n}"]]"#)).await;
        client.expect(&format!("3{namespace},0[]")).await;
        clients.push(client);
    }
    settled(nodes, namespace, 3).await;
    clients.try_into().unwrap_or_else(|_| unreachable!("three were made"))
}

/// Waits until all nodes know that so many sockets are in room `all`.
async fn settled(nodes: &[TestNode], namespace: &str, count: usize) {
    for node in nodes {
        let namespace = node.io().of(namespace);
        until("the sockets to be known", async || {
            (namespace.to("all").fetch_sockets().len() == count).then_some(())
        })
        .await;
    }
}

async fn expect(client: &mut Client, namespace: &str, texts: &[&str]) {
    for text in texts {
        client.expect(&format!(r#"2{namespace},["msg","{text}"]"#)).await;
    }
}

/// Answers a question in a namespace.
async fn answer(client: &mut Client, namespace: &str, event: &str, answer: &str) {
    let text = client.text().await;
    let rest = text.strip_prefix(&format!("2{namespace},")).unwrap_or_else(|| panic!("{text}"));
    let id = rest.strip_suffix(event).unwrap_or_else(|| panic!("{text}"));
    client.send(&format!("3{namespace},{id}{answer}")).await;
}

fn sorted(answers: &[flotilla::socketio::Payload]) -> Vec<String> {
    let mut texts: Vec<_> = answers.iter().map(|answer| answer.json.to_string()).collect();
    texts.sort();
    texts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_reach_sockets_on_all_nodes() {
    let nodes = start_three(application).await;
    for name in NAMESPACES {
        let [mut a, mut b, mut c] = one_each(&nodes, name).await;
        let namespaces: Vec<NamespaceHandle> =
            nodes.iter().map(|node| node.io().of(name)).collect();
        let from = &namespaces[1];
        from.emit("msg", &"all").await.unwrap();
        from.to("r0").within("r2").emit("msg", &"ends").await.unwrap();
        from.except("r0").emit("msg", &"not the first").await.unwrap();
        from.to(c.id.clone()).emit("msg", &"third").await.unwrap();
        from.direct().to("r2").emit("msg", &"direct").await.unwrap();
        from.volatile().to("r1").emit("msg", &"volatile").await.unwrap();
        from.local().emit("msg", &"local").await.unwrap();
        expect(&mut a, name, &["all", "ends"]).await;
        expect(&mut b, name, &["all", "not the first", "volatile", "local"]).await;
        expect(&mut c, name, &["all", "ends", "not the first", "third"]).await;
        // A direct packet keeps no place among replicated ones; nothing else came meanwhile.
        expect(&mut c, name, &["direct"]).await;

        let session = nodes[0].io().session(from.to("r2").fetch_sockets()[0].session);
        session
            .update(|session| {
                session.insert("user".to_owned(), "c".into());
            })
            .await
            .unwrap();
        namespaces[0].session(json!({"user": "c"})).emit("msg", &"by session").await.unwrap();
        expect(&mut c, name, &["by session"]).await;
        for client in [&mut a, &mut b, &mut c] {
            client.send(&format!("1{name},")).await;
        }
        settled(&nodes, name, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_deliver_in_one_order() {
    const COUNT: usize = 200;
    let nodes = start_three(application).await;
    let name = "/replicated";
    let mut clients = one_each(&nodes, name).await;
    for client in &mut clients {
        client.send(&format!(r#"2{name},1["burst",{COUNT}]"#)).await;
    }
    let mut received = Vec::new();
    for client in &mut clients {
        let mut texts = Vec::new();
        while texts.len() < 3 * COUNT {
            let text = client.text().await;
            if text.starts_with('2') {
                texts.push(text);
            }
        }
        received.push(texts);
    }
    assert_eq!(received[0], received[1]);
    assert_eq!(received[1], received[2]);
    for client in &clients {
        let own: Vec<_> =
            received[0].iter().filter(|text| text.contains(&client.id)).cloned().collect();
        let written: Vec<_> =
            (0..COUNT).map(|n| format!(r#"2{name},["msg","{}",{n}]"#, client.id)).collect();
        assert_eq!(own, written, "in the order in which they were emitted");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_are_gathered_from_all_nodes() {
    let nodes = start_three(application).await;
    for name in NAMESPACES {
        let [mut a, mut b, mut c] = one_each(&nodes, name).await;
        let namespace = nodes[0].io().of(name);

        let asked = spawn(namespace.timeout(PATIENCE).emit_with_ack("who", &()).answers());
        answer(&mut a, name, r#"["who"]"#, r#"["a"]"#).await;
        answer(&mut b, name, r#"["who"]"#, r#"["b"]"#).await;
        answer(&mut c, name, r#"["who"]"#, r#"["c"]"#).await;
        let answers = asked.await.unwrap().unwrap();
        assert_eq!(sorted(&answers), [r#"["a"]"#, r#"["b"]"#, r#"["c"]"#]);

        let remote = &namespace.to("r2").fetch_sockets()[0];
        let asked = spawn(remote.emit_with_ack("one", &1).answer::<Value>());
        answer(&mut c, name, r#"["one",1]"#, r#"[{"n":1}]"#).await;
        assert_eq!(asked.await.unwrap().unwrap(), json!({"n": 1}));

        // One never answers, another leaves: what came is handed out.
        let asked = namespace.timeout(Duration::from_secs(5)).emit_with_ack("who", &());
        let asked = spawn(asked.answers());
        answer(&mut b, name, r#"["who"]"#, r#"["b"]"#).await;
        c.text().await;
        drop(c);
        match asked.await.unwrap() {
            Err(AckError::Partial { answers }) => assert_eq!(sorted(&answers), [r#"["b"]"#]),
            other => panic!("{other:?}"),
        }
        for client in [&mut a, &mut b] {
            client.send(&format!("1{name},")).await;
        }
        settled(&nodes, name, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_of_other_nodes_are_fetched_moved_and_disconnected() {
    let nodes = start_three(application).await;
    for name in NAMESPACES {
        let [mut a, mut b, mut c] = one_each(&nodes, name).await;
        let namespace = nodes[2].io().of(name);
        let mut fetched: Vec<_> =
            namespace.fetch_sockets().iter().map(|socket| socket.id.to_string()).collect();
        fetched.sort();
        let mut ids = [&a, &b, &c].map(|client| client.id.clone());
        ids.sort();
        assert_eq!(fetched, ids);
        assert_eq!(namespace.local().fetch_sockets().len(), 1);

        namespace.except("r1").sockets_join("new").await.unwrap();
        namespace.to("new").emit("msg", &"new").await.unwrap();
        expect(&mut a, name, &["new"]).await;
        expect(&mut c, name, &["new"]).await;
        let remote = &namespace.to("r0").fetch_sockets()[0];
        remote.leave("new").await.unwrap();
        remote.emit("msg", &"to one").await.unwrap();
        namespace.to("new").emit("msg", &"left").await.unwrap();
        expect(&mut a, name, &["to one"]).await;
        expect(&mut c, name, &["left"]).await;

        namespace.to("r1").disconnect_sockets(true).await.unwrap();
        b.expect(&format!("1{name},")).await;
        b.expect_closed().await;
        namespace.disconnect_sockets(false).await.unwrap();
        a.expect(&format!("1{name},")).await;
        c.expect(&format!("1{name},")).await;
        settled(&nodes, name, 0).await;
    }
}

/// The verbs that the tests above leave out, from the third node to sockets of the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_of_operators_and_sockets_acts_on_other_nodes() {
    let nodes = start_three(application).await;
    for name in NAMESPACES {
        let [mut a, mut b, mut c] = one_each(&nodes, name).await;
        let namespace = nodes[2].io().of(name);
        let socket = namespace.sockets().remove(0);
        assert_eq!(socket.id().to_string(), c.id);

        namespace.to("r0").send(&"sent").await.unwrap();
        namespace.to("r0").compress(false).emit("msg", &"plain").await.unwrap();
        socket.broadcast().emit("msg", &"others").await.unwrap();
        socket.to("all").emit("msg", &"others in all").await.unwrap();
        socket.within("r1").emit("msg", &"r1").await.unwrap();
        socket.except("r1").emit("msg", &"others but r1").await.unwrap();
        socket.local().emit("msg", &"nobody else here").await.unwrap();
        socket.emit("msg", &"itself").await.unwrap();
        a.expect(&format!(r#"2{name},["message","sent"]"#)).await;
        expect(&mut a, name, &["plain", "others", "others in all", "others but r1"]).await;
        expect(&mut b, name, &["others", "others in all", "r1"]).await;
        expect(&mut c, name, &["itself"]).await;

        let [remote] = &namespace.to("r0").fetch_sockets()[..] else { panic!("one is in r0") };
        let rooms = || {
            let view = namespace.to(a.id.clone()).fetch_sockets().remove(0);
            let mut rooms: Vec<_> = view.rooms.iter().map(ToString::to_string).collect();
            rooms.sort();
            rooms
        };
        remote.join(["x", "y"]).await.unwrap();
        assert_eq!(rooms(), ["all", "r0", "x", "y"]);
        remote.leave("x").await.unwrap();
        namespace.to("y").sockets_leave(["y", "r0"]).await.unwrap();
        assert_eq!(rooms(), ["all"]);
        remote.itself().volatile().emit("msg", &"volatile").await.unwrap();
        expect(&mut a, name, &["volatile"]).await;

        let mut ids: Vec<_> = namespace.all_sockets().iter().map(ToString::to_string).collect();
        ids.sort();
        let mut wanted = [&a, &b, &c].map(|client| client.id.clone());
        wanted.sort();
        assert_eq!(ids, wanted);
        assert_eq!(namespace.local().all_sockets(), [socket.id()]);
        let members = |room: &str, len| (room.into(), len);
        assert_eq!(namespace.rooms(), [members("all", 3), members("r1", 1), members("r2", 1)]);

        // Without a limit an answer is waited for until the one who owes it goes.
        let asked = namespace.to("r1").timeout(Duration::MAX).emit_with_ack("who", &());
        let asked = spawn(asked.answers());
        b.text().await;
        remote.disconnect(true).await.unwrap();
        a.expect(&format!("1{name},")).await;
        a.expect_closed().await;
        assert!(!asked.is_finished());
        namespace.to("r1").disconnect_sockets(false).await.unwrap();
        assert!(asked.await.unwrap().unwrap().is_empty());
        b.expect(&format!("1{name},")).await;
        c.send(&format!("1{name},")).await;
        settled(&nodes, name, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_session_updates_on_all_nodes_lose_none() {
    const EACH: usize = 60;
    let nodes = start_three(application).await;
    let _clients = one_each(&nodes, "/replicated").await;
    let shared = nodes[0].io().of("/replicated").to("r0").fetch_sockets()[0].session;
    let writers: Vec<_> = nodes
        .iter()
        .enumerate()
        .map(|(writer, node)| {
            let session = node.io().session(shared);
            spawn(async move {
                // One, two or three at once: one of another's may then take the place of the
                // first of several.
                let at_once = writer + 1;
                for round in 0..EACH / at_once {
                    let updates: Vec<_> = (0..at_once)
                        .map(|n| {
                            session.update(move |session| {
                                let list = session.entry("list").or_insert_with(|| json!([]));
                                let note = json!([writer, round * at_once + n]);
                                list.as_array_mut().unwrap().push(note);
                            })
                        })
                        .collect();
                    for update in updates {
                        update.await.unwrap();
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    // What another node has acknowledged may not be applied here yet; `reload` waits for it.
    let reading = nodes[0].io().session(shared).reload().await.unwrap();
    let list = reading.object["list"].as_array().unwrap();
    for writer in 0..nodes.len() {
        let own: Vec<_> = list
            .iter()
            .filter(|note| note[0] == writer)
            .map(|note| note[1].as_u64().unwrap() as usize)
            .collect();
        assert_eq!(own, (0..EACH).collect::<Vec<_>>(), "each once, in the order of their calls");
    }
    assert_eq!(list.len(), nodes.len() * EACH);
}
