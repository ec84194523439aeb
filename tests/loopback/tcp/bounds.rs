//! How long connections may stay and how many there may be.

use std::net::IpAddr;
use std::time::Instant;

use crate::support::agent::Agent;
use crate::support::client::{Ask, TcpClient, ask};
use crate::support::config::Config;
use crate::support::octets::A;
use crate::support::upstream::{Upstream, encoded, silent};
use crate::support::{LIMIT, fresh_address, millis, seconds, until};

/// Asks on an open connection; whether an answer came.
fn asks(connection: &mut TcpClient, name: &str) -> bool {
    let ask = Ask::new(name, A);
    connection.send(&ask.octets());
    connection
        .receive(seconds(3))
        .inspect(|octets| {
            ask.read(octets.clone(), Instant::now()).assert_encodes(name);
        })
        .is_some()
}

// T08: a connection without questions ends after ten seconds; one with questions stays.
#[test]
fn an_idle_connection_ends_and_a_used_one_stays() {
    let upstream = Upstream::new(encoded(300));
    let agent = Agent::start(&Config::new(&upstream));
    let (mut idle, mut used) = (TcpClient::connect(agent.addr(), None), TcpClient::connect(agent.addr(), None));
    assert!(asks(&mut used, "used.test") && asks(&mut idle, "idle.test"));
    let start = Instant::now();
    for count in 1..=3 {
        until(start + seconds(3) * count);
        assert!(asks(&mut used, "used.test"), "the used connection ended before {:?}", start.elapsed());
    }
    assert!(!idle.ends_within(millis(10)), "the idle connection ended before {:?}", start.elapsed());
    assert!(idle.ends_within(seconds(2)), "the idle connection is still there after {:?}", start.elapsed());
    assert!(start.elapsed() <= seconds(11) + millis(300), "it ended after {:?}", start.elapsed());
    assert!(asks(&mut used, "used.test"), "the used connection ended with the idle one");
}

// T09 (MC57): who connects must say something within three seconds.
#[test]
fn a_silent_connection_ends_soon() {
    let upstream = Upstream::new(encoded(300));
    let agent = Agent::start(&Config::new(&upstream));
    let (mut mute, mut hesitant) = (TcpClient::connect(agent.addr(), None), TcpClient::connect(agent.addr(), None));
    let start = Instant::now();
    hesitant.send_raw(&[0]);
    for connection in [&mut mute, &mut hesitant] {
        assert!(connection.ends_within(seconds(5)), "still there after {:?}", start.elapsed());
        let after = start.elapsed();
        assert!((millis(2_500)..millis(4_500)).contains(&after), "ended after {after:?}");
    }
}

// T10: one client has its share of connections; others have theirs; a closed one makes room.
#[test]
fn a_client_has_its_share_of_connections() {
    const SHARE: usize = 8;
    let upstream = Upstream::new(encoded(300));
    let agent = Agent::start(&Config::new(&upstream).limits("tcp_connections_per_client: 8"));
    let [greedy, modest]: [IpAddr; 2] = std::array::from_fn(|_| fresh_address());
    let connect = || TcpClient::connect(agent.addr(), Some(greedy));
    let mut connections: Vec<TcpClient> = (0..SHARE).map(|_| connect()).collect();
    for connection in &mut connections {
        assert!(asks(connection, "share.test"));
    }

    // One more: either it is refused or the oldest idle one ends for it.
    let mut last = connect();
    let served = asks(&mut last, "share.test");
    connections.push(last);
    let open = connections.iter_mut().filter_map(|it| (!it.ends_within(millis(50))).then_some(())).count();
    assert_eq!(open, SHARE, "the one more was {}", if served { "served" } else { "refused" });
    assert!(asks(&mut TcpClient::connect(agent.addr(), Some(modest)), "share.test"), "another client has no share");
    Ask::new("share.test", A).from(greedy).send(agent.addr()).assert_encodes("share.test");

    connections.clear();
    // The agent learns of the ends by and by; a connection that is refused until then is tried again.
    let start = Instant::now();
    while !asks(&mut connect(), "share.test") {
        assert!(start.elapsed() < LIMIT, "closed connections still count");
    }
}

// T11: with all connections taken, idle ones make room for new ones, busy ones stay, and UDP does not notice.
#[test]
fn idle_connections_make_room_when_all_are_taken() {
    const TOTAL: usize = 20;
    let (upstream, mute) = (Upstream::new(encoded(300)), Upstream::new(silent));
    let config = Config::new(&upstream)
        .upstream("mute", &[mute.address()], "")
        .zone("mute.test", "{ upstream: mute }")
        .limits("tcp_connections: 20, tcp_connections_per_client: 10");
    let agent = Agent::start(&config);
    let connect = || TcpClient::connect(agent.addr(), Some(fresh_address()));

    // Half of the connections wait for an answer, half are idle.
    let mut busy: Vec<TcpClient> = (0..TOTAL / 2).map(|_| connect()).collect();
    for (number, connection) in busy.iter_mut().enumerate() {
        connection.send(&Ask::new(&format!("n{number}.mute.test"), A).octets());
    }
    let _ = mute.wait_for(busy.len());
    let mut idle: Vec<TcpClient> = (0..TOTAL / 2).map(|_| connect()).collect();
    assert!(idle.iter_mut().all(|connection| asks(connection, "idle.test")));

    let mut more: Vec<TcpClient> = (0..5).map(|_| connect()).collect();
    let served = more.iter_mut().filter_map(|connection| asks(connection, "more.test").then_some(())).count();
    assert_eq!(served, 5, "new connections are refused while idle ones stay");
    ask(agent.addr(), "udp.test", A).assert_encodes("udp.test");
    for connection in &mut busy {
        // The upstream is silent, so the answer is SERVFAIL, at the end of the time there is for it.
        assert!(connection.receive(seconds(5)).is_some(), "a connection with an open question was ended");
    }
    let left = idle.iter_mut().filter_map(|connection| (!connection.ends_within(millis(20))).then_some(())).count();
    assert!(left <= 5, "{left} of 10 idle connections are left beside 15 others; the bound is {TOTAL}");

    drop((busy, idle, more));
    let start = Instant::now();
    let mut again: Vec<TcpClient> = Vec::new();
    while again.len() < TOTAL {
        assert!(start.elapsed() < LIMIT, "{} connections after the others ended", again.len());
        let mut connection = connect();
        if asks(&mut connection, "again.test") {
            again.push(connection);
        }
    }
}
