//! Ids of sockets and sessions: 20 URL-safe characters from the operating system's generator.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use crate::random;

/// The text is not 20 characters of the URL-safe base64 alphabet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id has 20 characters of A-Z a-z 0-9 - _")]
pub struct InvalidId;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// What each character of the alphabet stands for.
const VALUES: [u8; 256] = {
    let mut values = [0; 256];
    let mut value = 0;
    while value < ALPHABET.len() {
        values[ALPHABET[value] as usize] = value as u8;
        value += 1;
    }
    values
};

/// URL-safe base64 (RFC 4648, section 5) of what fills whole characters. Every change of a socket reads
/// its id: for one length that is a fifth of what it takes for any.
fn spell(bits: &[u8; 15]) -> [u8; 20] {
    let mut text = [0; 20];
    for (bits, text) in bits.chunks_exact(3).zip(text.chunks_exact_mut(4)) {
        let group = u32::from_be_bytes([0, bits[0], bits[1], bits[2]]);
        for (place, char) in text.iter_mut().enumerate() {
            *char = ALPHABET[(group >> (18 - 6 * place)) as usize & 63];
        }
    }
    text
}

/// The bits that [`spell`] makes this text of.
fn read(text: &[u8; 20]) -> [u8; 15] {
    let mut bits = [0; 15];
    for (text, bits) in text.chunks_exact(4).zip(bits.chunks_exact_mut(3)) {
        let value = |group: u32, char: &u8| group << 6 | u32::from(VALUES[usize::from(*char)]);
        bits.copy_from_slice(&text.iter().fold(0, value).to_be_bytes()[1..]);
    }
    bits
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name([u8; 20]);

        /// By as much of an id as makes two words: nobody chooses his own.
        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                let (words, _rest) = self.0.as_chunks::<8>();
                for word in words {
                    state.write_u64(u64::from_ne_bytes(*word));
                }
            }
        }

        impl $name {
            /// Draws a new one: 120 random bits.
            pub fn random() -> Self {
                let mut bits = [0; 15];
                random::fill(&mut bits);
                Self::from_bits(bits)
            }

            /// Spells 120 bits as 20 characters.
            pub fn from_bits(bits: [u8; 15]) -> Self {
                Self(spell(&bits))
            }

            /// The 120 bits that the text spells: three quarters of its size, for what is kept
            /// by the hundred thousand.
            pub fn to_bits(self) -> [u8; 15] {
                read(&self.0)
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
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_are_url_safe_base64(bits: [u8; 15]) {
            let text = SocketId::from_bits(bits);
            prop_assert_eq!(text.as_str(), URL_SAFE_NO_PAD.encode(bits));
            prop_assert_eq!(text.to_bits(), bits);
        }
    }

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
