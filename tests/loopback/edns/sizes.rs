//! Every answer fits its asker, cut on whole records where it must be.
//!
//! Read first: RFC 6891 sections 6.2.3 to 6.2.5, RFC 2181 section 9, RFC 9715.

use std::net::Ipv4Addr;
use std::time::Instant;

use crate::support::agent::Agent;
use crate::support::client::{Answer, Ask, ask};
use crate::support::config::Config;
use crate::support::octets::{A, AD, NOERROR, Rr, SRV, TC, a, srv};
use crate::support::upstream::{Reply, Seen, Upstream, address_of, truncating};

/// Octets of header, question for `a.test`, and an OPT without options.
const HEADER: usize = 12;
const QUESTION: usize = 12;
const OPT: usize = 11;
/// Octets of an A record whose owner is a pointer.
const ADDRESS: usize = 16;

/// An upstream with `count` addresses for every name.
fn with_addresses(count: u16) -> Upstream {
    Upstream::new(truncating(move |seen: &Seen| {
        let set = (0..count).map(|it| a(&seen.name, 60, Ipv4Addr::from_bits(0x0a00_0000 | u32::from(it))));
        Reply::to(seen).flag(AD).answers(set).now()
    }))
}

// E01
#[test]
fn without_opt_an_answer_has_none_and_stays_below_513_octets() {
    // That there is no OPT is checked of every answer the client reads.
    let upstream = with_addresses(40);
    let agent = Agent::start(&Config::new(&upstream));
    for _ in 0..2 {
        let answer = Ask::new("a.test", A).plain().send(agent.addr());
        assert!(answer.has(TC) && answer.octets.len() <= 512);
        assert!(answer.opt().is_none());
    }
    assert!(!Ask::new("a.test", A).plain().tcp().send(agent.addr()).has(TC));
}

// E02
#[test]
fn opt_answers_opt() {
    let upstream = with_addresses(1);
    let agent = Agent::start(&Config::new(&upstream));
    for _ in 0..2 {
        for question in [Ask::new("a.test", A), Ask::new("a.test", A).dnssec_ok(), Ask::new("a.test", A).tcp()] {
            let asked = question.opt.clone().expect("the question has one");
            let answer = question.send(agent.addr());
            let opt = answer.opt().expect("one in, one out");
            assert_eq!((opt.version, opt.payload_size, opt.extended_rcode), (0, 1232, 0));
            assert_eq!(opt.flags, asked.flags, "DO copied, Z clear");
        }
    }
}

// E03
#[test]
fn an_answer_of_1400_octets_is_cut_to_each_askers_size() {
    const COUNT: u16 = 86;
    assert_eq!(HEADER + QUESTION + ADDRESS * usize::from(COUNT), 1400);
    let upstream = with_addresses(COUNT);
    let agent = Agent::start(&Config::new(&upstream));
    let whole = Ask::new("a.test", A).plain().tcp().send(agent.addr());
    assert_eq!((whole.octets.len(), whole.ipv4().len(), whole.has(TC)), (1400, 86, false));
    for (question, limit) in [
        (Ask::new("a.test", A).plain(), 512),
        (Ask::new("a.test", A).size(0), 512),
        (Ask::new("a.test", A).size(512), 512),
        (Ask::new("a.test", A).size(700), 700),
        (Ask::new("a.test", A).size(1232), 1232),
        (Ask::new("a.test", A).size(4096), 1232),
        (Ask::new("a.test", A).size(65_535), 1232),
    ] {
        let answer = question.send(agent.addr());
        assert!(answer.has(TC) && answer.octets.len() <= limit, "{} octets for {limit}", answer.octets.len());
    }
    assert_eq!(Ask::new("a.test", A).tcp().size(512).send(agent.addr()).ipv4().len(), 86, "sizes are for UDP");
    assert_eq!(upstream.count_of("a.test", A), 2, "one cut, one whole: {}", upstream.history());
}

/// Asks for an answer that the agent's message makes exactly `octets` long.
fn answer_of(agent: &Agent, octets: usize, question: impl Fn(Ask) -> Ask) -> Answer {
    let answer = question(Ask::new(&format!("{octets:06}.test"), 65280)).send(agent.addr());
    answer.assert_rcode(NOERROR);
    answer
}

// E04
#[test]
fn an_answer_that_fits_exactly_is_whole_and_one_octet_more_is_not() {
    let upstream = Upstream::new(truncating(|seen: &Seen| {
        let wanted: usize = seen.name.split('.').next().and_then(|it| it.parse().ok()).expect("names say a size");
        let opt = if seen.opt().is_some() { OPT } else { 0 };
        // The record's own header, its owner a pointer, is twelve octets.
        let rest = wanted - HEADER - seen.message.question.len() - opt - 12;
        Reply::to(seen).answer(Rr::new(&seen.name, 65280, 60, vec![0x5a; rest])).now()
    }));
    let agent = Agent::start(&Config::new(&upstream));
    for size in [512, 1232] {
        for (octets, cut) in [(usize::from(size), false), (usize::from(size) + 1, true)] {
            for _ in 0..2 {
                let answer = answer_of(&agent, octets, |ask| ask.size(size));
                assert_eq!(answer.has(TC), cut, "{octets} octets for {size}");
                assert_eq!(answer.octets.len() == octets, !cut);
                assert_eq!(answer.opts.len(), 1);
            }
        }
    }
    // Without OPT its eleven octets are free for data.
    assert!(!answer_of(&agent, 523, Ask::plain).has(TC));
    assert!(answer_of(&agent, 524, Ask::plain).has(TC));
}

// E06
#[test]
fn a_cut_answer_keeps_as_many_whole_addresses_as_fit() {
    let upstream = with_addresses(40);
    let agent = Agent::start(&Config::new(&upstream));
    for (question, fit) in [
        (Ask::new("a.test", A).size(512).authentic_data(), (512 - HEADER - QUESTION - OPT) / ADDRESS),
        (Ask::new("a.test", A).plain().authentic_data(), (512 - HEADER - QUESTION) / ADDRESS),
    ] {
        for _ in 0..2 {
            // Counts, whole records and OPT are checked of every answer the client reads.
            let answer = question.send(agent.addr());
            assert!(answer.has(TC) && !answer.has(AD), "{answer:?}");
            assert_eq!(answer.ipv4().len(), fit);
        }
    }
    assert!(Ask::new("a.test", A).tcp().authentic_data().send(agent.addr()).has(AD));
}

// E20
#[test]
fn a_service_with_a_thousand_pods_is_answered_whole() {
    let upstream = Upstream::new(truncating(|seen: &Seen| {
        let pods: Vec<String> = (0..1000).map(|pod| format!("p{pod:03}.s.test")).collect();
        let mut reply = Reply::to(seen);
        for pod in &pods {
            reply.answers.push(srv(&seen.name, 60, 80, pod));
            reply.additionals.push(a(pod, 60, address_of(pod)));
        }
        reply.now()
    }));
    let agent = Agent::start(&Config::new(&upstream));
    for _ in 0..2 {
        let answer = Ask::new("_h._t.s.test", SRV).tcp().send(agent.addr());
        assert_eq!(answer.of_type(SRV).len(), 1000);
        assert!(answer.additionals.iter().all(|it| it.ipv4() == Some(address_of(&it.owner_text()))));
        let cut = ask(agent.addr(), "_h._t.s.test", SRV);
        assert!(cut.has(TC) && cut.octets.len() <= 1232);
    }
}

// E20
#[test]
fn three_thousand_owners_are_sifted_without_delay() {
    let upstream = Upstream::new(truncating(|seen: &Seen| {
        let mut reply = Reply::to(seen).answer(a(&seen.name, 60, address_of(&seen.name)));
        reply.compressed = false;
        reply.answers.extend((0..3000).map(|it| a(&format!("n{it:03x}"), 60, [192, 0, 2, 1])));
        reply.now()
    }));
    let agent = Agent::start(&Config::new(&upstream));
    let start = Instant::now();
    for number in 0..20 {
        let name = format!("x{number}.test");
        Ask::new(&name, A).tcp().send(agent.addr()).assert_encodes(&name);
    }
    // Squares of 3,000 would show as seconds for each; no figure of speed, only of shape.
    assert!(start.elapsed() < crate::support::LIMIT, "{:?}", start.elapsed());
}
