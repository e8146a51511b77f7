//! One process of the cluster under test: started, signalled by its id, always killed at the end.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::wait;

/// A child process that logs to a file. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints is appended to the file `log`.
    ///
    /// It becomes the leader of a process group of its own, so that Ctrl-C in a terminal reaches
    /// only the runner, which then stops the nodes in its own way.
    pub fn start(command: &[String], log: &Path) -> io::Result<Self> {
        let (program, arguments) =
            command.split_first().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let output = OpenOptions::new().create(true).append(true).open(log)?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()?;
        Ok(Self { child, log: log.to_owned() })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// `kill -9`; returns when the process is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("a child can be waited for until it was, and then again");
    }

    /// Freezes the process: its connections stay open, and nothing answers.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Asks the process to end in good order; what it started itself is its own to end.
    pub fn terminate(&mut self) {
        if let Some(pid) = self.live_pid() {
            kill_process(pid, Signal::TERM).expect("a child of ours takes our signals");
        }
    }

    /// Ctrl-C.
    pub fn interrupt(&mut self) {
        if let Some(pid) = self.live_pid() {
            kill_process(pid, Signal::INT).expect("a child of ours takes our signals");
        }
    }

    /// How the process ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child is ours")
    }

    /// Waits for the process to end by itself.
    pub async fn wait_exit(&mut self, within: Duration) -> Result<ExitStatus, wait::TimedOut> {
        wait::try_until("the process to end", within, async || self.exit_status().ok_or("it runs"))
            .await
    }

    /// The last lines of what the process printed.
    pub fn log_tail(&self, lines: usize) -> String {
        log_tail(&self.log, lines)
    }

    fn signal(&mut self, signal: Signal) {
        if let Some(group) = self.live_pid() {
            kill_process_group(group, signal).expect("a child of ours takes our signals");
        }
    }

    // A child that was waited for may have left its id to somebody else: no signal goes there.
    fn live_pid(&mut self) -> Option<Pid> {
        let runs = self.exit_status().is_none();
        runs.then(|| i32::try_from(self.pid()).ok().and_then(Pid::from_raw)).flatten()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a program to its end and returns its status and what it wrote to stdout and stderr.
pub async fn run(command: &[String], within: Duration) -> io::Result<(ExitStatus, String)> {
    let output = tempfile::NamedTempFile::new()?;
    let mut process = Process::start(command, output.path())?;
    let status = process.wait_exit(within).await.map_err(io::Error::other)?;
    Ok((status, std::fs::read_to_string(output.path())?))
}

/// The last lines of a log; nothing if there is none.
pub fn log_tail(log: &Path, lines: usize) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Empties a log that an earlier run left.
pub fn truncate(log: &Path) -> io::Result<()> {
    File::create(log).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
    }

    #[tokio::test]
    async fn output_and_status_are_kept() {
        let (status, text) =
            run(&shell("echo out; echo err >&2; exit 3"), wait::PATIENCE).await.unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(text, "out\nerr\n");
    }

    #[tokio::test]
    async fn dropping_kills_even_a_paused_process_with_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let mut process = Process::start(&shell("sleep 600 & echo $!; wait"), &log).unwrap();
        let grandchild = wait::until("the id of the grandchild", async || {
            let text = process.log_tail(1);
            text.trim().parse::<u32>().map_err(|_not_a_number| text)
        })
        .await;
        process.pause();
        drop(process);
        wait::until("the grandchild to be gone", async || {
            let stat = std::fs::read_to_string(format!("/proc/{grandchild}/stat"));
            let alive = stat.is_ok_and(|stat| !stat.contains(") Z "));
            wait::holds(!alive, alive)
        })
        .await;
    }

    #[test]
    fn a_second_kill_does_no_harm() {
        let directory = tempfile::tempdir().unwrap();
        let mut process =
            Process::start(&shell("sleep 600"), &directory.path().join("log")).unwrap();
        process.kill();
        process.kill();
        assert!(process.exit_status().is_some());
    }
}
