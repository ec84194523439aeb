//! Packets through the rules: a pod behind a veth, the node, and a DNS of the cluster on the node's other address.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
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

/// Sockets that answer every query with their own name.
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

impl Server {
    /// Accepts connections and answers each octet on each with the first octet of its name, until it is dropped; then they
    /// are all closed.
    fn of_connections(at: &str, name: &'static str) -> Self {
        let listener = TcpListener::bind(at).expect("the address is the node's");
        listener.set_nonblocking(true).expect("no waiting");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut clients: Vec<TcpStream> = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                while let Ok((client, _)) = listener.accept() {
                    client.set_nonblocking(true).expect("no waiting");
                    clients.push(client);
                }
                for client in &mut clients {
                    if client.read(&mut [0]).is_ok_and(|length| length > 0) {
                        client.write_all(&name.as_bytes()[..1]).expect("an octet leaves");
                    }
                }
                thread::sleep(Duration::from_millis(1));
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

/// A connection made from this namespace, from that port or any (0).
fn call(server: &str, port: u16) -> TcpStream {
    let server: SocketAddr = endpoint(server);
    loop {
        let socket = socket2::Socket::new(socket2::Domain::for_address(server), socket2::Type::STREAM, None);
        let socket = socket.expect("a socket");
        socket.set_reuse_address(true).expect("a port may be used again");
        let any = if server.is_ipv4() { "0.0.0.0" } else { "::" };
        socket.bind(&SocketAddr::new(ip(any), port).into()).expect("the port is free");
        match socket.connect_timeout(&server.into(), SILENCE) {
            Ok(()) => {
                let stream = TcpStream::from(socket);
                stream.set_read_timeout(Some(SILENCE)).expect("a timeout");
                return stream;
            }
            // another test's child process may hold the connection before until it executes its program
            Err(error) if port != 0 && error.kind() == io::ErrorKind::AddrNotAvailable => thread::yield_now(),
            Err(error) => panic!("{server} from port {port}: {error}"),
        }
    }
}

/// The first letter of who answers on this connection.
fn speaks(mut stream: &TcpStream) -> char {
    stream.write_all(b"?").expect("the connection is open");
    let mut reply = [0];
    stream.read_exact(&mut reply).expect("the connection is not cut");
    reply[0].into()
}

/// Ends the connection at once and leaves nothing of it at either end.
fn hang_up(stream: TcpStream) -> u16 {
    let port = stream.local_addr().expect("an address").port();
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a reset at the end");
    drop(stream);
    port
}

type Errand = Box<dyn FnOnce() + Send>;

/// A thread in a namespace of its own that does what it is told to.
struct Pod {
    errands: mpsc::Sender<Errand>,
}

impl Pod {
    /// Joined to this namespace by `veth` here and `eth0` there: 10.9.0.1 and 10.9.0.2.
    fn new() -> Self {
        let (born, birth) = mpsc::channel();
        let (joined, join) = mpsc::channel::<()>();
        let (errands, sent) = mpsc::channel::<Errand>();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("the test has a namespace, the pod gets one too");
            born.send(gettid().as_raw().to_string()).expect("the node waits");
            join.recv().expect("the node makes the link");
            run_ip(&[
                "link set lo up",
                "addr add 10.9.0.2/24 dev eth0",
                "addr add fd09::2/64 dev eth0 nodad",
                "link set eth0 up",
                "route add default via 10.9.0.1",
                "-6 route add default via fd09::1",
            ]);
            for errand in sent {
                errand();
            }
        });
        let thread = birth.recv_timeout(LONG).expect("the pod's thread starts");
        run_ip(&[
            "link set lo up",
            "addr add 169.254.20.10/32 dev lo",
            "addr add fd00::a/128 dev lo nodad",
            &format!("link add veth type veth peer name eth0 netns {thread}"),
            "addr add 10.9.0.1/24 dev veth",
            "addr add fd09::1/64 dev veth nodad",
            "link set veth up",
        ]);
        joined.send(()).expect("the pod waits");
        let pod = Self { errands };
        pod.does(|| ["10.9.0.1:9", "[fd09::1]:9"].into_iter().for_each(until_refused));
        pod
    }

    fn asks(&self, server: &str) -> Option<String> {
        let server = server.to_owned();
        self.does(move || who_answers(&server))
    }

    fn does<T: Send + 'static>(&self, what: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        let errand = move || tell.send(what()).expect("the node waits");
        self.errands.send(Box::new(errand)).expect("the pod lives");
        told.recv_timeout(LONG).expect("the pod comes back")
    }
}

/// Waits until packets pass: the kernel begins to use a new link a little after it is up.
fn until_refused(closed: &str) {
    let closed = endpoint(closed);
    let refused = || {
        let outcome = TcpStream::connect_timeout(&closed, Duration::from_millis(20));
        outcome.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    while !refused() {
        thread::yield_now();
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

/// A connection stays with whoever took its SYN, whatever becomes of the lease; a port used again is decided
/// anew. With the socket match and without, for pods and for the host, over both families.
#[test]
fn connections_follow_their_first_segment() {
    for socket_match in [true, false] {
        in_namespace(async move || {
            let pod = Pod::new();
            let rules = Rules {
                addresses: vec![ip(ADDRESS), ip("fd00::a")],
                fallback: vec![
                    (ip(ADDRESS), vec![endpoint("10.9.0.1:5353")]),
                    (ip("fd00::a"), vec![endpoint("[fd09::1]:5353")]),
                ],
                socket_match,
                ..rules()
            };
            let mut nft = Nft::open().expect("netfilter netlink");
            apply(&mut nft, &rules).await;
            let (four, six) = ("10.9.0.1:5353", "[fd09::1]:5353");
            let _cluster = [four, six].map(|at| Server::of_connections(at, "cluster"));
            let _agent = [DNS, "[fd00::a]:53"].map(|at| Server::of_connections(at, "agent"));
            // one from the pod and one from the host to each address
            let calls = |ports: &[u16; 4]| {
                let [a, b, c, d] = *ports;
                [
                    pod.does(move || call(DNS, a)),
                    pod.does(move || call("[fd00::a]:53", b)),
                    call(DNS, c),
                    call("[fd00::a]:53", d),
                ]
            };
            let letters = |streams: &[TcpStream; 4]| streams.iter().map(speaks).collect::<String>();
            let take = lease(&[PODS, HOST], &rules.addresses, LONG, Renewal::Anew);
            let give_back = withdraw(&[PODS, HOST]);

            let before = calls(&[0; 4]);
            assert_eq!(letters(&before), "cccc");
            nft.commit(&take).await.expect("a lease");
            let during = calls(&[0; 4]);
            assert_eq!((letters(&before), letters(&during)), ("cccc".to_owned(), "aaaa".to_owned()));
            nft.commit(&give_back).await.expect("a withdrawal");
            let after = calls(&[0; 4]);
            let all = (letters(&before), letters(&during), letters(&after));
            assert_eq!(all, ("cccc".to_owned(), "aaaa".to_owned(), "cccc".to_owned()));

            // packets have filled the sets, and that is no flaw of theirs
            let listed = super::nft_says(&["list", "set", "inet", PODS, "flows4"]);
            assert!(listed.contains("10.9.0.2 . "), "{listed}");
            let found = nft.observe().await.expect("a look");
            assert_eq!(found.elements, []);
            assert!(Ruleset::new(&rules).repair(&found).is_empty());
            assert_eq!(Ruleset::new(&rules).differences(&found), Vec::<String>::new());

            // the same ports again, the other way round: remembered or not, the SYN decides
            let ports = during.map(hang_up);
            let again = calls(&ports);
            assert_eq!(letters(&again), "cccc");
            let ports = again.map(hang_up);
            nft.commit(&take).await.expect("a lease");
            assert_eq!((letters(&calls(&ports)), letters(&after)), ("aaaa".to_owned(), "cccc".to_owned()));
        });
    }
}

/// The seconds after which the pod's only connection is forgotten.
fn forgotten_after() -> u64 {
    let listed = super::nft_says(&["-j", "list", "set", "inet", PODS, "flows4"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("nft -j prints JSON");
    let sets = listed["nftables"].as_array().expect("a list");
    let set = sets.iter().find_map(|object| object.get("set")).expect("the set");
    assert_eq!(set["elem"].as_array().map(Vec::len), Some(1), "{set}");
    set["elem"][0]["elem"]["expires"].as_u64().expect("a time")
}

/// A connection in use is not forgotten, however old it is.
#[test]
fn every_segment_gives_its_connection_its_whole_time_again() {
    in_namespace(async || {
        let pod = Pod::new();
        let mut nft = Nft::open().expect("netfilter netlink");
        apply(&mut nft, &rules()).await;
        let _agent = Server::of_connections(DNS, "agent");
        nft.commit(&lease(&[PODS], &[ip(ADDRESS)], LONG, Renewal::Anew)).await.expect("a lease");
        let connection = pod.does(|| call(DNS, 0));
        nft.commit(&withdraw(&[PODS])).await.expect("a withdrawal");
        let whole = forgotten_after();
        while forgotten_after() + 1 >= whole {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(speaks(&connection), 'a');
        assert!(forgotten_after() + 1 >= whole, "{whole} s at first, {} s after a question", forgotten_after());
    });
}

/// Where no more can be remembered new connections are the cluster DNS's; those that are remembered go on.
#[test]
fn a_full_set_leaves_new_connections_to_cluster_dns() {
    in_namespace(async || {
        let pod = Pod::new();
        let rules = Rules { fallback: vec![(ip(ADDRESS), vec![endpoint("10.9.0.1:5353")])], ..rules() };
        let mut nft = Nft::open().expect("netfilter netlink");
        apply(&mut nft, &rules).await;
        let _agent = Server::of_connections(DNS, "agent");
        let _cluster = Server::of_connections("10.9.0.1:5353", "cluster");
        nft.commit(&lease(&[PODS], &[ip(ADDRESS)], LONG, Renewal::Anew)).await.expect("a lease");
        let first = pod.does(|| call(DNS, 0));

        let others: Vec<String> = (1..=u16::MAX).map(|port| format!("10.200.0.1 . {port} . {ADDRESS}")).collect();
        let script = tempfile::NamedTempFile::new().expect("a file");
        let fill = format!("add element inet {PODS} flows4 {{ {} }}", others.join(", "));
        fs::write(&script, fill).expect("the file is ours");
        super::nft_says(&["-f", script.path().to_str().expect("a plain name")]);
        let second = pod.does(|| call(DNS, 0));
        assert_eq!((speaks(&first), speaks(&second)), ('a', 'c'));

        super::nft_says(&["delete", "element", "inet", PODS, "flows4", &format!("{{ {} }}", others[0])]);
        let third = pod.does(|| call(DNS, 0));
        assert_eq!((speaks(&first), speaks(&second), speaks(&third)), ('a', 'c', 'a'));
    });
}
