//! Engine.IO ids: unguessable, and naming the node that owns the connection.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The id of one connection: 20 URL-safe characters.
///
/// The first 8 are the node's 48-bit id, so that any node can tell whose connection a request
/// belongs to. The other 12 are 72 random bits: whoever guesses them could speak for the client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sid([u8; Self::LEN]);

impl Sid {
    pub const LEN: usize = 20;
    /// Of base64url, 3 bytes make 4 characters: 6 + 9 bytes are 8 + 12 of them.
    pub const RANDOM_BYTES: usize = 9;
    const OWNER_CHARS: usize = 8;

    /// `node` is a 48-bit id; `random` comes from the operating system's generator.
    pub fn new(node: u64, random: [u8; Self::RANDOM_BYTES]) -> Self {
        let mut bytes = [0; 6 + Self::RANDOM_BYTES];
        bytes[..6].copy_from_slice(&node.to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&random);
        let mut chars = [0; Self::LEN];
        URL_SAFE_NO_PAD
            .encode_slice(bytes, &mut chars)
            .expect("15 bytes are 20 characters of base64");
        Self(chars)
    }

    /// None if `text` cannot be an id of any node.
    pub fn parse(text: &str) -> Option<Self> {
        let chars: [u8; Self::LEN] = text.as_bytes().try_into().ok()?;
        let is_url_safe = |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
        chars.iter().all(is_url_safe).then_some(Self(chars))
    }

    /// The 48-bit id of the node whose connection this is.
    pub fn owner(&self) -> u64 {
        let mut bytes = [0; 8];
        URL_SAFE_NO_PAD
            .decode_slice(&self.0[..Self::OWNER_CHARS], &mut bytes[2..])
            .expect("8 URL-safe characters are 6 bytes of base64");
        u64::from_be_bytes(bytes)
    }

    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("an id is ASCII")
    }

    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sid_names_its_owner_and_parses_back(node in 0..1u64 << 48, random: [u8; 9]) {
            let sid = Sid::new(node, random);
            prop_assert_eq!(sid.owner(), node);
            prop_assert_eq!(Sid::parse(sid.as_str()), Some(sid));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}|[A-Za-z0-9_-]{20}") {
            if let Some(sid) = Sid::parse(&text) {
                prop_assert!(sid.owner() < 1 << 48);
                prop_assert_eq!(sid.as_str(), text);
            }
        }
    }

    #[test]
    fn sids_with_other_characters_or_lengths_are_refused() {
        for text in
            ["", "short", "AAAAAAAAAAAAAAAAAAA+", "AAAAAAAAAAAAAAAAAAA=", "AAAAAAAAAAAAAAAAAAAAA"]
        {
            assert_eq!(Sid::parse(text), None, "{text}");
        }
    }
}
