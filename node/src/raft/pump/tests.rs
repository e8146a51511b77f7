//! The pump against a leader that answers as each test wants.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::queue::{LINGER, MAX_CHANGE_BYTES};
use super::*;
use crate::raft::deliveries::{Deliveries, Standing};
use crate::raft::proposer::{Failed, Propose, Round};
use crate::raft::state::{
    Incarnation, NodeId, Outcome, Pid, Proposal, Rooms, SessionId, SocketUp, State,
};
use crate::raft::types::Applied;
use crate::raft::wire::decode_proposal;

const ME: NodeId = 1;
const INCARNATION: Incarnation = 1;

/// What the leader does with the next attempts; afterwards it commits and answers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Leader {
    /// Commits, and the answer comes at once.
    Commits,
    /// Commits, and the answer is lost.
    CommitsSilently,
    /// The proposal is lost, as far as anyone knows.
    Loses,
    /// There is no leader.
    Absent,
    /// Never answers, and never commits.
    Hangs,
    Refuses,
}

/// The log and the apply task of this node, in a few lines.
struct World {
    plan: VecDeque<Leader>,
    otherwise: Leader,
    attempts: usize,
    /// Those of them after one that may have reached a log.
    repeats: usize,
    proposals: Vec<Proposal>,
    state: State,
    applied: Vec<Change>,
    /// While set, what is committed is not applied here.
    lagging: bool,
    unapplied: VecDeque<Proposal>,
    round: Round,
}

#[derive(Clone)]
struct Fake {
    world: Arc<Mutex<World>>,
    deliveries: Arc<Deliveries>,
}

impl Fake {
    fn apply(&self, world: &mut World) {
        while let Some(proposal) = world.unapplied.pop_front() {
            let index = world.state.index() + 1;
            let (incarnation, first) = (proposal.incarnation, proposal.first_seq);
            let changes = proposal.changes.clone();
            let mut applied = Vec::new();
            world.state.apply(index, proposal, &mut applied);
            for change in applied {
                world.applied.push(changes[(change.seq - first) as usize].clone());
                if let Some(waiter) = self.deliveries.awaited.take(incarnation, change.seq) {
                    waiter.answer(Ok(change.outcome));
                }
                self.deliveries.standing.send_modify(|standing| standing.last_seq = change.seq);
            }
        }
    }

    fn catch_up(&self) {
        let mut world = self.world.lock().unwrap();
        world.lagging = false;
        self.apply(&mut world);
    }
}

impl Propose for Fake {
    async fn opened(&mut self) -> Round {
        self.world.lock().unwrap().round
    }

    async fn propose(
        &mut self,
        proposal: Bytes,
        _changes: u32,
        again: bool,
        until: Instant,
    ) -> Result<Applied, Failed> {
        let does = {
            let mut world = self.world.lock().unwrap();
            world.attempts += 1;
            world.repeats += usize::from(again);
            let does = world.plan.pop_front().unwrap_or(world.otherwise);
            if matches!(does, Leader::Commits | Leader::CommitsSilently) {
                let proposal = decode_proposal(&proposal).unwrap();
                world.proposals.push(proposal.clone());
                world.unapplied.push_back(proposal);
                if !world.lagging {
                    self.apply(&mut world);
                }
            }
            does
        };
        match does {
            Leader::Commits => Ok(Applied::default()),
            Leader::CommitsSilently | Leader::Loses => Err(Failed::Unknown),
            Leader::Refuses => Ok(Applied { refused: true }),
            Leader::Absent => {
                let pause = Instant::now() + Duration::from_millis(50);
                tokio::time::sleep_until(pause.min(until)).await;
                Err(Failed::NotSent)
            }
            Leader::Hangs => {
                tokio::time::sleep_until(until).await;
                Err(Failed::Unknown)
            }
        }
    }
}

struct Bench {
    pump: Pump,
    fake: Fake,
    stop: CancellationToken,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn limits() -> PumpLimits {
    PumpLimits { changes: 10_000, bytes: 4 << 20, timeout: Duration::from_secs(5) }
}

fn bench(plan: &[Leader], otherwise: Leader) -> Bench {
    bench_with(plan, otherwise, limits())
}

fn bench_with(plan: &[Leader], otherwise: Leader, limits: PumpLimits) -> Bench {
    let deliveries = Arc::new(Deliveries::new(ME));
    let mut state = State::default();
    let up = crate::raft::state::NodeUp {
        boot: 1,
        name: "n1".into(),
        address: "h:1".into(),
        version: "1".into(),
    };
    let changes = vec![Change::NodeUp(Box::new(up))];
    let registration = Proposal { node: ME, incarnation: 0, first_seq: 0, stamp_ms: 0, changes };
    state.apply(INCARNATION, registration, &mut Vec::new());
    let world = World {
        plan: plan.iter().copied().collect(),
        otherwise,
        attempts: 0,
        repeats: 0,
        proposals: Vec::new(),
        state,
        applied: Vec::new(),
        lagging: false,
        unapplied: VecDeque::new(),
        round: Round::Lone,
    };
    let fake = Fake { world: Arc::new(Mutex::new(world)), deliveries: deliveries.clone() };
    let pump = Pump::new(limits);
    deliveries.standing.send_replace(Standing { live: Some(INCARNATION), last_seq: 0 });
    pump.open();
    let stop = CancellationToken::new();
    let task = PumpTask::new(ME, &pump, deliveries, fake.clone(), Arc::new(|| 0));
    let tasks = tokio_util::task::TaskTracker::new();
    tasks.spawn(task.run(stop.clone()));
    Bench { pump, fake, stop }
}

fn change(number: u64) -> Change {
    Change::NodeDown { node: 1000 + number, incarnation: 1 }
}

fn changes(range: std::ops::Range<u64>) -> Vec<Change> {
    range.map(change).collect()
}

impl Bench {
    fn world(&self) -> MutexGuard<'_, World> {
        self.fake.world.lock().unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn crowd_is_waited_for_where_rounds_are_shared() {
    let bench = bench(&[], Leader::Commits);
    bench.world().round = Round::Shared;
    let propose = |numbers: std::ops::Range<u64>| -> Vec<_> {
        changes(numbers).into_iter().map(|change| bench.pump.propose(change)).collect()
    };
    let answered = async |receipts: Vec<Receipt>| {
        for receipt in receipts {
            receipt.await.unwrap();
        }
    };
    answered(propose(0..6)).await;
    let start = Instant::now();
    let few = propose(6..8);
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    let others = propose(8..12);
    answered(few).await;
    answered(others).await;
    assert_eq!(start.elapsed(), Duration::ZERO, "until as many have come");
    answered(propose(12..14)).await;
    assert!(start.elapsed() > Duration::ZERO, "fewer came");
    let sizes: Vec<_> = bench.world().proposals.iter().map(|all| all.changes.len()).collect();
    assert_eq!(sizes, [6, 6, 2]);
    let start = Instant::now();
    answered(propose(14..15)).await;
    assert_eq!(start.elapsed(), Duration::ZERO, "two are no crowd");
}

#[tokio::test(start_paused = true)]
async fn changes_apply_once_and_in_order_whatever_the_leader_does() {
    use Leader::{Absent, Commits, CommitsSilently, Hangs, Loses};
    let plan = [Commits, CommitsSilently, Loses, Absent, Hangs, CommitsSilently, Loses, Commits];
    let bench = bench(&plan, Commits);
    let mut receipts = Vec::new();
    for number in 0..50 {
        receipts.push(bench.pump.propose(change(number)));
        if number % 7 == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    for receipt in receipts {
        assert_eq!(receipt.await, Ok(Outcome::Applied));
    }
    assert_eq!(bench.world().applied, changes(0..50));
}

#[tokio::test(start_paused = true)]
async fn only_what_may_have_reached_a_log_is_proposed_again() {
    use Leader::{Absent, CommitsSilently, Loses};
    let bench = bench(&[Absent, Loses, Absent, CommitsSilently, Absent], Leader::Commits);
    assert_eq!(bench.pump.propose(change(0)).await, Ok(Outcome::Applied));
    assert_eq!(bench.pump.propose(change(1)).await, Ok(Outcome::Applied));
    // Of the first change the second attempt is lost, and two follow; of the other, none.
    assert_eq!(bench.world().repeats, 2);
}

#[tokio::test(start_paused = true)]
async fn what_gathers_travels_as_one_entry() {
    let bench = bench(&[Leader::Absent], Leader::Commits);
    let first = bench.pump.propose(change(0));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut last = None;
    for number in 1..100 {
        last = Some(bench.pump.propose(change(number)));
    }
    assert_eq!(first.await, Ok(Outcome::Applied));
    assert_eq!(last.unwrap().await, Ok(Outcome::Applied));
    let sizes: Vec<_> = bench.world().proposals.iter().map(|p| p.changes.len()).collect();
    assert_eq!(sizes, [1, 99]);
}

#[tokio::test(start_paused = true)]
async fn entries_are_bounded_and_a_large_change_travels_alone() {
    let bench = bench(&[Leader::Absent], Leader::Commits);
    let value = "x".repeat(400 << 10);
    let session = SessionId::random();
    let put = |len: usize| Change::SessionPut {
        session,
        expected: 9,
        salt: 0,
        value: value[..len].to_owned().into(),
    };
    let mut receipts = vec![bench.pump.propose(change(0))];
    tokio::time::sleep(Duration::from_millis(1)).await;
    for len in [400 << 10, 400 << 10, 400 << 10, 1] {
        receipts.push(bench.pump.propose(put(len)));
    }
    for receipt in receipts {
        receipt.await.unwrap();
    }
    let sizes: Vec<_> = bench.world().proposals.iter().map(|p| p.changes.len()).collect();
    assert_eq!(sizes, [1, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn session_filter_counts_as_much_as_any_text_of_a_client() {
    let bench = bench(&[Leader::Absent], Leader::Commits);
    let filter = serde_json::json!({"a": "x".repeat(400 << 10)});
    let target = crate::raft::state::Target {
        filter: Some(filter.try_into().unwrap()),
        ..Default::default()
    };
    let disconnect =
        Change::DisconnectMatching { namespace: "/".into(), target: target.into(), close: false };
    let mut receipts = vec![bench.pump.propose(change(0))];
    tokio::time::sleep(Duration::from_millis(1)).await;
    receipts.extend((0..4).map(|_| bench.pump.propose(disconnect.clone())));
    for receipt in receipts {
        receipt.await.unwrap();
    }
    let sizes: Vec<_> = bench.world().proposals.iter().map(|p| p.changes.len()).collect();
    assert_eq!(sizes, [1, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_nothing_is_sent_and_no_quorum_is_the_answer() {
    let bench = bench(&[], Leader::Absent);
    let start = Instant::now();
    let first = bench.pump.propose(change(0));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let second = bench.pump.propose(change(1));
    assert_eq!(first.await, Err(ProposeError::NoQuorum));
    assert_eq!(start.elapsed().as_secs(), 5);
    assert_eq!(second.await, Err(ProposeError::NoQuorum));
    assert_eq!(start.elapsed().as_secs(), 6);
    bench.world().otherwise = Leader::Commits;
    assert_eq!(bench.pump.propose(change(2)).await, Ok(Outcome::Applied));
    assert_eq!(bench.world().applied, [change(2)]);
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_is_unknown_at_the_deadline_and_applied_once_all_the_same() {
    let bench = bench(&[], Leader::Hangs);
    let sent = bench.pump.propose(change(0));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let queued = bench.pump.propose(change(1));
    assert_eq!(sent.await, Err(ProposeError::Timeout));
    assert_eq!(queued.await, Err(ProposeError::NoQuorum));
    bench.world().otherwise = Leader::CommitsSilently;
    assert_eq!(bench.pump.propose(change(2)).await, Ok(Outcome::Applied));
    assert_eq!(bench.world().applied, [change(0), change(2)]);
}

#[tokio::test(start_paused = true)]
async fn node_that_lags_behind_the_leader_answers_when_it_has_applied() {
    let bench = bench(&[], Leader::Commits);
    bench.world().lagging = true;
    let mut receipts = Vec::new();
    for number in 0..5 {
        receipts.push(bench.pump.propose(change(number)));
        // Each in an entry of its own, which the leader answers before it is applied here.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(bench.world().unapplied.len(), 5);
    bench.fake.catch_up();
    for receipt in receipts {
        assert_eq!(receipt.await, Ok(Outcome::Applied));
    }
}

#[tokio::test(start_paused = true)]
async fn lost_answer_leads_to_the_same_proposal_again_and_one_change() {
    let bench = bench(&[Leader::CommitsSilently, Leader::CommitsSilently], Leader::Commits);
    bench.world().lagging = true;
    let receipt = bench.pump.propose(change(0));
    tokio::time::sleep(Duration::from_millis(1)).await;
    bench.fake.catch_up();
    assert_eq!(receipt.await, Ok(Outcome::Applied));
    let world = bench.world();
    assert_eq!(world.proposals.len(), 3);
    assert!(world.proposals.iter().all(|proposal| *proposal == world.proposals[0]));
    assert_eq!(world.applied, [change(0)]);
}

#[tokio::test(start_paused = true)]
async fn committed_change_that_is_not_applied_here_in_time_is_unknown() {
    let bench = bench(&[], Leader::Commits);
    bench.world().lagging = true;
    let receipt = bench.pump.propose(change(0));
    let start = Instant::now();
    assert_eq!(receipt.await, Err(ProposeError::Timeout));
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn fenced_node_refuses_at_once_what_was_not_sent() {
    let bench = bench(&[], Leader::Hangs);
    let sent = bench.pump.propose(change(0));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let start = Instant::now();
    let queued = bench.pump.propose(change(1));
    bench.pump.fence();
    assert_eq!(queued.await, Err(ProposeError::NoQuorum));
    assert_eq!(bench.pump.propose(change(2)).await, Err(ProposeError::NoQuorum));
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(sent.await, Err(ProposeError::Timeout));
    bench.world().otherwise = Leader::Commits;
    bench.pump.open();
    assert_eq!(bench.pump.propose(change(3)).await, Ok(Outcome::Applied));
    assert_eq!(bench.world().applied, [change(0), change(3)]);
}

#[tokio::test(start_paused = true)]
async fn what_goes_ahead_is_taken_by_a_fenced_node_and_comes_first() {
    let bench = bench(&[], Leader::Commits);
    bench.pump.fence();
    assert!(bench.pump.is_fenced());
    let (waiter, ahead) = Receipt::pending();
    bench.pump.propose_ahead(change(0), waiter);
    assert_eq!(bench.pump.propose(change(1)).await, Err(ProposeError::NoQuorum));
    bench.pump.open();
    let receipts = [ahead, bench.pump.propose(change(2))];
    for receipt in receipts {
        assert_eq!(receipt.await, Ok(Outcome::Applied));
    }
    assert_eq!(bench.world().applied, [change(0), change(2)]);
}

#[tokio::test(start_paused = true)]
async fn incarnation_that_ends_takes_its_changes_with_it() {
    let bench = bench(&[Leader::Refuses], Leader::Commits);
    let receipt = bench.pump.propose(change(0));
    tokio::time::sleep(Duration::from_millis(1)).await;
    // The apply task finds this node declared dead.
    let deliveries = &bench.fake.deliveries;
    deliveries.awaited.fail_all(ProposeError::NoQuorum);
    deliveries.standing.send_replace(Standing::default());
    assert_eq!(receipt.await, Err(ProposeError::NoQuorum));
    deliveries.standing.send_replace(Standing { live: Some(50), last_seq: 0 });
    let _again = bench.pump.propose(change(1));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let world = bench.world();
    let last = world.proposals.last().unwrap();
    assert_eq!((last.incarnation, last.first_seq), (50, 1));
    assert_eq!(last.changes, [change(1)]);
}

#[tokio::test(start_paused = true)]
async fn queue_is_bounded_by_number_and_bytes() {
    let few = PumpLimits { changes: 3, ..limits() };
    let bench = bench_with(&[], Leader::Hangs, few);
    let _in_flight = bench.pump.propose(change(0));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let _queued: Vec<_> = (1..4).map(|number| bench.pump.propose(change(number))).collect();
    assert_eq!(bench.pump.propose(change(4)).await, Err(ProposeError::Overloaded));
    assert_eq!(bench.pump.propose_quiet(change(4)), Err(ProposeError::Overloaded));

    let put = |len: usize| Change::SessionPut {
        session: SessionId::random(),
        expected: 0,
        salt: 0,
        value: "x".repeat(len).into(),
    };
    let small = PumpLimits { bytes: 1000, ..limits() };
    let bench = bench_with(&[], Leader::Hangs, small);
    assert_eq!(bench.pump.propose(put(1000)).await, Err(ProposeError::Overloaded));

    let large = PumpLimits { bytes: 64 << 20, ..limits() };
    let bench = bench_with(&[], Leader::Commits, large);
    assert_eq!(bench.pump.propose(put(MAX_CHANGE_BYTES)).await, Err(ProposeError::Overloaded));
    assert!(bench.pump.propose(put(MAX_CHANGE_BYTES / 2)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn drain_settles_what_was_taken_and_takes_no_more() {
    let bench = bench(&[Leader::Absent, Leader::Loses], Leader::Commits);
    let receipts: Vec<_> = (0..10).map(|number| bench.pump.propose(change(number))).collect();
    let (_, refused) = tokio::join!(bench.pump.drain(), async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        bench.pump.propose(change(10)).await
    });
    assert_eq!(refused, Err(ProposeError::Draining));
    assert_eq!(bench.world().applied, changes(0..10));
    for receipt in receipts {
        assert_eq!(receipt.await, Ok(Outcome::Applied));
    }
}

#[tokio::test(start_paused = true)]
async fn what_lingers_goes_after_a_while() {
    let bench = bench(&[], Leader::Commits);
    let first = bench.pump.try_propose_lingering(change(0)).unwrap();
    tokio::time::sleep(LINGER / 2).await;
    let second = bench.pump.try_propose_lingering(change(1)).unwrap();
    assert_eq!(bench.world().attempts, 0);
    let start = Instant::now();
    assert_eq!(first.await, Ok(Outcome::Applied));
    assert_eq!(second.await, Ok(Outcome::Applied));
    assert!(Instant::now() - start <= LINGER / 2 + Duration::from_millis(2));
    assert_eq!(bench.world().attempts, 1, "one entry for both");
    assert_eq!(bench.world().applied, changes(0..2));
}

#[tokio::test(start_paused = true)]
async fn what_lingers_goes_with_what_does_not_and_keeps_its_place() {
    let bench = bench(&[], Leader::Commits);
    let first = bench.pump.try_propose_lingering(change(0)).unwrap();
    tokio::task::yield_now().await;
    let start = Instant::now();
    let second = bench.pump.propose(change(1));
    let third = bench.pump.try_propose_lingering(change(2)).unwrap();
    for receipt in [first, second, third] {
        assert_eq!(receipt.await, Ok(Outcome::Applied));
    }
    assert_eq!(Instant::now(), start);
    assert_eq!(bench.world().applied, changes(0..3));
}

#[tokio::test(start_paused = true)]
async fn what_lingers_goes_at_once_if_it_is_hurried_or_the_node_drains() {
    let bench = bench(&[], Leader::Commits);
    let start = Instant::now();
    let hurried = bench.pump.try_propose_lingering(change(0)).unwrap();
    bench.pump.hurry();
    assert_eq!(hurried.await, Ok(Outcome::Applied));
    let drained = bench.pump.try_propose_lingering(change(1)).unwrap();
    bench.pump.drain().await;
    assert_eq!(drained.await, Ok(Outcome::Applied));
    assert_eq!(Instant::now(), start);
    let refused = bench.pump.try_propose_lingering(change(2)).map(drop);
    assert_eq!(refused, Err(ProposeError::Draining));
}

#[tokio::test(start_paused = true)]
async fn socket_that_lingers_is_taken_back_and_nothing_else() {
    let bench = bench(&[], Leader::Commits);
    let [first, second, third] = [SocketId::random(), SocketId::random(), SocketId::random()];
    let receipts =
        [first, second].map(|id| bench.pump.try_propose_lingering(socket_up(id)).unwrap());
    assert!(!bench.pump.withdraw(third), "it was never proposed");
    assert!(bench.pump.withdraw(first));
    assert!(!bench.pump.withdraw(first), "it is not there any more");
    let [taken_back, stays] = receipts;
    assert_eq!(taken_back.await, Err(ProposeError::NoQuorum));
    assert_eq!(stays.await, Ok(Outcome::Applied));
    assert!(!bench.pump.withdraw(second), "it was sent");
    assert_eq!(bench.pump.queued(), (0, 0));
    // The last of a queue, which nothing is sent of then.
    let attempts = bench.world().attempts;
    let _taken_back = bench.pump.try_propose_lingering(socket_up(third)).unwrap();
    assert!(bench.pump.withdraw(third));
    tokio::time::sleep(LINGER * 2).await;
    assert_eq!(bench.world().attempts, attempts);
    bench.pump.drain().await;
}

#[tokio::test(start_paused = true)]
async fn socket_that_does_not_linger_is_not_taken_back() {
    let bench = bench(&[], Leader::Commits);
    let id = SocketId::random();
    let receipt = bench.pump.try_propose_lingering(socket_up(id)).unwrap();
    bench.pump.hurry();
    assert!(!bench.pump.withdraw(id), "it may be on its way");
    assert_eq!(receipt.await, Ok(Outcome::Applied));
}

#[tokio::test(start_paused = true)]
async fn fenced_node_refuses_what_lingers() {
    let bench = bench(&[], Leader::Commits);
    let receipt = bench.pump.try_propose_lingering(change(0)).unwrap();
    bench.pump.fence();
    assert_eq!(receipt.await, Err(ProposeError::NoQuorum));
    bench.pump.open();
    assert_eq!(bench.pump.propose(change(1)).await, Ok(Outcome::Applied));
    assert_eq!(bench.world().applied, changes(1..2));
}

fn socket_up(socket: SocketId) -> Change {
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
