//! IPv4 and IPv6 side by side: stripped AAAA, clients with other rights, replies from the address asked.

mod addresses;
mod clients;
mod hints;

use std::time::Duration;

use crate::support::agent::Agent;
use crate::support::client::{Answer, Ask, ask};
use crate::support::config::Config;
use crate::support::millis;
use crate::support::octets::{self, A, AAAA, AD, ANY, MX, NOERROR, NS, NXDOMAIN, RRSIG, SERVFAIL, SOA, SRV};
use crate::support::upstream::{
    Act, Reply, Seen, Upstream, address6_of, delayed, encoded, failing, nodata, nxdomain, records,
};

/// Extended DNS Error "Filtered" (RFC 8914 section 4.18).
const FILTERED: u16 = 17;
/// The longest time a negative answer is kept unless configured otherwise, in seconds.
const MAX_NEGATIVE: u32 = 3_600;

fn stripping(upstream: &Upstream) -> Agent {
    Agent::start(&Config::new(upstream).top("aaaa", "strip"))
}

#[track_caller]
fn assert_no_ipv6(answer: &Answer) {
    assert!(answer.records().all(|record| record.rtype != AAAA), "{answer:?}");
}

/// NODATA that a stub resolver will keep: with an SOA whose TTL is bounded.
#[track_caller]
fn assert_stripped(answer: &Answer) {
    answer.assert_rcode(NOERROR);
    assert_no_ipv6(answer);
    let soa = answer.soa().unwrap_or_else(|| panic!("no SOA, so stubs cannot cache it: {answer:?}"));
    assert!((1..=MAX_NEGATIVE).contains(&soa.ttl), "{answer:?}");
}

// V01: a name with both kinds of address has no IPv6 address, in words that stubs cache and people understand.
#[test]
fn a_stripped_name_has_no_ipv6_address() {
    let upstream = Upstream::new(encoded(300));
    let agent = stripping(&upstream);
    for _ in 0..2 {
        let answer = ask(agent.addr(), "both.test", AAAA);
        assert_stripped(&answer);
        answer.assert_nodata().assert_ede(&[FILTERED]);
        let plain = Ask::new("both.test", AAAA).plain().send(agent.addr());
        assert_stripped(&plain);
        let over_tcp = Ask::new("both.test", AAAA).tcp().send(agent.addr());
        assert_stripped(&over_tcp);
        ask(agent.addr(), "both.test", A).assert_encodes("both.test").assert_ede(&[]);
    }
    assert_eq!(upstream.count_of("both.test", AAAA), 0, "{}", upstream.history());
    assert_eq!(upstream.count_of("both.test", A), 1, "{}", upstream.history());
}

/// Says of a missing name that it is missing only when asked for A; of AAAA it says NODATA, as broken servers do.
fn inconsistent(seen: &Seen) -> Vec<Act> {
    if seen.rtype == A { nxdomain(seen).now() } else { nodata(seen).now() }
}

// V02: musl stops searching when A and AAAA disagree, so the rcode of AAAA is that of A, whichever is asked first.
#[test]
fn a_missing_name_is_missing_for_both_families() {
    let upstream = Upstream::new(inconsistent);
    for mode in ["strip", "strip-if-a"] {
        let agent = Agent::start(&Config::new(&upstream).top("aaaa", mode));
        let before = upstream.seen().len();
        for (name, order) in [("one.missing.test", [AAAA, A]), ("two.missing.test", [A, AAAA])] {
            for rtype in order.into_iter().chain(order) {
                let answer = ask(agent.addr(), name, rtype);
                answer.assert_rcode(NXDOMAIN);
                assert!(answer.soa().is_some(), "{answer:?}");
            }
        }
        assert_eq!(upstream.seen().len() - before, 2, "{mode}: one question a name\n{}", upstream.history());
    }
}

// V02: a failure of A is a failure of AAAA too.
#[test]
fn a_failure_is_the_same_for_both_families() {
    let upstream = Upstream::new(failing(SERVFAIL));
    let agent = stripping(&upstream);
    for rtype in [AAAA, A, AAAA] {
        ask(agent.addr(), "failing.test", rtype).assert_rcode(SERVFAIL);
    }
}

// V02, V15: asked at the same moment, as stub resolvers do, both families cost one upstream question.
#[test]
fn both_families_share_a_question_in_flight() {
    let upstream = Upstream::new(delayed(millis(300), encoded(300)));
    let agent = stripping(&upstream);
    for (name, order) in [("one.pair.test", [A, AAAA]), ("two.pair.test", [AAAA, A])] {
        let waiting = order.map(|rtype| Ask::new(name, rtype).sender(agent.addr()));
        for (rtype, pending) in order.into_iter().zip(waiting) {
            let answer = pending.receive();
            if rtype == A {
                answer.assert_encodes(name);
            } else {
                assert_stripped(&answer);
            }
        }
        assert_eq!((upstream.count_of(name, A), upstream.count_of(name, AAAA)), (1, 0), "{}", upstream.history());
    }
}

/// `alias.test` is `middle.test` is `target.test`, which has both kinds of address.
fn aliased(seen: &Seen) -> Vec<Act> {
    let chain = [octets::cname("alias.test", 300, "middle.test"), octets::cname("middle.test", 300, "target.test")];
    let reply = Reply::to(seen).answers(chain);
    match seen.rtype {
        A => reply.answer(octets::a("target.test", 300, [192, 0, 2, 7])).now(),
        AAAA => reply.answer(octets::aaaa("target.test", 300, address6_of("target.test"))).now(),
        _ => reply.authority(octets::soa("test", 60, 60)).now(),
    }
}

// V03: the aliases stay, the addresses go.
#[test]
fn aliases_outlive_stripped_addresses() {
    let upstream = Upstream::new(aliased);
    let agent = stripping(&upstream);
    for _ in 0..2 {
        let answer = ask(agent.addr(), "alias.test", AAAA);
        assert_stripped(&answer);
        let chain: Vec<(String, String)> =
            answer.answers.iter().map(|record| (record.owner_text(), octets::text(&record.rdata))).collect();
        let link = |owner: &str, target: &str| (owner.to_owned(), target.to_owned());
        assert_eq!(chain, [link("alias.test", "middle.test"), link("middle.test", "target.test")], "{answer:?}");
        ask(agent.addr(), "alias.test", A).assert_address([192, 0, 2, 7]);
    }
}

// V04: a name with only IPv6 addresses keeps them where only names with both are stripped.
#[test]
fn a_name_with_only_ipv6_addresses_depends_on_the_mode() {
    let six = address6_of("six.test");
    let upstream = Upstream::new(records(vec![octets::aaaa("six.test", 300, six)]));
    for (mode, expected) in [("strip-if-a", vec![six]), ("strip", vec![]), ("keep", vec![six])] {
        let agent = Agent::start(&Config::new(&upstream).top("aaaa", mode));
        for _ in 0..2 {
            let answer = ask(agent.addr(), "six.test", AAAA);
            answer.assert_rcode(NOERROR);
            assert_eq!(answer.ipv6(), expected, "{mode}");
            ask(agent.addr(), "six.test", A).assert_nodata();
        }
    }
}

// V04: a zone's own mode goes before the default.
#[test]
fn a_zone_has_its_own_mode() {
    let upstream = Upstream::new(encoded(300));
    let config = Config::new(&upstream).top("aaaa", "strip").zone("six.test", "{ upstream: main, aaaa: keep }");
    let agent = Agent::start(&config);
    assert_stripped(&ask(agent.addr(), "www.test", AAAA));
    assert_eq!(ask(agent.addr(), "www.six.test", AAAA).ipv6(), [address6_of("www.six.test")]);
}

/// Everything under `signed.test` has signatures for those who want them, and AD; nothing else has.
fn partly_signed(seen: &Seen) -> Vec<Act> {
    let Some(record) = (match seen.rtype {
        A => Some(octets::a(&seen.name, 300, [192, 0, 2, 8])),
        AAAA => Some(octets::aaaa(&seen.name, 300, address6_of(&seen.name))),
        _ => None,
    }) else {
        return nodata(seen).now();
    };
    let mut reply = Reply::to(seen).answer(record);
    if seen.name.ends_with("signed.test") && !seen.name.ends_with("unsigned.test") {
        reply = reply.flag(AD);
        if seen.dnssec_ok() {
            reply = reply.answer(octets::rrsig(&seen.name, 300, seen.rtype, "signed.test"));
        }
    }
    reply.now()
}

// V05: who validates can tell that a signed answer was changed, so it is not; everything else is stripped.
#[test]
fn a_signed_answer_is_left_alone_for_validators() {
    let upstream = Upstream::new(partly_signed);
    let agent = stripping(&upstream);
    for _ in 0..2 {
        assert_stripped(&ask(agent.addr(), "www.signed.test", AAAA));
        let signed = Ask::new("www.signed.test", AAAA).dnssec_ok().send(agent.addr());
        assert_eq!(signed.ipv6(), [address6_of("www.signed.test")], "{signed:?}");
        assert_eq!(signed.of_type(RRSIG).len(), 1, "{signed:?}");
        assert!(signed.has(AD), "{signed:?}");
        signed.assert_ede(&[]);

        let unsigned = Ask::new("www.unsigned.test", AAAA).dnssec_ok().send(agent.addr());
        assert_stripped(&unsigned);
        assert!(!unsigned.has(AD), "{unsigned:?}");
    }
}

/// Services of `zone.test`, with the addresses of their hosts beside them.
fn services(seen: &Seen) -> Vec<Act> {
    let (four, six) = (octets::a("host.zone.test", 300, [192, 0, 2, 9]), address6_of("host.zone.test"));
    let six = octets::aaaa("host.zone.test", 300, six);
    let reply = Reply::to(seen);
    let name = &seen.name;
    match seen.rtype {
        MX => reply.answer(octets::mx(name, 300, "host.zone.test")).additional(four).additional(six).now(),
        NS => reply.answer(octets::ns(name, 300, "host.zone.test")).additional(six).additional(four).now(),
        SRV => reply.answer(octets::srv(name, 300, 80, "host.zone.test")).additional(six).additional(four).now(),
        ANY => {
            let own = [
                octets::aaaa(name, 300, address6_of(name)),
                octets::a(name, 300, [192, 0, 2, 10]),
                octets::mx(name, 300, "host.zone.test"),
            ];
            reply.answers(own).additional(six).additional(four).now()
        }
        _ => nodata(seen).now(),
    }
}

// V06: IPv6 addresses leave every section, and the counts tell the truth (the reader checks them).
#[test]
fn ipv6_addresses_leave_every_section() {
    let upstream = Upstream::new(services);
    let agent = stripping(&upstream);
    for _ in 0..2 {
        for (rtype, answers) in [(MX, 1), (NS, 1), (SRV, 1), (ANY, 2)] {
            let answer = ask(agent.addr(), "zone.test", rtype);
            answer.assert_rcode(NOERROR);
            assert_no_ipv6(&answer);
            assert_eq!(answer.answers.len(), answers, "{answer:?}");
            assert!(answer.additionals.iter().any(|record| record.ipv4().is_some()), "IPv4 glue is kept: {answer:?}");
        }
    }
}

// V10: a reload changes what is shown of names that are cached already, fresh and stale.
#[test]
fn a_reload_changes_the_mode_for_cached_names() {
    let upstream = Upstream::new(|seen| {
        let ttl = if seen.name.starts_with("short") { 1 } else { 300 };
        encoded(ttl)(seen)
    });
    let cache = "serve_stale: { max_stale: 1h, ttl: 30s, client_timeout: 0s }";
    let keep = Config::new(&upstream).cache(cache);
    let mut agent = Agent::start(&keep);
    let names = ["long.test", "short.test"];
    let mut asked = None;
    for name in names {
        assert_eq!(ask(agent.addr(), name, AAAA).ipv6(), [address6_of(name)]);
        asked = Some(ask(agent.addr(), name, A).assert_encodes(name).clone());
    }
    upstream.set(crate::support::upstream::silent);
    crate::support::until(asked.expect("two names were asked for").at + Duration::from_millis(1_300));

    for (mode, kept) in [("strip", false), ("keep", true), ("strip-if-a", false)] {
        let config = keep.clone().top("aaaa", mode);
        assert_eq!(agent.reload(&config), crate::support::agent::Reload::Done);
        for name in names {
            let answer = ask(agent.addr(), name, AAAA);
            answer.assert_rcode(NOERROR);
            assert_eq!(answer.ipv6(), if kept { vec![address6_of(name)] } else { vec![] }, "{mode}, {name}");
            assert_eq!(answer.records().any(|record| record.rtype == SOA), !kept, "{mode}, {name}");
        }
    }
}
