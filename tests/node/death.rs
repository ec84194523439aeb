//! What nobody planned: killed, hung, out of memory. Cluster DNS answers; what was in flight is all that is lost.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::agent::{Agent, Config};
use crate::eye::{self, Sight};
use crate::life::{Clients, everything};
use crate::memory_group::MemoryGroup;
use crate::stage::{Flavour, Stage, is_full, skip};
use crate::stream::{Count, earlier, for_a_while};

/// A question sent this long before the process was told to die was answered, or should have been.
const IN_FLIGHT: Duration = Duration::from_millis(100);

/// Panics unless everything that failed was sent shortly before the process was killed, or before it was gone.
#[track_caller]
fn assert_lost_only_in_flight(who: &str, count: &Count, deaths: &[(Instant, Instant)]) {
    let in_flight = |sent: Instant| deaths.iter().any(|(killed, gone)| sent + IN_FLIGHT >= *killed && sent <= *gone);
    let failed = count.failed();
    let others = failed.only(|it| !in_flight(it.sent));
    let dying: Vec<f64> =
        deaths.iter().map(|(killed, gone)| gone.duration_since(*killed).as_secs_f64() * 1e3).collect();
    println!("{who}: {} of {} lost in {} deaths, which took {dying:.1?} ms", failed.len(), count.len(), deaths.len());
    assert!(
        others.is_empty(),
        "{who}: lost though not in flight, {} of {}:\n{}",
        others.len(),
        count.len(),
        others.seen_from(deaths[0].0)
    );
}

/// L08
#[test]
fn sigkill_behind_iptables_loses_only_what_was_in_flight() {
    sigkill_loses_only_what_was_in_flight(Flavour::Iptables);
}

/// L08
#[test]
fn sigkill_behind_nftables_loses_only_what_was_in_flight() {
    sigkill_loses_only_what_was_in_flight(Flavour::Nftables);
}

fn sigkill_loses_only_what_was_in_flight(flavour: Flavour) {
    let Some(stage) = Stage::build(flavour) else { return };
    let config = Config::new();
    let mut agent = Agent::start(&stage.node, &config);
    let clients = Clients::start(&stage, &everything());
    let mut deaths = Vec::new();
    let rounds = if is_full() { 100 } else { 5 };
    for _ in 0..rounds {
        for_a_while(Duration::from_millis(100));
        deaths.push(agent.kill());
        for_a_while(Duration::from_millis(100));
        agent = Agent::start(&stage.node, &config);
    }
    for (who, count) in clients.stop() {
        assert_lost_only_in_flight(who, &count, &deaths);
        for (_, gone) in &deaths {
            count.between(*gone, *gone + Duration::from_millis(50)).assert_all_by_cluster();
        }
    }
}

/// L08, O05
#[test]
fn a_hung_agent_is_replaced_within_a_lease_and_comes_back() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let lease = Duration::from_secs(3);
    let agent = Agent::start(&stage.node, &Config::new());
    // What piles up in a hung agent's backlog stays below the limit of connections per client.
    let clients = Clients::start(&stage, &everything().rate(2_300, 16));
    for_a_while(Duration::from_millis(500));
    let hung = Instant::now();
    agent.signal(Signal::SIGSTOP);
    for_a_while(lease + Duration::from_secs(2));
    let awake = Instant::now();
    agent.signal(Signal::SIGCONT);
    for_a_while(Duration::from_secs(4));
    let end = Instant::now();
    for (who, count) in clients.stop() {
        let last = count.between(hung, awake).failed().last().expect("a hung process answers nothing");
        println!("{who}: last lost {:.1?} after SIGSTOP", last.duration_since(hung));
        let first = count.since(awake).agent().first();
        println!("{who}: back {:.1?} after SIGCONT", first.map(|first| first.duration_since(awake)));
        count.before(earlier(hung, IN_FLIGHT)).assert_all_by_agent();
        // The kernel's timers have a resolution, and so has this machine.
        let lapsed = hung + lease + Duration::from_millis(200);
        count.between(lapsed, awake).assert_all_by_cluster();
        count.since(lapsed).assert_nothing_failed(awake);
        count.since(earlier(end, Duration::from_millis(500))).assert_all_by_agent();
    }
}

/// L08
#[test]
fn death_by_lack_of_memory_loses_only_what_was_in_flight() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let group = match MemoryGroup::new("128M") {
        Ok(group) => group,
        Err(reason) => return skip(&reason),
    };
    let mut agent = Agent::start(&stage.node, &Config::new());
    // The kernel shall choose it: the one that eats the memory is there to be survived.
    fs::write(format!("/proc/{}/oom_score_adj", agent.pid()), "1000").expect("raising it is free");
    group.take(agent.pid().as_raw());
    let clients = Clients::start(&stage, &everything());
    for_a_while(Duration::from_millis(300));
    let start = Instant::now();
    let mut eater = stage.node.start("sh", |command| {
        command.arg("-c").arg(format!("echo $$ > {} && exec tail /dev/zero", group.processes().display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    });
    let status = agent.wait_for_exit();
    let gone = Instant::now();
    // Either may have ended it.
    let _ = eater.kill();
    let _ = eater.wait();
    for_a_while(Duration::from_millis(500));
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}; {}", agent.said());
    for (who, count) in clients.stop() {
        // Short of memory, it may have been slow before it died.
        assert_lost_only_in_flight(who, &count, &[(start, gone)]);
        count.since(gone).assert_all_by_cluster();
    }
}

/// L09
#[test]
fn after_fifty_restarts_there_is_one_of_everything() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let config = Config::new();
    let mut agent = Agent::start(&stage.node, &config);
    let first = Sight::of(&stage.node);
    assert_eq!(eye::our_addresses(&stage.node).len(), 4, "{first:?}");
    for round in 0..50 {
        if round % 2 == 0 {
            agent.kill();
        } else {
            assert!(agent.stop().1.success(), "round {round}: {}", agent.said());
        }
        agent = Agent::start(&stage.node, &config);
        if round % 10 == 9 {
            first.assert_same(&Sight::of(&stage.node), &format!("after {} restarts", round + 1));
        }
    }
}
