//! Each listener hears each sender's messages in the order in which they were written.

use std::collections::HashMap;
use std::fmt;

use crate::traffic::{Heard, Label};

/// `later` was written after `earlier`, and heard before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swapped {
    pub earlier: Label,
    pub later: Label,
    pub by: String,
}

impl fmt::Display for Swapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} heard {} before {}", self.by, self.later, self.earlier)
    }
}

pub fn check(heard: &[Heard]) -> Result<(), Swapped> {
    for Heard { by, labels } in heard {
        let mut newest: HashMap<&str, &Label> = HashMap::new();
        for label in labels {
            match newest.get(label.sender.as_str()) {
                Some(newest) if newest.number > label.number => {
                    let (earlier, later) = (label.clone(), (*newest).clone());
                    return Err(Swapped { earlier, later, by: by.clone() });
                }
                Some(_) | None => {}
            }
            newest.insert(&label.sender, label);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties::examples::heard;

    #[test]
    fn gaps_and_other_senders_in_between_are_right() {
        assert_eq!(check(&[heard("x", "a:0 b:5 a:3 b:6 a:4")]), Ok(()));
    }

    #[test]
    fn a_swap_is_named() {
        let swapped = check(&[heard("x", "a:0 a:2 b:0 a:1")]).unwrap_err();
        assert_eq!(swapped.to_string(), "x heard a:2 before a:1");
    }
}
