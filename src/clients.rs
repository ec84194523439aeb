//! Clients seen lately: how many questions under way and parked, and connections, each has.
//!
//! A source at its bound is shed, others are not touched. The table is bounded and forgets who stays away; it is
//! consulted on a miss and on a new connection, never on a hit. The unit is the address: on a node every pod has its
//! own, and counting IPv6 by /64 would make all pods of a node one client.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use moka::sync::Cache;

/// Sources remembered at most; more than a node has pods, few enough to be a few MiB.
const MOST: u64 = 16_384;
/// A source that opens nothing for so long is forgotten, and what it has open then counts no more: longer than anybody
/// keeps a connection busy without opening another.
const IDLE: Duration = Duration::from_secs(3600);

/// The table. Clones share it.
#[derive(Clone)]
pub struct Clients {
    table: Cache<IpAddr, Arc<Client>, ahash::RandomState>,
}

/// What one source has open.
#[derive(Debug, Default)]
struct Client {
    in_flight: AtomicUsize,
    connections: AtomicUsize,
    parked: AtomicUsize,
}

/// What is counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Connection,
    InFlight,
    /// A question that waits, behind a flight of whomever.
    Parked,
}

/// A place under a source's bound; given back when dropped.
#[derive(Debug)]
#[must_use = "dropped, the place is free again"]
pub struct Place {
    client: Arc<Client>,
    kind: Kind,
}

impl Default for Clients {
    fn default() -> Self {
        let table = Cache::builder().max_capacity(MOST).time_to_idle(IDLE).build_with_hasher(ahash::RandomState::new());
        Self { table }
    }
}

impl Clients {
    /// A place for one more of `kind` from `source`, or `None` if it has `most` already.
    pub fn take(&self, source: IpAddr, kind: Kind, most: usize) -> Option<Place> {
        // An entry evicted while places are out starts again from zero; the total bounds still hold.
        let client = self.table.get_with(source.to_canonical(), Arc::default);
        let place = Place { client, kind };
        let before = place.counter().fetch_add(1, Ordering::Relaxed);
        // Dropping the place takes the count back.
        (before < most).then_some(place)
    }
}

impl Place {
    fn counter(&self) -> &AtomicUsize {
        match self.kind {
            Kind::Connection => &self.client.connections,
            Kind::InFlight => &self.client.in_flight,
            Kind::Parked => &self.client.parked,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.counter().fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // O03, T10: one source at its bound leaves the others alone, and gets its places back.
    #[test]
    fn a_source_at_its_bound_is_shed_and_recovers() {
        let clients = Clients::default();
        let (noisy, quiet) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let places: Vec<_> = (0..3).map(|_| clients.take(noisy, Kind::InFlight, 3)).collect();
        assert!(places.iter().all(Option::is_some));
        assert!(clients.take(noisy, Kind::InFlight, 3).is_none());
        assert!(clients.take(noisy, Kind::Connection, 3).is_some(), "connections are counted apart");
        assert!(clients.take(quiet, Kind::InFlight, 3).is_some());
        drop(places);
        assert!(clients.take(noisy, Kind::InFlight, 3).is_some());
    }

    #[test]
    fn a_mapped_address_is_the_same_client() {
        let clients = Clients::default();
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().expect("a legal address");
        let _place = clients.take(mapped, Kind::InFlight, 1);
        assert!(clients.take(IpAddr::from([10, 0, 0, 1]), Kind::InFlight, 1).is_none());
    }
}
