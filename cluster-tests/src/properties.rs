//! What every story keeps: each promise is checked by a plain function over what clients saw.

pub mod exactly_once;
pub mod no_ghosts;
pub mod one_order;
pub mod stretch;
pub mod written_order;

use crate::traffic::{Heard, Sent};

/// Ends the test when one of the promises about replicated messages was broken.
///
/// `heard` names listeners that were connected, in one namespace, all the time.
///
/// # Panics
///
/// With the violations, when there are any.
pub fn assert_kept(sent: &[Sent], heard: &[Heard]) {
    let violations = exactly_once::check(sent, heard);
    let shown: Vec<String> = violations.iter().take(10).map(ToString::to_string).collect();
    assert!(shown.is_empty(), "{} violations: {}", violations.len(), shown.join("; "));
    if let Err(circle) = one_order::check(heard) {
        panic!("{circle}");
    }
    if let Err(swapped) = written_order::check(heard) {
        panic!("{swapped}");
    }
}

#[cfg(test)]
pub(crate) mod examples {
    use crate::traffic::{Heard, Label};

    /// What `by` heard, from text such as `"a:0 b:0 a:1"`.
    pub(crate) fn heard(by: &str, labels: &str) -> Heard {
        Heard { by: by.to_owned(), labels: self::labels(labels) }
    }

    pub(crate) fn labels(text: &str) -> Vec<Label> {
        let label = |word: &str| {
            let (sender, number) = word.split_once(':').unwrap();
            Label::new(sender, number.parse().unwrap())
        };
        text.split_whitespace().map(label).collect()
    }
}
