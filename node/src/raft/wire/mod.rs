//! Our types ↔ proto types.

mod change;
mod entry;
mod proposal;

pub(crate) use change::{target as target_from_wire, target_to_wire};
pub(crate) use entry::{
    append_from_wire, append_reply_from_wire, append_reply_to_wire, append_to_wire,
    member_from_wire, member_to_wire, membership_from_wire, membership_to_wire, meta_from_wire,
    meta_to_wire, transfer_from_wire, transfer_to_wire, vote_from_wire, vote_reply_from_wire,
    vote_reply_to_wire, vote_request_from_wire, vote_request_to_wire, vote_to_wire,
};
pub(crate) use proposal::{decode_proposal, encode_proposal};

/// A message that no node of ours would send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("the message is not valid protobuf")]
    Malformed,
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0} is not valid")]
    Invalid(&'static str),
}

impl From<WireError> for std::io::Error {
    fn from(error: WireError) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

impl From<WireError> for tonic::Status {
    fn from(error: WireError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}
