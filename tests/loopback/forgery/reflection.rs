//! Packets that must not be answered: an answer would hit somebody who asked nothing, or start an endless exchange.

use std::net::{SocketAddr, SocketAddrV4};

use crate::raw::{Packet, Sniffer, send_as};
use crate::support::agent::Agent;
use crate::support::client::{Ask, ask, receive_datagram, udp_socket};
use crate::support::config::Config;
use crate::support::fresh_address;
use crate::support::millis;
use crate::support::octets::{A, FORMERR, QR, RA};
use crate::support::upstream::{Upstream, encoded};

fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(_) => unreachable!("fresh addresses are IPv4"),
    }
}

// P10 (MC19): answers, and errors even more so, are not answered.
#[test]
fn an_answer_is_not_answered() {
    let upstream = Upstream::new(encoded(300));
    let agent = Agent::start(&Config::new(&upstream));
    ask(agent.addr(), "known.test", A).assert_encodes("known.test");
    let before = upstream.seen().len();
    let socket = udp_socket(agent.addr(), None);
    for name in ["known.test", "unknown.test"] {
        for flags in [QR, QR | RA, QR | FORMERR, QR | 5, QR | 0x7800] {
            socket.send(&Ask::new(name, A).flag(flags).octets()).expect("loopback takes it");
            socket.send(&Ask::new(name, A).plain().flag(flags).octets()).expect("loopback takes it");
            // Only the header, as servers send FORMERR.
            let header = [[0, 1, 0x80, 0x81].as_slice(), &[0; 8]].concat();
            socket.send(&header).expect("loopback takes it");
        }
    }
    // The same socket's queries arrive in order, so this one's answer comes after any answer to those before it.
    let last = Ask::new("known.test", A).id(4_711);
    socket.send(&last.octets()).expect("loopback takes it");
    let first = receive_datagram(&socket, millis(3_000)).expect("queries are still answered");
    assert_eq!(first[..2], 4_711_u16.to_be_bytes(), "an answer was answered: {first:02x?}");
    assert_eq!(receive_datagram(&socket, millis(300)), None);
    assert_eq!(upstream.seen().len(), before, "{}", upstream.history());
}

// P10: a query that claims to come from the agent itself, or from a port where a chatty service lives.
#[test]
fn queries_from_impossible_sources_are_not_answered() {
    let upstream = Upstream::new(encoded(300));
    let agent = Agent::start(&Config::new(&upstream));
    ask(agent.addr(), "known.test", A).assert_encodes("known.test");
    let Some(sniffer) = Sniffer::udp() else { return };
    let target = v4(agent.addr());
    let victim = v4(SocketAddr::new(fresh_address(), 0));
    let mut sources = vec![target];
    sources.extend([0, 7, 13, 17, 19].map(|port| SocketAddrV4::new(*victim.ip(), port)));
    for source in &sources {
        for name in ["known.test", "unknown.test"] {
            let query = Ask::new(name, A).id(666).octets();
            if !send_as(*source, target, &query) {
                return;
            }
            // A broken one must not draw a FORMERR either.
            assert!(send_as(*source, target, &query[..query.len() - 3]));
        }
    }
    // An ordinary source is answered: the packets above do arrive, and the sniffer sees what is sent.
    let ordinary = SocketAddrV4::new(*victim.ip(), 4_053);
    assert!(send_as(ordinary, target, &Ask::new("known.test", A).id(667).octets()));

    // What claims to come from the agent is told from what does by QR.
    let is_answer =
        |packet: &Packet| packet.source == agent.addr() && packet.payload.get(2).is_some_and(|it| it & 0x80 != 0);
    let sent = sniffer.collect(millis(800), usize::MAX, is_answer);
    assert!(sent.iter().any(|packet| packet.target == SocketAddr::V4(ordinary)), "the sniffer is blind: {sent:?}");
    let forged: Vec<_> = sent.iter().filter(|packet| sources.contains(&v4(packet.target))).collect();
    assert!(forged.is_empty(), "answers to {forged:?}");
    assert_eq!(upstream.count_of("unknown.test", A), 0, "{}", upstream.history());
    ask(agent.addr(), "after.test", A).assert_encodes("after.test");
}
