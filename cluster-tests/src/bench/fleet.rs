//! All clients of one scenario, spread over the servers in turn.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Plan;
use super::inbox::Inbox;
use super::link::{self, Link};
use crate::wait;

/// How many handshakes are under way at once.
const CONNECTING: usize = 32;

const AGREE: Duration = Duration::from_secs(1);

/// After this long without any delivery, what is missing counts as lost.
const QUIET: Duration = Duration::from_secs(5);

/// How long a server may take to close a connection; then the client breaks it off.
const GOODBYE: Duration = Duration::from_secs(10);

pub(super) struct Fleet {
    pub(super) links: Vec<Rc<Link>>,
    pub(super) inbox: Rc<Inbox>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    payload_bytes: usize,
}

impl Fleet {
    /// Connects `clients` clients; client 0 is at the first server, client 1 at the second, …
    pub(super) async fn connect(plan: &Plan, clients: usize) -> io::Result<Self> {
        let inbox = Rc::new(Inbox::new(clients));
        let namespace: Rc<str> = link::packet_namespace(&plan.namespace).into();
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let connecting = (0..clients).map(|client| {
            let (namespace, inbox) = (Rc::clone(&namespace), Rc::clone(&inbox));
            let (tasks, shutdown) = (&tasks, shutdown.clone());
            let host = host(plan, client);
            async move {
                let index = u32::try_from(client).map_err(io::Error::other)?;
                let connecting = link::connect(index, host, namespace, inbox);
                let connected = tokio::time::timeout(wait::PATIENCE, connecting).await;
                let (link, receiving) = connected.map_err(io::Error::other)??;
                tasks.spawn_local(shutdown.run_until_cancelled_owned(receiving.run()));
                Ok::<_, io::Error>(link)
            }
        });
        let links = stream::iter(connecting).buffered(CONNECTING).try_collect().await?;
        Ok(Self { links, inbox, tasks, shutdown, payload_bytes: plan.payload_bytes })
    }

    /// Lets every client join the room that `room` names for it.
    pub(super) async fn join(&self, room: impl Fn(usize) -> String) -> io::Result<()> {
        let joining = self.links.iter().enumerate().map(|(client, link)| {
            let arguments = format!("\"{}\"", room(client));
            async move {
                let joined = link.call("join", &arguments);
                let joined = tokio::time::timeout(wait::PATIENCE, joined).await;
                if joined.is_ok_and(|confirmed| confirmed) {
                    Ok(())
                } else {
                    Err(io::Error::other(format!("client {client} could not join")))
                }
            }
        });
        stream::iter(joining).buffer_unordered(CONNECTING).try_collect().await
    }

    /// Gives the servers the moment that they need until all of them know all clients and rooms.
    ///
    /// A direct message goes to the members that its sender's server knows of; what was
    /// acknowledged at another server a moment ago may be news to it.
    pub(super) async fn agree(&self) {
        tokio::time::sleep(AGREE).await;
    }

    /// Emits the client's next message, which `audience` clients are to get. `before` is what
    /// stands before the data among the arguments, with its comma.
    pub(super) fn send(&self, client: usize, event: &str, before: &str, audience: u32) {
        let link = &self.links[client];
        let message = self.inbox.sending(link.index(), audience);
        let head = format!("{}:{}:{}:", message.sender, message.number, self.inbox.micros());
        let padding = self.payload_bytes.saturating_sub(head.len());
        link.emit(event, &format!("{before}\"{head}{:x<padding$}\"", ""));
    }

    /// Waits until all that was sent has come, or nothing comes any more; returns the time since
    /// which nothing came.
    pub(super) async fn settle(&self) -> Instant {
        let mut last = (self.inbox.counts(), Instant::now());
        while self.inbox.counts().lost() > 0 && last.1.elapsed() < QUIET {
            tokio::time::sleep(Duration::from_millis(5)).await;
            if self.inbox.counts() != last.0 {
                last = (self.inbox.counts(), Instant::now());
            }
        }
        last.1
    }

    /// Closes all connections and waits for the servers to do the same.
    pub(super) async fn close(self) {
        for link in &self.links {
            link.close();
        }
        self.tasks.close();
        if tokio::time::timeout(GOODBYE, self.tasks.wait()).await.is_err() {
            self.shutdown.cancel();
            self.tasks.wait().await;
        }
    }
}

/// `host:port` of the server that this client is at.
pub(super) fn host(plan: &Plan, client: usize) -> &str {
    let url = &plan.urls[client % plan.urls.len()];
    url.trim_start_matches("http://").trim_end_matches('/')
}
