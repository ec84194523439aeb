//! What the header and OPT say back.
//!
//! Read first: RFC 4035 section 3.2, RFC 6891 section 6.1.3, RFC 6840 section 5.7.

use crate::support::agent::Agent;
use crate::support::client::Ask;
use crate::support::config::Config;
use crate::support::octets::{A, AA, AD, BADVERS, CD, NO_REACHABLE_AUTHORITY, RA, RD, SERVFAIL, Z};
use crate::support::upstream::{Upstream, encoded, encoded_reply};

// E13
#[test]
fn every_mix_of_flags_comes_back_as_the_standards_say() {
    let upstream = Upstream::new(|seen| {
        let reply = encoded_reply(seen, 60).flag(AA);
        if seen.has(AD) || seen.dnssec_ok() { reply.flag(AD).now() } else { reply.now() }
    });
    let agent = Agent::start(&Config::new(&upstream));
    for bits in 0..8 {
        let [cd, ad, dnssec_ok] = [1, 2, 4].map(|bit| bits & bit != 0);
        // Letters make the name known at the upstream, whatever mix asked first.
        let name = format!("mix{bits}.test");
        for round in 0..2 {
            let mut question = Ask::new(&name, A);
            question.flags |= if cd { CD } else { 0 } | if ad { AD } else { 0 };
            if dnssec_ok {
                question = question.dnssec_ok();
            }
            // ID, RD, CD, QR and Z are checked of every answer the client reads.
            let answer = question.send(agent.addr());
            answer.assert_encodes(&name);
            assert_eq!(answer.has(AD), ad || dnssec_ok, "AD of {question:?}");
            assert!(answer.has(RA) && !answer.has(AA) && answer.flags & 0x7800 == 0, "round {round}: {answer:?}");
            assert_eq!(answer.opt().map(|opt| opt.flags), Some(if dnssec_ok { 0x8000 } else { 0 }));
        }
        let seen = upstream.seen_of(&name, A);
        assert_eq!(seen.len(), 1, "{}", upstream.history());
        assert_eq!([seen[0].has(CD), seen[0].dnssec_ok(), seen[0].has(RD)], [cd, dnssec_ok, true]);
    }
}

// E13
#[test]
fn the_reserved_bit_is_ignored_and_clear_in_the_answer() {
    let upstream = Upstream::new(|seen| encoded_reply(seen, 60).flag(Z).now());
    let agent = Agent::start(&Config::new(&upstream));
    for _ in 0..2 {
        Ask::new("a.test", A).flag(Z).send(agent.addr()).assert_encodes("a.test");
    }
    assert!(upstream.seen_of("a.test", A).iter().all(|it| !it.has(Z)));
}

// E14
#[test]
fn a_failure_explains_itself_to_those_who_can_read_it() {
    let upstream = Upstream::new(encoded(60));
    let agent = Agent::start(&Config::new(&upstream));
    upstream.stop();
    for name in ["a.test", "b.test"] {
        let answer = Ask::new(name, A).send(agent.addr());
        answer.assert_rcode(SERVFAIL);
        assert!(answer.ede().contains(&NO_REACHABLE_AUTHORITY), "{answer:?}");
    }
    for name in ["a.test", "c.test"] {
        let answer = Ask::new(name, A).plain().send(agent.addr());
        assert!(answer.assert_rcode(SERVFAIL).opt().is_none());
    }
}

// E15
#[test]
fn other_versions_of_edns_are_declined() {
    let upstream = Upstream::new(encoded(60));
    let agent = Agent::start(&Config::new(&upstream));
    Ask::new("a.test", A).send(agent.addr()).assert_encodes("a.test");
    for version in [1, 255] {
        // With flags and options a later version might have.
        let question = Ask::new("a.test", A).option(100, b"x").edit_opt(|opt| {
            opt.version = version;
            opt.flags = 0x7fff;
        });
        let answer = question.send(agent.addr());
        assert!(answer.assert_rcode(BADVERS).answers.is_empty());
        let opt = answer.opt().expect("one in, one out");
        assert_eq!((opt.version, opt.flags, opt.options.len()), (0, 0, 0));
    }
    assert_eq!(upstream.seen().len(), 1, "nothing of it is forwarded");
}

// E15
#[test]
fn unknown_options_and_flags_are_ignored() {
    let upstream = Upstream::new(encoded(60));
    let agent = Agent::start(&Config::new(&upstream));
    for _ in 0..2 {
        let question = Ask::new("a.test", A).option(100, b"data").edit_opt(|opt| opt.flags = 0x7fff);
        let answer = question.send(agent.addr());
        let opt = answer.assert_encodes("a.test").opt().expect("one in, one out");
        assert_eq!((opt.flags, opt.options.len()), (0, 0));
    }
    let seen = upstream.seen_of("a.test", A);
    assert!(seen.iter().all(|it| it.opt().is_some_and(|opt| opt.flags == 0 && opt.options.is_empty())));
}
