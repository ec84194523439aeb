//! Who asks, and for what: the names and clients that come up most, lately, in bounded memory.
//!
//! The promise: whatever arrives, each worker remembers at most [`PLACES`] names and as many clients per window; a name
//! with more than a `PLACES`th of all queries is among them, and its count is too high by at most that much. What was
//! asked more than two [`WINDOW`]s ago is forgotten.
//!
//! How it costs next to nothing: of each batch of datagrams one query, picked by chance, stands for all of them. A quiet
//! worker thus counts every query, a busy one 1 of 32. The sketch is the worker's own; whoever reads it copies it, and a
//! worker that finds it being copied leaves its query out.
//!
//! Read first: Metwally, Agrawal, El Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data Streams" (2005),
//! the algorithm Space-Saving.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use ahash::RandomState;

use super::Worker;

/// Names, and clients, that one worker remembers in one window.
pub const PLACES: usize = 256;
/// Time after which a window is closed; it counts until the next one is.
pub const WINDOW: Duration = Duration::from_secs(300);

/// What was asked most, lately.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Top {
    /// QNAMEs in wire form, lower case, most queries first.
    pub names: Vec<Row<Box<[u8]>>>,
    /// Most queries first.
    pub clients: Vec<Row<IpAddr>>,
    /// All queries in the time looked at, those not shown included.
    pub queries: u64,
    /// How far back that goes, at most.
    pub lately: Duration,
}

/// One of the most frequent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Row<K> {
    pub what: K,
    /// Queries, an estimate: the true number is at most this and at least `queries - too_many`.
    pub queries: u64,
    pub too_many: u64,
}

/// What one worker saw.
#[derive(Debug, Default)]
pub struct Sampled(Mutex<Windows>);

#[derive(Clone, Debug, Default)]
struct Windows {
    now: Window,
    before: Window,
}

#[derive(Clone, Debug, Default)]
struct Window {
    begun: Option<Instant>,
    names: Sketch<Box<[u8]>>,
    clients: Sketch<IpAddr>,
    queries: u64,
}

/// Space-Saving: counts for at most [`PLACES`] of what is offered. Who comes and finds no place takes over the place, and
/// the count, of the least frequent.
#[derive(Clone, Debug)]
struct Sketch<K>(HashMap<K, Count, RandomState>);

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    queries: u64,
    /// What was taken over.
    too_many: u64,
}

// === impl Sampled ===

impl Sampled {
    /// Counts a query that stands for `many`. For the thread of this worker only.
    pub fn offer(&self, qname: &[u8], client: IpAddr, many: u64, now: Instant) {
        let mut windows = match self.0.try_lock() {
            Ok(windows) => windows,
            // Every hold leaves a sketch behind, if not the very last query.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        windows.turn(now);
        let window = &mut windows.now;
        window.names.offer(qname, many, || qname.into());
        window.clients.offer(&client, many, || client);
        window.queries += many;
    }

    fn copy(&self, now: Instant) -> Windows {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        windows.turn(now);
        windows.clone()
    }
}

// === impl Windows ===

impl Windows {
    /// Closes what has lasted its time.
    fn turn(&mut self, now: Instant) {
        let age = |window: &Window| window.begun.map_or(WINDOW * 2, |begun| now.saturating_duration_since(begun));
        if age(&self.now) < WINDOW {
            return;
        }
        // After a silence that lasted two windows there is nothing recent.
        self.before = if age(&self.now) < WINDOW * 2 { std::mem::take(&mut self.now) } else { Window::default() };
        self.now = Window { begun: Some(now), ..Window::default() };
    }
}

// === impl Sketch ===

impl<K: Clone + Eq + Hash> Sketch<K> {
    fn offer<Q: Eq + Hash + ?Sized>(&mut self, key: &Q, many: u64, make: impl FnOnce() -> K)
    where
        K: Borrow<Q>,
    {
        if let Some(count) = self.0.get_mut(key) {
            count.queries += many;
            return;
        }
        let mut taken = 0;
        if self.0.len() >= PLACES
            && let Some((least, count)) = self.0.iter().min_by_key(|(_, count)| count.queries)
        {
            taken = count.queries;
            let least = least.clone();
            self.0.remove(least.borrow());
        }
        self.0.insert(make(), Count { queries: taken + many, too_many: taken });
    }
}

impl<K> Default for Sketch<K> {
    fn default() -> Self {
        Self(HashMap::with_hasher(RandomState::new()))
    }
}

// === impl Top ===

impl Top {
    /// The first `limit` names and clients, of all workers together.
    pub fn of(workers: &[std::sync::Arc<Worker>], limit: usize, now: Instant) -> Self {
        let all: Vec<Windows> = workers.iter().map(|worker| worker.top.copy(now)).collect();
        let windows = || all.iter().flat_map(|it| [&it.before, &it.now]);
        let oldest = windows().filter_map(|it| it.begun).min();
        Self {
            names: rows(windows().map(|it| &it.names), limit),
            clients: rows(windows().map(|it| &it.clients), limit),
            queries: windows().map(|it| it.queries).sum(),
            lately: oldest.map_or(Duration::ZERO, |oldest| now.saturating_duration_since(oldest)),
        }
    }
}

fn rows<'a, K: Clone + Eq + Hash + Ord + 'a>(
    sketches: impl Iterator<Item = &'a Sketch<K>>,
    limit: usize,
) -> Vec<Row<K>> {
    let mut sum: HashMap<&K, Count, RandomState> = HashMap::default();
    for (what, count) in sketches.flat_map(|sketch| &sketch.0) {
        let sum = sum.entry(what).or_default();
        sum.queries += count.queries;
        sum.too_many += count.too_many;
    }
    let rows = sum.into_iter().map(|(what, Count { queries, too_many })| Row { what: what.clone(), queries, too_many });
    let mut rows: Vec<Row<K>> = rows.collect();
    rows.sort_by(|one, other| other.queries.cmp(&one.queries).then_with(|| one.what.cmp(&other.what)));
    rows.truncate(limit);
    rows
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn client(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    fn workers() -> Vec<Arc<Worker>> {
        vec![Arc::default(), Arc::default()]
    }

    #[test]
    fn workers_are_added_up_and_the_most_frequent_come_first() {
        let (workers, now) = (workers(), Instant::now());
        workers[0].top.offer(b"\x01a\0", client(1), 2, now);
        workers[1].top.offer(b"\x01a\0", client(2), 32, now);
        workers[1].top.offer(b"\x01b\0", client(1), 1, now);
        let top = Top::of(&workers, 10, now + Duration::from_secs(7));
        let names: Vec<(&[u8], u64)> = top.names.iter().map(|row| (&*row.what, row.queries)).collect();
        assert_eq!(names, [(&b"\x01a\0"[..], 34), (&b"\x01b\0"[..], 1)]);
        let clients: Vec<(IpAddr, u64)> = top.clients.iter().map(|row| (row.what, row.queries)).collect();
        assert_eq!(clients, [(client(2), 32), (client(1), 3)]);
        assert_eq!((top.queries, top.lately), (35, Duration::from_secs(7)));
        assert_eq!(Top::of(&workers, 1, now).names.len(), 1);
    }

    #[test]
    fn what_is_two_windows_old_is_forgotten() {
        let (workers, start) = (workers(), Instant::now());
        workers[0].top.offer(b"\x03old\0", client(1), 100, start);
        workers[0].top.offer(b"\x03new\0", client(1), 1, start + WINDOW);
        assert_eq!(Top::of(&workers, 10, start + WINDOW).names.len(), 2);
        let later = Top::of(&workers, 10, start + WINDOW * 2);
        assert_eq!(later.names.iter().map(|row| &*row.what).collect::<Vec<_>>(), [b"\x03new\0"]);
        assert_eq!(Top::of(&workers, 10, start + WINDOW * 5).queries, 0);
    }

    #[test]
    fn a_flood_of_names_asked_once_hides_nobody_who_asks_a_lot() {
        let (workers, now) = (workers(), Instant::now());
        for number in 0..100_000_u32 {
            let flood = [&[4][..], &number.to_be_bytes(), &[0]].concat();
            workers[0].top.offer(&flood, client(1), 1, now);
            if number % 50 == 0 {
                workers[0].top.offer(b"\x03hot\0", client(2), 1, now);
            }
        }
        let top = Top::of(&workers, PLACES * 4, now);
        assert_eq!(&*top.names[0].what, b"\x03hot\0");
        assert!(top.names.len() <= PLACES, "bounded");
        let row = &top.names[0];
        assert!(row.queries - row.too_many <= 2_000 && row.queries >= 2_000);
    }

    proptest! {
        // The bounds of Space-Saving: nobody is undercounted, overcounting is known and below a PLACESth of all.
        #[test]
        fn counts_are_never_too_low_and_too_high_by_no_more_than_they_say(
            offers in prop::collection::vec((0_u16..600, 1_u64..40), 1..3000)
        ) {
            let mut sketch = Sketch::<u16>::default();
            let mut truth: HashMap<u16, u64> = HashMap::new();
            for (what, many) in &offers {
                sketch.offer(what, *many, || *what);
                *truth.entry(*what).or_default() += many;
            }
            let all: u64 = truth.values().sum();
            prop_assert!(sketch.0.len() <= PLACES);
            for (what, count) in &sketch.0 {
                prop_assert!(count.queries >= truth[what] && count.queries - count.too_many <= truth[what]);
                prop_assert!(count.too_many <= all / PLACES as u64);
            }
            for (what, many) in truth {
                prop_assert!(many <= all / PLACES as u64 || sketch.0.contains_key(&what));
            }
        }
    }
}
