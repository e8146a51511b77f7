//! WebSocket frames as a client reads and writes them, without copies.

/// One complete frame at the start of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) opcode: u8,
    pub(super) payload: &'a [u8],
    /// How many bytes it took, header included.
    pub(super) length: usize,
}

pub(super) const TEXT: u8 = 1;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;

/// A frame that this reader does not take: a fragment, a compressed one or a masked one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unsupported;

/// Reads the first frame; `None` if it is not complete yet.
pub(super) fn read(bytes: &[u8]) -> Result<Option<Frame<'_>>, Unsupported> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    // Final, no extension bits, and not masked, as servers send.
    if first & 0xf0 != 0x80 || second & 0x80 != 0 {
        return Err(Unsupported);
    }
    let (header, length) = match (second, rest) {
        (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
        (127, [a, b, c, d, e, f, g, h, ..]) => {
            let length = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
            (10, usize::try_from(length).map_err(|_too_long| Unsupported)?)
        }
        (126 | 127, _) => return Ok(None),
        (length, _) => (2, usize::from(*length)),
    };
    let end = header + length;
    let payload = bytes.get(header..end);
    Ok(payload.map(|payload| Frame { opcode: first & 0x0f, payload, length: end }))
}

/// Appends a masked frame.
pub(super) fn write(opcode: u8, payload: &[u8], into: &mut Vec<u8>) {
    // Any key will do, but not zero: the server is to pay for unmasking.
    const KEY: [u8; 4] = [0x5a, 0xa5, 0x3c, 0xc3];
    into.push(0x80 | opcode);
    match payload.len() {
        length @ 0..126 => into.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            into.push(0x80 | 126);
            into.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            into.push(0x80 | 127);
            into.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    into.extend_from_slice(&KEY);
    into.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket};

    const SIZES: [usize; 7] = [0, 1, 125, 126, 65_535, 65_536, 100_000];

    #[test]
    fn what_tungstenites_server_side_writes_is_read() {
        let stream = Cursor::new(Vec::new());
        let mut server = WebSocket::from_raw_socket(stream, Role::Server, None);
        for size in SIZES {
            server.write(Message::text("x".repeat(size))).unwrap();
        }
        server.flush().unwrap();
        let bytes = server.into_inner().into_inner();
        let mut rest = &bytes[..];
        for size in SIZES {
            let frame = read(rest).unwrap().unwrap();
            assert_eq!((frame.opcode, frame.payload.len()), (TEXT, size));
            for cut in [0, 1, 2, 3, 9, frame.length - 1].map(|cut| cut.min(frame.length - 1)) {
                assert_eq!(read(&rest[..cut]), Ok(None), "{size} cut at {cut}");
            }
            rest = &rest[frame.length..];
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn what_is_written_tungstenites_server_side_reads() {
        let mut bytes = Vec::new();
        for size in SIZES {
            write(TEXT, "y".repeat(size).as_bytes(), &mut bytes);
        }
        let stream = Cursor::new(bytes);
        let mut server = WebSocket::from_raw_socket(stream, Role::Server, None);
        for size in SIZES {
            assert_eq!(server.read().unwrap(), Message::text("y".repeat(size)));
        }
    }

    #[test]
    fn fragments_and_masked_frames_are_refused() {
        assert_eq!(read(&[0x01, 0]), Err(Unsupported));
        assert_eq!(read(&[0xc1, 0]), Err(Unsupported));
        assert_eq!(read(&[0x81, 0x80, 0, 0, 0, 0]), Err(Unsupported));
    }
}
