//! Nodes that talk over loopback, restart, are slow, and are strangers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use flotilla_proto::peers as proto;
use futures_util::stream;
use proto::peers_client::PeersClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tonic::service::Routes;
use tonic::{Code, Status};

use super::*;
use crate::net::{self, BoxedIo};
use crate::raft::state::Target;
use crate::socketio::Payload;

const CLUSTER: u64 = 0xc1;
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the nodes of a test listen; a node that restarts gets another port.
#[derive(Clone, Default)]
struct Network(Arc<Mutex<HashMap<NodeId, SocketAddr>>>);

impl Network {
    /// Addresses are `<node>:1`.
    fn dialer(&self) -> Dialer {
        let network = self.clone();
        Dialer::new(move |uri| {
            let node: NodeId = uri.host().unwrap().strip_prefix("node").unwrap().parse().unwrap();
            let address = network.address(node);
            async move {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(BoxedIo::new(stream))
            }
        })
    }

    fn address(&self, node: NodeId) -> SocketAddr {
        self.0.lock().unwrap()[&node]
    }
}

struct Node {
    peers: Peers,
    inbound: mpsc::Receiver<Vec<Inbound>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Node {
    async fn start(network: &Network, node: NodeId, incarnation: Incarnation) -> Self {
        Self::start_with(network, node, incarnation, CLUSTER, PeersConfig::default()).await
    }

    async fn start_with(
        network: &Network,
        node: NodeId,
        incarnation: Incarnation,
        cluster: u64,
        config: PeersConfig,
    ) -> Self {
        let (address, listener) = net::bind("127.0.0.1:0").await.unwrap();
        network.0.lock().unwrap().insert(node, address);
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let (peers, inbound) =
            Peers::new(config, node, network.dialer(), tasks.clone(), shutdown.clone());
        peers.register(cluster, incarnation);
        let routes = Routes::new(peers.service());
        let served =
            net::serve(net::tcp_incoming(listener), routes, shutdown.clone().cancelled_owned());
        tasks.spawn(async move { served.await.unwrap() });
        Self { peers, inbound, tasks, shutdown }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.close();
        drop(self.inbound);
        timeout(PATIENCE, self.tasks.wait()).await.expect("all tasks end");
    }

    /// The next `count` messages, as the requests of acks, which number them.
    async fn requests(&mut self, count: usize) -> Vec<u64> {
        let mut requests = Vec::new();
        while requests.len() < count {
            let batch = timeout(PATIENCE, self.inbound.recv()).await;
            let batch = batch.unwrap_or_else(|_| panic!("only {} came", requests.len())).unwrap();
            requests.extend(batch.iter().map(|inbound| match inbound.message {
                Message::AckCount { request, .. } => request,
                ref other => panic!("{other:?}"),
            }));
        }
        requests
    }
}

fn member(node: NodeId, incarnation: Incarnation) -> Member {
    Member { node, incarnation, address: format!("node{node}:1").into() }
}

fn numbered(request: u64) -> Message {
    Message::AckCount { request, sockets: 1 }
}

async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let waited = timeout(PATIENCE, async {
        while !condition() {
            sleep(Duration::from_millis(1)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Two nodes with links both ways.
async fn pair() -> (Network, Node, Node) {
    let network = Network::default();
    let ann = Node::start(&network, 1, 10).await;
    let bob = Node::start(&network, 2, 11).await;
    for node in [&ann, &bob] {
        node.peers.set_members(&[member(1, 10), member(2, 11)]);
    }
    wait_until("both links are up", || ann.peers.up() == 1 && bob.peers.up() == 1).await;
    (network, ann, bob)
}

#[tokio::test]
async fn messages_arrive_in_order_both_ways_and_in_batches() {
    let (_network, mut ann, mut bob) = pair().await;
    for request in 0..5_000 {
        ann.peers.send(2, numbered(request)).unwrap();
        bob.peers.send(1, numbered(request)).unwrap();
    }
    let mut batches = 0;
    let mut came = Vec::new();
    while came.len() < 5_000 {
        let batch = timeout(PATIENCE, bob.inbound.recv()).await.unwrap().unwrap();
        assert!(batch.iter().all(|inbound| inbound.from == 1));
        batches += 1;
        came.extend(batch.into_iter().map(|inbound| inbound.message));
    }
    assert!(came.into_iter().eq((0..5_000).map(numbered)));
    // The loop above never yields, so that nearly all waited together.
    assert!(batches < 50, "{batches} batches");
    assert!(ann.requests(5_000).await.into_iter().eq(0..5_000));
    ann.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn broadcast_arrives_as_it_was_sent() {
    let (_network, ann, mut bob) = pair().await;
    let broadcast = Message::Broadcast(Broadcast {
        namespace: "/chat".into(),
        applied: 12,
        target: Target { rooms: ["a".into()].into_iter().collect(), ..Target::default() },
        payload: Payload {
            json: r#"["msg",{"_placeholder":true,"num":0}]"#.into(),
            attachments: vec![vec![7; 5 << 20].into()],
        },
        volatile: false,
        ack: Some(3),
        uncompressed: false,
    });
    ann.peers.send(2, broadcast.clone()).unwrap();
    let came = timeout(PATIENCE, bob.inbound.recv()).await.unwrap().unwrap();
    assert_eq!(came, [Inbound { from: 1, message: broadcast }]);
    ann.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn slow_peer_fills_its_queue_and_nobody_waits() {
    let network = Network::default();
    let config = PeersConfig { max_queue_messages: 10, ..PeersConfig::default() };
    let ann = Node::start_with(&network, 1, 10, CLUSTER, config).await;
    let mut bob = Node::start(&network, 2, 11).await;
    ann.peers.set_members(&[member(2, 11)]);
    wait_until("the link is up", || ann.peers.up() == 1).await;

    // Bob takes nothing from his queue: it fills, then the stream's window, then Ann's queue.
    let large = Payload { json: "x".repeat(1 << 20).into(), attachments: Vec::new() };
    let mut sent = 0;
    wait_until("Ann's queue is full behind Bob's", || {
        let message = Message::Ack { request: sent, payload: Some(large.clone()) };
        let pushed = ann.peers.send(2, message);
        sent += u64::from(pushed.is_ok());
        bob.inbound.len() == INBOUND_FRAMES && pushed == Err(SendError::Full)
    })
    .await;

    // Once he takes them, all that was not refused arrives, and there is room again.
    let mut came = 0;
    while came < sent {
        for inbound in timeout(PATIENCE, bob.inbound.recv()).await.unwrap().unwrap() {
            let Message::Ack { request, .. } = inbound.message else { panic!("an ack was sent") };
            assert_eq!(request, came);
            came += 1;
        }
    }
    assert_eq!(ann.peers.queue_bytes(), 0);
    ann.peers.send(2, numbered(0)).unwrap();
    ann.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn node_that_is_no_member_is_unknown() {
    let (_network, ann, bob) = pair().await;
    assert_eq!(ann.peers.send(3, numbered(0)), Err(SendError::Unknown));
    assert_eq!(ann.peers.send(1, numbered(0)), Err(SendError::Unknown));
    ann.peers.set_members(&[]);
    assert_eq!(ann.peers.send(2, numbered(0)), Err(SendError::Unknown));
    wait_until("the link is down", || ann.peers.up() == 0).await;
    ann.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn message_that_is_too_large_is_refused() {
    let (_network, ann, bob) = pair().await;
    let payload =
        Payload { json: "[]".into(), attachments: vec![vec![0; MAX_MESSAGE_BYTES].into()] };
    let message = Message::Ack { request: 0, payload: Some(payload) };
    assert_eq!(ann.peers.send(2, message), Err(SendError::TooLarge));
    ann.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn link_comes_back_when_the_peer_restarts() {
    let (network, ann, bob) = pair().await;
    bob.stop().await;
    wait_until("the link is down", || ann.peers.up() == 0).await;
    ann.peers.send(2, numbered(0)).unwrap();

    let mut bob = Node::start(&network, 2, 20).await;
    ann.peers.set_members(&[member(1, 10), member(2, 20)]);
    wait_until("the link is up", || ann.peers.up() == 1).await;
    ann.peers.send(2, numbered(1)).unwrap();
    // What was meant for the old incarnation is gone.
    assert_eq!(bob.requests(1).await, [1]);
    ann.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn what_waits_survives_a_broken_stream() {
    let network = Network::default();
    let ann = Node::start(&network, 1, 10).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    network.0.lock().unwrap().insert(2, nobody.local_addr().unwrap());
    ann.peers.set_members(&[member(2, 11)]);
    ann.peers.send(2, numbered(0)).unwrap();
    // Its first streams are cut as soon as they are opened.
    for _ in 0..2 {
        drop(timeout(PATIENCE, nobody.accept()).await.unwrap().unwrap());
    }
    let mut bob = Node::start(&network, 2, 11).await;
    drop(nobody);
    assert_eq!(bob.requests(1).await, [0]);
    ann.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn stream_for_an_old_incarnation_is_refused() {
    let network = Network::default();
    let bob = Node::start(&network, 2, 11).await;
    let hello = proto::Hello { to_incarnation: 10, ..hello() };
    let status = call(&network, vec![opening(hello)]).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::FailedPrecondition, "incarnation 10 is over")
    );
    bob.stop().await;
}

#[tokio::test]
async fn other_cluster_node_or_version_is_refused_with_a_reason() {
    let network = Network::default();
    let bob = Node::start(&network, 2, 11).await;
    for (hello, reason) in [
        (proto::Hello { cluster: 0xc2, ..hello() }, "cluster c2 is not c1"),
        (proto::Hello { to: 3, ..hello() }, "node 3 is not 2"),
        (proto::Hello { version: 9, ..hello() }, "version 9 is not 1"),
    ] {
        let status = call(&network, vec![opening(hello)]).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, reason));
    }
    bob.stop().await;
}

#[tokio::test]
async fn link_to_another_cluster_gives_nothing_away() {
    let network = Network::default();
    let stranger = Node::start_with(&network, 2, 11, CLUSTER + 1, PeersConfig::default()).await;
    let me = Me { node: 1, cluster: AtomicU64::new(CLUSTER), incarnation: AtomicU64::new(10) };
    let link = Link::new(member(2, 11), &PeersConfig::default(), CancellationToken::new());
    let link = Arc::new(link);
    link.send(numbered(0)).unwrap();
    let queued = link.queue_bytes();

    let refused = link.talk(&me, network.dialer().channel("node2:1").unwrap()).await.unwrap_err();
    assert_eq!(refused.message(), "cluster c1 is not c2");
    assert!(!link.is_up());
    assert_eq!(link.queue_bytes(), queued);
    stranger.stop().await;
}

#[tokio::test]
async fn node_without_a_cluster_refuses_until_it_has_one() {
    let network = Network::default();
    let ann = Node::start(&network, 1, 10).await;
    let mut bob = Node::start_with(&network, 2, 0, 0, PeersConfig::default()).await;
    let refused = call(&network, vec![opening(hello())]).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    ann.peers.set_members(&[member(2, 11)]);
    ann.peers.send(2, numbered(0)).unwrap();
    bob.peers.register(CLUSTER, 11);
    assert_eq!(bob.requests(1).await, [0]);
    ann.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn stream_without_a_hello_is_refused() {
    let network = Network::default();
    let bob = Node::start(&network, 2, 11).await;
    for frames in [vec![], vec![proto::Frame::default()]] {
        let status = call(&network, frames).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    bob.stop().await;
}

#[tokio::test]
async fn invalid_message_ends_the_stream_and_the_next_one_works() {
    let network = Network::default();
    let mut bob = Node::start(&network, 2, 11).await;
    let broken = proto::Broadcast { namespace: vec![0xff].into(), ..proto::Broadcast::default() };
    let broken = proto::Message { kind: Some(proto::message::Kind::Broadcast(broken)) };
    let frame = proto::Frame { hello: None, messages: vec![broken] };
    let ended = call(&network, vec![opening(hello()), frame]).await.unwrap();
    assert_eq!(ended.unwrap_err().code(), Code::InvalidArgument);

    let ann = Node::start(&network, 1, 10).await;
    ann.peers.set_members(&[member(2, 11)]);
    ann.peers.send(2, numbered(7)).unwrap();
    assert_eq!(bob.requests(1).await, [7]);
    ann.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn garbage_on_the_port_hurts_nobody_else() {
    let (network, ann, mut bob) = pair().await;
    for garbage in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\xff"]
    {
        let mut stream = TcpStream::connect(network.address(2)).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // A reset is as good an answer as a close.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it is closed");
    }
    ann.peers.send(2, numbered(1)).unwrap();
    assert_eq!(bob.requests(1).await, [1]);
    ann.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn newer_stream_of_a_peer_ends_the_older_one() {
    let network = Network::default();
    let bob = Node::start(&network, 2, 11).await;
    let mut older = talk(&network, hello()).await.unwrap();
    let _newer = talk(&network, proto::Hello { from_incarnation: 12, ..hello() }).await.unwrap();
    let ended = timeout(PATIENCE, older.message()).await.expect("the older stream ends");
    assert_eq!(ended.unwrap_err().code(), Code::Unavailable);
    let late = talk(&network, hello()).await.unwrap_err();
    assert_eq!(late.message(), "a later incarnation is talking");
    bob.stop().await;
}

fn hello() -> proto::Hello {
    proto::Hello {
        version: VERSION,
        cluster: CLUSTER,
        from: 1,
        from_incarnation: 10,
        to: 2,
        to_incarnation: 11,
    }
}

fn opening(hello: proto::Hello) -> proto::Frame {
    proto::Frame { hello: Some(hello), messages: Vec::new() }
}

type Replies = tonic::Streaming<proto::Nothing>;

/// Opens a stream to node 2 by hand, and leaves it open.
async fn talk(network: &Network, hello: proto::Hello) -> Result<Replies, Status> {
    let frames = stream::iter([opening(hello)]);
    let frames = futures_util::StreamExt::chain(frames, stream::pending());
    let channel = network.dialer().channel("node2:1").unwrap();
    Ok(PeersClient::new(channel).talk(frames).await?.into_inner())
}

/// Sends frames to node 2 by hand: how the call was answered, and how the stream ended.
async fn call(
    network: &Network,
    frames: Vec<proto::Frame>,
) -> Result<Result<Option<proto::Nothing>, Status>, Status> {
    let channel = network.dialer().channel("node2:1").unwrap();
    let answer = PeersClient::new(channel).talk(stream::iter(frames)).await?;
    Ok(timeout(PATIENCE, answer.into_inner().message()).await.expect("the stream ends"))
}
