//! How fast changes are applied, and what a row costs: 100,000 sockets, each in one of 10,000 rooms.
//!
//! `cargo run --release --example state_bench`
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints what it measures by the real clock"
)]

mod measure;

use std::hint::black_box;

use bytestring::ByteString;
use flotilla::raft::state::{
    Change, Packet, Pid, Rooms, SessionId, SocketId, SocketUp, State, Target,
};
use flotilla::socketio::Payload;

use measure::{Bench, resident_bytes, time};

const SOCKETS: usize = 100_000;
const ROOMS: usize = 10_000;

fn main() {
    let mut bench = Bench::new(State::default());
    let ids: Vec<SocketId> = (0..SOCKETS).map(|_| SocketId::random()).collect();
    let room = |n: usize| Rooms::from_elem(ByteString::from(format!("room-{n}")), 1);

    let before = resident_bytes();
    bench.run("socket up", ids.iter().map(|id| up(*id)));
    let with_sockets = resident_bytes();
    println!("{:32} {:>9} bytes", "a socket", (with_sockets - before) / SOCKETS);

    let join = |n: usize, id: &SocketId| Change::Join { socket: *id, rooms: room(n % ROOMS) };
    bench.run("join", ids.iter().enumerate().map(|(n, id)| join(n, id)));
    let grown = resident_bytes() - with_sockets;
    println!("{:32} {:>9} bytes, its tenth of a room included", "a membership", grown / SOCKETS);

    let leave = |n: usize, id: &SocketId| Change::Leave { socket: *id, rooms: room(n % ROOMS) };
    bench.run("leave", ids.iter().enumerate().map(|(n, id)| leave(n, id)));
    bench.run("join again", ids.iter().enumerate().map(|(n, id)| join(n, id)));
    bench.run("packet", (0..SOCKETS).map(|n| packet(&room(n % ROOMS))));

    let targets: Vec<Target> =
        (0..ROOMS).map(|n| Target { rooms: room(n), ..Target::default() }).collect();
    let state = &bench.state;
    time("nodes of a target", ROOMS, |n| {
        black_box(state.nodes_of_target("/", &targets[n]));
    });
    time("sockets of a room", ROOMS, |n| {
        black_box(state.matching("/", &targets[n]));
    });
    let mut bytes = Vec::new();
    time("encode a snapshot", 1, |_| bytes = state.encode());
    println!("{:32} {:>9} bytes", "the snapshot", bytes.len());
    time("decode a snapshot", 1, |_| {
        let decoded = State::decode(std::mem::take(&mut bytes));
        assert_eq!(decoded.ok().as_ref(), Some(state));
    });
    bench.run("socket gone", ids.iter().map(|id| Change::SocketGone { socket: *id, claim: 0 }));
    bench.run("socket up again", ids.iter().map(|id| up(*id)));
    time("a node's death", 1, |_| bench.register(2));
    assert_eq!(bench.state.sockets_len(), 0);
}

fn up(socket: SocketId) -> Change {
    Change::SocketUp(Box::new(SocketUp {
        socket,
        pid: Pid::random(),
        namespace: "/".into(),
        session: SessionId::random(),
        keep_session_ms: 0,
        rooms: Rooms::new(),
        recovery: None,
    }))
}

fn packet(rooms: &Rooms) -> Change {
    let payload = Payload { json: r#"["msg",{"n":1}]"#.into(), attachments: Vec::new() };
    let target = Target { rooms: rooms.clone(), ..Target::default() };
    let packet = Packet { namespace: "/".into(), target, payload, ack: None, uncompressed: false };
    Change::Packet(Box::new(packet))
}
