//! Other people's tools take away what is ours: it is back within a second.

use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use crate::agent::{Agent, Config, LIMIT};
use crate::eye::{self, Sight};
use crate::life::Clients;
use crate::stage::{CLUSTER_IPS, Flavour, Namespace, OWN_IPS, Stage, kube_proxy};
use crate::stream::{Load, Transport, earlier, for_a_while, wait_until};

/// Takes something away under a stream and waits until all is as before.
fn is_repaired(what: &str, damage: impl Fn(&Stage)) {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let _agent = Agent::start(&stage.node, &Config::new());
    let before = Sight::of(&stage.node);
    let clients = Clients::start(&stage, &Load::to(&CLUSTER_IPS).rate(1_000, 50));
    for_a_while(Duration::from_millis(300));
    let start = Instant::now();
    damage(&stage);
    let damaged = Instant::now();
    let took = wait_until(LIMIT, || before == Sight::of(&stage.node));
    let after = Sight::of(&stage.node);
    before.assert_same(&after, &format!("{what} was not repaired"));
    let took = took.expect("it is the same") + start.elapsed().saturating_sub(damaged.elapsed());
    println!("{what}: repaired {took:.1?} after it");
    for_a_while(Duration::from_millis(300));
    let end = Instant::now();
    for (who, count) in clients.stop() {
        let failed = count.failed();
        println!("{who}: {} of {} lost", failed.len(), count.len());
        // The aim is one second; the looking takes a while, too.
        let late = failed.since(damaged + Duration::from_secs(1));
        assert!(late.is_empty(), "{what}: lost after a second:\n{}", late.seen_from(start));
        count.since(earlier(end, Duration::from_millis(200))).assert_all_by_agent();
    }
    assert!(took < Duration::from_secs(2), "{what} took {took:.1?}");
}

/// L10
#[test]
fn a_deleted_table_comes_back() {
    is_repaired("table inet nodens", |stage| stage.node.nft("delete table inet nodens"));
}

/// L10
#[test]
fn a_deleted_arp_table_comes_back() {
    is_repaired("table arp nodens", |stage| stage.node.nft("delete table arp nodens"));
}

/// L10
#[test]
fn a_flushed_ruleset_comes_back() {
    is_repaired("the ruleset", |stage| {
        stage.node.nft("flush ruleset");
        // Who flushes everything hurts kube-proxy too, which comes back as well.
        kube_proxy::write(&stage.node, stage.flavour);
    });
}

/// L10
#[test]
fn flushed_chains_come_back() {
    is_repaired("the chains' rules", |stage| stage.node.nft("flush table inet nodens"));
}

/// L10
#[test]
fn a_withdrawn_lease_comes_back() {
    is_repaired("the lease", |stage| stage.node.nft("flush set inet nodens leased4\nflush set inet nodens leased6"));
}

/// L10
#[test]
fn removed_addresses_come_back() {
    is_repaired("the addresses", |stage| {
        for ip in CLUSTER_IPS.iter().chain(&OWN_IPS) {
            stage.node.ip(&format!("address del {ip}/{} dev lo", if ip.is_ipv4() { 32 } else { 128 }));
        }
    });
}

/// L11
#[test]
fn the_xtables_lock_held_by_others_changes_nothing() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let file = std::fs::File::options().create(true).append(true).open("/run/xtables.lock").expect("we are root");
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).expect("nobody else has it");
    let mut agent = Agent::start(&stage.node, &Config::new());
    Load::to(&CLUSTER_IPS).ask(&stage.pods[0], Transport::Udp, 100).assert_all_by_agent();
    let (_, status) = agent.stop();
    assert!(status.success(), "{status}; it said:\n{}", agent.said());
    Load::to(&CLUSTER_IPS).ask(&stage.pods[0], Transport::Udp, 100).assert_all_by_cluster();
    drop(lock);
}

/// L13
#[test]
fn questions_to_the_agent_leave_no_conntrack_entry() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let agent = Agent::start(&stage.node, &Config::new());
    let load = Load::to(&[CLUSTER_IPS, OWN_IPS].concat()).rate(4_000, 400);
    let ask = |client: &Namespace, udp, tcp| {
        load.clone().ask(client, Transport::Udp, udp).assert_all_by_agent();
        load.clone().ask(client, Transport::Tcp, tcp).assert_all_by_agent();
    };
    // What went to cluster DNS before the agent was there is none of its business.
    stage.node.tool("conntrack", &["-F"], "");
    ask(&stage.pods[0], 10_000, 1_000);
    assert_eq!(eye::tracked(&stage.node), [""; 0]);
    ask(&stage.node, 2_000, 200);
    assert_eq!(eye::tracked(&stage.node), [""; 0]);
    // The eye is open: what goes to cluster DNS it sees.
    drop(agent);
    Load::to(&CLUSTER_IPS).ask(&stage.pods[0], Transport::Udp, 10).assert_all_by_cluster();
    assert!(!eye::tracked(&stage.node).is_empty());
}

/// What the agent asks itself goes to itself, from the first question on.
#[test]
fn the_agents_own_probes_never_reach_cluster_dns() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let _agent = Agent::start(&stage.node, &Config::new());
    for_a_while(Duration::from_secs(1));
    assert_eq!(eye::tracked(&stage.node), [""; 0]);
    assert_eq!(stage.servers.asked(), 0, "the servers were asked");
}

/// A kube-proxy that starts again over a running agent changes nothing for the agent's clients.
#[test]
fn kube_proxy_may_write_its_rules_again() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let agent = Agent::start(&stage.node, &Config::new());
    let clients = Clients::start(&stage, &Load::to(&CLUSTER_IPS).rate(1_000, 50));
    for_a_while(Duration::from_millis(200));
    stage.node.nft("delete table ip kube-proxy\ndelete table ip6 kube-proxy");
    kube_proxy::write(&stage.node, stage.flavour);
    for_a_while(Duration::from_millis(200));
    for (_, count) in clients.stop() {
        count.assert_nothing_failed(agent.started);
        count.assert_all_by_agent();
    }
}
