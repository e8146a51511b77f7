//! A history, sorted by who and what it is about.

use std::collections::BTreeMap;

use crate::sim::history::{Aim, Alteration, Answer, At, ClientId, Event, Label};

/// A place in the history: what comes before is smaller.
pub(super) type Place = usize;

#[derive(Debug, Default)]
pub(super) struct Story {
    pub(super) clients: BTreeMap<ClientId, Life>,
    pub(super) packets: BTreeMap<Label, Packet>,
}

#[derive(Debug)]
pub(super) struct Life {
    pub(super) id: ClientId,
    pub(super) machine: usize,
    pub(super) namespace: &'static str,
    pub(super) connected: Option<Place>,
    pub(super) ended: Option<Place>,
    pub(super) heard: Vec<(Place, Label)>,
    alterations: Vec<Altered>,
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
        for (place, At { event, .. }) in events.iter().enumerate() {
            story.tell(place, event);
        }
        story
    }

    fn tell(&mut self, place: Place, event: &Event) {
        match *event {
            Event::Started { client, machine, namespace } => {
                self.clients.insert(client, Life::new(client, machine, namespace));
            }
            Event::Connected { client } => self.life(client).connected = Some(place),
            Event::Ended { client } => self.life(client).ended = Some(place),
            Event::Emitting { label, aim } => {
                self.packets.insert(label, Packet { aim, emitted: place, answered: None });
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
            Event::Fault(_) | Event::Healed(_) => {}
        }
    }

    fn life(&mut self, client: ClientId) -> &mut Life {
        self.clients.get_mut(&client).expect("a client starts before it does anything")
    }

    /// The namespace in which a packet was emitted.
    pub(super) fn namespace(&self, label: Label) -> Option<&'static str> {
        self.clients.get(&label.0).map(|life| life.namespace)
    }
}

impl Life {
    fn new(id: ClientId, machine: usize, namespace: &'static str) -> Self {
        Self {
            id,
            machine,
            namespace,
            connected: None,
            ended: None,
            heard: Vec::new(),
            alterations: Vec::new(),
        }
    }

    pub(super) fn was_connected_before(&self, place: Place) -> bool {
        self.connected.is_some_and(|connected| connected < place)
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
