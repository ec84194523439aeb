//! Malformed queries, over UDP and TCP, and pieces of TCP streams.

use super::{Input, inputs};
use crate::support::agent::Agent;
use crate::support::client::{Ask, TcpClient, ask, frame, receive_datagram, udp_socket};
use crate::support::config::Config;
use crate::support::octets::{A, BADVERS, FORMERR, KEEPALIVE, Message, NOERROR, NOTIMP, QR, REFUSED, Z, read_name};
use crate::support::upstream::{Upstream, encoded};
use crate::support::{millis, seconds};

/// What an input must draw.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Draws {
    /// A normal answer.
    Answer,
    /// One of these errors, and no answer.
    Error(&'static [u16]),
    /// A normal answer, or FORMERR.
    Either,
    /// Nothing over UDP; over TCP nothing or the end of the connection.
    Nothing,
}

use Draws::{Answer, Either, Error, Nothing};

/// What to expect of a query, or `None` for inputs that are pieces of a TCP stream.
fn expected(input: &Input) -> Option<Draws> {
    let draws = match &input.id[..] {
        "MC01" | "MC02" | "MC19" => Nothing,
        "MC06" | "MC07" | "MC12" | "MC14" | "MC15" | "MC17" | "MC18" | "MC26" | "MC30" | "MC35" | "MC38" | "MC49b"
        | "MC50" => Error(&[FORMERR]),
        "MC16" | "MC23" | "MC33" | "MC34" | "MC36" | "MC42" | "MC53" => Answer,
        "MC21a" => Error(&[NOTIMP]),
        // MC43 is about TCP; over UDP the option is out of place whatever it holds.
        "MC25" | "MC40" | "MC41" | "MC43" | "MC52" => Either,
        "MC31" => Error(&[BADVERS]),
        "MC44" | "MC45" | "MC47" | "MC49a" | "MC49c" => Error(&[REFUSED, NOTIMP]),
        "MC55" | "MC57" | "MC60" => return None,
        _ => panic!("no row for {input:?}"),
    };
    Some(draws)
}

/// Checks a reply to the input; `None` is silence.
fn check(input: &Input, draws: Draws, reply: Option<Vec<u8>>, way: &str) {
    let told = format!("{} ({}) over {way}", input.id, input.what);
    let Some(octets) = reply else {
        assert_eq!(draws, Nothing, "{told} draws nothing");
        return;
    };
    assert_ne!(draws, Nothing, "{told} draws {octets:02x?}");
    let message =
        Message::read(&octets).unwrap_or_else(|e| panic!("{told} draws a malformed reply, {e}: {octets:02x?}"));
    assert_eq!(octets[..2], input.octets[..2], "the ID of {told}");
    assert!(message.has(QR) && !message.has(Z), "{told}: {message:?}");
    assert_eq!(octets[2] & 0x78, input.octets[2] & 0x78, "the opcode of {told}");
    assert_eq!(message.trailing, 0, "{told}: {octets:02x?}");
    match message.rcode() {
        NOERROR => {
            assert!(matches!(draws, Answer | Either), "{told} is answered: {message:?}");
            assert_eq!(message.answers.len(), 1, "{told}: {message:?}");
            let (qname, end) = read_name(&input.octets, 12).expect("what is answered has a name");
            assert_eq!(message.question, [&qname[..], &input.octets[end..end + 4]].concat(), "{told}");
            for opt in &message.opts {
                let told = format!("{told} has OPT {opt:?}");
                assert!(opt.options.iter().all(|(code, _)| way == "TCP" && *code == KEEPALIVE), "{told}");
                assert_eq!((opt.version, opt.flags & 0x7fff), (0, 0), "{told}");
            }
            assert!(way == "TCP" || octets.len() <= 512, "{told} draws {} octets", octets.len());
        }
        rcode => {
            let allowed = match draws {
                Error(rcodes) => rcodes,
                Either => &[FORMERR],
                _ => &[],
            };
            assert!(allowed.contains(&rcode), "{told} draws {message:?}");
            assert!(message.answers.is_empty() && message.authorities.is_empty(), "{told} draws {message:?}");
            // No reply is larger than its request, OPT and its EDE aside, which answer an OPT.
            let opt: usize = message.opts.iter().map(|opt| opt.write().len()).sum();
            assert!(octets.len() - opt <= input.octets.len(), "{told} draws {} octets", octets.len());
        }
    }
}

/// Whether the agent answers as ever.
fn assert_well(agent: &Agent, after: &Input) {
    let name = format!("well-after-{}.test", after.id);
    ask(agent.addr(), &name, A).assert_encodes(&name);
}

/// What reached the upstream must be ordinary: one question, no options, nothing behind.
fn assert_nothing_odd_was_forwarded(upstream: &Upstream) {
    for seen in upstream.seen() {
        assert_eq!(seen.message.counts, [1, 0, 0, 1], "{seen:?}");
        assert_eq!(seen.message.trailing, 0, "{seen:?}");
        assert!(seen.opt().is_some_and(|opt| opt.options.is_empty() && opt.version == 0), "{seen:?}");
        assert_eq!((seen.class, seen.flags & 0x7800), (1, 0), "{seen:?}");
        assert!(!matches!(seen.rtype, 249..=252), "{seen:?}");
    }
}

// MC01 to MC53, E15, P10: every malformed query over UDP.
#[test]
fn malformed_queries_over_udp_draw_what_they_should() {
    let upstream = Upstream::new(encoded(300));
    let agent = Agent::start(&Config::new(&upstream));
    for input in inputs("MC") {
        let Some(draws) = expected(&input) else { continue };
        let socket = udp_socket(agent.addr(), None);
        socket.send(&input.octets).expect("loopback takes it");
        // A question on the same socket is answered after whatever the input draws.
        let last = Ask::new("last.test", A).id(0x4321);
        let reply = if draws == Nothing {
            socket.send(&last.octets()).expect("loopback takes it");
            let first = receive_datagram(&socket, seconds(6)).expect("the question is answered");
            Some(first).filter(|first| first[..2] != last.id.to_be_bytes())
        } else {
            receive_datagram(&socket, seconds(6))
        };
        check(&input, draws, reply, "UDP");
        assert_well(&agent, &input);
    }
    assert_nothing_odd_was_forwarded(&upstream);
    assert!(!agent.said().contains('\u{1b}'), "a name reaches the log with its ESC");
}

// MC01 to MC53, T13: every malformed query over TCP; an error may also end the connection.
#[test]
fn malformed_queries_over_tcp_draw_what_they_should() {
    let upstream = Upstream::new(encoded(300));
    let agent = Agent::start(&Config::new(&upstream));
    for input in inputs("MC") {
        let Some(draws) = expected(&input) else { continue };
        let mut connection = TcpClient::connect(agent.addr(), None);
        connection.send(&input.octets);
        let reply = if draws == Nothing {
            let last = Ask::new("last.test", A).id(0x4321);
            connection.send(&last.octets());
            connection.receive(seconds(6)).filter(|first| first[..2] != last.id.to_be_bytes())
        } else {
            connection.receive(seconds(6))
        };
        let may_end = matches!(draws, Error(_) | Either | Nothing);
        if !(reply.is_none() && may_end) {
            check(&input, draws, reply, "TCP");
        }
        assert_well(&agent, &input);
    }
    assert_nothing_odd_was_forwarded(&upstream);
}

// MC43, E17 (RFC 7828 section 3.2.2): a value in a client's keepalive is an error over TCP.
#[test]
fn a_keepalive_with_a_value_is_an_error_over_tcp() {
    let upstream = Upstream::new(encoded(300));
    let agent = Agent::start(&Config::new(&upstream));
    let input = inputs("MC43").pop();
    let input = input.expect("the collection has MC43");
    let mut connection = TcpClient::connect(agent.addr(), None);
    connection.send(&input.octets);
    let reply = connection.receive(seconds(6)).expect("FORMERR comes before any end");
    check(&input, Error(&[FORMERR]), Some(reply), "TCP");
}

// MC55, MC57, MC60: odd beginnings of a TCP stream.
#[test]
fn odd_streams_end_or_are_answered() {
    let upstream = Upstream::new(encoded(300));
    let agent = Agent::start(&Config::new(&upstream));
    for input in inputs("MC").into_iter().filter(|input| expected(input).is_none()) {
        let mut connection = TcpClient::connect(agent.addr(), None);
        connection.send_raw(&input.octets);
        match &input.id[..] {
            // Three seconds are the deadline for the first message.
            "MC55" | "MC57" => assert!(connection.ends_within(millis(4_500)), "{} keeps its connection", input.id),
            _ => {
                let body = Input { octets: input.octets[2..].to_vec(), ..input.clone() };
                if let Some(reply) = connection.receive(seconds(6)) {
                    let rcode = Message::read(&reply).expect("a reply is a message").rcode();
                    assert!([NOERROR, FORMERR].contains(&rcode), "{} draws rcode {rcode}", body.id);
                    assert!(reply.len() < 600, "{} draws {} octets", body.id, reply.len());
                }
            }
        }
        assert_well(&agent, &input);
    }
    assert_nothing_odd_was_forwarded(&upstream);
}

// T02, T13: a malformed message does not take the others on its connection with it, unless it ends the connection.
#[test]
fn a_malformed_query_does_not_garble_the_next() {
    let upstream = Upstream::new(encoded(300));
    let agent = Agent::start(&Config::new(&upstream));
    for input in inputs("MC").iter().filter(|input| expected(input).is_some_and(|it| it != Nothing)) {
        let mut connection = TcpClient::connect(agent.addr(), None);
        let good = Ask::new("good.test", A).id(0x4321);
        connection.send_raw(&[frame(&input.octets), frame(&good.octets())].concat());
        let start = std::time::Instant::now();
        while let Some(octets) = connection.receive(seconds(6)) {
            if octets[..2] == good.id.to_be_bytes() {
                good.read(octets, start).assert_encodes("good.test");
                break;
            }
            assert_eq!(octets[..2], input.octets[..2], "{} draws {octets:02x?}", input.id);
        }
    }
}
