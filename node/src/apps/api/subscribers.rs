//! The subscribers of this node, by event: what each of them gets of an emit.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use bytestring::ByteString;
use imbl::OrdMap;
use serde_json::Value;
use tracing::warn;

use super::queries::Queries;
use super::query::{Query, Work};
use super::subscriptions::{Subscription, event_of};
use crate::metrics;
use crate::server::{Part, Projector};
use crate::socketio::Payload;

/// Makes of an emit the packets that subscribers get: one for each name on the wire, with the rooms
/// of those subscriptions whose query it matches.
#[derive(Debug)]
pub(super) struct Subscribers {
    events: Mutex<HashMap<String, Group>>,
    queries: Arc<Queries>,
    /// It was logged that a query took too long.
    has_warned: AtomicBool,
}

/// How much all queries of a node may take of one emit: half a second at worst, in which the
/// namespace delivers nothing else. Beyond it a query has [`LEAST_WORK`] left.
const EMIT_WORK: usize = 1 << 24;

/// The same for one socket that comes back, and each packet that it missed.
const RETURN_WORK: usize = 1 << 20;

/// How much one query may take of one emit.
const QUERY_WORK: usize = 1 << 20;

/// How much it may always take, so that a hostile client's queries do not cost others their small
/// ones.
const LEAST_WORK: usize = 256;

/// The rooms of one event's subscriptions. Copied whole for each emit, which costs nothing.
type Group = OrdMap<ByteString, Arc<Room>>;

/// A room of subscribers, looked into when something is emitted to it.
#[derive(Debug)]
struct Room {
    name: ByteString,
    subscription: OnceLock<Option<Subscription>>,
    query: OnceLock<Option<Arc<Query>>>,
}

impl Room {
    fn new(name: ByteString) -> Self {
        Self { name, subscription: OnceLock::new(), query: OnceLock::new() }
    }

    /// None for a room that only counts a subscription which has another room.
    fn subscription(&self) -> Option<&Subscription> {
        let parse = || Subscription::of_room(&self.name).filter(|(_, times)| *times == 1);
        self.subscription.get_or_init(|| parse().map(|(subscription, _)| subscription)).as_ref()
    }

    fn query(&self, text: &str, queries: &Queries) -> Option<&Query> {
        self.query.get_or_init(|| queries.of_text(text)).as_deref()
    }
}

impl Subscribers {
    pub(super) fn new(queries: Arc<Queries>) -> Self {
        Self { events: Mutex::default(), queries, has_warned: AtomicBool::new(false) }
    }

    /// The packets for the subscriptions that `rooms` stand for. Equal queries are asked once, and
    /// all of them for so much work together.
    fn parts<'a>(
        &self,
        payload: &Payload,
        rooms: impl Iterator<Item = &'a Arc<Room>>,
        mut work: usize,
    ) -> Vec<Part> {
        let data = OnceLock::new();
        let mut answers: HashMap<&str, bool> = HashMap::new();
        let mut parts: HashMap<&str, Part> = HashMap::new();
        for room in rooms {
            let Some(subscription) = room.subscription() else { continue };
            let is_due = subscription.query.as_deref().is_none_or(|text| {
                *answers.entry(text).or_insert_with(|| {
                    let data: &Option<Value> = data.get_or_init(|| first_argument(payload));
                    let query = room.query(text, &self.queries);
                    query.is_some_and(|query| self.ask(query, data.as_ref(), &mut work))
                })
            });
            if is_due {
                let part = parts.entry(&subscription.suffix);
                part.or_insert_with(|| part_of(payload, subscription))
                    .rooms
                    .push(room.name.clone());
            }
        }
        parts.into_values().collect()
    }

    /// Whether a query matches. One for which too little of the `work` is left does not.
    fn ask(&self, query: &Query, data: Option<&Value>, work: &mut usize) -> bool {
        let share = (*work).clamp(LEAST_WORK, QUERY_WORK);
        let own = Work::new(share);
        let is_match = query.matches(data, &own);
        *work = work.saturating_sub(share - own.left());
        if own.left() == 0 {
            metrics::QUERIES_GIVEN_UP.add(1);
            if !self.has_warned.swap(true, Ordering::Relaxed) {
                warn!(share, "a subscriber's query takes too long, and counts as not met");
            }
        }
        is_match
    }

    fn events(&self) -> MutexGuard<'_, HashMap<String, Group>> {
        self.events.lock().expect("nothing panics while it holds the subscribers")
    }
}

impl Projector for Subscribers {
    fn handle_room(&self, room: &ByteString, is_there: bool) {
        let Some(event) = event_of(room) else { return };
        if event.len() + super::subscriptions::ROOM_PREFIX.len() == room.len() {
            // The event's own room.
            return;
        }
        let mut events = self.events();
        if is_there {
            let group = events.entry(event.to_owned()).or_default();
            group.insert(room.clone(), Arc::new(Room::new(room.clone())));
        } else if let Some(group) = events.get_mut(event) {
            group.remove(room);
            if group.is_empty() {
                events.remove(event);
            }
        }
    }

    fn project(&self, room: &str, payload: &Payload) -> Vec<Part> {
        let group = event_of(room).and_then(|event| self.events().get(event).cloned());
        group.map(|group| self.parts(payload, group.values(), EMIT_WORK)).unwrap_or_default()
    }

    fn project_for(&self, room: &str, payload: &Payload, rooms: &[&str]) -> Vec<Part> {
        let own = rooms.iter().filter(|other| event_of(other) == event_of(room));
        let own: Vec<_> = own.map(|room| Arc::new(Room::new(ByteString::from(*room)))).collect();
        self.parts(payload, own.iter(), RETURN_WORK)
    }
}

/// What is emitted; nothing is JavaScript's `undefined`.
fn first_argument(payload: &Payload) -> Option<Value> {
    payload.args().next().and_then(|text| serde_json::from_str(text).ok())
}

/// The packet with the name that subscriptions with this suffix have on the wire.
fn part_of(payload: &Payload, Subscription { event, suffix, .. }: &Subscription) -> Part {
    Part {
        key: crc32fast::hash(suffix.as_bytes()),
        rooms: Default::default(),
        payload: Payload::event(
            &format!("{event}{suffix}"),
            payload.args().text(),
            payload.attachments.clone(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::subscriptions::{SubscriptionLimits, Subscriptions};
    use super::*;
    use crate::socketio::to_payload;
    use serde_json::json;

    fn room(name: &str, query: Value) -> ByteString {
        let limits = SubscriptionLimits::default();
        let queries = Queries::default();
        let rooms = Subscriptions::default().subscribe(name, &query, &limits, &queries).unwrap();
        rooms.last().unwrap().clone()
    }

    fn subscribers(rooms: &[ByteString]) -> Subscribers {
        let subscribers = Subscribers::new(Arc::default());
        for room in rooms {
            subscribers.handle_room(room, true);
        }
        subscribers
    }

    /// What is sent of an emit, and to how many rooms.
    fn sent(mut parts: Vec<Part>) -> Vec<(String, usize)> {
        parts.sort_by_key(|part| part.payload.json.clone());
        parts.iter().map(|part| (part.payload.json.to_string(), part.rooms.len())).collect()
    }

    fn emit(data: Value) -> Payload {
        to_payload(Some("a.b"), &(data,)).unwrap()
    }

    #[test]
    fn each_name_on_the_wire_is_one_packet_for_the_rooms_that_match() {
        let rooms = [
            room("a.b", json!(false)),
            room("a.b#1", json!({"$gte": 4})),
            room("a.b#1", json!({"$lt": 9})),
            room("a.b#2", json!({"$gte": 9})),
            room("a.c", json!(false)),
        ];
        let subscribers = subscribers(&rooms);
        let of = |data| sent(subscribers.project("api:a.b", &emit(data)));
        assert_eq!(
            of(json!(5)),
            [(r#"["a.b",5]"#.to_owned(), 1), (r#"["a.b#1",5]"#.to_owned(), 2)]
        );
        assert_eq!(
            of(json!(9)),
            [(r#"["a.b",9]"#, 1), (r#"["a.b#1",9]"#, 1), (r#"["a.b#2",9]"#, 1)]
                .map(|(json, rooms)| (json.to_owned(), rooms))
        );
    }

    /// Each of the queries takes as long as it may, and more of them come before the good one than
    /// an emit has work for.
    #[test]
    fn hostile_queries_cost_others_no_packet() {
        let slow = json!({"$and": vec![json!({"$gt": []}); 100]});
        let mut rooms = Vec::new();
        for n in 0..20 {
            let mut query = slow.clone();
            query["x"] = json!({"$ne": n});
            rooms.push(room("a.b#0", query));
        }
        rooms.push(room("a.b#1", json!({"$not": {"$size": 2}})));
        let subscribers = subscribers(&rooms);
        let before = metrics::QUERIES_GIVEN_UP.total();
        let nested = (0..100).fold(json!("x".repeat(1 << 20)), |inner, _| json!([inner]));
        let parts = subscribers.project("api:a.b", &emit(nested));
        let names: Vec<_> = parts.iter().map(|part| part.payload.event_name().unwrap()).collect();
        assert_eq!(names, ["a.b#1"]);
        assert_eq!(metrics::QUERIES_GIVEN_UP.total() - before, 20);
    }

    #[test]
    fn rooms_that_count_or_are_gone_send_nothing() {
        let limits = SubscriptionLimits::default();
        let mut twice = Subscriptions::default();
        let mut rooms = Vec::new();
        for _ in 0..2 {
            let queries = Queries::default();
            rooms.extend(twice.subscribe("a.b", &json!(false), &limits, &queries).unwrap());
        }
        let subscribers = subscribers(&rooms);
        let of = || sent(subscribers.project("api:a.b", &emit(json!(1))));
        assert_eq!(of(), [(r#"["a.b",1]"#.to_owned(), 1)]);
        rooms.iter().for_each(|room| subscribers.handle_room(room, false));
        assert_eq!(of(), []);
        assert!(subscribers.events().is_empty());
    }

    #[test]
    fn socket_that_comes_back_gets_what_its_rooms_say() {
        let subscribers = subscribers(&[]);
        let own = [room("a.b#1", json!({"$gte": 4})), room("a.bc", json!(false))];
        let rooms: Vec<&str> = ["api:a.b", &own[0], &own[1]].to_vec();
        let of = |data| sent(subscribers.project_for("api:a.b", &emit(data), &rooms));
        assert_eq!(of(json!(4)), [(r#"["a.b#1",4]"#.to_owned(), 1)]);
        assert_eq!(of(json!(3)), []);
    }
}
