//! What a client can do wrong, and how its connection ends then.

use crate::engineio::CloseReason;

/// A breach of the Socket.IO protocol; the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ProtocolError {
    #[error("unknown packet type")]
    UnknownType,
    #[error("illegal attachments")]
    IllegalAttachments,
    #[error("too many attachments")]
    TooManyAttachments,
    #[error("attachments too large")]
    AttachmentsTooLarge,
    /// A placeholder's `num` names none of the packet's attachments.
    #[error("illegal placeholder")]
    IllegalPlaceholder,
    #[error("illegal packet id")]
    IllegalId,
    #[error("illegal namespace")]
    IllegalNamespace,
    /// Not JSON, or not the JSON that the packet's type asks for.
    #[error("invalid payload")]
    InvalidPayload,
    #[error("payload nested too deep")]
    PayloadTooDeep,
    #[error("reserved event name")]
    ReservedEvent,
    #[error("text while attachments are awaited")]
    UnexpectedText,
    #[error("attachment without a packet")]
    UnexpectedBinary,
    /// A second CONNECT to a namespace.
    #[error("already connected")]
    AlreadyConnected,
    /// A packet for a namespace that the client is not, or not yet, connected to.
    #[error("not connected")]
    NotConnected,
    /// Only servers send CONNECT_ERROR.
    #[error("unexpected connect error")]
    UnexpectedConnectError,
    #[error("too many namespaces")]
    TooManyNamespaces,
    /// More events than can be held until the cluster knows the socket.
    #[error("too many early events")]
    TooManyEarlyEvents,
    /// No namespace was joined in time.
    #[error("connect timeout")]
    ConnectTimeout,
}

impl ProtocolError {
    /// The metrics label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownType => "unknown type",
            Self::IllegalAttachments => "illegal attachments",
            Self::TooManyAttachments => "too many attachments",
            Self::AttachmentsTooLarge => "attachments too large",
            Self::IllegalPlaceholder => "illegal placeholder",
            Self::IllegalId => "illegal id",
            Self::IllegalNamespace => "illegal namespace",
            Self::InvalidPayload => "invalid payload",
            Self::PayloadTooDeep => "payload too deep",
            Self::ReservedEvent => "reserved event",
            Self::UnexpectedText => "unexpected text",
            Self::UnexpectedBinary => "unexpected binary",
            Self::AlreadyConnected => "already connected",
            Self::NotConnected => "not connected",
            Self::UnexpectedConnectError => "unexpected connect error",
            Self::TooManyNamespaces => "too many namespaces",
            Self::TooManyEarlyEvents => "too many early events",
            Self::ConnectTimeout => "connect timeout",
        }
    }
}

impl From<ProtocolError> for CloseReason {
    /// The official server tells what it cannot parse ("forced close") from what comes at the
    /// wrong time ("forced server close"); applications see the difference in `disconnect`.
    fn from(error: ProtocolError) -> Self {
        match error {
            ProtocolError::UnknownType
            | ProtocolError::IllegalAttachments
            | ProtocolError::TooManyAttachments
            | ProtocolError::AttachmentsTooLarge
            | ProtocolError::IllegalPlaceholder
            | ProtocolError::IllegalId
            | ProtocolError::IllegalNamespace
            | ProtocolError::InvalidPayload
            | ProtocolError::PayloadTooDeep
            | ProtocolError::ReservedEvent
            | ProtocolError::UnexpectedText
            | ProtocolError::UnexpectedBinary => Self::ForcedClose,
            ProtocolError::AlreadyConnected
            | ProtocolError::NotConnected
            | ProtocolError::UnexpectedConnectError
            | ProtocolError::TooManyNamespaces
            | ProtocolError::TooManyEarlyEvents
            | ProtocolError::ConnectTimeout => Self::ForcedServerClose,
        }
    }
}
