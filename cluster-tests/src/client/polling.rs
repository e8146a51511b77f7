//! The client's long-polling transport: one GET that waits, and POSTs one after the other.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::packet::Frame;
use super::{ConnectError, WIRE_CAPACITY, Wire, parse_open};
use crate::http;

const SEPARATOR: char = '\x1e';

/// How many frames one POST may carry.
const POST_FRAMES: usize = 64;

/// Does the handshake and starts to poll: at `url`, or at each of `roams` in turn.
pub(super) async fn open(
    url: &str,
    roams: Vec<String>,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<Wire, ConnectError> {
    let address = format!("{url}/socket.io/?EIO=4&transport=polling");
    let answer = http::get(&address).await;
    let answer = answer.map_err(|error| ConnectError::Lost(error.to_string()))?;
    if !answer.status.is_success() {
        return Err(ConnectError::Http(answer.status.as_u16(), answer.body));
    }
    let sid = parse_open(&answer.body)?;
    let urls = if roams.is_empty() { vec![url.to_owned()] } else { roams };
    let query = format!("socket.io/?EIO=4&transport=polling&sid={sid}");
    let addresses: Vec<_> = urls.iter().map(|url| format!("{url}/{query}")).collect();

    let (deliver, incoming) = mpsc::channel(WIRE_CAPACITY);
    let polling = poll(addresses.clone(), deliver);
    tasks.spawn(shutdown.clone().run_until_cancelled_owned(polling));
    let (outgoing, queue) = mpsc::channel(WIRE_CAPACITY);
    tasks.spawn(post_all(addresses, queue));
    Ok(Wire { incoming, outgoing })
}

async fn poll(addresses: Vec<String>, deliver: mpsc::Sender<Frame>) {
    for address in addresses.iter().cycle() {
        let Ok(answer) = http::get(address).await else { return };
        if !answer.status.is_success() {
            return;
        }
        let Some(frames) = decode(&answer.body) else { return };
        for frame in frames {
            if deliver.send(frame).await.is_err() {
                return;
            }
        }
    }
}

async fn post_all(addresses: Vec<String>, mut queue: mpsc::Receiver<Frame>) {
    let mut frames = Vec::new();
    // Behind the polls, so that both meet in every mixture.
    let mut addresses = addresses.iter().cycle().skip(1);
    while queue.recv_many(&mut frames, POST_FRAMES).await > 0 {
        let address = addresses.next().expect("a cycle does not end");
        let posted = http::post(address, encode(&frames)).await;
        if !posted.is_ok_and(|answer| answer.status.is_success()) {
            return;
        }
        frames.clear();
    }
}

fn encode(frames: &[Frame]) -> String {
    let packets: Vec<String> = frames
        .iter()
        .map(|frame| match frame {
            Frame::Text(text) => text.clone(),
            Frame::Binary(bytes) => format!("b{}", STANDARD.encode(bytes)),
            Frame::Close => "1".to_owned(),
        })
        .collect();
    packets.join(&SEPARATOR.to_string())
}

fn decode(body: &str) -> Option<Vec<Frame>> {
    let frame = |packet: &str| match packet.strip_prefix('b') {
        Some(coded) => Some(Frame::Binary(Bytes::from(STANDARD.decode(coded).ok()?))),
        None if packet == "1" => Some(Frame::Close),
        None => Some(Frame::Text(packet.to_owned())),
    };
    body.split(SEPARATOR).map(frame).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_carries_text_and_binary() {
        let frames =
            [Frame::Text("4hello".to_owned()), Frame::Binary(Bytes::from_static(&[1, 2, 3, 4]))];
        let body = encode(&frames);
        assert_eq!(body, "4hello\u{1e}bAQIDBA==");
        assert_eq!(decode(&body).unwrap(), frames);
        assert_eq!(decode("b!"), None);
    }
}
