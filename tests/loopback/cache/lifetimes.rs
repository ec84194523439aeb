//! How long answers live and what their TTLs show meanwhile.
//!
//! Read first: RFC 1035 section 3.2.1, RFC 2181 sections 5.2 and 8.

use crate::support::agent::Agent;
use crate::support::client::{Answer, Ask, ask, ask_at_once};
use crate::support::config::Config;
use crate::support::octets::{A, AA, CNAME, MX, NOERROR, RA, Rr, a, cname, mx, ns};
use crate::support::upstream::{Reply, Upstream, changing, delayed, encoded, records};
use crate::support::{millis, seconds, until};

// C01
#[test]
fn a_hit_shows_the_ttl_that_is_left() {
    let upstream = Upstream::new(encoded(300));
    let agent = Agent::start(&Config::new(&upstream));
    let first = ask(agent.addr(), "a.test", A);
    first.assert_encodes("a.test").assert_ttl_near(300);
    until(first.at + seconds(7));
    ask(agent.addr(), "a.test", A).assert_encodes("a.test").assert_ttl_near(293);
    assert_eq!(upstream.count_of("a.test", A), 1, "{}", upstream.history());
}

// C02
#[test]
fn an_expired_answer_is_asked_for_again() {
    let upstream = Upstream::new(changing(2));
    let agent = Agent::start(&Config::new(&upstream));
    let first = ask(agent.addr(), "a.test", A);
    first.assert_address([192, 0, 2, 1]);
    until(first.at + seconds(1));
    ask(agent.addr(), "a.test", A).assert_address([192, 0, 2, 1]);
    until(first.at + seconds(3));
    ask(agent.addr(), "a.test", A).assert_address([192, 0, 2, 2]).assert_ede(&[]);
    assert_eq!(upstream.count_of("a.test", A), 2, "{}", upstream.history());
}

/// An MX answer that keeps something in all three sections, with these TTLs.
fn mail(answer: u32, authority: u32, additional: u32) -> impl Fn(&crate::support::upstream::Seen) -> Reply {
    move |seen| {
        Reply::to(seen)
            .answer(mx(&seen.name, answer, "mail.a.test"))
            .authority(ns("a.test", authority, "ns.a.test"))
            .additional(a("mail.a.test", additional, [192, 0, 2, 25]))
    }
}

/// TTLs by section, as shown.
fn ttls(answer: &Answer) -> [Vec<u32>; 3] {
    [&answer.answers, &answer.authorities, &answer.additionals].map(|records| records.iter().map(|it| it.ttl).collect())
}

fn lives_as_long_as_its_shortest_section(sections: [u32; 3]) {
    let script = mail(sections[0], sections[1], sections[2]);
    let upstream = Upstream::new(move |seen| script(seen).now());
    let agent = Agent::start(&Config::new(&upstream));
    let first = ask(agent.addr(), "a.test", MX);
    assert_eq!(first.answers.len(), 1);
    let shown = ttls(&first);
    until(first.at + millis(1500));
    let second = ask(agent.addr(), "a.test", MX);
    assert_eq!(upstream.count_of("a.test", MX), 1, "a hit: {}", upstream.history());
    for (before, after) in shown.iter().flatten().zip(ttls(&second).iter().flatten()) {
        assert!((1..=2).contains(&(before - after)), "every TTL counts down: {first:?} then {second:?}");
    }
    // What was cut away with a section has no say in the lifetime of the rest.
    let shortest = shown.iter().flatten().min().copied().expect("there is an answer");
    until(first.at + millis(3300));
    ask(agent.addr(), "a.test", MX);
    let expected = if shortest == 3 { 2 } else { 1 };
    assert_eq!(upstream.count_of("a.test", MX), expected, "shown {shown:?}: {}", upstream.history());
    assert!(shortest == 3 || !sections.iter().zip(&shown).any(|(ttl, shown)| *ttl == 3 && !shown.is_empty()));
}

// C03
#[test]
fn an_answer_lives_as_long_as_its_shortest_answer_record() {
    lives_as_long_as_its_shortest_section([3, 300, 300]);
}

// C03
#[test]
fn an_answer_lives_as_long_as_its_shortest_authority_record() {
    lives_as_long_as_its_shortest_section([300, 3, 300]);
}

// C03
#[test]
fn an_answer_lives_as_long_as_its_shortest_additional_record() {
    lives_as_long_as_its_shortest_section([300, 300, 3]);
}

// C04
#[test]
fn an_answer_with_ttl_zero_is_used_once() {
    let upstream = Upstream::new(changing(0));
    let agent = Agent::start(&Config::new(&upstream));
    let first = ask(agent.addr(), "a.test", A);
    assert_eq!(first.assert_address([192, 0, 2, 1]).ttl(), 0);
    let second = ask(agent.addr(), "a.test", A);
    assert_eq!(second.assert_address([192, 0, 2, 2]).ttl(), 0);
    assert_eq!(upstream.count_of("a.test", A), 2, "{}", upstream.history());
}

// C04
#[test]
fn two_at_once_may_share_an_answer_with_ttl_zero() {
    let upstream = Upstream::new(delayed(millis(200), changing(0)));
    let agent = Agent::start(&Config::new(&upstream));
    for answer in ask_at_once(agent.addr(), &[Ask::new("a.test", A), Ask::new("a.test", A)]) {
        answer.assert_rcode(NOERROR);
        assert_eq!((answer.answers.len(), answer.ttl()), (1, 0));
    }
    assert!((1..=2).contains(&upstream.count_of("a.test", A)), "{}", upstream.history());
}

// C05
#[test]
fn an_answer_with_ttl_one_shows_one_until_it_expires() {
    let upstream = Upstream::new(encoded(1));
    let agent = Agent::start(&Config::new(&upstream));
    // The last moments of a second are easily missed on a busy machine; one of these will be met.
    for name in (0..6).map(|number| format!("n{number}.test")) {
        let first = ask(agent.addr(), &name, A);
        assert_eq!(first.ttl(), 1);
        until(first.asked + millis(800));
        let second = ask(agent.addr(), &name, A);
        assert_eq!(second.ttl(), 1, "never 0 once learnt with more");
        if second.at >= first.asked + seconds(1) {
            continue;
        }
        assert_eq!(upstream.count_of(&name, A), 1, "{}", upstream.history());
        until(first.at + millis(1050));
        assert_eq!(ask(agent.addr(), &name, A).ttl(), 1);
        assert_eq!(upstream.count_of(&name, A), 2, "{}", upstream.history());
        return;
    }
    panic!("the machine is too busy to ask within 200 ms");
}

// C06
#[test]
fn ttls_never_exceed_a_day_whatever_the_upstream_says() {
    let upstream = Upstream::new(|seen| {
        let ttl = match &*seen.name {
            "week.test" => 604_800,
            "sign.test" => 0x8000_0000,
            _ => 0xffff_ffff,
        };
        Reply::to(seen).answer(a(&seen.name, ttl, [192, 0, 2, 1])).now()
    });
    let agent = Agent::start(&Config::new(&upstream));
    for name in ["week.test", "sign.test", "all.test"] {
        for _ in 0..2 {
            ask(agent.addr(), name, A).assert_address([192, 0, 2, 1]).assert_ttl_near(86_400);
            assert!(ask(agent.addr(), name, A).ttl() <= 86_400);
        }
        assert_eq!(upstream.count_of(name, A), 1, "{}", upstream.history());
    }
}

// C06
#[test]
fn answers_are_gone_after_max_ttl() {
    let upstream = Upstream::new(|seen| {
        let ttl = if seen.name == "sign.test" { 0x8000_0000 } else { 0xffff_ffff };
        Reply::to(seen).answer(a(&seen.name, ttl, [192, 0, 2, 1])).now()
    });
    let agent = Agent::start(&Config::new(&upstream).cache("max_ttl: 2s"));
    let names = ["sign.test", "all.test"];
    let firsts = names.map(|name| ask(agent.addr(), name, A));
    assert_eq!(firsts.each_ref().map(Answer::ttl), [2, 2]);
    until(firsts[1].at + millis(2100));
    for name in names {
        assert_eq!(ask(agent.addr(), name, A).assert_ede(&[]).ttl(), 2);
        assert_eq!(upstream.count_of(name, A), 2, "{}", upstream.history());
    }
}

// C08
#[test]
fn a_set_of_records_lives_as_long_as_its_shortest() {
    let upstream = Upstream::new(|seen| {
        let set = [a(&seen.name, 300, [192, 0, 2, 1]), a(&seen.name, 2, [192, 0, 2, 2])];
        Reply::to(seen).answers(set).now()
    });
    let agent = Agent::start(&Config::new(&upstream));
    let first = ask(agent.addr(), "a.test", A);
    // RFC 2181 section 5.2: all TTLs of a set are the lowest among them.
    assert_eq!(first.answers.iter().map(|it| it.ttl).collect::<Vec<_>>(), [2, 2]);
    until(first.at + millis(2100));
    assert_eq!(ask(agent.addr(), "a.test", A).ipv4().len(), 2);
    assert_eq!(upstream.count_of("a.test", A), 2, "{}", upstream.history());
}

// C17
#[test]
fn a_chain_lives_as_long_as_its_shortest_link() {
    let chain = vec![cname("a.test", 300, "b.test"), cname("b.test", 60, "c.test"), a("c.test", 3, [192, 0, 2, 1])];
    let upstream = Upstream::new(move |seen| match seen.rtype {
        A => Reply::to(seen).answers(chain.clone()).now(),
        _ => records(chain.clone())(seen),
    });
    let agent = Agent::start(&Config::new(&upstream));
    let first = ask(agent.addr(), "a.test", A);
    let shape = |answer: &Answer| answer.answers.iter().map(|it| (it.owner_text(), it.rtype)).collect::<Vec<_>>();
    let expected = [("a.test", CNAME), ("b.test", CNAME), ("c.test", A)].map(|(name, rtype)| (name.to_owned(), rtype));
    assert_eq!(shape(&first), expected);
    let alias = ask(agent.addr(), "a.test", CNAME);
    assert_eq!(shape(&alias), expected[..1]);
    alias.assert_ttl_near(300);
    assert_eq!(upstream.count_of("a.test", CNAME), 1, "the alias is its own question");
    until(first.at + millis(1500));
    let second = ask(agent.addr(), "a.test", A);
    assert_eq!(shape(&second), expected);
    assert!(second.answers[2].ttl < 3 && upstream.count_of("a.test", A) == 1, "{}", upstream.history());
    until(first.at + millis(3100));
    assert_eq!(shape(&ask(agent.addr(), "a.test", A)), expected);
    ask(agent.addr(), "a.test", CNAME).assert_rcode(NOERROR);
    assert_eq!([A, CNAME].map(|it| upstream.count_of("a.test", it)), [2, 1], "{}", upstream.history());
}

// C42
#[test]
fn answers_are_never_authoritative_and_always_offer_recursion() {
    let upstream = Upstream::new(|seen| {
        let set: Vec<Rr> = vec![a(&seen.name, 60, [192, 0, 2, 1])];
        Reply::to(seen).flag(AA).without(RA).answers(set).now()
    });
    let agent = Agent::start(&Config::new(&upstream));
    for _ in 0..2 {
        let answer = ask(agent.addr(), "a.test", A);
        assert!(!answer.has(AA) && answer.has(RA), "{answer:?}");
    }
    assert_eq!(upstream.count_of("a.test", A), 1);
}
