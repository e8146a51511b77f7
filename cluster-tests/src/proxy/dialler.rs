//! Which process is at the other end of a connection on this machine (Linux).

use std::net::{SocketAddr, SocketAddrV4};
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// The one of `processes` that owns the TCP socket from `near` to `far`.
pub(super) fn owner(
    near: SocketAddr,
    far: SocketAddr,
    processes: impl IntoIterator<Item = u32>,
) -> Option<u32> {
    let (SocketAddr::V4(near), SocketAddr::V4(far)) = (near, far) else { return None };
    let wanted = format!("socket:[{}]", asked(near, far).or_else(|| read(near, far))?);
    processes.into_iter().find(|pid| {
        let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        let mut targets = files.flatten().filter_map(|file| std::fs::read_link(file.path()).ok());
        targets.any(|target| target == Path::new(&wanted))
    })
}

/// The inode of the socket, by asking the kernel for this one alone (sock_diag(7)).
///
/// A cut off node is dialled some forty times a second, and to read the table of all sockets takes tens of
/// milliseconds on some machines: the test would do nothing else.
fn asked(near: SocketAddrV4, far: SocketAddrV4) -> Option<u32> {
    let diag = Some(netlink::SOCK_DIAG);
    let (family, kind) = (AddressFamily::NETLINK, SocketType::DGRAM);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, diag).ok()?;
    send(&socket, &question(near, far), SendFlags::empty()).ok()?;
    let mut answer = [0; 512];
    let (len, _) = recv(&socket, &mut answer, RecvFlags::empty()).ok()?;
    inode_of(&answer[..len])
}

/// `SOCK_DIAG_BY_FAMILY` of linux/sock_diag.h; an error has another type.
const BY_FAMILY: u16 = 20;

/// `struct nlmsghdr`, and behind it `struct inet_diag_req_v2`.
fn question(near: SocketAddrV4, far: SocketAddrV4) -> Vec<u8> {
    const REQUEST: u16 = 1;
    let mut message = Vec::with_capacity(72);
    message.extend(72_u32.to_ne_bytes());
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    // The sequence number, and whom it is from.
    message.extend([0; 8]);
    // AF_INET, IPPROTO_TCP, no extensions, in any state.
    message.extend([2, 6, 0, 0]);
    message.extend(u32::MAX.to_ne_bytes());
    message.extend(near.port().to_be_bytes());
    message.extend(far.port().to_be_bytes());
    for address in [near.ip(), far.ip()] {
        message.extend(address.octets());
        message.extend([0; 12]);
    }
    // Any interface, whatever its cookie.
    message.extend([0; 4]);
    message.extend([0xff; 8]);
    message
}

/// The last field of `struct inet_diag_msg`.
fn inode_of(answer: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let inode = u32::from_ne_bytes(answer.get(84..88)?.try_into().ok()?);
    (kind == BY_FAMILY && inode != 0).then_some(inode)
}

/// The same by the table of all sockets, for a kernel that cannot be asked.
fn read(near: SocketAddrV4, far: SocketAddrV4) -> Option<u32> {
    inode(&std::fs::read_to_string("/proc/net/tcp").ok()?, near, far)
}

// The table's columns: number, local address, remote address, state, … the tenth is the inode.
fn inode(table: &str, near: SocketAddrV4, far: SocketAddrV4) -> Option<u32> {
    let (near, far) = (hexadecimal(near), hexadecimal(far));
    table.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let found = columns.len() > 9 && columns[1] == near && columns[2] == far;
        found.then(|| columns[9].parse().ok())?
    })
}

// The kernel prints an IPv4 address as one number in the machine's own byte order.
fn hexadecimal(address: SocketAddrV4) -> String {
    let number = u32::from_ne_bytes(address.ip().octets());
    format!("{number:08X}:{:04X}", address.port())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

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
        assert_eq!(inode(table, one, other), Some(111));
        assert_eq!(inode(table, other, one), Some(222));
        assert_eq!(inode(table, other, other), None);
    }

    #[test]
    fn kernel_tells_what_its_table_has() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, far) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        let (SocketAddr::V4(near), SocketAddr::V4(far)) = (near, far) else { panic!("{near}") };
        let in_table = read(near, far);
        assert!(in_table.is_some());
        // Some kernels cannot be asked, and then it is the table that serves.
        let answer = asked(near, far);
        assert!(answer.is_none() || answer == in_table, "{answer:?} {in_table:?}");
        assert_eq!(asked(near, near), None);
        let own = std::process::id();
        assert_eq!(owner(near.into(), far.into(), [1, own]), Some(own));
    }
}
