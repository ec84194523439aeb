//! The whole rule set of the design, written by hand around a server of ours: what the agent's must be able to do.
//!
//! One thing differs from its sketch in interception.md: TCP segments follow the connection, not the lease. A SYN that
//! is let through to us is remembered, and the rest of its connection follows it, whoever has the lease by then.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::agent::LIMIT;
use crate::eye;
use crate::life::Clients;
use crate::stage::servers::Server;
use crate::stage::{CLUSTER_IPS, Flavour, OWN_IPS, Servers, Stage, endpoints_of};
use crate::stream::{Count, Load, Transport, for_a_while, wait_until};

fn all() -> Vec<IpAddr> {
    [CLUSTER_IPS, OWN_IPS].concat()
}

/// Both tables without the lease. `FAMILY`, `N`, `OURS` and `OWN` are filled in for each family.
const TABLES: &str = "
add set inet nodens leasedN { type ipvN_addr; flags timeout; }
add set inet nodens flowsN { type ipvN_addr . inet_service . ipvN_addr; flags dynamic, timeout; timeout 30s; size 65536; }
add chain inet nodens tcpN
add rule inet nodens prerouting FAMILY daddr @leasedN udp dport 53 socket wildcard 0 notrack
add rule inet nodens prerouting FAMILY daddr { OURS } tcp dport 53 jump tcpN
add rule inet nodens tcpN tcp flags & (syn | ack) != syn FAMILY saddr . tcp sport . FAMILY daddr @flowsN notrack update @flowsN { FAMILY saddr . tcp sport . FAMILY daddr } return
add rule inet nodens tcpN tcp flags & (syn | ack) != syn return
add rule inet nodens tcpN delete @flowsN { FAMILY saddr . tcp sport . FAMILY daddr }
add rule inet nodens tcpN FAMILY daddr @leasedN socket wildcard 0 add @flowsN { FAMILY saddr . tcp sport . FAMILY daddr } notrack
add rule inet nodens output FAMILY saddr { OURS } udp sport 53 notrack
add rule inet nodens output FAMILY saddr { OURS } tcp sport 53 notrack
add rule inet nodens nat_prerouting FAMILY daddr OWN udp dport 53 dnat FAMILY to numgen random mod 3 map { ENDPOINTS }
add rule inet nodens nat_prerouting FAMILY daddr OWN tcp dport 53 dnat FAMILY to numgen random mod 3 map { ENDPOINTS }
add rule inet nodens nat_output FAMILY daddr OWN udp dport 53 meta mark set meta mark or 0x20000000 dnat FAMILY to numgen random mod 3 map { ENDPOINTS }
add rule inet nodens nat_output FAMILY daddr OWN tcp dport 53 meta mark set meta mark or 0x20000000 dnat FAMILY to numgen random mod 3 map { ENDPOINTS }

add set inet nodens_host leasedN { type ipvN_addr; flags timeout; }
add set inet nodens_host flowsN { type ipvN_addr . inet_service . ipvN_addr; flags dynamic, timeout; timeout 30s; size 65536; }
add chain inet nodens_host tcpN
add rule inet nodens_host output FAMILY daddr @leasedN udp dport 53 notrack
add rule inet nodens_host output FAMILY daddr { OURS } tcp dport 53 jump tcpN
add rule inet nodens_host tcpN tcp flags & (syn | ack) != syn FAMILY saddr . tcp sport . FAMILY daddr @flowsN notrack update @flowsN { FAMILY saddr . tcp sport . FAMILY daddr } return
add rule inet nodens_host tcpN tcp flags & (syn | ack) != syn return
add rule inet nodens_host tcpN delete @flowsN { FAMILY saddr . tcp sport . FAMILY daddr }
add rule inet nodens_host tcpN FAMILY daddr @leasedN add @flowsN { FAMILY saddr . tcp sport . FAMILY daddr } notrack
";

fn rules() -> String {
    let mut out = String::from(
        "add table inet nodens
add chain inet nodens prerouting { type filter hook prerouting priority raw; }
add chain inet nodens output { type filter hook output priority raw; }
add chain inet nodens nat_prerouting { type nat hook prerouting priority dstnat - 1; }
add chain inet nodens nat_output { type nat hook output priority -101; }
add chain inet nodens nat_postrouting { type nat hook postrouting priority srcnat - 1; }
add rule inet nodens nat_postrouting meta mark & 0x20000000 == 0x20000000 masquerade
add table inet nodens_host
add chain inet nodens_host output { type filter hook output priority raw; }
",
    );
    for (cluster, own) in CLUSTER_IPS.into_iter().zip(OWN_IPS) {
        let endpoints: Vec<String> =
            endpoints_of(own).iter().enumerate().map(|(number, to)| format!("{number} : {}", to.ip())).collect();
        let (family, number) = if own.is_ipv4() { ("ip", "4") } else { ("ip6", "6") };
        let filled = TABLES
            .replace("FAMILY", family)
            .replace("OURS", &format!("{cluster}, {own}"))
            .replace("OWN", &own.to_string())
            .replace("ENDPOINTS", &endpoints.join(", "))
            .replace("flowsN", &format!("flows{number}"))
            .replace("leasedN", &format!("leased{number}"))
            .replace("tcpN", &format!("tcp{number}"))
            .replace("ipvN", &format!("ipv{number}"));
        out += &filled;
    }
    out
}

/// Puts all addresses on lease, or takes them off it, in one transaction.
fn switch(stage: &Stage, verb: &str) {
    let mut script = String::new();
    for (table, ip) in
        ["nodens", "nodens_host"].into_iter().flat_map(|table| all().into_iter().map(move |ip| (table, ip)))
    {
        let (set, life) =
            (if ip.is_ipv4() { "leased4" } else { "leased6" }, if verb == "add" { " timeout 60s" } else { "" });
        writeln!(script, "{verb} element inet {table} {set} {{ {ip}{life} }}").expect("strings take all");
    }
    stage.node.nft(&script);
}

#[test]
fn the_rules_switch_both_ways_without_loss() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    for ip in all() {
        stage.node.ip(&format!("address add {ip} dev lo{}", if ip.is_ipv6() { " nodad" } else { "" }));
    }
    let servers = all().into_iter().map(|ip| Server { listens: (ip, 53).into(), says: [10, 8, 8, 8].into() });
    let server = Servers::start(&stage.node, servers.collect());
    stage.node.nft(&rules());
    let start = Instant::now();
    let clients = Clients::start(&stage, &Load::to(&all()).rate(1_000, 200).tcp_pause(Duration::from_millis(20)));
    for_a_while(Duration::from_millis(300));
    let mut switches = Vec::new();
    for _ in 0..5 {
        let on = Instant::now();
        switch(&stage, "add");
        let was_on = Instant::now();
        for_a_while(Duration::from_millis(200));
        let off = Instant::now();
        switch(&stage, "delete");
        switches.push((on, was_on, off));
        for_a_while(Duration::from_millis(200));
    }
    let counts = clients.stop();
    for (_, count) in &counts {
        count.assert_nothing_failed(start);
        count.before(switches[0].0).assert_all_by_cluster();
        for (_, was_on, off) in &switches {
            count.between(*was_on, *off).assert_all_by_agent();
        }
    }
    let by_agent: usize = counts.iter().map(|(_, count)| count.agent().len()).sum();
    assert_eq!(server.asked(), u64::try_from(by_agent).expect("a count"));
}

#[test]
fn the_rules_leave_nothing_tracked() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    for ip in all() {
        stage.node.ip(&format!("address add {ip} dev lo{}", if ip.is_ipv6() { " nodad" } else { "" }));
    }
    let servers = all().into_iter().map(|ip| Server { listens: (ip, 53).into(), says: [10, 8, 8, 8].into() });
    let _servers = Servers::start(&stage.node, servers.collect());
    stage.node.nft(&rules());
    switch(&stage, "add");
    for client in [&stage.pods[0], &stage.node] {
        for transport in [Transport::Udp, Transport::Tcp] {
            Load::to(&all()).ask(client, transport, 200).assert_all_by_agent();
        }
    }
    assert_eq!(eye::tracked(&stage.node), [""; 0]);
}

/// How a stream from the node itself to an IPv6 address fares that is put on `lo`, as `put` does it, when it begins to be
/// intercepted.
fn when_the_address_appears(put: impl Fn(&Stage, IpAddr)) -> Option<Count> {
    let stage = Stage::build(Flavour::Nftables)?;
    let address = CLUSTER_IPS[1];
    // Freely bound, as the agent does: the address comes later.
    stage.node.sysctl("net/ipv6/ip_nonlocal_bind", "1");
    let server = Server { listens: (address, 53).into(), says: [10, 8, 8, 8].into() };
    let _server = Servers::start(&stage.node, vec![server]);
    stage.node.nft(&rules());
    let stream = Load::to(&[address]).rate(500, 0).start(&stage.node);
    for_a_while(Duration::from_millis(200));
    put(&stage, address);
    switch(&stage, "add");
    let on = Instant::now();
    for_a_while(Duration::from_millis(300));
    let count = stream.stop();
    println!("{count}");
    Some(count.since(on))
}

fn local_routes(stage: &Stage, address: IpAddr) -> usize {
    let all = stage.node.tool("ip", &["-6", "route", "show", "table", "local"], "");
    all.lines().filter(|route| route.contains(&address.to_string())).count()
}

/// A connected IPv6 socket keeps its route until a route above it changes in the same table (IPv4 looks again at every
/// new address). The local table is another one, so the host's packets, untracked by now, leave by the old route and are
/// lost.
#[test]
fn an_ipv6_address_alone_loses_the_hosts_connected_sockets() {
    let put = |stage: &Stage, address: IpAddr| {
        stage.node.ip(&format!("address add {address} dev lo nodad noprefixroute"));
        assert!(wait_until(LIMIT, || local_routes(stage, address) == 1).is_some());
    };
    let Some(count) = when_the_address_appears(put) else { return };
    let lost = count.failed();
    assert!(lost.all.iter().filter(|it| it.kept_port).count() >= 5, "the kernel does it by itself:\n{count}");
    assert_eq!(lost.len() + count.agent().len(), count.len(), "{count}");
}

/// A local route that comes before the address, and another in the main table that comes and goes: they look again, and
/// packets are local whatever they find. (The kernel acknowledges an address before its worker has put in its local route.)
#[test]
fn an_ipv6_address_that_comes_after_local_routes_keeps_the_hosts_connected_sockets() {
    let put = |stage: &Stage, address: IpAddr| {
        stage.node.ip(&format!(
            "route add local {address} dev lo table local
            route add local {address} dev lo table main
            address add {address} dev lo nodad noprefixroute"
        ));
        assert!(wait_until(LIMIT, || local_routes(stage, address) == 2).is_some());
        stage.node.ip(&format!(
            "route del local {address} dev lo table local metric 1024
            route del local {address} dev lo table main"
        ));
    };
    let Some(count) = when_the_address_appears(put) else { return };
    count.assert_all_by_agent();
}
