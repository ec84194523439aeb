//! A reload that moves us to other addresses: the host follows, and those who ask lose nothing.

use std::time::{Duration, Instant};

use crate::agent::{Agent, Config, LIMIT};
use crate::eye;
use crate::stage::{CLUSTER_IPS, Flavour, OWN_IPS, Stage};
use crate::stream::{Load, Transport, for_a_while, wait_until};

// Issue 4: listen addresses are reloaded; the node plane follows.
#[test]
fn addresses_that_come_and_go_are_put_on_the_host_and_taken_away() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let mut fewer = Config::new();
    fewer.addresses = CLUSTER_IPS.to_vec();
    let mut agent = Agent::start(&stage.node, &fewer);
    let start = Instant::now();
    // While we move, the cluster's DNS answers; a connection under way would be cut by that, a datagram is not.
    let stream = Load::to(&CLUSTER_IPS).rate(1000, 0).start(&stage.pods[0]);
    let serves_own = || Load::to(&OWN_IPS).ask(&stage.pods[1], Transport::Udp, 8).agent().len() == 8;
    for _ in 0..2 {
        assert!(agent.reload(&Config::new()), "it said:\n{}", agent.said());
        let there = || OWN_IPS.iter().all(|ip| eye::our_addresses(&stage.node).contains(ip));
        assert!(wait_until(LIMIT, || there() && serves_own()).is_some(), "it said:\n{}", agent.said());
        assert!(agent.reload(&fewer), "it said:\n{}", agent.said());
        let gone = || !OWN_IPS.iter().any(|ip| eye::our_addresses(&stage.node).contains(ip));
        assert!(wait_until(LIMIT, gone).is_some(), "{:?}", eye::our_addresses(&stage.node));
    }
    for_a_while(Duration::from_millis(400));
    stream.stop().assert_nothing_failed(start);
    assert!(agent.stop().1.success(), "it said:\n{}", agent.said());
}

// A block that is added or taken away needs no restart either.
#[test]
fn the_node_block_can_come_and_go() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let mut agent = Agent::start(&stage.node, &Config::new());
    let serves = || Load::to(&CLUSTER_IPS).ask(&stage.pods[0], Transport::Udp, 8).agent().len() == 8;
    assert!(agent.reload(&Config::new().node("")), "it said:\n{}", agent.said());
    let given_back = || Load::to(&CLUSTER_IPS).ask(&stage.pods[0], Transport::Udp, 8).cluster().len() == 8;
    assert!(wait_until(LIMIT, given_back).is_some(), "it said:\n{}", agent.said());
    assert!(agent.reload(&Config::new()), "it said:\n{}", agent.said());
    assert!(wait_until(LIMIT, serves).is_some(), "it said:\n{}", agent.said());
    assert!(agent.stop().1.success());
}
