//! Reloads: whatever changes, no query is lost, nothing is applied by halves, and what is refused changes nothing.

mod churn;
mod files;
mod last_good;

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::load::client::{self, Outcome};
use crate::load::oracle::Authority;
use crate::peers::programs;
use crate::support::agent::{Agent, Reload, http_get, try_http_get};
use crate::support::client::{Ask, ask};
use crate::support::config::Config;
use crate::support::octets::{A, NXDOMAIN};
use crate::support::upstream::{Upstream, delayed, encoded};
use crate::support::{fresh_address, millis, seconds};

/// Questions of a stream, asked again and again: most are answered from the cache. Each new one would take a port of the
/// host's for a while, and other tests need theirs.
const QUESTIONS: u64 = 10_000;

/// Questions that go on until they are told to end, every answer checked by its content.
struct Stream {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Outcome>,
}

impl Stream {
    fn begin(server: SocketAddr, rate: u64) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let told = ended.clone();
        let thread = thread::spawn(move || {
            let mut sum = Outcome::default();
            let mut from = 0;
            while !told.load(Ordering::Relaxed) {
                let part = client::ask(server, from..from + rate / 4, rate);
                from = (from + rate / 4) % QUESTIONS;
                (sum.right, sum.lost) = (sum.right + part.right, sum.lost + part.lost);
                sum.wrong.extend(part.wrong);
            }
            sum
        });
        Self { ended, thread }
    }

    /// Ends it; every question must have got its answer.
    fn end(self) -> u64 {
        self.ended.store(true, Ordering::Relaxed);
        let outcome = self.thread.join().expect("the stream ends");
        assert!(outcome.wrong.is_empty(), "{:#?}", &outcome.wrong[..outcome.wrong.len().min(5)]);
        assert_eq!(outcome.lost, 0, "of {}", outcome.right);
        outcome.right
    }
}

/// An authority for streams, and a configuration that asks it.
fn streamed() -> (Authority, Config) {
    let authority = Authority::start(programs::free_address());
    let limits = "in_flight: 8192, in_flight_per_client: 8192";
    let config = Config::with_servers(&[authority.address], "").limits(limits).listen(&[fresh_address()]);
    (authority, config)
}

/// The inodes of the UDP sockets and listeners bound at `address`, as the kernel tells `ss`: of /proc/net/udp it shows a
/// page at a time, and misses some while others come and go.
fn sockets_at(address: IpAddr, port: u16) -> BTreeSet<u64> {
    let at = format!("{address}:{port}");
    let inodes = |transport| {
        let output = Command::new("ss").args(["-Hne", transport, "src", &at]).output().expect("iproute2 has ss");
        let said = String::from_utf8(output.stdout).expect("ss prints text");
        let inode = |line: &str| line.split_once("ino:")?.1.split(' ').next()?.parse().ok();
        said.lines().filter_map(inode).collect::<Vec<u64>>()
    };
    ["-lu", "-lt"].into_iter().flat_map(inodes).collect()
}

fn closed(at: SocketAddr) -> bool {
    let socket = UdpSocket::bind((at.ip(), 0)).expect("loopback has free ports");
    socket.connect(at).expect("loopback");
    socket.send(b"x").is_err() || socket.send(b"x").is_err()
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..1000 {
        if done() {
            return;
        }
        thread::sleep(millis(10));
    }
    panic!("{what} does not happen");
}

#[test]
fn addresses_come_and_go_under_a_stream_and_those_that_stay_keep_their_sockets() {
    let (_authority, config) = streamed();
    let mut agent = Agent::start(&config);
    let (stays, comes) = (config.addresses()[0], fresh_address());
    let before = sockets_at(stays, 5300);
    assert_eq!(before.len(), 4, "two workers, UDP and TCP");
    let stream = Stream::begin(agent.addr(), 10_000);
    for _ in 0..3 {
        assert_eq!(agent.reload(&config.clone().listen(&[stays, comes])), Reload::Done);
        Ask::new("h1.hot.test", A).send((comes, 5300).into());
        Ask::new("h1.hot.test", A).tcp().send((comes, 5300).into());
        assert_eq!(sockets_at(comes, 5300).len(), 4);
        assert_eq!(agent.reload(&config), Reload::Done);
        wait_until("the end of the address", || closed((comes, 5300).into()));
    }
    stream.end();
    assert_eq!(sockets_at(stays, 5300), before, "the same sockets all the time");
    wait_until("the end of its sockets", || sockets_at(comes, 5300).is_empty());
}

#[test]
fn the_number_of_workers_changes_under_a_stream() {
    let (_authority, config) = streamed();
    let config = config.workers(1);
    let mut agent = Agent::start(&config);
    let stream = Stream::begin(agent.addr(), 10_000);
    let address = config.addresses()[0];
    let mut known = sockets_at(address, 5300);
    for workers in [3, 1, 2, 4, 1, 3, 1] {
        assert_eq!(agent.reload(&config.clone().workers(workers)), Reload::Done);
        let sockets = sockets_at(address, 5300);
        assert!(sockets.is_superset(&known), "a socket of an address that stays is closed");
        known = sockets;
        for _ in 0..20 {
            Ask::new("h1.hot.test", A).send(agent.addr());
            Ask::new("h1.hot.test", A).tcp().send(agent.addr());
        }
    }
    stream.end();
    let threads = || fs::read_dir(format!("/proc/{}/task", agent.pid())).expect("it runs").filter_map(Result::ok);
    let is_worker = |name: String| name.trim().strip_prefix("nodens-").is_some_and(|it| it.parse::<u8>().is_ok());
    let workers = || threads().filter(|it| fs::read_to_string(it.path().join("comm")).is_ok_and(is_worker)).count();
    wait_until("the end of the workers", || workers() == 1);
    assert!(agent.stop().success());
}

// What is under way at a socket that goes is answered from there.
#[test]
fn questions_under_way_at_a_port_given_up_get_their_answers() {
    let upstream = Upstream::new(delayed(millis(700), encoded(60)));
    let config = Config::new(&upstream).listen(&[fresh_address()]);
    let mut agent = Agent::start(&config);
    let old = agent.addr();
    let waiting: Vec<_> = (0..40)
        .map(|nth| {
            let ask = Ask::new(&format!("host-{nth}.test"), A);
            if nth % 2 == 0 { ask.sender(old) } else { ask.tcp().sender(old) }
        })
        .collect();
    upstream.wait_for(40);
    assert_eq!(agent.reload(&config.clone().port(5399)), Reload::Done);
    assert_eq!(agent.addr().port(), 5399);
    ask(agent.addr(), "new.test", A).assert_encodes("new.test");
    for (nth, waiting) in waiting.into_iter().enumerate() {
        waiting.receive().assert_encodes(&format!("host-{nth}.test"));
    }
    wait_until("the end of the old port", || closed(old));
    // And back: what was drained is bound anew.
    assert_eq!(agent.reload(&config), Reload::Done);
    ask(old, "host-1.test", A).assert_encodes("host-1.test");
}

// An address that comes back while it is drained must not lose what goes to its old sockets.
#[test]
fn an_address_that_comes_back_at_once_loses_nothing() {
    let upstream = Upstream::new(delayed(millis(300), encoded(1)));
    let (stays, wavers) = (fresh_address(), fresh_address());
    let config = Config::new(&upstream).listen(&[stays, wavers]);
    let mut agent = Agent::start(&config);
    let at = SocketAddr::new(wavers, 5300);
    for round in 0..10 {
        let under_way = Ask::new(&format!("slow-{round}.test"), A).sender(at);
        upstream.wait_for_name(&format!("slow-{round}.test"), A, 1);
        assert_eq!(agent.reload(&config.clone().listen(&[stays])), Reload::Done);
        assert_eq!(agent.reload(&config), Reload::Done);
        for nth in 0..8 {
            let name = format!("quick-{round}-{nth}.test");
            Ask::new(&name, A).send(at).assert_encodes(&name);
        }
        under_way.receive();
    }
}

#[test]
fn a_reload_that_cannot_bind_is_refused_as_a_whole() {
    let upstream = Upstream::new(encoded(60));
    let (own, busy, health) = (fresh_address(), fresh_address(), fresh_address());
    let config = Config::new(&upstream).listen(&[own]).metrics().endpoint(&format!("health: \"{health}:5303\""));
    let mut agent = Agent::start(&config);
    let (before, descriptors) = (sockets_at(own, 5300), agent.descriptors());
    let squatter = UdpSocket::bind((busy, 5300)).expect("nobody else is there");
    let free = fresh_address();
    let wanted = config.clone().listen(&[own, free, busy]).workers(3).zone("corp.test", "{ answer: nxdomain }");
    assert_eq!(agent.reload(&wanted), Reload::Refused);
    let line = agent.wait_for_line("reload refused");
    assert!(line.contains(&format!("{busy}:5300")) && line.contains("UDP"), "{line}");
    ask(agent.addr(), "a.corp.test", A).assert_encodes("a.corp.test");
    assert!(closed((free, 5300).into()), "nothing is half applied");
    assert_eq!(sockets_at(own, 5300), before);
    wait_until("the end of what was bound", || agent.descriptors() <= descriptors + 2);
    let (head, body) = http_get(SocketAddr::new(health, 5303), "/readyz");
    assert!(head.contains("503") && body.contains(&format!("{busy}:5300")), "{head} {body}");
    assert!(agent.metric("nodens_config_reloads_total", "rejected") >= 1.0);
    drop(squatter);
    assert_eq!(agent.reload(&wanted), Reload::Done);
    Ask::new("a.corp.test", A).send((busy, 5300).into()).assert_rcode(NXDOMAIN);
    wait_until("readiness", || http_get(SocketAddr::new(health, 5303), "/readyz").0.contains("200"));
}

#[test]
fn endpoints_move_and_a_taken_port_stops_no_dns() {
    let upstream = Upstream::new(encoded(60));
    let (own, there) = (fresh_address(), fresh_address());
    let config = Config::new(&upstream).listen(&[own]);
    let at = |port: u16| SocketAddr::new(there, port);
    let endpoints = |metrics: u16, health: u16| {
        config
            .clone()
            .endpoint(&format!("metrics: \"{}\"", at(metrics)))
            .endpoint(&format!("health: \"{}\"", at(health)))
    };
    let mut agent = Agent::start(&endpoints(5311, 5312));
    http_get(at(5311), "/metrics");
    let free = |port| std::net::TcpStream::connect_timeout(&at(port), seconds(1)).is_err();
    let is_there = |port, path| try_http_get(at(port), path).is_ok_and(|(head, _)| head.contains("200"));
    // They change places: both ports are let go before either is taken.
    assert_eq!(agent.reload(&endpoints(5312, 5311)), Reload::Done);
    wait_until("the exchange", || is_there(5312, "/metrics") && is_there(5311, "/healthz"));
    let squatter = std::net::TcpListener::bind(at(5313)).expect("nobody else is there");
    assert_eq!(agent.reload(&endpoints(5313, 5314)), Reload::Done);
    wait_until("the new health port", || !free(5314));
    agent.wait_for_line("no metrics endpoint; trying again");
    ask(agent.addr(), "a.test", A).assert_encodes("a.test");
    wait_until("the end of the old ports", || free(5311) && free(5312));
    drop(squatter);
    wait_until("the metrics once the port is free", || is_there(5313, "/metrics"));
    assert_eq!(agent.reload(&config), Reload::Done);
    wait_until("the end of all", || free(5313) && free(5314));
}

#[test]
fn the_control_socket_moves_and_the_log_changes_its_level() {
    let upstream = Upstream::new(encoded(60));
    let config = Config::new(&upstream).listen(&[fresh_address()]);
    let agent = Agent::start(&config);
    let old = agent.control_socket();
    let new = old.with_file_name("moved.sock");
    let moved = config.clone().control(new.clone()).top("log", "{ level: debug, format: json }");
    assert_eq!(agent.reload_yaml(&moved.yaml()), Reload::Done);
    wait_until("the move", || new.exists() && !old.exists());
    // Members of upstreams are a matter of this level; they are told anew with each plan.
    agent.signal("HUP");
    agent.wait_for_line("\"level\":\"DEBUG\"");
    // Nobody listens at the old place, so a signal must do.
    let said = agent.lines_said();
    agent.replace_file(config.clone().control(old.clone()).yaml().as_bytes());
    agent.signal("HUP");
    assert_eq!(agent.verdict_from(said), Reload::Done);
    wait_until("the way back", || old.exists() && !new.exists());
    agent.command(&["cache", "flush"]);
    // The level is the plan's once the reload is told; what was under way by then may have been told of before.
    let all = agent.said();
    let (_, later) = all.rsplit_once(" INFO reloaded").expect("the reload was told, in text");
    assert!(!later.contains("DEBUG"), "{later}");
}
