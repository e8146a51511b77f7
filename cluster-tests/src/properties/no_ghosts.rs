//! Every node names the same sockets: those that are connected, and no dead one.

use std::collections::BTreeSet;
use std::fmt;

/// What one node says about a room, beside what is so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    pub node: String,
    /// Named by the node although not there any more.
    pub ghosts: BTreeSet<String>,
    /// There, but not named by the node.
    pub missing: BTreeSet<String>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, ghosts, missing } = self;
        write!(f, "{node} names the ghosts {ghosts:?} and misses {missing:?}")
    }
}

/// Compares one node's answer with the ids of the sockets that are in the room.
pub fn check<'a>(
    node: &str,
    named: impl IntoIterator<Item = &'a str>,
    there: impl IntoIterator<Item = &'a str>,
) -> Result<(), Mismatch> {
    let named: BTreeSet<&str> = named.into_iter().collect();
    let there: BTreeSet<&str> = there.into_iter().collect();
    if named == there {
        return Ok(());
    }
    let owned = |id: &&str| (*id).to_owned();
    Err(Mismatch {
        node: node.to_owned(),
        ghosts: named.difference(&there).map(owned).collect(),
        missing: there.difference(&named).map(owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter() {
        assert_eq!(check("n1", ["a", "b"], ["b", "a"]), Ok(()));
    }

    #[test]
    fn ghosts_and_missing_sockets_are_told_apart() {
        let mismatch = check("n1", ["a", "dead"], ["a", "b"]).unwrap_err();
        assert_eq!(mismatch.to_string(), r#"n1 names the ghosts {"dead"} and misses {"b"}"#);
    }
}
