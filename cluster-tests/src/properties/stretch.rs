//! A listener that was there for some of the time heard all of that time, without a gap.

use std::fmt;

use crate::traffic::{Heard, Label};

/// `part` is not a stretch of what was heard by one who was there all the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    pub by: String,
    /// The first message that differs, and what should have come in its place.
    pub heard: Label,
    pub instead_of: Option<Label>,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} heard {} instead of ", self.by, self.heard)?;
        match &self.instead_of {
            Some(label) => write!(f, "{label}"),
            None => f.write_str("nothing"),
        }
    }
}

/// Checks `part` against `whole`, the sequence of a listener who was there all the time.
pub fn check(part: &Heard, whole: &Heard) -> Result<(), Gap> {
    let Some(first) = part.labels.first() else { return Ok(()) };
    let start = whole.labels.iter().position(|label| label == first);
    let mut expected = whole.labels[start.unwrap_or(whole.labels.len())..].iter();
    for heard in &part.labels {
        let next = expected.next();
        if next != Some(heard) {
            let (by, heard, instead_of) = (part.by.clone(), heard.clone(), next.cloned());
            return Err(Gap { by, heard, instead_of });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties::examples::heard;

    #[test]
    fn any_stretch_fits_and_an_empty_one_too() {
        let whole = heard("all", "a:0 b:0 a:1 b:1");
        for part in ["", "a:0", "b:0 a:1", "a:0 b:0 a:1 b:1", "b:1"] {
            assert_eq!(check(&heard("x", part), &whole), Ok(()), "{part}");
        }
    }

    #[test]
    fn a_gap_a_swap_and_a_stranger_are_named() {
        let whole = heard("all", "a:0 b:0 a:1");
        let message = |part| check(&heard("x", part), &whole).unwrap_err().to_string();
        assert_eq!(message("a:0 a:1"), "x heard a:1 instead of b:0");
        assert_eq!(message("b:0 a:0"), "x heard a:0 instead of a:1");
        assert_eq!(message("a:1 c:0"), "x heard c:0 instead of nothing");
        assert_eq!(message("c:0"), "x heard c:0 instead of nothing");
    }
}
