//! Area Q: many askers, one question upstream; and nobody stuck behind it.
//!
//! Read first: RFC 5452 section 5, RFC 9520 section 3.

use std::time::{Duration, Instant};

use crate::support::agent::Agent;
use crate::support::client::{Ask, ask, ask_at_once, ask_many, receive_datagram, udp_socket};
use crate::support::config::Config;
use crate::support::octets::{A, AAAA, CACHED_ERROR, CH, REFUSED, SERVFAIL, TC, a};
use crate::support::upstream::{
    Reply, Seen, Transport, Upstream, address6_of, delayed, encoded, encoded_reply, failing, silent, truncating,
};
use crate::support::{fresh_address, millis, until};

// Q01
#[test]
fn a_thousand_askers_make_one_question() {
    let upstream = Upstream::new(delayed(millis(200), encoded(60)));
    let agent = Agent::start(&Config::new(&upstream));
    // One source may wait for 256 answers.
    let sources: Vec<_> = (0..10).map(|_| fresh_address()).collect();
    let questions: Vec<Ask> = (0..1000_usize)
        .map(|number| {
            let letters = "www.a.test"
                .char_indices()
                .map(|(at, letter)| if number >> at & 1 == 1 { letter.to_ascii_uppercase() } else { letter });
            let question = Ask::new(&letters.collect::<String>(), A).from(sources[number / 100]);
            match number % 4 {
                0 => question.plain(),
                1 => question.size(512),
                2 => question.authentic_data(),
                _ => question.size(4096),
            }
        })
        .collect();
    // ID, letters, question and OPT are checked of every answer the client reads.
    for answer in ask_at_once(agent.addr(), &questions) {
        answer.assert_encodes("www.a.test");
    }
    assert_eq!(upstream.questions_of("www.a.test", A).len(), 1, "{}", upstream.history());
}

// Q02
#[test]
fn a_lost_datagram_is_sent_again_before_the_client_notices() {
    let upstream = Upstream::new(|seen| if seen.nth == 0 { Vec::new() } else { encoded_reply(seen, 60).now() });
    let agent = Agent::start(&Config::new(&upstream));
    let answer = ask(agent.addr(), "a.test", A);
    assert!(answer.assert_encodes("a.test").elapsed < millis(1300), "{:?}", answer.elapsed);
    let seen = upstream.seen_of("a.test", A);
    assert_eq!(seen.len(), 2, "{}", upstream.history());
    // 500 ms are allowed; a busy test machine gets more.
    assert!(seen[1].at - seen[0].at < millis(900), "{}", upstream.history());
}

// Q02
#[test]
fn a_clients_retry_never_rides_a_dead_query() {
    let upstream = Upstream::new(silent);
    let agent = Agent::start(&Config::new(&upstream));
    let first = Ask::new("a.test", A).sender(agent.addr());
    upstream.wait_for_name("a.test", A, 1);
    until(first.start + millis(950));
    upstream.set(encoded(60));
    until(first.start + millis(1000));
    let retry = ask(agent.addr(), "a.test", A);
    assert!(retry.assert_encodes("a.test").elapsed < millis(900), "{:?}", retry.elapsed);
    first.receive().assert_encodes("a.test");
}

// Q03
#[test]
fn only_equal_questions_are_merged() {
    let upstream = Upstream::new(delayed(millis(300), encoded(60)));
    let agent = Agent::start(&Config::new(&upstream));
    let variants = || {
        [
            Ask::new("a.test", A),
            Ask::new("a.test", A).dnssec_ok(),
            Ask::new("a.test", A).checking_disabled(),
            Ask::new("a.test", A).checking_disabled().dnssec_ok(),
            Ask::new("a.test", AAAA),
            Ask::new("a.test", A).class(CH),
        ]
    };
    let answers = ask_at_once(agent.addr(), &[variants(), variants()].concat());
    for answer in answers.chunks(6) {
        for positive in &answer[..4] {
            positive.assert_encodes("a.test");
        }
        assert_eq!(answer[4].ipv6(), [address6_of("a.test")]);
        answer[5].assert_rcode(REFUSED);
    }
    assert_eq!([A, AAAA].map(|it| upstream.questions_of("a.test", it).len()), [4, 1], "{}", upstream.history());
}

// Q04
#[test]
fn ten_thousand_of_one_question_from_one_client_cost_nobody_else_anything() {
    let upstream =
        Upstream::new(|seen| if seen.name == "silent.test" { Vec::new() } else { encoded_reply(seen, 60).now() });
    let agent = Agent::start(&Config::new(&upstream));
    ask(agent.addr(), "warm.test", A).assert_encodes("warm.test");
    let before = agent.rss();
    let flood = udp_socket(agent.addr(), Some(fresh_address()));
    for number in 0..10_000_u16 {
        flood.send(&Ask::new("silent.test", A).id(number).octets()).expect("loopback takes it");
        if number % 1000 == 999 {
            let name = format!("n{number}.test");
            Ask::new(&name, A).from(fresh_address()).send(agent.addr()).assert_encodes(&name);
        }
    }
    // 1,024 waiters of 1 KiB each would be 1 MiB, and all of them 10.
    let grown = agent.rss().saturating_sub(before);
    assert!(grown < 6 << 20, "{grown} bytes more");
    // One resolution: it is sent again, but not once for each asker.
    assert!(upstream.count_of("silent.test", A) <= 20, "{}", upstream.history());
    ask(agent.addr(), "warm.test", A).assert_encodes("warm.test");
}

// Q06
#[test]
fn a_hundred_askers_share_one_failure() {
    let upstream = Upstream::new(delayed(millis(100), failing(SERVFAIL)));
    let agent = Agent::start(&Config::new(&upstream));
    ask(agent.addr(), "alone.test", A).assert_rcode(SERVFAIL);
    let one_resolution = upstream.count_of("alone.test", A);
    let questions: Vec<Ask> = (0..100).map(|_| Ask::new("a.test", A)).collect();
    for answer in ask_at_once(agent.addr(), &questions) {
        answer.assert_rcode(SERVFAIL);
    }
    ask(agent.addr(), "a.test", A).assert_rcode(SERVFAIL).assert_ede(&[CACHED_ERROR]);
    assert_eq!(upstream.count_of("a.test", A), one_resolution, "{}", upstream.history());
}

// Q07
#[test]
fn askers_of_one_flight_are_each_cut_to_their_size() {
    let upstream = Upstream::new(delayed(
        millis(200),
        truncating(|seen: &Seen| Reply::to(seen).answers((0..190).map(|it| a(&seen.name, 60, [10, 0, 0, it]))).now()),
    ));
    let agent = Agent::start(&Config::new(&upstream));
    let over_udp = [Ask::new("a.test", A).plain(), Ask::new("a.test", A).size(512), Ask::new("a.test", A)];
    std::thread::scope(|scope| {
        let over_tcp = scope.spawn(|| Ask::new("a.test", A).tcp().send(agent.addr()));
        let answers = ask_at_once(agent.addr(), &over_udp);
        for (answer, limit) in answers.iter().zip([512, 512, 1232]) {
            assert!(answer.has(TC) && answer.octets.len() <= limit, "{} octets for {limit}", answer.octets.len());
        }
        let whole = over_tcp.join().expect("the asker does not panic");
        assert!(whole.octets.len() > 3000 && whole.ipv4().len() == 190 && !whole.has(TC));
    });
    let asked: Vec<Transport> = upstream.questions_of("a.test", A).iter().map(|it| it.transport).collect();
    assert_eq!(asked, [Transport::Udp, Transport::Tcp], "{}", upstream.history());
}

// Q09. The pace of 200 queries a second is the case.
#[test]
fn refreshes_and_misses_of_a_name_never_ask_side_by_side() {
    const DELAY: Duration = millis(150);
    let upstream = Upstream::new(delayed(DELAY, encoded(2)));
    let agent = Agent::start(&Config::new(&upstream).cache("prefetch: { hits: 2, at: 60% }"));
    let start = ask(agent.addr(), "a.test", A).at;
    for tick in 1..=900 {
        // A pause of 2.5 s lets the name go stale in between.
        let pause = if tick > 450 { millis(2500) } else { millis(0) };
        until(start + millis(5) * tick + pause);
        ask(agent.addr(), "a.test", A).assert_encodes("a.test").assert_ede(&[]);
    }
    let asked: Vec<Instant> = upstream.questions_of("a.test", A).iter().map(|it| it.at).collect();
    assert!(asked.len() >= 4, "{}", upstream.history());
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= DELAY), "{}", upstream.history());
}

/// Fifty names of one round.
fn names(round: &str) -> Vec<String> {
    (0..50).map(|it| format!("{round}{it}.test")).collect()
}

// Q10. A million cycles are the soak's.
#[test]
fn places_are_free_again_once_nobody_can_answer() {
    let upstream = Upstream::new(encoded(60));
    let agent = Agent::start(&Config::new(&upstream).limits("in_flight: 50, in_flight_per_client: 50"));
    let questions = |round: &str| names(round).iter().map(|name| Ask::new(name, A)).collect::<Vec<_>>();
    for answer in ask_at_once(agent.addr(), &questions("warm")) {
        answer.assert_rcode(0);
    }
    for round in ["x", "y"] {
        // Answers come half a second after the agent has given up.
        upstream.set(delayed(millis(4500), encoded(60)));
        for answer in ask_at_once(agent.addr(), &questions(round)) {
            answer.assert_rcode(SERVFAIL);
        }
        upstream.set(encoded(60));
        // Fifty places for fifty names: one still taken would be one failure.
        let fresh = format!("fresh-{round}");
        for (answer, name) in ask_at_once(agent.addr(), &questions(&fresh)).iter().zip(names(&fresh)) {
            answer.assert_encodes(&name);
        }
    }
    let socket = udp_socket(agent.addr(), None);
    assert!(receive_datagram(&socket, millis(10)).is_none(), "nothing is sent unasked");
    assert_eq!(ask_many(agent.addr(), questions("fresh-y"), 10).len(), 50);
}
