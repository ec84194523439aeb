//! How hard the port and the ID of the next question are to guess.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::thread;

use crate::support::agent::Agent;
use crate::support::client::{Ask, receive_datagram, udp_socket};
use crate::support::config::Config;
use crate::support::octets::A;
use crate::support::seconds;
use crate::support::upstream::{Upstream, encoded};

/// Names asked for; no name twice.
const NAMES: u16 = 20_000;
/// Askers, each with a socket of its own, so that all workers have work.
const ASKERS: u16 = 8;
/// Questions an asker has open at a time.
const OPEN: u16 = 20;

/// Chi-square with 255 degrees of freedom that good dice exceed once in a million runs.
///
/// The acceptance list says p > 0.001, which good dice miss once in a thousand runs; dice that are not good miss both.
const CHI_SQUARE: f64 = 377.0;

/// How far counts are from equal.
fn chi_square(values: impl Iterator<Item = u8>) -> f64 {
    let mut counts = [0_u32; 256];
    let mut total = 0_u32;
    for value in values {
        counts[usize::from(value)] += 1;
        total += 1;
    }
    let expected = f64::from(total) / 256.0;
    counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum()
}

/// Asks for this asker's share of the names.
fn ask_share(agent: SocketAddr, asker: u16) {
    let socket = udp_socket(agent, None);
    let share = NAMES / ASKERS;
    for batch in 0..share / OPEN {
        for number in 0..OPEN {
            let name = format!("n{}.a{asker}.entropy.test", batch * OPEN + number);
            socket.send(&Ask::new(&name, A).id(number).octets()).expect("loopback takes it");
        }
        for _ in 0..OPEN {
            assert!(receive_datagram(&socket, seconds(6)).is_some(), "asker {asker} waits in vain in batch {batch}");
        }
    }
}

// P01: ports and IDs of 20,000 questions, from two workers.
#[test]
fn ports_and_ids_cannot_be_guessed() {
    let upstream = Upstream::new(encoded(300));
    let agent = Agent::start(&Config::new(&upstream));
    assert!(agent.config().yaml().contains("workers: 2"));
    thread::scope(|scope| {
        for asker in 0..ASKERS {
            let agent = agent.addr();
            scope.spawn(move || ask_share(agent, asker));
        }
    });

    let seen = upstream.seen();
    assert!(seen.len() >= usize::from(NAMES));
    for (half, shift) in [("high", 8), ("low", 0)] {
        let chi_square = chi_square(seen.iter().map(|seen| (seen.id >> shift) as u8));
        assert!(chi_square < CHI_SQUARE, "the {half} octet of the IDs is uneven: chi-square {chi_square:.0}");
    }

    let ports: Vec<u16> = seen.iter().map(|seen| seen.source.port()).collect();
    let distinct: HashSet<u16> = ports.iter().copied().collect();
    assert!(distinct.len() >= 4_096, "{} different ports", distinct.len());
    // At any time: each fifth of the questions uses most of what a pool of 4,096 would give them.
    for part in ports.chunks(ports.len() / 5) {
        let distinct: HashSet<&u16> = part.iter().collect();
        assert!(distinct.len() >= 2_200, "{} different ports for {} questions", distinct.len(), part.len());
    }
    // No counting: a port says nothing about the next one, nor an ID.
    let close = |one: u16, next: u16| one.abs_diff(next) <= 16;
    let steps = ports.windows(2).filter(|pair| close(pair[0], pair[1])).count();
    assert!(steps < ports.len() / 50, "{steps} times a port was next to the one before");
    let steps = seen.windows(2).filter(|pair| close(pair[0].id, pair[1].id)).count();
    assert!(steps < seen.len() / 50, "{steps} times an ID was next to the one before");
}
