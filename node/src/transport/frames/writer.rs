//! Writes all that is pending at once, and remembers how far it came.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::frame::coding::Control;

use crate::adapter::{Encoded, OutboxSize};
use crate::engineio::Encoding;
use crate::metrics;

use super::Scratch;

/// From this length on, handing the system one more slice is cheaper than copying.
const VECTORED_FROM_BYTES: usize = 4096;
/// What one call hands to the system at most; Linux takes 1024.
const MAX_SLICES: usize = 64;
/// A queue that a burst has made longer gives its memory back.
const KEPT_CAPACITY: usize = 16;

/// The packets that a client is to get next, the first of them perhaps written in part.
#[derive(Debug, Default)]
pub(crate) struct FrameWriter {
    pub(crate) pending: VecDeque<Arc<Encoded>>,
    /// How much of what came from the outbox is not written yet.
    pub(crate) left_bytes: usize,
    /// Which of a packet's forms is written.
    encoding: Encoding,
    /// So much of the first packet has been written.
    written_bytes: usize,
}

/// A part of one write.
enum Part {
    Copied(Range<usize>),
    Long(usize),
}

impl FrameWriter {
    pub(crate) fn new(encoding: Encoding) -> Self {
        Self { encoding, ..Self::default() }
    }

    pub(crate) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// What waits until the stream takes bytes again.
    pub(crate) fn left(&self) -> OutboxSize {
        OutboxSize { bytes: self.left_bytes, packets: self.pending.len() }
    }

    /// Whether the client waits for the rest of a frame.
    pub(crate) fn is_within_frame(&self) -> bool {
        self.written_bytes > 0
    }

    /// Answers a WebSocket ping. A client that pings without reading gets only the last answer
    /// (RFC 6455, section 5.5.3), so that answers cannot pile up.
    pub(crate) fn answer_ping(&mut self, content: &[u8]) {
        let pong = Encoded::control(Control::Pong, content);
        let is_begun = self.pending.len() == 1 && self.is_within_frame();
        match self.pending.back_mut() {
            Some(last) if !is_begun && last.frames()[0] == pong.frames()[0] => *last = pong,
            _ => self.pending.push_back(pong),
        }
    }

    /// Writes all that is pending, unless the stream takes no more: then `WouldBlock`, and
    /// another call goes on from there.
    ///
    /// `try_write` is given one or more slices, and tells how many bytes it took.
    pub(crate) fn write(
        &mut self,
        mut try_write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
        now: Instant,
    ) -> io::Result<()> {
        while !self.pending.is_empty() {
            let written = match self.write_once(&mut try_write) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.release(written, now);
        }
        if self.pending.capacity() > KEPT_CAPACITY {
            self.pending = VecDeque::new();
        }
        Ok(())
    }

    fn write_once(
        &self,
        try_write: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.pending.len() == 1 {
            return try_write(&[IoSlice::new(self.unwritten(0))]);
        }
        let mut scratch = Scratch::take();
        let parts = self.copy_short_packets(&mut scratch);
        let slices: SmallVec<[IoSlice<'_>; 8]> = parts
            .iter()
            .map(|part| match part {
                Part::Copied(range) => IoSlice::new(&scratch[range.clone()]),
                Part::Long(index) => IoSlice::new(self.unwritten(*index)),
            })
            .collect();
        try_write(&slices)
    }

    fn copy_short_packets(&self, scratch: &mut Scratch) -> SmallVec<[Part; 8]> {
        let mut parts = SmallVec::new();
        let mut copied = 0;
        let mut start = 0;
        for index in 0..self.pending.len() {
            let bytes = self.unwritten(index);
            let is_long = bytes.len() >= VECTORED_FROM_BYTES;
            if is_long && start < copied {
                parts.push(Part::Copied(start..copied));
                start = copied;
            }
            if parts.len() + 1 >= MAX_SLICES {
                break;
            }
            if is_long {
                parts.push(Part::Long(index));
            } else if copied + bytes.len() <= scratch.len() {
                scratch[copied..copied + bytes.len()].copy_from_slice(bytes);
                copied += bytes.len();
            } else {
                break;
            }
        }
        if start < copied {
            parts.push(Part::Copied(start..copied));
        }
        parts
    }

    fn unwritten(&self, index: usize) -> &[u8] {
        let frames = self.pending[index].frames_in(self.encoding);
        if index == 0 { &frames[self.written_bytes..] } else { frames }
    }

    fn release(&mut self, written: usize, now: Instant) {
        let mut left = self.written_bytes + written;
        let mut complete = 0;
        for packet in &self.pending {
            let len = packet.frames_in(self.encoding).len();
            if left < len {
                break;
            }
            left -= len;
            complete += 1;
        }
        self.written_bytes = left;
        self.left_bytes = self.left_bytes.saturating_sub(written);
        metrics::SENT_BYTES.add(written as u64);
        metrics::PACKETS_SENT.add(complete as u64);
        let packets = self.pending.drain(..complete);
        metrics::DELIVERY_DELAY.record_all(packets.filter_map(|packet| packet.delay(now)));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;
    use tokio_tungstenite::tungstenite::protocol::Role;
    use tokio_tungstenite::tungstenite::{Error, Message, WebSocket};

    use super::*;

    /// Writes all of `texts` to a stream that takes as many bytes at a time as `takes` says, over
    /// and over; zero stands for a stream that would block.
    fn write(texts: &[String], takes: &[usize]) -> (Vec<u8>, usize) {
        let mut writer = FrameWriter::default();
        writer.pending.extend(texts.iter().map(|text| Encoded::engine_text(text)));
        let mut written = Vec::new();
        let mut calls = 0;
        let mut takes = takes.iter().copied().cycle();
        let now = Instant::now();
        loop {
            let result = writer.write(
                |slices| {
                    calls += 1;
                    let take = takes.next().unwrap();
                    if take == 0 {
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                    let offered: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
                    let take = take.min(offered.len());
                    written.extend_from_slice(&offered[..take]);
                    Ok(take)
                },
                now,
            );
            match result {
                Ok(()) => return (written, calls),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
    }

    /// What a client of tungstenite reads.
    fn read(bytes: Vec<u8>) -> Vec<String> {
        let mut client = WebSocket::from_raw_socket(Cursor::new(bytes), Role::Client, None);
        let mut texts = Vec::new();
        loop {
            match client.read() {
                Ok(Message::Text(text)) => texts.push(text.to_string()),
                Ok(other) => panic!("only text was written, not {other:?}"),
                Err(Error::ConnectionClosed | Error::Protocol(_) | Error::Io(_)) => return texts,
                Err(error) => panic!("{error}"),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn client_reads_what_was_written_however_little_the_stream_takes(
            lens in proptest::collection::vec(prop_oneof![0..200usize, 4000..4200usize, 70_000..70_010usize], 0..12),
            mut takes in proptest::collection::vec(prop_oneof![0..10usize, 100..100_000usize], 1..5),
        ) {
            takes.push(1 << 20);
            let texts: Vec<_> = lens.iter().map(|&len| "x".repeat(len)).collect();
            let (written, _) = write(&texts, &takes);
            prop_assert_eq!(read(written), texts);
        }
    }

    #[test]
    fn all_that_is_pending_leaves_in_one_write() {
        let short = vec!["4[\"msg\"]".to_owned(); 500];
        assert_eq!(write(&short, &[usize::MAX]).1, 1);
        let mixed = ["short".to_owned(), "x".repeat(5000), "short".to_owned()];
        assert_eq!(write(&mixed, &[usize::MAX]).1, 1);
        let long = vec!["x".repeat(5000); 100];
        assert_eq!(write(&long, &[usize::MAX]).1, 2, "as many slices as one call takes");
    }

    #[test]
    fn only_the_last_ping_is_answered_when_answers_pile_up() {
        let mut writer = FrameWriter::default();
        for content in [b"a", b"b", b"c"] {
            writer.answer_ping(content);
        }
        assert_eq!(writer.pending.len(), 1);
        assert_eq!(writer.pending[0].frames(), b"\x8a\x01c");
        let _ = writer.write(|_| Ok(1), Instant::now());

        writer.answer_ping(b"d");
        let mut writes = [Ok(1), Err(io::ErrorKind::WouldBlock.into())].into_iter();
        let result = writer.write(|_| writes.next().unwrap(), Instant::now());
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        writer.answer_ping(b"e");
        assert_eq!(writer.pending.len(), 2, "an answer that has begun cannot be replaced");
    }

    #[test]
    fn writer_gives_its_memory_back_after_a_burst() {
        let mut writer = FrameWriter::default();
        writer.pending.extend((0..1000).map(|_| Encoded::engine_text("4")));
        writer
            .write(|slices| Ok(slices.iter().map(|slice| slice.len()).sum()), Instant::now())
            .unwrap();
        assert_eq!(writer.pending.capacity(), 0);
    }
}
