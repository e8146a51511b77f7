//! What sessions cost, and what an index of their keys saves: 100,000 clients, each with a session.
//!
//! `cargo run --release --example session_bench`
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints what it measures by the real clock"
)]

mod measure;

use std::hint::black_box;
use std::sync::Arc;

use flotilla::adapter::{Local, Outbox, OutboxLimits, Plane, Recipient};
use flotilla::raft::state::{
    Change, Pid, Rooms, SessionFilter, SessionId, SessionKeys, SessionValue, SocketId, SocketUp,
    State, Target, next_revision,
};
use serde_json::json;

use measure::{Bench, resident_bytes, time};

const CLIENTS: usize = 100_000;
/// Clients of one team.
const TEAM: usize = 1000;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn main() {
    let clients: Vec<_> = (0..CLIENTS).map(|_| (SocketId::random(), SessionId::random())).collect();
    for (name, keys) in [("without index", SessionKeys::default()), ("with index", keys())] {
        println!("--- {name}");
        let before = resident_bytes();
        let mut bench = Bench::new(State::default().with_session_keys(keys.clone()));
        bench.run("socket up, session made", clients.iter().map(|client| up(*client)));
        bench.run("first write", clients.iter().zip(0..).map(|((_, id), n)| put(*id, 1, n)));
        // The second time memory is used again that the first has left.
        if keys.is_empty() {
            let bytes = (resident_bytes() - before) / CLIENTS;
            println!("{:32} {bytes:>9} bytes", "a client, all told");
        }
        bench.run("second write", clients.iter().zip(0..).map(|((_, id), n)| put(*id, 2, n)));
        time("state: sockets of a user", 200, |n| {
            assert_eq!(bench.state.matching("/", &user(n)).len(), 1);
        });
        time("state: sockets of a team", 200, |n| {
            assert_eq!(bench.state.matching("/", &team(n % (CLIENTS / TEAM))).len(), TEAM);
        });
        time("state: sessions that expired", 200, |_| {
            assert_eq!(black_box(&bench.state).expired_sessions(u64::MAX).count(), 0);
        });
        drop(bench);

        let local = local(&clients, &keys);
        let visit = |target: &Target| {
            let mut met = 0;
            local.visit(target, Plane::Agreed, |_recipient| met += 1);
            met
        };
        time("deliver to a user", 200, |n| assert_eq!(visit(&user(n)), 1));
        time("deliver to a team", 200, |n| assert_eq!(visit(&team(n % (CLIENTS / TEAM))), TEAM));
    }
}

fn keys() -> SessionKeys {
    SessionKeys::new(["user", "team"])
}

fn session(n: usize) -> String {
    json!({"user": format!("user-{n}"), "team": n / TEAM, "theme": "dark"}).to_string()
}

fn target(filter: serde_json::Value) -> Target {
    let filter = SessionFilter::try_from(filter).expect("an object of scalars");
    Target { filter: Some(filter), ..Target::default() }
}

fn user(n: usize) -> Target {
    target(json!({"user": format!("user-{}", n * 37)}))
}

fn team(n: usize) -> Target {
    target(json!({"team": n}))
}

/// The sockets of one node, as its delivery task knows them.
fn local(clients: &[(SocketId, SessionId)], keys: &SessionKeys) -> Local {
    let local = Local::new(2).with_session_keys(keys);
    for ((socket, _), n) in clients.iter().zip(0..) {
        let recipient = Recipient::new(*socket, Arc::new(Outbox::new(OutboxLimits::default())));
        let value = SessionValue::parse(&session(n)).expect("an object");
        local.insert(Arc::new(recipient), &[], Some(Arc::new(value)), |_recipient| {});
    }
    local
}

fn up((socket, session): (SocketId, SessionId)) -> Change {
    Change::SocketUp(Box::new(SocketUp {
        socket,
        pid: Pid::random(),
        namespace: "/".into(),
        session,
        keep_session_ms: DAY_MS,
        rooms: Rooms::new(),
        recovery: None,
    }))
}

/// The n-th client's session, for the `time`th time.
fn put(session_id: SessionId, time: usize, n: usize) -> Change {
    let expected = (0..time).fold(0, |revision, _| next_revision(revision, 1));
    Change::SessionPut { session: session_id, expected, salt: 0, value: session(n).into() }
}
