//! What does not exist, and for how long.
//!
//! Read first: RFC 2308 sections 2, 3 and 5.

use crate::support::agent::Agent;
use crate::support::client::ask;
use crate::support::config::Config;
use crate::support::octets::{A, AAAA, CNAME, NOERROR, NXDOMAIN, cname, name, soa};
use crate::support::upstream::{Reply, Upstream, encoded, encoded_reply, nodata};
use crate::support::{millis, until};

// C18
#[test]
fn an_alias_of_a_missing_name_is_cached_whole() {
    let upstream = Upstream::new(|seen| {
        let (alias, end) = match &*seen.name {
            "minimum.test" => (300, soa("test", 300, 2)),
            "soa.test" => (300, soa("test", 2, 300)),
            _ => (2, soa("test", 300, 300)),
        };
        Reply::to(seen).rcode(NXDOMAIN).answer(cname(&seen.name, alias, "gone.test")).authority(end).now()
    });
    let agent = Agent::start(&Config::new(&upstream));
    let names = ["minimum.test", "soa.test", "alias.test"];
    let mut last = None;
    for alias in names {
        for _ in 0..2 {
            let answer = ask(agent.addr(), alias, A);
            answer.assert_rcode(NXDOMAIN);
            assert_eq!(answer.of_type(CNAME)[0].rdata, name("gone.test"));
            assert!(answer.soa().is_some_and(|soa| soa.ttl <= 2 || alias == "alias.test"), "{answer:?}");
            last = Some(answer.at);
        }
        assert_eq!(upstream.count_of(alias, A), 1, "{}", upstream.history());
    }
    until(last.expect("something was asked") + millis(2100));
    for alias in names {
        ask(agent.addr(), alias, A).assert_rcode(NXDOMAIN);
        assert_eq!(upstream.count_of(alias, A), 2, "{alias}: {}", upstream.history());
    }
}

// C19
#[test]
fn an_alias_without_the_type_asked_for_is_nodata() {
    let upstream = Upstream::new(|seen| {
        Reply::to(seen).answer(cname(&seen.name, 300, "b.test")).authority(soa("test", 300, 2)).now()
    });
    let agent = Agent::start(&Config::new(&upstream));
    let mut last = None;
    for _ in 0..2 {
        let answer = ask(agent.addr(), "a.test", A);
        answer.assert_rcode(NOERROR);
        assert_eq!((answer.answers.len(), answer.of_type(CNAME).len()), (1, 1), "{answer:?}");
        assert!(answer.soa().is_some_and(|soa| soa.ttl <= 2), "{answer:?}");
        last = Some(answer.at);
    }
    assert_eq!(upstream.count_of("a.test", A), 1, "{}", upstream.history());
    until(last.expect("something was asked") + millis(2100));
    ask(agent.addr(), "a.test", A);
    assert_eq!(upstream.count_of("a.test", A), 2, "kept as negative, not for the 300 s of the alias");
}

// C21
#[test]
fn nxdomain_lives_as_long_as_the_soa_minimum_says() {
    let upstream = Upstream::new(|seen| Reply::to(seen).rcode(NXDOMAIN).authority(soa("test", 300, 3)).now());
    let agent = Agent::start(&Config::new(&upstream));
    let first = ask(agent.addr(), "a.test", A);
    first.assert_rcode(NXDOMAIN);
    // RFC 2308 section 3: the SOA shows the lesser of its TTL and MINIMUM.
    assert_eq!(first.ttl(), 3);
    until(first.at + millis(1100));
    let second = ask(agent.addr(), "a.test", A);
    assert!(second.assert_rcode(NXDOMAIN).ttl() <= 2, "{second:?}");
    assert_eq!(upstream.count_of("a.test", A), 1, "{}", upstream.history());
    until(first.at + millis(3100));
    assert_eq!(ask(agent.addr(), "a.test", A).assert_rcode(NXDOMAIN).assert_ede(&[]).ttl(), 3);
    assert_eq!(upstream.count_of("a.test", A), 2, "{}", upstream.history());
}

// C21
#[test]
fn negative_answers_are_gone_after_max_negative_ttl() {
    let upstream = Upstream::new(|seen| match &*seen.name {
        "gone.test" => Reply::to(seen).rcode(NXDOMAIN).authority(soa("test", 86_400, 86_400)).now(),
        _ => Reply::to(seen).authority(soa("test", 86_400, 86_400)).now(),
    });
    let agent = Agent::start(&Config::new(&upstream).cache("max_negative_ttl: 2s"));
    let gone = ask(agent.addr(), "gone.test", A);
    assert_eq!(gone.assert_rcode(NXDOMAIN).ttl(), 2);
    let empty = ask(agent.addr(), "empty.test", A);
    assert_eq!(empty.assert_nodata().ttl(), 2);
    until(empty.at + millis(2100));
    ask(agent.addr(), "gone.test", A).assert_rcode(NXDOMAIN);
    ask(agent.addr(), "empty.test", A).assert_nodata();
    assert_eq!(["gone.test", "empty.test"].map(|it| upstream.count_of(it, A)), [2, 2], "{}", upstream.history());
}

// C21
#[test]
fn negative_answers_live_an_hour_at_most_by_default() {
    let upstream = Upstream::new(|seen| Reply::to(seen).rcode(NXDOMAIN).authority(soa("test", 86_400, 86_400)).now());
    let agent = Agent::start(&Config::new(&upstream));
    for _ in 0..2 {
        ask(agent.addr(), "a.test", A).assert_rcode(NXDOMAIN).assert_ttl_near(3600);
    }
    assert_eq!(upstream.count_of("a.test", A), 1);
}

// C22
#[test]
fn nodata_for_one_type_leaves_the_others_alone() {
    let upstream = Upstream::new(|seen| match seen.rtype {
        AAAA => nodata(seen).now(),
        _ => encoded_reply(seen, 60).now(),
    });
    let agent = Agent::start(&Config::new(&upstream));
    for _ in 0..2 {
        ask(agent.addr(), "a.test", AAAA).assert_nodata().assert_ttl_near(60);
        ask(agent.addr(), "a.test", A).assert_encodes("a.test");
    }
    assert_eq!([A, AAAA].map(|it| upstream.count_of("a.test", it)), [1, 1], "{}", upstream.history());
}

// C23
#[test]
fn negative_answers_without_soa_are_relayed_and_forgotten() {
    let upstream = Upstream::new(|seen| {
        let rcode = if seen.name == "gone.test" { NXDOMAIN } else { NOERROR };
        Reply::to(seen).rcode(rcode).now()
    });
    let agent = Agent::start(&Config::new(&upstream));
    for asked in 1..=2 {
        let gone = ask(agent.addr(), "gone.test", A);
        assert!(gone.assert_rcode(NXDOMAIN).answers.is_empty());
        ask(agent.addr(), "empty.test", A).assert_nodata();
        for name in ["gone.test", "empty.test"] {
            assert_eq!(upstream.count_of(name, A), asked, "{name}: {}", upstream.history());
        }
    }
}

// C25
#[test]
fn a_parents_nxdomain_never_hides_a_routed_zone() {
    let parent = Upstream::new(|seen| Reply::to(seen).rcode(NXDOMAIN).authority(soa("test", 60, 60)).now());
    let child = Upstream::new(encoded(60));
    let config =
        Config::new(&parent).upstream("child", &[child.address()], "").zone("sub.corp.test", "{ upstream: child }");
    let agent = Agent::start(&config);
    ask(agent.addr(), "corp.test", A).assert_rcode(NXDOMAIN);
    ask(agent.addr(), "x.sub.corp.test", A).assert_encodes("x.sub.corp.test");
    ask(agent.addr(), "sub.corp.test", A).assert_encodes("sub.corp.test");
    // Nor does it speak for names of its own that nobody asked for (no RFC 8020 cut).
    parent.set(encoded(60));
    ask(agent.addr(), "x.corp.test", A).assert_encodes("x.corp.test");
    assert_eq!(parent.count_of("x.sub.corp.test", A), 0);
}
