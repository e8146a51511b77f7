//! Which process is at the other end of a connection on this machine (Linux).

use std::net::SocketAddr;
use std::path::Path;

/// The one of `processes` that owns the TCP socket from `near` to `far`.
pub(super) fn owner(
    near: SocketAddr,
    far: SocketAddr,
    processes: impl IntoIterator<Item = u32>,
) -> Option<u32> {
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let wanted = format!("socket:[{}]", inode(&table, near, far)?);
    processes.into_iter().find(|pid| {
        let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        let mut targets = files.flatten().filter_map(|file| std::fs::read_link(file.path()).ok());
        targets.any(|target| target == Path::new(&wanted))
    })
}

// The table's columns: number, local address, remote address, state, … the tenth is the inode.
fn inode(table: &str, near: SocketAddr, far: SocketAddr) -> Option<&str> {
    let (near, far) = (hexadecimal(near)?, hexadecimal(far)?);
    table.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let found = columns.len() > 9 && columns[1] == near && columns[2] == far;
        found.then(|| columns[9])
    })
}

// The kernel prints an IPv4 address as one number in the machine's own byte order.
fn hexadecimal(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else { return None };
    let number = u32::from_ne_bytes(address.ip().octets());
    Some(format!("{number:08X}:{:04X}", address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inode_is_found_by_both_ends() {
        let table = "  sl  local_address rem_address   st tx rx tr tm retr uid timeout inode\n   \
            0: 0100007F:0BB9 0100007F:D431 01 0:0 00:0 0 0 0 111 1\n   \
            1: 0100007F:D431 0100007F:0BB9 01 0:0 00:0 0 0 0 222 1\n";
        let one = "127.0.0.1:3001".parse().unwrap();
        let other = "127.0.0.1:54321".parse().unwrap();
        // Columns are joined with colons here exactly as the kernel joins them, except that the
        // queue and timer columns are shorter.
        assert_eq!(inode(table, one, other), Some("111"));
        assert_eq!(inode(table, other, one), Some("222"));
        assert_eq!(inode(table, other, other), None);
    }
}
