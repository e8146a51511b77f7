use super::*;
use crate::wait;

/// A proxy before a listener of the test's own; the test itself is the node "a" that dials "b".
struct Fixture {
    links: Links,
    listener: TcpListener,
    address: SocketAddr,
}

impl Fixture {
    async fn new() -> Self {
        let links = Links::new();
        links.name_process(std::process::id(), "a");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = links.open("b", listener.local_addr().unwrap()).unwrap();
        Self { links, listener, address }
    }

    async fn connect(&self) -> (TcpStream, TcpStream) {
        let dialler = TcpStream::connect(self.address).await.unwrap();
        let (dialled, _) = self.listener.accept().await.unwrap();
        (dialler, dialled)
    }
}

async fn receive(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let read = tokio::time::timeout(wait::PATIENCE, stream.read_exact(&mut bytes)).await;
    read.expect("bytes in time").expect("an open stream");
    bytes
}

async fn expect_end(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let end = tokio::time::timeout(wait::PATIENCE, stream.read_to_end(&mut rest)).await;
    // A reset is as good an end as any.
    drop(end.expect("the stream ends in time"));
    assert!(rest.is_empty(), "{rest:?}");
}

#[tokio::test]
async fn a_whole_link_carries_both_ways() {
    let fixture = Fixture::new().await;
    let (mut dialler, mut dialled) = fixture.connect().await;
    dialler.write_all(b"ask").await.unwrap();
    assert_eq!(receive(&mut dialled, 3).await, b"ask");
    dialled.write_all(b"answer").await.unwrap();
    assert_eq!(receive(&mut dialler, 6).await, b"answer");
}

#[tokio::test]
async fn a_cut_ends_connections_and_refuses_new_ones_until_healed() {
    let fixture = Fixture::new().await;
    let (mut dialler, mut dialled) = fixture.connect().await;
    dialler.write_all(b"x").await.unwrap();
    receive(&mut dialled, 1).await;
    fixture.links.cut("b", "a");
    expect_end(&mut dialler).await;
    expect_end(&mut dialled).await;
    let mut refused = TcpStream::connect(fixture.address).await.unwrap();
    expect_end(&mut refused).await;

    fixture.links.heal();
    let (mut dialler, mut dialled) = fixture.connect().await;
    dialler.write_all(b"y").await.unwrap();
    assert_eq!(receive(&mut dialled, 1).await, b"y");
}

#[tokio::test]
async fn dropped_replies_are_gone_while_requests_arrive() {
    let fixture = Fixture::new().await;
    let (mut dialler, mut dialled) = fixture.connect().await;
    fixture.links.replies("a", "b", Flow::Drop);
    dialler.write_all(b"ask").await.unwrap();
    assert_eq!(receive(&mut dialled, 3).await, b"ask");
    // More than all buffers on the way hold: once it is written, the proxy has dropped some.
    dialled.write_all(&vec![b'x'; 32 << 20]).await.unwrap();
    dialler.write_all(b"again").await.unwrap();
    assert_eq!(receive(&mut dialled, 5).await, b"again");
    assert!(fixture.links.dropped_bytes() > 0);
    fixture.links.heal();
    expect_end(&mut dialler).await;
}

#[tokio::test]
async fn held_bytes_arrive_after_healing() {
    let fixture = Fixture::new().await;
    let (mut dialler, mut dialled) = fixture.connect().await;
    fixture.links.requests("a", "b", Flow::Hold);
    dialler.write_all(b"late").await.unwrap();
    dialled.write_all(b"answer").await.unwrap();
    assert_eq!(receive(&mut dialler, 6).await, b"answer");
    // Asks the kernel itself: tokio would say "nothing" before its first look.
    let mut std_stream = dialled.into_std().unwrap();
    let heard = io::Read::read(&mut std_stream, &mut [0; 16]);
    assert!(heard.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
    let mut dialled = TcpStream::from_std(std_stream).unwrap();
    fixture.links.heal();
    assert_eq!(receive(&mut dialled, 4).await, b"late");
}

#[tokio::test]
async fn a_fault_between_two_nodes_leaves_others_alone() {
    let fixture = Fixture::new().await;
    fixture.links.cut("b", "c");
    let (mut dialler, mut dialled) = fixture.connect().await;
    dialler.write_all(b"x").await.unwrap();
    assert_eq!(receive(&mut dialled, 1).await, b"x");
}
