//! Faults between nodes: a TCP proxy before each node's gRPC port.
//!
//! All peers dial the one address that a node advertises, so its proxy must find out who is
//! calling: it looks up the process that owns the other end of the connection. Each pair of nodes
//! thus has a link for each direction of dialling, and each of these can be cut, held or muted.

mod dialler;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What happens to the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    Pass,
    /// They wait in the proxy, and go on when the link is healed.
    Hold,
    /// They are gone. The connection is closed when the link is healed, for what is left of it
    /// would make no sense to its reader.
    Drop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Link {
    cut: bool,
    requests: Flow,
    replies: Flow,
}

const WHOLE: Link = Link { cut: false, requests: Flow::Pass, replies: Flow::Pass };

/// The links between the nodes of one cluster. Dropping it closes them.
#[derive(Debug)]
pub struct Links {
    table: Arc<Table>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct Table {
    processes: Mutex<HashMap<u32, String>>,
    // From the dialling node to the dialled one.
    links: Mutex<HashMap<(String, String), watch::Sender<Link>>>,
    dropped_bytes: AtomicU64,
}

impl Links {
    pub(crate) fn new() -> Self {
        Self {
            table: Arc::default(),
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Opens the proxy of the node `name`, whose gRPC port is `target`; returns its address.
    pub(crate) fn open(&self, name: &str, target: SocketAddr) -> io::Result<SocketAddr> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let proxy = Proxy {
            name: name.to_owned(),
            address,
            target,
            table: Arc::clone(&self.table),
            tasks: self.tasks.clone(),
        };
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(shutdown.run_until_cancelled_owned(proxy.accept(listener)));
        Ok(address)
    }

    /// Tells which node the process `pid` is, before it dials anyone.
    pub(crate) fn name_process(&self, pid: u32, name: &str) {
        let mut processes = self.table.processes.lock().expect("no panic under this lock");
        processes.insert(pid, name.to_owned());
    }

    /// Ends all connections between the two nodes and refuses new ones, whoever dials.
    pub fn cut(&self, one: &str, other: &str) {
        self.table.change(one, other, |link| link.cut = true);
        self.table.change(other, one, |link| link.cut = true);
    }

    /// Cuts a node off from all of `others`.
    pub fn isolate(&self, node: &str, others: &[String]) {
        for other in others.iter().filter(|other| *other != node) {
            self.cut(node, other);
        }
    }

    /// Sets what happens to the bytes that `dialler` sends on connections it opened to `dialled`.
    pub fn requests(&self, dialler: &str, dialled: &str, flow: Flow) {
        self.table.change(dialler, dialled, |link| link.requests = flow);
    }

    /// Sets what happens to the bytes that `dialled` answers on connections that `dialler` opened.
    pub fn replies(&self, dialler: &str, dialled: &str, flow: Flow) {
        self.table.change(dialler, dialled, |link| link.replies = flow);
    }

    /// How many bytes were dropped so far, on all links together.
    pub fn dropped_bytes(&self) -> u64 {
        self.table.dropped_bytes.load(Ordering::Relaxed)
    }

    /// Makes all links whole again.
    pub fn heal(&self) {
        let links = self.table.links.lock().expect("no panic under this lock");
        for link in links.values() {
            link.send_replace(WHOLE);
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Table {
    fn change(&self, dialler: &str, dialled: &str, change: impl FnOnce(&mut Link)) {
        self.with_link(dialler, dialled, |link| link.send_modify(change));
    }

    fn watch(&self, dialler: &str, dialled: &str) -> watch::Receiver<Link> {
        self.with_link(dialler, dialled, watch::Sender::subscribe)
    }

    fn with_link<T>(
        &self,
        dialler: &str,
        dialled: &str,
        use_it: impl FnOnce(&watch::Sender<Link>) -> T,
    ) -> T {
        let key = (dialler.to_owned(), dialled.to_owned());
        let mut links = self.links.lock().expect("no panic under this lock");
        use_it(links.entry(key).or_insert_with(|| watch::Sender::new(WHOLE)))
    }

    // A process that is no node (a test's own connection) gets the empty name: nothing cuts it.
    fn dialler(&self, near: SocketAddr, far: SocketAddr) -> String {
        let processes = self.processes.lock().expect("no panic under this lock").clone();
        let owner = dialler::owner(near, far, processes.keys().copied());
        owner.and_then(|pid| processes.get(&pid).cloned()).unwrap_or_default()
    }
}

struct Proxy {
    name: String,
    address: SocketAddr,
    target: SocketAddr,
    table: Arc<Table>,
    tasks: TaskTracker,
}

impl Proxy {
    async fn accept(self, listener: TcpListener) {
        // The connections end with the proxy: their token is dropped with this future.
        let open = CancellationToken::new();
        let _end_all = open.clone().drop_guard();
        while let Ok((caller, near)) = listener.accept().await {
            let dialler = self.table.dialler(near, self.address);
            let link = self.table.watch(&dialler, &self.name);
            let carry = carry(caller, self.target, link, Arc::clone(&self.table));
            self.tasks.spawn(open.clone().run_until_cancelled_owned(carry));
        }
    }
}

// Moves bytes both ways until either side closes, or a fault does.
async fn carry(
    caller: TcpStream,
    target: SocketAddr,
    link: watch::Receiver<Link>,
    table: Arc<Table>,
) {
    if link.borrow().cut {
        return;
    }
    let Ok(callee) = TcpStream::connect(target).await else { return };
    if caller.set_nodelay(true).is_err() || callee.set_nodelay(true).is_err() {
        return;
    }
    let (caller_read, caller_write) = caller.into_split();
    let (callee_read, callee_write) = callee.into_split();
    let dropped = &table.dropped_bytes;
    let requests = copy(caller_read, callee_write, link.clone(), |link| link.requests, dropped);
    let replies = copy(callee_read, caller_write, link, |link| link.replies, dropped);
    tokio::select! {
        () = requests => {}
        () = replies => {}
    }
}

// Returns when this connection must end.
async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut link: watch::Receiver<Link>,
    flow: fn(&Link) -> Flow,
    dropped: &AtomicU64,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut lost = false;
    loop {
        let state = *link.borrow_and_update();
        if state.cut || (lost && flow(&state) != Flow::Drop) {
            return;
        }
        // `read` loses no bytes when the change of the link comes first.
        let length = tokio::select! {
            biased;
            changed = link.changed() => match changed {
                Ok(()) => continue,
                Err(_links_are_gone) => return,
            },
            read = from.read(&mut buffer), if flow(&state) != Flow::Hold => match read {
                Ok(0) | Err(_) => return,
                Ok(length) => length,
            },
        };
        match flow(&state) {
            Flow::Drop => {
                lost = true;
                dropped.fetch_add(length as u64, Ordering::Relaxed);
            }
            Flow::Pass | Flow::Hold => {
                if to.write_all(&buffer[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
