//! IPv6 addresses inside HTTPS and SVCB records.
//!
//! Read first: RFC 9460 sections 2.2, 2.4 and 7.3.

use crate::support::client::{Ask, ask};
use crate::support::octets::{HTTPS, NOERROR, Rr, SVCB, name};
use crate::support::upstream::{Reply, Upstream};

use super::stripping;

const ALPN: u16 = 1;
const PORT: u16 = 3;
const IPV4HINT: u16 = 4;
const IPV6HINT: u16 = 6;
/// A key nobody knows.
const PRIVATE: u16 = 65_280;

/// RDATA of a service binding.
fn binding(priority: u16, target: &str, parameters: &[(u16, &[u8])]) -> Vec<u8> {
    let mut out = [&priority.to_be_bytes()[..], &name(target)].concat();
    for (key, value) in parameters {
        out.extend(key.to_be_bytes());
        out.extend((value.len() as u16).to_be_bytes());
        out.extend(*value);
    }
    out
}

/// Asks twice, fresh and cached, and asserts that the one record of the answer has this RDATA.
#[track_caller]
fn assert_becomes(rtype: u16, given: &[u8], expected: &[u8]) {
    let given = given.to_vec();
    let upstream =
        Upstream::new(move |seen| Reply::to(seen).answer(Rr::new(&seen.name, seen.rtype, 300, given.clone())).now());
    let agent = stripping(&upstream);
    for round in 0..2 {
        // hickory-proto refuses broken parameters; here they are meant to pass.
        let answer = Ask::new("svc.test", rtype).own_reader_only().send(agent.addr());
        answer.assert_rcode(NOERROR);
        assert_eq!(answer.answers.len(), 1, "round {round}: {answer:?}");
        assert_eq!(answer.answers[0].rdata, expected, "round {round}");
    }
    assert!(agent.is_alive());
}

// V08 and config.md ("ipv6hint leaves HTTPS/SVCB answers"): all else stays, in order.
#[test]
fn only_the_ipv6hint_leaves_a_service_binding() {
    let before: &[(u16, &[u8])] = &[(ALPN, b"\x02h2"), (PORT, &[1, 187]), (IPV4HINT, &[192, 0, 2, 1])];
    let hint: &[(u16, &[u8])] = &[(IPV6HINT, &[0x20; 32])];
    let after: &[(u16, &[u8])] = &[(PRIVATE, b"whatever")];
    for rtype in [HTTPS, SVCB] {
        let given = binding(1, "svc.example", &[before, hint, after].concat());
        assert_becomes(rtype, &given, &binding(1, "svc.example", &[before, after].concat()));
        assert_becomes(rtype, &binding(1, ".", hint), &binding(1, ".", &[]));
    }
}

// V08: an alias has no parameters to lose.
#[test]
fn an_alias_is_untouched() {
    let alias = binding(0, "elsewhere.example", &[]);
    assert_becomes(HTTPS, &alias, &alias);
}

// V08 (MU50, MU51): parameters that break the rules are relayed as they came.
#[test]
fn broken_parameters_are_relayed_untouched() {
    for broken in [
        // A hint of fifteen octets.
        binding(1, ".", &[(ALPN, b"\x02h2"), (IPV6HINT, &[0x20; 15])]),
        // Keys out of order.
        binding(1, ".", &[(IPV6HINT, &[0x20; 16]), (ALPN, b"\x02h2")]),
        // The same key twice.
        binding(1, ".", &[(IPV6HINT, &[0x20; 16]), (IPV6HINT, &[0x21; 16])]),
        // A length beyond the end.
        [binding(1, ".", &[]), vec![0, 6, 0, 16, 0x20]].concat(),
        // Half a key.
        [binding(1, ".", &[]), vec![0]].concat(),
    ] {
        assert_becomes(HTTPS, &broken, &broken);
    }
}

// V08: with AAAA kept, hints are kept.
#[test]
fn hints_are_kept_where_addresses_are() {
    let given = binding(1, ".", &[(IPV6HINT, &[0x20; 16])]);
    let sent = given.clone();
    let upstream =
        Upstream::new(move |seen| Reply::to(seen).answer(Rr::new(&seen.name, seen.rtype, 300, sent.clone())).now());
    let agent = crate::support::agent::Agent::start(&crate::support::config::Config::new(&upstream));
    for _ in 0..2 {
        assert_eq!(ask(agent.addr(), "svc.test", HTTPS).answers[0].rdata, given);
    }
}
