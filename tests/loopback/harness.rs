//! The harness itself: a scripted upstream asked directly.

use std::net::SocketAddr;
use std::time::Instant;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};

use crate::support::agent::{Agent, Reload};
use crate::support::client::{Ask, TcpClient, ask};
use crate::support::config::Config;
use crate::support::octets::{self, A, AAAA, CNAME, NXDOMAIN, SERVFAIL, TXT};
use crate::support::upstream::{
    Act, Reply, Transport, Upstream, address_of, address6_of, delayed, encoded, failing, nxdomain, records, silent,
    truncating,
};
use crate::support::{fresh_address, millis};

#[test]
fn encoded_addresses_come_back_over_both_transports() {
    let upstream = Upstream::new(encoded(60));
    ask(upstream.address(), "a.test", A).assert_encodes("A.TEST.").assert_ttl_near(60);
    Ask::new("a.test", A).tcp().send(upstream.address()).assert_address(address_of("a.test"));
    assert_eq!(ask(upstream.address(), "a.test", AAAA).ipv6(), [address6_of("a.test")]);
    ask(upstream.address(), "a.test", TXT).assert_nodata();
    let seen = upstream.seen();
    assert_eq!(seen.iter().map(|it| it.transport).collect::<Vec<_>>(), {
        use Transport::{Tcp, Udp};
        [Udp, Tcp, Udp, Udp]
    });
    assert_eq!(upstream.count_of("a.test", A), 2);
}

#[test]
fn queries_equal_those_that_hickory_writes() {
    let ours = Ask::new("WwW.a.test", A).id(0x1234).dnssec_ok();
    let mut theirs = Message::new(0x1234, MessageType::Query, OpCode::Query);
    theirs.metadata.recursion_desired = true;
    theirs.add_query(Query::query(Name::from_ascii("WwW.a.test.").expect("a legal name"), RecordType::A));
    let mut edns = Edns::new();
    edns.set_max_payload(1232).set_dnssec_ok(true);
    theirs.set_edns(edns);
    assert_eq!(ours.octets(), theirs.to_vec().expect("a legal message"));
}

#[test]
fn escaped_names_survive_a_round_trip() {
    let wire = octets::name(r"a\.b.\000x.TEST");
    assert_eq!(wire, b"\x03a.b\x02\0x\x04TEST\0");
    assert_eq!(octets::text(&wire), r"a\046b.\000x.test");
}

#[test]
fn behaviours_do_as_they_say() {
    let upstream = Upstream::new(failing(SERVFAIL));
    let at = upstream.address();
    ask(at, "a.test", A).assert_rcode(SERVFAIL);
    upstream.set(|seen| nxdomain(seen).now());
    ask(at, "a.test", A).assert_rcode(NXDOMAIN).assert_ttl_near(60);
    upstream.set(silent);
    assert!(Ask::new("a.test", A).within(millis(50)).try_send(at).is_none());
    upstream.set(truncating(encoded(60)));
    assert!(ask(at, "a.test", A).has(octets::TC));
    Ask::new("a.test", A).tcp().send(at).assert_encodes("a.test");
    upstream.set(records(vec![octets::cname("a.test", 30, "b.test"), octets::a("b.test", 20, [192, 0, 2, 1])]));
    assert_eq!(ask(at, "a.test", CNAME).of_type(CNAME)[0].rdata, octets::name("b.test"));
    upstream.set(delayed(millis(100), encoded(60)));
    assert!(ask(at, "a.test", A).elapsed >= millis(100));
}

#[test]
fn a_delayed_reply_holds_up_no_other() {
    let upstream = Upstream::new(|seen| {
        let delay = if seen.name == "slow.test" { millis(300) } else { millis(0) };
        Reply::to(seen).after(delay)
    });
    let start = Instant::now();
    let slow = Ask::new("slow.test", A).sender(upstream.address());
    upstream.wait_for(1);
    let fast = ask(upstream.address(), "fast.test", A);
    let slow = slow.receive();
    assert!(fast.at < slow.at && slow.at.duration_since(start) >= millis(300));
}

#[test]
fn connections_end_as_scripted() {
    let upstream = Upstream::new(|_| vec![Act::Close { after: millis(0) }]);
    assert!(Ask::new("a.test", A).tcp().try_send(upstream.address()).is_none());
    upstream.set(|_| vec![Act::Reset { after: millis(20) }]);
    let mut client = TcpClient::connect(upstream.address(), None);
    client.send(&Ask::new("a.test", A).octets());
    let error = std::io::Read::read(&mut client.stream, &mut [0; 1]).expect_err("a RST is an error");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_stopped_upstream_refuses_and_starts_again() {
    let upstream = Upstream::new(encoded(60));
    let at = upstream.address();
    upstream.stop();
    assert!(Ask::new("a.test", A).try_send(at).is_none(), "ICMP comes at once, not after the limit");
    assert!(std::net::TcpStream::connect(at).is_err());
    upstream.start();
    ask(at, "a.test", A).assert_encodes("a.test");
    Ask::new("a.test", A).tcp().send(at).assert_encodes("a.test");
}

#[test]
fn udp_only_upstreams_refuse_tcp() {
    let upstream = Upstream::udp_only(encoded(60));
    assert!(std::net::TcpStream::connect(upstream.address()).is_err());
    ask(upstream.address(), "a.test", A).assert_encodes("a.test");
}

#[test]
fn addresses_are_handed_out_once() {
    let mut all: Vec<_> = (0..100).map(|_| fresh_address()).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 100);
    assert!(all.iter().all(std::net::IpAddr::is_loopback));
}

#[test]
fn configurations_are_written_as_the_manual_shows_them() {
    let server: SocketAddr = "127.9.9.9:5301".parse().expect("an address");
    let yaml = Config::with_servers(&[server], "protocol: tcp")
        .zone("corp.test", "{ answer: nxdomain }")
        .cache("max_ttl: 60s")
        .listen(&["127.9.9.8".parse().expect("an address")])
        .metrics()
        .yaml();
    let expected = r#"listen: { addresses: ["127.9.9.8"], port: 5300, workers: 2 }
upstreams:
  "main": { policy: sequential, servers: ["127.9.9.9:5301"], protocol: tcp }
zones:
  ".": { upstream: main }
  "corp.test": { answer: nxdomain }
http: { metrics: "127.9.9.8:5302" }
log: { level: info, format: text }
cache: { max_ttl: 60s }
"#;
    assert_eq!(yaml, expected);
}

#[test]
fn an_agent_reloads_refuses_nonsense_and_stops() {
    let upstream = Upstream::new(encoded(60));
    let config = Config::new(&upstream).metrics();
    let mut agent = Agent::start(&config);
    ask(agent.addr(), "a.test", A).assert_encodes("a.test");
    assert_eq!(agent.reload(&config.clone().zone("corp.test", "{ answer: nxdomain }")), Reload::Done);
    ask(agent.addr(), "a.corp.test", A).assert_rcode(NXDOMAIN);
    assert_eq!(agent.reload_yaml("zones: ["), Reload::Refused);
    ask(agent.addr(), "a.corp.test", A).assert_rcode(NXDOMAIN);
    ask(agent.addr(), "a.test", A).assert_encodes("a.test");
    assert_eq!(upstream.count_of("a.test", A), 1, "the cache outlives a reload");
    assert!(agent.rss() > 0 && agent.metric("nodens_queries_total", "") >= 4.0, "{}", agent.metrics());
    assert!(agent.stop().success(), "{}", agent.said());
}
