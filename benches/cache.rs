//! What a look into the cache costs, and whether it stays the same as the cache grows.

#[path = "support/messages.rs"]
mod messages;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use nodens::cache::{Cache, Found};
use nodens::plan::{self, Lifetimes};
use nodens::wire::compose::{self, TtlRule};
use nodens::wire::{Key, Query, Transport, UDP_MAX};

/// Names of the small cache fit the processor's own; those of the large one do not.
const SIZES: [u32; 2] = [1_000, 100_000];
/// Bytes; more than the largest of them takes.
const MEMORY: usize = 256 << 20;

fn lookups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cache");
    for size in SIZES {
        let (cache, now) = filled(size);
        let keys: Vec<Key> = scattered(size).map(messages::key).collect();
        let mut next = keys.iter().cycle();
        group.bench_function(BenchmarkId::new("hit", size), |bencher| {
            bencher.iter(|| cache.lookup(next.next().expect("endless"), || None, now));
        });
        let queries: Vec<Vec<u8>> = scattered(size).map(messages::query).collect();
        let mut next = queries.iter().cycle();
        let mut out = [0; UDP_MAX];
        group.bench_function(BenchmarkId::new("query to reply", size), |bencher| {
            bencher.iter(|| reply(next.next().expect("endless"), &cache, now, &mut out));
        });
        let absent = messages::key(size);
        group.bench_function(BenchmarkId::new("miss", size), |bencher| {
            bencher.iter(|| cache.lookup(black_box(&absent), || None, now));
        });
    }
    group.finish();
}

fn stores(criterion: &mut Criterion) {
    let (cache, now) = filled(SIZES[0]);
    let responses: Vec<_> = (0..SIZES[0]).map(|number| (messages::key(number), messages::response(number))).collect();
    let mut next = responses.iter().cycle();
    criterion.bench_function("cache/store again", |bencher| {
        bencher.iter(|| {
            let (key, response) = next.next().expect("endless");
            cache.store(key, response.clone(), &Lifetimes::default(), now)
        });
    });
}

/// The whole way of a hit but for the sockets.
fn reply(query: &[u8], cache: &Cache, now: Instant, out: &mut [u8]) -> Option<usize> {
    let query = Query::parse(query, Transport::Udp).expect("a legal query");
    match cache.lookup(query.key(), || None, now) {
        Found::Fresh { entry, age } => compose::patch(entry.stored(), &query.asker(), TtlRule::Age(age), None, out),
        _ => panic!("all names were stored"),
    }
}

/// A cache with `size` names, and a moment at which all are fresh.
fn filled(size: u32) -> (Cache, Instant) {
    let epoch = Instant::now();
    let cache = Cache::new(&plan::Cache { memory: MEMORY, ..plan::Cache::default() }, epoch);
    for number in 0..size {
        let (_, stored) = cache.store(&messages::key(number), messages::response(number), &Lifetimes::default(), epoch);
        assert_eq!(stored, Ok(()));
    }
    (cache, epoch + Duration::from_secs(1))
}

/// All numbers below `size`, neighbours far apart.
fn scattered(size: u32) -> impl Iterator<Item = u32> {
    // Coprime to both sizes.
    (0..size).map(move |number| (u64::from(number) * 7_919 % u64::from(size)) as u32)
}

criterion_group!(benches, lookups, stores);
criterion_main!(benches);
