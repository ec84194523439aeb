//! Ports: how many, how long, and what comes back through them.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::GetStruct;
use tokio::net::UdpSocket as Server;

use super::*;
use crate::net::testing::{answer, asked, dice, on_worker, query, within};
use crate::wire::Transport;

const HOME: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn answer_is_heard_and_the_socket_used_again() {
    on_worker(async {
        let server = Server::bind(HOME).await.expect("loopback is there");
        let (pool, mut dice, now) = (pool(1), never_retiring(), Instant::now());

        let first = exchange(&pool, &server, &mut dice, now).await;
        let second = exchange(&pool, &server, &mut dice, now).await;

        assert_eq!(first, second, "one slot, one port");
        assert_eq!((pool.shared.counters.udp_opened.get(), pool.shared.counters.udp_reused.get()), (1, 1));
    });
}

/// P01: each port is replaced within 60 s.
#[test]
fn socket_of_sixty_seconds_is_not_used_again() {
    on_worker(async {
        let server = Server::bind(HOME).await.expect("loopback is there");
        let (pool, mut dice, now) = (pool(1), never_retiring(), Instant::now());
        exchange(&pool, &server, &mut dice, now).await;

        exchange(&pool, &server, &mut dice, now + LIFETIME).await;

        assert_eq!(pool.shared.counters.udp_opened.get(), 2);
        pool.sweep(now + LIFETIME + LIFETIME / 2);
        assert_eq!(pool.idle(), 1, "half a life old");
        pool.sweep(now + LIFETIME * 2);
        assert_eq!(pool.idle(), 0);
    });
}

/// P01: 20,000 questions come from 4,096 ports or more, spread over the whole range, whichever worker asks; the port
/// does not tell the worker.
#[test]
fn ports_are_many_and_belong_to_no_worker() {
    on_worker(async {
        let server = Server::bind(HOME).await.expect("loopback is there");
        let (pools, mut dice, now) = ([pool(2048), pool(2048)], dice(), Instant::now());
        let mut ports = [HashSet::new(), HashSet::new()];

        for turn in 0..20_000 {
            let worker = turn % 2;
            ports[worker].insert(exchange(&pools[worker], &server, &mut dice, now).await);
        }

        let all: HashSet<u16> = ports[0].union(&ports[1]).copied().collect();
        assert!(all.len() >= 4096, "only {} ports", all.len());
        assert!(pools.iter().map(UdpPool::idle).sum::<usize>() <= 4096, "no more sockets than slots");
        for of_one in &ports {
            let (low, high) = (all.iter().min(), all.iter().max());
            let range = f64::from(high.expect("not empty") - low.expect("not empty"));
            let middle = of_one.iter().map(|&port| f64::from(port)).sum::<f64>()
                / f64::from(u32::try_from(of_one.len()).expect("few"));
            let expected = f64::from(*low.expect("not empty")) + range / 2.0;
            assert!((middle - expected).abs() < range / 20.0, "a worker's ports centre on {middle}, all on {expected}");
        }
    });
}

/// P02: the right answer from another port is not even received.
#[test]
fn answer_from_elsewhere_is_ignored() {
    on_worker(async {
        let server = Server::bind(HOME).await.expect("loopback is there");
        let forger = Server::bind(HOME).await.expect("loopback is there");
        let (pool, query) = (pool(1), query(7));
        let mut ask = open(&pool, &server, &mut dice(), Instant::now());
        ask.send(&query).expect("loopback takes it");
        let (_, from) = receive(&server).await;

        forger.send_to(&answer(&query, Ipv4Addr::new(6, 6, 6, 6)), from).await.expect("loopback takes it");
        server.send_to(&answer(&query, ADDRESS), from).await.expect("loopback takes it");

        let Heard::Answer(response) = heard(&mut ask, &query).await else { panic!("the valid answer comes first") };
        assert!(response.octets().ends_with(&ADDRESS.octets()));
        assert_eq!(pool.shared.counters.near_misses.get(), 0);
    });
}

/// P03, H13, MU01, MU04: each datagram is reported for what it is, and the valid answer still comes through.
#[test]
fn valid_answer_is_heard_after_forged_and_malformed_ones() {
    on_worker(async {
        let server = Server::bind(HOME).await.expect("loopback is there");
        let (pool, query) = (pool(1), query(7));
        let mut ask = open(&pool, &server, &mut dice(), Instant::now());
        ask.send(&query).expect("loopback takes it");
        let (_, from) = receive(&server).await;
        let right = answer(&query, ADDRESS);
        let mut wrong_id = right.clone();
        wrong_id[0] ^= 1;

        for datagram in [&b""[..], &wrong_id, &right[..right.len() - 1], &right] {
            server.send_to(datagram, from).await.expect("loopback takes it");
        }

        assert!(matches!(heard(&mut ask, &query).await, Heard::Malformed(_)));
        assert!(matches!(heard(&mut ask, &query).await, Heard::NearMiss(_)));
        assert!(matches!(heard(&mut ask, &query).await, Heard::Malformed(_)));
        assert!(matches!(heard(&mut ask, &query).await, Heard::Answer(_)));
        assert_eq!((pool.shared.counters.near_misses.get(), pool.shared.counters.malformed.get()), (1, 2));
        drop(ask);
        assert_eq!(pool.idle(), 0, "a port that somebody else knows is given up");
    });
}

/// H02: a closed port is noticed by ICMP, and waiting on does not spin.
#[test]
fn closed_port_is_refused_at_once() {
    on_worker(async {
        let closed = Server::bind(HOME).await.expect("loopback is there");
        let (pool, query) = (pool(1), query(7));
        let mut ask = open(&pool, &closed, &mut dice(), Instant::now());
        drop(closed);
        ask.send(&query).expect("loopback takes it");

        assert!(matches!(heard(&mut ask, &query).await, Heard::Refused));

        let more = tokio::time::timeout(Duration::from_millis(50), ask.heard(&asked(&query, Transport::Udp))).await;
        assert!(more.is_err(), "after the error there is nothing to hear");
        drop(ask);
        assert_eq!((pool.idle(), pool.shared.counters.refused.get()), (0, 1));
    });
}

#[test]
fn socket_with_an_open_question_is_closed() {
    on_worker(async {
        let server = Server::bind(HOME).await.expect("loopback is there");
        let pool = pool(1);
        let mut ask = open(&pool, &server, &mut dice(), Instant::now());
        ask.send(&query(7)).expect("loopback takes it");

        drop(ask);

        assert_eq!(pool.idle(), 0);
    });
}

#[test]
fn query_sent_again_leaves_from_the_same_port() {
    on_worker(async {
        let server = Server::bind(HOME).await.expect("loopback is there");
        let (pool, query) = (pool(1), query(7));
        let mut ask = open(&pool, &server, &mut never_retiring(), Instant::now());
        ask.send(&query).expect("loopback takes it");
        ask.send(&query).expect("loopback takes it");

        let (first, second) = (receive(&server).await, receive(&server).await);
        assert_eq!(first, second);
        server.send_to(&answer(&query, ADDRESS), first.1).await.expect("loopback takes it");
        assert!(matches!(heard(&mut ask, &query).await, Heard::Answer(_)));
        drop(ask);
        assert_eq!(pool.idle(), 0, "the second answer may still come");
    });
}

#[test]
fn idle_socket_on_which_something_arrived_is_replaced() {
    on_worker(async {
        let server = Server::bind(HOME).await.expect("loopback is there");
        let (pool, mut dice, now) = (pool(1), never_retiring(), Instant::now());
        let port = exchange(&pool, &server, &mut dice, now).await;
        server.send_to(b"stray", (Ipv4Addr::LOCALHOST, port)).await.expect("loopback takes it");

        let again = exchange(&pool, &server, &mut dice, now + SECOND).await;

        assert_ne!(port, again);
        assert_eq!(pool.shared.counters.strays.get(), 1);
    });
}

/// P08: queries are never fragmented, over IPv4 or IPv6.
#[test]
fn path_mtu_is_respected() {
    on_worker(async {
        let pool = pool(1);
        let four = pool.open(([127, 0, 0, 1], 9).into(), &mut dice(), Instant::now()).expect("loopback is there");
        assert_eq!(getsockopt(four.socket(), Ipv4PathMtu), Ok(libc::IP_PMTUDISC_DO));
        if let Ok(six) = pool.open((std::net::Ipv6Addr::LOCALHOST, 9).into(), &mut dice(), Instant::now()) {
            assert_eq!(getsockopt(six.socket(), Ipv6PathMtu), Ok(libc::IPV6_PMTUDISC_DO));
        }
    });
}

/// H19: a server that cannot be reached is an error the caller sees at once.
#[test]
fn unreachable_server_is_an_error() {
    on_worker(async {
        let pool = pool(1);
        let broadcast: SocketAddr = ([255, 255, 255, 255], 53).into();
        let error = pool.open(broadcast, &mut dice(), Instant::now()).err().map(|error| error.kind());
        assert!(error.is_some(), "the kernel forbids it, or knows no way");
    });
}

fn pool(slots: usize) -> UdpPool {
    UdpPool::new(slots, Rc::default())
}

/// Dice that never make a question the last on its port: `random_ratio` wants a low number for that.
fn never_retiring() -> impl Rng {
    Highest
}

struct Highest;

impl rand::TryRng for Highest {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(0xfff0_0000)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(0xfff0_0000_0000_0000)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        bytes.fill(u8::MAX);
        Ok(())
    }
}

fn open(pool: &UdpPool, server: &Server, dice: &mut impl Rng, now: Instant) -> UdpAsk {
    pool.open(server.local_addr().expect("the server is bound"), dice, now).expect("a socket can be had")
}

async fn receive(server: &Server) -> (Vec<u8>, SocketAddr) {
    let mut octets = vec![0; 512];
    let (length, from) = within(SECOND, server.recv_from(&mut octets)).await.expect("loopback gives it");
    octets.truncate(length);
    (octets, from)
}

async fn heard(ask: &mut UdpAsk, query: &[u8]) -> Heard {
    within(SECOND, ask.heard(&asked(query, Transport::Udp))).await
}

/// Asks and answers one question; returns the port it was asked from.
async fn exchange(pool: &UdpPool, server: &Server, dice: &mut impl Rng, now: Instant) -> u16 {
    let mut ask = open(pool, server, dice, now);
    let query = query(dice.next_u32() as u16);
    ask.send(&query).expect("loopback takes it");
    let (octets, from) = receive(server).await;
    assert_eq!(octets, query);
    server.send_to(&answer(&query, ADDRESS), from).await.expect("loopback takes it");
    assert!(matches!(heard(&mut ask, &query).await, Heard::Answer(_)));
    from.port()
}

nix::getsockopt_impl!(Ipv4PathMtu, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::c_int, GetStruct<libc::c_int>);
nix::getsockopt_impl!(Ipv6PathMtu, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::c_int, GetStruct<libc::c_int>);
