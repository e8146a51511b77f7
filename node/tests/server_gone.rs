//! A node that dies: the cluster's hook tells of the sockets that it had.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::{Arc, Mutex};

use flotilla::config::Config;
use flotilla::server::{GoneSocket, Io, Socket};
use tokio::sync::oneshot;

use common::client::Client;
use common::{start, start_with, until};

/// By which node, and of which socket.
type Told = Arc<Mutex<Vec<(&'static str, GoneSocket)>>>;

fn telling(told: &Told, node: &'static str) -> impl Fn(&Io) + Send + 'static {
    let told = told.clone();
    move |io: &Io| {
        let told = told.clone();
        io.of("/n").on_connect(async |socket: Socket| {
            socket.join("r").await.unwrap();
            socket.emit("ready", &());
        });
        io.on_socket_gone(move |socket| {
            let told = told.clone();
            async move {
                tokio::task::yield_now().await;
                told.lock().unwrap().push((node, socket));
            }
        });
    }
}

/// It does not form a cluster by itself.
fn joining(config: &mut Config) {
    config.cluster.bootstrap_expect = 3;
}

async fn in_namespace(address: std::net::SocketAddr) -> Client {
    let mut client = Client::open(address).await;
    client.connect("/n", "").await;
    client.expect(r#"2/n,["ready"]"#).await;
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_of_a_node_that_died_are_told_by_one_of_the_others() {
    let told = Told::default();
    let first = start(telling(&told, "n1")).await;
    let seeds = vec![first.node.addresses().cluster.to_string()];
    let second = start_with("n2", seeds.clone(), joining, telling(&told, "n2")).await;

    // The third has a runtime of its own, with which all that it does ends at once.
    let third = tokio::runtime::Runtime::new().unwrap();
    let (started, node) = oneshot::channel();
    let register = telling(&told, "n3");
    third.spawn(async move {
        let node = start_with("n3", seeds, joining, register).await;
        let addresses = node.node.addresses().clone();
        started.send(addresses).unwrap();
        std::future::pending::<()>().await;
        drop(node);
    });
    let addresses = node.await.unwrap();
    let dead = [in_namespace(addresses.listen).await, in_namespace(addresses.listen).await];
    let alive = in_namespace(first.node.addresses().listen).await;
    let namespace = second.io().of("/n");
    let (session, third_id) = until("the sockets to be known", async || {
        let sockets = namespace.to("r").fetch_sockets();
        let dead = sockets.iter().find(|socket| socket.id.to_string() == dead[0].id);
        dead.filter(|_| sockets.len() == 3).map(|dead| (dead.session, dead.node))
    })
    .await;
    third.shutdown_background();

    until("its sockets to be told of", async || (told.lock().unwrap().len() >= 2).then_some(()))
        .await;
    let told = told.lock().unwrap().clone();
    for client in &dead {
        let of = told.iter().filter(|(_, socket)| socket.id.to_string() == client.id);
        let by: Vec<_> = of.collect();
        let [(by, socket)] = &by[..] else { panic!("told once while nobody else dies: {told:?}") };
        assert_ne!(*by, "n3");
        assert_eq!((&*socket.namespace, socket.node), ("/n", third_id));
        assert_eq!(socket.rooms, ["r"]);
        assert!(client.id != dead[0].id || socket.session == session);
    }
    assert!(told.iter().all(|(_, socket)| socket.id.to_string() != alive.id));
    assert_eq!(GoneSocket::REASON, "node down");
}
