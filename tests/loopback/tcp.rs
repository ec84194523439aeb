//! The TCP service: pipelined, out of order, in any number of pieces, and bounded in every way.
//!
//! Read first: RFC 7766 sections 6, 7 and 8, RFC 9210 section 4.

mod abuse;
mod bounds;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::raw::Sniffer;
use crate::support::agent::Agent;
use crate::support::client::{Ask, TcpClient, ask, frame};
use crate::support::config::Config;
use crate::support::octets::{self, A};
use crate::support::upstream::{Reply, Seen, Upstream, encoded, encoded_reply, truncating};
use crate::support::{millis, seconds, until};

/// Questions open at a time on one connection.
const IN_FLIGHT: usize = 100;

/// One question for each name; the ID is the place in the list.
fn questions(names: impl IntoIterator<Item = String>) -> Vec<(String, Ask)> {
    let numbered = names.into_iter().zip(0_u16..);
    numbered.map(|(name, id)| (name.clone(), Ask::new(&name, A).id(id))).collect()
}

fn framed(questions: &[(String, Ask)]) -> Vec<u8> {
    questions.iter().flat_map(|(_, ask)| frame(&ask.octets())).collect()
}

/// Receives an answer to each question, checks it, and returns the order in which and the times at which they came.
#[track_caller]
fn receive_all(connection: &mut TcpClient, questions: &[(String, Ask)], limit: Duration) -> Vec<(usize, Instant)> {
    let start = Instant::now();
    let mut order = Vec::new();
    while order.len() < questions.len() {
        let Some(octets) = connection.receive(limit) else {
            panic!("{} of {} answers came", order.len(), questions.len());
        };
        let number = usize::from(u16::from_be_bytes([octets[0], octets[1]]));
        let (name, ask) = &questions[number];
        ask.read(octets, start).assert_encodes(name);
        assert!(order.iter().all(|(it, _)| *it != number), "{name} is answered twice");
        order.push((number, Instant::now()));
    }
    order
}

/// Sends the pieces apart: each in a segment of its own, a moment after the one before.
fn send_apart<'a>(connection: &mut TcpClient, pieces: impl IntoIterator<Item = &'a [u8]>, apart: Duration) {
    for piece in pieces {
        connection.send_raw(piece);
        // That pieces arrive apart is what is tested; nothing announces it.
        until(Instant::now() + apart);
    }
}

// T01: ten questions in one segment, the first of them slow. The others do not wait for it.
#[test]
fn a_slow_question_does_not_hold_up_those_behind_it() {
    let upstream = Upstream::new(|seen| {
        let slow = seen.name.starts_with("n0.");
        encoded_reply(seen, 300).after(if slow { millis(1_500) } else { millis(0) })
    });
    let agent = Agent::start(&Config::new(&upstream));
    let questions = questions(crate::crowd::names("pipe.test", 10));
    let mut connection = TcpClient::connect(agent.addr(), None);
    let start = Instant::now();
    connection.send_raw(&framed(&questions));

    let order = receive_all(&mut connection, &questions, seconds(4));

    assert_eq!(order[9].0, 0, "{order:?}");
    assert!(order[8].1 < start + millis(1_000), "nine fast answers took {:?}", order[8].1 - start);
    assert!(order[9].1 >= start + millis(1_450), "the slow answer came after {:?}", order[9].1 - start);
}

// T02: questions cut anywhere are whole again on the other side.
#[test]
fn the_pieces_of_a_question_find_together() {
    let upstream = Upstream::new(encoded(300));
    let agent = Agent::start(&Config::new(&upstream));
    let questions = questions(crate::crowd::names("cut.test", 2));
    let octets = framed(&questions);
    let border = octets.len() / 2;
    for cuts in [
        // The length in halves.
        vec![1],
        // The body in three.
        vec![2, 12, 20],
        // The second question begins in the segment of the first: with half its length, its length, some of its body.
        vec![border + 1],
        vec![border + 2],
        vec![border - 3, border + 5],
        // Everything at once, and in pieces of five octets.
        vec![],
        (1..octets.len() / 5).map(|piece| piece * 5).collect(),
    ] {
        let mut connection = TcpClient::connect(agent.addr(), None);
        let bounds: Vec<usize> = [&[0], &cuts[..], &[octets.len()]].concat();
        let pieces = bounds.windows(2).map(|pair| &octets[pair[0]..pair[1]]);
        send_apart(&mut connection, pieces, millis(15));
        receive_all(&mut connection, &questions, seconds(4));
    }
}

// T02: a client that sends its last question and a FIN together still wants the answer.
#[test]
fn a_half_closed_connection_gets_its_answers() {
    let upstream = Upstream::new(crate::support::upstream::delayed(millis(200), encoded(300)));
    let agent = Agent::start(&Config::new(&upstream));
    let questions = questions(crate::crowd::names("half.test", 3));
    let mut connection = TcpClient::connect(agent.addr(), None);
    connection.send_raw(&framed(&questions));
    connection.finish();
    receive_all(&mut connection, &questions, seconds(4));
    assert!(connection.ends_within(seconds(4)), "the connection stays open with nobody at the other end");
}

// T04: five hundred questions at once: a hundred are worked on at a time, and all are answered.
#[test]
fn questions_beyond_the_bound_wait_their_turn() {
    let delay = millis(300);
    let upstream = Upstream::new(move |seen| encoded_reply(seen, 300).after(delay));
    let agent = Agent::start(&Config::new(&upstream).limits("in_flight_per_client: 1000"));
    let questions = questions(crate::crowd::names("many.test", 500));
    let mut connection = TcpClient::connect(agent.addr(), None);
    connection.send_raw(&framed(&questions));

    receive_all(&mut connection, &questions, seconds(5));

    // An upstream query is open from its arrival until its answer leaves.
    let arrivals: Vec<Instant> = upstream.seen().iter().map(|seen| seen.at).collect();
    let open = |at: Instant| arrivals.iter().filter(|it| **it <= at && at < **it + delay).count();
    let most = arrivals.iter().map(|at| open(*at)).max().expect("there were queries");
    assert!(most <= IN_FLIGHT, "{most} questions of one connection were open at once");
}

/// Many addresses: `count` of them, over TCP only.
fn addresses(count: u16) -> impl Fn(&Seen) -> Vec<crate::support::upstream::Act> + Send + Sync {
    truncating(move |seen| {
        let records = (0..count).map(|number| {
            let [high, low] = number.to_be_bytes();
            octets::a(&seen.name, 300, [10, 0, high, low])
        });
        Reply::to(seen).answers(records).now()
    })
}

/// A client whose kernel takes a kilobyte or two and no more.
fn narrow_connection(agent: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::for_address(agent), socket2::Type::STREAM, None)
        .expect("a descriptor is free");
    socket.set_recv_buffer_size(1_024).expect("small sizes are rounded up");
    socket.connect(&agent.into()).expect("the agent listens on TCP");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(seconds(5))).expect("the limit is not zero");
    stream
}

// T15: 64 KiB to a client that reads a kilobyte at a time arrive whole; nobody else waits meanwhile.
#[test]
fn a_slow_reader_gets_a_large_answer_whole() {
    const COUNT: u16 = 3_900;
    let upstream = Upstream::new(addresses(COUNT));
    let agent = Agent::start(&Config::new(&upstream));
    // Into the cache first.
    let question = Ask::new("large.test", A).id(1);
    assert_eq!(question.clone().tcp().send(agent.addr()).ipv4().len(), usize::from(COUNT));

    let mut stream = narrow_connection(agent.addr());
    stream.write_all(&frame(&question.octets())).expect("the connection is open");
    let mut received = Vec::new();
    let mut piece = [0; 1_000];
    let start = Instant::now();
    loop {
        let length = stream.read(&mut piece).expect("the answer goes on");
        assert!(length > 0, "the connection ends after {} octets", received.len());
        received.extend(&piece[..length]);
        if received.len() >= 2 && received.len() == 2 + usize::from(u16::from_be_bytes([received[0], received[1]])) {
            break;
        }
        if received.len() % 20_000 < 1_000 {
            let other = Ask::new("small.test", A).within(millis(1_000)).tcp();
            assert!(other.try_send(agent.addr()).is_some(), "others wait for the slow reader");
        }
        until(Instant::now() + millis(5));
    }
    let answer = question.tcp().read(received.split_off(2), start);
    let expected: Vec<[u8; 4]> =
        (0..COUNT).map(|number| [10, 0, number.to_be_bytes()[0], number.to_be_bytes()[1]]).collect();
    let found: Vec<[u8; 4]> = answer.ipv4().iter().map(std::net::Ipv4Addr::octets).collect();
    assert_eq!(found, expected);
}

// T18: length and message leave in one segment (RFC 7766 section 8).
#[test]
fn an_answer_leaves_in_one_segment() {
    let Some(sniffer) = Sniffer::tcp() else { return };
    let upstream = Upstream::new(encoded(300));
    let agent = Agent::start(&Config::new(&upstream));
    for name in ["miss.test", "miss.test"] {
        let answer = Ask::new(name, A).tcp().send(agent.addr());
        let sent = sniffer.collect(millis(300), 9, |it| it.source == agent.addr() && !it.payload.is_empty());
        let lengths: Vec<usize> = sent.iter().map(|packet| packet.payload.len()).collect();
        assert_eq!(lengths, [answer.octets.len() + 2]);
    }
}

// T01, C14: hits, misses and answers made here take the same connection.
#[test]
fn hits_and_misses_share_a_connection() {
    let upstream = Upstream::new(encoded(300));
    let config = Config::new(&upstream).zone("no.test", "{ answer: nxdomain }");
    let agent = Agent::start(&config);
    ask(agent.addr(), "n1.mixed.test", A).assert_encodes("n1.mixed.test");
    let mut connection = TcpClient::connect(agent.addr(), None);
    let questions = questions(crate::crowd::names("mixed.test", 3));
    let local = Ask::new("x.no.test", A).id(3);
    connection.send_raw(&[framed(&questions), frame(&local.octets())].concat());
    let start = Instant::now();
    let mut rcodes = [None; 4];
    for _ in 0..4 {
        let octets = connection.receive(seconds(4)).expect("four answers");
        let number = usize::from(octets[1]);
        let asked = questions.get(number).map_or(&local, |(_, ask)| ask);
        rcodes[number] = Some(asked.read(octets, start).rcode());
    }
    assert_eq!(rcodes, [Some(0), Some(0), Some(0), Some(octets::NXDOMAIN)]);
}
