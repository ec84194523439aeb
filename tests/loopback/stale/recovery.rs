//! How often a dead upstream is asked, and how its return shows.
//!
//! Read first: RFC 8767 section 5, on the failure recheck timer.

use crate::support::agent::Agent;
use crate::support::client::{Ask, ask, ask_at_once};
use crate::support::config::Config;
use crate::support::octets::{A, NOERROR, SERVFAIL, STALE_ANSWER};
use crate::support::upstream::{Seen, Upstream, changing, delayed, encoded, failing, silent};
use crate::support::{fresh_address, millis, until};

// S08
#[test]
fn a_silent_upstream_is_waited_for_once_and_asked_once_in_a_while() {
    let upstream = Upstream::new(encoded(1));
    let agent = Agent::start(&Config::new(&upstream));
    let first = ask(agent.addr(), "a.test", A);
    upstream.set(silent);
    until(first.at + millis(1500));
    let waited = ask(agent.addr(), "a.test", A);
    waited.assert_encodes("a.test").assert_ede(&[STALE_ANSWER]);
    // A thousand in what is left of 9 s: the resolution of 4 s ends, and recheck (30 s) has not come.
    for tick in 1..=1000 {
        until(waited.at + millis(7) * tick);
        let stale = ask(agent.addr(), "a.test", A);
        stale.assert_encodes("a.test").assert_ede(&[STALE_ANSWER]);
        assert!(stale.elapsed < millis(1000), "number {tick} waited {:?} again", stale.elapsed);
    }
    let late: Vec<Seen> =
        upstream.seen_of("a.test", A).into_iter().filter(|it| it.at > waited.asked + millis(4500)).collect();
    assert!(late.is_empty(), "one resolution until recheck: {}", upstream.history());
}

// S08
#[test]
fn a_failing_upstream_is_asked_once_in_a_while() {
    let upstream = Upstream::new(encoded(1));
    let agent = Agent::start(&Config::new(&upstream).cache("serve_stale: { recheck: 2s }"));
    let first = ask(agent.addr(), "a.test", A);
    upstream.set(failing(SERVFAIL));
    until(first.at + millis(1200));
    let start = ask(agent.addr(), "a.test", A).assert_ede(&[STALE_ANSWER]).at;
    let one_resolution = upstream.count_of("a.test", A) - 1;
    for tick in 1..=120 {
        until(start + millis(50) * tick);
        ask(agent.addr(), "a.test", A).assert_encodes("a.test").assert_ede(&[STALE_ANSWER]);
    }
    // 6 s: the one at the start, and one after each 2 s.
    let asked = upstream.count_of("a.test", A) - 1;
    assert!((2 * one_resolution..=4 * one_resolution).contains(&asked), "{}", upstream.history());
}

// S09
#[test]
fn an_upstream_that_is_back_answers_the_first_query_after_recheck() {
    let upstream = Upstream::new(changing(1));
    let agent = Agent::start(&Config::new(&upstream).cache("serve_stale: { recheck: 1s }"));
    let first = ask(agent.addr(), "a.test", A);
    upstream.set(silent);
    until(first.at + millis(1500));
    let stale = ask(agent.addr(), "a.test", A);
    stale.assert_address([192, 0, 2, 1]).assert_ede(&[STALE_ANSWER]);
    // The resolution gives up 4 s after it began; recheck, as the probes of a silent server, is a second later.
    until(stale.asked + millis(4200));
    upstream.set(encoded(60));
    until(stale.asked + millis(5700));
    ask(agent.addr(), "a.test", A).assert_encodes("a.test").assert_ede(&[]).assert_ttl_near(60);
    ask(agent.addr(), "a.test", A).assert_encodes("a.test").assert_ede(&[]);
}

// S26. The full size, 50,000 names after ten minutes, is the load test's.
#[test]
fn an_upstream_that_is_back_is_not_run_over() {
    const NAMES: usize = 1500;
    const PLACES: usize = 50;
    const DELAY: u64 = 100;
    let upstream = Upstream::new(encoded(1));
    let limits = format!("in_flight: {PLACES}, in_flight_per_client: {PLACES}");
    let agent = Agent::start(&Config::new(&upstream).limits(&limits));
    let source = fresh_address();
    let questions: Vec<Ask> = (0..NAMES).map(|it| Ask::new(&format!("n{it}.test"), A).from(source)).collect();
    let primed = crate::support::client::ask_many(agent.addr(), questions.clone(), 20);
    assert_eq!(primed.len(), NAMES);
    upstream.set(delayed(millis(DELAY), encoded(60)));
    let last = primed.iter().map(|it| it.at).max().expect("all were asked");
    until(last + millis(1200));
    let start = std::time::Instant::now();
    for answer in ask_at_once(agent.addr(), &questions) {
        let name = crate::support::octets::text(&answer.question[..answer.question.len() - 4]);
        answer.assert_rcode(NOERROR).assert_encodes(&name);
    }
    // A place is taken for as long as the upstream thinks: no more can ask within that time.
    let asked: Vec<_> = upstream.seen().into_iter().map(|it| it.at).filter(|at| *at > start).collect();
    let most =
        asked.iter().map(|from| asked.iter().filter(|at| (*from..*from + millis(DELAY - 10)).contains(at)).count());
    let most = most.max().unwrap_or_default();
    assert!((1..=PLACES).contains(&most), "{most} at once through {PLACES} places");
}
