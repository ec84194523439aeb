//! Which questions share an answer, and that no other two do.
//!
//! Read first: RFC 4343, RFC 3225, RFC 6840 sections 5.7 to 5.9.

use crate::support::agent::Agent;
use crate::support::client::{Answer, Ask, ask, ask_at_once};
use crate::support::config::Config;
use crate::support::millis;
use crate::support::octets::{
    A, AAAA, AD, ANY, CD, CH, DNSKEY, IN, MX, NOERROR, NOT_AUTHORITATIVE, NSEC, NSEC3, NXDOMAIN, RD, REFUSED, RRSIG,
    SERVFAIL, TXT, a, mx, nsec, rrsig, soa,
};
use crate::support::upstream::{Reply, Seen, Upstream, address_of, delayed, encoded, encoded_reply, nodata};

/// A signed zone: signatures on request, as RFC 4035 section 3.1.1 wants it.
fn signed(seen: &Seen) -> Reply {
    let (reply, covered) = match (&*seen.name, seen.rtype) {
        ("gone.test", _) => (Reply::to(seen).rcode(NXDOMAIN).authority(soa("test", 60, 60)), 6),
        (_, RRSIG) => return Reply::to(seen).answer(rrsig(&seen.name, 60, A, "test")),
        _ => (encoded_reply(seen, 60), A),
    };
    if !seen.dnssec_ok() {
        return reply;
    }
    match covered {
        A => reply.answer(rrsig(&seen.name, 60, A, "test")),
        _ => reply.authority(rrsig("test", 60, covered, "test")).authority(nsec("test", 60, "z.test")),
    }
}

fn dnssec_records(answer: &Answer) -> usize {
    answer.records().filter(|it| [RRSIG, NSEC, NSEC3, DNSKEY].contains(&it.rtype)).count()
}

// C09
#[test]
fn signatures_are_for_those_who_ask_for_them() {
    let upstream = Upstream::new(|seen| signed(seen).now());
    let agent = Agent::start(&Config::new(&upstream));
    for name in ["a.test", "gone.test"] {
        for _ in 0..2 {
            assert_eq!(dnssec_records(&ask(agent.addr(), name, A)), 0);
            assert!(dnssec_records(&Ask::new(name, A).dnssec_ok().send(agent.addr())) > 0);
        }
        let seen = upstream.seen_of(name, A);
        assert_eq!(seen.iter().map(Seen::dnssec_ok).collect::<Vec<_>>(), [false, true], "{}", upstream.history());
    }
    assert_eq!(ask(agent.addr(), "a.test", RRSIG).of_type(RRSIG).len(), 1, "asked for by type");
}

// C09
#[test]
fn unasked_signatures_are_taken_out() {
    let upstream = Upstream::new(|seen| match &*seen.name {
        "gone.test" => {
            let reply = Reply::to(seen).rcode(NXDOMAIN).authority(soa("test", 60, 60));
            reply.authority(rrsig("test", 60, 6, "test")).authority(nsec("test", 60, "z.test")).now()
        }
        _ => encoded_reply(seen, 60).answer(rrsig(&seen.name, 60, A, "test")).now(),
    });
    let agent = Agent::start(&Config::new(&upstream));
    for _ in 0..2 {
        let answer = ask(agent.addr(), "a.test", A);
        assert_eq!(dnssec_records(answer.assert_encodes("a.test")), 0, "{answer:?}");
        let gone = ask(agent.addr(), "gone.test", A);
        assert_eq!(dnssec_records(gone.assert_rcode(NXDOMAIN)), 0, "{gone:?}");
        assert!(gone.soa().is_some());
    }
}

fn bogus(seen: &Seen) -> Reply {
    if seen.has(CD) { encoded_reply(seen, 60) } else { Reply::to(seen).rcode(SERVFAIL) }
}

// C10
#[test]
fn unchecked_data_never_answers_those_who_want_it_checked() {
    let upstream = Upstream::new(|seen| bogus(seen).now());
    let agent = Agent::start(&Config::new(&upstream));
    Ask::new("a.test", A).checking_disabled().send(agent.addr()).assert_encodes("a.test");
    ask(agent.addr(), "a.test", A).assert_rcode(SERVFAIL);
    Ask::new("a.test", A).checking_disabled().send(agent.addr()).assert_encodes("a.test");
}

// C10
#[test]
fn a_failed_check_never_answers_those_who_want_none() {
    let upstream = Upstream::new(|seen| bogus(seen).now());
    let agent = Agent::start(&Config::new(&upstream));
    ask(agent.addr(), "a.test", A).assert_rcode(SERVFAIL);
    Ask::new("a.test", A).checking_disabled().send(agent.addr()).assert_encodes("a.test");
    ask(agent.addr(), "a.test", A).assert_rcode(SERVFAIL);
}

// C11
#[test]
fn classes_and_types_are_questions_of_their_own() {
    let upstream = Upstream::new(|seen| match seen.rtype {
        RRSIG => Reply::to(seen).answer(rrsig(&seen.name, 60, A, "test")).now(),
        ANY => Reply::to(seen).answer(a(&seen.name, 60, [192, 0, 2, 99])).answer(mx(&seen.name, 60, "m.test")).now(),
        _ => encoded_reply(seen, 60).now(),
    });
    let agent = Agent::start(&Config::new(&upstream));
    for _ in 0..2 {
        ask(agent.addr(), "a.test", A).assert_encodes("a.test");
        let chaos = Ask::new("a.test", A).class(CH).send(agent.addr());
        assert!(chaos.assert_rcode(REFUSED).answers.is_empty(), "{chaos:?}");
        assert_eq!(ask(agent.addr(), "a.test", AAAA).ipv6().len(), 1);
        assert_eq!(ask(agent.addr(), "a.test", RRSIG).of_type(RRSIG).len(), 1);
        assert_eq!(Ask::new("a.test", ANY).tcp().send(agent.addr()).answers.len(), 2);
    }
    assert_eq!([A, AAAA, RRSIG, ANY].map(|it| upstream.count_of("a.test", it)), [1, 1, 1, 1], "{}", upstream.history());
    assert!(upstream.seen().iter().all(|seen| seen.class == IN), "other classes are not forwarded");
}

// C12
#[test]
fn authentic_data_is_shown_to_those_who_ask() {
    let upstream = Upstream::new(|seen| {
        let reply = encoded_reply(seen, 60);
        if seen.has(AD) || seen.dnssec_ok() { reply.flag(AD).now() } else { reply.now() }
    });
    let agent = Agent::start(&Config::new(&upstream));
    for (question, shown) in [
        (Ask::new("a.test", A), false),
        (Ask::new("a.test", A).authentic_data(), true),
        (Ask::new("a.test", A), false),
        (Ask::new("a.test", A).plain(), false),
        (Ask::new("a.test", A).plain().authentic_data(), true),
        (Ask::new("a.test", A).dnssec_ok(), true),
        (Ask::new("a.test", A).dnssec_ok(), true),
    ] {
        let answer = question.send(agent.addr());
        assert_eq!(answer.assert_encodes("a.test").has(AD), shown, "{question:?}");
    }
    let seen = upstream.seen_of("a.test", A);
    assert_eq!(seen.iter().map(Seen::dnssec_ok).collect::<Vec<_>>(), [false, true], "one entry for all with DO=0");
    assert!(seen.iter().all(|it| it.has(AD)), "the upstream is always asked with AD=1");
}

// C12
#[test]
fn authentic_data_is_never_invented() {
    let upstream = Upstream::new(encoded(60));
    let agent = Agent::start(&Config::new(&upstream));
    for question in [Ask::new("a.test", A).authentic_data(), Ask::new("a.test", A).dnssec_ok()] {
        assert!(!question.send(agent.addr()).assert_encodes("a.test").has(AD));
    }
}

// C13
#[test]
fn recursion_desired_comes_back_as_it_was_sent() {
    // That RD equals the query's is checked of every answer the client reads.
    let upstream = Upstream::new(|seen| encoded_reply(seen, 60).without(RD).now());
    let agent = Agent::start(&Config::new(&upstream));
    ask(agent.addr(), "a.test", A).assert_encodes("a.test");
    Ask::new("a.test", A).no_recursion().send(agent.addr()).assert_encodes("a.test");
    assert_eq!(upstream.count_of("a.test", A), 1, "RD=0 may use the cache");
}

// C13
#[test]
fn without_recursion_only_the_cache_answers() {
    let upstream = Upstream::new(encoded(60));
    let agent = Agent::start(&Config::new(&upstream));
    let answer = Ask::new("a.test", A).no_recursion().send(agent.addr());
    assert!(answer.assert_rcode(REFUSED).assert_ede(&[NOT_AUTHORITATIVE]).answers.is_empty());
    assert_eq!(upstream.count_of("a.test", A), 0);
}

// C14
#[test]
fn letter_case_makes_no_other_question() {
    let upstream = Upstream::new(encoded(60));
    let agent = Agent::start(&Config::new(&upstream));
    for name in ["www.a.test", "WwW.A.tEsT", "WWW.A.TEST"] {
        ask(agent.addr(), name, A).assert_encodes("www.a.test");
    }
    assert_eq!(upstream.count_of("www.a.test", A), 1, "{}", upstream.history());
}

/// The first answer is owned by the question's name, by pointer; so it has the asker's letters.
fn assert_own_letters(answer: &Answer, name: &str) {
    assert_eq!(answer.assert_encodes(name).first_owner, Some([0xc0, 12]), "{answer:?}");
    assert_eq!(answer.answers[0].owner, crate::support::octets::name(name));
}

// C15
#[test]
fn everyone_gets_their_own_letters_back() {
    let upstream = Upstream::new(delayed(millis(200), encoded(60)));
    let agent = Agent::start(&Config::new(&upstream));
    let names = ["www.a.test", "WwW.A.tEsT", "WWW.a.TEST"];
    let answers = ask_at_once(agent.addr(), &names.map(|name| Ask::new(name, A)));
    for (answer, name) in answers.iter().zip(names) {
        assert_own_letters(answer, name);
    }
    assert_own_letters(&ask(agent.addr(), "wWw.A.tesT", A), "wWw.A.tesT");
    assert_eq!(upstream.questions_of("www.a.test", A).len(), 1, "{}", upstream.history());
}

// C15
#[test]
fn owners_that_came_uncompressed_leave_as_pointers() {
    let upstream = Upstream::new(|seen| {
        let mut reply = encoded_reply(seen, 60);
        reply.compressed = false;
        reply.now()
    });
    let agent = Agent::start(&Config::new(&upstream));
    for name in ["www.a.test", "WwW.A.tEsT"] {
        assert_own_letters(&ask(agent.addr(), name, A), name);
    }
}

// C34
#[test]
fn any_neither_answers_for_a_type_nor_is_made_of_types() {
    let upstream = Upstream::new(|seen| match seen.rtype {
        ANY => Reply::to(seen).answer(a(&seen.name, 60, [192, 0, 2, 99])).answer(mx(&seen.name, 60, "m.test")).now(),
        A | AAAA => encoded_reply(seen, 60).now(),
        _ => nodata(seen).now(),
    });
    let agent = Agent::start(&Config::new(&upstream));
    let any = || Ask::new("a.test", ANY).tcp().send(agent.addr());
    assert_eq!(any().answers.iter().map(|it| it.rtype).collect::<Vec<_>>(), [A, MX]);
    ask(agent.addr(), "a.test", A).assert_address(address_of("a.test"));
    assert_eq!(any().assert_rcode(NOERROR).ipv4(), [std::net::Ipv4Addr::new(192, 0, 2, 99)]);
    ask(agent.addr(), "a.test", TXT).assert_nodata();
    ask(agent.addr(), "a.test", MX).assert_nodata();
    assert_eq!([ANY, A, MX, TXT].map(|it| upstream.count_of("a.test", it)), [1, 1, 1, 1], "{}", upstream.history());
}
