//! Packets through the rules: a pod behind a veth, the node, and a DNS of the cluster on the node's other address.

use std::fs;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;

use super::super::{HOST, Nft, PODS, Renewal, Rules, Ruleset, lease, withdraw};
use super::{LONG, endpoint, full, in_namespace, ip};
use crate::plan::Prefix;

const ADDRESS: &str = "169.254.20.10";
const DNS: &str = "169.254.20.10:53";
/// How long a reply that is not to come is waited for; one that is to come is there within a millisecond.
const SILENCE: Duration = Duration::from_millis(300);

/// A socket that answers every query with its own name.
struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn at(address: &str, name: &'static str) -> Self {
        let socket = UdpSocket::bind(address).expect("the address is the node's");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut query = [0; 64];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((_, client)) = socket.recv_from(&mut query) {
                    socket.send_to(name.as_bytes(), client).expect("a reply leaves");
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("it runs until now").join().expect("it ends");
    }
}

/// Who answers a query from this namespace; `None`: nobody.
fn who_answers(server: &str) -> Option<String> {
    let server: SocketAddr = endpoint(server);
    let client = UdpSocket::bind("0.0.0.0:0").expect("a port");
    client.connect(server).expect("a route");
    client.set_read_timeout(Some(SILENCE)).expect("a timeout");
    let mut reply = [0; 64];
    // a refusal is an answer to nobody's liking
    let received = client.send(b"query").and_then(|_| client.recv(&mut reply));
    match received {
        Ok(length) => Some(String::from_utf8_lossy(&reply[..length]).into_owned()),
        Err(error) => {
            let silence = [io::ErrorKind::WouldBlock, io::ErrorKind::ConnectionRefused];
            assert!(silence.contains(&error.kind()), "{error}");
            None
        }
    }
}

/// A thread in a namespace of its own that asks when told to.
struct Pod {
    questions: mpsc::Sender<String>,
    answers: mpsc::Receiver<Option<String>>,
}

impl Pod {
    /// Joined to this namespace by `veth` here and `eth0` there: 10.9.0.1 and 10.9.0.2.
    fn new() -> Self {
        let (born, birth) = mpsc::channel();
        let (joined, join) = mpsc::channel::<()>();
        let (questions, asked) = mpsc::channel::<String>();
        let (answer, answers) = mpsc::channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("the test has a namespace, the pod gets one too");
            born.send(gettid().as_raw().to_string()).expect("the node waits");
            join.recv().expect("the node makes the link");
            run_ip(&[
                "link set lo up",
                "addr add 10.9.0.2/24 dev eth0",
                "link set eth0 up",
                "route add default via 10.9.0.1",
            ]);
            for server in asked {
                if answer.send(who_answers(&server)).is_err() {
                    return;
                }
            }
        });
        let thread = birth.recv_timeout(LONG).expect("the pod's thread starts");
        run_ip(&[
            "link set lo up",
            "addr add 169.254.20.10/32 dev lo",
            &format!("link add veth type veth peer name eth0 netns {thread}"),
            "addr add 10.9.0.1/24 dev veth",
            "link set veth up",
        ]);
        joined.send(()).expect("the pod waits");
        Self { questions, answers }
    }

    fn asks(&self, server: &str) -> Option<String> {
        self.questions.send(server.to_owned()).expect("the pod lives");
        self.answers.recv_timeout(LONG).expect("the pod says who answered, or that nobody did")
    }
}

fn run_ip(commands: &[&str]) {
    for command in commands {
        let output = Command::new("ip").args(command.split(' ')).output().expect("Debian's ip is installed");
        assert!(output.status.success(), "ip {command}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Connections the kernel tracks here that were for our address.
fn tracked() -> usize {
    let table = fs::read_to_string("/proc/thread-self/net/nf_conntrack").expect("connection tracking is there");
    table.lines().filter(|line| line.contains(&format!("dst={ADDRESS}"))).count()
}

fn rules() -> Rules {
    Rules {
        addresses: vec![ip(ADDRESS)],
        health: Vec::new(),
        fallback: vec![(ip(ADDRESS), vec![endpoint("10.9.0.1:5353")])],
        allow: Vec::new(),
        uplinks: Vec::new(),
        ..full()
    }
}

async fn apply(nft: &mut Nft, rules: &Rules) {
    let found = nft.observe().await.expect("a look");
    nft.commit(&Ruleset::new(rules).repair(&found)).await.expect("the kernel takes it");
}

/// L08, L13: who answers follows the lease and the socket, for pods and for the host; while it is us, nothing is
/// tracked.
#[test]
fn lease_and_socket_decide_who_answers() {
    in_namespace(async || {
        let pod = Pod::new();
        let mut nft = Nft::open().expect("netfilter netlink");
        apply(&mut nft, &rules()).await;
        let _cluster = Server::at("10.9.0.1:5353", "cluster");
        let agent = Server::at(DNS, "agent");
        let take = || lease(&[PODS, HOST], &[ip(ADDRESS)], LONG, Renewal::Anew);

        nft.commit(&take()).await.expect("a lease");
        assert_eq!((pod.asks(DNS), who_answers(DNS)), (Some("agent".to_owned()), Some("agent".to_owned())));
        assert_eq!(tracked(), 0, "neither the query nor the reply");

        nft.commit(&withdraw(&[PODS, HOST])).await.expect("a withdrawal");
        assert_eq!((pod.asks(DNS), who_answers(DNS)), (Some("cluster".to_owned()), Some("cluster".to_owned())));
        assert!(tracked() > 0);

        nft.commit(&take()).await.expect("a lease");
        assert_eq!((pod.asks(DNS), who_answers(DNS)), (Some("agent".to_owned()), Some("agent".to_owned())));

        // the process dies: its sockets close, listeners and netlink alike; the lease of the pods lives on
        drop(agent);
        let mut nft = super::gone(nft).await;
        assert_eq!(nft.observe().await.expect("a look").leased(PODS), [ip(ADDRESS)]);
        assert_eq!((pod.asks(DNS), who_answers(DNS)), (Some("cluster".to_owned()), Some("cluster".to_owned())));
    });
}

/// X02, X03: no other port of the node is reached through our address, and none at all over an uplink, but for those allowed.
#[test]
fn guard_lets_in_dns_alone_and_over_an_uplink_only_who_is_allowed() {
    in_namespace(async || {
        let pod = Pod::new();
        let mut nft = Nft::open().expect("netfilter netlink");
        apply(&mut nft, &rules()).await;
        nft.commit(&lease(&[PODS, HOST], &[ip(ADDRESS)], LONG, Renewal::Anew)).await.expect("a lease");
        let _agent = Server::at(DNS, "agent");
        let _other = Server::at("0.0.0.0:9000", "another port");
        let other = format!("{ADDRESS}:9000");
        assert_eq!(pod.asks(DNS), Some("agent".to_owned()));
        assert_eq!(pod.asks(&other), None);
        assert_eq!(
            pod.asks("10.9.0.1:9000"),
            Some("another port".to_owned()),
            "other addresses are none of our business"
        );
        assert_eq!(who_answers(&other), Some("another port".to_owned()), "nor is the host itself");

        let uplink = Rules { uplinks: vec!["veth".to_owned()], ..rules() };
        apply(&mut nft, &uplink).await;
        assert_eq!((pod.asks(DNS), who_answers(DNS)), (None, Some("agent".to_owned())));

        let allowed = Rules { allow: vec![Prefix { address: ip("10.9.0.0"), length: 24 }], ..uplink };
        apply(&mut nft, &allowed).await;
        assert_eq!((pod.asks(DNS), pod.asks(&other)), (Some("agent".to_owned()), None));
    });
}
