//! An application of controllers from its start to its stop, and controllers that nobody named.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use common::client::Client;
use common::start;
use flotilla::application::{ApplicationError, ControllerApplication};
use flotilla::apps::controllers::{Matcher, RouteError, SocketServer, controller};
use flotilla::config::{AdminConfig, Config, ListenConfig};
use flotilla::raft::config::{ClusterConfig, Durability, RaftConfig};
use flotilla::server::Io;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One of two that are discovered.
#[derive(Default)]
struct Alpha;

#[controller("/alpha")]
impl Alpha {
    #[subscribe("who")]
    fn who(&self) -> &'static str {
        "alpha"
    }
}

/// The other one.
#[derive(Default)]
struct Beta;

#[controller("/beta")]
impl Beta {
    #[subscribe("who")]
    fn who(&self) -> &'static str {
        "beta"
    }
}

/// Of which type it is nobody says, so that it is not discovered.
struct Generic<T>(T);

#[controller("/generic")]
impl<T: Default + Send + Sync + 'static> Generic<T> {
    #[create]
    fn new() -> Self {
        Self(T::default())
    }

    #[subscribe("size")]
    fn size(&self) -> usize {
        size_of_val(&self.0)
    }
}

async fn answer(address: SocketAddr, namespace: &str, event: &str) -> String {
    let mut client = Client::open(address).await;
    client.connect(namespace, "").await;
    client.send(&format!(r#"2{namespace},1["{event}"]"#)).await;
    client.text().await
}

#[tokio::test]
async fn controllers_are_discovered_but_for_those_that_are_registered() {
    let mut found = Vec::new();
    let mut again = Vec::new();
    let node = start(|io: &Io| {
        let server = SocketServer::new(io);
        server.controller::<Beta>().unwrap();
        found = server.discover_and_register().unwrap();
        again = server.discover_and_register().unwrap();
        server.controller::<Generic<u64>>().unwrap();
    })
    .await;
    assert_eq!(found, ["Alpha"]);
    assert!(again.is_empty());
    let address = node.node.addresses().listen;
    assert_eq!(answer(address, "/alpha", "who").await, r#"3/alpha,1[{"result":"alpha"}]"#);
    assert_eq!(answer(address, "/beta", "who").await, r#"3/beta,1[{"result":"beta"}]"#);
    assert_eq!(answer(address, "/generic", "size").await, r#"3/generic,1[{"result":8}]"#);
}

fn config(data: &TempDir) -> Arc<Config> {
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    Arc::new(Config {
        data_dir: data.path().to_owned(),
        listen: ListenConfig { address: any_port },
        admin: AdminConfig { address: any_port },
        cluster: ClusterConfig { address: any_port.to_string(), ..ClusterConfig::default() },
        raft: RaftConfig { durability: Durability::Memory, ..RaftConfig::default() },
        ..Config::default()
    })
}

#[tokio::test]
async fn application_starts_stops_and_starts_again() {
    let data = tempfile::tempdir().unwrap();
    let mut app = ControllerApplication::new(config(&data), |server| {
        server.controller::<Alpha>()?;
        Ok(())
    });
    assert!(!app.is_listening() && app.url().is_none() && app.server().is_none());
    let mut last_url = None;
    for _ in 0..2 {
        app.start().await.unwrap();
        assert!(matches!(app.start().await, Err(ApplicationError::Running)));
        let node = app.node().unwrap();
        node.ready().await;
        let address = node.addresses().listen;
        assert!(app.is_listening());
        assert_eq!(app.url(), Some(&*format!("http://{address}")));
        assert_eq!(answer(address, "/alpha", "who").await, r#"3/alpha,1[{"result":"alpha"}]"#);
        // Late, and for those who come from now on.
        app.server().unwrap().controller::<Beta>().unwrap();
        assert_eq!(answer(address, "/beta", "who").await, r#"3/beta,1[{"result":"beta"}]"#);
        last_url = app.url().map(str::to_owned);
        app.stop().await.unwrap();
        assert!(!app.is_listening());
        assert!(TcpStream::connect(address).await.is_err());
    }
    assert_eq!(app.url(), last_url.as_deref());
    app.stop().await.unwrap();
}

#[tokio::test]
async fn requests_that_are_no_sockets_are_answered_and_do_not_hang() {
    let data = tempfile::tempdir().unwrap();
    let mut app = ControllerApplication::new(config(&data), |_server| Ok(()));
    app.start().await.unwrap();
    let address = app.node().unwrap().addresses().listen;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request =
        format!("GET /elsewhere HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 404"), "{response}");
    app.stop().await.unwrap();
}

#[tokio::test]
async fn application_that_cannot_be_registered_does_not_start() {
    let data = tempfile::tempdir().unwrap();
    let mut app = ControllerApplication::new(config(&data), |server| {
        server.route::<Alpha>(Matcher::pattern("("))?;
        Ok(())
    });
    let error = app.start().await.unwrap_err();
    let named =
        matches!(error, ApplicationError::Route(RouteError::Namespace { controller: "Alpha", .. }));
    assert!(named, "{error:?}");
    assert!(!app.is_listening());
}
