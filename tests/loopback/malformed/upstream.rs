//! Malformed answers, over UDP and TCP, each followed 20 ms later by the truth.

use std::net::Ipv4Addr;

use super::{Input, inputs};
use crate::support::agent::Agent;
use crate::support::client::{Answer, Ask, ask};
use crate::support::config::Config;
use crate::support::octets::{self, A, HTTPS, NOERROR, SERVFAIL};
use crate::support::upstream::{Act, Reply, Seen, Transport, Upstream, address_of, encoded, encoded_reply};
use crate::support::{millis, seconds};

/// The ID and the name that the inputs were made for.
const ID: u16 = 0x1234;
const NAME: &str = "a.test";
/// The longest TTL that is ever shown, in seconds.
const MAX_TTL: u32 = 86_400;

/// What the client must get.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Gives {
    /// The truth that comes 20 ms later: the input is ignored.
    Truth,
    /// This address: the input is an answer.
    Address([u8; 4]),
    /// Either.
    Either([u8; 4]),
    /// Whatever can be made of it, but nothing that was not asked for.
    Anything,
}

use Gives::{Address, Anything, Either, Truth};

/// What an answer over UDP gives, or `None` for inputs with a test of their own.
fn expected(input: &Input) -> Option<Gives> {
    let gives = match &input.id[..] {
        "MU01" | "MU03" | "MU04" | "MU07" | "MU08" | "MU09" | "MU11" | "MU18" | "MU19a" | "MU20" | "MU21" | "MU22"
        | "MU24" | "MU42" | "MU49" => Truth,
        "MU23" => Anything,
        "MU27" => Either([192, 0, 2, 1]),
        "MU31a" => Address([1, 2, 3, 4]),
        "MU35" | "MU44" => Address([192, 0, 2, 1]),
        "MU30" | "MU32" | "MU43" | "MU45" | "MU46" | "MU50" | "MU51" => return None,
        _ => panic!("no row for {input:?}"),
    };
    Some(gives)
}

/// The input as an answer to this query: its ID moved along, its name in the letters of the question.
fn adapted(input: &Input, seen: &Seen) -> Vec<u8> {
    let mut octets = input.octets.clone();
    if let [high, low, ..] = octets[..] {
        let id = u16::from_be_bytes([high, low]).wrapping_sub(ID).wrapping_add(seen.id);
        octets[..2].copy_from_slice(&id.to_be_bytes());
    }
    let name = 12..12 + seen.qname.len();
    if octets.get(name.clone()).is_some_and(|it| it.eq_ignore_ascii_case(&seen.qname)) {
        octets[name].copy_from_slice(&seen.qname);
    }
    octets
}

/// Sends the input, as one message, and then the truth.
fn input_then_truth(input: &Input, seen: &Seen) -> Vec<Act> {
    let bad = Act::Reply { after: millis(0), octets: adapted(input, seen) };
    [vec![bad], encoded_reply(seen, 60).after(millis(20))].concat()
}

#[track_caller]
fn check(input: &Input, gives: Gives, answer: &Answer, way: &str) {
    let told = format!("{} ({}) over {way}", input.id, input.what);
    assert_eq!(answer.rcode(), NOERROR, "{told}: {answer:?}");
    let truth = vec![address_of(NAME)];
    let found = answer.ipv4();
    match gives {
        Truth => assert_eq!(found, truth, "{told}"),
        Address(address) => assert_eq!(found, [Ipv4Addr::from(address)], "{told}"),
        Either(address) => assert!(found == truth || found == [Ipv4Addr::from(address)], "{told}: {found:?}"),
        Anything => assert!(found.is_empty() || found == truth, "{told}: {found:?}"),
    }
    assert_eq!(answer.answers.len(), found.len(), "{told}: {answer:?}");
    assert!(answer.answers.iter().all(|record| record.owner_text() == NAME), "{told}: {answer:?}");
    assert!(answer.answers.iter().all(|record| (1..=MAX_TTL).contains(&record.ttl)), "{told}: {answer:?}");
}

// H13, P04 (MU01 to MU49): a malformed datagram never ends the wait, with and without letters of random case.
#[test]
fn a_malformed_datagram_never_ends_the_wait() {
    for extra in ["", "random_case: true"] {
        for input in inputs("MU") {
            let Some(gives) = expected(&input) else { continue };
            let sent = input.clone();
            let upstream = Upstream::new(move |seen| match seen.transport {
                Transport::Udp if seen.name == NAME => input_then_truth(&sent, seen),
                _ => encoded(60)(seen),
            });
            let agent = Agent::start(&Config::with_servers(&[upstream.address()], extra));

            for _ in 0..2 {
                check(&input, gives, &ask(agent.addr(), NAME, A), "UDP");
            }
            // Names that were in the bad message are asked for, not remembered.
            for name in ["b.test", "www.victim.test"] {
                ask(agent.addr(), name, A).assert_encodes(name);
            }
            assert!(agent.is_alive(), "{}", input.id);
        }
    }
}

// H13 (MU01 to MU49): over TCP a malformed message may end the connection, but not the question: there are others.
#[test]
fn a_malformed_message_on_a_connection_does_not_end_the_question() {
    for input in inputs("MU") {
        let Some(gives) = expected(&input) else { continue };
        let sent = input.clone();
        let bad = Upstream::new(
            move |seen| if seen.name == NAME { input_then_truth(&sent, seen) } else { encoded(60)(seen) },
        );
        let good = Upstream::new(encoded(60));
        let agent = Agent::start(&Config::with_servers(&[bad.address(), good.address()], "protocol: tcp"));

        for _ in 0..2 {
            check(&input, gives, &ask(agent.addr(), NAME, A), "TCP");
        }
        ask(agent.addr(), "www.victim.test", A).assert_encodes("www.victim.test");
        assert!(agent.is_alive(), "{}", input.id);
    }
}

// H13 (MU12): the right letters in the wrong case are a near miss, not an answer.
#[test]
fn an_answer_in_other_letters_is_ignored_where_letters_count() {
    let upstream = Upstream::new(|seen| {
        let mut lie = Reply::to(seen).answer(octets::a(&seen.name, 60, [6, 6, 6, 6]));
        let name = lie.question.len() - 4;
        for octet in &mut lie.question[..name] {
            *octet = if octet.is_ascii_lowercase() { octet.to_ascii_uppercase() } else { octet.to_ascii_lowercase() };
        }
        match seen.transport {
            Transport::Udp => [lie.now(), encoded_reply(seen, 60).after(millis(20))].concat(),
            Transport::Tcp => encoded(60)(seen),
        }
    });
    let agent = Agent::start(&Config::with_servers(&[upstream.address()], "random_case: true"));
    for name in crate::crowd::names("many.letters.test", 10) {
        ask(agent.addr(), &name, A).assert_encodes(&name);
    }
}

fn one(id: &str) -> Input {
    inputs(id).pop().expect("the collection has it")
}

// MU30, E16: a bare FORMERR to a question with EDNS is followed by one without.
#[test]
fn a_bare_formerr_is_asked_again_without_edns() {
    let input = one("MU30");
    let upstream = Upstream::new(move |seen| match seen.opt() {
        Some(_) => vec![Act::Reply { after: millis(0), octets: adapted(&input, seen) }],
        None => encoded(60)(seen),
    });
    let agent = Agent::start(&Config::new(&upstream));
    ask(agent.addr(), NAME, A).assert_encodes(NAME);
    let with_edns: Vec<bool> = upstream.seen_of(NAME, A).iter().map(|seen| seen.opt().is_some()).collect();
    assert_eq!(with_edns, [true, false], "{}", upstream.history());
}

// MU32, C08: TTLs of one RRset are brought down to the lowest.
#[test]
fn different_ttls_become_the_lowest() {
    let input = one("MU32");
    let upstream = Upstream::new(move |seen| vec![Act::Reply { after: millis(0), octets: adapted(&input, seen) }]);
    let agent = Agent::start(&Config::new(&upstream));
    let answer = ask(agent.addr(), NAME, A);
    assert_eq!(answer.answers.iter().map(|record| record.ttl).collect::<Vec<_>>(), [5, 5]);
}

// MU43, C27: TC over TCP makes no sense: a failure, not kept as data, and not tried for ever.
#[test]
fn truncation_over_tcp_is_a_failure() {
    let input = one("MU43");
    let upstream = Upstream::new(move |seen| match seen.transport {
        Transport::Udp => Reply::to(seen).flag(octets::TC).now(),
        Transport::Tcp => {
            let mut octets = input.octets.clone();
            octets[2..4].copy_from_slice(&seen.id.to_be_bytes());
            vec![Act::Raw { after: millis(0), octets }]
        }
    });
    let agent = Agent::start(&Config::new(&upstream));
    let answer = Ask::new(NAME, A).within(seconds(5)).send(agent.addr());
    answer.assert_rcode(SERVFAIL);
    assert!(answer.answers.is_empty(), "{answer:?}");
    let over_tcp = upstream.seen().iter().filter(|seen| seen.transport == Transport::Tcp).count();
    assert!((1..=4).contains(&over_tcp), "asked over TCP {over_tcp} times:\n{}", upstream.history());
}

// MU45, MU46: a stream that makes no sense is dropped and the question asked elsewhere, in the time there is.
#[test]
fn a_broken_stream_is_dropped_and_the_question_asked_elsewhere() {
    for id in ["MU45", "MU46"] {
        let input = one(id);
        let bad = Upstream::new(move |_| {
            let octets = input.octets.clone();
            vec![Act::Raw { after: millis(0), octets }, Act::Close { after: millis(10) }]
        });
        let good = Upstream::new(encoded(60));
        let agent = Agent::start(&Config::with_servers(&[bad.address(), good.address()], "protocol: tcp"));
        for name in [NAME, "b.test"] {
            Ask::new(name, A).within(seconds(4)).send(agent.addr()).assert_encodes(name);
        }
        assert!(!bad.seen().is_empty(), "{id} was never sent");
    }
}

// MU50, MU51, V08: broken HTTPS records with AAAA stripped: relayed as they came, or the truth that follows.
#[test]
fn broken_https_records_do_no_harm() {
    for id in ["MU50", "MU51"] {
        let input = one(id);
        let sent = input.clone();
        let upstream = Upstream::new(move |seen| match seen.rtype {
            HTTPS => vec![Act::Reply { after: millis(0), octets: adapted(&sent, seen) }],
            _ => encoded(60)(seen),
        });
        let agent = Agent::start(&Config::new(&upstream).top("aaaa", "strip"));
        for _ in 0..2 {
            let answer = Ask::new(NAME, HTTPS).own_reader_only().send(agent.addr());
            answer.assert_rcode(NOERROR);
            let rdata: Vec<&[u8]> = answer.answers.iter().map(|record| &record.rdata[..]).collect();
            let start = input.octets.len() - usize::from(input.octets[35]);
            assert_eq!(rdata, [&input.octets[start..]], "{id}");
        }
        ask(agent.addr(), "b.test", A).assert_encodes("b.test");
    }
}
