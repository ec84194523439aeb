//! What kube-proxy leaves in the kernel for the kube-dns Service: DNAT to one of three pods, masquerade for the node.
//!
//! Written after what kube-proxy 1.3x leaves in `iptables-save` and in `nft list ruleset`; only this one Service, both
//! families.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::{CLUSTER_IPS, Namespace, endpoints_of, pod_network_of};

/// The way kube-proxy writes its rules.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Flavour {
    Iptables,
    Nftables,
}

/// Puts the Service's rules into `node`, as a kube-proxy does when it starts.
pub fn write(node: &Namespace, flavour: Flavour) {
    match flavour {
        Flavour::Iptables => {
            for service in CLUSTER_IPS {
                let restore = if service.is_ipv4() { "iptables-restore" } else { "ip6tables-restore" };
                node.tool(restore, &["--noflush"], &iptables(service));
            }
        }
        Flavour::Nftables => node.nft(&CLUSTER_IPS.map(nftables).concat()),
    }
}

fn iptables(service: IpAddr) -> String {
    let pods = pod_network_of(service);
    let mut out = String::from(
        "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n\
         -A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING\n\
         -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n\
         -A KUBE-POSTROUTING -j MASQUERADE --random-fully\n",
    );
    for transport in ["udp", "tcp"] {
        let chain = format!("KUBE-SVC-{}", transport.to_uppercase());
        write!(
            out,
            ":{chain} - [0:0]\n\
             -A KUBE-SERVICES -d {service} -p {transport} --dport 53 -j {chain}\n\
             -A {chain} ! -s {pods} -d {service} -p {transport} --dport 53 -j KUBE-MARK-MASQ\n"
        )
        .expect("strings take all");
        let endpoints = endpoints_of(service);
        for (number, endpoint) in endpoints.iter().enumerate() {
            let pod = format!("KUBE-SEP-{}-{number}", transport.to_uppercase());
            let share = match endpoints.len() - number {
                1 => String::new(),
                left => format!("-m statistic --mode random --probability 0.{} ", 1000 / left),
            };
            write!(
                out,
                ":{pod} - [0:0]\n-A {chain} {share}-j {pod}\n\
                 -A {pod} -s {} -j KUBE-MARK-MASQ\n\
                 -A {pod} -p {transport} -j DNAT --to-destination {endpoint}\n",
                endpoint.ip()
            )
            .expect("strings take all");
        }
    }
    out + "COMMIT\n"
}

fn nftables(service: IpAddr) -> String {
    let (family, pods) = (if service.is_ipv4() { "ip" } else { "ip6" }, pod_network_of(service));
    let targets: Vec<String> =
        endpoints_of(service).iter().enumerate().map(|(n, to)| format!("{n} : {} . {}", to.ip(), to.port())).collect();
    let dnat = |transport: &str| {
        format!(
            "chain service-{transport} {{\n\
             {family} daddr {service} {transport} dport 53 {family} saddr != {pods} jump mark-for-masquerade\n\
             meta l4proto {transport} dnat {family} to numgen random mod {} map {{ {} }}\n}}\n",
            targets.len(),
            targets.join(", ")
        )
    };
    format!(
        "table {family} kube-proxy {{\n\
         chain mark-for-masquerade {{\nmeta mark set meta mark or 0x4000\n}}\n\
         {}{}\
         map service-ips {{\ntype {}_addr . inet_proto . inet_service : verdict\n\
         elements = {{ {service} . tcp . 53 : goto service-tcp, {service} . udp . 53 : goto service-udp }}\n}}\n\
         chain services {{\n{family} daddr . meta l4proto . th dport vmap @service-ips\n}}\n\
         chain nat-prerouting {{\ntype nat hook prerouting priority dstnat\njump services\n}}\n\
         chain nat-output {{\ntype nat hook output priority -100\njump services\n}}\n\
         chain nat-postrouting {{\ntype nat hook postrouting priority srcnat\n\
         meta mark & 0x4000 == 0x4000 meta mark set meta mark ^ 0x4000 masquerade fully-random\n}}\n}}\n",
        dnat("udp"),
        dnat("tcp"),
        if service.is_ipv4() { "ipv4" } else { "ipv6" },
    )
}
