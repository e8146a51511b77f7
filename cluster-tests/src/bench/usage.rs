//! CPU time and memory of processes, from `/proc`.

use std::fs;
use std::io;
use std::time::Duration;

// The kernel counts a process's time in ticks of this length for all user space (USER_HZ).
const TICK: Duration = Duration::from_millis(10);

/// User and system time of all threads of these processes since they started.
pub(super) fn cpu_time(pids: &[u32]) -> io::Result<Duration> {
    let mut ticks = 0;
    for pid in pids {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        ticks += parse_ticks(&stat)
            .ok_or_else(|| io::Error::other("an unknown form of /proc/…/stat"))?;
    }
    Ok(TICK * ticks)
}

/// The memory of these processes that is in RAM, in KiB.
pub(super) fn resident_kib(pids: &[u32]) -> io::Result<u64> {
    let mut total = 0;
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        total += parse_resident(&status)
            .ok_or_else(|| io::Error::other("no VmRSS in /proc/…/status"))?;
    }
    Ok(total)
}

// The second column is the program's name in brackets and may hold anything, also spaces and
// brackets. utime and stime are columns 14 and 15.
fn parse_ticks(stat: &str) -> Option<u32> {
    let (_name, rest) = stat.rsplit_once(") ")?;
    let mut columns = rest.split(' ').skip(11);
    let user: u32 = columns.next()?.parse().ok()?;
    let system: u32 = columns.next()?.parse().ok()?;
    Some(user + system)
}

fn parse_resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_text_is_read() {
        let stat = "12 (a) b) S 1 12 12 0 -1 4194560 100 0 0 0 37 5 0 0 20 0 1 0 100 200 300";
        assert_eq!(parse_ticks(stat), Some(42));
        assert_eq!(parse_resident("VmPeak: 9 kB\nVmRSS:\t  5124 kB\n"), Some(5124));
    }

    #[test]
    fn this_process_can_be_read() {
        let own = [std::process::id()];
        cpu_time(&own).unwrap();
        assert!(resident_kib(&own).unwrap() > 0);
        assert!(cpu_time(&[u32::MAX]).is_err());
    }
}
