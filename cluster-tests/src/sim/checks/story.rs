//! A history, sorted by who and what it is about.

use std::collections::BTreeMap;

use crate::sim::history::{Aim, Alteration, Answer, At, ClientId, Event, Label};

/// A place in the history: what comes before is smaller.
pub(super) type Place = usize;

#[derive(Debug, Default)]
pub(super) struct Story {
    pub(super) clients: BTreeMap<ClientId, Life>,
    pub(super) packets: BTreeMap<Label, Packet>,
    /// When machines found themselves without their leases.
    fences: Vec<(Place, usize)>,
}

#[derive(Debug)]
pub(super) struct Life {
    pub(super) id: ClientId,
    pub(super) namespace: &'static str,
    pub(super) started: Place,
    pub(super) started_ms: u64,
    pub(super) ended: Option<Place>,
    /// When it was told that it does not get its socket back.
    pub(super) refused: Option<Refusal>,
    /// It was given what is not its own.
    pub(super) is_mistaken: bool,
    /// By all of its connections.
    pub(super) heard: Vec<(Place, Label)>,
    /// What was sent to it live by connections that it had lost; once for each of them.
    pub(super) wasted: Vec<Label>,
    /// One after the other; at least one.
    connections: Vec<Connection>,
    alterations: Vec<Altered>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    pub(super) at: Place,
    pub(super) ms: u64,
}

#[derive(Debug)]
struct Connection {
    machine: usize,
    begun: Place,
    connected: Option<Place>,
    /// When the client lost it or ended itself.
    ended: Option<Place>,
}

#[derive(Debug)]
struct Altered {
    alteration: Alteration,
    begun: Place,
    done: Option<(Place, Answer)>,
}

#[derive(Debug)]
pub(super) struct Packet {
    pub(super) aim: Aim,
    pub(super) emitted: Place,
    pub(super) emitted_ms: u64,
    /// Where its emitter was, and how often he had come back.
    pub(super) machine: usize,
    pub(super) visit: usize,
    /// The end of a process may leave it open.
    pub(super) answered: Option<(Place, Answer)>,
}

impl Packet {
    /// When it was agreed on at the latest, if that is known.
    fn agreed_by(&self) -> Place {
        match self.answered {
            Some((place, Answer::Agreed)) => place,
            Some(_) | None => Place::MAX,
        }
    }
}

impl Story {
    pub(super) fn of(events: &[At]) -> Self {
        let mut story = Self::default();
        for (place, at) in events.iter().enumerate() {
            story.tell(place, at);
        }
        story
    }

    fn tell(&mut self, place: Place, At { ms, event }: &At) {
        let ms = *ms;
        match *event {
            Event::Started { client, machine, namespace } => {
                let connections = vec![Connection::new(machine, place)];
                let life = Life { started_ms: ms, ..Life::new(client, namespace, connections) };
                self.clients.insert(client, life);
            }
            Event::Connected { client } => self.life(client).connection().connected = Some(place),
            Event::Away { client } => self.life(client).connection().ended = Some(place),
            Event::Returning { client, machine } => {
                self.life(client).connections.push(Connection::new(machine, place));
            }
            Event::Refused { client } => {
                self.life(client).refused = Some(Refusal { at: place, ms });
            }
            Event::Mistaken { client } => self.life(client).is_mistaken = true,
            Event::Wasted { client, label, .. } => self.life(client).wasted.push(label),
            Event::Ended { client } => {
                let life = self.life(client);
                life.ended = Some(place);
                life.connection().ended.get_or_insert(place);
            }
            Event::Emitting { label, aim } => {
                let emitter = self.life(label.0);
                let (machine, visit) = (emitter.connection().machine, emitter.connections.len());
                let packet =
                    Packet { aim, emitted: place, emitted_ms: ms, machine, visit, answered: None };
                self.packets.insert(label, packet);
            }
            Event::Emitted { label, answer } => {
                let packet = self.packets.get_mut(&label).expect("it was emitted before");
                packet.answered = Some((place, answer));
            }
            Event::Heard { client, label } => self.life(client).heard.push((place, label)),
            Event::Altering { client, alteration } => {
                let altered = Altered { alteration, begun: place, done: None };
                self.life(client).alterations.push(altered);
            }
            Event::Altered { client, answer, .. } => {
                let last = self.life(client).alterations.last_mut();
                last.expect("it was begun before").done = Some((place, answer));
            }
            Event::Fenced { machine } => self.fences.push((place, machine)),
            Event::Fault(_) | Event::Healed(_) => {}
        }
    }

    fn life(&mut self, client: ClientId) -> &mut Life {
        self.clients.get_mut(&client).expect("a client starts before it does anything")
    }

    /// Whether a machine held its lease from one place to another.
    pub(super) fn held_lease(&self, machine: usize, from: Place, to: Place) -> bool {
        !self.fences.iter().any(|(place, fenced)| *fenced == machine && (from..to).contains(place))
    }

    /// The namespace in which a packet was emitted.
    pub(super) fn namespace(&self, label: Label) -> Option<&'static str> {
        self.clients.get(&label.0).map(|life| life.namespace)
    }
}

impl Connection {
    fn new(machine: usize, begun: Place) -> Self {
        Self { machine, begun, connected: None, ended: None }
    }
}

impl Life {
    fn new(id: ClientId, namespace: &'static str, connections: Vec<Connection>) -> Self {
        Self {
            id,
            namespace,
            started: connections[0].begun,
            started_ms: 0,
            ended: None,
            refused: None,
            is_mistaken: false,
            heard: Vec::new(),
            wasted: Vec::new(),
            connections,
            alterations: Vec::new(),
        }
    }

    fn connection(&mut self) -> &mut Connection {
        self.connections.last_mut().expect("a life begins with a connection")
    }

    pub(super) fn was_connected_before(&self, place: Place) -> bool {
        let mut connected = self.connections.iter().filter_map(|one| one.connected);
        connected.next().is_some_and(|connected| connected < place)
    }

    /// Whether it had one connection, to `machine`, from one place to another; since when.
    pub(super) fn stayed_on(&self, machine: usize, from: Place, to: Place) -> Option<Place> {
        let stayed = |one: &&Connection| {
            one.machine == machine
                && one.connected.is_some_and(|connected| connected < from)
                && one.ended.is_none_or(|ended| ended > to)
        };
        self.connections.iter().find(stayed).map(|connection| connection.begun)
    }

    /// Whether what it heard at a place was live: not what it had missed before it came back.
    pub(super) fn is_live(&self, place: Place) -> bool {
        let heard_by = self.connections.iter().rev().find(|one| one.begun < place);
        let connected = heard_by.and_then(|connection| connection.connected);
        connected.is_some_and(|connected| connected < place)
    }

    pub(super) fn heard_at(&self, label: Label) -> Option<Place> {
        self.heard.iter().find(|(_, heard)| *heard == label).map(|(place, _)| *place)
    }

    /// Whether a packet of the client's namespace meant it; None if that is open, because
    /// something changed about the client at the same time, or may have.
    pub(super) fn is_meant(&self, packet: &Packet) -> Option<bool> {
        let mut is_meant = match packet.aim {
            Aim::All => return Some(true),
            Aim::Client(client) => return Some(client == self.id),
            Aim::Room(_) | Aim::Group(_) => Some(false),
        };
        for altered in &self.alterations {
            if altered.begun > packet.agreed_by() {
                break;
            }
            let Some(after) = effect(altered.alteration, packet.aim) else { continue };
            let is_before = altered.done.is_some_and(|(done, _)| done < packet.emitted);
            is_meant = match altered.done {
                Some((_, Answer::Refused)) => is_meant,
                Some((_, Answer::Agreed)) if is_before => Some(after),
                _ if is_meant == Some(after) => is_meant,
                _ => None,
            };
        }
        is_meant
    }
}

/// Whether a client is meant after an alteration; None if that has nothing to do with the aim.
fn effect(alteration: Alteration, aim: Aim) -> Option<bool> {
    match (alteration, aim) {
        (Alteration::Join(joined), Aim::Room(room)) if joined == room => Some(true),
        (Alteration::Leave(left), Aim::Room(room)) if left == room => Some(false),
        (Alteration::Group(now), Aim::Group(group)) => Some(now == group),
        _ => None,
    }
}
