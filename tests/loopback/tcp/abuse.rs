//! Clients that never read, write one octet at a time, or write nonsense.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Instant;

use super::{addresses, narrow_connection, send_apart};
use crate::support::agent::Agent;
use crate::support::client::{Ask, TcpClient, ask, frame};
use crate::support::config::Config;
use crate::support::octets::A;
use crate::support::upstream::{Upstream, encoded};
use crate::support::{fresh_address, millis, seconds, until};

/// Writes until the other side has ended the connection; `false` if it takes nothing for this long and stays.
fn is_cut_off(mut stream: &TcpStream, octets: &[u8], patience: std::time::Duration) -> bool {
    stream.set_write_timeout(Some(patience)).expect("the limit is not zero");
    loop {
        if let Err(error) = stream.write_all(octets) {
            return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        }
    }
}

// T05: clients that ask for much and read nothing are cut off, and little is held for them.
#[test]
fn clients_that_never_read_are_cut_off() {
    const CLIENTS: u64 = 8;
    let upstream = Upstream::new(addresses(1_000));
    let agent = Agent::start(&Config::new(&upstream));
    let question = Ask::new("large.test", A);
    assert_eq!(question.clone().tcp().send(agent.addr()).ipv4().len(), 1_000);
    let before = agent.rss();

    let many = frame(&question.octets()).repeat(10_000);
    let most = thread::scope(|scope| {
        let threads: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| is_cut_off(&narrow_connection(agent.addr()), &many, seconds(9))))
            .collect();
        let mut most = before;
        let start = Instant::now();
        while threads.iter().any(|thread| !thread.is_finished()) {
            most = most.max(agent.rss());
            ask(agent.addr(), "other.test", A).assert_rcode(0);
            until(Instant::now() + millis(100));
        }
        assert!(start.elapsed() < seconds(9), "cut off after {:?}", start.elapsed());
        for thread in threads {
            assert!(thread.join().expect("a client does not panic"), "a client that never reads stays connected");
        }
        most
    });
    // 256 KiB a client, and the pages an allocator may keep.
    let held = (most - before) / 1_024;
    assert!(held <= CLIENTS * 256 + 4_096, "{held} KiB held for {CLIENTS} clients");
    assert!(agent.is_alive());
}

// T07 (MC56): one octet at a time does not keep a connection beyond the time a message may take.
#[test]
fn clients_that_dribble_are_cut_off() {
    let upstream = Upstream::new(encoded(300));
    let agent = Agent::start(&Config::new(&upstream));
    let sources = [fresh_address(), fresh_address()];
    let mut open: Vec<(TcpClient, Instant)> =
        (0..100).map(|number| (TcpClient::connect(agent.addr(), Some(sources[number % 2])), Instant::now())).collect();
    let octets = frame(&Ask::new("dribble.test", A).octets());
    let start = Instant::now();
    for (round, octet) in octets.iter().enumerate() {
        open.retain_mut(|(connection, since)| {
            connection.send_raw(&[*octet]);
            let ended = connection.ends_within(millis(1));
            assert!(ended || since.elapsed() < seconds(5), "a dribbling client is served for {:?}", since.elapsed());
            !ended
        });
        if open.is_empty() {
            break;
        }
        let name = format!("n{round}.others.test");
        Ask::new(&name, A).within(seconds(1)).send(agent.addr()).assert_encodes(&name);
        Ask::new(&name, A).within(seconds(1)).tcp().send(agent.addr()).assert_encodes(&name);
        until(start + millis(500) * (round as u32 + 1));
    }
    assert!(open.is_empty(), "{} of 100 dribbling clients are still connected", open.len());
}

// T07: nor may a question come in more than fifty pieces.
#[test]
fn a_question_in_too_many_pieces_ends_the_connection() {
    let upstream = Upstream::new(encoded(300));
    let agent = Agent::start(&Config::new(&upstream));
    let question = Ask::new(&format!("{}.test", "long-label".repeat(6)), A).option(12, &[0; 100]);
    let octets = frame(&question.octets());
    assert!(octets.len() > 150);
    let mut connection = TcpClient::connect(agent.addr(), None);
    send_apart(&mut connection, octets.chunks(1), millis(8));
    assert!(connection.ends_within(seconds(1)), "{} pieces of one question were taken", octets.len());
}

// T13: frames of garbage, of every size; the connection ends or they are ignored, and memory stays where it was.
#[test]
fn garbage_changes_nothing() {
    let upstream = Upstream::new(encoded(300));
    let agent = Agent::start(&Config::new(&upstream));
    ask(agent.addr(), "known.test", A).assert_encodes("known.test");
    let before = agent.rss();
    for (size, count) in [(65_533, 100), (1_024, 1_000), (0, 100_000)] {
        // Octets without a meaning; the header's QR is 0, so that they look like queries.
        let garbage: Vec<u8> = (0..size).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let many = frame(&garbage).repeat(count);
        let connection = TcpClient::connect(agent.addr(), None);
        thread::scope(|scope| {
            // Answers are read, so that the agent is not waiting for us.
            let mut reader = TcpClient { stream: connection.stream.try_clone().expect("a descriptor is free") };
            scope.spawn(move || while reader.receive(seconds(2)).is_some() {});
            let mut writer = &connection.stream;
            writer.set_write_timeout(Some(seconds(3))).expect("the limit is not zero");
            // An error means that the agent has had enough.
            let _ = writer.write_all(&many);
            let _ = connection.stream.shutdown(std::net::Shutdown::Both);
        });
        ask(agent.addr(), "known.test", A).assert_encodes("known.test");
        Ask::new("known.test", A).tcp().send(agent.addr()).assert_encodes("known.test");
    }
    let grown = agent.rss().saturating_sub(before) / 1_024;
    assert!(grown < 4_096, "{grown} KiB more after the garbage");
    assert_eq!(upstream.seen().len(), 1, "garbage was forwarded:\n{}", upstream.history());
}

// T17: a burst of connections, most of them beyond the bound, leaves the service as it was.
#[test]
fn a_burst_of_connections_is_soon_forgotten() {
    let upstream = Upstream::new(encoded(300));
    let agent = Agent::start(&Config::new(&upstream));
    let source = fresh_address();
    for _ in 0..2_000 {
        drop(TcpClient::connect(agent.addr(), Some(source)));
    }
    let start = Instant::now();
    while Ask::new("after.test", A).tcp().from(source).within(millis(500)).try_send(agent.addr()).is_none() {
        assert!(start.elapsed() < seconds(2), "no service {:?} after the burst", start.elapsed());
    }
    ask(agent.addr(), "udp.test", A).assert_encodes("udp.test");
    assert!(agent.descriptors() < 1_200, "{} descriptors", agent.descriptors());
}
