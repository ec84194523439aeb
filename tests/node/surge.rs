//! Two instances for a while: one holds the traffic, the other waits. Whoever of them goes, and however.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::agent::{Agent, Config, LIMIT};
use crate::endpoint;
use crate::eye::{self, Sight};
use crate::life::{Clients, everything};
use crate::stage::{CLUSTER_IPS, Flavour, OWN_IPS, Stage, is_full};
use crate::stream::{Load, Transport, earlier, for_a_while, wait_until};

const LEASE: Duration = Duration::from_secs(3);
/// A moment of traffic.
const MOMENT: Duration = Duration::from_millis(200);

/// Starts an agent beside another and waits until it would take over.
fn newcomer(stage: &Stage, config: &Config) -> Agent {
    let agent = Agent::spawn(&stage.node, config);
    agent.wait_for("another instance holds the traffic");
    agent.wait_for("every worker answers");
    agent
}

/// Who holds the lease has not been disturbed by anybody.
#[track_caller]
fn assert_undisturbed(agent: &Agent) {
    assert_eq!(agent.count_of("restored"), 0, "it said:\n{}", agent.said());
    assert_eq!(agent.count_of("given back"), 0, "it said:\n{}", agent.said());
}

/// L07
#[test]
fn rolling_restarts_with_surge_lose_nothing_and_leave_no_gap() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let config = Config::new();
    let mut agent = Agent::start(&stage.node, &config);
    let start = Instant::now();
    let clients = Clients::start(&stage, &everything());
    let rounds = if is_full() { 20 } else { 10 };
    for _ in 0..rounds {
        for_a_while(Duration::from_millis(50));
        let next = newcomer(&stage, &config);
        for_a_while(Duration::from_millis(50));
        assert_undisturbed(&agent);
        let (_, status) = agent.stop();
        assert!(status.success(), "{status}; it said:\n{}", agent.said());
        let gone = Instant::now();
        let back = next.wait_for("intercepting");
        println!("intercepting {:.1?} after the other's end", back.saturating_duration_since(gone));
        agent = next;
    }
    // Longer than a lease: the one who is left renews it.
    for_a_while(LEASE + Duration::from_secs(1));
    let end = Instant::now();
    for (_, count) in clients.stop() {
        count.assert_nothing_failed(start);
        count.since(earlier(end, Duration::from_secs(1))).assert_all_by_agent();
        let cluster = count.cluster();
        println!("{} of {} went to cluster DNS", cluster.len(), count.len());
    }
}

/// L07: a rolling update is about something. The newcomer writes its own rules once it holds the traffic, not before.
#[test]
fn a_newcomer_with_other_addresses_waits_all_the_same() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let mut before = Config::new();
    before.addresses.retain(|ip| !OWN_IPS.contains(ip));
    let mut elder = Agent::start(&stage.node, &before);
    let sight = eye::nft(&stage.node).len();
    let start = Instant::now();
    let clients = Clients::start(&stage, &Load::to(&CLUSTER_IPS));
    let next = newcomer(&stage, &Config::new());
    for_a_while(MOMENT);
    assert_eq!(eye::nft(&stage.node).len(), sight, "it wrote while it waited");
    assert_undisturbed(&elder);
    let (_, status) = elder.stop();
    assert!(status.success(), "{status}");
    next.wait_for("intercepting");
    for_a_while(MOMENT);
    for (_, count) in clients.stop() {
        count.assert_nothing_failed(start);
    }
    everything().ask(&stage.pods[0], Transport::Udp, 100).assert_all_by_agent();
    assert_eq!(eye::leased(&stage.node, "nodens").len(), 4, "{:?}", Sight::of(&stage.node));
}

/// L08 during L07: the kernel tells nobody that a killed process's table is gone; the one who waits looks with every tick.
#[test]
fn an_elder_killed_is_followed_by_the_one_who_waits() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let config = Config::new();
    let mut elder = Agent::start(&stage.node, &config);
    let next = newcomer(&stage, &config);
    let clients = Clients::start(&stage, &everything());
    for_a_while(MOMENT);
    let (killed, gone) = elder.kill();
    let back = next.wait_for("intercepting");
    println!("intercepting {:.1?} after the other's death", back.saturating_duration_since(gone));
    assert!(back.saturating_duration_since(gone) < LEASE, "{}", next.said());
    for_a_while(MOMENT);
    for (who, count) in clients.stop() {
        let failed = count.failed();
        println!("{who}: {} of {} lost", failed.len(), count.len());
        let late = failed.since(gone);
        assert!(late.is_empty(), "{who}: lost after its end:\n{}", late.seen_from(killed));
        count.since(back + Duration::from_millis(50)).assert_all_by_agent();
    }
}

/// O05 during L07: packets go to the elder's sockets, whoever leases; so nobody may renew for it.
#[test]
fn an_elder_that_hangs_is_not_kept_alive_by_the_one_who_waits() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let config = Config::new();
    let mut elder = Agent::start(&stage.node, &config);
    let next = newcomer(&stage, &config);
    let clients = Clients::start(&stage, &everything().rate(1_000, 16));
    for_a_while(MOMENT);
    let hung = Instant::now();
    elder.signal(Signal::SIGSTOP);
    for_a_while(LEASE + Duration::from_secs(1));
    assert_eq!(next.count_of("intercepting"), 0, "{}", next.said());
    // The kubelet's verdict on the elder, at last.
    let (killed, gone) = elder.kill();
    let back = next.wait_for("intercepting");
    for_a_while(MOMENT);
    for (_, count) in clients.stop() {
        // The kernel's timers have a resolution, and so has this machine.
        let lapsed = hung + LEASE + Duration::from_millis(200);
        count.between(lapsed, killed).assert_all_by_cluster();
        count.since(gone).assert_nothing_failed(gone);
        count.since(back + Duration::from_millis(50)).assert_all_by_agent();
    }
}

/// L08 during L07: who waits has nothing that others would miss.
#[test]
fn a_newcomer_that_goes_disturbs_nobody() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let config = Config::new();
    let elder = Agent::start(&stage.node, &config);
    let before = Sight::of(&stage.node);
    let start = Instant::now();
    let clients = Clients::start(&stage, &everything());
    for round in 0..4 {
        let mut next = newcomer(&stage, &config);
        for_a_while(MOMENT);
        if round % 2 == 0 {
            next.kill();
        } else {
            assert!(next.stop().1.success(), "{}", next.said());
        }
    }
    // Longer than a lease: its holder has renewed it.
    for_a_while(LEASE + MOMENT);
    before.assert_same(&Sight::of(&stage.node), "a newcomer has come and gone");
    assert_undisturbed(&elder);
    for (_, count) in clients.stop() {
        count.assert_nothing_failed(start);
        count.assert_all_by_agent();
    }
}

/// L07: readiness is what the rolling update waits for; the elder goes only once the newcomer is ready.
#[test]
fn a_newcomer_is_ready_while_it_waits() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let config = Config::new();
    let elder = Agent::start(&stage.node, &config);
    let next = newcomer(&stage, &config);
    // Both listen there; each connection finds one of them.
    let both = || (0..20).all(|_| endpoint::is_ready(&stage.node));
    assert!(wait_until(LIMIT, both).is_some(), "elder:\n{}\nnewcomer:\n{}", elder.said(), next.said());
}
