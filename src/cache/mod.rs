//! The answer cache: whole answers under their question, bounded in bytes.
//!
//! Positive answers, negative answers and failures have budgets of their own, so that junk cannot evict answers and a
//! failure can never hide one. Lifetimes live in the entries; nothing runs in the background, nothing stalls a reader.
//!
//! ```text
//! lookup(key) ─► Fresh · Stale · Failed · Vacant          store(entry) ─► replaces both signs of the same question
//! ```
//! Read first: RFC 2308 section 5, RFC 8767, RFC 9520 section 3.

pub mod entry;
pub mod flight;
mod frozen;
pub mod snapshot;

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ahash::RandomState;
use arc_swap::ArcSwapOption;
use quick_cache::sync::Cache as Store;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

use crate::plan;
use crate::plan::Lifetimes;
use crate::wire::{Ede, Key, Name, Rcode, Response};
pub use entry::{Entry, Freshness, NotCacheable};
use frozen::Frozen;

/// The share of the budget that negative answers may take, in percent: bounds what junk names and stale NXDOMAINs hold.
const NEGATIVE_PERCENT: usize = 10;
/// The share of the budget that failures may take, in percent.
const FAILURE_PERCENT: usize = 2;
/// Longest time a failure is remembered when it goes on repeating (RFC 9520 section 3.2: at most 5 minutes).
const FAILURE_MAX: u32 = 30;

/// All answers the agent remembers, shared by its workers.
pub struct Cache {
    positive: Answers,
    negative: Answers,
    failures: Store<u64, Arc<Failure>, CostOfFailure, Prehashed, Tally>,
    evicted: PerKind<Tally>,
    flushed: PerKind<AtomicU64>,
    /// What is known from before the start and not yet in here.
    frozen: ArcSwapOption<Frozen>,
    /// Keyed at start, so that nobody can aim at one slot.
    hasher: RandomState,
    /// All times are counted from here.
    epoch: Instant,
}

type Answers = Store<u64, Arc<Entry>, CostOfEntry, Prehashed, Tally>;

/// What the cache holds for a question.
#[derive(Clone, Debug)]
pub enum Found {
    /// `age` in seconds.
    Fresh {
        entry: Arc<Entry>,
        age: u32,
    },
    /// Upstream failed a moment ago and there is nothing better.
    Failed(Arc<Failure>),
    /// Expired, yet usable if upstream does not answer; `failed`: it did not, a moment ago.
    Stale {
        entry: Arc<Entry>,
        failed: bool,
    },
    Vacant,
}

/// A failure to resolve, remembered for a moment (RFC 9520).
#[derive(Debug)]
pub struct Failure {
    key: Key,
    pub rcode: Rcode,
    /// What the first asker was told.
    pub ede: Option<Ede>,
    /// True if no server said anything: void as soon as one does again.
    pub silent: bool,
    at: Instant,
    /// Seconds.
    lifetime: u32,
}

/// How many entries there are, and their bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    pub positive: usize,
    pub negative: usize,
    pub failures: usize,
    pub bytes: u64,
}

/// Something for each kind of entry.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PerKind<T> {
    pub positive: T,
    pub negative: T,
    pub failures: T,
}

/// Entries that left before their time, since the start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Gone {
    /// For want of room.
    pub evicted: PerKind<u64>,
    /// Because somebody said so.
    pub flushed: PerKind<u64>,
}

/// Which entries a dump or a flush concerns. The default concerns all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// At or below this name.
    pub zone: Option<Name>,
    /// Just this name.
    pub name: Option<Name>,
}

impl Cache {
    /// An empty cache within `plan.memory` bytes, for about as many cores.
    pub fn new(plan: &plan::Cache, epoch: Instant) -> Self {
        let share = |percent: usize| (plan.memory / 100 * percent).max(16 * 1024);
        let evicted = PerKind::<Tally>::default();
        let positive = share(100 - NEGATIVE_PERCENT - FAILURE_PERCENT);
        Self {
            positive: store(positive, CostOfEntry, evicted.positive.clone()),
            negative: store(share(NEGATIVE_PERCENT), CostOfEntry, evicted.negative.clone()),
            failures: store(share(FAILURE_PERCENT), CostOfFailure, evicted.failures.clone()),
            evicted,
            flushed: PerKind::default(),
            frozen: ArcSwapOption::empty(),
            hasher: RandomState::new(),
            epoch,
        }
    }

    /// Applies another memory bound; what is over it goes.
    pub fn resize(&self, plan: &plan::Cache) {
        let share = |percent: usize| (plan.memory / 100 * percent).max(16 * 1024) as u64;
        self.positive.set_capacity(share(100 - NEGATIVE_PERCENT - FAILURE_PERCENT));
        self.negative.set_capacity(share(NEGATIVE_PERCENT));
        self.failures.set_capacity(share(FAILURE_PERCENT));
    }

    /// The moment all times of entries are counted from.
    pub fn epoch(&self) -> Instant {
        self.epoch
    }

    /// What is known about `key` at `now`; `recovered`: when its upstream last came back from silence.
    pub fn lookup(&self, key: &Key, recovered: impl FnOnce() -> Option<Instant>, now: Instant) -> Found {
        let hash = self.hash(key);
        let entry = match self.positive.get(&hash).filter(|entry| entry.answers(key)) {
            Some(entry) => Some(entry),
            None => self.negative.get(&hash).filter(|entry| entry.answers(key)),
        };
        let entry = entry.or_else(|| self.thawed(key, hash, now));
        let stale = match entry {
            Some(entry) => match entry.freshness(self.epoch, now) {
                Freshness::Fresh { age } => return Found::Fresh { entry, age },
                Freshness::Stale => Some(entry),
                Freshness::Gone => None,
            },
            None => None,
        };
        let failure = self.failures.get(&hash).filter(|failure| failure.key == *key && failure.holds(recovered(), now));
        match (stale, failure) {
            (Some(entry), failure) => Found::Stale { entry, failed: failure.is_some() },
            (None, Some(failure)) => Found::Failed(failure),
            (None, None) => Found::Vacant,
        }
    }

    /// Stores `response` as the answer to `key` if it may be; gives the entry either way, for those who wait for it.
    pub fn store(
        &self,
        key: &Key,
        response: Response,
        lifetimes: &Lifetimes,
        now: Instant,
    ) -> (Arc<Entry>, Result<(), NotCacheable>) {
        let (entry, verdict) = Entry::admit(response, key, lifetimes, self.epoch, now);
        let entry = Arc::new(entry);
        let hash = self.hash(key);
        // Whatever upstream said, it did say something.
        self.failures.remove(&hash);
        if verdict.is_ok() {
            let (same_sign, other_sign) =
                if entry.is_negative() { (&self.negative, &self.positive) } else { (&self.positive, &self.negative) };
            same_sign.insert(hash, Arc::clone(&entry));
            other_sign.remove(&hash);
        }
        (entry, verdict)
    }

    /// Remembers that `key` could not be resolved; each repetition doubles the time, from `lifetimes.failure_ttl`.
    pub fn store_failure(
        &self,
        key: &Key,
        rcode: Rcode,
        ede: Option<Ede>,
        silent: bool,
        lifetimes: &Lifetimes,
        now: Instant,
    ) {
        let hash = self.hash(key);
        let first = lifetimes.failure_ttl;
        let lifetime = match self.failures.peek(&hash).filter(|before| before.key == *key) {
            // Twice the time after the last one's end it no longer counts as the same trouble.
            Some(before) if now < before.at + Duration::from_secs(u64::from(before.lifetime) * 3) => {
                (before.lifetime * 2).min(FAILURE_MAX.max(first))
            }
            _ => first,
        };
        let failure = Failure { key: key.clone(), rcode, ede, silent, at: now, lifetime };
        self.failures.insert(hash, Arc::new(failure));
    }

    /// Removes what `filter` names and says how many entries that were.
    ///
    /// What is still frozen goes as a whole: in the first moments after a start a flush may take too much, never too little.
    pub fn flush(&self, filter: &Filter) -> usize {
        self.frozen.store(None);
        let before = self.usage();
        if filter.zone.is_none() && filter.name.is_none() {
            self.positive.clear();
            self.negative.clear();
            self.failures.clear();
        } else {
            let keep = |entry: &Entry| !entry.key().is_some_and(|key| filter.concerns(&key));
            self.positive.retain(|_, entry| keep(entry));
            self.negative.retain(|_, entry| keep(entry));
            self.failures.retain(|_, failure| !filter.concerns(&failure.key));
        }
        let after = self.usage();
        let gone = |before: usize, after: usize, count: &AtomicU64| {
            // Others may have stored something meanwhile.
            let gone = before.saturating_sub(after);
            count.fetch_add(gone as u64, Ordering::Relaxed);
            gone
        };
        gone(before.positive, after.positive, &self.flushed.positive)
            + gone(before.negative, after.negative, &self.flushed.negative)
            + gone(before.failures, after.failures, &self.flushed.failures)
    }

    /// What left before its time.
    pub fn gone(&self) -> Gone {
        let Self { evicted, flushed, .. } = self;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Gone {
            evicted: PerKind {
                positive: read(&evicted.positive.0),
                negative: read(&evicted.negative.0),
                failures: read(&evicted.failures.0),
            },
            flushed: PerKind {
                positive: read(&flushed.positive),
                negative: read(&flushed.negative),
                failures: read(&flushed.failures),
            },
        }
    }

    /// The entries that `filter` names, one at a time; each lock is held for one step only.
    pub fn entries(&self, filter: Filter) -> impl Iterator<Item = (Key, Arc<Entry>)> + '_ {
        self.positive
            .iter()
            .chain(self.negative.iter())
            .filter_map(|(_, entry)| entry.key().map(|key| (key, entry)))
            .filter(move |(key, _)| filter.concerns(key))
    }

    /// How full the cache is.
    pub fn usage(&self) -> Usage {
        Usage {
            positive: self.positive.len(),
            negative: self.negative.len(),
            failures: self.failures.len(),
            bytes: self.positive.weight() + self.negative.weight() + self.failures.weight(),
        }
    }

    fn hash(&self, key: &Key) -> u64 {
        self.hasher.hash_one(key.as_octets())
    }
}

// === impl Failure ===

impl Failure {
    fn holds(&self, recovered: Option<Instant>, now: Instant) -> bool {
        now < self.at + Duration::from_secs(u64::from(self.lifetime))
            && !(self.silent && recovered.is_some_and(|at| at > self.at))
    }
}

// === impl Filter ===

impl Filter {
    /// Whether a question lies in it.
    pub fn concerns(&self, key: &Key) -> bool {
        let Some(name) = Name::from_wire(key.qname()) else { return false };
        self.zone.as_ref().is_none_or(|zone| name.is_under(zone)) && self.name.as_ref().is_none_or(|it| *it == name)
    }
}

// === the store's parts ===

/// The store refuses what is heavier than one shard, so a shard holds at least four of the largest messages.
const SHARD_MIN: usize = 256 * 1024;

fn store<V: Clone, W: Weighter<u64, V> + Clone>(
    bytes: usize,
    weighter: W,
    evicted: Tally,
) -> Store<u64, V, W, Prehashed, Tally> {
    let options = OptionsBuilder::new()
        .weight_capacity(bytes as u64)
        .estimated_items_capacity(bytes / 300)
        .shards((bytes / SHARD_MIN).clamp(1, 32).next_power_of_two())
        .build()
        .expect("every option without a default is set");
    Store::with_options(options, weighter, Prehashed, evicted)
}

/// Counts what is evicted. What is replaced is not.
#[derive(Clone, Debug, Default)]
struct Tally(Arc<AtomicU64>);

impl<V> Lifecycle<u64, V> for Tally {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _: u64, _: V) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Clone)]
struct CostOfEntry;

impl Weighter<u64, Arc<Entry>> for CostOfEntry {
    fn weight(&self, _: &u64, entry: &Arc<Entry>) -> u64 {
        entry.cost() as u64
    }
}

#[derive(Clone)]
struct CostOfFailure;

impl Weighter<u64, Arc<Failure>> for CostOfFailure {
    fn weight(&self, _: &u64, _: &Arc<Failure>) -> u64 {
        size_of::<Failure>() as u64 + 64
    }
}

/// Keys are hashes already, under a secret key.
#[derive(Clone, Copy, Debug, Default)]
struct Prehashed;

impl BuildHasher for Prehashed {
    type Hasher = PassThrough;

    fn build_hasher(&self) -> PassThrough {
        PassThrough(0)
    }
}

struct PassThrough(u64);

impl Hasher for PassThrough {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 keys are hashed");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests;
