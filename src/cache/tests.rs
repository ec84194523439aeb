//! Bounds and signs of the cache. What a lifetime means to a client is told by the scenarios in `tests/scenarios`.

use super::*;
use crate::wire::response::Asked;
use crate::wire::{Transport, Type, compose};

pub(super) fn key(name: &str) -> Key {
    let name: Name = name.parse().expect("a test's name is legal");
    Key::new(name.as_wire(), Type::A, false, false).expect("a legal name makes a key")
}

/// The octets of a response to the question `key`, with the counts given and `records` behind the question.
fn response(key: &Key, rcode: u8, counts: [u8; 2], records: &[u8]) -> Response {
    let mut query = [0; compose::QUERY_MAX];
    let length = compose::upstream_query(key, 7, None, false, &mut query).expect("QUERY_MAX is enough");
    let query = &query[..length];
    let mut octets = query.to_vec();
    octets[2] |= 0x80;
    octets[3] = 0x80 | rcode;
    (octets[7], octets[9]) = (counts[0], counts[1]);
    octets.extend_from_slice(records);
    let asked = Asked { query, transport: Transport::Udp, exact_case: false };
    Response::parse_for(&octets, &asked).expect("a test's response is right")
}

/// An address with the TTL 60.
pub(super) fn positive(key: &Key) -> Response {
    response(key, 0, [1, 0], b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x07")
}

/// No such name, for 60 s: an SOA of the root.
pub(super) fn negative(key: &Key) -> Response {
    let soa = b"\0\0\x06\0\x01\0\0\0\x3c\0\x16\0\0\0\0\0\x01\0\0\x0e\x10\0\0\x0e\x10\0\0\x0e\x10\0\0\0\x3c";
    response(key, 3, [0, 1], soa)
}

pub(super) fn cache(memory: usize) -> (Cache, Instant) {
    let epoch = Instant::now();
    let plan = plan::Cache { memory, ..plan::Cache::default() };
    (Cache::new(&plan, epoch), epoch)
}

pub(super) fn store(cache: &Cache, key: &Key, response: Response, now: Instant) {
    cache.store(key, response, &Lifetimes::default(), now).1.expect("it may be stored");
}

pub(super) fn is_fresh(cache: &Cache, key: &Key, now: Instant) -> bool {
    matches!(cache.lookup(key, || None, now), Found::Fresh { .. })
}

// C39: junk names cannot evict answers in use, and the bound in bytes holds.
#[test]
fn a_flood_of_missing_names_evicts_no_answer() {
    let (cache, now) = cache(2 << 20);
    let hot: Vec<Key> = (0..1000).map(|nth| key(&format!("hot-{nth}.test"))).collect();
    for key in &hot {
        store(&cache, key, positive(key), now);
    }
    for nth in 0..30_000 {
        let junk = key(&format!("junk-{nth}.test"));
        store(&cache, &junk, negative(&junk), now);
        cache.store_failure(&key(&format!("bad-{nth}.test")), Rcode::SERVFAIL, None, false, &Lifetimes::default(), now);
    }
    assert!(hot.iter().all(|key| is_fresh(&cache, key, now)));
    let usage = cache.usage();
    assert!(usage.bytes <= 2 << 20, "{usage:?}");
    assert!(usage.negative > 100 && usage.failures > 100, "{usage:?}");
}

// C39: what is asked for again and again outlives what is asked for once.
#[test]
fn names_in_use_outlive_a_flood_of_answers() {
    let (cache, now) = cache(1 << 20);
    let hot: Vec<Key> = (0..100).map(|nth| key(&format!("hot-{nth}.test"))).collect();
    for key in &hot {
        store(&cache, key, positive(key), now);
    }
    let mut hits = 0;
    for nth in 0..20_000 {
        let once = key(&format!("once-{nth}.test"));
        store(&cache, &once, positive(&once), now);
        let hot = &hot[nth % hot.len()];
        if is_fresh(&cache, hot, now) {
            hits += 1;
        } else {
            store(&cache, hot, positive(hot), now);
        }
    }
    assert!(hits >= 19_800, "{hits} of 20,000");
    assert!(cache.usage().bytes <= 1 << 20, "{:?}", cache.usage());
}

// S13: one question has one sign; the later answer holds.
#[test]
fn an_answer_of_the_other_sign_replaces_the_one_before() {
    let (cache, now) = cache(1 << 20);
    let key = key("a.test");
    store(&cache, &key, negative(&key), now);
    store(&cache, &key, positive(&key), now);
    assert_eq!((cache.usage().positive, cache.usage().negative), (1, 0));
    store(&cache, &key, negative(&key), now);
    assert_eq!((cache.usage().positive, cache.usage().negative), (0, 1));
}

// C28
#[test]
fn a_failure_that_repeats_is_remembered_longer_up_to_a_bound() {
    let (cache, mut now) = cache(1 << 20);
    let key = key("a.test");
    for expected in [5, 10, 20, 30, 30] {
        cache.store_failure(&key, Rcode::SERVFAIL, None, false, &Lifetimes::default(), now);
        now += Duration::from_secs(expected);
        let before_the_end = now.checked_sub(Duration::from_millis(1)).expect("the clock has run");
        assert!(matches!(cache.lookup(&key, || None, before_the_end), Found::Failed(_)), "{expected}");
        assert!(matches!(cache.lookup(&key, || None, now), Found::Vacant), "{expected}");
    }
}

// H05
#[test]
fn a_failure_by_silence_is_void_once_the_group_is_back() {
    let (cache, now) = cache(1 << 20);
    let (silent, refused) = (key("silent.test"), key("refused.test"));
    cache.store_failure(&silent, Rcode::SERVFAIL, None, true, &Lifetimes::default(), now);
    cache.store_failure(&refused, Rcode::REFUSED, None, false, &Lifetimes::default(), now);
    let later = now + Duration::from_secs(2);
    let back = || Some(now + Duration::from_secs(1));
    assert!(matches!(cache.lookup(&silent, back, later), Found::Vacant));
    assert!(matches!(cache.lookup(&refused, back, later), Found::Failed(_)));
}

// C41
#[test]
fn a_flush_removes_what_it_names_and_says_how_much() {
    let (cache, now) = cache(1 << 20);
    for name in ["a.test", "b.a.test", "ba.test"] {
        store(&cache, &key(name), positive(&key(name)), now);
    }
    cache.store_failure(&key("c.a.test"), Rcode::SERVFAIL, None, false, &Lifetimes::default(), now);
    let zone = Filter { zone: Some("a.test".parse().expect("a legal name")), name: None };
    assert_eq!(cache.entries(zone.clone()).count(), 2);
    assert_eq!(cache.flush(&zone), 3);
    assert!(is_fresh(&cache, &key("ba.test"), now));
    assert_eq!(cache.flush(&Filter::default()), 1);
    assert_eq!(cache.usage(), Usage { bytes: cache.usage().bytes, ..Usage::default() });
}

// O06: a smaller bound holds as soon as it is set.
#[test]
fn a_smaller_bound_evicts_at_once() {
    let (cache, now) = cache(8 << 20);
    for nth in 0..10_000 {
        let key = key(&format!("h{nth}.test"));
        store(&cache, &key, positive(&key), now);
    }
    assert!(cache.usage().bytes > 1 << 20);
    cache.resize(&plan::Cache { memory: 1 << 20, ..plan::Cache::default() });
    assert!(cache.usage().bytes <= 1 << 20, "{:?}", cache.usage());
}
