//! What each receiver has had from each sender: losses, duplicates and disorder, exactly.

use std::collections::HashSet;

/// What became of one arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    InOrder,
    /// It comes after a message that its sender wrote later.
    Misordered,
    /// It was there before.
    Doubled,
}

/// One receiver's view of one sender, whose messages count from zero.
#[derive(Debug, Default, Clone)]
pub(super) struct Track {
    next: u64,
    missing: Vec<u64>,
}

impl Track {
    pub(super) fn arrive(&mut self, number: u64) -> Arrival {
        if number >= self.next {
            self.missing.extend(self.next..number);
            self.next = number + 1;
            return Arrival::InOrder;
        }
        match self.missing.iter().position(|missing| *missing == number) {
            Some(place) => {
                self.missing.swap_remove(place);
                Arrival::Misordered
            }
            None => Arrival::Doubled,
        }
    }
}

/// The order in which a group of receivers is to see all messages of all senders.
///
/// It is a linked list that grows by what the receivers see: what is new to all comes directly
/// after what its first receiver saw before.
#[derive(Debug)]
pub(super) struct CommonOrder {
    // The first stands for the beginning and is no message.
    entries: Vec<Entry>,
    known: HashSet<u64>,
}

#[derive(Debug)]
struct Entry {
    message: u64,
    next: Option<usize>,
}

/// How far one receiver has come in the common order.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Place(usize);

/// How far ahead a message is searched when it is not the next one.
const SEARCH: usize = 10_000;

impl CommonOrder {
    pub(super) fn new() -> Self {
        let beginning = Entry { message: u64::MAX, next: None };
        Self { entries: vec![beginning], known: HashSet::new() }
    }

    /// Takes the arrival of `message` at a receiver, and says whether it fits: whether it lies
    /// ahead of all that was seen there before. A gap fits: it is a loss, counted elsewhere.
    pub(super) fn fits(&mut self, place: &mut Place, message: u64) -> bool {
        let next = self.entries[place.0].next;
        if let Some(next) = next.filter(|next| self.entries[*next].message == message) {
            place.0 = next;
            return true;
        }
        if self.known.insert(message) {
            self.entries.push(Entry { message, next });
            let new = self.entries.len() - 1;
            self.entries[place.0].next = Some(new);
            place.0 = new;
            return true;
        }
        let ahead = std::iter::successors(next, |entry| self.entries[*entry].next);
        let found = ahead.take(SEARCH).find(|entry| self.entries[*entry].message == message);
        found.inspect(|entry| place.0 = *entry).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_latecomers_and_doubles_are_told_apart() {
        let mut track = Track::default();
        let arrivals: Vec<Arrival> = [0, 1, 4, 3, 3, 4, 5].map(|n| track.arrive(n)).to_vec();
        use Arrival::{Doubled, InOrder, Misordered};
        let expected = [InOrder, InOrder, InOrder, Misordered, Doubled, Doubled, InOrder];
        assert_eq!(arrivals, expected);
        assert_eq!(track.missing, [2]);
    }

    fn misfits(order: &mut CommonOrder, messages: &[u64]) -> usize {
        let mut place = Place::default();
        messages.iter().filter(|message| !order.fits(&mut place, **message)).count()
    }

    #[test]
    fn equal_sequences_and_gaps_fit_and_each_swap_is_one_misfit() {
        let mut order = CommonOrder::new();
        assert_eq!(misfits(&mut order, &[7, 8, 9, 10]), 0);
        assert_eq!(misfits(&mut order, &[7, 8, 9, 10, 11]), 0);
        assert_eq!(misfits(&mut order, &[8, 10]), 0);
        assert_eq!(misfits(&mut order, &[8, 7, 9, 10, 11]), 1);
        assert_eq!(misfits(&mut order, &[8, 9, 10, 11, 7]), 1);
    }

    #[test]
    fn what_the_first_receiver_lost_is_no_disorder_at_the_others() {
        let mut order = CommonOrder::new();
        assert_eq!(misfits(&mut order, &[1, 3, 4]), 0);
        assert_eq!(misfits(&mut order, &[1, 2, 3, 4]), 0);
        assert_eq!(misfits(&mut order, &[2, 3]), 0);
        assert_eq!(misfits(&mut order, &[1, 3, 2, 4]), 1);
    }
}
