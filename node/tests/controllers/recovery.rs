//! Controllers of clients that come back: what is new on the node that they come to, and what they keep.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flotilla::adapter::RecoveryConfig;
use flotilla::apps::controllers::{Error, SocketServer, State, controller};
use flotilla::server::{NamespaceHandle, Reason, Session, Socket};
use serde_json::{Map, Value, json};

use crate::Notes;
use crate::common::client::Client;
use crate::common::{start_three, until};

/// What one client has said while it had this instance.
struct Talk {
    said: AtomicU64,
    notes: Notes,
}

#[controller("/talk")]
impl Talk {
    #[create]
    fn new(notes: State<Notes>) -> Self {
        Self { said: AtomicU64::new(0), notes: Notes::clone(&notes) }
    }

    /// Rooms come back with their socket, so they are joined the first time alone.
    #[connect]
    async fn welcome(&self, socket: Socket) -> Result<(), Error> {
        self.notes.add(format!("connect, recovered: {}", socket.recovered()));
        if !socket.recovered() {
            socket.join("listeners").await?;
        }
        Ok(())
    }

    #[subscribe("say")]
    async fn say(&self, namespace: NamespaceHandle, text: String) -> Result<u64, Error> {
        namespace.to("listeners").emit("said", &text).await?;
        Ok(self.said.fetch_add(1, Ordering::Relaxed) + 1)
    }

    #[subscribe("remember")]
    async fn remember(&self, session: Session, name: String) -> Result<(), Error> {
        let written = session.update(move |session| {
            session.insert("name".to_owned(), name.clone().into());
        });
        Ok(written.await?)
    }

    #[subscribe("remembered")]
    fn remembered(&self, session: Session) -> Arc<Map<String, Value>> {
        session.get()
    }

    #[disconnect]
    fn gone(&self, Reason(reason): Reason) {
        let said = self.said.load(Ordering::Relaxed);
        self.notes.add(format!("{reason} after {said}"));
    }
}

/// The offset that ends an event's arguments.
fn offset(text: &str) -> String {
    let event: Value = serde_json::from_str(&text[text.find('[').unwrap()..]).unwrap();
    event.as_array().unwrap().last().unwrap().as_str().unwrap().to_owned()
}

async fn ask(client: &mut Client, event: &str) -> Value {
    client.send(&format!("2/talk,1{event}")).await;
    let text = client.text().await;
    let answer = text.strip_prefix("3/talk,1").unwrap_or_else(|| panic!("{text} is no ack"));
    serde_json::from_str(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_comes_back_has_a_new_instance_its_rooms_and_its_session() {
    let notes = Notes::default();
    let nodes = start_three(|io| {
        io.of_recoverable("/talk", RecoveryConfig::default());
        let server = SocketServer::new(io);
        server.state(notes.clone());
        server.controller::<Talk>().unwrap();
    })
    .await;
    let mut client = nodes[0].open().await;
    client.ask("/talk", "").await;
    let text = client.text().await;
    let connect: Value = serde_json::from_str(&text[text.find('{').unwrap()..]).unwrap();
    let mut last = String::new();
    for said in 1..=2 {
        client.send(&format!(r#"2/talk,0["say","{said}"]"#)).await;
        last = client.text().await;
        assert!(last.starts_with(&format!(r#"2/talk,["said","{said}","#)), "{last}");
        client.expect(&format!(r#"3/talk,0[{{"result":{said}}}]"#)).await;
    }
    assert_eq!(ask(&mut client, r#"["remember","ann"]"#).await, json!([{}]));
    assert_eq!(notes.taken(), ["connect, recovered: false"]);

    // Its instance ends where its connection does; that it may come back changes nothing of that.
    drop(client);
    let ended =
        until("the instance to end", async || Some(notes.taken()).filter(|n| !n.is_empty()));
    assert_eq!(ended.await, ["transport close after 2"]);
    let mut other = nodes[1].open().await;
    other.connect("/talk", "").await;
    other.send(r#"2/talk,["say","meanwhile"]"#).await;
    assert!(other.text().await.starts_with(r#"2/talk,["said","meanwhile","#));
    // Not before: the client is told of its acceptance while `connect` is still to run.
    assert_eq!(notes.taken(), ["connect, recovered: false"]);

    let mut client = nodes[2].open().await;
    client.ask("/talk", &json!({"pid": connect["pid"], "offset": offset(&last)}).to_string()).await;
    let missed = client.text().await;
    assert!(missed.starts_with(r#"2/talk,["said","meanwhile","#), "{missed}");
    client.accepted().await;
    assert_eq!(client.id, connect["sid"].as_str().unwrap());
    let remembered = json!([{"result": {"name": "ann"}}]);
    assert_eq!(ask(&mut client, r#"["remembered"]"#).await, remembered);
    assert_eq!(notes.taken(), ["connect, recovered: true"]);

    // It counts from the start, and is still among the listeners.
    client.send(r#"2/talk,0["say","again"]"#).await;
    assert!(client.text().await.starts_with(r#"2/talk,["said","again","#));
    client.expect(r#"3/talk,0[{"result":1}]"#).await;
    assert!(other.text().await.starts_with(r#"2/talk,["said","again","#));
    client.send("1/talk,").await;
    let ended =
        until("the instance to end", async || Some(notes.taken()).filter(|n| !n.is_empty()));
    assert_eq!(ended.await, ["client namespace disconnect after 1"]);
}
