//! Answers that others send in an upstream's name, and questions sent in a client's.
//!
//! Read first: RFC 5452 sections 4, 9 and 10.

mod entropy;
mod reflection;

use std::collections::HashSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use crate::crowd::{self, ask_all, assert_all_right};
use crate::raw::Sniffer;
use crate::support::agent::Agent;
use crate::support::client::{Ask, ask};
use crate::support::config::Config;
use crate::support::octets::{self, A, AAAA, CH, NOERROR, QR, TC};
use crate::support::upstream::{Act, Reply, Seen, Transport, Upstream, address_of, encoded, encoded_reply};
use crate::support::{fresh_address, millis, seconds};

/// The address that lies carry.
const LIE: Ipv4Addr = Ipv4Addr::new(6, 6, 6, 6);

/// An answer that would do, but for the address.
fn lie_to(seen: &Seen) -> Reply {
    Reply::to(seen).answer(octets::a(&seen.name, 300, LIE))
}

/// The truth over both transports, later than any lie.
fn truth_later(seen: &Seen) -> Vec<Act> {
    encoded_reply(seen, 300).after(millis(if seen.transport == Transport::Udp { 20 } else { 0 }))
}

// P02: right ID and question, but from another address or another port.
#[test]
fn answers_from_elsewhere_are_ignored() {
    let server = SocketAddr::new(fresh_address(), crate::support::upstream::PORT);
    let other_port = UdpSocket::bind((server.ip(), 0)).expect("an ephemeral port is free");
    let other_address = UdpSocket::bind((fresh_address(), server.port())).expect("the address is ours alone");
    let upstream = Upstream::at(server, true, move |seen| {
        if seen.transport == Transport::Udp {
            for forger in [&other_port, &other_address] {
                // An error is the kernel's word that nobody takes datagrams from there.
                let _ = forger.send_to(&lie_to(seen).octets(), seen.source);
            }
        }
        truth_later(seen)
    });
    let agent = Agent::start(&Config::new(&upstream));
    for name in crowd::names("elsewhere.test", 20) {
        ask(agent.addr(), &name, A).assert_encodes(&name);
        ask(agent.addr(), &name, A).assert_encodes(&name);
    }
    // Not one of them had to be asked over TCP: a datagram from elsewhere is not even a near miss.
    assert!(upstream.seen().iter().all(|seen| seen.transport == Transport::Udp), "{}", upstream.history());
}

// P02: the sockets are connected, so the kernel throws away what comes from elsewhere.
#[test]
fn upstream_sockets_are_connected() {
    let upstream = Upstream::new(crate::support::upstream::silent);
    let agent = Agent::start(&Config::new(&upstream));
    let _pending = Ask::new("open.test", A).sender(agent.addr());
    let ports: HashSet<u16> = upstream.wait_for(1).iter().map(|seen| seen.source.port()).collect();

    // /proc/net/udp: local and remote address in hexadecimal, the address in host order.
    let table = fs::read_to_string("/proc/net/udp").expect("Linux has it");
    let SocketAddr::V4(server) = upstream.address() else { unreachable!("fresh addresses are IPv4") };
    let remote = format!("{:08X}:{:04X}", u32::from_ne_bytes(server.ip().octets()), server.port());
    let connected: HashSet<u16> = table
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let local = fields.get(1)?.rsplit(':').next()?;
            (*fields.get(2)? == remote).then(|| u16::from_str_radix(local, 16).ok())?
        })
        .collect();

    assert!(ports.is_subset(&connected), "asked from {ports:?}, connected are {connected:?}");
}

/// One answer with a wrong ID over UDP, then nothing; the truth over TCP.
fn near_miss(seen: &Seen) -> Vec<Act> {
    match seen.transport {
        Transport::Udp => Reply { id: seen.id ^ 0x5555, ..lie_to(seen) }.now(),
        Transport::Tcp => encoded_reply(seen, 300).now(),
    }
}

// P03: the first near miss sends the question to TCP, at once.
#[test]
fn a_near_miss_moves_the_question_to_tcp() {
    let upstream = Upstream::new(near_miss);
    let agent = Agent::start(&Config::new(&upstream).metrics().listen(&[fresh_address()]));
    let names = crowd::names("miss.test", 5);
    for name in &names {
        let answer = ask(agent.addr(), name, A);
        answer.assert_encodes(name);
        assert!(answer.elapsed < millis(300), "TCP was asked only after {:?}", answer.elapsed);
    }
    let over_udp = upstream.seen().iter().filter(|seen| seen.transport == Transport::Udp).count();
    assert_eq!(over_udp, names.len(), "one datagram a question\n{}", upstream.history());
    assert!(near_misses(&agent) >= 5.0, "no metric counts near misses:\n{}", agent.metrics());
}

/// The sum of all metrics that speak of near misses.
fn near_misses(agent: &Agent) -> f64 {
    let metrics = agent.metrics();
    let samples = metrics.lines().filter(|line| !line.starts_with('#') && line.contains("near_miss"));
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// What is wrong with a lie.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Class,
    Id,
    Name,
    Opcode,
    Query,
    Type,
}

fn faulty(seen: &Seen, fault: Fault) -> Reply {
    let lie = lie_to(seen);
    let question = |name: &[u8], rtype: u16, class: u16| [name, &rtype.to_be_bytes(), &class.to_be_bytes()].concat();
    match fault {
        Fault::Class => Reply { question: question(&seen.qname, seen.rtype, CH), ..lie },
        Fault::Id => Reply { id: seen.id.wrapping_add(1), ..lie },
        Fault::Name => {
            let answers = vec![octets::a("victim.test", 300, LIE)];
            Reply { question: question(&octets::name("victim.test"), seen.rtype, octets::IN), answers, ..lie }
        }
        Fault::Opcode => lie.flag(4 << 11),
        Fault::Query => lie.without(QR),
        Fault::Type => {
            let answers = vec![octets::aaaa(&seen.name, 300, std::net::Ipv6Addr::from_bits(6))];
            Reply { question: question(&seen.qname, AAAA, octets::IN), answers, ..lie }
        }
    }
}

// P04 (MU05 to MU09): what does not match in every respect is ignored and cached under no name.
#[test]
fn answers_that_do_not_match_are_ignored_and_not_kept() {
    for fault in [Fault::Class, Fault::Id, Fault::Name, Fault::Opcode, Fault::Query, Fault::Type] {
        let upstream = Upstream::new(move |seen| match seen.transport {
            Transport::Udp if seen.is("asked.test", A) => [faulty(seen, fault).now(), truth_later(seen)].concat(),
            _ => encoded(300)(seen),
        });
        let agent = Agent::start(&Config::new(&upstream));

        for _ in 0..2 {
            assert_eq!(ask(agent.addr(), "asked.test", A).ipv4(), [address_of("asked.test")], "{fault:?}");
        }
        // Neither the name of the lie nor the other type has come into the cache.
        ask(agent.addr(), "victim.test", A).assert_encodes("victim.test");
        let other_type = ask(agent.addr(), "asked.test", AAAA);
        assert_eq!(other_type.ipv6(), [crate::support::upstream::address6_of("asked.test")], "{fault:?}");
        assert_eq!(upstream.count_of("victim.test", A), 1, "{fault:?}\n{}", upstream.history());
    }
}

/// How a server treats the letters of a question.
#[derive(Clone, Copy, Debug)]
enum Letters {
    Kept,
    Lowered,
    Mixed,
}

// P06: with letters of random case, a server that does not keep them is still of use.
#[test]
fn random_case_never_fails_for_good() {
    for letters in [Letters::Kept, Letters::Lowered, Letters::Mixed] {
        let upstream = Upstream::new(move |seen| {
            let mut reply = encoded_reply(seen, 300);
            let name = reply.question.len() - 4;
            for (at, octet) in reply.question[..name].iter_mut().enumerate() {
                match letters {
                    Letters::Kept => {}
                    Letters::Mixed if (at ^ seen.nth) & 1 == 0 => octet.make_ascii_uppercase(),
                    Letters::Lowered | Letters::Mixed => octet.make_ascii_lowercase(),
                }
            }
            reply.now()
        });
        let agent = Agent::start(&Config::with_servers(&[upstream.address()], "random_case: true"));
        for name in crowd::names("letters.case.test", 20) {
            let answer = ask(agent.addr(), &name, A);
            assert_eq!((answer.rcode(), answer.ipv4()), (NOERROR, vec![address_of(&name)]), "{letters:?}: {answer:?}");
        }
        let upper = upstream.seen().iter().filter(|seen| seen.qname.iter().any(u8::is_ascii_uppercase)).count();
        assert!(upper > 0, "{letters:?}: no letter of {} questions is upper case", upstream.seen().len());
    }
}

// P08: whatever size a server offers, we ask for 1,232 octets at most, unfragmented, and take the rest over TCP.
#[test]
fn no_more_than_1232_octets_are_asked_for() {
    let Some(sniffer) = Sniffer::udp() else { return };
    // 200 addresses: 3.2 KiB, which a server that believes in 4,096 octets would send in one datagram.
    let addresses =
        |seen: &Seen| (0..200).map(|last| octets::a(&seen.name, 300, [192, 0, 2, last])).collect::<Vec<_>>();
    let upstream = Upstream::new(move |seen| {
        let mut reply = Reply::to(seen);
        if let Some(opt) = &mut reply.opt {
            opt.payload_size = 4_096;
        }
        let fits = seen.transport == Transport::Tcp || seen.opt().is_some_and(|opt| opt.payload_size >= 4_096);
        if fits { reply.answers(addresses(seen)).now() } else { reply.flag(TC).now() }
    });
    let agent = Agent::start(&Config::new(&upstream));
    for name in crowd::names("large.test", 3) {
        let answer = Ask::new(&name, A).tcp().send(agent.addr());
        assert_eq!(answer.ipv4().len(), 200);
    }

    for seen in upstream.seen() {
        let size = seen.opt().map(|opt| opt.payload_size);
        assert!(size.is_some_and(|size| size <= 1_232), "asked for {size:?} over {:?}", seen.transport);
    }
    let sent = sniffer.collect(millis(500), 3, |packet| packet.target == upstream.address());
    assert_eq!(sent.len(), 3, "{sent:?}");
    assert!(sent.iter().all(|packet| packet.dont_fragment && !packet.fragment), "{sent:?}");
}

// P11 (MU47, MU48): on one connection, answers come in another order, twice, and some to questions nobody asked.
#[test]
fn answers_on_a_connection_find_their_questions() {
    let upstream = Upstream::new(|seen| {
        let truth = encoded_reply(seen, 300);
        let unknown = Reply { id: seen.id.wrapping_add(0x4000), ..lie_to(seen) };
        // The first questions wait longest.
        let delay = millis(5 * (100 - seen.nth as u64 % 100));
        [unknown.after(delay), truth.after(delay), truth.after(delay), unknown.now()].concat()
    });
    let agent = Agent::start(&Config::with_servers(&[upstream.address()], "protocol: tcp"));

    assert_all_right(&ask_all(agent.addr(), crowd::names("order.test", 300), 100, seconds(5)));

    let sends = upstream.seen();
    assert!(sends.iter().all(|seen| seen.transport == Transport::Tcp));
    let connections: HashSet<SocketAddr> = sends.iter().map(|seen| seen.source).collect();
    assert!(connections.len() <= 8, "{} connections for 100 questions in flight", connections.len());
}
