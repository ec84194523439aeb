//! Real servers on both sides: nsd and a validating Unbound as upstreams, Unbound as a client.
//!
//! The scripted upstream says what we thought of; these say what others really say. See [`programs`] for how they
//! are started and what happens where one is missing.

pub mod programs;

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use self::programs::{NSD, NSD_SIGNED, Server, Signing, Zone};
use crate::support::agent::Agent;
use crate::support::client::{Answer, Ask, ask};
use crate::support::config::Config;
use crate::support::octets::{A, AAAA, AD, MX, NOERROR, NSEC, NXDOMAIN, Opt, RRSIG, Rr, SERVFAIL, TC, TXT};
use crate::support::upstream::Transport;

/// Names in the large zone.
const NAMES: u32 = 100_000;
/// Addresses under one name of the large zone: nearly 64 KiB.
const ADDRESSES: u32 = 4_000;

/// The address of number `number` of something.
fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0000 + number)
}

/// `big.test`: a hundred thousand names, each with the address of its number, and one with four thousand addresses.
fn large_zone() -> Zone {
    let mut records = String::new();
    for number in 0..NAMES {
        writeln!(records, "n{number} A {}", address(number)).expect("a String takes all");
    }
    for number in 0..ADDRESSES {
        writeln!(records, "huge A {}", address(number)).expect("a String takes all");
    }
    Zone { name: "big.test", records, signing: Signing::None }
}

/// A few names of each kind.
const RECORDS: &str = "www A 192.0.2.1\nwww AAAA 2001:db8::1\nfour A 192.0.2.4\nalias CNAME www\n\
    dangling CNAME nowhere\n* .wild TXT \"any\"\nmail MX 10 www\ntext TXT \"some text\" \"and more\"\n\
    service SRV 0 0 80 www\nsix AAAA 2001:db8::6\n";

/// A zone of any name with [`RECORDS`].
fn small_zone(name: &'static str, signing: Signing) -> Zone {
    let mut records = RECORDS.replace("* .wild", "*.wild");
    if signing == Signing::Forged {
        records.push_str("target A 192.0.2.66\n");
    }
    Zone { name, records, signing }
}

/// A validator that trusts the key of `signed.test` and `forged.test`, and the authority behind it.
fn validator() -> (Server, Server) {
    let zones = [small_zone("signed.test", Signing::Signed), small_zone("forged.test", Signing::Forged)];
    let authority = programs::nsd(&zones);
    let anchors = ["signed.test", "forged.test"].map(|zone| programs::trust_anchor(&authority, zone));
    let resolver = programs::unbound(authority.address, &["signed.test", "forged.test"], &anchors);
    (resolver, authority)
}

fn has(answer: &Answer, rtype: u16) -> bool {
    answer.records().any(|record| record.rtype == rtype)
}

fn sorted(records: impl IntoIterator<Item = Ipv4Addr>) -> Vec<Ipv4Addr> {
    let mut sorted: Vec<_> = records.into_iter().collect();
    sorted.sort_unstable();
    sorted
}

// Issue 2: a zone of 100,000 names on a real server. C21: what does not exist is asked once.
#[test]
fn names_of_a_zone_of_100_000_outlive_their_server() {
    if !programs::present(&NSD) {
        return;
    }
    let authority = programs::nsd(&[large_zone()]);
    let agent = Agent::start(&Config::with_servers(&[authority.address], ""));
    let numbers = || (0..NAMES).step_by(41);

    for number in numbers() {
        ask(agent.addr(), &format!("n{number}.big.test"), A).assert_address(address(number));
    }
    ask(agent.addr(), "missing.big.test", A).assert_rcode(NXDOMAIN);
    drop(authority);

    for number in numbers() {
        let answer = ask(agent.addr(), &format!("n{number}.big.test"), A);
        answer.assert_address(address(number)).assert_ede(&[]);
    }
    ask(agent.addr(), "missing.big.test", A).assert_rcode(NXDOMAIN);
}

// C35, E03: nearly 64 KiB under one name; whole over TCP, cut over UDP, the same set from the cache.
#[test]
fn an_answer_of_64_kib_comes_whole_over_tcp() {
    if !programs::present(&NSD) {
        return;
    }
    let authority = programs::nsd(&[large_zone()]);
    let agent = Agent::start(&Config::with_servers(&[authority.address], ""));
    let all: Vec<Ipv4Addr> = (0..ADDRESSES).map(address).collect();

    let fresh = Ask::new("huge.big.test", A).tcp().send(agent.addr());
    assert_eq!(sorted(fresh.ipv4()), all);
    drop(authority);

    let cached = Ask::new("huge.big.test", A).tcp().send(agent.addr());
    assert_eq!(sorted(cached.ipv4()), all);
    let cut = Ask::new("huge.big.test", A).send(agent.addr());
    assert!(cut.has(TC) && cut.octets.len() <= 1232, "{} octets, flags {:04x}", cut.octets.len(), cut.flags);
    assert!(cut.ipv4().iter().all(|it| all.contains(it)));
}

// C09: signatures go to those who ask for them, whatever the cache holds.
#[test]
fn signatures_of_a_signed_zone_are_shown_to_those_who_want_them() {
    if !programs::present(&NSD_SIGNED) {
        return;
    }
    let authority = programs::nsd(&[small_zone("signed.test", Signing::Signed)]);
    let agent = Agent::start(&Config::with_servers(&[authority.address], ""));

    for _ in 0..2 {
        let plain = ask(agent.addr(), "www.signed.test", A);
        plain.assert_address([192, 0, 2, 1]);
        assert!(!has(&plain, RRSIG), "{plain:?}");
        let signed = Ask::new("www.signed.test", A).dnssec_ok().send(agent.addr());
        signed.assert_address([192, 0, 2, 1]);
        assert_eq!(signed.of_type(RRSIG).len(), 1, "{signed:?}");
        assert!(signed.opt().is_some_and(Opt::dnssec_ok));

        let missing = ask(agent.addr(), "missing.signed.test", A);
        missing.assert_rcode(NXDOMAIN);
        assert!(!has(&missing, NSEC) && !has(&missing, RRSIG), "{missing:?}");
        let proven = Ask::new("missing.signed.test", A).dnssec_ok().send(agent.addr());
        proven.assert_rcode(NXDOMAIN);
        assert!(has(&proven, NSEC) && has(&proven, RRSIG), "{proven:?}");
    }
}

// C10, C12, E13: a validator's verdict reaches the right askers; CD=1 data never answers CD=0.
#[test]
fn a_validators_verdict_is_kept_apart_from_unvalidated_data() {
    if !programs::present(&[&NSD_SIGNED[..], &["unbound"]].concat()) {
        return;
    }
    let (resolver, _authority) = validator();
    // Failures are kept for one second, so that each order of asking starts afresh.
    let config = Config::with_servers(&[resolver.address], "");
    for first_disabled in [true, false] {
        let agent = Agent::start(&config);
        for disabled in [first_disabled, !first_disabled, first_disabled] {
            let question = Ask::new("target.forged.test", A).dnssec_ok();
            if disabled {
                let answer = question.checking_disabled().send(agent.addr());
                answer.assert_address([192, 0, 2, 99]);
                assert!(!answer.has(AD), "{answer:?}");
            } else {
                let answer = question.send(agent.addr());
                answer.assert_rcode(SERVFAIL);
                assert!(answer.answers.is_empty(), "{answer:?}");
            }
        }
    }
    let agent = Agent::start(&config);
    for _ in 0..2 {
        assert!(!ask(agent.addr(), "www.signed.test", A).has(AD), "AD was not asked for");
        assert!(Ask::new("www.signed.test", A).authentic_data().send(agent.addr()).has(AD));
        assert!(Ask::new("www.signed.test", A).dnssec_ok().send(agent.addr()).has(AD));
    }
}

/// What two answers have to agree on: rcode, and the records in any order with their TTLs left out.
fn gist(answer: &Answer) -> (u16, Vec<Rr>) {
    let mut records: Vec<Rr> = answer.answers.clone();
    for record in &mut records {
        record.owner.make_ascii_lowercase();
        record.rdata.make_ascii_lowercase();
        record.ttl = 0;
    }
    records.sort();
    (answer.rcode(), records)
}

// Section 6.2 "no wrong answer": the agent says what the resolver behind it says, fresh and cached.
#[test]
fn the_agent_agrees_with_the_resolver_behind_it() {
    if !programs::present(&[&NSD_SIGNED[..], &["unbound"]].concat()) {
        return;
    }
    let (resolver, _authority) = validator();
    let agent = Agent::start(&Config::with_servers(&[resolver.address], ""));
    let names = ["www", "four", "six", "alias", "dangling", "mail", "text", "service", "nowhere", "a.wild", "b.c.wild"];
    let types = [A, AAAA, MX, TXT, 33, 5, 2, 6, 48, 43, 99, 65_280];
    let mut asked = 0;
    for round in 0..2 {
        for name in names {
            for rtype in types {
                for dnssec in [false, true] {
                    let mut question = Ask::new(&format!("{name}.signed.test"), rtype);
                    if dnssec {
                        question = question.dnssec_ok();
                    }
                    let (ours, theirs) = (question.send(agent.addr()), question.send(resolver.address));
                    assert_eq!(gist(&ours), gist(&theirs), "{name} TYPE{rtype}, DO {dnssec}, round {round}");
                    assert_eq!(ours.has(AD), theirs.has(AD), "AD of {name} TYPE{rtype}, DO {dnssec}, round {round}");
                    asked += 1;
                }
            }
        }
    }
    assert_eq!(asked, 2 * names.len() * types.len() * 2);
}

// C35, H09: a resolver that answers over TCP only, and is restarted between two questions.
#[test]
fn a_real_server_reached_over_tcp_may_restart() {
    if !programs::present(&NSD) {
        return;
    }
    let zones = || [small_zone("small.test", Signing::None)];
    let authority = programs::nsd(&zones());
    let address = authority.address;
    let agent = Agent::start(&Config::with_servers(&[address], "protocol: tcp"));
    ask(agent.addr(), "www.small.test", A).assert_address([192, 0, 2, 1]);
    drop(authority);
    let _authority = programs::nsd_at(address, &zones());

    ask(agent.addr(), "four.small.test", A).assert_address([192, 0, 2, 4]);
}

// E13, C14, P06: a resolver is the pickiest client there is: random letter case, EDNS, DO, its own idea of answers.
#[test]
fn unbound_resolves_through_the_agent() {
    if !programs::present(&["nsd", "unbound"]) {
        return;
    }
    let authority = programs::nsd(&[large_zone(), small_zone("small.test", Signing::None)]);
    let agent = Agent::start(&Config::with_servers(&[authority.address], ""));
    let resolver = programs::unbound_forwarding(agent.addr(), &["big.test", "small.test"]);
    let through = |question: Ask| question.send(resolver.address);

    for number in (0..NAMES).step_by(997) {
        through(Ask::new(&format!("n{number}.big.test"), A)).assert_address(address(number));
    }
    through(Ask::new("alias.small.test", A)).assert_address([192, 0, 2, 1]);
    through(Ask::new("dangling.small.test", A)).assert_rcode(NXDOMAIN);
    through(Ask::new("four.small.test", AAAA)).assert_nodata();
    let huge = through(Ask::new("huge.big.test", A).tcp());
    assert_eq!((huge.transport, huge.rcode()), (Transport::Tcp, NOERROR));
    assert_eq!(sorted(huge.ipv4()), (0..ADDRESSES).map(address).collect::<Vec<_>>());
}
