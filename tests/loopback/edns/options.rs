//! Options are for one hop: none crosses us but what we mean to say ourselves.
//!
//! Read first: RFC 6891 section 6.2.6, RFC 7828, RFC 7871 section 11.1.

use crate::support::agent::Agent;
use crate::support::client::{Ask, ask, ask_at_once};
use crate::support::config::Config;
use crate::support::millis;
use crate::support::octets::{A, CLIENT_SUBNET, COOKIE, EXTENDED_ERROR, FORMERR, KEEPALIVE, NSID, PADDING};
use crate::support::upstream::{Upstream, delayed, encoded, encoded_reply};

// E07
#[test]
fn one_clients_options_never_reach_another() {
    let upstream = Upstream::new(delayed(millis(100), encoded(60)));
    let agent = Agent::start(&Config::new(&upstream));
    let chatty = || Ask::new("a.test", A).option(COOKIE, b"8 octets").option(NSID, b"").option(PADDING, &[0; 64]);
    let askers = || [chatty(), Ask::new("a.test", A).plain(), Ask::new("a.test", A)];
    // Once behind one flight, once from the cache.
    for _ in 0..2 {
        let answers = ask_at_once(agent.addr(), &askers());
        for answer in &answers {
            answer.assert_encodes("a.test");
        }
        assert!(answers[1].opt().is_none());
        let opt = answers[2].opt().expect("one in, one out");
        assert!(opt.options.is_empty(), "{opt:?}");
    }
    assert_eq!(upstream.count_of("a.test", A), 1);
}

// E08
#[test]
fn no_option_of_a_client_reaches_an_upstream() {
    let upstream = Upstream::new(encoded(60));
    let agent = Agent::start(&Config::new(&upstream));
    for transport in ["udp", "tcp"] {
        let name = format!("{transport}.test");
        let mut question = Ask::new(&name, A)
            .option(COOKIE, b"8 octets")
            .option(CLIENT_SUBNET, &[0, 1, 24, 0, 192, 0, 2])
            .option(KEEPALIVE, &[])
            .option(PADDING, &[0; 32])
            .option(65_001, b"local");
        if transport == "tcp" {
            question = question.tcp();
        }
        question.send(agent.addr()).assert_encodes(&name);
    }
    for seen in upstream.seen() {
        let opt = seen.opt().expect("we speak EDNS to upstreams");
        assert!(opt.options.is_empty(), "{opt:?}");
        assert_eq!(seen.message.additionals.len(), 0);
    }
}

// E09
#[test]
fn no_option_of_an_upstream_reaches_a_client_but_its_explanation() {
    let upstream = Upstream::new(|seen| {
        encoded_reply(seen, 60)
            .option(COOKIE, b"16 octets of it.")
            .option(NSID, b"ns1")
            .option(CLIENT_SUBNET, &[0, 1, 24, 24, 192, 0, 2])
            .option(PADDING, &[0; 32])
            .option(EXTENDED_ERROR, &[0, 15, b'n', b'o'])
            .now()
    });
    let agent = Agent::start(&Config::new(&upstream));
    for _ in 0..2 {
        let answer = ask(agent.addr(), "a.test", A);
        let opt = answer.assert_encodes("a.test").opt().expect("one in, one out");
        let strange: Vec<u16> = opt.options.iter().map(|it| it.0).filter(|it| *it != EXTENDED_ERROR).collect();
        assert!(strange.is_empty(), "{opt:?}");
        assert!(Ask::new("a.test", A).plain().send(agent.addr()).opt().is_none());
    }
}

// E17
#[test]
fn keepalive_is_answered_on_tcp_to_those_who_sent_it() {
    let upstream = Upstream::new(encoded(60));
    let agent = Agent::start(&Config::new(&upstream));
    for _ in 0..2 {
        let asked = Ask::new("a.test", A).tcp().option(KEEPALIVE, &[]).send(agent.addr());
        let timeout = asked.assert_encodes("a.test").opt().and_then(|opt| opt.option(KEEPALIVE)).map(<[u8]>::len);
        assert_eq!(timeout, Some(2), "two octets of 100 ms: {asked:?}");
        let silent = Ask::new("a.test", A).tcp().send(agent.addr());
        assert_eq!(silent.opt().map(|opt| opt.options.len()), Some(0));
        let over_udp = Ask::new("a.test", A).option(KEEPALIVE, &[]).send(agent.addr());
        assert_eq!(over_udp.assert_encodes("a.test").opt().map(|opt| opt.options.len()), Some(0));
    }
}

// E17
#[test]
fn keepalive_with_a_value_is_an_error_on_tcp() {
    let upstream = Upstream::new(encoded(60));
    let agent = Agent::start(&Config::new(&upstream));
    // RFC 7828: a client's option has no value.
    let answer = Ask::new("a.test", A).tcp().option(KEEPALIVE, &[0, 50]).send(agent.addr());
    assert!(answer.assert_rcode(FORMERR).answers.is_empty());
    assert_eq!(upstream.seen().len(), 0);
    Ask::new("a.test", A).option(KEEPALIVE, &[0, 50]).send(agent.addr()).assert_encodes("a.test");
}
