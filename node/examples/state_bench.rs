//! How fast changes are applied, and what a row costs: 100,000 sockets, each in one of 10,000 rooms.
//!
//! `cargo run --release --example state_bench`
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints what it measures by the real clock"
)]

use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

use bytestring::ByteString;
use flotilla::raft::state::{
    Applied, Change, NodeUp, Packet, Pid, Proposal, Rooms, SessionId, SocketId, SocketUp, State,
    Target, Verdict,
};
use flotilla::socketio::Payload;

const SOCKETS: usize = 100_000;
const ROOMS: usize = 10_000;
/// Changes to an entry; a view is published after each.
const BATCH: usize = 32;

fn main() {
    let mut bench = Bench::new();
    let ids: Vec<SocketId> = (0..SOCKETS).map(|_| SocketId::random()).collect();
    let room = |n: usize| Rooms::from_elem(ByteString::from(format!("room-{n}")), 1);

    let before = resident_bytes();
    bench.run("socket up", ids.iter().map(|id| up(*id)));
    let with_sockets = resident_bytes();
    println!("{:24} {:>10} bytes", "a socket", (with_sockets - before) / SOCKETS);

    let join = |n: usize, id: &SocketId| Change::Join { socket: *id, rooms: room(n % ROOMS) };
    bench.run("join", ids.iter().enumerate().map(|(n, id)| join(n, id)));
    let grown = resident_bytes() - with_sockets;
    println!("{:24} {:>10} bytes, its tenth of a room included", "a membership", grown / SOCKETS);

    let leave = |n: usize, id: &SocketId| Change::Leave { socket: *id, rooms: room(n % ROOMS) };
    bench.run("leave", ids.iter().enumerate().map(|(n, id)| leave(n, id)));
    bench.run("join again", ids.iter().enumerate().map(|(n, id)| join(n, id)));
    bench.run("packet", (0..SOCKETS).map(|n| packet(&room(n % ROOMS))));

    let targets: Vec<Target> =
        (0..ROOMS).map(|n| Target { rooms: room(n), ..Target::default() }).collect();
    let state = &bench.state;
    time("nodes of a target", ROOMS, || {
        targets.iter().for_each(|target| {
            black_box(state.nodes_of_target("/", target));
        });
    });
    time("sockets of a room", ROOMS, || {
        targets.iter().for_each(|target| {
            black_box(state.matching("/", target));
        });
    });
    let mut bytes = Vec::new();
    time("encode a snapshot", 1, || bytes = state.encode());
    println!("{:24} {:>10} bytes", "the snapshot", bytes.len());
    time("decode a snapshot", 1, || assert_eq!(State::decode(bytes).ok().as_ref(), Some(state)));
    bench.run("socket gone", ids.iter().map(|id| Change::SocketGone { socket: *id, claim: 0 }));
    bench.run("socket up again", ids.iter().map(|id| up(*id)));
    time("a node's death", 1, || bench.register(1, 2));
    assert_eq!(bench.state.sockets_len(), 0);
}

struct Bench {
    state: State,
    index: u64,
    seq: u64,
    applied: Vec<Applied>,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self { state: State::default(), index: 0, seq: 0, applied: Vec::new() };
        bench.register(1, 1);
        bench
    }

    fn register(&mut self, node: u64, boot: u64) {
        let up =
            NodeUp { boot, name: "n1".into(), address: "127.0.0.1:1".into(), version: "0".into() };
        let changes = vec![Change::NodeUp(Box::new(up))];
        self.index += 1;
        let proposal = Proposal { node, incarnation: 0, first_seq: 1, stamp_ms: 0, changes };
        self.state.apply(self.index, proposal, &mut self.applied);
    }

    /// Times the applying alone; each entry is made when it is wanted, so that the changes that
    /// wait do not count as the state's memory.
    fn run(&mut self, name: &str, mut changes: impl Iterator<Item = Change>) {
        let incarnation = self.state.alive(1).expect("the node is registered");
        let (mut elapsed, mut count) = (Duration::ZERO, 0);
        let mut view = self.state.clone();
        loop {
            let changes: Vec<Change> = changes.by_ref().take(BATCH).collect();
            if changes.is_empty() {
                break;
            }
            let first_seq = self.seq + 1;
            count += changes.len();
            self.seq += changes.len() as u64;
            self.index += 1;
            let proposal = Proposal { node: 1, incarnation, first_seq, stamp_ms: 0, changes };
            let start = Instant::now();
            self.applied.clear();
            let verdict = self.state.apply(self.index, proposal, &mut self.applied);
            assert_eq!(verdict, Verdict::Applied { skipped: 0 });
            // As the apply task does: readers hold the view of before until here.
            view = self.state.clone();
            elapsed += start.elapsed();
        }
        black_box(view);
        print_rate(name, count, elapsed);
    }
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

fn time(name: &str, count: usize, work: impl FnOnce()) {
    let start = Instant::now();
    work();
    print_rate(name, count, start.elapsed());
}

fn print_rate(name: &str, count: usize, elapsed: Duration) {
    let each = elapsed.as_nanos() / count as u128;
    println!("{name:24} {:>10.0} a second, {each} ns each", count as f64 / elapsed.as_secs_f64());
}

/// The process's resident memory.
fn resident_bytes() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").expect("Linux shows a process its memory");
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("the second number is the resident pages") * 4096
}
