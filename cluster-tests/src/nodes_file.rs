//! `nodes.json`: where the nodes of a running cluster are, for tools and for tests in any language.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// One node of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    pub id: String,
    /// Where clients connect, `http://127.0.0.1:port`.
    pub url: String,
    /// Health and metrics, `http://127.0.0.1:port`.
    pub admin: String,
    /// Where peers connect, `127.0.0.1:port`.
    pub grpc: String,
    pub pid: u32,
    /// The argument list that starts this node again.
    pub cmd: Vec<String>,
}

pub fn read(path: &Path) -> io::Result<Vec<NodeEntry>> {
    serde_json::from_slice(&std::fs::read(path)?).map_err(io::Error::other)
}

/// Writes the whole list at once: a reader sees the old file or the new one, never half of it.
pub fn write(path: &Path, nodes: &[NodeEntry]) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(nodes).map_err(io::Error::other)?;
    let unfinished = path.with_extension("json.new");
    std::fs::write(&unfinished, text)?;
    std::fs::rename(unfinished, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nodes.json");
        let nodes = [NodeEntry {
            id: "n1".to_owned(),
            url: "http://127.0.0.1:3001".to_owned(),
            admin: "http://127.0.0.1:4001".to_owned(),
            grpc: "127.0.0.1:5001".to_owned(),
            pid: 7,
            cmd: vec!["flotilla".to_owned(), "--config".to_owned(), "n1.toml".to_owned()],
        }];
        write(&path, &nodes).unwrap();
        assert_eq!(read(&path).unwrap(), nodes);
    }
}
