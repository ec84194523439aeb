//! The cache under pressure: floods, hot names about to expire, flushes.
//!
//! Read first: RFC 8767 section 5, for what a refresh must not do.

use std::time::Instant;

use crate::support::agent::Agent;
use crate::support::client::{Answer, Ask, ask, ask_many};
use crate::support::config::Config;
use crate::support::octets::{A, NXDOMAIN, soa};
use crate::support::upstream::{Reply, Upstream, delayed, encoded, encoded_reply};
use crate::support::{fresh_address, millis, until};

// C39. The full size, 16 MiB and two million names, is the load test's.
#[test]
fn a_flood_of_missing_names_costs_no_hot_name_its_place() {
    const HOT: usize = 100;
    let upstream = Upstream::new(|seen| {
        if seen.name.starts_with("hot") {
            encoded_reply(seen, 3600).now()
        } else {
            Reply::to(seen).rcode(NXDOMAIN).authority(soa("test", 3600, 3600)).now()
        }
    });
    let agent = Agent::start(&Config::new(&upstream).cache("memory: 1MiB"));
    let hot = || (0..HOT).map(|number| Ask::new(&format!("hot{number}.test"), A));
    let junk = |round: usize| (0..5000).map(move |it| Ask::new(&format!("r{round}-{it}-of-the-flood.test"), A));
    let flooder = fresh_address();
    // The first round brings buffers and tables to their size; what comes after may only fill the cache.
    assert_eq!(ask_many(agent.addr(), hot(), 20).len(), HOT);
    ask_many(agent.addr(), junk(0).map(|it| it.from(flooder)), 50);
    let before = agent.rss();
    for round in 1..=3 {
        let answers = ask_many(agent.addr(), junk(round).map(|it| it.from(flooder)), 50);
        assert!(answers.len() > 4900 && answers.iter().all(|it| it.rcode() == NXDOMAIN), "{}", answers.len());
        ask_many(agent.addr(), hot(), 20);
    }
    let grown = agent.rss().saturating_sub(before);
    // Kept, they would be 6 MiB. The pool of upstream sockets grows meanwhile, and is bounded by its own count.
    assert!(grown <= 3 << 20, "15,000 names in a cache of 1 MiB took {grown} bytes more");
    let again = upstream.seen().iter().filter(|seen| seen.name.starts_with("hot")).count() - HOT;
    assert!(again <= HOT * 4 / 100, "{again} of {} hot asks were misses", HOT * 4);
}

// C40. The waiting is the load: a name asked for fifty times a second.
#[test]
fn a_hot_name_is_refreshed_once_before_it_expires_and_nobody_waits() {
    // Less than the 400 ms after which a question is sent again.
    let upstream = Upstream::new(delayed(millis(300), encoded(4)));
    let agent = Agent::start(&Config::new(&upstream).cache("prefetch: { hits: 2, at: 30% }"));
    let first = ask(agent.addr(), "a.test", A);
    let mut answers: Vec<Answer> = Vec::new();
    for tick in 1..=400 {
        until(first.at + millis(20) * tick);
        answers.push(ask(agent.addr(), "a.test", A));
    }
    let waited = answers.iter().filter(|it| it.assert_encodes("a.test").elapsed >= millis(300)).count();
    assert_eq!(waited, 0, "of 400 askers none waits for the upstream");
    assert!(answers.iter().all(|it| it.ede().is_empty() && it.ttl() >= 1));
    let asked: Vec<Instant> = upstream.questions_of("a.test", A).iter().map(|it| it.at).collect();
    // 8 s and a life of 4 s, of which the last 30 % may be cut off by each refresh.
    assert!((3..=4).contains(&asked.len()), "{}", upstream.history());
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= millis(2600)), "{}", upstream.history());
}

// C41
#[test]
fn a_flush_forgets_what_it_names_and_nothing_else() {
    let upstream = Upstream::new(encoded(300));
    let agent = Agent::start(&Config::new(&upstream));
    let names = ["a.test", "b.test", "corp.test", "x.corp.test", "y.x.corp.test", "xcorp.test"];
    let mut expected = [0; 6];
    let mut ask_all = |forgotten: &[&str]| {
        for (name, expected) in names.iter().zip(&mut expected) {
            ask(agent.addr(), name, A).assert_encodes(name);
            *expected += usize::from(forgotten.contains(name));
            assert_eq!(upstream.count_of(name, A), *expected, "{name} after {forgotten:?} were flushed");
        }
    };
    ask_all(&names);
    ask_all(&[]);
    agent.command(&["cache", "flush", "--name", "A.test"]);
    ask_all(&["a.test"]);
    agent.command(&["cache", "flush", "--zone", "corp.test"]);
    ask_all(&["corp.test", "x.corp.test", "y.x.corp.test"]);
    agent.command(&["cache", "flush"]);
    ask_all(&names);
}

// C41
#[test]
fn a_flush_under_load_loses_no_answer() {
    let upstream = Upstream::new(encoded(300));
    let agent = Agent::start(&Config::new(&upstream));
    let questions = |round: u32| (0..2000).map(move |it| Ask::new(&format!("n{}.test", (it + round) % 200), A));
    std::thread::scope(|scope| {
        let load =
            scope.spawn(|| (0..3).map(|round| ask_many(agent.addr(), questions(round), 20).len()).sum::<usize>());
        for arguments in [&["cache", "flush"][..], &["cache", "flush", "--zone", "test"], &["cache", "flush"]] {
            agent.command(arguments);
        }
        assert_eq!(load.join().expect("the load does not panic"), 6000);
    });
    assert!(agent.is_alive());
    ask(agent.addr(), "n1.test", A).assert_encodes("n1.test");
}
