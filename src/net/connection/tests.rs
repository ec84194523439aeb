//! One connection to an upstream, against scripted peers.

use std::net::Ipv4Addr;

use super::*;
use crate::net::testing::{answer, asked, dice, on_worker, query};

/// P01, P11: IDs are uniform; over 20,000 of them, chi-square over each octet's 256 values stays under 330.5, which 255
/// degrees of freedom exceed once in a thousand.
#[test]
fn ids_are_uniform() {
    let (connection, mut dice, query) = (connection(), dice(), query(0));
    let mut counts = [[0_u32; 256]; 2];
    for _ in 0..20_000 {
        let ticket = connection.ask(&asked(&query, Transport::Tcp), &mut dice).expect("there is room");
        let id = connection.waiting.borrow().keys().next().copied().expect("one waits");
        let [high, low] = id.to_be_bytes();
        counts[0][usize::from(high)] += 1;
        counts[1][usize::from(low)] += 1;
        connection.waiting.borrow_mut().clear();
        connection.outgoing.borrow_mut().clear();
        drop(ticket);
    }
    let expected = 20_000.0 / 256.0;
    for octet in counts {
        let chi_square: f64 = octet.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum();
        assert!(chi_square < 330.5, "{chi_square}");
    }
}

/// P11: an ID under way is not given out again, even where the asker has left.
#[test]
fn ids_under_way_differ() {
    let (connection, mut dice, query) = (connection(), dice(), query(0));
    for asked_so_far in 0..IDS_KEPT {
        assert!(connection.has_room(), "names that nobody answers must not starve the others");
        drop(connection.ask(&asked(&query, Transport::Tcp), &mut dice).expect("there is room"));
        connection.outgoing.borrow_mut().clear();
        assert_eq!(connection.waiting.borrow().len(), asked_so_far + 1);
    }
    assert!(!connection.has_room());
}

#[test]
fn questions_with_askers_fill_a_connection() {
    let (connection, mut dice, query) = (connection(), dice(), query(0));
    let mut tickets = Vec::new();
    for _ in 0..connection.limits.in_flight {
        assert!(connection.has_room());
        tickets.push(connection.ask(&asked(&query, Transport::Tcp), &mut dice).expect("there is room"));
    }
    assert!(!connection.has_room());
    drop(tickets);
    assert!(connection.has_room());
}

/// The late answer to a question somebody gave up does not answer the one that got its ID.
#[test]
fn answer_to_another_question_under_the_same_id_is_not_taken() {
    on_worker(async {
        let (connection, ours) = (connection(), query(0));
        let mut ticket = connection.ask(&asked(&ours, Transport::Tcp), &mut dice()).expect("there is room");
        let sent = connection.outgoing.borrow()[2..].to_vec();
        let mut late = sent.clone();
        late[13] = b'x';

        connection.on_message(&answer(&late, Ipv4Addr::new(6, 6, 6, 6)));
        assert!(ticket.answer.try_recv().is_err());
        connection.on_message(&answer(&sent, Ipv4Addr::new(192, 0, 2, 1)));

        let response = ticket.answer.try_recv().expect("answered").expect("valid");
        assert!(response.octets().ends_with(&[192, 0, 2, 1]));
        assert_eq!(connection.counters.near_misses.get(), 1);
    });
}

/// MU45 and its like: no message is shorter than its header.
#[test]
fn length_without_room_for_a_header_is_an_error() {
    for length in 0..12_u8 {
        let mut incoming = BytesMut::from(&[0, length, 1, 2, 3][..]);
        assert!(matches!(cut_frame(&mut incoming), Err(StreamError::Frame)));
    }
}

/// T02, for the side upstream: frames come out whole, however they come in.
#[test]
fn frames_are_cut_wherever_segments_end() {
    let stream = [&[0, 12][..], &[1; 12], &[0, 13], &[2; 13]].concat();
    for first in 0..stream.len() {
        let mut frames = Vec::new();
        let mut incoming = BytesMut::new();
        for part in [&stream[..first], &stream[first..]] {
            incoming.extend_from_slice(part);
            while let Some(frame) = cut_frame(&mut incoming).expect("the lengths are right") {
                frames.push(frame);
            }
        }
        assert_eq!(frames, [&[1; 12][..], &[2; 13][..]]);
        assert!(incoming.is_empty());
    }
}

#[test]
fn server_that_takes_nothing_does_not_make_us_buffer_without_bound() {
    let connection = Connection::new(
        Limits { buffered: 100, ..Limits::default() },
        Duration::from_secs(60),
        Rc::default(),
        Rc::default(),
    );
    let (connection, query) = (Rc::new(connection), query(0));
    let three: Vec<_> = (0..4).map(|_| connection.ask(&asked(&query, Transport::Tcp), &mut dice())).collect();
    assert!(three[..3].iter().all(Result::is_ok));
    assert!(matches!(three[3], Err(StreamError::Busy)));
}

fn connection() -> Rc<Connection> {
    Rc::new(Connection::new(Limits::default(), Duration::from_secs(60), Rc::default(), Rc::default()))
}
