//! What upstreams are asked, and what becomes of those that do not speak EDNS.
//!
//! Read first: RFC 6891 section 7, RFC 5452 section 9.2.

use std::collections::BTreeSet;

use crate::support::agent::Agent;
use crate::support::client::{Ask, ask};
use crate::support::config::Config;
use crate::support::millis;
use crate::support::octets::{A, AD, BADVERS, FORMERR, QR, RD};
use crate::support::upstream::{Act, Reply, Seen, Upstream, encoded, encoded_reply};

// E16
#[test]
fn upstreams_that_reject_edns_are_asked_without() {
    for rcode in [FORMERR, BADVERS] {
        let upstream = Upstream::new(move |seen| match seen.opt() {
            Some(_) if rcode == FORMERR => Reply::to(seen).no_opt().rcode(FORMERR).now(),
            Some(_) => Reply::to(seen).rcode(rcode).now(),
            None => encoded_reply(seen, 60).now(),
        });
        let agent = Agent::start(&Config::new(&upstream));
        ask(agent.addr(), "a.test", A).assert_encodes("a.test");
        Ask::new("a.test", A).dnssec_ok().send(agent.addr()).assert_encodes("a.test");
        ask(agent.addr(), "b.test", A).assert_encodes("b.test");
    }
}

// E16, MU30
#[test]
fn a_bare_header_with_formerr_is_an_answer_to_edns() {
    let upstream = Upstream::new(|seen| match seen.opt() {
        Some(_) => {
            let mut reply = Reply::to(seen).no_opt().rcode(FORMERR);
            reply.question.clear();
            reply.now()
        }
        None => encoded_reply(seen, 60).now(),
    });
    let agent = Agent::start(&Config::new(&upstream));
    ask(agent.addr(), "a.test", A).assert_encodes("a.test");
}

// E16
#[test]
fn upstreams_that_drop_edns_are_asked_without() {
    let upstream = Upstream::new(|seen| if seen.opt().is_some() { Vec::new() } else { encoded_reply(seen, 60).now() });
    let agent = Agent::start(&Config::new(&upstream));
    ask(agent.addr(), "a.test", A).assert_encodes("a.test");
    Ask::new("a.test", A).dnssec_ok().send(agent.addr()).assert_encodes("a.test");
}

// E16
#[test]
fn forged_rejections_teach_nothing() {
    let upstream = Upstream::new(|seen: &Seen| {
        let mut forged = Reply::to(seen).no_opt().rcode(FORMERR);
        forged.id ^= 1;
        let mut acts = forged.now();
        acts.push(Act::Reply { after: millis(20), octets: encoded_reply(seen, 60).octets() });
        acts
    });
    let agent = Agent::start(&Config::new(&upstream));
    for name in ["a.test", "b.test", "c.test"] {
        ask(agent.addr(), name, A).assert_encodes(name);
    }
    assert!(upstream.seen().iter().all(|it| it.opt().is_some()), "{}", upstream.history());
}

// E18
#[test]
fn upstreams_are_asked_one_plain_question_with_a_fresh_id() {
    let upstream = Upstream::new(encoded(60));
    let agent = Agent::start(&Config::new(&upstream));
    let names: Vec<String> = (0..64).map(|number| format!("n{number}.test")).collect();
    for name in &names {
        ask(agent.addr(), name, A).assert_encodes(name);
    }
    let seen: Vec<Seen> = names.iter().flat_map(|name| upstream.seen_of(name, A)).collect();
    assert_eq!(seen.len(), 64);
    for query in &seen {
        assert_eq!(query.flags & !(RD | AD), 0, "{:04x}", query.flags);
        assert!(query.has(RD) && !query.has(QR));
        assert_eq!(query.message.counts, [1, 0, 0, 1]);
        let opt = query.opt().expect("we speak EDNS to upstreams");
        assert_eq!((opt.payload_size, opt.version, opt.flags, opt.options.len()), (1232, 0, 0, 0));
    }
    let ids: BTreeSet<u16> = seen.iter().map(|it| it.id).collect();
    // 64 random IDs hold a pair of equals in 3 % of runs, three equals or pairs in less than one of 50,000.
    assert!(ids.len() >= 62, "{ids:?}");
    let steps: BTreeSet<u16> = seen.windows(2).map(|pair| pair[1].id.wrapping_sub(pair[0].id)).collect();
    assert!(steps.len() >= 60, "IDs follow a rule: {ids:?}");
}
