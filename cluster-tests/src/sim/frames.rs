//! Reads what a client gets: WebSocket frames with Socket.IO packets, as the protocols' pages say.

use serde::Deserialize;

/// What a packet means to a simulated client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet {
    Connect(Connect),
    /// The first argument after the event's name, a text; and in a recoverable namespace the
    /// offset, which is the last one.
    Event(String, Option<String>),
    Disconnect,
}

/// What a CONNECT tells a client of its socket.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Connect {
    pub(super) sid: String,
    pub(super) pid: Option<String>,
}

/// The packets of unmasked text frames, one after the other, for one namespace.
///
/// It panics on everything that a server must not send here.
pub(super) fn parse(mut frames: &[u8], namespace: &str) -> Vec<Packet> {
    let mut packets = Vec::new();
    while !frames.is_empty() {
        assert_eq!(frames[0], 0x81, "a final text frame");
        let (start, len) = match frames[1] {
            126 => (4, usize::from(frames[2]) << 8 | usize::from(frames[3])),
            len => (2, usize::from(len)),
        };
        assert!(len < 1 << 15, "a short, unmasked frame");
        let text = std::str::from_utf8(&frames[start..start + len]).expect("text is UTF-8");
        packets.push(packet(text, namespace));
        frames = &frames[start + len..];
    }
    packets
}

fn packet(text: &str, namespace: &str) -> Packet {
    let (kind, mut rest) = text.split_at(2);
    if namespace != "/" {
        rest = rest.strip_prefix(namespace).expect("the packet names its namespace");
        rest = rest.strip_prefix(',').expect("a comma ends the namespace");
    }
    match kind {
        "40" => Packet::Connect(serde_json::from_str(rest).expect("an object of texts")),
        "41" => Packet::Disconnect,
        "42" => {
            let mut texts: Vec<String> = serde_json::from_str(rest).expect("an event of texts");
            let offset = (texts.len() == 3).then(|| texts.pop()).flatten();
            let [_event, text] = <[_; 2]>::try_from(texts).expect("an event with one text");
            Packet::Event(text, offset)
        }
        _ => panic!("{text:?} is no packet for a simulated client"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_one_after_the_other() {
        assert_eq!(parse(b"\x81\x0440{}", "/"), [Packet::Connect(Connect::default())]);
        let event = br#"42/b,["m","1:2"]"#;
        let mut frames = vec![0x81, event.len() as u8];
        frames.extend_from_slice(event);
        frames.extend_from_slice(b"\x81\x0541/b,");
        let event = Packet::Event("1:2".to_owned(), None);
        assert_eq!(parse(&frames, "/b"), [event, Packet::Disconnect]);
    }

    #[test]
    fn recoverable_namespace_tells_pid_and_offset() {
        let connect = Connect { sid: "s".to_owned(), pid: Some("p".to_owned()) };
        assert_eq!(packet(r#"40{"sid":"s","pid":"p"}"#, "/"), Packet::Connect(connect));
        let event = Packet::Event("1:2".to_owned(), Some("a-1-0".to_owned()));
        assert_eq!(packet(r#"42["m","1:2","a-1-0"]"#, "/"), event);
    }

    #[test]
    fn long_frames_have_two_bytes_of_length() {
        let event = format!(r#"42["m","{}"]"#, "x".repeat(300));
        let mut frames = vec![0x81, 126, (event.len() >> 8) as u8, event.len() as u8];
        frames.extend_from_slice(event.as_bytes());
        assert_eq!(parse(&frames, "/"), [Packet::Event("x".repeat(300), None)]);
    }
}
