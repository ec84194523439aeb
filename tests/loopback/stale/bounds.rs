//! How long stale answers last, and what they do where places are few.
//!
//! Read first: RFC 8767 section 4.

use crate::support::agent::Agent;
use crate::support::client::{Ask, ask, ask_at_once};
use crate::support::config::Config;
use crate::support::octets::{A, NO_REACHABLE_AUTHORITY, SERVFAIL, STALE_ANSWER};
use crate::support::upstream::{Upstream, delayed, encoded, silent};
use crate::support::{millis, seconds, until};

// S10
#[test]
fn a_stale_answer_is_gone_after_max_stale() {
    let upstream = Upstream::new(encoded(1));
    let config = Config::new(&upstream).cache("serve_stale: { max_stale: 3s, client_timeout: 200ms }");
    let agent = Agent::start(&config);
    let first = ask(agent.addr(), "a.test", A);
    upstream.set(silent);
    until(first.at + seconds(3));
    ask(agent.addr(), "a.test", A).assert_encodes("a.test").assert_ede(&[STALE_ANSWER]);
    until(first.at + millis(4300));
    let gone = ask(agent.addr(), "a.test", A);
    gone.assert_rcode(SERVFAIL);
    assert!(gone.ede().contains(&NO_REACHABLE_AUTHORITY) && !gone.ede().contains(&STALE_ANSWER), "{gone:?}");
}

// S22
#[test]
fn without_serve_stale_an_expired_answer_is_no_answer() {
    let upstream = Upstream::new(encoded(1));
    let agent = Agent::start(&Config::new(&upstream).cache("serve_stale: { max_stale: 0s }"));
    let first = ask(agent.addr(), "a.test", A);
    upstream.set(silent);
    until(first.at + millis(1200));
    let gone = ask(agent.addr(), "a.test", A);
    gone.assert_rcode(SERVFAIL);
    assert!(gone.ede().contains(&NO_REACHABLE_AUTHORITY) && !gone.ede().contains(&STALE_ANSWER), "{gone:?}");
}

// S20
#[test]
fn stale_names_are_answered_when_every_place_is_taken() {
    let upstream = Upstream::new(encoded(1));
    let agent = Agent::start(&Config::new(&upstream).limits("in_flight: 10, in_flight_per_client: 10"));
    let names: Vec<String> = (0..20).map(|number| format!("n{number}.test")).collect();
    let questions: Vec<Ask> = names.iter().map(|name| Ask::new(name, A)).collect();
    for question in &questions {
        question.send(agent.addr());
    }
    let last = std::time::Instant::now();
    upstream.set(delayed(seconds(3), encoded(60)));
    until(last + millis(1200));
    for (answer, name) in ask_at_once(agent.addr(), &questions).iter().zip(&names) {
        answer.assert_encodes(name).assert_ede(&[STALE_ANSWER]);
    }
    assert!(agent.is_alive());
}

// S20
#[test]
fn many_askers_of_one_stale_name_are_all_answered() {
    let upstream = Upstream::new(encoded(1));
    let agent = Agent::start(&Config::new(&upstream).limits("in_flight: 10, in_flight_per_client: 10"));
    let first = ask(agent.addr(), "a.test", A);
    upstream.set(delayed(seconds(3), encoded(60)));
    until(first.at + millis(1200));
    let questions: Vec<Ask> = (0..20).map(|_| Ask::new("a.test", A)).collect();
    for answer in ask_at_once(agent.addr(), &questions) {
        answer.assert_encodes("a.test").assert_ede(&[STALE_ANSWER]);
    }
    assert!(agent.is_alive());
}
