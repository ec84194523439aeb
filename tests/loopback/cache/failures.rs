//! Failures: remembered for seconds, never in the place of an answer, and never our own.
//!
//! Read first: RFC 9520 section 3, RFC 2308 section 7.

use crate::support::agent::Agent;
use crate::support::client::{Ask, ask};
use crate::support::config::Config;
use crate::support::octets::{A, CACHED_ERROR, FORMERR, NOTIMP, REFUSED, SERVFAIL, STALE_ANSWER};
use crate::support::upstream::{Reply, Upstream, encoded, encoded_reply, failing, silent};
use crate::support::{millis, seconds, until};

// C28
#[test]
fn a_failure_is_remembered_for_its_time_and_no_longer() {
    let upstream = Upstream::new(failing(SERVFAIL));
    let agent = Agent::start(&Config::new(&upstream));
    let first = ask(agent.addr(), "a.test", A);
    first.assert_rcode(SERVFAIL);
    let asked = upstream.count_of("a.test", A);
    until(first.at + seconds(1));
    ask(agent.addr(), "a.test", A).assert_rcode(SERVFAIL).assert_ede(&[CACHED_ERROR]);
    assert_eq!(upstream.count_of("a.test", A), asked, "{}", upstream.history());
    upstream.set(encoded(60));
    until(first.at + seconds(6));
    ask(agent.addr(), "a.test", A).assert_encodes("a.test").assert_ede(&[]);
}

// C29
#[test]
fn a_failure_of_another_key_hides_no_answer() {
    let upstream = Upstream::new(encoded(60));
    let agent = Agent::start(&Config::new(&upstream));
    ask(agent.addr(), "a.test", A).assert_encodes("a.test");
    upstream.set(failing(SERVFAIL));
    Ask::new("a.test", A).dnssec_ok().send(agent.addr()).assert_rcode(SERVFAIL);
    Ask::new("a.test", A).checking_disabled().send(agent.addr()).assert_rcode(SERVFAIL);
    ask(agent.addr(), "a.test", A).assert_encodes("a.test").assert_ede(&[]).assert_ttl_near(60);
}

// C29
#[test]
fn a_failed_prefetch_hides_no_answer() {
    let upstream = Upstream::new(encoded(3));
    let agent = Agent::start(&Config::new(&upstream).cache("prefetch: { hits: 2, at: 90% }"));
    let first = ask(agent.addr(), "a.test", A);
    upstream.set(failing(SERVFAIL));
    until(first.at + seconds(1));
    for _ in 0..3 {
        ask(agent.addr(), "a.test", A).assert_encodes("a.test");
    }
    upstream.wait_for_name("a.test", A, 2);
    for _ in 0..3 {
        ask(agent.addr(), "a.test", A).assert_encodes("a.test").assert_ede(&[]);
    }
    until(first.at + millis(3200));
    for _ in 0..2 {
        ask(agent.addr(), "a.test", A).assert_encodes("a.test").assert_ede(&[STALE_ANSWER]);
    }
}

// C31
#[test]
fn what_we_shed_is_asked_for_as_soon_as_there_is_room() {
    let upstream = Upstream::new(silent);
    let agent = Agent::start(&Config::new(&upstream).limits("in_flight: 5, in_flight_per_client: 5"));
    let names: Vec<String> = (0..20).map(|number| format!("n{number}.test")).collect();
    let pending: Vec<_> = names.iter().map(|name| Ask::new(name, A).sender(agent.addr())).collect();
    upstream.wait_where(5, seconds(2), |_| true);
    // Whoever got no place has been turned away by now, or will never hear of us.
    let answers: Vec<_> = pending.iter().map(|it| it.receive_octets(millis(100))).collect();
    let shed: Vec<&String> = names.iter().filter(|name| upstream.count_of(name, A) == 0).collect();
    assert_eq!(shed.len(), 15, "five places for twenty: {}", upstream.history());
    for (octets, name) in answers.iter().zip(&names) {
        let Some(octets) = octets else { continue };
        assert!(shed.contains(&name), "only what was shed is answered while the upstream is silent");
        assert_eq!(octets[3] & 15, SERVFAIL as u8, "never REFUSED: it ends the search of stub resolvers");
    }
    upstream.set(encoded(60));
    // The five are asked again soon enough, get their answers and make room.
    for (pending, name) in pending.into_iter().zip(&names).filter(|(_, name)| !shed.contains(name)) {
        pending.receive().assert_encodes(name);
    }
    for name in shed {
        ask(agent.addr(), name, A).assert_encodes(name).assert_ede(&[]);
    }
}

// C32
#[test]
fn the_next_server_is_asked_when_one_declines() {
    for rcode in [REFUSED, NOTIMP, FORMERR] {
        let declining = Upstream::new(failing(rcode));
        let good = Upstream::new(encoded(60));
        let agent = Agent::start(&Config::with_servers(&[declining.address(), good.address()], ""));
        ask(agent.addr(), "a.test", A).assert_encodes("a.test");
        ask(agent.addr(), "b.test", A).assert_encodes("b.test");
        assert!(declining.count_of("a.test", A) > 0, "it was asked first");
    }
}

// C32
#[test]
fn what_all_servers_say_is_relayed_and_soon_forgotten() {
    let script = |seen: &crate::support::upstream::Seen| {
        let rcode = match &*seen.name {
            "refused.test" => REFUSED,
            "notimp.test" => NOTIMP,
            _ => FORMERR,
        };
        Reply::to(seen).rcode(rcode).now()
    };
    let both = [Upstream::new(script), Upstream::new(script)];
    let servers = both.each_ref().map(Upstream::address);
    let agent = Agent::start(&Config::with_servers(&servers, "").cache("failure_ttl: 1s"));
    let mut last = None;
    for (name, rcode) in [("refused.test", REFUSED), ("notimp.test", NOTIMP), ("formerr.test", FORMERR)] {
        for _ in 0..2 {
            let answer = ask(agent.addr(), name, A);
            assert!(answer.assert_rcode(rcode).answers.is_empty());
            last = Some(answer.at);
        }
        assert!(both.iter().all(|it| it.count_of(name, A) > 0), "{name}: both are asked");
    }
    for upstream in &both {
        upstream.set(|seen| encoded_reply(seen, 60).now());
    }
    until(last.expect("something was asked") + millis(1200));
    for name in ["refused.test", "notimp.test", "formerr.test"] {
        ask(agent.addr(), name, A).assert_encodes(name);
    }
}
