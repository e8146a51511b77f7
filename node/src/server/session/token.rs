//! What names a session outside: its id, signed as npm's `cookie-signature` does.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::config::Secret;
use crate::raft::state::SessionId;

/// Signs ids, and reads what clients show.
pub(crate) struct Signer {
    /// The first signs, all verify.
    keys: Vec<Hmac<Sha256>>,
    require_signed: bool,
}

/// More than browsers keep in a cookie: longer texts are none that a server gave, and are not worth
/// a hash.
const MAX_TOKEN_BYTES: usize = 4096;

/// What a client shows is not what a server gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadToken {
    #[error("the session's signature is not valid")]
    BadSignature,
    #[error("the session's id is not signed")]
    Unsigned,
}

impl Signer {
    pub(super) fn new(secrets: &[Secret], require_signed: bool) -> Self {
        let key = |secret: &Secret| {
            Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length")
        };
        Self { keys: secrets.iter().map(key).collect(), require_signed }
    }

    /// `s:<id>.<signature>`; the id alone, if there is no secret.
    pub(super) fn write(&self, id: SessionId) -> String {
        let Some(key) = self.keys.first() else { return id.to_string() };
        let signature = key.clone().chain_update(id.as_bytes()).finalize().into_bytes();
        format!("s:{id}.{}", STANDARD_NO_PAD.encode(signature))
    }

    /// The id that a client shows; None if it is none of ours, though its signature may hold.
    pub(super) fn read(&self, token: &str) -> Result<Option<SessionId>, BadToken> {
        let Some(signed) = token.strip_prefix("s:").filter(|_| !self.keys.is_empty()) else {
            if self.require_signed {
                return Err(BadToken::Unsigned);
            }
            return Ok(token.parse().ok());
        };
        if signed.len() > MAX_TOKEN_BYTES {
            return Err(BadToken::BadSignature);
        }
        let (text, signature) = signed.rsplit_once('.').ok_or(BadToken::BadSignature)?;
        let signature = STANDARD_NO_PAD
            .decode(signature.trim_end_matches('='))
            .map_err(|_| BadToken::BadSignature)?;
        // In constant time for each key, so that no answer tells how much of it is right.
        let holds = |key: &Hmac<Sha256>| {
            key.clone().chain_update(text.as_bytes()).verify_slice(&signature).is_ok()
        };
        if self.keys.iter().any(holds) {
            Ok(text.parse().ok())
        } else {
            Err(BadToken::BadSignature)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn signer(secrets: &[&str]) -> Signer {
        let secrets: Vec<Secret> = secrets.iter().map(|secret| Secret::from(*secret)).collect();
        Signer::new(&secrets, true)
    }

    #[test]
    fn signature_is_that_of_npm_cookie_signature() {
        // require("cookie-signature").sign("AAAAAAAAAAAAAAAAAAAA", "keyboard cat")
        let id: SessionId = "AAAAAAAAAAAAAAAAAAAA".parse().unwrap();
        let token = "s:AAAAAAAAAAAAAAAAAAAA.VvUZ/qDIfSXFRN7cOj3mnaFznoM+DVWL7HQG3JHv6fY";
        assert_eq!(signer(&["keyboard cat"]).write(id), token);
        assert_eq!(signer(&["keyboard cat"]).read(token), Ok(Some(id)));
    }

    #[test]
    fn older_secrets_verify_and_the_first_signs() {
        let id = SessionId::random();
        let old = signer(&["old"]).write(id);
        let rotated = signer(&["new", "old"]);
        assert_eq!(rotated.read(&old), Ok(Some(id)));
        assert_eq!(rotated.write(id), signer(&["new"]).write(id));
        assert_eq!(signer(&["new"]).read(&old), Err(BadToken::BadSignature));
    }

    #[test]
    fn signed_text_that_is_no_id_of_ours_is_unknown() {
        let other = Signer::new(&[Secret::from("secret")], true);
        let signature = other.keys[0].clone().chain_update(b"a uuid").finalize().into_bytes();
        let token = format!("s:a uuid.{}", STANDARD_NO_PAD.encode(signature));
        assert_eq!(other.read(&token), Ok(None));
    }

    #[test]
    fn endless_text_is_refused_without_a_look() {
        let text = "x".repeat(MAX_TOKEN_BYTES);
        let signer = signer(&["secret"]);
        let signature = signer.keys[0].clone().chain_update(&text).finalize().into_bytes();
        let token = format!("s:{text}.{}", STANDARD_NO_PAD.encode(signature));
        assert_eq!(signer.read(&token), Err(BadToken::BadSignature));
    }

    #[test]
    fn ids_without_signature_are_refused_unless_they_may_be() {
        let id = SessionId::random();
        assert_eq!(signer(&["secret"]).read(id.as_str()), Err(BadToken::Unsigned));
        let lenient = Signer::new(&[Secret::from("secret")], false);
        assert_eq!(lenient.read(id.as_str()), Ok(Some(id)));
        assert_eq!(lenient.read("s:nonsense"), Err(BadToken::BadSignature));
        let without = Signer::new(&[], false);
        assert_eq!(without.write(id), id.as_str());
        assert_eq!(without.read(id.as_str()), Ok(Some(id)));
        assert_eq!(without.read("s:nonsense"), Ok(None));
    }

    proptest! {
        #[test]
        fn no_text_that_was_not_signed_is_taken(text in ".{0,80}") {
            prop_assert!(signer(&["secret"]).read(&text).is_err());
            let signed = format!("s:{text}");
            prop_assert!(signer(&["secret"]).read(&signed).is_err());
        }

        #[test]
        fn a_token_with_one_character_changed_is_refused(at in 2_usize..60, to in "[A-Za-z0-9+/]") {
            let token = signer(&["secret"]).write(SessionId::from_bits([7; 15]));
            let mut changed = token.clone();
            let at = at.min(token.len() - 1);
            changed.replace_range(at..=at, &to);
            if changed != token {
                prop_assert!(signer(&["secret"]).read(&changed).is_err(), "{}", changed);
            }
        }
    }
}
