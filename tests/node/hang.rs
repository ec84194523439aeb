//! Somebody hangs: a worker, the prober, the plane, all of it. Nobody is answered late, and no lease outlives its reason.

use std::io::Write as _;
use std::net::{IpAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::agent::{Agent, Config, LIMIT};
use crate::endpoint;
use crate::eye;
use crate::life::{Clients, everything};
use crate::stage::{CLUSTER_IPS, Flavour, Stage};
use crate::status::status_of;
use crate::stream::{Fate, Load, Transport, for_a_while, wait_until};

const LEASE: Duration = Duration::from_secs(3);
/// The kernel's timers have a resolution, and so has this machine.
const SLACK: Duration = Duration::from_secs(1);

/// One thread of an agent, stopped until this is dropped.
struct Frozen(Pid);

impl Frozen {
    /// Stops the thread with this name.
    fn new(agent: &Agent, name: &str) -> Self {
        let threads = std::fs::read_dir(format!("/proc/{}/task", agent.pid())).expect("it runs");
        let named =
            |path: &std::path::Path| std::fs::read_to_string(path.join("comm")).is_ok_and(|it| it.trim() == name);
        let path = threads.flatten().map(|it| it.path()).find(|path| named(path)).expect("a thread of this name");
        let number = path.file_name().and_then(|it| it.to_str()).and_then(|it| it.parse().ok()).expect("its number");
        let thread = Pid::from_raw(number);
        ptrace::seize(thread, ptrace::Options::empty()).expect("root may");
        ptrace::interrupt(thread).expect("it is ours");
        waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it stops");
        Self(thread)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // An error means that its process has been killed: then it is only to be buried.
        if ptrace::detach(self.0, None).is_err() {
            let _ = waitpid(self.0, Some(WaitPidFlag::__WALL));
        }
    }
}

/// Stops one thread: nothing is leased within `within`, and with the thread running again everything is as before.
fn the_lease_ends_with(thread: &str, within: Duration) {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let agent = Agent::start(&stage.node, &Config::new());
    assert!(wait_until(LIMIT, || endpoint::is_ready(&stage.node)).is_some(), "{}", endpoint::readiness(&stage.node));
    let leased = |table| eye::leased(&stage.node, table).len();
    assert_eq!((leased("nodens"), leased("nodens_host")), (4, 4));
    let frozen = Frozen::new(&agent, thread);
    let gone = wait_until(LIMIT, || leased("nodens") + leased("nodens_host") == 0);
    println!("{thread}: nothing leased {gone:.1?} after it hung");
    assert!(gone.is_some_and(|gone| gone < within + SLACK), "{gone:?}; the agent said:\n{}", agent.said());
    assert!(!endpoint::is_ready(&stage.node) || thread == "nodens-node", "it calls itself ready");
    Load::to(&CLUSTER_IPS).ask(&stage.pods[0], Transport::Udp, 60).assert_all_by_cluster();
    drop(frozen);
    let back = wait_until(LIMIT, || leased("nodens") + leased("nodens_host") == 8);
    assert!(back.is_some(), "it never came back; it said:\n{}", agent.said());
    everything().ask(&stage.pods[0], Transport::Udp, 60).assert_all_by_agent();
}

/// L08: sockets alone are no service.
#[test]
fn a_worker_that_hangs_ends_the_lease() {
    // A round begins every half second and waits a quarter for an answer.
    the_lease_ends_with("nodens-1", Duration::from_millis(750));
}

/// L08: who cannot ask does not know.
#[test]
fn a_prober_that_hangs_ends_the_lease() {
    // What is known is good for a second, and for no renewal after it.
    the_lease_ends_with("nodens-probe", Duration::from_secs(1) + LEASE);
}

/// L08
#[test]
fn a_plane_that_hangs_lets_the_lease_lapse() {
    the_lease_ends_with("nodens-node", LEASE);
}

/// O05: the plane's timer may be the first to run after a hang; what it knows is from before.
#[test]
fn a_process_that_wakes_up_leases_nothing_before_it_has_answered() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let agent = Agent::start(&stage.node, &Config::new());
    let prober = Frozen::new(&agent, "nodens-probe");
    agent.signal(Signal::SIGSTOP);
    let nothing_leased = || eye::leased(&stage.node, "nodens").is_empty();
    assert!(wait_until(LIMIT, nothing_leased).is_some(), "the lease does not lapse");
    agent.signal(Signal::SIGCONT);
    agent.wait_for("the traffic is given back");
    assert_eq!(agent.count_of("intercepting"), 1, "{}", agent.said());
    assert!(nothing_leased());
    assert!(endpoint::readiness(&stage.node).contains("the last probes are"), "{}", endpoint::readiness(&stage.node));
    let last = status_of(&agent)["incidents"][0].take();
    assert_eq!(last["what"], "lease_lapsed", "{last}");
    assert!(last["words"].as_str().is_some_and(|it| it.contains("the last probes are")), "{last}");
    drop(prober);
    assert!(wait_until(LIMIT, || agent.count_of("intercepting") == 2).is_some(), "{}", agent.said());
}

/// O05
#[test]
fn nobody_is_answered_late() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let agent = Agent::start(&stage.node, &Config::new());
    let clients = Clients::start(&stage, &everything().rate(2_300, 16));
    for_a_while(Duration::from_millis(500));
    agent.signal(Signal::SIGSTOP);
    for_a_while(Duration::from_secs(6));
    let awake = Instant::now();
    agent.signal(Signal::SIGCONT);
    for_a_while(Duration::from_secs(2));
    for (who, count) in clients.stop() {
        let late = count.only(|it| it.fate == Fate::Late);
        assert!(late.is_empty(), "{who}: {late}");
        count.since(awake + Duration::from_secs(1)).assert_all_by_agent();
    }
    let aged = endpoint::metric(&stage.node, "nodens_dropped_total{reason=\"aged\"}");
    println!("{aged} dropped");
    assert!(aged > 1_000, "{aged}");
}

/// O05: a connection whose client has given up is not worth an answer, nor a question to an upstream.
#[test]
fn connections_given_up_meanwhile_are_not_answered() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let agent = Agent::start(&stage.node, &Config::new());
    let accepted = || endpoint::metric(&stage.node, "nodens_tcp_connections_accepted_total");
    let asked = || endpoint::metric(&stage.node, "nodens_queries_total{transport=\"tcp\"");
    let before = accepted();
    agent.signal(Signal::SIGSTOP);
    waitpid(agent.pid(), Some(WaitPidFlag::WUNTRACED)).expect("our child stops");
    let ask = |to: IpAddr| {
        let mut stream = TcpStream::connect((to, 53)).expect("the kernel takes it");
        stream.write_all(b"\0\x1a\0\x07\x01\0\0\x01\0\0\0\0\0\0\x03pin\x04test\0\0\x01\0\x01").expect("it is buffered");
        stream
    };
    let given_up: Vec<TcpStream> = stage.node.run(|| CLUSTER_IPS.iter().cycle().take(20).map(|ip| ask(*ip)).collect());
    drop(given_up);
    // Longer than the lease, so that nothing else comes, and than a client waits.
    for_a_while(LEASE + SLACK);
    agent.signal(Signal::SIGCONT);
    assert!(wait_until(LIMIT, || accepted() >= before + 20).is_some(), "{} accepted", accepted());
    assert!(wait_until(LIMIT, || agent.count_of("intercepting") == 2).is_some(), "{}", agent.said());
    assert_eq!(asked(), 0);
    // Who is still there is answered.
    Load::to(&CLUSTER_IPS).ask(&stage.node, Transport::Tcp, 20).assert_all_by_agent();
    assert_eq!(asked(), 20);
}
