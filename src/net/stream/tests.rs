//! Pipelined exchanges over scripted servers: order, silence, limits, new connections.

use std::net::Ipv4Addr;

use tokio::io::AsyncReadExt;
use tokio::task::{JoinHandle, spawn_local};

use super::*;
use crate::net::testing::{
    PATIENCE, Server, answer, asked, dice, on_worker, query, read_frame, serve_one, within, write_frame,
};
use crate::wire::Transport;

const FIRST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SECOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// H09: what an asker waits at most when the connection has died meanwhile.
const UNNOTICED: Duration = Duration::from_secs(1);

/// P11: answers come in another order, between messages with unknown and duplicate IDs; everybody gets his own.
#[test]
fn answers_out_of_order_reach_their_askers() {
    on_worker(async {
        let (server, pool) = (Server::start().await, pool(Limits::default()));
        let asks: Vec<_> = (0..100).map(|_| ask(&pool, &server)).collect();
        let mut stream = server.accept().await;
        let mut queries = Vec::new();
        for _ in 0..100 {
            queries.push(read_frame(&mut stream).await.expect("a query comes"));
        }

        let unknown = (0..=u16::MAX).find(|id| !queries.iter().any(|query| query[..2] == id.to_be_bytes()));
        let unknown = query(unknown.expect("100 of 65,536 are taken"));
        for query in queries.iter().rev() {
            write_frame(&mut stream, &answer(&unknown, FIRST)).await;
            let id = [query[0], query[1]];
            write_frame(&mut stream, &answer(query, Ipv4Addr::new(10, 0, id[0], id[1]))).await;
            write_frame(&mut stream, &answer(query, SECOND)).await;
        }

        let mut addresses = Vec::new();
        for ask in asks {
            addresses.push(address(&within(PATIENCE, ask).await.expect("no panic").expect("answered")));
        }
        // Asked in order, so the n-th asker's ID is that of the n-th query.
        let expected = queries.iter().map(|query| Ipv4Addr::new(10, 0, query[0], query[1]));
        assert!(addresses.iter().copied().eq(expected));
        // The duplicate of the last is read after the last asker has been served.
        while pool.shared.counters.unknown_ids.get() < 200 {
            tokio::task::yield_now().await;
        }
        assert_eq!((pool.shared.counters.tcp_connects.get(), pool.shared.counters.near_misses.get()), (1, 0));
    });
}

/// T18, for the side upstream: the length and the message are there with the first read.
#[test]
fn length_and_message_leave_in_one_segment() {
    on_worker(async {
        let (server, pool) = (Server::start().await, pool(Limits::default()));
        let _ask = ask(&pool, &server);
        let mut stream = server.accept().await;

        let mut octets = [0; 512];
        let length = within(PATIENCE, stream.read(&mut octets)).await.expect("loopback gives it");

        assert_eq!(length, 2 + query(0).len());
        assert_eq!(octets[4..length], query(0)[2..]);
    });
}

#[test]
fn full_connection_is_followed_by_another_until_there_are_enough() {
    on_worker(async {
        let limits = Limits { in_flight: 2, connections: 2, ..Limits::default() };
        let (server, pool) = (Server::start().await, pool(limits));
        let asks: Vec<_> = (0..5).map(|_| ask(&pool, &server)).collect();
        let (mut one, mut other) = (server.accept().await, server.accept().await);
        assert!(!server.is_called().await, "the fifth question waits");

        for _ in 0..2 {
            serve_one(&mut other, SECOND).await;
        }
        serve_one(&mut other, SECOND).await;
        for _ in 0..2 {
            serve_one(&mut one, FIRST).await;
        }

        for ask in asks {
            within(PATIENCE, ask).await.expect("no panic").expect("answered");
        }
    });
}

#[test]
fn questions_beyond_the_queue_are_refused() {
    on_worker(async {
        let limits = Limits { in_flight: 1, connections: 1, queued: 4, ..Limits::default() };
        let (server, pool) = (Server::start().await, pool(limits));
        let asks: Vec<_> = (0..8).map(|_| ask(&pool, &server)).collect();
        let _stream = server.accept().await;
        let mut busy = 0;
        for ask in asks {
            if let Ok(answered) = tokio::time::timeout(Duration::from_millis(50), ask).await {
                assert!(matches!(answered, Ok(Err(StreamError::Busy))));
                busy += 1;
            }
        }
        assert!((4..8).contains(&busy), "{busy}");
    });
}

/// H09: the server closes an idle connection.
#[test]
fn question_after_an_idle_fin_goes_over_a_new_connection() {
    on_worker(async {
        let (server, pool) = (Server::start().await, pool(Limits::default()));
        let first = ask(&pool, &server);
        let mut stream = server.accept().await;
        serve_one(&mut stream, FIRST).await;
        first.await.expect("no panic").expect("answered");
        drop(stream);
        while pool.connections() > 0 {
            tokio::task::yield_now().await;
        }

        let second = ask(&pool, &server);
        serve_one(&mut server.accept().await, SECOND).await;

        assert_eq!(address(&second.await.expect("no panic").expect("answered")), SECOND);
        assert_eq!(pool.shared.counters.tcp_retries.get(), 0);
    });
}

/// H09: the server closes under the question, politely or not; the asker does not notice.
#[test]
fn question_whose_connection_closes_is_asked_again() {
    for reset in [false, true] {
        on_worker(async move {
            let (server, pool) = (Server::start().await, pool(Limits::default()));
            let first = ask(&pool, &server);
            let mut old = server.accept().await;
            serve_one(&mut old, FIRST).await;
            first.await.expect("no panic").expect("answered");

            let second = ask(&pool, &server);
            if reset {
                // Closed with the question unread: RST.
                old.readable().await.expect("a query comes");
            } else {
                read_frame(&mut old).await.expect("a query comes");
            }
            drop(old);
            serve_one(&mut server.accept().await, SECOND).await;

            let answered = within(UNNOTICED, second).await.expect("no panic").expect("answered");
            assert_eq!(address(&answered), SECOND);
            assert_eq!(pool.shared.counters.tcp_retries.get(), 1);
        });
    }
}

/// H09: the pod behind the connection has vanished without a word.
#[test]
fn question_on_a_dead_connection_is_asked_again_on_a_new_one() {
    on_worker(async {
        let (server, pool) = (Server::start().await, pool(Limits::default()));
        let first = ask(&pool, &server);
        let mut dead = server.accept().await;
        serve_one(&mut dead, FIRST).await;
        first.await.expect("no panic").expect("answered");

        let second = ask(&pool, &server);
        let mut live = server.accept().await;
        serve_one(&mut live, SECOND).await;
        let answered = within(UNNOTICED, second).await.expect("no panic").expect("answered");
        assert_eq!(address(&answered), SECOND);

        // The next question does not try the dead one, which is closed.
        let third = ask(&pool, &server);
        serve_one(&mut live, SECOND).await;
        third.await.expect("no panic").expect("answered");
        assert!(read_frame(&mut dead).await.is_some(), "the second question");
        assert!(read_frame(&mut dead).await.is_none(), "the end");
    });
}

/// A server may take its time on one question; asking again elsewhere must not lose its answer.
#[test]
fn slow_answer_on_the_old_connection_is_taken() {
    on_worker(async {
        let (server, pool) = (Server::start().await, pool(Limits::default()));
        let first = ask(&pool, &server);
        let mut old = server.accept().await;
        serve_one(&mut old, FIRST).await;
        first.await.expect("no panic").expect("answered");

        let second = ask(&pool, &server);
        let _new = server.accept().await;
        serve_one(&mut old, FIRST).await;

        assert_eq!(address(&second.await.expect("no panic").expect("answered")), FIRST);
    });
}

/// MU45, MU46: what cannot be a message ends the connection, and the asker learns it at once and goes elsewhere.
#[test]
fn broken_frames_fail_the_question() {
    for (octets, expected) in [(&b"\0\0"[..], "bad_frame"), (&b"\xff\xff\0\0\0\0\0\0\0\0\0\0"[..], "closed")] {
        on_worker(async move {
            let (server, pool) = (Server::start().await, pool(Limits::default()));
            let ask = ask(&pool, &server);
            let mut stream = server.accept().await;
            read_frame(&mut stream).await.expect("a query comes");

            tokio::io::AsyncWriteExt::write_all(&mut stream, octets).await.expect("loopback takes it");
            tokio::io::AsyncWriteExt::shutdown(&mut stream).await.expect("loopback takes it");

            let error = within(PATIENCE, ask).await.expect("no panic").expect_err("there is no answer");
            assert_eq!(error.label(), expected);
            assert_eq!(read_frame(&mut stream).await, None, "dropped");
        });
    }
}

/// MU43: TC over TCP is a failure of the server.
#[test]
fn truncated_answer_over_tcp_is_unfit() {
    on_worker(async {
        let (server, pool) = (Server::start().await, pool(Limits::default()));
        let ask = ask(&pool, &server);
        let mut stream = server.accept().await;
        let query = read_frame(&mut stream).await.expect("a query comes");
        let mut truncated = answer(&query, FIRST);
        truncated[2] |= 2;
        write_frame(&mut stream, &truncated).await;

        let error = within(PATIENCE, ask).await.expect("no panic").expect_err("there is no answer");
        assert!(matches!(error, StreamError::Unfit(_)), "{error:?}");
    });
}

#[test]
fn closed_port_is_refused() {
    on_worker(async {
        let (server, pool) = (Server::start().await, pool(Limits::default()));
        let closed = server.address();
        drop(server);
        let query = query(0);
        let error = within(PATIENCE, pool.ask(closed, None, &asked(&query, Transport::Tcp))).await;
        assert!(matches!(error, Err(StreamError::Refused)), "{error:?}");
        assert_eq!(pool.shared.counters.tcp_connect_failures.get(), 1);
    });
}

/// H11: an old connection takes no new questions, finishes those it has, and is closed.
#[test]
fn old_connection_is_drained_and_left() {
    on_worker(async {
        let limits = Limits { age: Duration::from_millis(50), ..Limits::default() };
        let (server, pool) = (Server::start().await, pool(limits));
        let first = ask(&pool, &server);
        let mut old = server.accept().await;
        let query = read_frame(&mut old).await.expect("a query comes");
        tokio::time::sleep(2 * limits.age).await;

        let second = ask(&pool, &server);
        let mut new = server.accept().await;
        serve_one(&mut new, SECOND).await;
        write_frame(&mut old, &answer(&query, FIRST)).await;

        assert_eq!(address(&second.await.expect("no panic").expect("answered")), SECOND);
        assert_eq!(address(&first.await.expect("no panic").expect("answered")), FIRST);
        assert_eq!(read_frame(&mut old).await, None, "drained, so closed");
    });
}

#[test]
fn idle_connection_is_closed() {
    on_worker(async {
        let limits = Limits { idle: Duration::from_millis(50), ..Limits::default() };
        let (server, pool) = (Server::start().await, pool(limits));
        let ask = ask(&pool, &server);
        let mut stream = server.accept().await;
        serve_one(&mut stream, FIRST).await;
        ask.await.expect("no panic").expect("answered");
        assert_eq!(read_frame(&mut stream).await, None);
    });
}

/// H09, H11: a server that takes connections and never says a word is not held on to.
#[test]
fn connection_that_never_answers_is_not_asked_for_ever() {
    on_worker(async {
        let short = Duration::from_millis(25);
        let (server, pool) =
            (Server::start().await, pool(Limits { connect: short, silence: short, ..Limits::default() }));
        let given_up = ask(&pool, &server);
        let _mute = server.accept().await;
        tokio::time::sleep(4 * short).await;
        given_up.abort();

        let second = ask(&pool, &server);
        serve_one(&mut server.accept().await, SECOND).await;

        assert_eq!(address(&second.await.expect("no panic").expect("answered")), SECOND);
    });
}

fn pool(limits: Limits) -> Rc<StreamPool> {
    Rc::new(StreamPool::new(dice(), limits, Rc::default()))
}

/// Asks in a task of its own.
fn ask(pool: &Rc<StreamPool>, server: &Server) -> JoinHandle<Result<Response, StreamError>> {
    let (pool, server) = (Rc::clone(pool), server.address());
    spawn_local(async move { pool.ask(server, None, &asked(&query(0), Transport::Tcp)).await })
}

fn address(response: &Response) -> Ipv4Addr {
    let last: [u8; 4] = *response.octets().last_chunk().expect("a message is longer");
    last.into()
}
