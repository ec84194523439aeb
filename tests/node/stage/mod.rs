//! The stage: a node with two pods, another node with the cluster's DNS, a LAN between and behind them.
//!
//! ```text
//!   pod1 10.244.1.2 ─ cali1 10.244.1.1 ┐                    ┌ br0 192.168.77.99 the LAN host, default gateway
//!                                      ├ node ─ uplink0 ─ br0
//!   pod2 10.244.2.2 ─ cali2 10.244.2.1 ┘ 192.168.77.10      └ eth0 192.168.77.20 other node: 10.244.9.{2,3,4}, .53
//! ```
//! The same in IPv6: `fd00:244:1::2`, `fd00:244:2::2`, `fd00:244:9::` with 2, 3, 4, 53, `fd00:77::` with 10, 20, 99.

pub mod kube_proxy;
pub mod namespace;
pub mod servers;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Condvar, Mutex, PoisonError};
use std::{env, io};

pub use kube_proxy::Flavour;
pub use namespace::Namespace;
pub use servers::Servers;

/// The kube-dns Service: kube-proxy's, unless the agent has them on lease.
pub const CLUSTER_IPS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0xa))];

/// Addresses nobody but the agent answers for.
pub const OWN_IPS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x169, 0x20, 0, 0, 0, 0, 0x10))];

/// The node's address on the LAN.
pub const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 77, 10));

/// The LAN host's address.
pub const LAN_HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 77, 99));

/// What the tests need beside rights.
const PROGRAMS: [&str; 6] = ["ip", "nft", "iptables-restore", "iptables-save", "conntrack", "setpriv"];

/// Stages that may stand at the same time: they share the machine's CPUs and its patience.
const AT_ONCE: usize = 2;

/// One set of namespaces, with everything but the agent running in it.
pub struct Stage {
    pub node: Namespace,
    pub pods: [Namespace; 2],
    pub lan: Namespace,
    /// Cluster DNS and the server for `up.test`, on the other node.
    pub servers: Servers,
    pub flavour: Flavour,
    /// Holds the other node.
    _other: Namespace,
    _turn: Turn,
}

// === impl Stage ===

impl Stage {
    /// Builds it. `None`, said aloud, without the rights or the tools; a panic where nothing may be skipped.
    pub fn build(flavour: Flavour) -> Option<Self> {
        let turn = Turn::wait();
        let reason = match Self::try_build(flavour, turn) {
            Ok(stage) => return Some(stage),
            Err(reason) => reason,
        };
        skip(&reason);
        None
    }

    fn try_build(flavour: Flavour, turn: Turn) -> Result<Self, String> {
        let missing: Vec<&str> = PROGRAMS.into_iter().filter(|name| !is_installed(name)).collect();
        if !missing.is_empty() {
            return Err(format!("{} missing", missing.join(", ")));
        }
        let make = |name| Namespace::new(name).map_err(|error: io::Error| format!("no network namespaces: {error}"));
        let (node, lan, other) = (make("node")?, make("LAN")?, make("other node")?);
        let pods = [make("pod 1")?, make("pod 2")?];
        for namespace in [&node, &other] {
            namespace.sysctl("net/ipv4/ip_forward", "1");
            namespace.sysctl("net/ipv6/conf/all/forwarding", "1");
        }
        lan.ip("link add br0 type bridge
            address add 192.168.77.99/24 dev br0
            address add fd00:77::99/64 dev br0 nodad
            link set br0 up");
        plug(&lan, &node, "uplink0", "192.168.77.10/24", "fd00:77::10/64");
        plug(&lan, &other, "eth0", "192.168.77.20/24", "fd00:77::20/64");
        node.ip("route add default via 192.168.77.99
            route add default via fd00:77::99
            route add 10.244.9.0/24 via 192.168.77.20
            route add fd00:244:9::/64 via fd00:77::20");
        other.ip("route add default via 192.168.77.10
            route add default via fd00:77::10");
        let endpoints = CLUSTER_IPS.map(endpoints_of).concat().into_iter().map(|it| it.ip()).collect::<Vec<_>>();
        for ip in endpoints.iter().chain(&UP) {
            other.ip(&format!("address add {ip} dev lo{}", if ip.is_ipv6() { " nodad" } else { "" }));
        }
        for (pod, number) in pods.iter().zip(1..) {
            let peer = pod.path();
            node.ip(&format!(
                "link add cali{number} type veth peer name eth0 netns {}
                address add 10.244.{number}.1/24 dev cali{number}
                address add fd00:244:{number}::1/64 dev cali{number} nodad
                link set cali{number} up",
                peer.display()
            ));
            pod.ip(&format!(
                "address add 10.244.{number}.2/24 dev eth0
                address add fd00:244:{number}::2/64 dev eth0 nodad
                link set eth0 up
                route add default via 10.244.{number}.1
                route add default via fd00:244:{number}::1"
            ));
        }
        kube_proxy::write(&node, flavour);
        let servers = Servers::start(&other, servers::behind(&endpoints, &UP));
        Ok(Self { node, pods, lan, servers, flavour, _other: other, _turn: turn })
    }
}

/// Where `up.test` is served.
pub const UP: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 244, 9, 53)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x244, 9, 0, 0, 0, 0, 0x53))];

/// The cluster's DNS pods of the same family as `address`.
pub fn endpoints_of(address: IpAddr) -> Vec<SocketAddr> {
    let ip = |number| match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(10, 244, 9, number)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0xfd00, 0x244, 9, 0, 0, 0, 0, number.into())),
    };
    [2, 3, 4].map(|number| SocketAddr::new(ip(number), 53)).to_vec()
}

/// Where all pods of the same family as `address` are.
pub fn pod_network_of(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "10.244.0.0/16" } else { "fd00:244::/32" }
}

/// A cable from `host`'s `link` to the LAN's bridge.
fn plug(lan: &Namespace, host: &Namespace, link: &str, ipv4: &str, ipv6: &str) {
    lan.ip(&format!(
        "link add port-{link} type veth peer name {link} netns {}
        link set port-{link} master br0 up",
        host.path().display()
    ));
    host.ip(&format!(
        "address add {ipv4} dev {link}
        address add {ipv6} dev {link} nodad
        link set {link} up"
    ));
}

fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Says aloud that the calling test does nothing, and why.
pub fn skip(reason: &str) {
    assert!(env::var_os("NODENS_NO_SKIP").is_none_or(|it| it != "1"), "may not be skipped, but {reason}");
    eprintln!("SKIPPED: {reason}");
}

/// Whether the environment asks for the long form.
pub fn is_full() -> bool {
    env::var("NODENS_LOAD").is_ok_and(|it| it == "full")
}

// === impl Turn ===

/// The right to have a stage.
struct Turn(());

static FREE: Mutex<usize> = Mutex::new(AT_ONCE);
static RETURNED: Condvar = Condvar::new();

impl Turn {
    fn wait() -> Self {
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = RETURNED.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Self(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *FREE.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        RETURNED.notify_one();
    }
}
