//! Numbered messages that clients send while faults happen, and who heard which of them.

use std::fmt;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::{Client, EmitError};
use crate::properties::no_ghosts;
use crate::wait;

/// One message: who wrote it, and its number among that sender's messages.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label {
    pub sender: String,
    pub number: u64,
}

impl Label {
    pub fn new(sender: &str, number: u64) -> Self {
        Self { sender: sender.to_owned(), number }
    }

    /// Reads a label from an event's data; `None` if that is something else.
    pub fn of(data: &Value) -> Option<Self> {
        let (sender, number) = data.as_str()?.split_once(':')?;
        Some(Self::new(sender, number.parse().ok()?))
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.sender, self.number)
    }
}

/// One message and what its sender was told about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub label: Label,
    pub outcome: Result<(), EmitError>,
}

/// Everything that one client heard, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub by: String,
    pub labels: Vec<Label>,
}

/// What `client`, called `by` in messages, has heard so far.
pub fn heard(by: &str, client: &Client) -> Heard {
    let labels = client.received("msg").iter().filter_map(Label::of).collect();
    Heard { by: by.to_owned(), labels }
}

/// A client that sends one message after the other to all, each when the last was answered.
#[derive(Debug)]
pub struct Talker {
    task: JoinHandle<(Client, Vec<Sent>)>,
    stop: CancellationToken,
    acknowledged: watch::Receiver<u64>,
    name: String,
}

impl Talker {
    pub fn start(name: &str, client: Client) -> Self {
        let stop = CancellationToken::new();
        let (count, acknowledged) = watch::channel(0);
        let talk = talk(name.to_owned(), client, stop.clone(), count);
        // A tracker of its own: the handle is what we keep, and what ends the task is `stop`.
        let task = TaskTracker::new().spawn(talk);
        Self { task, stop, acknowledged, name: name.to_owned() }
    }

    /// Waits until `more` further messages have been acknowledged.
    pub async fn progress(&self, more: u64) {
        let goal = *self.acknowledged.borrow() + more;
        wait::until(&format!("{goal} messages of {} acknowledged", self.name), async || {
            let count = *self.acknowledged.borrow();
            wait::holds(count >= goal, count)
        })
        .await;
    }

    /// Stops after the message that is under way; returns the client and all it sent.
    pub async fn stop(self) -> (Client, Vec<Sent>) {
        self.stop.cancel();
        self.task.await.expect("the talker does not panic")
    }
}

/// A node without a quorum refuses at once: it is not asked as fast as it answers.
const REFUSED_PAUSE: Duration = Duration::from_millis(5);

async fn talk(
    name: String,
    client: Client,
    stop: CancellationToken,
    count: watch::Sender<u64>,
) -> (Client, Vec<Sent>) {
    let mut sent = Vec::new();
    for number in 0.. {
        if stop.is_cancelled() || !client.is_connected() {
            break;
        }
        let label = Label::new(&name, number);
        let outcome = client.confirm("bcast", &[Value::from(label.to_string())]).await;
        count.send_modify(|count| *count += u64::from(outcome.is_ok()));
        let is_refused = matches!(outcome, Err(EmitError::Refused(_)));
        sent.push(Sent { label, outcome });
        if is_refused {
            tokio::time::sleep(REFUSED_PAUSE).await;
        }
    }
    (client, sent)
}

/// The ids that the client's node names for a room, from all nodes.
pub async fn who(client: &Client, room: &str) -> Result<Vec<String>, String> {
    let answer = client.call("who", &[Value::from(room)]).await;
    let answer = answer.map_err(|error| format!("{error:?}"))?;
    let ids = answer.first().and_then(Value::as_array).ok_or_else(|| format!("{answer:?}"))?;
    ids.iter()
        .map(|id| id.as_str().map(str::to_owned).ok_or_else(|| format!("{answer:?}")))
        .collect()
}

/// Waits until the node of each of `askers` names exactly the sockets `there` for a room.
pub async fn expect_room(room: &str, askers: &[&Client], there: &[&Client]) {
    for asker in askers {
        wait::until(&format!("{} sockets in {room}", there.len()), async || {
            let named = who(asker, room).await?;
            let there = there.iter().map(|client| client.id());
            no_ghosts::check(asker.id(), named.iter().map(String::as_str), there)
                .map_err(|mismatch| mismatch.to_string())
        })
        .await;
    }
}

/// Sends a last message from `speaker` and waits until all `listeners` have heard it.
///
/// In a namespace with one order nothing that was committed before can come after it, so what
/// the listeners have heard then is all there is.
pub async fn last_word(speaker: &Client, listeners: &[&Client]) {
    let word = Value::from(format!("last word of {}", speaker.id()));
    speaker.confirm("bcast", std::slice::from_ref(&word)).await.expect("the cluster serves");
    for listener in listeners {
        wait::until(&format!("the last word at {}", listener.id()), async || {
            let heard = listener.received("msg");
            wait::holds(heard.contains(&word), heard.last().cloned())
        })
        .await;
    }
}
