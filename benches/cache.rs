//! What a look into the cache costs, and whether it stays the same as the cache grows.

#[path = "support/messages.rs"]
mod messages;

use std::hint::black_box;
use std::io;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use nodens::cache::snapshot::{self, Block, Moment, Reader};
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

/// On one core; a start uses all of them.
fn snapshots(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cache/snapshot");
    group.sample_size(20);
    let (cache, now) = filled(SIZES[1]);
    let at = Moment { now, wall: Duration::ZERO };
    let mut file = Vec::new();
    snapshot::write(&cache, at, MEMORY, &mut file).expect("a Vec takes all");
    group.bench_function(BenchmarkId::new("write", SIZES[1]), |bencher| {
        bencher.iter(|| snapshot::write(&cache, at, MEMORY, &mut io::sink()));
    });
    group.bench_function(BenchmarkId::new("index", SIZES[1]), |bencher| {
        bencher.iter_batched(|| filled(0).0, |cache| freeze(&file, &cache), BatchSize::PerIteration);
    });
    group.bench_function(BenchmarkId::new("thaw", SIZES[1]), |bencher| {
        let frozen = || {
            let (cache, _) = filled(0);
            freeze(&file, &cache);
            cache
        };
        bencher.iter_batched(frozen, |cache| cache.thaw(now), BatchSize::PerIteration);
    });
    group.finish();
}

fn freeze(file: &[u8], cache: &Cache) {
    let mut reader = Reader::open(file, Duration::ZERO).expect("just written");
    let (mut block, mut blocks) = (Block::default(), Vec::new());
    while reader.next(&mut block).expect("just written") {
        blocks.push(std::mem::take(&mut block).index(cache).expect("just written"));
    }
    assert_eq!(cache.freeze(blocks), SIZES[1] as usize);
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

criterion_group!(benches, lookups, stores, snapshots);
criterion_main!(benches);
