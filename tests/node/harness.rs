//! The stage and the stream themselves, without the agent: cluster DNS alone, and rules put in by hand.

use std::net::IpAddr;
use std::time::Duration;

use crate::eye;
use crate::stage::servers::Server;
use crate::stage::{CLUSTER_IPS, Flavour, NODE, OWN_IPS, Servers, Stage};
use crate::stream::{Count, Fate, Load, Transport, for_a_while};

#[test]
fn cluster_dns_answers_everything_behind_kube_proxy_as_iptables() {
    cluster_dns_answers_everything(Flavour::Iptables);
}

#[test]
fn cluster_dns_answers_everything_behind_kube_proxy_as_nftables() {
    cluster_dns_answers_everything(Flavour::Nftables);
}

fn cluster_dns_answers_everything(flavour: Flavour) {
    let Some(stage) = Stage::build(flavour) else { return };
    let load = Load::to(&CLUSTER_IPS);
    let (pod, host) = (load.clone().start(&stage.pods[0]), load.start(&stage.node));
    for_a_while(Duration::from_secs(1));
    for count in [pod.stop(), host.stop()] {
        println!("{count}");
        assert!(count.len() > 1_000, "too few questions:\n{count}");
        count.assert_all_by_cluster();
        for endpoint in [2, 3, 4] {
            let share = count.only(|it| it.fate == Fate::Cluster(endpoint)).len();
            assert!(share * 5 > count.len(), "endpoint {endpoint} has answered {share} of {}", count.len());
        }
        assert!(CLUSTER_IPS.iter().all(|ip| !count.for_address(*ip).is_empty()));
        assert!([Transport::Tcp, Transport::Udp].iter().all(|it| !count.over(*it).is_empty()));
    }
    assert!(!eye::tracked(&stage.node).is_empty(), "what goes to cluster DNS is tracked");
}

#[test]
fn an_address_nobody_answers_for_loses_everything() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    stage.node.ip("address add 169.254.20.10 dev lo");
    let count = Load::to(&OWN_IPS[..1]).ask(&stage.pods[0], Transport::Udp, 50);
    assert_eq!((count.len(), count.failed().len()), (50, 50), "{count}");
    // The kernel tells some by ICMP; it limits how many.
    assert!(count.all.iter().any(|it| matches!(it.fate, Fate::Refused(_))), "{count}");
}

/// The switch, written by hand around a server of ours, back and forth under slow TCP clients.
fn switching(rules: &str) -> Option<Count> {
    let stage = Stage::build(Flavour::Nftables)?;
    let address = CLUSTER_IPS[0];
    stage.node.ip(&format!("address add {address} dev lo"));
    let agent = Server { listens: (address, 53).into(), says: [10, 8, 8, 8].into() };
    let agent = Servers::start(&stage.node, vec![agent]);
    stage.node.nft(rules);
    let stream = Load::to(&[address]).rate(1_000, 400).tcp_pause(Duration::from_millis(20)).start(&stage.pods[0]);
    for_a_while(Duration::from_millis(200));
    for _ in 0..5 {
        stage.node.nft("add element inet byhand leased4 { 10.96.0.10 timeout 60s }");
        for_a_while(Duration::from_millis(200));
        stage.node.nft("delete element inet byhand leased4 { 10.96.0.10 }");
        for_a_while(Duration::from_millis(200));
    }
    let count = stream.stop();
    println!("{count}");
    assert_eq!(agent.asked(), u64::try_from(count.agent().len()).expect("a count"));
    assert!(count.agent().len() > 100 && count.cluster().len() > 100, "{count}");
    Some(count)
}

/// A connection stays with whoever took its SYN: nothing is cut at either switch.
#[test]
fn a_stream_loses_nothing_where_connections_keep_their_server() {
    let Some(count) = switching(BY_FLOW) else { return };
    assert!(count.failed().is_empty(), "{count}");
}

/// Where every segment asks for the lease, connections in progress are cut at both switches; the stream sees it.
#[test]
fn a_stream_sees_connections_that_a_switch_cuts() {
    let Some(count) = switching(BY_LEASE) else { return };
    assert!(count.over(Transport::Udp).failed().is_empty(), "{count}");
    assert!(count.over(Transport::Tcp).failed().len() >= 10, "{count}");
}

const BY_LEASE: &str = "
table inet byhand {
  set leased4 { type ipv4_addr; flags timeout; }
  chain prerouting {
    type filter hook prerouting priority raw;
    ip daddr @leased4 udp dport 53 socket wildcard 0 notrack
    ip daddr @leased4 tcp dport 53 tcp flags & (syn | ack) == syn socket wildcard 0 notrack
    ip daddr @leased4 tcp dport 53 tcp flags & (syn | ack) != syn socket transparent 0 notrack
  }
  chain output {
    type filter hook output priority raw;
    ip saddr 10.96.0.10 udp sport 53 notrack
    ip saddr 10.96.0.10 tcp sport 53 notrack
  }
}
";

const BY_FLOW: &str = "
table inet byhand {
  set leased4 { type ipv4_addr; flags timeout; }
  set flows4 {
    type ipv4_addr . inet_service . ipv4_addr; flags dynamic, timeout; timeout 30s; size 65536;
  }
  chain prerouting {
    type filter hook prerouting priority raw;
    ip daddr @leased4 udp dport 53 socket wildcard 0 notrack
    ip daddr 10.96.0.10 tcp dport 53 jump tcp4
  }
  chain tcp4 {
    tcp flags & (syn | ack) == syn delete @flows4 { ip saddr . tcp sport . ip daddr }
    tcp flags & (syn | ack) == syn ip daddr @leased4 socket wildcard 0 add @flows4 { ip saddr . tcp sport . ip daddr } notrack
    tcp flags & (syn | ack) != syn ip saddr . tcp sport . ip daddr @flows4 notrack update @flows4 { ip saddr . tcp sport . ip daddr }
  }
  chain output {
    type filter hook output priority raw;
    ip saddr 10.96.0.10 udp sport 53 notrack
    ip saddr 10.96.0.10 tcp sport 53 notrack
  }
}
";

/// A stream counts what a server loses on purpose: the harness can fail.
#[test]
fn a_stream_notices_losses_and_refusals() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let drop = "table inet t { chain c { type filter hook prerouting priority raw;
        ip daddr 10.96.0.10 udp dport 53 numgen inc mod 10 == 0 counter drop; }; }";
    stage.node.nft(drop);
    let count = Load::to(&CLUSTER_IPS[..1]).ask(&stage.pods[0], Transport::Udp, 500);
    assert_eq!(count.only(|it| it.fate == Fate::Lost).len(), 50, "{count}");
    let closed: Count = Load::to(&[NODE]).ask(&stage.pods[0], Transport::Tcp, 20);
    assert_eq!(closed.only(|it| matches!(it.fate, Fate::Refused(_))).len(), 20, "{closed}");
}

#[test]
fn the_eye_sees_each_thing_that_appears_and_nothing_else() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let before = eye::Sight::of(&stage.node);
    let again = eye::Sight::of(&stage.node);
    before.assert_same(&again, "nothing happened");
    stage.node.ip("address add 10.96.0.10 dev lo");
    stage.node.nft(
        "table inet nodens { set leased4 { type ipv4_addr; flags timeout;
        elements = { 10.96.0.10 timeout 60s }; }; chain output { ip saddr 10.96.0.10 notrack; }; }",
    );
    let after = eye::Sight::of(&stage.node);
    let differences = before.differences(&after);
    // The address, the table, the set with its element, the chain, the rule.
    assert_eq!(differences.len(), 5, "{differences:#?}");
    assert_eq!(eye::our_tables(&stage.node), ["inet nodens"]);
    assert_eq!(eye::leased(&stage.node, "nodens"), [CLUSTER_IPS[0]]);
    assert_eq!(eye::our_addresses(&stage.node), [CLUSTER_IPS[0]]);
    assert!(eye::iptables(&stage.node).iter().any(|line| line.contains("KUBE-SVC-UDP")));
    // What packets put into a set is nobody's doing.
    stage.node.nft("add set inet nodens flows4 { type ipv4_addr; flags dynamic, timeout; timeout 60s; }");
    let with_set = eye::Sight::of(&stage.node);
    stage.node.nft("add element inet nodens flows4 { 10.244.1.2 }");
    with_set.assert_same(&eye::Sight::of(&stage.node), "a packet came");
    assert_eq!(after.differences(&with_set).len(), 1, "{with_set:?}");
    stage.node.ip("address del 10.96.0.10 dev lo");
    stage.node.nft("delete table inet nodens");
    before.assert_same(&eye::Sight::of(&stage.node), "all is gone");
}

/// The LAN host reaches the node, so that what it is refused elsewhere is refused by somebody.
#[test]
fn the_lan_host_reaches_the_node() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let reaches = |to: IpAddr| stage.lan.run(|| std::net::UdpSocket::bind("0.0.0.0:0")?.connect((to, 53)));
    reaches(NODE).expect("the node is on the LAN");
    let server = Server { listens: (NODE, 53).into(), says: [10, 8, 8, 8].into() };
    let _server = Servers::start(&stage.node, vec![server]);
    for transport in [Transport::Udp, Transport::Tcp] {
        Load::to(&[NODE]).ask(&stage.lan, transport, 10).assert_all_by_agent();
    }
}
