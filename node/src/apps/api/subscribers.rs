//! The subscribers of this node, by event: what each of them gets of an emit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use bytestring::ByteString;
use imbl::OrdMap;
use serde_json::Value;

use super::query::{Query, QueryLimits};
use super::subscriptions::{Subscription, event_of};
use crate::server::{Part, Projector};
use crate::socketio::Payload;

/// Makes of an emit the packets that subscribers get: one for each name on the wire, with the rooms
/// of those subscriptions whose query it matches.
#[derive(Debug)]
pub(super) struct Subscribers {
    events: Mutex<HashMap<String, Group>>,
    /// Queries were checked by these when they came.
    limits: QueryLimits,
}

/// The rooms of one event's subscriptions. Copied whole for each emit, which costs nothing.
type Group = OrdMap<ByteString, Arc<Room>>;

/// A room of subscribers, looked into when something is emitted to it.
#[derive(Debug)]
struct Room {
    name: ByteString,
    subscription: OnceLock<Option<Subscription>>,
    query: OnceLock<Option<Query>>,
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

    fn query(&self, text: &str, limits: &QueryLimits) -> Option<&Query> {
        let parse = || Query::parse(&serde_json::from_str(text).ok()?, limits).ok();
        self.query.get_or_init(parse).as_ref()
    }
}

impl Subscribers {
    pub(super) fn new(limits: QueryLimits) -> Self {
        Self { events: Mutex::default(), limits }
    }

    /// The packets for the subscriptions that `rooms` stand for. Equal queries are asked once.
    fn parts<'a>(
        &self,
        payload: &Payload,
        rooms: impl Iterator<Item = &'a Arc<Room>>,
    ) -> Vec<Part> {
        let data = OnceLock::new();
        let mut answers: HashMap<&str, bool> = HashMap::new();
        let mut parts: HashMap<&str, Part> = HashMap::new();
        for room in rooms {
            let Some(subscription) = room.subscription() else { continue };
            let is_due = subscription.query.as_deref().is_none_or(|text| {
                *answers.entry(text).or_insert_with(|| {
                    let data: &Option<Value> = data.get_or_init(|| first_argument(payload));
                    let query = room.query(text, &self.limits);
                    query.is_some_and(|query| query.matches(data.as_ref()))
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
        group.map(|group| self.parts(payload, group.values())).unwrap_or_default()
    }

    fn project_for(&self, room: &str, payload: &Payload, rooms: &[&str]) -> Vec<Part> {
        let own = rooms.iter().filter(|other| event_of(other) == event_of(room));
        let own: Vec<_> = own.map(|room| Arc::new(Room::new(ByteString::from(*room)))).collect();
        self.parts(payload, own.iter())
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
        let rooms = Subscriptions::default().subscribe(name, &query, &limits).unwrap();
        rooms.last().unwrap().clone()
    }

    fn subscribers(rooms: &[ByteString]) -> Subscribers {
        let subscribers = Subscribers::new(QueryLimits::default());
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

    #[test]
    fn rooms_that_count_or_are_gone_send_nothing() {
        let limits = SubscriptionLimits::default();
        let mut twice = Subscriptions::default();
        let mut rooms = Vec::new();
        for _ in 0..2 {
            rooms.extend(twice.subscribe("a.b", &json!(false), &limits).unwrap());
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
