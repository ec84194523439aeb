//! Single flight: one upstream question per key, and everybody who asked the same parked behind it.
//!
//! ```text
//! join ─► Launched(Ticket) ─► the caller asks upstream ─► ticket.land() ─► everybody parked
//!     └─► Parked               └► ticket.lapse(): those with a stale answer go now, the flight flies on
//! ```
//! A [`Ticket`] that is dropped clears its flight; those parked are dropped with it, and their own `Drop` answers.
//!
//! Read first: RFC 5452 section 5 (birthday attacks), RFC 8767 section 5.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::RandomState;

use crate::wire::Key;

/// Questions parked behind one flight, at most.
pub const WAITERS: usize = 1024;

/// Questions parked behind all flights together, at most: some hundred octets each.
pub const PARKED: usize = 16_384;

/// Shards of the table; a lock is held for one map operation.
const SHARDS: usize = 64;

/// All flights of the agent. `W` is what it takes to answer later.
pub struct Flights<W> {
    shards: Box<[Mutex<Shard<W>>]>,
    hasher: RandomState,
    count: AtomicUsize,
    parked: AtomicUsize,
}

type Shard<W> = HashMap<Key, Flight<W>, RandomState>;

struct Flight<W> {
    parked: Vec<W>,
    /// Those who had a stale answer have got it; whoever comes now need not wait.
    lapsed: bool,
}

/// What became of a question that wanted to fly.
#[must_use]
#[expect(
    clippy::large_enum_variant,
    reason = "moved once, straight into the flight; a box would be one more allocation a miss"
)]
pub enum Join<W> {
    /// Too many wait for this answer already.
    Full(W),
    /// The caller asks upstream and lands the ticket.
    Launched(Ticket<W>),
    /// Parked behind a flight under way.
    Parked,
    /// A flight is under way but takes too long; a stale answer is due now.
    Lapsed(W),
}

/// The duty to end a flight.
#[must_use = "a flight that nobody lands leaves everybody waiting"]
pub struct Ticket<W> {
    flights: Arc<Flights<W>>,
    key: Key,
    landed: bool,
}

impl<W> Default for Flights<W> {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(HashMap::with_hasher(RandomState::new()))).collect(),
            hasher: RandomState::new(),
            count: AtomicUsize::new(0),
            parked: AtomicUsize::new(0),
        }
    }
}

impl<W> Flights<W> {
    /// Parks `waiter` behind the flight for `key`, or launches one.
    ///
    /// `has_stale`: the waiter has a stale answer at hand and comes back at once if the flight has lapsed.
    pub fn join(self: &Arc<Self>, key: &Key, waiter: W, stale: Stale) -> Join<W> {
        let mut shard = self.shard(key);
        match shard.get_mut(key) {
            Some(flight) if flight.lapsed && stale == Stale::AtHand => Join::Lapsed(waiter),
            Some(flight) if flight.parked.len() >= WAITERS => Join::Full(waiter),
            _ if self.parked.load(Ordering::Relaxed) >= PARKED => Join::Full(waiter),
            Some(flight) => {
                self.parked.fetch_add(1, Ordering::Relaxed);
                flight.parked.push(waiter);
                Join::Parked
            }
            None => {
                self.parked.fetch_add(1, Ordering::Relaxed);
                shard.insert(key.clone(), Flight { parked: vec![waiter], lapsed: false });
                Join::Launched(self.ticket(key))
            }
        }
    }

    /// Launches a flight that nobody waits for, unless one is under way.
    ///
    /// `lapse`: whether a stale answer is due at once to whoever comes meanwhile.
    pub fn refresh(self: &Arc<Self>, key: &Key, lapse: Lapse) -> Option<Ticket<W>> {
        let mut shard = self.shard(key);
        if shard.contains_key(key) {
            return None;
        }
        shard.insert(key.clone(), Flight { parked: Vec::new(), lapsed: lapse == Lapse::Passed });
        Some(self.ticket(key))
    }

    /// Whether a flight for `key` is under way, and whether it has lapsed.
    pub fn under_way(&self, key: &Key) -> Option<Lapse> {
        self.shard(key).get(key).map(|flight| if flight.lapsed { Lapse::Passed } else { Lapse::Ahead })
    }

    /// Flights under way.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn leave(&self, parked: Vec<W>) -> Vec<W> {
        self.parked.fetch_sub(parked.len(), Ordering::Relaxed);
        parked
    }

    fn ticket(self: &Arc<Self>, key: &Key) -> Ticket<W> {
        self.count.fetch_add(1, Ordering::Relaxed);
        Ticket { flights: Arc::clone(self), key: key.clone(), landed: false }
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard<W>> {
        let index = self.hasher.hash_one(key) as usize % SHARDS;
        // A panic elsewhere cannot leave a map half changed: every hold is one operation.
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a waiter has a stale answer to fall back on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stale {
    AtHand,
    None,
}

/// Whether the moment at which stale answers are due has passed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lapse {
    Ahead,
    Passed,
}

impl<W> Ticket<W> {
    /// The question in flight.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Takes everybody parked so far to whom a stale answer is due; the flight goes on.
    pub fn lapse(&self, is_due: impl FnMut(&W) -> bool) -> Vec<W> {
        let mut shard = self.flights.shard(&self.key);
        shard.get_mut(&self.key).map_or_else(Vec::new, |flight| {
            flight.lapsed = true;
            let (due, stay) = std::mem::take(&mut flight.parked).into_iter().partition(is_due);
            flight.parked = stay;
            self.flights.leave(due)
        })
    }

    /// Ends the flight and gives everybody still parked.
    pub fn land(mut self) -> Vec<W> {
        self.landed = true;
        self.clear()
    }

    fn clear(&self) -> Vec<W> {
        let flight = self.flights.shard(&self.key).remove(&self.key);
        self.flights.count.fetch_sub(1, Ordering::Relaxed);
        self.flights.leave(flight.map_or_else(Vec::new, |flight| flight.parked))
    }
}

impl<W> Drop for Ticket<W> {
    fn drop(&mut self) {
        if !self.landed {
            // Outside the lock: dropping those parked makes them answer.
            drop(self.clear());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Name, Type};

    fn key(name: &str) -> Key {
        let name: Name = name.parse().expect("a test's name is legal");
        Key::new(name.as_wire(), Type::A, false, false).expect("a legal name makes a key")
    }

    fn launch(flights: &Arc<Flights<u32>>, key: &Key, waiter: u32) -> Ticket<u32> {
        match flights.join(key, waiter, Stale::None) {
            Join::Launched(ticket) => ticket,
            _ => panic!("nothing is in flight yet"),
        }
    }

    // Q01: the first asks, the others wait for the same answer.
    #[test]
    fn the_second_asker_parks_behind_the_first() {
        let flights = Arc::new(Flights::default());
        let ticket = launch(&flights, &key("a.test"), 1);
        assert!(matches!(flights.join(&key("a.test"), 2, Stale::None), Join::Parked));
        assert_eq!(flights.len(), 1);
        assert_eq!(ticket.land(), [1, 2]);
        assert!(flights.is_empty());
    }

    // Q03: another key is another flight.
    #[test]
    fn different_keys_never_share_a_flight() {
        let flights = Arc::new(Flights::default());
        let _one = launch(&flights, &key("a.test"), 1);
        let _other = launch(&flights, &key("a.test").with_type(Type::AAAA), 2);
        assert_eq!(flights.len(), 2);
    }

    // Q04: what is parked is bounded.
    #[test]
    fn askers_beyond_the_bound_are_given_back() {
        let flights = Arc::new(Flights::default());
        let ticket = launch(&flights, &key("a.test"), 0);
        for waiter in 1..WAITERS as u32 {
            assert!(matches!(flights.join(&key("a.test"), waiter, Stale::None), Join::Parked));
        }
        assert!(matches!(flights.join(&key("a.test"), 7, Stale::None), Join::Full(7)));
        assert_eq!(ticket.land().len(), WAITERS);
    }

    #[test]
    fn a_lapsed_flight_sends_back_only_those_with_a_stale_answer() {
        let flights = Arc::new(Flights::default());
        let ticket = launch(&flights, &key("a.test"), 1);
        assert_eq!(ticket.lapse(|_| true), [1]);
        assert!(matches!(flights.join(&key("a.test"), 2, Stale::AtHand), Join::Lapsed(2)));
        assert!(matches!(flights.join(&key("a.test"), 3, Stale::None), Join::Parked));
        assert_eq!(ticket.land(), [3]);
    }

    // Q10: whatever ends a flight, nothing is left behind.
    #[test]
    fn a_dropped_ticket_clears_its_flight_and_drops_the_parked() {
        let flights = Arc::new(Flights::default());
        let token = Arc::new(());
        match flights.join(&key("a.test"), Arc::clone(&token), Stale::None) {
            Join::Launched(ticket) => drop(ticket),
            _ => panic!("nothing is in flight yet"),
        }
        assert!(flights.is_empty());
        assert_eq!(Arc::strong_count(&token), 1);
    }

    #[test]
    fn a_million_flights_leave_the_table_empty() {
        let flights = Arc::new(Flights::default());
        let key = key("a.test");
        for waiter in 0..1_000_000 {
            assert_eq!(launch(&flights, &key, waiter).land(), [waiter]);
        }
        assert!(flights.is_empty());
    }
}
