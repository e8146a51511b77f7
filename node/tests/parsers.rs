//! Parsers at the public door: MessagePack as npm's clients speak it, and an application's own.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use bytestring::ByteString;
use flotilla::engineio;
use flotilla::server::{Ack, Args, ConnectError, Io, Reason, Socket};
use flotilla::socketio::codec::Kind;
use flotilla::socketio::{
    Body, Decoder, Msgpack, OutgoingPacket, Packet, Parser, ParserChoice, ProtocolError,
};
use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use common::{PATIENCE, TestNode};

/// A WebSocket whose messages a parser reads and writes.
struct Client {
    stream: WebSocketStream<TcpStream>,
    parser: Arc<dyn Parser>,
    decoder: Box<dyn Decoder>,
}

impl Client {
    async fn open(node: &TestNode, parser: Arc<dyn Parser>) -> Self {
        let address = node.node.addresses().listen;
        let stream = TcpStream::connect(address).await.unwrap();
        let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
        let (mut stream, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        let open = stream.next().await.unwrap().unwrap();
        assert!(open.to_text().unwrap().starts_with("0{"), "{open}");
        Self { stream, decoder: parser.decoder(), parser }
    }

    async fn connect(node: &TestNode, parser: Arc<dyn Parser>) -> Self {
        let mut client = Self::open(node, parser).await;
        client.send(Kind::Connect, "/", None, r#"{"token":7}"#, &[]).await;
        let Some(Packet::Connect { namespace, auth }) = client.next().await.map(|next| next.0)
        else {
            panic!("no CONNECT")
        };
        assert_eq!(namespace, "/");
        assert!(auth.unwrap().starts_with(r#"{"sid":""#));
        client
    }

    async fn send(
        &mut self,
        kind: Kind,
        namespace: &str,
        id: Option<u64>,
        json: &str,
        attachments: &[Bytes],
    ) {
        let packet = OutgoingPacket { kind, namespace, id, json, attachments };
        for message in self.parser.encode(&packet) {
            self.send_message(match message {
                engineio::Message::Text(text) => Message::text(format!("4{text}")),
                engineio::Message::Binary(bytes) => Message::Binary(bytes),
            })
            .await;
        }
    }

    async fn send_message(&mut self, message: Message) {
        self.stream.send(message).await.unwrap();
    }

    /// The next packet, or none once the server has closed the connection.
    async fn next(&mut self) -> Option<(Packet, Vec<Bytes>)> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.stream.next()).await;
            let message = match next.expect("the server should send something") {
                Some(Ok(Message::Text(text))) => {
                    engineio::Message::Text(text.strip_prefix('4').unwrap().into())
                }
                Some(Ok(Message::Binary(bytes))) => engineio::Message::Binary(bytes),
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => return None,
            };
            if let Some(packet) = self.decoder.decode(message).unwrap() {
                return Some(packet);
            }
        }
    }

    /// The next packet is an event or an ack: its id, JSON and attachments.
    async fn body(&mut self) -> (Option<u64>, String, Vec<Bytes>) {
        match self.next().await {
            Some((Packet::Event(body) | Packet::Ack(body), parts)) => {
                (body.id, body.json().to_owned(), parts)
            }
            other => panic!("{other:?}"),
        }
    }

    async fn expect(&mut self, id: Option<u64>, json: &str) {
        assert_eq!(self.body().await, (id, json.to_owned(), Vec::new()));
    }
}

/// A node that speaks `parser`; why sockets left comes out of the queue.
async fn start(parser: ParserChoice) -> (TestNode, mpsc::Receiver<&'static str>) {
    let (reasons, left) = mpsc::channel(8);
    let register = move |io: &Io| {
        io.of("/")
            .on("echo", async |args: Args, ack: Ack| ack.send_args(&args))
            .on("ask", async |socket: Socket, ack: Ack| {
                let answer: u32 = socket.emit_with_ack("add", &(40, 2)).answer().await.unwrap();
                ack.send(&answer).unwrap();
            })
            .on("all", async |socket: Socket, args: Args| {
                socket.io().emit("msg", &args.text().len()).await.unwrap();
            })
            .on("leave", async |socket: Socket| drop(socket.disconnect(false)))
            .on_disconnect(move |Reason(reason): Reason| {
                let reasons = reasons.clone();
                async move { reasons.send(reason).await.unwrap() }
            });
        io.of("/closed").with(async |_socket: Socket| Err(ConnectError::new("closed")));
    };
    let config = |config: &mut flotilla::config::Config| config.socketio.parser = parser;
    (common::start_with("n1", Vec::new(), config, register).await, left)
}

/// A request of a client that polls; the body of its answer.
async fn request(node: &TestNode, method: &str, sid: &str, body: &str) -> String {
    let address = node.node.addresses().listen;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let len = body.len();
    let request = format!(
        "{method} /socket.io/?EIO=4&transport=polling{sid} HTTP/1.1\r\nHost: {address}\r\n\
         Connection: close\r\nContent-Length: {len}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
    read.expect("the server should answer").unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

const ECHO: &str = r#"["echo",1.5,{"a":["é",null]},{"_placeholder":true,"num":0},[{"_placeholder":true,"num":1}]]"#;
const ECHOED: &str =
    r#"[1.5,{"a":["é",null]},{"_placeholder":true,"num":0},[{"_placeholder":true,"num":1}]]"#;

/// Every kind of packet, in both directions.
async fn talk(choice: ParserChoice) {
    let parser = choice.parser().unwrap();
    let (node, mut left) = start(choice).await;
    let mut client = Client::connect(&node, parser.clone()).await;
    let mut other = Client::connect(&node, parser).await;

    let attachments = [Bytes::from_static(&[0, 255]), Bytes::new()];
    client.send(Kind::Event, "/", Some(7), ECHO, &attachments).await;
    assert_eq!(client.body().await, (Some(7), ECHOED.to_owned(), attachments.to_vec()));

    client.send(Kind::Event, "/", Some(8), r#"["ask"]"#, &[]).await;
    let (id, add, _) = client.body().await;
    assert_eq!(add, r#"["add",40,2]"#);
    client.send(Kind::Ack, "/", id, "[42]", &[]).await;
    client.expect(Some(8), "[42]").await;

    client.send(Kind::Event, "/", None, r#"["all","x"]"#, &[]).await;
    client.expect(None, r#"["msg",3]"#).await;
    other.expect(None, r#"["msg",3]"#).await;

    for (namespace, message) in [("/none", "Invalid namespace"), ("/closed", "closed")] {
        client.send(Kind::Connect, namespace, None, "", &[]).await;
        let error = Some(ByteString::from(format!(r#"{{"message":"{message}"}}"#)));
        let refused = Packet::ConnectError { namespace: namespace.into(), error };
        assert_eq!(client.next().await.unwrap().0, refused);
    }

    client.send(Kind::Event, "/", None, r#"["leave"]"#, &[]).await;
    assert_eq!(client.next().await.unwrap().0, Packet::Disconnect { namespace: "/".into() });
    assert_eq!(left.recv().await, Some("server namespace disconnect"));
    other.send(Kind::Disconnect, "/", None, "", &[]).await;
    assert_eq!(left.recv().await, Some("client namespace disconnect"));
}

#[tokio::test]
async fn every_packet_travels_as_msgpack() {
    talk(ParserChoice::Msgpack).await;
}

#[tokio::test]
async fn every_packet_travels_by_an_applications_own_parser() {
    talk(ParserChoice::Custom(Arc::new(OneText))).await;
}

#[tokio::test]
async fn msgpack_travels_as_base64_by_polling() {
    let (node, _left) = start(ParserChoice::Msgpack).await;
    let open = request(&node, "GET", "", "").await;
    let sid = open.split('"').nth(3).unwrap().to_owned();
    let sid = format!("&sid={sid}");
    // {type: 0, nsp: "/"}, then {type: 2, nsp: "/", data: ["echo", <01 02>], id: 5}
    let frames = ["gqR0eXBlAKNuc3ChLw==", "hKR0eXBlAqNuc3ChL6RkYXRhkqRlY2hvxAIBAqJpZAU="];
    assert_eq!(request(&node, "POST", &sid, &format!("b{}", frames[0])).await, "ok");
    let decode = |body: &str| {
        let message = STANDARD.decode(body.strip_prefix('b').unwrap()).unwrap();
        let mut decoder = Msgpack.decoder();
        decoder.decode(engineio::Message::Binary(message.into())).unwrap().unwrap()
    };
    let (packet, _) = decode(&request(&node, "GET", &sid, "").await);
    assert!(matches!(packet, Packet::Connect { .. }), "{packet:?}");
    assert_eq!(request(&node, "POST", &sid, &format!("b{}", frames[1])).await, "ok");
    let (packet, parts) = decode(&request(&node, "GET", &sid, "").await);
    assert!(matches!(&packet, Packet::Ack(body) if body.id == Some(5)), "{packet:?}");
    assert_eq!(parts, [Bytes::from_static(&[1, 2])]);
}

#[tokio::test]
async fn what_the_parser_refuses_closes_the_connection() {
    let (node, mut left) = start(ParserChoice::Msgpack).await;
    let broken = [
        Message::text("42[\"echo\"]"),
        Message::binary(&b"\x83\xa4type\x02"[..]),
        Message::binary(&b"\xdd\xff\xff\xff\xff"[..]),
        // {type: 5, nsp: "/", data: []}
        Message::binary(&b"\x83\xa4type\x05\xa3nsp\xa1/\xa4data\x90"[..]),
        // An event that only the server itself may tell of.
        Message::binary(&b"\x83\xa4type\x02\xa3nsp\xa1/\xa4data\x91\xaadisconnect"[..]),
    ];
    for message in broken {
        let mut client = Client::connect(&node, Arc::new(Msgpack)).await;
        client.send_message(message).await;
        assert_eq!(client.next().await, None);
        assert_eq!(left.recv().await, Some("forced close"));
    }
}

#[tokio::test]
async fn msgpack_event_without_a_name_is_passed_over() {
    let (node, _left) = start(ParserChoice::Msgpack).await;
    let mut client = Client::connect(&node, Arc::new(Msgpack)).await;
    for json in ["[]", "[null,1]", "[[\"echo\"]]"] {
        client.send(Kind::Event, "/", Some(1), json, &[]).await;
    }
    client.send(Kind::Event, "/", Some(2), r#"["echo"]"#, &[]).await;
    client.expect(Some(2), "[]").await;
}

#[tokio::test]
async fn parser_that_promises_other_attachments_than_it_hands_over_is_not_believed() {
    #[derive(Debug)]
    struct Forgetful;

    impl Parser for Forgetful {
        fn encode(&self, packet: &OutgoingPacket<'_>) -> Vec<engineio::Message> {
            OneText.encode(packet)
        }

        fn decoder(&self) -> Box<dyn Decoder> {
            Box::new(Self)
        }
    }

    impl Decoder for Forgetful {
        fn decode(
            &mut self,
            message: engineio::Message,
        ) -> Result<Option<(Packet, Vec<Bytes>)>, ProtocolError> {
            let decoded = OneText.decoder().decode(message)?;
            Ok(decoded.map(|(packet, _parts)| (packet, Vec::new())))
        }
    }

    let (node, mut left) = start(ParserChoice::Custom(Arc::new(Forgetful))).await;
    let mut client = Client::connect(&node, Arc::new(OneText)).await;
    client.send(Kind::Event, "/", None, ECHO, &[Bytes::new(), Bytes::new()]).await;
    assert_eq!(left.recv().await, Some("forced close"));
}

/// A parser of an application's own: each packet is one text message, a JSON object, with binary
/// data as base64.
#[derive(Debug)]
struct OneText;

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    kind: u8,
    namespace: &'a str,
    id: Option<u64>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    binary: Vec<String>,
}

impl Parser for OneText {
    fn encode(&self, packet: &OutgoingPacket<'_>) -> Vec<engineio::Message> {
        let line = Line {
            kind: packet.kind as u8,
            namespace: packet.namespace,
            id: packet.id,
            data: serde_json::from_str(packet.json).ok(),
            binary: packet.attachments.iter().map(|bytes| STANDARD.encode(bytes)).collect(),
        };
        vec![engineio::Message::Text(serde_json::to_string(&line).unwrap().into())]
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(Self)
    }
}

impl Decoder for OneText {
    fn decode(
        &mut self,
        message: engineio::Message,
    ) -> Result<Option<(Packet, Vec<Bytes>)>, ProtocolError> {
        let engineio::Message::Text(text) = message else {
            return Err(ProtocolError::UnexpectedBinary);
        };
        let line: Line<'_> =
            serde_json::from_str(&text).map_err(|_| ProtocolError::InvalidPayload)?;
        let decoded = line.binary.iter().map(|text| STANDARD.decode(text).map(Bytes::from));
        let parts: Vec<Bytes> =
            decoded.collect::<Result<_, _>>().map_err(|_| ProtocolError::InvalidPayload)?;
        let namespace = ByteString::from(line.namespace);
        let data = line.data.map(|data| ByteString::from(data.get()));
        let body = || {
            let json = data.clone().ok_or(ProtocolError::InvalidPayload)?;
            Body::parse(namespace.clone(), line.id, json, parts.len())
        };
        let packet = match line.kind {
            0 => Packet::Connect { namespace, auth: data },
            1 => Packet::Disconnect { namespace },
            2 => Packet::Event(body()?),
            3 => Packet::Ack(body()?),
            4 => Packet::ConnectError { namespace, error: data },
            _ => return Err(ProtocolError::UnknownType),
        };
        Ok(Some((packet, parts)))
    }
}
