//! What the incumbent's metrics tell apart and ours do not: our address and the zone. One set of cells for each pair.
//!
//! The promise: finding the cells of a query costs an index, never a look-up by name; how many there are depends on the
//! configuration alone, and is bounded. Nothing is counted here while no plan wants the incumbent's names.
//!
//! ```text
//! plan ─► Slots: (address, zone) ─► Slot        query ─► (index of address, index of zone) ─► Slot ─► Served of this worker
//! ```

use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;

use super::cells::{Buckets, By, Counter, nanoseconds};
use super::labels::{Asked, Reply, Sign};
use crate::wire::{Name, Query, Transport};

/// Pairs that have cells of their own, at most. A zone beyond them counts as the root zone, as would its names if nobody
/// had configured it.
pub const SLOTS: usize = 256;

/// Upper bounds of the incumbent's latency buckets, in nanoseconds: 250 µs, doubled fifteen times.
pub(super) const TIMES: [u64; 16] = {
    let mut bounds = [250_000; 16];
    let mut at = 1;
    while at < bounds.len() {
        bounds[at] = bounds[at - 1] * 2;
        at += 1;
    }
    bounds
};
/// Upper bounds of the incumbent's size buckets, in octets.
pub(super) const SIZES: [u64; 14] =
    [0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8291, 16_000, 32_000, 48_000, 64_000];

/// The cells of one pair, for the thread of one worker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Slot(u16);

/// Which pair has which cells. A pair keeps its slot as long as the process lives, whatever is reloaded.
#[derive(Debug, Default)]
pub struct Slots {
    /// What each slot stands for; only grows.
    pairs: Vec<(SocketAddr, Name)>,
    /// The addresses in force.
    addresses: Vec<IpAddr>,
    /// For each address in force, the slots of its zones.
    table: Vec<Vec<Slot>>,
}

/// All cells of one worker; those nobody has needed yet take no room.
#[derive(Debug)]
pub struct Served(Box<[OnceLock<Box<Cells>>]>);

/// What is counted for one pair. One writer.
#[derive(Debug, Default)]
// As the cells of a worker: nobody writes near another's.
#[repr(align(128))]
pub(super) struct Cells {
    pub(super) requests: [By<Asked, { Asked::COUNT }>; 2],
    pub(super) request_sizes: [Buckets<{ SIZES.len() }>; 2],
    pub(super) dnssec_ok: Counter,
    pub(super) responses: By<Reply, { Reply::COUNT }>,
    pub(super) response_sizes: [Buckets<{ SIZES.len() }>; 2],
    pub(super) times: Buckets<{ TIMES.len() }>,
    pub(super) hits: By<Sign, { Sign::COUNT }>,
    pub(super) misses: Counter,
    pub(super) stale: Counter,
    pub(super) prefetches: Counter,
}

/// The transports, in the order of the arrays of [`Cells`].
pub(super) const TRANSPORTS: [(Transport, &str); 2] = [(Transport::Udp, "udp"), (Transport::Tcp, "tcp")];

// === impl Slot ===

impl Slot {
    /// Has no cells: what is counted under it is forgotten.
    pub const NONE: Self = Self(u16::MAX);
}

// === impl Slots ===

impl Slots {
    /// The slots of every zone at every address; what `before` had given away stays so.
    pub fn new(addresses: &[SocketAddr], zones: &[&Name], before: Option<&Self>) -> Self {
        let mut pairs = before.map_or_else(Vec::new, |before| before.pairs.clone());
        let mut slot = |address: SocketAddr, zone: &Name| {
            let known = pairs.iter().position(|(its, name)| *its == address && name == zone);
            let at = known.or_else(|| {
                (pairs.len() < SLOTS).then(|| {
                    pairs.push((address, zone.clone()));
                    pairs.len() - 1
                })
            });
            at.map(|at| Slot(at as u16))
        };
        // The root zones first, since they take in what has no room.
        let roots: Vec<Slot> = addresses.iter().map(|it| slot(*it, &Name::root()).unwrap_or(Slot::NONE)).collect();
        let of_address = |(address, root): (&SocketAddr, &Slot)| {
            zones.iter().map(|zone| slot(*address, zone).unwrap_or(*root)).collect::<Vec<_>>()
        };
        let table = addresses.iter().zip(&roots).map(of_address).collect();
        Self { pairs, addresses: addresses.iter().map(SocketAddr::ip).collect(), table }
    }

    /// The index of an address; of one that is not ours, an index without slots.
    pub fn address(&self, address: IpAddr) -> usize {
        self.addresses.iter().position(|it| *it == address).unwrap_or(usize::MAX)
    }

    /// The slot of a zone, by its index in the plan, at an address, by [`Slots::address`].
    #[inline]
    pub fn slot(&self, address: usize, zone: usize) -> Slot {
        self.table.get(address).and_then(|zones| zones.get(zone)).copied().unwrap_or(Slot::NONE)
    }

    /// What each slot stands for, in their order.
    pub fn pairs(&self) -> &[(SocketAddr, Name)] {
        &self.pairs
    }
}

// === impl Served ===

impl Served {
    #[inline]
    fn cells(&self, slot: Slot) -> Option<&Cells> {
        self.0.get(usize::from(slot.0)).map(|cells| &**cells.get_or_init(Box::default))
    }

    /// Counts a question in a zone. For the thread of this worker only, as all that follows.
    #[inline]
    pub fn asked(&self, slot: Slot, query: &Query<'_>) {
        let Some(cells) = self.cells(slot) else { return };
        let asker = query.asker();
        let at = asker.transport as usize;
        cells.requests[at].bump(Asked::of(query.qtype()));
        cells.request_sizes[at].record(&SIZES, query.length() as u64);
        if asker.dnssec_ok() {
            cells.dnssec_ok.bump();
        }
    }

    /// Counts that the cache had something.
    #[inline]
    pub fn hit(&self, slot: Slot, sign: Sign) {
        if let Some(cells) = self.cells(slot) {
            cells.hits.bump(sign);
        }
    }

    /// Counts that the cache had nothing.
    pub fn missed(&self, slot: Slot) {
        if let Some(cells) = self.cells(slot) {
            cells.misses.bump();
        }
    }

    /// Counts an answer sent past its lifetime.
    pub fn stale(&self, slot: Slot) {
        if let Some(cells) = self.cells(slot) {
            cells.stale.bump();
        }
    }

    /// Counts an answer renewed ahead of its end.
    pub fn prefetched(&self, slot: Slot) {
        if let Some(cells) = self.cells(slot) {
            cells.prefetches.bump();
        }
    }

    /// Counts a reply of `length` octets that took so long.
    #[inline]
    pub(super) fn sent(&self, slot: Slot, transport: Transport, rcode: Reply, length: usize, took: Duration) {
        let Some(cells) = self.cells(slot) else { return };
        cells.responses.bump(rcode);
        cells.response_sizes[transport as usize].record(&SIZES, length as u64);
        cells.times.record(&TIMES, nanoseconds(took));
    }

    /// The cells of the slot with this index, if there was need of them.
    pub(super) fn at(&self, index: usize) -> Option<&Cells> {
        self.0.get(index)?.get().map(|cells| &**cells)
    }
}

impl Default for Served {
    fn default() -> Self {
        Self((0..SLOTS).map(|_| OnceLock::new()).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::new(169, 254, 20, last), 53))
    }

    fn name(text: &str) -> Name {
        text.parse().expect("a legal name")
    }

    #[test]
    fn a_pair_keeps_its_slot_over_a_reload() {
        let (root, lan, cluster) = (Name::root(), name("lan"), name("cluster.local"));
        let before = Slots::new(&[address(10), address(11)], &[&root, &lan], None);
        let after = Slots::new(&[address(11)], &[&cluster, &lan, &root], Some(&before));
        let old = before.address(address(11).ip());
        let new = after.address(address(11).ip());
        assert_eq!(after.slot(new, 1), before.slot(old, 1));
        assert_eq!(after.slot(new, 2), before.slot(old, 0));
        assert_eq!(after.pairs().len(), 5, "one is new");
        assert_eq!(after.slot(after.address(address(10).ip()), 0), Slot::NONE);
    }

    #[test]
    fn zones_beyond_the_bound_count_as_the_root() {
        let names: Vec<Name> = (0..2 * SLOTS).map(|number| name(&format!("z{number}.test"))).collect();
        let root = Name::root();
        let zones: Vec<&Name> = names.iter().chain([&root]).collect();
        let slots = Slots::new(&[address(10)], &zones, None);
        assert_eq!(slots.pairs().len(), SLOTS);
        assert_ne!(slots.slot(0, 0), slots.slot(0, zones.len() - 1));
        assert_eq!(slots.slot(0, zones.len() - 2), slots.slot(0, zones.len() - 1));
    }

    #[test]
    fn what_has_no_slot_is_not_counted() {
        let served = Served::default();
        served.missed(Slot::NONE);
        assert!((0..SLOTS).all(|at| served.at(at).is_none()));
        let slots = Slots::new(&[address(10)], &[&Name::root()], None);
        served.missed(slots.slot(0, 0));
        assert_eq!(served.at(0).map(|cells| cells.misses.value()), Some(1));
    }
}
