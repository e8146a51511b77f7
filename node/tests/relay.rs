//! Requests that reach another node than their connection's: three nodes in this process.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flotilla::config::Config;
use flotilla::metrics;
use flotilla::server::{Args, Data, Io, Reason, Socket};
use futures_util::{SinkExt, StreamExt};
use http::Method;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

use common::roaming::{Answer, Roamer, receive, send};
use common::{PATIENCE, TestNode, start_with, until};

/// How sockets were disconnected, on all nodes.
type Ends = Arc<Mutex<Vec<String>>>;

/// Counts GETs where they arrive at the owners of their connections.
#[derive(Clone, Default)]
struct Polls(Arc<AtomicUsize>);

impl Polls {
    fn count_at(&self, io: &Io) {
        let Self(polls) = self.clone();
        io.engine().with(move |exchange| {
            if exchange.request.method == Method::GET {
                polls.fetch_add(1, Ordering::Relaxed);
            }
            async { Ok(exchange) }
        });
    }

    /// Sends a poll to `node`; returns when its owner has it.
    async fn begin(&self, client: &Roamer, node: SocketAddr) -> TcpStream {
        let Self(polls) = self;
        let before = polls.load(Ordering::Relaxed);
        let poll = client.begin_poll(node).await;
        let arrived = async || (polls.load(Ordering::Relaxed) > before).then_some(());
        until("the poll to reach its owner", arrived).await;
        poll
    }
}

struct Cluster {
    nodes: [TestNode; 3],
    /// Where clients come to.
    at: [SocketAddr; 3],
    ends: Ends,
    polls: Polls,
}

impl Cluster {
    async fn start() -> Self {
        Self::with(|_config| {}).await
    }

    async fn with(change: impl Fn(&mut Config)) -> Self {
        let ends = Ends::default();
        let polls = Polls::default();
        let register = |io: &Io| {
            application(io, &ends);
            polls.count_at(io);
        };
        let first = start_with("n1", Vec::new(), &change, register).await;
        let seeds = vec![first.node.addresses().cluster.to_string()];
        let change = |config: &mut Config| {
            config.cluster.bootstrap_expect = 3;
            change(config);
        };
        let second = start_with("n2", seeds.clone(), change, register).await;
        let third = start_with("n3", seeds, change, register).await;
        let nodes = [first, second, third];
        let at = nodes.each_ref().map(|node| node.node.addresses().listen);
        let cluster = Self { nodes, at, ends, polls };
        cluster.linked().await;
        cluster
    }

    /// Waits until each node takes requests to each of the others.
    async fn linked(&self) {
        for owner in self.at {
            for other in self.at.into_iter().filter(|other| *other != owner) {
                until("the nodes to know one another", async || {
                    let client = Roamer::open(owner).await;
                    (client.post(other, "1").await.status == 200).then_some(())
                })
                .await;
            }
        }
    }

    /// Waits for the end of the next socket.
    async fn end(&self) -> String {
        until("a socket's end", async || self.ends.lock().unwrap().pop()).await
    }
}

fn application(io: &Io, ends: &Ends) {
    let ends = ends.clone();
    io.of("/")
        .on("echo", async |socket: Socket, args: Args| {
            socket.emit_payload(args.into_event("echo"));
        })
        .on("kick", async |socket: Socket| {
            socket.emit("last", &());
            socket.disconnect(true);
        })
        .on("flood", async |socket: Socket, Data(count): Data<u32>| {
            let text = "x".repeat(10_000);
            for _ in 0..count {
                socket.namespace().local().to(socket.id().to_string()).emit("flood", &text);
            }
        })
        .on_disconnect(move |Reason(reason): Reason| {
            ends.lock().unwrap().push(reason.to_string());
            async {}
        });
}

/// The WebSocket of a connection, at a node that may be another's.
struct Ws(WebSocketStream<TcpStream>);

impl Ws {
    /// Asks for an upgrade at `node`.
    async fn open(client: &Roamer, node: SocketAddr) -> Self {
        let stream = TcpStream::connect(node).await.unwrap();
        let url = format!("ws://{node}/socket.io/?EIO=4&transport=websocket&sid={}", client.sid);
        let (stream, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        Self(stream)
    }

    /// The same, and has the probe answered: it is refused until the owner knows that one before
    /// has ended.
    async fn probe(client: &Roamer, node: SocketAddr) -> Self {
        until("an answer to a probe", async || {
            let mut ws = Self::open(client, node).await;
            let _ = ws.0.send(Message::text("2probe")).await;
            match ws.next().await {
                Some(Ok(Message::Text(text))) => {
                    assert_eq!(text, "3probe");
                    Some(ws)
                }
                _ => None,
            }
        })
        .await
    }

    /// Upgrades a connection whose poll is answered with a noop by way of `poller`.
    async fn upgrade(client: &Roamer, node: SocketAddr, poller: SocketAddr) -> Self {
        let poll = client.begin_poll(poller).await;
        let mut ws = Self::probe(client, node).await;
        assert_eq!(receive(poll).await.packets(), ["6"]);
        ws.send("5").await;
        ws
    }

    /// Sends all of `texts` in one write.
    async fn feed(&mut self, texts: &[&str]) {
        for text in texts {
            self.0.feed(Message::text(*text)).await.unwrap();
        }
        self.0.flush().await.unwrap();
    }

    async fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    async fn next(&mut self) -> Option<Result<Message, Error>> {
        let next = tokio::time::timeout(PATIENCE, self.0.next()).await;
        next.expect("the server should send something")
    }

    async fn text(&mut self) -> String {
        match self.next().await {
            Some(Ok(Message::Text(text))) => text.to_string(),
            other => panic!("text should have come, not {other:?}"),
        }
    }

    /// The next must be a close frame; its code, 1005 standing for none.
    async fn close_code(&mut self) -> u16 {
        match self.next().await {
            Some(Ok(Message::Close(frame))) => frame.map_or(1005, |frame| frame.code.into()),
            other => panic!("a close frame should have come, not {other:?}"),
        }
    }
}

fn assert_unknown(answer: &Answer) {
    let expected = (400, r#"{"code":1,"message":"Session ID unknown"}"#);
    assert_eq!((answer.status, &*answer.body), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_may_reach_another_node() {
    const COUNT: usize = 100;
    let cluster = Cluster::start().await;
    let [a, b, c] = cluster.at;
    let client = Roamer::open(a).await;
    client.connect([b, c]).await;
    let mut received = Vec::new();
    for n in 0..COUNT {
        let body = format!(
            "42[\"echo\",{n},\"✓\"]\x1e451-[\"echo\",{n},{{\"_placeholder\":true,\"num\":0}}]\x1ebAQID"
        );
        client.say(cluster.at[n % 3], &body).await;
        if n % 5 == 0 {
            received.extend(client.poll(cluster.at[n / 5 % 3]).await.packets());
        }
    }
    while received.len() < 3 * COUNT {
        received.extend(client.poll(cluster.at[received.len() % 3]).await.packets());
    }
    let expected: Vec<_> = (0..COUNT)
        .flat_map(|n| {
            [
                format!("42[\"echo\",{n},\"✓\"]"),
                format!("451-[\"echo\",{n},{{\"_placeholder\":true,\"num\":0}}]"),
                "bAQID".to_owned(),
            ]
        })
        .collect();
    assert_eq!(received, expected);
    client.say(b, "1").await;
    assert_eq!(cluster.end().await, "transport close");
    assert_unknown(&client.poll(c).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websocket_may_be_opened_at_any_node() {
    let cluster = Cluster::start().await;
    let [a, b, c] = cluster.at;
    for [ws_at, polls_at] in [[b, c], [c, a], [a, b]] {
        let client = Roamer::open(a).await;
        client.connect([b, a]).await;
        // What is posted and emitted during the probe keeps its place.
        let ws = Ws::probe(&client, ws_at).await;
        client.say(polls_at, "42[\"echo\",1]").await;
        let echo = until("the echo", async || {
            let packets = client.poll(c).await.packets();
            (packets != ["6"]).then_some(packets)
        });
        assert_eq!(echo.await, ["42[\"echo\",1]"]);
        drop(ws);
        let mut ws = Ws::upgrade(&client, ws_at, polls_at).await;
        let long = "y".repeat(900_000);
        for text in [r#"42["echo",2]"#, &format!(r#"42["echo","{long}"]"#), r#"42["echo",3]"#] {
            ws.send(text).await;
        }
        assert_eq!(ws.text().await, r#"42["echo",2]"#);
        assert_eq!(ws.text().await, format!(r#"42["echo","{long}"]"#));
        assert_eq!(ws.text().await, r#"42["echo",3]"#);
        let late = client.poll(polls_at).await;
        assert_eq!((late.status, &*late.body), (400, r#"{"code":3,"message":"Bad request"}"#));

        ws.send(r#"42["kick"]"#).await;
        assert_eq!(ws.text().await, r#"42["last"]"#);
        assert_eq!(ws.text().await, "41");
        assert_eq!(ws.close_code().await, 1005);
        assert_eq!(cluster.end().await, "server namespace disconnect");
    }
}

/// By way of other nodes, a poll may overtake the upgrade that its client sent before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poll_that_overtakes_a_relayed_upgrade_is_refused() {
    let cluster = Cluster::start().await;
    let [a, b, c] = cluster.at;
    for [ws_at, poll_at] in [[b, c], [b, a], [a, c], [a, a]] {
        let client = Roamer::open(a).await;
        client.connect([b, c]).await;
        let mut ws = Ws::open(&client, ws_at).await;
        let poll = client.begin_poll(poll_at).await;
        // Sent after the poll, by the same way: when it has its answer the poll is open, as a rule.
        client.say(poll_at, "3").await;
        ws.feed(&["2probe", "5", r#"42["echo",1]"#]).await;
        assert_eq!(ws.text().await, "3probe");
        assert_eq!(ws.text().await, r#"42["echo",1]"#);
        let late = receive(poll).await;
        assert_eq!((late.status, &*late.body), (400, r#"{"code":3,"message":"Bad request"}"#));
        ws.send(r#"42["echo",2]"#).await;
        assert_eq!(ws.text().await, r#"42["echo",2]"#);
        drop(ws);
        assert_eq!(cluster.end().await, "transport close");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn end_of_a_relayed_websocket_reaches_its_owner() {
    let cluster = Cluster::start().await;
    let [a, b, c] = cluster.at;
    let client = Roamer::open(a).await;
    client.connect([b, c]).await;
    let ws = Ws::upgrade(&client, b, c).await;
    drop(ws);
    assert_eq!(cluster.end().await, "transport close");

    // A frame that breaks the protocol is answered by the owner, with its code.
    let client = Roamer::open(a).await;
    client.connect([b, c]).await;
    let mut ws = Ws::upgrade(&client, c, b).await;
    ws.0.send(Message::text("z".repeat(1_000_001))).await.unwrap();
    assert_eq!(ws.close_code().await, 1009);
    assert_eq!(cluster.end().await, "transport error");
    let relayed = || cluster.nodes.iter().map(|node| node.node.relayed_count()).sum::<usize>();
    until("all tunnels to end", async || (relayed() == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_poll_at_another_node_ends_the_connection() {
    let cluster = Cluster::start().await;
    let [a, b, c] = cluster.at;
    let client = Roamer::open(a).await;
    client.connect([b, c]).await;
    let first = client.begin_poll(b).await;
    // Whichever comes to the owner second is refused; it ends the other.
    let second = client.begin_poll(c).await;
    let (first, second) = tokio::join!(receive(first), receive(second));
    let mut answers = [(first.status, first.body), (second.status, second.body)];
    answers.sort();
    assert_eq!(answers, [(200, "1".to_owned()), (400, String::new())]);
    assert_eq!(cluster.end().await, "transport error");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poll_that_its_client_gives_up_ends_the_connection() {
    let cluster = Cluster::start().await;
    let [a, b, c] = cluster.at;
    let client = Roamer::open(a).await;
    client.connect([b, c]).await;
    drop(cluster.polls.begin(&client, b).await);
    assert_eq!(cluster.end().await, "transport error");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_those_of_the_owner_to_the_letter() {
    let cluster = Cluster::with(|config| {
        config.engine.cors_origins = vec!["http://a.example".to_owned()];
        config.engine.max_payload_bytes = 4000;
    })
    .await;
    let [a, b, c] = cluster.at;
    let ask = async |node: SocketAddr, sid: &Roamer, method: &str, more: &str, body: &str| {
        let head = format!("{}Origin: http://a.example\r\n{more}", sid.head(method));
        receive(send(node, &head, body.as_bytes()).await).await
    };
    let long = "ü".repeat(1500);
    let cases = [
        ("POST", "", format!("42[\"echo\",\"{long}\"]")),
        ("GET", "Accept-Encoding: gzip\r\n", String::new()),
        ("POST", "", "x".repeat(4001)),
        ("PUT", "", String::new()),
        ("POST", "Content-Type: application/octet-stream\r\n", "42[1]".to_owned()),
    ];
    let mut clients = Vec::new();
    for _ in 0..3 {
        let client = Roamer::open(a).await;
        client.connect([a, a]).await;
        clients.push(client);
    }
    for (method, more, body) in cases {
        let mut answers = Vec::new();
        for (client, node) in clients.iter().zip([a, b, c]) {
            answers.push(ask(node, client, method, more, &body).await);
        }
        let [own, second, third] = answers.try_into().unwrap();
        for relayed in [second, third] {
            assert_eq!((relayed.status, &relayed.body), (own.status, &own.body), "{method}");
            assert_eq!(relayed.headers, own.headers, "{method}");
        }
        let allowed = ("access-control-allow-origin".to_owned(), "http://a.example".to_owned());
        assert!(own.headers.contains(&allowed), "{own:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_old_balancers_are_relayed_too() {
    let cluster = Cluster::start().await;
    let [a, b, _] = cluster.at;
    let client = Roamer::open(a).await;
    client.connect([a, a]).await;
    client.say(a, r#"42["echo",1]"#).await;
    let mut stream = TcpStream::connect(b).await.unwrap();
    let head = client.head("GET").replace("HTTP/1.1", "HTTP/1.0");
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    assert_eq!(receive(stream).await.packets(), [r#"42["echo",1]"#]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sids_of_nobody_are_unknown_everywhere() {
    let cluster = Cluster::start().await;
    let [a, b, _] = cluster.at;
    let real = Roamer::open(a).await.sid;
    let failed = metrics::RELAY_FAILURES.unknown_owner.total();
    // Of a node that was never there, of one that knows nothing of it, and of none at all.
    let unknown_node = format!("AAAAAAAA{}", &real[8..]);
    let guessed = format!("{}AAAAAAAAAAAA", &real[..8]);
    for sid in [unknown_node, guessed, "short".to_owned()] {
        let client = Roamer { sid };
        assert_unknown(&client.poll(b).await);
        assert_unknown(&client.post(b, "40").await);
    }
    assert!(metrics::RELAY_FAILURES.unknown_owner.total() >= failed + 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_does_not_read_fills_its_owners_queue_and_no_other() {
    let cluster = Cluster::with(|config| config.outbox.max_bytes = 2_000_000).await;
    let [a, b, c] = cluster.at;
    let client = Roamer::open(a).await;
    client.connect([b, c]).await;
    let mut slow = Ws::upgrade(&client, b, c).await;
    let neighbour = Roamer::open(a).await;
    neighbour.connect([b, c]).await;
    let mut fast = Ws::upgrade(&neighbour, b, c).await;

    // Far more than fits into what lies between; the rest would fill the node's memory.
    for _ in 0..40 {
        // It may have been cut off already.
        let _ = slow.0.send(Message::text(r#"42["flood",100]"#)).await;
        fast.send(r#"42["echo",1]"#).await;
        assert_eq!(fast.text().await, r#"42["echo",1]"#);
    }
    assert_eq!(cluster.end().await, "slow consumer");
    fast.send(r#"42["echo",2]"#).await;
    assert_eq!(fast.text().await, r#"42["echo",2]"#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_stops_hands_its_polls_back_and_closes_its_websockets() {
    let cluster = Cluster::start().await;
    let Cluster { nodes, at: [a, b, c], ends, polls } = cluster;
    let [first, second, _third] = nodes;
    let polling = Roamer::open(a).await;
    polling.connect([b, c]).await;
    let upgraded = Roamer::open(a).await;
    upgraded.connect([b, c]).await;
    let mut ws = Ws::upgrade(&upgraded, b, c).await;
    ws.send(r#"42["echo",1]"#).await;
    assert_eq!(ws.text().await, r#"42["echo",1]"#);
    let poll = polls.begin(&polling, b).await;

    second.node.drain().await.unwrap();
    assert_eq!(receive(poll).await.packets(), ["6"], "the connection goes on");
    assert_eq!(ws.close_code().await, 1005);
    until("the websocket's end", async || {
        (*ends.lock().unwrap() == ["server shutting down"]).then_some(())
    })
    .await;
    polling.say(c, r#"42["echo",2]"#).await;
    assert_eq!(polling.poll(c).await.packets(), [r#"42["echo",2]"#]);

    // An owner that stops ends its connections, and is nobody's owner then.
    let poll = polls.begin(&polling, c).await;
    first.node.drain().await.unwrap();
    assert_eq!(receive(poll).await.packets(), ["1"]);
    assert_unknown(&polling.poll(c).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relayed_client_that_reads_nothing_does_not_hold_up_the_end_of_either_node() {
    let cluster = Cluster::with(|config| config.drain_timeout = Duration::from_secs(20)).await;
    let Cluster { nodes, at: [a, b, c], .. } = cluster;
    let mut slow = Vec::new();
    for entry in [b, c] {
        let client = Roamer::open(a).await;
        client.connect([b, c]).await;
        let mut ws = Ws::upgrade(&client, entry, a).await;
        // More than any stream takes while nobody reads.
        for _ in 0..20 {
            ws.send(r#"42["flood",100]"#).await;
        }
        slow.push(ws);
    }
    let [owner, entry, _other] = nodes;
    entry.node.drain().await.unwrap();
    owner.node.drain().await.unwrap();
}
