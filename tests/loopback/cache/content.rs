//! What of an upstream's answer is kept: all of it, octet for octet, and nothing that was not asked for.
//!
//! Read first: RFC 1035 section 7.4, RFC 2181 section 9, RFC 3597 section 4.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::support::agent::Agent;
use crate::support::client::{Ask, ask};
use crate::support::config::Config;
use crate::support::octets::{A, NOERROR, NS, Rr, SERVFAIL, TC, a, ns};
use crate::support::upstream::{Act, Reply, Seen, Transport, Upstream, address_of, encoded, encoded_reply, truncating};
use crate::support::{millis, until};

/// `count` addresses for the name asked for.
fn addresses(seen: &Seen, count: u16) -> Vec<Rr> {
    (0..count).map(|it| a(&seen.name, 60, Ipv4Addr::from_bits(0x0a00_0000 | u32::from(it)))).collect()
}

// C26
#[test]
fn a_cut_answer_is_fetched_whole() {
    let upstream = Upstream::new(|seen| match seen.transport {
        Transport::Udp => Reply::to(seen).flag(TC).answers(addresses(seen, 1)).now(),
        Transport::Tcp => Reply::to(seen).answers(addresses(seen, 40)).now(),
    });
    let agent = Agent::start(&Config::new(&upstream));
    let over_udp = Ask::new("a.test", A).size(4096).send(agent.addr());
    assert_eq!((over_udp.ipv4().len(), over_udp.has(TC)), (40, false));
    assert_eq!(Ask::new("a.test", A).tcp().send(agent.addr()).ipv4().len(), 40);
    let asked: Vec<Transport> = upstream.seen_of("a.test", A).iter().map(|it| it.transport).collect();
    assert_eq!(asked, [Transport::Udp, Transport::Tcp], "{}", upstream.history());
}

// C27
#[test]
fn a_cut_answer_that_cannot_be_had_whole_is_a_failure() {
    let upstream = Upstream::udp_only(|seen| Reply::to(seen).flag(TC).answers(addresses(seen, 1)).now());
    let agent = Agent::start(&Config::new(&upstream).cache("failure_ttl: 1s"));
    let failure = Ask::new("a.test", A).size(4096).send(agent.addr());
    assert!(failure.assert_rcode(SERVFAIL).answers.is_empty());
    upstream.set(encoded(60));
    until(failure.at + millis(1200));
    ask(agent.addr(), "a.test", A).assert_encodes("a.test");
}

// C27
#[test]
fn a_cut_answer_is_not_fetched_again_and_again() {
    let upstream = Upstream::new(|seen| match seen.transport {
        Transport::Udp => Reply::to(seen).flag(TC).answers(addresses(seen, 1)).now(),
        Transport::Tcp => vec![Act::Close { after: millis(0) }],
    });
    let agent = Agent::start(&Config::new(&upstream));
    assert!(ask(agent.addr(), "a.test", A).assert_rcode(SERVFAIL).answers.is_empty());
    let over_tcp = upstream.seen_of("a.test", A).iter().filter(|it| it.transport == Transport::Tcp).count();
    assert!((1..=2).contains(&over_tcp), "{}", upstream.history());
}

// C35
#[test]
fn four_thousand_addresses_are_kept_and_sent_whole() {
    let upstream = Upstream::new(truncating(|seen: &Seen| Reply::to(seen).answers(addresses(seen, 4091)).now()));
    let agent = Agent::start(&Config::new(&upstream));
    let sets = [(); 2].map(|()| -> BTreeSet<Ipv4Addr> {
        let answer = Ask::new("a.test", A).tcp().send(agent.addr());
        answer.assert_rcode(NOERROR).ipv4().into_iter().collect()
    });
    assert_eq!(sets[0].len(), 4091);
    assert_eq!(sets[0], sets[1]);
    let over_udp = ask(agent.addr(), "a.test", A);
    assert!(over_udp.has(TC) && over_udp.octets.len() <= 1232);
    let over_tcp = upstream.seen_of("a.test", A).iter().filter(|it| it.transport == Transport::Tcp).count();
    assert_eq!(over_tcp, 1, "{}", upstream.history());
}

// C36
#[test]
fn data_of_unknown_types_is_never_touched() {
    // Reads like a name with pointers to QNAME, to itself and past the end.
    const RDATA: &[u8] = b"\x01x\xc0\x0c\xc0\x2a\xff\xff\x00\x04test\x00\xc0";
    let upstream = Upstream::new(|seen| {
        let mut reply = Reply::to(seen).answer(Rr::new(&seen.name, 65280, 60, RDATA.to_vec()));
        reply.compressed = seen.name == "plain.test";
        reply.now()
    });
    let agent = Agent::start(&Config::new(&upstream));
    for name in ["plain.test", "rebuilt.test"] {
        for _ in 0..2 {
            let answer = ask(agent.addr(), name, 65280);
            assert_eq!(answer.answers.iter().map(|it| &it.rdata[..]).collect::<Vec<_>>(), [RDATA]);
        }
        assert_eq!(upstream.count_of(name, 65280), 1);
    }
}

// C37
#[test]
fn records_nobody_asked_for_are_neither_relayed_nor_used() {
    let upstream = Upstream::new(|seen| match &*seen.name {
        "a.test" => encoded_reply(seen, 60)
            .answer(a("victim.test", 60, [6, 6, 6, 6]))
            .authority(ns("victim.test", 60, "ns.victim.test"))
            .additional(a("ns.victim.test", 60, [6, 6, 6, 7]))
            .additional(a("victim.test", 60, [6, 6, 6, 8]))
            .now(),
        _ => encoded_reply(seen, 60).now(),
    });
    let agent = Agent::start(&Config::new(&upstream));
    for _ in 0..2 {
        let answer = ask(agent.addr(), "a.test", A);
        answer.assert_encodes("a.test");
        let strange: Vec<String> =
            answer.records().map(Rr::owner_text).filter(|owner| owner.ends_with("victim.test")).collect();
        assert!(strange.is_empty(), "{answer:?}");
    }
    for name in ["victim.test", "ns.victim.test"] {
        ask(agent.addr(), name, A).assert_address(address_of(name));
        assert_eq!(upstream.count_of(name, A), 1, "{}", upstream.history());
    }
    ask(agent.addr(), "victim.test", NS).assert_nodata();
    assert_eq!(upstream.count_of("victim.test", NS), 1);
}
