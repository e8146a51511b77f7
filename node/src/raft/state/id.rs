//! Ids of sockets and sessions: 20 URL-safe characters from the operating system's generator.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::random;

/// The text is not 20 characters of the URL-safe base64 alphabet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id has 20 characters of A-Z a-z 0-9 - _")]
pub struct InvalidId;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 20]);

        impl $name {
            /// Draws a new one: 120 random bits.
            pub fn random() -> Self {
                let mut bits = [0; 15];
                random::fill(&mut bits);
                Self::from_bits(bits)
            }

            /// Spells 120 bits as 20 characters.
            pub fn from_bits(bits: [u8; 15]) -> Self {
                let mut text = [0; 20];
                URL_SAFE_NO_PAD
                    .encode_slice(bits, &mut text)
                    .expect("15 bytes are 20 characters of base64");
                Self(text)
            }

            /// The 120 bits that the text spells: three quarters of its size, for what is kept
            /// by the hundred thousand.
            pub fn to_bits(self) -> [u8; 15] {
                let mut bits = [0; 15];
                URL_SAFE_NO_PAD
                    .decode_slice(self.0, &mut bits)
                    .expect("20 characters of base64 are 15 bytes");
                bits
            }

            /// The characters, without the check that a `str` takes.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }

            pub fn as_str(&self) -> &str {
                std::str::from_utf8(&self.0).expect("an id is ASCII, as its constructors see to it")
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let bytes: [u8; 20] = text.as_bytes().try_into().map_err(|_| InvalidId)?;
                let url_safe = |b: &u8| b.is_ascii_alphanumeric() || *b == b'-' || *b == b'_';
                if bytes.iter().all(url_safe) { Ok(Self(bytes)) } else { Err(InvalidId) }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

id! {
    /// A socket's public id. It encodes nothing, for it survives recovery on another node.
    SocketId
}
id! {
    /// A client's session.
    SessionId
}
id! {
    /// A socket's private id, which only its client knows and recovers with.
    Pid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_survives_its_text_form() {
        let id = SocketId::random();
        assert_eq!(id.as_str().parse(), Ok(id));
    }

    #[test]
    fn id_survives_its_bits() {
        let id = SocketId::random();
        assert_eq!(SocketId::from_bits(id.to_bits()), id);
        let extremes: SocketId = "A-_Zaz09------------".parse().unwrap();
        assert_eq!(SocketId::from_bits(extremes.to_bits()), extremes);
    }

    #[test]
    fn other_text_is_no_id() {
        assert_eq!("room".parse::<SocketId>(), Err(InvalidId));
        assert_eq!("aaaaaaaaaaaaaaaaaaa/".parse::<SocketId>(), Err(InvalidId));
    }
}
