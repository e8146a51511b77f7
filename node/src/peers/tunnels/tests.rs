//! Two nodes and the tunnels between them, and owners that are not what they were taken for.

use std::sync::atomic::AtomicBool;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use super::super::PeersConfig;
use super::*;
use crate::net::{self, Dialer};

const CLUSTER: u64 = 0xc1;
const OWNER: NodeId = 2;
const INCARNATION: u64 = 20;
const PATIENCE: Duration = Duration::from_secs(20);

struct Node {
    address: SocketAddr,
    peers: Peers,
    tunnels: Tunnels,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl Node {
    async fn start(node: NodeId, incarnation: u64) -> Self {
        let (address, listener) = net::bind("127.0.0.1:0").await.unwrap();
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let config = PeersConfig::default();
        let (peers, _inbound) =
            Peers::new(config, node, Dialer::tcp(), tasks.clone(), shutdown.clone());
        peers.register(CLUSTER, incarnation);
        let tunnels = Tunnels::new(peers.clone());
        let routes = Routes::new(tunnels.service());
        let stop = shutdown.clone().cancelled_owned();
        let served = net::serve(net::tcp_incoming(listener), routes, stop);
        tasks.spawn(async move { served.await.unwrap() });
        Self { address, peers, tunnels, shutdown, tasks }
    }

    /// Takes the owner for this incarnation, at this address.
    fn knows(&self, incarnation: u64, address: SocketAddr) {
        let address = address.to_string().into();
        self.peers.set_members(&[Member { node: OWNER, incarnation, address }]);
    }

    async fn accept(&self) -> Accepted {
        let accepted = timeout(PATIENCE, self.tunnels.accept()).await;
        accepted.expect("a tunnel should come").expect("the node takes tunnels")
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.close();
        timeout(PATIENCE, self.tasks.wait()).await.expect("all tasks end");
    }
}

fn sid() -> Sid {
    Sid::new(OWNER, [7; Sid::RANDOM_BYTES])
}

fn client() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 5555))
}

/// Entry and owner, and a tunnel between them.
async fn pair() -> (Node, Node, Tunnel, Tunnel) {
    let owner = Node::start(OWNER, INCARNATION).await;
    let entry = Node::start(1, 10).await;
    entry.knows(INCARNATION, owner.address);
    let (tunnel, accepted) = tokio::join!(entry.tunnels.open(sid(), client()), owner.accept());
    assert_eq!((accepted.sid, accepted.client), (sid(), client()));
    (entry, owner, tunnel.unwrap(), accepted.tunnel)
}

async fn read(tunnel: &mut Tunnel, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    timeout(PATIENCE, tunnel.read_exact(&mut bytes)).await.expect("bytes should come").unwrap();
    bytes
}

async fn read_end(tunnel: &mut Tunnel) -> std::io::Result<usize> {
    timeout(PATIENCE, tunnel.read(&mut [0; 64])).await.expect("an end should come")
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn bytes_pass_in_both_directions_and_each_end_is_seen() {
    let (entry, owner, mut near, mut far) = pair().await;
    assert_eq!((entry.tunnels.opened(), owner.tunnels.accepted()), (1, 1));
    let long: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
    let (written, arrived) = tokio::join!(near.write_all(&long), read(&mut far, long.len()));
    written.unwrap();
    assert_eq!(arrived, long);
    let (written, arrived) = tokio::join!(far.write_all(&long), read(&mut near, long.len()));
    written.unwrap();
    assert_eq!(arrived, long);

    near.write_all(b"last").await.unwrap();
    near.shutdown().await.unwrap();
    assert_eq!(read(&mut far, 4).await, b"last");
    assert_eq!(read_end(&mut far).await.unwrap(), 0);
    far.write_all(b"answer").await.unwrap();
    drop(far);
    assert_eq!(read(&mut near, 6).await, b"answer");
    assert_eq!(read_end(&mut near).await.unwrap(), 0);
    drop(near);
    until("nothing is open", || entry.tunnels.opened() + owner.tunnels.accepted() == 0).await;
    entry.stop().await;
    owner.stop().await;
}

#[tokio::test]
async fn tunnel_that_is_not_read_takes_little_and_does_not_hold_up_others() {
    let (entry, owner, mut near, mut far) = pair().await;
    let mut taken = 0;
    let chunk = [1; 16 << 10];
    // Full is what stays full: what has been sent makes room once more.
    while let Ok(written) = timeout(Duration::from_millis(500), far.write(&chunk)).await {
        taken += written.unwrap();
        assert!(taken < 1 << 20, "it takes everything");
    }
    let (other, accepted) = tokio::join!(entry.tunnels.open(sid(), client()), owner.accept());
    let (mut other, mut other_far) = (other.unwrap(), accepted.tunnel);
    other_far.write_all(b"through").await.unwrap();
    assert_eq!(read(&mut other, 7).await, b"through");

    read(&mut near, taken).await;
    let written = timeout(PATIENCE, far.write(&chunk)).await;
    written.expect("there is room again").unwrap();
    entry.stop().await;
    owner.stop().await;
}

#[tokio::test]
async fn owner_hears_that_the_other_end_leaves() {
    let (entry, owner, mut near, mut far) = pair().await;
    let has_left = Arc::new(AtomicBool::new(false));
    let heard = Arc::clone(&has_left);
    far.on_leaving(move || heard.store(true, Ordering::Release));
    near.leaver().leave().await;
    near.write_all(b"and more").await.unwrap();
    assert_eq!(read(&mut far, 8).await, b"and more");
    assert!(has_left.load(Ordering::Acquire));
    entry.stop().await;
    owner.stop().await;
}

#[tokio::test]
async fn entry_that_lets_go_of_a_tunnel_ends_it() {
    let (entry, owner, near, mut far) = pair().await;
    drop(near);
    // Whether it ended or broke, nobody can tell on every way.
    assert!(matches!(read_end(&mut far).await, Ok(0) | Err(_)));
    entry.stop().await;
    owner.stop().await;
}

#[tokio::test]
async fn owners_that_are_not_there_are_told_from_those_that_do_not_answer() {
    let entry = Node::start(1, 10).await;
    let opened = entry.tunnels.open(sid(), client()).await;
    assert_eq!(opened.err(), Some(OpenError::UnknownOwner));

    // The node started anew, and has not been heard of since.
    let owner = Node::start(OWNER, INCARNATION + 1).await;
    entry.knows(INCARNATION, owner.address);
    let refused = entry.tunnels.open(sid(), client()).await.err();
    assert_eq!(refused, Some(OpenError::Unreachable("incarnation 20 is over".to_owned())));

    // It takes no more.
    entry.knows(INCARNATION + 1, owner.address);
    owner.tunnels.close().await;
    let refused = entry.tunnels.open(sid(), client()).await.err();
    assert_eq!(refused, Some(OpenError::Unreachable("this node is stopping".to_owned())));

    // Its process is halted: the system takes connections for it, and nothing comes back.
    let halted = TcpListener::bind("127.0.0.1:0").await.unwrap();
    entry.knows(INCARNATION + 2, halted.local_addr().unwrap());
    let asked = timeout(PATIENCE, entry.tunnels.open(sid(), client())).await;
    assert!(matches!(asked.unwrap(), Err(OpenError::Unreachable(_))));
    assert_eq!(entry.tunnels.opened(), 0);
    entry.stop().await;
    owner.stop().await;
}
