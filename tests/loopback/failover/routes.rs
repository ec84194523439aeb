//! Which upstream a name goes to, and what happens when that way leads back to ourselves.

use std::net::{SocketAddr, UdpSocket};

use crate::support::agent::Agent;
use crate::support::client::{Ask, ask};
use crate::support::config::{self, Config};
use crate::support::octets::{A, NS, SERVFAIL};
use crate::support::upstream::{Seen, Upstream, encoded, failing, silent};
use crate::support::{fresh_address, seconds};

// H15: the longest match on label bounds wins, in any letter case.
#[test]
fn a_name_goes_where_the_longest_zone_says() {
    let [corp, deep, rest] = std::array::from_fn(|_| Upstream::new(encoded(300)));
    let config = Config::new(&rest)
        .upstream("corp", &[corp.address()], "")
        .upstream("deep", &[deep.address()], "")
        .zone("corp.test", "{ upstream: corp }")
        .zone("Deep.Corp.Test.", "{ upstream: deep }");
    let agent = Agent::start(&config);

    for (name, expected) in [
        ("x.corp.test", &corp),
        ("xcorp.test", &rest),
        ("CORP.TEST", &corp),
        ("y.xdeep.corp.test", &corp),
        ("deep.corp.test", &deep),
        ("a.b.DEEP.corp.test", &deep),
        ("test", &rest),
        ("corp.test.other", &rest),
    ] {
        ask(agent.addr(), name, A).assert_encodes(name);
        let counts = [&corp, &deep, &rest].map(|upstream| upstream.count_of(name, A));
        assert_eq!(expected.count_of(name, A), 1, "{name} went to {counts:?}");
        assert_eq!(counts.iter().sum::<usize>(), 1, "{name} went to {counts:?}");
    }
    ask(agent.addr(), ".", NS).assert_nodata();
    assert_eq!(rest.count_of("", NS), 1);
}

// H16: a routed zone whose servers are dead never leaks to the others.
#[test]
fn a_dead_route_does_not_leak() {
    let scripts: [fn(&Seen) -> Vec<_>; 2] = [silent, |seen| failing(SERVFAIL)(seen)];
    for script in scripts {
        let (dead, rest) = (Upstream::new(script), Upstream::new(encoded(300)));
        let config = Config::new(&rest).upstream("dead", &[dead.address()], "").zone("corp.test", "{ upstream: dead }");
        let agent = Agent::start(&config);

        let answer = ask(agent.addr(), "x.corp.test", A);

        answer.assert_rcode(SERVFAIL);
        assert!(answer.answers.is_empty());
        assert_eq!(rest.seen().len(), 0, "{}", rest.history());
    }
}

// H14: two agents that forward to each other.
#[test]
fn agents_facing_each_other_end_the_loop() {
    let addresses = [fresh_address(), fresh_address()];
    let facing = |own: usize| {
        let other = SocketAddr::new(addresses[1 - own], config::PORT);
        Agent::start(&Config::with_servers(&[other], "").listen(&[addresses[own]]).metrics())
    };
    let agents = [facing(0), facing(1)];

    for name in ["loop.test", "again.loop.test"] {
        let answer = Ask::new(name, A).within(seconds(5)).send(agents[0].addr());
        answer.assert_rcode(SERVFAIL);
    }

    assert!(agents.iter().all(Agent::is_alive));
    assert_loop_is_told(&agents);
}

// H14: an upstream that hands our own questions back to us; no configuration shows that.
#[test]
fn a_relay_back_to_the_agent_ends_the_loop() {
    let address = fresh_address();
    let target = SocketAddr::new(address, config::PORT);
    let relay = UdpSocket::bind((address, 0)).expect("an ephemeral port is free");
    let upstream = Upstream::udp_only(move |seen| {
        relay.send_to(&seen.octets, target).expect("loopback takes it");
        Vec::new()
    });
    let good = Upstream::new(encoded(300));
    let config = Config::new(&upstream)
        .upstream("good", &[good.address()], "")
        .zone("good.test", "{ upstream: good }")
        .listen(&[address])
        .metrics();
    let agents = [Agent::start(&config)];

    Ask::new("loop.test", A).within(seconds(5)).send(agents[0].addr()).assert_rcode(SERVFAIL);

    let sends = upstream.count_of("loop.test", A);
    assert!(sends <= 20, "one question became {sends}");
    assert!(agents[0].is_alive());
    ask(agents[0].addr(), "x.good.test", A).assert_encodes("x.good.test");
    assert_loop_is_told(&agents);
}

/// H14: "log and metric".
fn assert_loop_is_told(agents: &[Agent]) {
    let logged = agents.iter().any(|agent| agent.said().contains("loop"));
    assert!(logged, "no log line tells of the loop:\n{}", agents[0].said());
    let counted = |agent: &Agent| {
        let metrics = agent.metrics();
        let samples = metrics.lines().filter(|line| !line.starts_with('#') && line.contains("loop"));
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() > 0.0
    };
    assert!(agents.iter().any(counted), "no metric counts the loop");
}
