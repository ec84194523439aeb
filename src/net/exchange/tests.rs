use std::net::Ipv4Addr;

use tokio::net::UdpSocket;

use super::*;
use crate::net::testing::{PATIENCE, answer, dice, on_worker, query, serve_one, within};

const OVER_UDP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OVER_TCP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// C26: what was cut is asked again over TCP.
#[test]
fn truncated_answer_is_asked_for_over_tcp() {
    on_worker(async {
        let (udp, tcp) = server().await;
        let query = query(7);
        let script = async {
            let (from, mut octets) = (receive(&udp).await, answer(&query, OVER_UDP));
            octets[2] |= 2;
            udp.send_to(&octets, from).await.expect("loopback takes it");
            serve_one(&mut accept(&tcp).await, OVER_TCP).await;
        };
        let (exchange, answered) = play(script, &udp, &query).await;
        assert_eq!(address(&answered.expect("answered")), OVER_TCP);
        assert_eq!(exchange.counters.truncated.get(), 1);
    });
}

/// C27: where TCP is closed as well there is one attempt, and the server has failed.
#[test]
fn truncated_answer_without_tcp_is_a_failure() {
    on_worker(async {
        let (udp, tcp) = server().await;
        drop(tcp);
        let query = query(7);
        let script = async {
            let (from, mut octets) = (receive(&udp).await, answer(&query, OVER_UDP));
            octets[2] |= 2;
            udp.send_to(&octets, from).await.expect("loopback takes it");
        };
        let (exchange, answered) = play(script, &udp, &query).await;
        assert_eq!(answered.expect_err("failed").label(), "refused");
        assert_eq!(exchange.counters.tcp_connect_failures.get(), 1);
    });
}

/// P03: one wrong ID, then silence over UDP.
#[test]
fn first_near_miss_moves_the_question_to_tcp() {
    on_worker(async {
        let (udp, tcp) = server().await;
        let query = query(7);
        let script = async {
            let (from, mut octets) = (receive(&udp).await, answer(&query, OVER_UDP));
            octets[0] ^= 1;
            udp.send_to(&octets, from).await.expect("loopback takes it");
            serve_one(&mut accept(&tcp).await, OVER_TCP).await;
        };
        let (exchange, answered) = play(script, &udp, &query).await;
        assert_eq!(address(&answered.expect("answered")), OVER_TCP);
        assert_eq!(exchange.counters.near_misses.get(), 1);
    });
}

/// H13: a near miss, no TCP, and then the valid answer.
#[test]
fn valid_answer_after_a_near_miss_is_taken_where_there_is_no_tcp() {
    on_worker(async {
        let (udp, tcp) = server().await;
        drop(tcp);
        let query = query(7);
        let script = async {
            let (from, right) = (receive(&udp).await, answer(&query, OVER_UDP));
            let mut wrong = right.clone();
            wrong[0] ^= 1;
            for octets in [wrong, right] {
                udp.send_to(&octets, from).await.expect("loopback takes it");
            }
        };
        let (_, answered) = play(script, &udp, &query).await;
        assert_eq!(address(&answered.expect("answered")), OVER_UDP);
    });
}

/// P04: guesses beyond a handful are not waited for, even if one of them were right.
#[test]
fn question_is_given_up_when_somebody_goes_on_guessing() {
    on_worker(async {
        let (udp, tcp) = server().await;
        drop(tcp);
        let query = query(7);
        let script = async {
            let (from, mut octets) = (receive(&udp).await, answer(&query, OVER_UDP));
            for guess in 8..30 {
                octets[1] = guess;
                udp.send_to(&octets, from).await.expect("loopback takes it");
            }
        };
        let (exchange, answered) = play(script, &udp, &query).await;
        assert_eq!(answered.expect_err("failed").label(), "guessed");
        assert_eq!(exchange.counters.near_misses.get(), 9);
    });
}

/// Q02: a lost query is sent again, unchanged, from the same port.
#[test]
fn query_is_sent_again_after_silence() {
    on_worker(async {
        let (udp, _tcp) = server().await;
        let query = query(7);
        let script = async {
            let lost = receive(&udp).await;
            let from = receive(&udp).await;
            assert_eq!(lost, from);
            udp.send_to(&answer(&query, OVER_UDP), from).await.expect("loopback takes it");
        };
        let (_, answered) = play(script, &udp, &query).await;
        assert_eq!(address(&answered.expect("answered")), OVER_UDP);
    });
}

/// H02: a closed port is known at once.
#[test]
fn closed_port_is_refused() {
    on_worker(async {
        let (udp, _tcp) = server().await;
        let to = udp.local_addr().expect("bound");
        drop(udp);
        let exchange = Exchange::new(1, dice(), Limits::default());
        let query = query(7);
        let answered = within(PATIENCE, ask(&exchange, to, &query)).await;
        assert!(matches!(answered, Err(ExchangeError::Refused)), "{answered:?}");
    });
}

/// UDP and TCP on one port.
async fn server() -> (UdpSocket, tokio::net::TcpListener) {
    for _ in 0..100 {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback is there");
        // Another test may have the port for TCP.
        if let Ok(tcp) = tokio::net::TcpListener::bind(udp.local_addr().expect("bound")).await {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both");
}

async fn receive(udp: &UdpSocket) -> SocketAddr {
    within(PATIENCE, udp.recv_from(&mut [0; 512])).await.expect("loopback gives it").1
}

async fn accept(tcp: &tokio::net::TcpListener) -> tokio::net::TcpStream {
    within(PATIENCE, tcp.accept()).await.expect("loopback gives it").0
}

/// Asks while the server plays `script`.
async fn play(
    script: impl Future<Output = ()>,
    udp: &UdpSocket,
    query: &[u8],
) -> (Exchange, Result<Response, ExchangeError>) {
    let exchange = Exchange::new(1, dice(), Limits::default());
    let to = udp.local_addr().expect("bound");
    let ((), answered) = within(PATIENCE, async { tokio::join!(script, ask(&exchange, to, query)) }).await;
    (exchange, answered)
}

async fn ask(exchange: &Exchange, server: SocketAddr, query: &[u8]) -> Result<Response, ExchangeError> {
    let to = Destination { server, protocol: Protocol::Udp, tls: None };
    let question = Question { query, exact_case: false, resend_after: Duration::from_millis(300) };
    exchange.ask(&to, &question, &mut dice()).await
}

fn address(response: &Response) -> Ipv4Addr {
    let last: [u8; 4] = *response.octets().last_chunk().expect("a message is longer");
    last.into()
}
