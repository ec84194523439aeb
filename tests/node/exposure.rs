//! Who reaches what through the agent's addresses: pods the DNS and the health port, the LAN nothing.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::agent::{Agent, Config, HEALTH_PORT};
use crate::eye;
use crate::stage::{CLUSTER_IPS, Flavour, LAN_HOST, NODE, Namespace, OWN_IPS, Stage};
use crate::stream::{Count, Fate, Load, Transport};

/// Ports of the node that are nobody's business: sshd, kubelet.
const PORTS: [u16; 3] = [22, 10_250, 10_255];

fn ours() -> Vec<IpAddr> {
    [CLUSTER_IPS, OWN_IPS].concat()
}

/// Makes the LAN host send what is for our addresses to the node.
fn route_ours_by_the_node(stage: &Stage) {
    for ip in ours() {
        let node = if ip.is_ipv4() { "192.168.77.10" } else { "fd00:77::10" };
        stage.lan.ip(&format!("route replace {ip} via {node}"));
    }
}

/// Makes the LAN host, on the node's own segment, send what is for our addresses to the node's link-layer address, without a
/// question to anybody and without a route over the node.
fn tell_the_lan_where_ours_are(stage: &Stage) {
    let links: serde_json::Value =
        serde_json::from_str(&stage.node.tool("ip", &["-j", "link", "show", "dev", "uplink0"], "")).expect("ip's JSON");
    let address = links[0]["address"].as_str().expect("a cable has one");
    for ip in ours() {
        stage.lan.ip(&format!("route replace {ip} dev br0\nneigh replace {ip} lladdr {address} dev br0"));
    }
}

fn ask_from(client: &Namespace) -> Count {
    let [mut udp, tcp] = [Transport::Udp, Transport::Tcp].map(|it| Load::to(&ours()).ask(client, it, 12));
    udp.all.extend(tcp.all);
    udp
}

/// X02
#[test]
fn the_lan_gets_nothing_by_a_route_over_the_node() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let _agent = Agent::start(&stage.node, &Config::new());
    route_ours_by_the_node(&stage);
    let count = ask_from(&stage.lan);
    // Silence: no answer, no ICMP, no RST.
    assert_eq!(count.only(|it| it.fate == Fate::Lost).len(), count.len(), "{count}");
    ask_from(&stage.pods[0]).assert_all_by_agent();
}

/// X02
#[test]
fn a_host_of_the_same_segment_gets_nothing_though_it_knows_where_we_are() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let mut agent = Agent::start(&stage.node, &Config::new());
    tell_the_lan_where_ours_are(&stage);
    let count = ask_from(&stage.lan);
    assert_eq!(count.only(|it| it.fate == Fate::Lost).len(), count.len(), "{count}");
    ask_from(&stage.pods[0]).assert_all_by_agent();
    agent.kill();
    let count = Load::to(&OWN_IPS).ask(&stage.lan, Transport::Udp, 8);
    assert_eq!(count.only(|it| it.fate == Fate::Lost).len(), count.len(), "{count}");
}

/// X02: the fallback is for pods and the node; it makes no open resolver of a node whose agent is dead.
#[test]
fn the_lan_gets_nothing_from_the_fallback_either() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let mut agent = Agent::start(&stage.node, &Config::new());
    agent.kill();
    route_ours_by_the_node(&stage);
    for transport in [Transport::Udp, Transport::Tcp] {
        let count = Load::to(&OWN_IPS).ask(&stage.lan, transport, 8);
        assert_eq!(count.only(|it| it.fate == Fate::Lost).len(), count.len(), "{count}");
        // Replies to the node itself come in over the uplink, for our addresses: they were asked for.
        for client in [&stage.pods[0], &stage.node] {
            Load::to(&OWN_IPS).ask(client, transport, 8).assert_all_by_cluster();
        }
    }
}

/// X02: nor a neighbour advertisement. IPv6 needs no rule for that: the kernel speaks for the addresses of the very link the
/// solicitation came in by, and ours are on another.
#[test]
fn the_lan_gets_no_arp_reply_for_our_addresses() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let _agent = Agent::start(&stage.node, &Config::new());
    // Counts what the node says of itself in IPv6: each address once for the LAN, our two among them if they were told.
    let own_v6: IpAddr = "fd00:77::10".parse().expect("an address");
    let counter = |ip: &IpAddr| match ip {
        IpAddr::V4(_) => String::new(),
        IpAddr::V6(it) => format!("icmpv6 type nd-neighbor-advert @th,64,128 {:#x} counter\n", u128::from(*it)),
    };
    let rules: String = ours().iter().chain([&own_v6]).map(counter).collect();
    stage.node.nft(&format!("table ip6 watch {{ chain c {{ type filter hook output priority 0\n{rules} }}; }}"));
    for ip in ours() {
        stage.lan.ip(&format!("route replace {ip} dev br0"));
    }
    let count = ask_from(&stage.lan);
    assert_eq!(count.failed().len(), count.len(), "{count}");
    Load::to(&[own_v6]).ask(&stage.lan, Transport::Udp, 1);
    let told = stage.node.tool("nft", &["list", "table", "ip6", "watch"], "");
    let told: Vec<bool> =
        told.lines().filter(|it| it.contains("packets")).map(|it| !it.contains("packets 0 ")).collect();
    assert_eq!(told, [false, false, true], "advertised: our two, the node's own");
    let neighbours = stage.lan.tool("ip", &["neigh", "show", "dev", "br0"], "");
    for ip in ours() {
        let known = neighbours.lines().find(|line| line.starts_with(&format!("{ip} ")) && line.contains("lladdr"));
        assert_eq!(known, None, "somebody told where {ip} is");
    }
    // Who asks for the node's own address is told.
    Load::to(&[NODE]).ask(&stage.lan, Transport::Udp, 1);
    let neighbours = stage.lan.tool("ip", &["neigh", "show", "dev", "br0"], "");
    assert!(
        neighbours.lines().any(|line| line.starts_with("192.168.77.10 ") && line.contains("lladdr")),
        "{neighbours}"
    );
}

/// The guard keeps to the uplinks: a pod that takes the node's addresses for neighbours of its own is told.
#[test]
fn a_pod_gets_an_arp_reply_for_our_addresses() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let _agent = Agent::start(&stage.node, &Config::new());
    let [ipv4, own] = [CLUSTER_IPS[0], OWN_IPS[0]];
    stage.pods[0].ip(&format!("route replace {ipv4} dev eth0\nroute replace {own} dev eth0"));
    for transport in [Transport::Udp, Transport::Tcp] {
        Load::to(&[ipv4, own]).ask(&stage.pods[0], transport, 8).assert_all_by_agent();
    }
    let neighbours = stage.pods[0].tool("ip", &["neigh", "show", "dev", "eth0"], "");
    for ip in [ipv4, own] {
        let known = neighbours.lines().any(|line| line.starts_with(&format!("{ip} ")) && line.contains("lladdr"));
        assert!(known, "{ip}: {neighbours}");
    }
}

/// X02, X04
#[test]
fn the_lan_is_served_where_the_configuration_names_it() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let allow = format!("limits: {{ allow: [\"{LAN_HOST}/32\", 10.244.0.0/16, \"fd00:244::/32\"] }}");
    let agent = Agent::start(&stage.node, &Config::new().more(&allow));
    route_ours_by_the_node(&stage);
    let count = ask_from(&stage.lan);
    let ipv4 = count.only(|it| it.address.is_ipv4());
    ipv4.assert_all_by_agent();
    let ipv6 = count.only(|it| it.address.is_ipv6());
    assert_eq!(ipv6.only(|it| it.fate == Fate::Lost).len(), ipv6.len(), "{ipv6}");
    ask_from(&stage.pods[0]).assert_all_by_agent();

    let allow = "limits: { allow: [\"fd00:77::99/128\"] }";
    drop(agent);
    let _agent = Agent::start(&stage.node, &Config::new().more(allow));
    let count = ask_from(&stage.lan);
    count.only(|it| it.address.is_ipv6()).assert_all_by_agent();
    let ipv4 = count.only(|it| it.address.is_ipv4());
    assert_eq!(ipv4.only(|it| it.fate == Fate::Lost).len(), ipv4.len(), "{ipv4}");
}

/// X03
#[test]
fn pods_reach_no_other_port_through_our_addresses() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let _agent = Agent::start(&stage.node, &Config::new());
    // Both families: the kernel's default for an IPv6 socket.
    let open = |port: &u16| TcpListener::bind(("::", *port)).expect("nobody else is in this namespace");
    let _open: Vec<TcpListener> = stage.node.run(|| PORTS.iter().map(open).collect());
    let connect = |to: SocketAddr| TcpStream::connect_timeout(&to, Duration::from_millis(700)).map(drop);
    for client in [&stage.pods[0], &stage.lan] {
        client.run(|| {
            for port in PORTS {
                connect((NODE, port).into()).expect("the node's own address is open");
            }
        });
    }
    let are_closed = |client: &Namespace| {
        client.run(|| {
            for (ip, port) in ours().into_iter().flat_map(|ip| PORTS.map(|port| (ip, port))) {
                let kind = connect((ip, port).into()).map_err(|error| error.kind());
                // kube-proxy has no rule for these ports: without the guard they are the node's own.
                assert_eq!(kind, Err(io::ErrorKind::TimedOut), "{ip} port {port}");
            }
        });
    };
    route_ours_by_the_node(&stage);
    for client in [&stage.pods[0], &stage.pods[1], &stage.lan] {
        are_closed(client);
    }
    tell_the_lan_where_ours_are(&stage);
    are_closed(&stage.lan);
    let health = SocketAddr::new(OWN_IPS[0], HEALTH_PORT);
    stage.pods[0].run(|| connect(health)).expect("the health port is let in");
    stage.node.run(|| connect(health)).expect("the kubelet asks from here");
    let from_lan = stage.lan.run(|| connect(health)).map_err(|error| error.kind());
    assert_eq!(from_lan, Err(io::ErrorKind::TimedOut));
}

/// A host that drops by policy gets accepts where its own rules are, and loses them again.
#[test]
fn a_host_that_drops_by_default_lets_dns_in() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    for tool in ["iptables-restore", "ip6tables-restore"] {
        let established =
            "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-A INPUT -p ipv6-icmp -j ACCEPT";
        let rules =
            if tool == "iptables-restore" { established.lines().next().expect("two lines") } else { established };
        let text =
            format!("*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n{rules}\nCOMMIT\n");
        stage.node.tool(tool, &["--noflush"], &text);
    }
    let before = eye::iptables(&stage.node);
    let mut agent = Agent::start(&stage.node, &Config::new());
    ask_from(&stage.pods[0]).assert_all_by_agent();
    let during = eye::iptables(&stage.node);
    let accepts = during.iter().filter(|line| line.contains(" filter ") && line.contains("-j ACCEPT")).count();
    println!("{during:#?}");
    assert!(accepts > before.iter().filter(|line| line.contains("-j ACCEPT")).count(), "{during:#?}");
    assert!(before.iter().all(|line| during.contains(line)), "somebody else's rule is gone: {during:#?}");
    agent.kill();
    agent = Agent::start(&stage.node, &Config::new());
    assert_eq!(eye::iptables(&stage.node), during, "a second start adds nothing");
    drop(agent);
    crate::modes::teardown(&stage);
    assert_eq!(eye::iptables(&stage.node), before);
}
