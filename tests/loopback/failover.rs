//! Upstreams that are silent, closed, wrong, lossy or under attack: the client gets its answer all the same.

mod connections;
mod routes;
mod sources;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::crowd::{self, ask_all, assert_all_right, quantile};
use crate::support::agent::Agent;
use crate::support::client::{Answer, Ask, ask};
use crate::support::config::Config;
use crate::support::octets::{A, FORMERR, NOERROR, NOTIMP, NS, REFUSED, SERVFAIL};
use crate::support::upstream::{self, Act, Reply, Seen, Transport, Upstream, encoded, encoded_reply, failing, silent};
use crate::support::{fresh_address, millis, seconds, until};

/// A limit below which no timer of ours can have run out: what takes less did not wait for a time-out.
const AT_ONCE: Duration = millis(250);
/// What a busy test machine may add to the time a timer takes.
const SLACK: Duration = millis(300);

/// An address where nobody listens.
fn closed_port() -> std::net::SocketAddr {
    std::net::SocketAddr::new(fresh_address(), upstream::PORT)
}

// H01: a silent first server costs its time-out a few times, then it is passed over.
#[test]
fn a_silent_server_is_passed_over() {
    let (mute, good) = (Upstream::new(silent), Upstream::new(encoded(300)));
    let agent = Agent::start(&Config::with_servers(&[mute.address(), good.address()], ""));

    let answers: Vec<Answer> = crowd::names("silent.test", 100)
        .iter()
        .map(|name| {
            let answer = ask(agent.addr(), name, A);
            answer.assert_encodes(name);
            answer
        })
        .collect();

    let slowest = answers.iter().map(|answer| answer.elapsed).max().expect("a hundred answers");
    assert!(slowest <= millis(700) + SLACK, "an answer took {slowest:?}");
    let waited = answers[10..].iter().filter(|answer| answer.elapsed > AT_ONCE).count();
    assert!(waited <= 1, "{waited} of 90 answers waited for the silent server");
}

// H02: a closed port says so at once; the next server is asked, and the first is soon trusted again.
#[test]
fn a_closed_port_is_left_at_once_and_not_for_long() {
    let (first, second) = (closed_port(), Upstream::new(encoded(300)));
    let agent = Agent::start(&Config::with_servers(&[first, second.address()], ""));

    let answer = ask(agent.addr(), "closed.test", A);
    answer.assert_encodes("closed.test");
    assert!(answer.elapsed < AT_ONCE, "failing over took {:?}", answer.elapsed);

    let first = Upstream::at(first, true, encoded(300));
    let (start, mut number) = (Instant::now(), 0);
    while !first.seen().iter().any(|seen| seen.rtype == A) {
        assert!(start.elapsed() < seconds(8), "one ICMP message keeps a server out for {:?}", start.elapsed());
        number += 1;
        let name = format!("n{number}.reopened.test");
        ask(agent.addr(), &name, A).assert_encodes(&name);
        until(start + millis(50) * number);
    }
}

// H03: a server that refuses, fails or does not understand is not the last word.
#[test]
fn a_failing_server_is_not_the_last_word() {
    for rcode in [SERVFAIL, REFUSED, FORMERR, NOTIMP] {
        let (bad, good) = (Upstream::new(failing(rcode)), Upstream::new(encoded(300)));
        let agent = Agent::start(&Config::with_servers(&[bad.address(), good.address()], ""));
        for name in crowd::names("failing.test", 5) {
            ask(agent.addr(), &name, A).assert_encodes(&name);
        }
    }
}

// H05: everything dead for a while, then one server back: so is the service, within two seconds.
#[test]
fn service_is_back_soon_after_the_first_server_is() {
    let servers = [Upstream::new(silent), Upstream::new(silent)];
    let addresses = servers.each_ref().map(Upstream::address);
    let agent = Agent::start(&Config::with_servers(&addresses, "health_check: { interval: 500ms, max_fails: 2 }"));
    let mut number = 0;
    // Ten questions a second, each for a new name, none waited for beyond its tenth.
    let mut next = || {
        number += 1;
        let (name, sent) = (format!("n{number}.dead.test"), Instant::now());
        let answer = Ask::new(&name, A).within(millis(100)).try_send(agent.addr());
        until(sent + millis(100));
        (name, answer)
    };

    let start = Instant::now();
    while start.elapsed() < seconds(5) {
        if let (_, Some(answer)) = next() {
            answer.assert_rcode(SERVFAIL);
        }
    }
    servers[1].set(encoded(300));
    let back = Instant::now();
    loop {
        assert!(back.elapsed() < seconds(2) + SLACK, "no service {:?} after a server came back", back.elapsed());
        match next() {
            (name, Some(answer)) if answer.rcode() == NOERROR => {
                answer.assert_encodes(&name);
                break;
            }
            _ => {}
        }
    }
}

// H06: a healthy server sees the clients' questions and nothing else.
#[test]
fn a_healthy_server_is_not_probed() {
    let upstream = Upstream::new(encoded(300));
    let config = Config::with_servers(&[upstream.address()], "health_check: { interval: 500ms, max_fails: 2 }");
    let agent = Agent::start(&config);
    let start = Instant::now();
    for name in crowd::names("healthy.test", 50) {
        ask(agent.addr(), &name, A).assert_encodes(&name);
    }
    // Long enough for three probes.
    until(start + seconds(2));

    assert_eq!(upstream.seen().len(), 50, "{}", upstream.history());
}

// H06: a suspect is probed, at most twice a second, and any reply at all brings it back.
#[test]
fn a_suspect_is_probed_gently_and_forgiven_for_any_reply() {
    let (suspect, good) = (Upstream::new(silent), Upstream::new(encoded(300)));
    let check = "health_check: { interval: 500ms, max_fails: 2, name: \"probe.test\" }";
    let agent = Agent::start(&Config::with_servers(&[suspect.address(), good.address()], check));
    for name in crowd::names("suspect.test", 10) {
        ask(agent.addr(), &name, A).assert_encodes(&name);
    }
    let is_probe = |seen: &Seen| seen.is("probe.test", NS);
    let first = suspect.wait_where(1, seconds(5), is_probe)[0].at;
    until(first + seconds(3));
    let probes = suspect.seen().iter().filter(|seen| is_probe(seen) && seen.at < first + seconds(3)).count();
    assert!((2..=7).contains(&probes), "{probes} probes in 3 s:\n{}", suspect.history());
    assert!(!good.seen().iter().any(is_probe), "the good server is probed too:\n{}", good.history());

    // The suspect is first in line, so once it is trusted again it is asked before the other.
    suspect.set(failing(REFUSED));
    let (start, before) = (Instant::now(), suspect.seen().len());
    let mut number = 0;
    while !suspect.seen()[before..].iter().any(|seen| seen.name.ends_with("forgiven.test")) {
        assert!(start.elapsed() < seconds(4), "REFUSED does not count as alive:\n{}", suspect.history());
        number += 1;
        let name = format!("n{number}.forgiven.test");
        ask(agent.addr(), &name, A).assert_encodes(&name);
        until(start + millis(50) * number);
    }
}

/// A hundred lies from the server's own address, then the truth 20 ms later; over TCP the truth at once.
fn under_forgery(seen: &Seen) -> Vec<Act> {
    let truth = encoded_reply(seen, 300);
    if seen.transport == Transport::Tcp {
        return truth.now();
    }
    let mut acts = Vec::with_capacity(101);
    for number in 1..=100_u16 {
        let lie = Reply { id: seen.id.wrapping_add(number.wrapping_mul(653)), ..truth.clone() };
        // Wrong addresses, failures and "I do not know EDNS", all with a wrong ID.
        let lie = match number % 4 {
            0 => lie.rcode(FORMERR).no_opt(),
            1 => lie.rcode(SERVFAIL),
            2 => lie.rcode(REFUSED),
            _ => Reply { answers: vec![crate::support::octets::a(&seen.name, 300, [6, 6, 6, 6])], ..lie },
        };
        acts.extend(lie.now());
    }
    acts.extend(truth.after(millis(20)));
    acts
}

// H07: forged datagrams hurt nothing: no wrong answer, the server stays trusted with EDNS, the cache stays full.
#[test]
fn forged_datagrams_change_nothing() {
    let (attacked, other) = (Upstream::new(encoded(300)), Upstream::new(encoded(300)));
    let agent = Agent::start(&Config::with_servers(&[attacked.address(), other.address()], ""));
    ask(agent.addr(), "known.test", A).assert_encodes("known.test");
    attacked.set(under_forgery);

    let asked = ask_all(agent.addr(), crowd::names("forged.test", 100), 4, seconds(5));

    assert_all_right(&asked);
    assert_eq!(other.seen().len(), 0, "the attacked server was given up:\n{}", other.history());
    let plain = attacked.seen().iter().filter(|seen| seen.opt().is_none()).count();
    assert_eq!(plain, 0, "forged FORMERRs turned EDNS off");
    let before = attacked.seen().len();
    ask(agent.addr(), "known.test", A).assert_encodes("known.test");
    assert_eq!(attacked.seen().len(), before, "the cache was flushed");
}

/// Loses three of ten queries and three of ten answers; the same every time. TCP gets through, after a lost SYN.
fn lossy() -> impl Fn(&Seen) -> Vec<Act> + Send + Sync {
    let dice = Mutex::new(0x2545_f491_4f6c_dd1d_u64);
    move |seen| {
        if seen.transport == Transport::Tcp {
            return encoded_reply(seen, 300).after(seconds(1));
        }
        let roll = || {
            let mut state = dice.lock().expect("a roll does not panic");
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            *state % 10 < 3
        };
        let (query_lost, answer_lost) = (roll(), roll());
        if query_lost || answer_lost { Vec::new() } else { encoded_reply(seen, 300).now() }
    }
}

// H08: with 30 % of the packets lost each way, 99.9 % of the names are answered in 4 s, 99 % of them in 1.6 s.
#[test]
fn heavy_loss_is_made_up_for_by_asking_again() {
    let upstream = Upstream::new(lossy());
    let agent = Agent::start(&Config::new(&upstream));

    let asked = ask_all(agent.addr(), crowd::names("lossy.test", 2_000), 200, seconds(4) + SLACK);

    let right = asked.iter().filter(|asked| asked.is_right()).count();
    assert!(right >= 1_998, "{right} of 2,000 names answered");
    let p99 = quantile(&asked, 990);
    assert!(p99 < millis(1_600) + SLACK, "99 % of the answers took {p99:?}");
    let sends = upstream.seen().len();
    assert!(sends < 2_000 * 8, "{sends} sends for 2,000 names: that is a storm");
}

// H12: equal servers get equal shares, whatever the policy and the transport.
#[test]
fn equal_servers_get_equal_shares() {
    for policy in ["least-outstanding", "round-robin", "random"] {
        for protocol in ["udp", "tcp"] {
            let servers: [Upstream; 4] = std::array::from_fn(|_| Upstream::new(encoded(300)));
            let addresses = servers.each_ref().map(Upstream::address);
            let extra = format!("policy: {policy}, protocol: {protocol}");
            let agent = Agent::start(&Config::with_servers(&addresses, &extra));

            assert_all_right(&ask_all(agent.addr(), crowd::names("shared.test", 1_200), 12, seconds(5)));

            let shares = servers.each_ref().map(|server| server.seen().len());
            // A quarter each, give or take 5 points of the whole.
            let fair = shares.iter().all(|share| (240..=360).contains(share));
            assert!(fair, "{policy} over {protocol}: {shares:?} of 1,200");
        }
    }
}
