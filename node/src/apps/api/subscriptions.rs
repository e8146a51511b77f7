//! What one socket subscribes to, and the rooms that tell the cluster of it.
//!
//! A subscriber of an event is in the event's room, to which emits go, and in one room for each of
//! its subscriptions, whose name holds all that there is to know of it. So the cluster keeps
//! subscriptions as it keeps rooms, and any node that a client comes back to finds them there.

use std::borrow::Cow;
use std::sync::Arc;

use bytestring::ByteString;
use serde_json::Value;
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::queries::Queries;
use super::query::{Query, QueryError, QueryLimits};

/// What one socket may subscribe to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionLimits {
    /// Subscriptions at a time, duplicates counted.
    pub max_subscriptions: usize,
    /// Of an event's name on the wire.
    pub max_name_bytes: usize,
    /// Of all names and queries of a socket.
    pub max_total_bytes: usize,
    /// Regular expressions in all queries of a socket.
    pub max_regexes: usize,
    pub query: QueryLimits,
}

impl Default for SubscriptionLimits {
    fn default() -> Self {
        Self {
            max_subscriptions: 256,
            max_name_bytes: 256,
            max_total_bytes: 32 * 1024,
            max_regexes: 16,
            query: QueryLimits::default(),
        }
    }
}

/// Why a subscription is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscriptionError {
    #[error("an event's name is a text of 1 to {0} bytes without control characters")]
    Name(usize),
    #[error("more than {0} subscriptions")]
    TooMany(usize),
    #[error("the subscriptions are longer than {0} bytes together")]
    TooLong(usize),
    #[error("the subscriptions have more than {0} regular expressions together")]
    TooManyRegexes(usize),
    #[error(transparent)]
    Query(#[from] QueryError),
}

/// Begins the names of all rooms of this dialect.
pub(super) const ROOM_PREFIX: &str = "api:";

/// Ends the event's name in the room of a subscription; no event has it in its name.
const SEPARATOR: char = '\n';

/// The room of all subscribers of an event, by its full name (`myApi.event3`).
pub(super) fn event_room(event: &str) -> ByteString {
    format!("{ROOM_PREFIX}{event}").into()
}

/// The event whose room this is, or is a part of.
pub(super) fn event_of(room: &str) -> Option<&str> {
    let event = room.strip_prefix(ROOM_PREFIX)?;
    Some(event.split_once(SEPARATOR).map_or(event, |(event, _)| event))
}

/// One subscription of a client to an event, by the name that it has on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) event: String,
    /// With its `#`; empty if there is none.
    pub(super) suffix: String,
    /// JSON.
    pub(super) query: Option<String>,
}

impl Subscription {
    /// The event is what stands before the last `#`. Without one the query is ignored, and a query
    /// that is no true value is none: both as in api.io.
    fn parse(
        name: &str,
        query: &Value,
        limits: &SubscriptionLimits,
        queries: &Queries,
    ) -> Result<(Self, Option<Arc<Query>>), SubscriptionError> {
        let is_name = (1..=limits.max_name_bytes).contains(&name.len());
        if !is_name || name.contains(char::is_control) {
            return Err(SubscriptionError::Name(limits.max_name_bytes));
        }
        let (event, suffix) = name.split_at(name.rfind('#').unwrap_or(name.len()));
        let is_query = match query {
            Value::Null => false,
            Value::Bool(bool) => *bool,
            Value::Number(number) => number.as_f64() != Some(0.0),
            Value::String(text) => !text.is_empty(),
            Value::Array(_) | Value::Object(_) => true,
        };
        let (text, query) = if is_query && !suffix.is_empty() {
            let (text, query) = queries.of(query)?;
            (Some(text), Some(query))
        } else {
            (None, None)
        };
        Ok((Self { event: event.to_owned(), suffix: suffix.to_owned(), query: text }, query))
    }

    fn is_named(&self, name: &str) -> bool {
        name.strip_prefix(&*self.event) == Some(&*self.suffix)
    }

    fn bytes(&self) -> usize {
        self.event.len() + self.suffix.len() + self.query.as_ref().map_or(0, String::len)
    }

    /// The room of those that have this subscription at least `times` times.
    fn room(&self, times: usize) -> ByteString {
        let suffix = Value::from(&*self.suffix);
        let query = self.query.as_deref();
        let json = match (times, query) {
            (1, None) => format!("[{suffix}]"),
            (1, Some(query)) => format!("[{suffix},{query}]"),
            (times, query) => format!("[{suffix},{},{times}]", query.unwrap_or("null")),
        };
        format!("{ROOM_PREFIX}{}{SEPARATOR}{json}", self.event).into()
    }

    /// The subscription whose room this is, and how often its members have it at least.
    pub(super) fn of_room(room: &str) -> Option<(Self, usize)> {
        let (event, json) = room.strip_prefix(ROOM_PREFIX)?.split_once(SEPARATOR)?;
        let parts: Vec<&RawValue> = serde_json::from_str(json).ok()?;
        let suffix: Cow<'_, str> = serde_json::from_str(parts.first()?.get()).ok()?;
        let query = parts.get(1).map(|query| query.get()).filter(|query| *query != "null");
        let times = parts.get(2).map_or(Some(1), |times| times.get().parse().ok())?;
        let (event, suffix) = (event.to_owned(), suffix.into_owned());
        Some((Self { event, suffix, query: query.map(str::to_owned) }, times))
    }
}

/// The subscriptions of one socket, in their order.
#[derive(Debug, Default)]
pub(super) struct Subscriptions(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    subscription: Subscription,
    times: usize,
    /// Here it stays compiled while the socket subscribes.
    query: Option<Arc<Query>>,
}

impl Entry {
    fn regexes(&self) -> usize {
        self.query.as_ref().map_or(0, |query| query.regexes())
    }
}

pub(super) type Rooms = SmallVec<[ByteString; 2]>;

/// What a socket leaves and joins because a subscription of its could not be agreed.
#[derive(Debug, Default)]
pub(super) struct Undone {
    pub(super) leave: Rooms,
    pub(super) join: Rooms,
}

impl Subscriptions {
    /// Those of a socket that came back, by its rooms.
    pub(super) fn restore<'a>(rooms: impl Iterator<Item = &'a str>, queries: &Queries) -> Self {
        let mut restored = Self::default();
        for (subscription, times) in rooms.filter_map(Subscription::of_room) {
            match restored.find(&subscription) {
                Some(entry) => entry.times = entry.times.max(times),
                None => {
                    let query =
                        subscription.query.as_deref().and_then(|text| queries.of_text(text));
                    restored.0.push(Entry { subscription, times, query });
                }
            }
        }
        restored
    }

    /// Adds a subscription, as a client asks for it. The rooms that its socket joins.
    pub(super) fn subscribe(
        &mut self,
        name: &str,
        query: &Value,
        limits: &SubscriptionLimits,
        queries: &Queries,
    ) -> Result<Rooms, SubscriptionError> {
        let (subscription, query) = Subscription::parse(name, query, limits, queries)?;
        if self.0.iter().map(|entry| entry.times).sum::<usize>() >= limits.max_subscriptions {
            return Err(SubscriptionError::TooMany(limits.max_subscriptions));
        }
        let bytes = self.0.iter().map(|entry| entry.subscription.bytes()).sum::<usize>();
        if bytes + subscription.bytes() > limits.max_total_bytes {
            return Err(SubscriptionError::TooLong(limits.max_total_bytes));
        }
        if let Some(entry) = self.find(&subscription) {
            entry.times += 1;
            return Ok([subscription.room(entry.times)].into_iter().collect());
        }
        let rooms = [event_room(&subscription.event), subscription.room(1)];
        let entry = Entry { subscription, times: 1, query };
        let regexes = self.0.iter().map(Entry::regexes).sum::<usize>() + entry.regexes();
        if regexes > limits.max_regexes {
            return Err(SubscriptionError::TooManyRegexes(limits.max_regexes));
        }
        self.0.push(entry);
        Ok(rooms.into_iter().collect())
    }

    /// Takes the first subscription of that name away, once. The rooms that its socket leaves: none,
    /// if there is no such subscription.
    pub(super) fn unsubscribe(&mut self, name: &str) -> Rooms {
        match self.0.iter().position(|entry| entry.subscription.is_named(name)) {
            Some(at) => self.take(at),
            None => Rooms::new(),
        }
    }

    /// Takes back a subscription by the rooms that [`subscribe`](Self::subscribe) gave for it.
    pub(super) fn undo(&mut self, rooms: &[ByteString]) -> Undone {
        let failed = rooms.last().and_then(|room| Subscription::of_room(room));
        let Some((subscription, times)) = failed else { return Undone::default() };
        let at = self.0.iter().position(|entry| entry.subscription == subscription);
        // The client may have taken it back itself meanwhile.
        let Some(at) = at.filter(|at| times <= self.0[*at].times) else {
            return Undone::default();
        };
        // One that came later and was agreed counts in its place.
        let join = if times < self.0[at].times { Rooms::from(rooms) } else { Rooms::new() };
        Undone { leave: self.take(at), join }
    }

    /// Takes one of these subscriptions away. The rooms that its socket leaves.
    fn take(&mut self, at: usize) -> Rooms {
        let entry = &mut self.0[at];
        let mut rooms = Rooms::new();
        rooms.push(entry.subscription.room(entry.times));
        entry.times -= 1;
        if entry.times == 0 {
            let Entry { subscription, .. } = self.0.remove(at);
            if !self.0.iter().any(|entry| entry.subscription.event == subscription.event) {
                rooms.push(event_room(&subscription.event));
            }
        }
        rooms
    }

    fn find(&mut self, subscription: &Subscription) -> Option<&mut Entry> {
        self.0.iter_mut().find(|entry| entry.subscription == *subscription)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn subscribe(of: &mut Subscriptions, name: &str, query: Value) -> Vec<String> {
        let limits = SubscriptionLimits::default();
        let rooms = of.subscribe(name, &query, &limits, &Queries::default()).unwrap();
        rooms.iter().map(ToString::to_string).collect()
    }

    fn unsubscribe(of: &mut Subscriptions, name: &str) -> Vec<String> {
        of.unsubscribe(name).iter().map(ToString::to_string).collect()
    }

    fn refused(of: &mut Subscriptions, name: &str, query: Value) -> String {
        let limits = SubscriptionLimits { max_subscriptions: 3, ..SubscriptionLimits::default() };
        of.subscribe(name, &query, &limits, &Queries::default()).unwrap_err().to_string()
    }

    #[test]
    fn subscriber_is_in_the_events_room_and_in_its_own() {
        let mut all = Subscriptions::default();
        let rooms = subscribe(&mut all, "myApi.event3#1", json!({"$gte": 4}));
        assert_eq!(rooms, ["api:myApi.event3", "api:myApi.event3\n[\"#1\",{\"$gte\":4}]"]);
        let rooms = subscribe(&mut all, "myApi.event3", json!(false));
        assert_eq!(rooms, ["api:myApi.event3", "api:myApi.event3\n[\"\"]"]);
        let left = unsubscribe(&mut all, "myApi.event3#1");
        assert_eq!(left, ["api:myApi.event3\n[\"#1\",{\"$gte\":4}]"]);
        let left = unsubscribe(&mut all, "myApi.event3");
        assert_eq!(left, ["api:myApi.event3\n[\"\"]", "api:myApi.event3"]);
        assert_eq!(unsubscribe(&mut all, "myApi.event3"), [""; 0]);
    }

    #[test]
    fn query_counts_with_an_id_and_if_it_is_one() {
        let query_of = |name, query| {
            let limits = SubscriptionLimits::default();
            Subscription::parse(name, &query, &limits, &Queries::default()).unwrap().0.query
        };
        for none in [json!(false), json!(null), json!(0), json!("")] {
            assert_eq!(query_of("a.b#1", none), None);
        }
        assert_eq!(query_of("a.b", json!({"$where": "ignored"})), None);
        assert_eq!(query_of("a.b#1", json!(5)).as_deref(), Some("5"));
        assert_eq!(query_of("a.b#1", json!({})).as_deref(), Some("{}"));
    }

    #[test]
    fn last_hash_begins_the_id() {
        let limits = SubscriptionLimits::default();
        let (parsed, _) =
            Subscription::parse("a.b#c#1", &Value::Null, &limits, &Queries::default()).unwrap();
        assert_eq!((&*parsed.event, &*parsed.suffix), ("a.b#c", "#1"));
        assert!(parsed.is_named("a.b#c#1") && !parsed.is_named("a.b#c"));
    }

    #[test]
    fn second_subscription_of_the_same_name_and_query_is_counted() {
        let mut all = Subscriptions::default();
        subscribe(&mut all, "a.b", json!(false));
        assert_eq!(subscribe(&mut all, "a.b", json!(false)), ["api:a.b\n[\"\",null,2]"]);
        assert_eq!(unsubscribe(&mut all, "a.b"), ["api:a.b\n[\"\",null,2]"]);
        assert_eq!(unsubscribe(&mut all, "a.b"), ["api:a.b\n[\"\"]", "api:a.b"]);
    }

    #[test]
    fn subscription_that_failed_is_undone_and_no_other_of_its_name() {
        let limits = SubscriptionLimits::default();
        let mut all = Subscriptions::default();
        let mut subscribe =
            |query: Value| all.subscribe("a.b#1", &query, &limits, &Queries::default()).unwrap();
        subscribe(json!({"x": 1}));
        let failed = subscribe(json!({"x": 2}));
        let later = [subscribe(json!({"x": 3})), subscribe(json!({"x": 3}))];
        let undone = all.undo(&failed);
        assert_eq!(undone.leave.to_vec(), ["api:a.b\n[\"#1\",{\"x\":2}]"]);
        assert_eq!(undone.join.to_vec(), [""; 0]);
        // Of two that are the same, one is left, and its socket is in the first one's room.
        let undone = all.undo(&later[0]);
        assert_eq!(undone.leave.to_vec(), ["api:a.b\n[\"#1\",{\"x\":3},2]"]);
        assert_eq!(undone.join.to_vec(), later[0].to_vec());
        assert!(all.undo(&failed).leave.is_empty(), "it is gone");
        assert_eq!(unsubscribe(&mut all, "a.b#1"), ["api:a.b\n[\"#1\",{\"x\":1}]"]);
        let left = unsubscribe(&mut all, "a.b#1");
        assert_eq!(left, ["api:a.b\n[\"#1\",{\"x\":3}]", "api:a.b"]);
    }

    #[test]
    fn subscriptions_come_back_from_their_rooms() {
        let mut all = Subscriptions::default();
        let mut rooms = vec!["SOCKET".to_owned(), "other".to_owned()];
        for (name, query) in [
            ("a.b#1", json!({"x": "\n\"é\""})),
            ("a.b#1", json!({"x": "\n\"é\""})),
            ("a.b", json!(false)),
            ("a.c#\"", json!(null)),
        ] {
            rooms.extend(subscribe(&mut all, name, query));
        }
        let queries = Queries::default();
        let mut restored = Subscriptions::restore(rooms.iter().map(|room| &**room), &queries);
        for name in ["a.b#1", "a.b#1", "a.c#\"", "a.b", "a.b"] {
            assert_eq!(unsubscribe(&mut restored, name), unsubscribe(&mut all, name), "{name}");
        }
    }

    #[test]
    fn rooms_of_others_are_no_subscriptions() {
        for room in
            ["a.b", "api:a.b", "api:a.b\n", "api:a.b\n[1]", "api:a.b\n{}", "api:a.b\n[\"\",1,-1]"]
        {
            assert_eq!(Subscription::of_room(room), None, "{room}");
        }
        assert_eq!(event_of("api:a.b"), Some("a.b"));
        assert_eq!(event_of("api:a.b\n[\"\"]"), Some("a.b"));
        assert_eq!(event_of("a.b"), None);
    }

    #[test]
    fn what_a_socket_subscribes_to_is_bounded() {
        let mut all = Subscriptions::default();
        for bad in ["", "a\nb", &"x".repeat(257)] {
            assert!(refused(&mut all, bad, json!(null)).starts_with("an event's name is a text"));
        }
        assert_eq!(
            refused(&mut all, "a.b#1", json!({"$where": "1"})),
            "operator $where is not supported"
        );
        let regexes = json!({"$or": vec![json!({"$regex": "a"}); 8]});
        subscribe(&mut all, "a.b#1", regexes.clone());
        subscribe(&mut all, "a.b#2", regexes.clone());
        assert_eq!(
            refused(&mut all, "a.b#3", regexes),
            "the subscriptions have more than 16 regular expressions together"
        );
        subscribe(&mut all, "a.b", json!(false));
        assert_eq!(refused(&mut all, "a.b", json!(false)), "more than 3 subscriptions");
        let mut all = Subscriptions::default();
        let long = json!({"a": "x".repeat(2000)});
        for id in 0..16 {
            subscribe(&mut all, &format!("a.b#{id}"), long.clone());
        }
        let limits = SubscriptionLimits::default();
        assert_eq!(
            all.subscribe("a.b#16", &long, &limits, &Queries::default()).unwrap_err(),
            SubscriptionError::TooLong(32 * 1024)
        );
    }
}
