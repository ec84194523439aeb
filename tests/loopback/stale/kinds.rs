//! Every kind of answer goes stale in its own way.
//!
//! Read first: RFC 8767 section 6, RFC 8914 section 4.20, RFC 6840 section 5.8.

use crate::support::agent::Agent;
use crate::support::client::{Answer, Ask, ask};
use crate::support::config::Config;
use crate::support::octets::{
    A, AAAA, AD, CNAME, HTTPS, NXDOMAIN, Rr, STALE_ANSWER, STALE_NXDOMAIN, a, cname, name, soa,
};
use crate::support::upstream::{Reply, Upstream, encoded, encoded_reply, nodata, silent};
use crate::support::{millis, seconds, until};

/// Stale after 300 ms of waiting, so that a test can ask often.
const IMPATIENT: &str = "serve_stale: { client_timeout: 300ms, ttl: 2s, recheck: 1s }";

// S11
#[test]
fn a_stale_nodata_stays_nodata() {
    let upstream = Upstream::new(|seen| Reply::to(seen).authority(soa("test", 300, 3)).now());
    let agent = Agent::start(&Config::new(&upstream).cache(IMPATIENT));
    let first = ask(agent.addr(), "a.test", A);
    assert_eq!(first.assert_nodata().ttl(), 3);
    upstream.set(silent);
    until(first.at + millis(3500));
    let stale = ask(agent.addr(), "a.test", A);
    assert_eq!(stale.assert_nodata().assert_ede(&[STALE_ANSWER]).ttl(), 2, "the stale TTL, in the SOA");
    assert!(stale.soa().is_some());
}

// S12. Real stub resolvers with ndots:5 are the peers' tests.
#[test]
fn a_search_list_still_ends_when_its_suffixes_are_stale() {
    let upstream = Upstream::new(|seen| match &*seen.name {
        "api.example.com" => encoded_reply(seen, 1).now(),
        _ => Reply::to(seen).rcode(NXDOMAIN).authority(soa("test", 1, 1)).now(),
    });
    let agent = Agent::start(&Config::new(&upstream).cache(IMPATIENT));
    let suffixed = ["api.example.com.ns.svc.test", "api.example.com.svc.test"];
    let mut last = None;
    for _ in 0..3 {
        for name in suffixed {
            ask(agent.addr(), name, A).assert_rcode(NXDOMAIN).assert_ede(&[]);
        }
        last = Some(ask(agent.addr(), "api.example.com", A).assert_encodes("api.example.com").at);
    }
    upstream.set(silent);
    until(last.expect("something was asked") + seconds(2));
    for _ in 0..2 {
        for name in suffixed {
            let stale = ask(agent.addr(), name, A);
            stale.assert_rcode(NXDOMAIN).assert_ede(&[STALE_NXDOMAIN]);
            assert!(stale.soa().is_some_and(|soa| soa.ttl == 1), "{stale:?}");
        }
        ask(agent.addr(), "api.example.com", A).assert_encodes("api.example.com").assert_ede(&[STALE_ANSWER]);
    }
}

// S13. The pace of two queries a second is the case.
#[test]
fn a_name_that_appears_is_never_hidden_by_its_stale_absence() {
    let upstream = Upstream::new(|seen| Reply::to(seen).rcode(NXDOMAIN).authority(soa("test", 2, 2)).now());
    let agent = Agent::start(&Config::new(&upstream));
    let first = ask(agent.addr(), "a.test", A);
    first.assert_rcode(NXDOMAIN);
    upstream.set(encoded(60));
    let mut flipped = None;
    for tick in 1..=12 {
        until(first.at + millis(500) * tick);
        let answer = ask(agent.addr(), "a.test", A);
        if answer.rcode() == NXDOMAIN {
            assert!(flipped.is_none(), "back to NXDOMAIN after {flipped:?}");
        } else {
            answer.assert_encodes("a.test").assert_ede(&[]);
            flipped.get_or_insert(answer.at - first.at);
        }
    }
    let flipped = flipped.expect("it shows sooner or later");
    assert!(flipped < millis(2900), "only after {flipped:?}; it expired at 2 s");
}

// S13
#[test]
fn without_patience_a_stale_absence_is_shown_once() {
    let upstream = Upstream::new(|seen| Reply::to(seen).rcode(NXDOMAIN).authority(soa("test", 1, 1)).now());
    let agent = Agent::start(&Config::new(&upstream).cache("serve_stale: { client_timeout: 0s }"));
    ask(agent.addr(), "a.test", A).assert_rcode(NXDOMAIN);
    let first = ask(agent.addr(), "a.test", A);
    upstream.set(encoded(60));
    until(first.at + seconds(2));
    ask(agent.addr(), "a.test", A);
    upstream.wait_for_name("a.test", A, 2);
    until(upstream.seen_of("a.test", A)[1].at + millis(300));
    ask(agent.addr(), "a.test", A).assert_encodes("a.test").assert_ede(&[]);
    assert_eq!(upstream.count_of("a.test", A), 2, "{}", upstream.history());
}

fn shape(answer: &Answer) -> Vec<(String, u16, Vec<u8>)> {
    answer.answers.iter().map(|it| (it.owner_text(), it.rtype, it.rdata.clone())).collect()
}

/// A script's records with this TTL.
type Shape = fn(u32) -> Vec<Rr>;

// S15
#[test]
fn a_name_that_changes_its_shape_is_never_shown_as_a_mix() {
    let alias = |ttl| vec![cname("a.test", ttl, "b.test"), a("b.test", ttl, [192, 0, 2, 1])];
    let address = |ttl| vec![a("a.test", ttl, [192, 0, 2, 2])];
    for (before, after) in [(alias as Shape, address as Shape), (address, alias)] {
        let upstream = Upstream::new(move |seen| Reply::to(seen).answers(before(1)).now());
        let agent = Agent::start(&Config::new(&upstream).cache("serve_stale: { client_timeout: 0s }"));
        let first = ask(agent.addr(), "a.test", A);
        upstream.set(move |seen| Reply::to(seen).answers(after(60)).now());
        until(first.at + millis(1500));
        let stale = ask(agent.addr(), "a.test", A);
        assert_eq!(shape(stale.assert_ede(&[STALE_ANSWER])), shape(&first));
        let refresh = upstream.wait_for_name("a.test", A, 2);
        until(refresh[1].at + millis(300));
        let fresh = ask(agent.addr(), "a.test", A);
        let expected: Vec<_> = after(60).into_iter().map(|it| (it.owner_text(), it.rtype, it.rdata)).collect();
        assert_eq!(shape(fresh.assert_ede(&[])), expected);
        assert_eq!(
            fresh.of_type(CNAME).first().map(|it| it.rdata.clone()),
            (expected.len() == 2).then(|| name("b.test"))
        );
    }
}

// S18
#[test]
fn a_stale_answer_is_no_longer_authentic() {
    let upstream = Upstream::new(|seen| encoded_reply(seen, 1).flag(AD).now());
    let agent = Agent::start(&Config::new(&upstream).cache(IMPATIENT));
    let questions = [
        Ask::new("a.test", A).authentic_data(),
        Ask::new("a.test", A).dnssec_ok(),
        Ask::new("a.test", A).authentic_data().dnssec_ok(),
    ];
    let mut last = None;
    for question in &questions {
        let answer = question.send(agent.addr());
        assert!(answer.has(AD), "{answer:?}");
        last = Some(answer.at);
    }
    upstream.set(silent);
    until(last.expect("something was asked") + millis(1500));
    for question in &questions {
        let stale = question.send(agent.addr());
        assert!(!stale.assert_encodes("a.test").assert_ede(&[STALE_ANSWER]).has(AD), "{stale:?}");
    }
}

// S24
#[test]
fn stale_answers_are_stripped_of_ipv6_as_fresh_ones_are() {
    // RFC 9460 section 7.3: priority 1, target the owner, ipv6hint (key 6) of one address.
    let mut service = vec![0, 1, 0, 0, 6, 0, 16];
    service.extend([0xfd; 16]);
    let upstream = Upstream::new(move |seen| match seen.rtype {
        HTTPS => Reply::to(seen).answer(Rr::new(&seen.name, HTTPS, 1, service.clone())).now(),
        _ if seen.name == "gone.test" => nodata(seen).rcode(NXDOMAIN).now(),
        _ => encoded_reply(seen, 1).now(),
    });
    let agent = Agent::start(&Config::new(&upstream).top("aaaa", "strip").cache(IMPATIENT));
    let check = |ede: &[u16]| {
        let stripped = ask(agent.addr(), "a.test", AAAA);
        stripped.assert_nodata();
        assert!(stripped.soa().is_some(), "{stripped:?}");
        ask(agent.addr(), "a.test", A).assert_encodes("a.test").assert_ede(ede);
        let service = ask(agent.addr(), "a.test", HTTPS);
        assert_eq!(service.of_type(HTTPS)[0].rdata, [0, 1, 0], "the hint is gone");
        assert_eq!(service.ede().contains(&STALE_ANSWER), !ede.is_empty(), "{service:?}");
        service.at
    };
    let last = check(&[]);
    upstream.set(silent);
    until(last + seconds(2));
    check(&[STALE_ANSWER]);
    assert!(agent.is_alive());
}
