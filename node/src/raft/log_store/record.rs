//! The records of the log on disk, and their form in bytes.

use std::io;

use bytes::Bytes;
use flotilla_proto::raft as proto;
use openraft::EntryPayload;
use openraft::vote::RaftLeaderId;
use prost::Message;

use crate::raft::types::{Data, Entry, LogId, Vote};
use crate::raft::wire::{membership_from_wire, membership_to_wire};

/// What one record says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Record {
    /// All but the entries, at the start of a file: older files may then be deleted.
    State(LogState),
    Entry(Entry),
    /// The entries after this one are gone; all of them, if it is none.
    TruncatedAfter(Option<LogId>),
    PurgedUpto(LogId),
    Committed(LogId),
    Vote(Vote),
}

/// What a log knows besides its entries.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct LogState {
    pub(super) purged: Option<LogId>,
    pub(super) last: Option<LogId>,
    pub(super) committed: Option<LogId>,
    pub(super) vote: Option<Vote>,
}

/// A record's length, the checksum of these four bytes, and that of the record. Without a checksum
/// of its own, a damaged length would look like a record that was cut off, and all that follows it
/// would be dropped unnoticed.
pub(super) const HEAD_BYTES: usize = 12;

const STATE: u8 = 1;
const BLANK: u8 = 2;
const PROPOSAL: u8 = 3;
const MEMBERSHIP: u8 = 4;
const TRUNCATED_AFTER: u8 = 5;
const PURGED_UPTO: u8 = 6;
const COMMITTED: u8 = 7;
const VOTE: u8 = 8;

/// Appends a record in its form on disk.
pub(super) fn put(record: &Record, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD_BYTES]);
    match record {
        Record::State(state) => {
            out.push(STATE);
            put_id(state.purged, out);
            put_id(state.last, out);
            put_id(state.committed, out);
            out.push(u8::from(state.vote.is_some()));
            put_vote(&state.vote.unwrap_or_else(|| Vote::new(0, 0)), out);
        }
        Record::Entry(entry) => put_entry(entry, out),
        Record::TruncatedAfter(last) => {
            out.push(TRUNCATED_AFTER);
            put_id(*last, out);
        }
        Record::PurgedUpto(upto) => {
            out.push(PURGED_UPTO);
            put_id(Some(*upto), out);
        }
        Record::Committed(id) => {
            out.push(COMMITTED);
            put_id(Some(*id), out);
        }
        Record::Vote(vote) => {
            out.push(VOTE);
            put_vote(vote, out);
        }
    }
    let (head, body) = out[start..].split_at_mut(HEAD_BYTES);
    let len = u32::try_from(body.len()).expect("an entry is far below 4 GiB").to_le_bytes();
    head[..4].copy_from_slice(&len);
    head[4..8].copy_from_slice(&crc32fast::hash(&len).to_le_bytes());
    head[8..].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
}

fn put_entry(entry: &Entry, out: &mut Vec<u8>) {
    let kind = match &entry.payload {
        EntryPayload::Blank => BLANK,
        EntryPayload::Normal(_) => PROPOSAL,
        EntryPayload::Membership(_) => MEMBERSHIP,
    };
    out.push(kind);
    put_id(Some(entry.log_id), out);
    match &entry.payload {
        EntryPayload::Blank => {}
        EntryPayload::Normal(data) => out.extend_from_slice(&data.0),
        EntryPayload::Membership(value) => {
            out.extend_from_slice(&membership_to_wire(value).encode_to_vec());
        }
    }
}

fn put_id(id: Option<LogId>, out: &mut Vec<u8>) {
    out.push(u8::from(id.is_some()));
    let (term, index) = id.map_or((0, 0), |id| (id.leader_id.term, id.index));
    out.extend_from_slice(&term.to_le_bytes());
    out.extend_from_slice(&index.to_le_bytes());
}

fn put_vote(vote: &Vote, out: &mut Vec<u8>) {
    out.push(u8::from(vote.committed));
    out.extend_from_slice(&vote.leader_id.term.to_le_bytes());
    out.extend_from_slice(&vote.leader_id.voted_for.to_le_bytes());
}

/// What stands at the start of some bytes of a file.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    /// A record, and the bytes that it takes.
    Record(Record, usize),
    /// The file ends before the record does: it was being written when its process died.
    CutOff,
}

/// Reads the record that `bytes` begin with; an error of kind `InvalidData` if it is damaged.
pub(super) fn read(bytes: &Bytes) -> io::Result<Found> {
    let Some(head) = bytes.get(..HEAD_BYTES) else { return Ok(Found::CutOff) };
    let word = |at: usize| {
        u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes are four bytes"))
    };
    if crc32fast::hash(&head[..4]) != word(4) {
        // A file system may extend a file before it writes what belongs there.
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(Found::CutOff);
        }
        return Err(damaged("a record's length"));
    }
    let end = HEAD_BYTES + word(0) as usize;
    if bytes.len() < end {
        return Ok(Found::CutOff);
    }
    let body = bytes.slice(HEAD_BYTES..end);
    if crc32fast::hash(&body) != word(8) {
        return Err(damaged("a record"));
    }
    Ok(Found::Record(parse(body)?, end))
}

fn parse(body: Bytes) -> io::Result<Record> {
    let mut rest = Rest(body);
    Ok(match rest.byte()? {
        STATE => Record::State(LogState {
            purged: rest.id()?,
            last: rest.id()?,
            committed: rest.id()?,
            vote: {
                let is_some = rest.byte()? != 0;
                let vote = rest.vote()?;
                is_some.then_some(vote)
            },
        }),
        TRUNCATED_AFTER => Record::TruncatedAfter(rest.id()?),
        PURGED_UPTO => Record::PurgedUpto(rest.some_id()?),
        COMMITTED => Record::Committed(rest.some_id()?),
        VOTE => Record::Vote(rest.vote()?),
        kind => Record::Entry(Entry { log_id: rest.some_id()?, payload: rest.payload(kind)? }),
    })
}

/// What is left of a record's bytes.
struct Rest(Bytes);

impl Rest {
    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        if self.0.len() < N {
            return Err(damaged("the fields of a record"));
        }
        Ok(self.0.split_to(N)[..].try_into().expect("so many were split off"))
    }

    fn byte(&mut self) -> io::Result<u8> {
        self.take().map(|[byte]| byte)
    }

    fn number(&mut self) -> io::Result<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn id(&mut self) -> io::Result<Option<LogId>> {
        let is_some = self.byte()? != 0;
        let id = LogId::new_term_index(self.number()?, self.number()?);
        Ok(is_some.then_some(id))
    }

    fn some_id(&mut self) -> io::Result<LogId> {
        self.id()?.ok_or_else(|| damaged("a log id"))
    }

    fn vote(&mut self) -> io::Result<Vote> {
        let committed = self.byte()? != 0;
        Ok(Vote { leader_id: RaftLeaderId::new(self.number()?, self.number()?), committed })
    }

    fn payload(self, kind: u8) -> io::Result<crate::raft::types::Payload> {
        Ok(match kind {
            BLANK => EntryPayload::Blank,
            // Copied, or one small entry would keep all that was read with it in memory.
            PROPOSAL => EntryPayload::Normal(Data(Bytes::copy_from_slice(&self.0))),
            MEMBERSHIP => {
                let message = proto::Membership::decode(self.0).map_err(damaged)?;
                EntryPayload::Membership(membership_from_wire(message).map_err(damaged)?)
            }
            _ => return Err(damaged("a record of an unknown kind")),
        })
    }
}

pub(super) fn damaged(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        LogId::new_term_index(term, index)
    }

    fn bytes_of(record: &Record) -> Vec<u8> {
        let mut bytes = Vec::new();
        put(record, &mut bytes);
        bytes
    }

    fn records() -> Vec<Record> {
        let vote = Vote { leader_id: RaftLeaderId::new(3, 1 << 47), committed: true };
        let payload = EntryPayload::Normal(Data(Bytes::from_static(b"proposal")));
        vec![
            Record::State(LogState::default()),
            Record::State(LogState {
                purged: Some(id(1, 4)),
                last: Some(id(2, 9)),
                committed: Some(id(2, 8)),
                vote: Some(vote),
            }),
            Record::Entry(Entry { log_id: id(2, 5), payload: EntryPayload::Blank }),
            Record::Entry(Entry { log_id: id(2, 6), payload }),
            Record::TruncatedAfter(None),
            Record::TruncatedAfter(Some(id(1, 3))),
            Record::PurgedUpto(id(1, 2)),
            Record::Committed(id(1, 2)),
            Record::Vote(vote),
        ]
    }

    #[test]
    fn records_survive_their_form_on_disk() {
        for record in records() {
            let bytes = Bytes::from(bytes_of(&record));
            assert_eq!(read(&bytes).unwrap(), Found::Record(record, bytes.len()));
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        for record in records() {
            let bytes = bytes_of(&record);
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let error = read(&Bytes::from(flipped)).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidData, "bit {bit} of {record:?}");
            }
        }
    }

    #[test]
    fn record_that_was_cut_off_is_told_from_a_damaged_one() {
        for record in records() {
            let bytes = bytes_of(&record);
            for len in 0..bytes.len() {
                let cut = Bytes::copy_from_slice(&bytes[..len]);
                assert_eq!(read(&cut).unwrap(), Found::CutOff, "{len} bytes of {record:?}");
            }
        }
        assert_eq!(read(&Bytes::from(vec![0; 4096])).unwrap(), Found::CutOff);
    }
}
