//! Namespaces that come into being when a client asks for them, and go with their last socket.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::{Arc, Mutex};

use flotilla::adapter::DeliveryMode;
use flotilla::config::Config;
use flotilla::server::{Ack, ConnectError, Io, NamespaceHandle, ParentNamespace, Socket};
use serde_json::{Value, json};

use common::client::Client;
use common::{TestNode, spawn, start, start_with, until};

type Names = Arc<Mutex<Vec<String>>>;

async fn start_tidy(register: impl FnOnce(&Io)) -> TestNode {
    let tidy = |config: &mut Config| config.socketio.cleanup_empty_child_namespaces = true;
    start_with("n1", Vec::new(), tidy, register).await
}

fn watch_new(io: &Io) -> Names {
    let names = Names::default();
    let noted = names.clone();
    io.on_new_namespace(move |namespace| noted.lock().unwrap().push(namespace.name().to_owned()));
    names
}

async fn in_namespace(node: &TestNode, name: &str) -> Client {
    let mut client = node.open().await;
    client.connect(name, "").await;
    client
}

async fn refused(node: &TestNode, name: &str, auth: &str) {
    let mut client = node.open().await;
    client.ask(name, auth).await;
    client.expect(&format!(r#"4{name},{{"message":"Invalid namespace"}}"#)).await;
}

#[tokio::test]
async fn pattern_makes_a_namespace_for_each_name_that_it_matches() {
    let node = start(|io: &Io| {
        io.of_pattern(r"^/dynamic-\d+$")
            .unwrap()
            .with(async |socket: Socket| match socket.namespace_name() {
                "/dynamic-13" => Err(ConnectError::with_data("unlucky", json!([13]))),
                _ => Ok(()),
            })
            .on_connect(async |socket: Socket| {
                socket.emit("name", socket.namespace_name());
            })
            .on("ping", async |ack: Ack| ack.send(&()).unwrap());
    })
    .await;
    let names = watch_new(node.io());
    for name in ["/dynamic-1", "/dynamic-101"] {
        let mut client = in_namespace(&node, name).await;
        client.expect(&format!(r#"2{name},["name","{name}"]"#)).await;
        client.send(&format!(r#"2{name},0["ping"]"#)).await;
        client.expect(&format!("3{name},0[]")).await;
    }
    let mut client = node.open().await;
    client.ask("/dynamic-13", "").await;
    client.expect(r#"4/dynamic-13,{"message":"unlucky","data":[13]}"#).await;
    for name in ["/dynamic-", "/dynamic-1x", "/other"] {
        refused(&node, name, "").await;
    }
    let made = ["/dynamic-1", "/dynamic-101", "/dynamic-13"];
    assert_eq!(*names.lock().unwrap(), made);
    let namespaces = node.io().namespaces();
    assert_eq!(namespaces.iter().map(|namespace| namespace.name()).collect::<Vec<_>>(), made);
    assert!(node.io().of_pattern("(").is_err());
}

#[tokio::test]
async fn predicates_see_name_and_auth_and_the_first_that_allows_has_it() {
    fn mark(parent: &ParentNamespace, mark: &'static str) {
        parent.on_connect(move |socket: Socket| {
            socket.emit("parent", mark);
            async {}
        });
    }
    let node = start(|io: &Io| {
        mark(
            &io.of_when(async |name: String, auth: Value| {
                // It may wait: those after it are asked later.
                tokio::task::yield_now().await;
                name.starts_with("/a") && auth["key"] == "right"
            }),
            "first",
        );
        mark(&io.of_when(async |_, _| panic!("as the test wants")), "panics");
        mark(&io.of_pattern("^/a").unwrap(), "second");
        mark(&io.of_pattern("^/ab").unwrap(), "third");
    })
    .await;
    for (name, auth, parent) in [
        ("/a1", r#"{"key":"right"}"#, "first"),
        ("/a2", r#"{"key":"wrong"}"#, "second"),
        ("/ab", "", "second"),
        // The name exists by now: nobody is asked again.
        ("/a1", "", "first"),
    ] {
        let mut client = node.open().await;
        client.connect(name, auth).await;
        client.expect(&format!(r#"2{name},["parent","{parent}"]"#)).await;
    }
    refused(&node, "/b", r#"{"key":"right"}"#).await;
}

#[tokio::test]
async fn many_at_once_make_one_namespace() {
    const COUNT: usize = 30;
    let node = start_tidy(|io: &Io| {
        io.of_when(async |_name: String, _auth: Value| {
            tokio::task::yield_now().await;
            true
        })
        .on("ping", async |ack: Ack| ack.send(&()).unwrap());
    })
    .await;
    let names = watch_new(node.io());
    let address = node.node.addresses().listen;
    let connecting: Vec<_> = (0..COUNT)
        .map(|_| {
            spawn(async move {
                let mut client = Client::open(address).await;
                client.connect("/same", "").await;
                client
            })
        })
        .collect();
    let mut clients = Vec::new();
    for client in connecting {
        clients.push(client.await.unwrap());
    }
    assert_eq!(*names.lock().unwrap(), ["/same"]);
    assert_eq!(node.io().of("/same").sockets().len(), COUNT);
    node.io().of("/same").emit("all", &()).await.unwrap();
    for client in &mut clients {
        client.expect(r#"2/same,["all"]"#).await;
    }
}

#[tokio::test]
async fn children_end_with_their_last_socket_and_come_again() {
    let node = start_tidy(|io: &Io| {
        io.of("/static").on("ping", async |ack: Ack| ack.send(&()).unwrap());
        io.of_pattern("^/dynamic-").unwrap().with(async |socket: Socket| {
            match socket.auth::<Value>().unwrap()["out"].as_bool() {
                Some(true) => Err(ConnectError::new("out")),
                _ => Ok(()),
            }
        });
    })
    .await;
    let io = node.io();
    let names = watch_new(io);
    let is_gone = |name| until("the end", async move || (!io.has_namespace(name)).then_some(()));

    for round in 1..=3 {
        let mut first = in_namespace(&node, "/dynamic-1").await;
        let second = in_namespace(&node, "/dynamic-1").await;
        drop(second);
        let namespace = io.of("/dynamic-1");
        until("one to leave", async || (namespace.sockets().len() == 1).then_some(())).await;
        assert!(io.has_namespace("/dynamic-1"));
        first.send("1/dynamic-1,").await;
        is_gone("/dynamic-1").await;
        assert_eq!(names.lock().unwrap().len(), round);
        // A handle of one that ended reaches those that come after.
        let mut third = in_namespace(&node, "/dynamic-1").await;
        namespace.emit("after", &round).await.unwrap();
        third.expect(&format!(r#"2/dynamic-1,["after",{round}]"#)).await;
        namespace.direct().emit("direct", &round).await.unwrap();
        third.expect(&format!(r#"2/dynamic-1,["direct",{round}]"#)).await;
        drop(third);
        is_gone("/dynamic-1").await;
        names.lock().unwrap().pop();
    }

    // Refused by middleware, the only one there was.
    let mut client = node.open().await;
    client.ask("/dynamic-2", r#"{"out":true}"#).await;
    client.expect(r#"4/dynamic-2,{"message":"out"}"#).await;
    is_gone("/dynamic-2").await;
    // Disconnected by the application.
    let mut client = in_namespace(&node, "/dynamic-3").await;
    io.of("/dynamic-3").disconnect_sockets(false).await.unwrap();
    client.expect("1/dynamic-3,").await;
    is_gone("/dynamic-3").await;
    // One that the application made itself stays.
    drop(in_namespace(&node, "/static").await);
    let left = io.of("/static");
    until("the socket to leave", async || left.fetch_sockets().is_empty().then_some(())).await;
    assert!(io.has_namespace("/static"));
}

#[tokio::test]
async fn children_stay_unless_they_are_to_be_cleaned_up() {
    let node = start(|io: &Io| {
        io.of_pattern("^/dynamic-").unwrap();
    })
    .await;
    drop(in_namespace(&node, "/dynamic-1").await);
    let child = node.io().of("/dynamic-1");
    until("the socket to leave", async || child.fetch_sockets().is_empty().then_some(())).await;
    assert!(node.io().has_namespace("/dynamic-1"));
}

#[tokio::test]
async fn parents_reach_all_their_children() {
    let (give, mut parents) = tokio::sync::mpsc::channel(1);
    let node = start(move |io: &Io| {
        let parent = io.of_pattern("^/n[0-9]$").unwrap();
        parent.delivery(DeliveryMode::Direct).on_connect(async |socket: Socket| {
            socket.join(format!("room of {}", socket.namespace_name())).await.unwrap();
            socket.emit("ready", &());
        });
        give.try_send(parent).unwrap();
        io.of("/other");
    })
    .await;
    let parent = parents.recv().await.unwrap();
    parent.emit("nobody yet", &()).await.unwrap();
    let mut clients = Vec::new();
    for name in ["/n1", "/n2", "/other"] {
        clients.push((name, in_namespace(&node, name).await));
    }
    for (name, client) in &mut clients[..2] {
        client.expect(&format!(r#"2{name},["ready"]"#)).await;
    }
    let children: Vec<_> = parent.children();
    let names: Vec<_> = children.iter().map(NamespaceHandle::name).collect();
    assert_eq!(names, ["/n1", "/n2"]);
    parent.emit("all", &1).await.unwrap();
    parent.to("room of /n2").emit("two", &2).await.unwrap();
    parent.except("room of /n2").emit("one", &1).await.unwrap();
    parent.operator().local().volatile().compress(true).emit("local", &()).await.unwrap();
    assert!(parent.emit("connect", &()).await.is_err());
    let wanted: [&[&str]; 2] = [
        &[r#"["all",1]"#, r#"["one",1]"#, r#"["local"]"#],
        &[r#"["all",1]"#, r#"["two",2]"#, r#"["local"]"#],
    ];
    for ((name, client), wanted) in clients.iter_mut().zip(wanted) {
        for event in wanted {
            client.expect(&format!("2{name},{event}")).await;
        }
    }
    // The other one, which is nobody's child, got nothing before this.
    node.io().of("/other").emit("own", &()).await.unwrap();
    clients[2].1.expect(r#"2/other,["own"]"#).await;
}

#[tokio::test]
async fn name_that_the_application_gives_is_a_child_of_the_pattern() {
    let (give, mut parents) = tokio::sync::mpsc::channel(1);
    let node = start(move |io: &Io| {
        let parent = io.of_pattern("^/p-").unwrap();
        parent.on("who", async |ack: Ack| ack.send("the parent's").unwrap());
        give.try_send(parent).unwrap();
        io.of("/p-1").on("own", async |ack: Ack| ack.send("its own").unwrap());
    })
    .await;
    let parent = parents.recv().await.unwrap();
    let mut client = in_namespace(&node, "/p-1").await;
    client.send(r#"2/p-1,0["who"]"#).await;
    client.expect(r#"3/p-1,0["the parent's"]"#).await;
    client.send(r#"2/p-1,1["own"]"#).await;
    client.expect(r#"3/p-1,1["its own"]"#).await;
    parent.emit("all", &()).await.unwrap();
    client.expect(r#"2/p-1,["all"]"#).await;
}

#[tokio::test]
async fn client_that_leaves_while_its_name_is_judged_harms_nobody() {
    let gate = Arc::new(tokio::sync::Notify::new());
    let judging = gate.clone();
    let node = start_tidy(move |io: &Io| {
        io.of_when(move |name: String, _auth: Value| {
            let judging = judging.clone();
            async move {
                if name == "/slow" {
                    judging.notified().await;
                }
                true
            }
        });
    })
    .await;
    let mut client = node.open().await;
    client.ask("/slow", "").await;
    // Others of the same connection are not held up.
    client.connect("/quick", "").await;
    assert!(!node.io().has_namespace("/slow"));
    drop(client);
    until("all to be gone", async || (node.io().clients_count() == 0).then_some(())).await;
    gate.notify_one();
    let later = in_namespace(&node, "/quick").await;
    assert!(!node.io().has_namespace("/slow"));
    drop(later);
}

#[tokio::test]
async fn event_before_the_name_is_judged_closes_the_connection() {
    let node = start(|io: &Io| {
        io.of_when(async |_name: String, _auth: Value| std::future::pending().await);
    })
    .await;
    let mut client = node.open().await;
    client.ask("/never", "").await;
    client.send(r#"2/never,["too early"]"#).await;
    client.expect_closed().await;
}

#[tokio::test]
async fn hook_for_new_namespaces_comes_before_their_first_client() {
    let node = start(|io: &Io| {
        io.of_pattern("^/").unwrap();
        io.on_new_namespace(|namespace: NamespaceHandle| {
            namespace.with(async |socket: Socket| {
                Err(ConnectError::new(format!("{} is closed", socket.namespace_name())))
            });
            assert_ne!(namespace.name(), "/panic", "as the test wants");
        });
    })
    .await;
    for name in ["/a", "/panic"] {
        let mut clients = [node.open().await, node.open().await];
        for client in &mut clients {
            client.ask(name, "").await;
        }
        for client in &mut clients {
            client.expect(&format!(r#"4{name},{{"message":"{name} is closed"}}"#)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_span_nodes_and_end_on_each_by_itself() {
    let parents = || |io: &Io| drop(io.of_pattern("^/d-").unwrap());
    let first = start_tidy(parents()).await;
    let seeds = vec![first.node.addresses().cluster.to_string()];
    let join = |config: &mut Config| {
        config.cluster.bootstrap_expect = 3;
        config.socketio.cleanup_empty_child_namespaces = true;
    };
    let second = start_with("n2", seeds, join, parents()).await;
    let mut here = in_namespace(&first, "/d-1").await;
    let mut there = in_namespace(&second, "/d-1").await;
    let kept = first.io().of("/d-1");
    until("both to be known", async || (kept.fetch_sockets().len() == 2).then_some(())).await;
    kept.emit("both", &()).await.unwrap();
    for client in [&mut here, &mut there] {
        client.expect(r#"2/d-1,["both"]"#).await;
    }
    drop(here);
    until("the end", async || (!first.io().has_namespace("/d-1")).then_some(())).await;
    assert!(second.io().has_namespace("/d-1"));

    kept.emit("kept", &1).await.unwrap();
    there.expect(r#"2/d-1,["kept",1]"#).await;
    // The node that asks has no socket there, and gathers the answers all the same.
    for asked in [kept.emit_with_ack("ask", &()), first.io().of("/d-1").emit_with_ack("ask", &())] {
        let question = there.text().await;
        let id = question.strip_prefix("2/d-1,").unwrap().strip_suffix(r#"["ask"]"#).unwrap();
        there.send(&format!("3/d-1,{id}[7]")).await;
        assert_eq!(asked.answer::<u8>().await.unwrap(), 7);
    }
}
