//! What a snapshot promises, octet by octet. Restarts of the whole agent are in `tests/loopback/snapshot.rs`.

use super::super::tests::{cache, key, negative, positive, store};
use super::super::{Found, Lifetimes};
use super::*;

const WALL: Duration = Duration::from_secs(1_795_000_000);

/// A cache with a few hundred answers of both signs, and its snapshot, made at `WALL`.
fn snapshot() -> (Vec<u8>, Instant) {
    let (cache, now) = cache(4 << 20);
    for nth in 0..600 {
        let key = key(&format!("host-{nth}.a-zone-with-a-long-name-so-that-there-is-more-than-one-block.test"));
        store(&cache, &key, if nth % 6 == 0 { negative(&key) } else { positive(&key) }, now);
    }
    let mut octets = Vec::new();
    assert_eq!(write(&cache, Moment { now, wall: WALL }, usize::MAX, &mut octets).expect("a Vec takes all"), 600);
    (octets, now)
}

/// A new cache with what `octets` hold, read at `wall`, as it is at first.
fn freeze(octets: &[u8], wall: Duration) -> Result<Cache, Flaw> {
    let (cache, _) = cache(4 << 20);
    let mut reader = Reader::open(octets, wall)?;
    let mut blocks = Vec::new();
    let mut block = Block::default();
    while reader.next(&mut block)? {
        blocks.push(std::mem::take(&mut block).index(&cache)?);
    }
    assert!(!reader.next(&mut block)?, "the end is the end");
    cache.freeze(blocks);
    Ok(cache)
}

/// The same, all of it thawed.
fn read(octets: &[u8], wall: Duration, now: Instant) -> Result<Cache, Flaw> {
    let cache = freeze(octets, wall)?;
    cache.thaw(now);
    Ok(cache)
}

fn host(nth: usize) -> crate::wire::Key {
    key(&format!("host-{nth}.a-zone-with-a-long-name-so-that-there-is-more-than-one-block.test"))
}

#[test]
fn what_was_written_is_read_again_and_has_aged() {
    let (octets, now) = snapshot();
    assert!(octets.len() > 2 * BLOCK / 2, "more than one block is needed: {}", octets.len());
    let cache = read(&octets, WALL + Duration::from_secs(20), now).expect("nothing is wrong with it");
    let usage = cache.usage();
    assert_eq!((usage.positive, usage.negative), (500, 100));
    for nth in 0..600 {
        match cache.lookup(&host(nth), || None, now) {
            Found::Fresh { entry, age } => assert_eq!((age, entry.is_negative()), (20, nth % 6 == 0)),
            other => panic!("{nth}: {other:?}"),
        }
    }
}

#[test]
fn what_is_frozen_is_found_and_what_is_newer_holds() {
    let (octets, now) = snapshot();
    let cache = freeze(&octets, WALL).expect("nothing is wrong with it");
    assert_eq!(cache.usage().positive, 0, "nothing has been thawed");
    assert!(matches!(cache.lookup(&host(1), || None, now), Found::Fresh { age: 0, .. }));
    assert!(matches!(cache.lookup(&host(6), || None, now), Found::Fresh { entry, .. } if entry.is_negative()));
    assert!(matches!(cache.lookup(&key("other.test"), || None, now), Found::Vacant));
    assert_eq!((cache.usage().positive, cache.usage().negative), (1, 1), "what was asked for has been");
    // Answers that came meanwhile, of the same sign and of the other.
    let lifetimes = Lifetimes { max_ttl: 7, max_negative_ttl: 7, ..Lifetimes::default() };
    cache.store(&host(2), positive(&host(2)), &lifetimes, now).1.expect("it may be stored");
    cache.store(&host(3), negative(&host(3)), &lifetimes, now).1.expect("it may be stored");
    cache.thaw(now);
    for nth in [2, 3] {
        let Found::Fresh { entry, .. } = cache.lookup(&host(nth), || None, now) else { panic!("known") };
        assert_eq!((entry.lifetime(), entry.is_negative()), (7, nth == 3));
    }
    assert_eq!(cache.usage().positive + cache.usage().negative, 600);
}

#[test]
fn a_flush_forgets_what_is_frozen() {
    let (octets, now) = snapshot();
    let cache = freeze(&octets, WALL).expect("nothing is wrong with it");
    cache.flush(&super::super::Filter::default());
    cache.thaw(now);
    assert!(matches!(cache.lookup(&host(1), || None, now), Found::Vacant));
}

#[test]
fn lifetime_staleness_hits_and_the_bits_of_the_key_survive() {
    let (cache, now) = cache(1 << 20);
    let signed = crate::wire::Key::new(b"\x01a\x04test\0", crate::wire::Type::A, true, true).expect("a legal key");
    let lifetimes = Lifetimes { max_ttl: 40, max_stale: 100, ..Lifetimes::default() };
    cache.store(&signed, positive(&signed), &lifetimes, now).0.count_hit(9);
    let mut octets = Vec::new();
    write(&cache, Moment { now: now + Duration::from_secs(5), wall: WALL }, usize::MAX, &mut octets).expect("a Vec");
    let cache = read(&octets, WALL + Duration::from_secs(3), now).expect("nothing is wrong with it");
    let Found::Fresh { entry, age: 8 } = cache.lookup(&signed, || None, now) else { panic!("8 s old") };
    assert_eq!((entry.lifetime(), entry.hits(), entry.remaining(cache.epoch(), now)), (40, 1, (32, 132)));
    let is_stale =
        |after| matches!(cache.lookup(&signed, || None, now + Duration::from_secs(after)), Found::Stale { .. });
    assert!(is_stale(33) && is_stale(131) && !is_stale(133));
}

// L14: the clock may do what it wants while nobody runs.
#[test]
fn a_clock_put_back_makes_nothing_younger_and_one_put_forward_makes_old() {
    let (octets, now) = snapshot();
    let ages = |wall: Duration| match read(&octets, wall, now).expect("it is well").lookup(&host(1), || None, now) {
        Found::Fresh { age, .. } => Some(age),
        _ => None,
    };
    assert_eq!(ages(Duration::ZERO), Some(0));
    assert_eq!(ages(WALL.saturating_sub(Duration::from_secs(86_400))), Some(0));
    assert_eq!(ages(WALL + Duration::from_secs(59)), Some(59));
    let stale = read(&octets, WALL + Duration::from_secs(3600), now).expect("it is well");
    assert!(matches!(stale.lookup(&host(1), || None, now), Found::Stale { .. }));
    for years in [10, 1_000_000] {
        let gone = read(&octets, WALL + Duration::from_secs(years * 31_536_000), now).expect("it is well");
        assert_eq!(gone.usage().positive + gone.usage().negative, 0, "{years}");
    }
    assert_eq!(read(&octets, Duration::MAX, now).expect("it is well").usage().positive, 0);
}

#[test]
fn a_snapshot_cut_anywhere_is_refused() {
    let (octets, now) = snapshot();
    for cut in (0..octets.len()).step_by(97).chain([HEAD, octets.len() - 1, octets.len() - 12]) {
        match read(&octets[..cut], WALL, now) {
            Err(Flaw::Foreign) if cut < HEAD => {}
            Err(Flaw::Torn) if cut >= HEAD => {}
            other => panic!("cut at {cut}: {:?}", other.err()),
        }
    }
}

#[test]
fn a_snapshot_with_one_octet_changed_is_refused() {
    let (octets, now) = snapshot();
    for at in (0..200).chain((200..octets.len()).step_by(101)) {
        for change in [1, 0x80] {
            let mut changed = octets.clone();
            changed[at] ^= change;
            assert!(read(&changed, WALL, now).is_err(), "octet {at}");
        }
    }
}

#[test]
fn blocks_in_another_order_or_left_out_are_refused() {
    let (octets, now) = snapshot();
    let length = u32::from_be_bytes(octets[HEAD..HEAD + 4].try_into().expect("four octets")) as usize;
    let second = HEAD + 4 + length + SUM;
    let without_first = [&octets[..HEAD], &octets[second..]].concat();
    assert!(matches!(read(&without_first, WALL, now), Err(Flaw::Corrupt)));
}

#[test]
fn what_is_no_snapshot_is_foreign_and_other_versions_are_named() {
    let now = Instant::now();
    for octets in [&b""[..], b"zones: {}\n", &[0; 4096]] {
        assert!(matches!(read(octets, WALL, now), Err(Flaw::Foreign)));
    }
    let mut newer = snapshot().0;
    newer[15] = 9;
    assert!(matches!(read(&newer, WALL, now), Err(Flaw::Version(9))));
}

// A right sum proves nothing about who wrote the file.
#[test]
fn a_message_no_upstream_could_have_sent_us_is_left_out() {
    let (cache, now) = cache(1 << 20);
    let good = key("good.test");
    store(&cache, &good, positive(&good), now);
    let mut block = Vec::new();
    let entry = cache.entries(super::super::Filter::default()).next().expect("one entry").1;
    put(&mut block, &entry, cache.epoch(), now);
    let whole = block.clone();
    // A question as message, a pointer that leads forward, RDLENGTH beyond the end, a record nobody asked for.
    let behind_question = FIXED + 12 + good.qname().len() + 4;
    let forgeries: [(usize, &[u8]); 4] = [
        (FIXED + 2, &[0x01]),
        (behind_question, &[0xc0, 0xff]),
        (behind_question + 10, &[0xff, 0xff]),
        (behind_question + 2, &[0, 16]),
    ];
    for (at, octets) in forgeries {
        let mut forged = whole.clone();
        forged[at..at + octets.len()].copy_from_slice(octets);
        block.extend(forged);
    }
    let mut octets = [&MAGIC[..], &VERSION.to_be_bytes(), &millis(WALL).to_be_bytes()].concat();
    octets.extend(sum(0, &octets).to_be_bytes());
    let mut number = 0;
    write_block(&mut block, &mut number, &mut octets).expect("a Vec takes all");
    write_block(&mut Vec::new(), &mut number, &mut octets).expect("a Vec takes all");
    let cache = read(&octets, WALL, now).expect("the sums are right");
    assert_eq!((cache.usage().positive, cache.usage().negative), (1, 0));
}

#[test]
fn the_bound_in_octets_holds() {
    let (cache, now) = cache(4 << 20);
    for nth in 0..3000 {
        let key = key(&format!("h{nth}.test"));
        store(&cache, &key, positive(&key), now);
    }
    for bound in [0, HEAD + 4 + SUM, 1000, 100_000, 150_000] {
        let mut octets = Vec::new();
        let entries = write(&cache, Moment { now, wall: WALL }, bound, &mut octets).expect("a Vec takes all");
        assert!(octets.len() <= bound.max(HEAD + 4 + SUM), "{} of {bound}", octets.len());
        let usage = read(&octets, WALL, now).expect("it is whole").usage();
        assert_eq!(usage.positive, entries);
    }
}
