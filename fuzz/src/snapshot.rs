//! A snapshot is refused, or what is read of it can be written and read again, the same.
//!
//! Shape: the file, its sums wrong as a rule; without them, the entries of one block.

use std::time::{Duration, Instant};

use nodens::cache::snapshot::{self, Block, Flaw, Moment, Reader};
use nodens::cache::{Cache, Filter};
use nodens::plan;

/// Octets of a head and its sum, by the drawing in src/cache/snapshot.rs.
const HEAD: usize = 32;

pub fn check(data: &[u8]) {
    let now = Instant::now();
    // What the fuzzer cannot guess: right sums around what it made up.
    let (empty, _) = written(&cache(now), now);
    let mut file = empty[..HEAD].to_vec();
    let entries = &data[..data.len().min(100_000)];
    if !entries.is_empty() {
        file.extend((entries.len() as u32).to_be_bytes());
        file.extend(entries);
        file.extend(snapshot::sum(1, entries).to_be_bytes());
    }
    file.extend([0; 4]);
    file.extend(snapshot::sum(1 + u64::from(!entries.is_empty()), &[]).to_be_bytes());
    for file in [data, &file] {
        let Ok(first) = read(file, now) else { continue };
        let (again, count) = written(&first, now);
        assert_eq!(count, first.entries(Filter::default()).count());
        let second = read(&again, now).expect("what we wrote can be read");
        let mut known: Vec<_> = contents(&first);
        known.sort();
        let mut restored = contents(&second);
        restored.sort();
        // With DNSSEC records, a second judgement may leave out more; see `assert_settled`.
        if known.iter().all(|(key, _)| !key.ends_with(" DO") && !key.ends_with(" DO CD")) {
            assert_eq!(restored, known);
        }
    }
}

fn cache(epoch: Instant) -> Cache {
    Cache::new(&plan::Cache { memory: 8 << 20, ..plan::Cache::default() }, epoch)
}

fn read(file: &[u8], now: Instant) -> Result<Cache, Flaw> {
    let cache = cache(now);
    let mut reader = Reader::open(file, Duration::ZERO)?;
    let (mut block, mut blocks) = (Block::default(), Vec::new());
    while reader.next(&mut block)? {
        blocks.push(std::mem::take(&mut block).index(&cache)?);
    }
    cache.freeze(blocks);
    cache.thaw(now);
    Ok(cache)
}

fn written(cache: &Cache, now: Instant) -> (Vec<u8>, usize) {
    let mut file = Vec::new();
    let at = Moment { now, wall: Duration::ZERO };
    let count = snapshot::write(cache, at, usize::MAX, &mut file).expect("a Vec takes all");
    (file, count)
}

fn contents(cache: &Cache) -> Vec<(String, Vec<u8>)> {
    let entries = cache.entries(Filter::default());
    entries.map(|(key, entry)| (key.to_string(), entry.stored().octets().to_vec())).collect()
}
