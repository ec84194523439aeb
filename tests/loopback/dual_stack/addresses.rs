//! Many listen addresses, both families, one agent.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use crate::network::{in_a_network_of_its_own, ip};
use crate::peers::programs::skip;
use crate::support::agent::Agent;
use crate::support::client::{Ask, TcpClient, ask};
use crate::support::config::Config;
use crate::support::octets::A;
use crate::support::upstream::{Upstream, address_of, delayed, encoded, encoded_reply};
use crate::support::{fresh_address, millis, seconds, until};

/// Asks every address over UDP and TCP, from every source. The client's sockets are connected, so the kernel shows
/// them nothing but replies from the address and port they asked.
fn assert_served_at(agent: &Agent, addresses: &[IpAddr], sources: &[IpAddr]) {
    for address in addresses {
        let server = SocketAddr::new(*address, agent.addr().port());
        for source in sources.iter().filter(|source| source.is_ipv4() == address.is_ipv4()) {
            for round in 0..10 {
                let name = format!("n{round}.address.test");
                Ask::new(&name, A).from(*source).within(seconds(3)).send(server).assert_encodes(&name);
            }
            Ask::new("t.address.test", A).tcp().from(*source).send(server).assert_encodes("t.address.test");
        }
    }
}

// V12: replies leave from the address and port that were asked, whichever of many that was.
#[test]
fn replies_come_from_the_address_asked() {
    let upstream = Upstream::new(encoded(300));
    let addresses = [fresh_address(), fresh_address(), fresh_address()];
    let agent = Agent::start(&Config::new(&upstream).listen(&addresses));
    let sources = [IpAddr::from([127, 0, 0, 1]), fresh_address()];
    assert_served_at(&agent, &addresses, &sources);
    // The address asked may also be the one the client has.
    assert_served_at(&agent, &addresses, &addresses);
}

// V12: the addresses of a node: link-local, ClusterIP and IPv6, asked from each other and from the loopback.
#[test]
fn the_addresses_of_a_node_are_served_together() {
    in_a_network_of_its_own(|| {
        let addresses: Vec<IpAddr> = ["169.254.20.10", "10.96.0.10", "fd00:10:96::a"]
            .map(|address| address.parse().expect("an address"))
            .to_vec();
        ip("link add nodens-test type veth peer name peer");
        ip("link set nodens-test up");
        for address in &addresses {
            let (length, flag) = if address.is_ipv4() { (32, "") } else { (128, " nodad") };
            ip(&format!("address add {address}/{length} dev nodens-test{flag}"));
        }
        let upstream = Upstream::new(encoded(300));
        let agent = Agent::start(&Config::new(&upstream).listen(&addresses).port(53));
        let mut sources = addresses.clone();
        sources.extend([IpAddr::from([127, 0, 0, 1]), Ipv6Addr::LOCALHOST.into()]);
        assert_served_at(&agent, &addresses, &sources);
    });
}

/// An address on the IPv6 loopback with a port that is free.
fn on_ipv6() -> Option<SocketAddr> {
    let Ok(udp) = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)) else {
        skip("this machine has no IPv6");
        return None;
    };
    let address = udp.local_addr().expect("a bound socket has an address");
    TcpListener::bind(address).is_ok().then_some(address)
}

// V14 (C01, T01): with IPv6 alone, upstream and client side, ages and pipelining are the same.
#[test]
fn an_agent_lives_on_ipv6_alone() {
    let (Some(listen), Some(server)) = (on_ipv6(), on_ipv6()) else { return };
    let upstream = Upstream::at(server, true, |seen| {
        let slow = seen.name.starts_with("slow");
        encoded_reply(seen, 300).after(if slow { seconds(1) } else { millis(0) })
    });
    let agent = Agent::start(&Config::new(&upstream).listen(&[listen.ip()]).port(listen.port()));

    let first = ask(agent.addr(), "aging.test", A);
    first.assert_encodes("aging.test").assert_ttl_near(300);
    until(first.at + seconds(3));
    let second = ask(agent.addr(), "aging.test", A);
    second.assert_encodes("aging.test").assert_ttl_near(297);
    assert_eq!(upstream.count_of("aging.test", A), 1, "{}", upstream.history());

    let mut names = vec!["slow.pipe.test".to_owned()];
    names.extend((0..9).map(|number| format!("n{number}.pipe.test")));
    let questions: Vec<Ask> = names.iter().zip(100..).map(|(name, id)| Ask::new(name, A).id(id)).collect();
    let mut connection = TcpClient::connect(agent.addr(), None);
    let all: Vec<u8> = questions.iter().flat_map(|ask| crate::support::client::frame(&ask.octets())).collect();
    connection.send_raw(&all);
    let mut order = Vec::new();
    for _ in &questions {
        let octets = connection.receive(seconds(5)).expect("ten answers");
        let id = u16::from_be_bytes([octets[0], octets[1]]);
        let number = usize::from(id - 100);
        let answer = questions[number].read(octets, first.at);
        assert_eq!(answer.ipv4(), [address_of(&names[number])]);
        order.push(number);
    }
    assert_eq!(order.last(), Some(&0), "the slow answer comes last: {order:?}");
}

// V14: a dual-stack agent: clients and servers of both families, in any combination.
#[test]
fn families_of_clients_and_servers_mix() {
    let (Some(listen), Some(server)) = (on_ipv6(), on_ipv6()) else { return };
    let four = Upstream::new(delayed(millis(1), encoded(300)));
    let six = Upstream::at(server, true, encoded(300));
    let addresses = [fresh_address(), listen.ip()];
    let config = Config::new(&four).upstream("six", &[six.address()], "").zone("six.test", "{ upstream: six }");
    let _agent = Agent::start(&config.listen(&addresses).port(listen.port()));
    for address in addresses {
        let agent = SocketAddr::new(address, listen.port());
        let name = format!("a{}", if address.is_ipv4() { 4 } else { 6 });
        for zone in ["four.test", "six.test"] {
            let name = format!("{name}.{zone}");
            Ask::new(&name, A).send(agent).assert_encodes(&name);
            Ask::new(&name, A).tcp().send(agent).assert_encodes(&name);
        }
    }
    assert_eq!((four.count_of("a4.four.test", A), six.count_of("a6.six.test", A)), (1, 1));
}
