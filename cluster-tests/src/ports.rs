//! Picks ports that stay a node's own while it is dead.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

// Below Linux's ephemeral range (32768 and up): a port from inside it could be taken by some
// outgoing connection while its node is down, and then the node could not come back.
const FIRST: u16 = 12_000;
const LAST: u16 = 32_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A free address on the loopback interface; not handed out again by this process.
///
/// # Panics
///
/// When all ports of the range are taken.
pub fn free_address() -> SocketAddr {
    let span = LAST - FIRST;
    // Test programs run side by side; each starts its search at a place of its own.
    let start = u16::try_from(std::process::id() * 97 % u32::from(span)).expect("below the span");
    for _ in 0..span {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start + step % span) % span;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port between {FIRST} and {LAST}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_is_handed_out_twice() {
        let first = free_address();
        let second = free_address();
        assert_ne!(first, second);
        TcpListener::bind(first).unwrap();
    }
}
