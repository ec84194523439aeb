//! Planned events under a stream of 5,000 questions per second: not one is lost.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::agent::{Agent, Config, LIMIT};
use crate::eye;
use crate::stage::{CLUSTER_IPS, Flavour, OWN_IPS, Stage, is_full};
use crate::stream::{Asked, Count, Fate, Load, Stream, Transport, earlier, for_a_while, wait_until};

/// A moment of traffic before and after what a test is about.
const MOMENT: Duration = Duration::from_millis(400);

/// A pod's client and one on the node itself, over all addresses.
pub struct Clients {
    pod: Stream,
    host: Stream,
}

// === impl Clients ===

impl Clients {
    pub fn start(stage: &Stage, load: &Load) -> Self {
        Self { pod: load.clone().start(&stage.pods[0]), host: load.clone().start(&stage.node) }
    }

    /// What the pod's, what the node's questions came to.
    pub fn stop(self) -> [(&'static str, Count); 2] {
        let counts = [("pod", self.pod.stop()), ("host", self.host.stop())];
        for (who, count) in &counts {
            println!("{who}:\n{count}");
        }
        counts
    }
}

/// All addresses, once the agent has been there.
pub fn everything() -> Load {
    Load::to(&[CLUSTER_IPS, OWN_IPS].concat())
}

/// L01
#[test]
fn a_start_behind_iptables_loses_nothing() {
    a_start_loses_nothing(Flavour::Iptables);
}

/// L01
#[test]
fn a_start_behind_nftables_loses_nothing() {
    a_start_loses_nothing(Flavour::Nftables);
}

fn a_start_loses_nothing(flavour: Flavour) {
    let Some(stage) = Stage::build(flavour) else { return };
    let clients = Clients::start(&stage, &Load::to(&CLUSTER_IPS));
    for_a_while(MOMENT);
    let agent = Agent::spawn(&stage.node, &Config::new());
    let intercepting = agent.wait_for("intercepting");
    for_a_while(MOMENT);
    for (who, count) in clients.stop() {
        count.assert_nothing_failed(agent.started);
        count.before(earlier(agent.started, Duration::from_millis(50))).assert_all_by_cluster();
        count.since(intercepting).assert_all_by_agent();
        let first = count.agent().first().expect("it was asked for a moment");
        println!("{who}: intercepted {:.1?} after exec", first.duration_since(agent.started));
        let all = count.cluster().last().expect("asked before");
        println!("{who}: completely {:.1?} after exec", all.duration_since(agent.started));
        // The aim is 100 ms for the release build on a quiet machine.
        assert!(all.duration_since(agent.started) < Duration::from_secs(3), "{}", agent.said());
    }
}

/// L05
#[test]
fn sigterm_behind_iptables_loses_nothing() {
    sigterm_loses_nothing(Flavour::Iptables);
}

/// L05
#[test]
fn sigterm_behind_nftables_loses_nothing() {
    sigterm_loses_nothing(Flavour::Nftables);
}

fn sigterm_loses_nothing(flavour: Flavour) {
    let Some(stage) = Stage::build(flavour) else { return };
    let mut agent = Agent::start(&stage.node, &Config::new());
    stage.servers.delay(Duration::from_millis(100));
    let clients = Clients::start(&stage, &everything());
    // These wait for an upstream when the signal comes.
    let slow = everything().rate(300, 20).zone("up.test").start(&stage.pods[1]);
    for_a_while(MOMENT);
    let sent = Instant::now();
    agent.signal(Signal::SIGTERM);
    agent.signal(Signal::SIGTERM);
    let status = agent.wait_for_exit();
    let gone = Instant::now();
    for_a_while(MOMENT);
    assert!(status.success(), "{status}; it said:\n{}", agent.said());
    println!("exit {:.1?} after SIGTERM", gone.duration_since(sent));
    for (who, count) in clients.stop() {
        count.assert_nothing_failed(sent);
        count.between(earlier(sent, Duration::from_millis(200)), sent).assert_all_by_agent();
        count.since(gone).assert_all_by_cluster();
        let last = count.agent().last().expect("it was asked for a moment");
        println!("{who}: withdrawn {:.1?} after SIGTERM", last.saturating_duration_since(sent));
        // The aim is 20 ms on a quiet machine.
        assert!(last.saturating_duration_since(sent) < Duration::from_secs(1), "{}", agent.said());
    }
    let slow = slow.stop();
    println!("slow upstream:\n{slow}");
    slow.assert_nothing_failed(sent);
    assert!(eye::leased(&stage.node, "nodens").is_empty() && eye::leased(&stage.node, "nodens_host").is_empty());
}

/// L05: connections whose question comes late are answered by who took them.
#[test]
fn sigterm_cuts_no_connection() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let mut agent = Agent::start(&stage.node, &Config::new());
    let clients = Clients::start(&stage, &everything().rate(200, 200).tcp_pause(Duration::from_millis(20)));
    for_a_while(MOMENT);
    let (sent, status) = agent.stop();
    for_a_while(MOMENT);
    let next = Agent::start(&stage.node, &Config::new());
    for_a_while(MOMENT);
    assert!(status.success(), "{status}");
    for (_, count) in clients.stop() {
        count.assert_nothing_failed(sent);
        count.since(next.wait_for("intercepting")).assert_all_by_agent();
    }
}

/// L06, L07
#[test]
fn rolling_restarts_without_surge_lose_nothing() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let config = Config::new();
    let mut agent = Agent::start(&stage.node, &config);
    let start = Instant::now();
    let clients = Clients::start(&stage, &everything());
    let mut lives = Vec::new();
    for _ in 0..20 {
        let up = Instant::now();
        for_a_while(Duration::from_millis(50));
        let (sent, status) = agent.stop();
        assert!(status.success(), "{status}; it said:\n{}", agent.said());
        lives.push((up, sent));
        agent = Agent::start(&stage.node, &config);
    }
    for_a_while(MOMENT);
    for (_, count) in clients.stop() {
        count.assert_nothing_failed(start);
        let in_life = |asked: &Asked| lives.iter().any(|(up, sent)| (*up..*sent).contains(&asked.sent));
        count.only(in_life).assert_all_by_agent();
    }
}

/// L03
#[test]
fn reloads_lose_nothing() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let agent = Agent::start(&stage.node, &Config::new());
    let start = Instant::now();
    let clients = Clients::start(&stage, &everything());
    let rounds = if is_full() { 100 } else { 10 };
    for round in 0..rounds {
        if round % 10 == 5 {
            assert!(!agent.reload_text("zones: ["), "nonsense was taken");
        } else {
            let other = Config::new().more(&format!("aaaa: {}", if round % 2 == 0 { "strip" } else { "keep" }));
            assert!(agent.reload(&other), "it said:\n{}", agent.said());
        }
    }
    for_a_while(MOMENT);
    for (_, count) in clients.stop() {
        count.assert_nothing_failed(start);
        count.assert_all_by_agent();
    }
}

/// L03: another lease is renewed at its own pace from the reload on.
#[test]
fn a_reload_with_a_shorter_lease_holds_it() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let leased_for = |time: &str| {
        Config::new().node(&format!("interface: lo, interception: auto, lease: {time}, fallback: cluster"))
    };
    let agent = Agent::start(&stage.node, &leased_for("30s"));
    let start = Instant::now();
    let clients = Clients::start(&stage, &everything().rate(500, 16));
    assert!(agent.reload(&leased_for("1s")), "it said:\n{}", agent.said());
    // Longer than the old lease's pace.
    for_a_while(Duration::from_secs(11));
    for (_, count) in clients.stop() {
        count.assert_nothing_failed(start);
        count.assert_all_by_agent();
    }
}

/// The fallback follows the endpoints of the cluster's DNS.
#[test]
fn a_reload_with_other_endpoints_changes_who_answers_after_us() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let mut agent = Agent::start(&stage.node, &Config::new());
    let mut config = Config::new();
    config
        .cluster
        .retain(|endpoint| endpoint.to_string().ends_with(".4:53") || endpoint.to_string().ends_with(":4]:53"));
    assert_eq!(config.cluster.len(), 2);
    assert!(agent.reload(&config));
    // The verdict is the plan's; the plane follows it.
    let only_one = || {
        let ruleset = stage.node.tool("nft", &["list", "table", "inet", "nodens"], "");
        ruleset.contains("10.244.9.4") && !ruleset.contains("10.244.9.2") && !ruleset.contains("fd00:244:9::3")
    };
    assert!(wait_until(LIMIT, only_one).is_some(), "{:?}", eye::Sight::of(&stage.node));
    agent.kill();
    for client in [&stage.pods[0], &stage.node] {
        let count = Load::to(&OWN_IPS).ask(client, Transport::Udp, 60);
        assert_eq!(count.only(|it| it.fate == Fate::Cluster(4)).len(), 60, "{count}");
    }
}

/// L04
#[test]
fn sigterm_during_a_reload_ends_in_order() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let rounds: u64 = if is_full() { 200 } else { 10 };
    for round in 0..rounds {
        let mut agent = Agent::start(&stage.node, &Config::new());
        agent.signal(Signal::SIGHUP);
        for_a_while(Duration::from_micros(round * 7_919 % 20_000));
        let (_, status) = agent.stop();
        assert!(status.success(), "round {round}: {status}; it said:\n{}", agent.said());
        assert!(eye::leased(&stage.node, "nodens").is_empty(), "round {round}: {:?}", eye::Sight::of(&stage.node));
    }
}
