//! Follows a node's log file and picks out what an operator should see.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

/// Reads a growing file from where the last look ended.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    offset: u64,
    // The beginning of a line whose end is not written yet.
    partial: String,
}

impl Follower {
    pub fn new(path: PathBuf) -> Self {
        Self { path, offset: 0, partial: String::new() }
    }

    /// The warnings and errors that were written since the last look.
    pub fn news(&mut self) -> Vec<String> {
        let mut bytes = Vec::new();
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.offset))?;
            file.read_to_end(&mut bytes)
        });
        // A log that is not there yet has no news.
        self.offset += read.unwrap_or(0) as u64;
        self.partial.push_str(&String::from_utf8_lossy(&bytes));
        let complete = self.partial.rfind('\n').map_or(0, |end| end + 1);
        let rest = self.partial.split_off(complete);
        let lines = std::mem::replace(&mut self.partial, rest);
        lines.lines().filter(|line| is_notable(line)).map(str::to_owned).collect()
    }
}

// The level stands near the beginning of a line, as text or as a JSON field. A panic has none.
fn is_notable(line: &str) -> bool {
    let head: String = line.chars().take(120).collect();
    let levels = ["WARN", "ERROR", "panicked at"];
    levels.iter().any(|level| head.contains(level))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn only_new_complete_warnings_and_errors_are_news() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("n1.log");
        let mut follower = Follower::new(path.clone());
        assert_eq!(follower.news(), Vec::<String>::new());

        let mut file = File::create(&path).unwrap();
        write!(file, "t  INFO node is ready\nt  WARN peer is slow\nt ERROR disk i").unwrap();
        assert_eq!(follower.news(), ["t  WARN peer is slow"]);
        write!(file, "s full\n{{\"level\":\"ERROR\"}}\n").unwrap();
        assert_eq!(follower.news(), ["t ERROR disk is full", "{\"level\":\"ERROR\"}"]);
        assert_eq!(follower.news(), Vec::<String>::new());
    }
}
