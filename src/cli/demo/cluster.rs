//! A small cluster in network namespaces: two pods, a node, cluster DNS behind a Service; and the agent on the node.
//!
//! ```text
//!   pod 10.244.1.2 ──┐                                            ┌── cluster DNS 10.244.9.2, .3, .4
//!                    ├── node: DNAT for 10.96.0.10, as kube-proxy ┤
//!   pod 10.244.2.2 ──┘         has it, and the agent              └── Technitium  10.244.9.53
//! ```
//! Nothing of the host's own network is touched, and nothing is left behind: namespaces, links, tables and the agent go
//! with this process, however it ends.

mod agent;
mod cable;
mod interception;
mod namespace;
mod stream;

use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use nix::unistd::geteuid;

use super::names;
use super::server::Server;
use crate::node::nft::{self, Nft};
use cable::End;
use namespace::Namespace;

pub(super) use agent::leash;
pub(super) use interception::Interception;
pub(super) use stream::{BY_AGENT, BY_CLUSTER, Count, NAME};

/// The Service's address: kube-proxy's, unless the agent has it on lease.
pub(super) const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The address that nobody but the agent has.
pub(super) const OWN_IP: Ipv4Addr = Ipv4Addr::new(169, 254, 20, 10);
/// The endpoints of the Service.
const ENDPOINTS: [Ipv4Addr; 3] =
    [Ipv4Addr::new(10, 244, 9, 2), Ipv4Addr::new(10, 244, 9, 3), Ipv4Addr::new(10, 244, 9, 4)];
const TECHNITIUM: Ipv4Addr = Ipv4Addr::new(10, 244, 9, 53);
const PODS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 244, 1, 2), Ipv4Addr::new(10, 244, 2, 2)];
const DNS: u16 = 53;

/// The cluster. Dropped, it is gone.
pub(super) struct Cluster {
    pub(super) dns: Server,
    pub(super) technitium: Server,
    pods: [Namespace; 2],
    node: Namespace,
    /// Where both servers are.
    _servers: Namespace,
}

// === impl Cluster ===

impl Cluster {
    /// Builds it.
    ///
    /// # Errors
    /// Why it cannot be had here, in one line.
    pub(super) fn build() -> Result<Self, String> {
        let make = || Namespace::new().map_err(|error| refusal(&error));
        let (node, servers, pods) = (make()?, make()?, [make()?, make()?]);
        cable::raise_loopback(&node, &[])?;
        cable::raise_loopback(&servers, &[ENDPOINTS.as_slice(), &[TECHNITIUM]].concat())?;
        for (pod, (address, number)) in pods.iter().zip(PODS.into_iter().zip(1..)) {
            let (gateway, link) = (Ipv4Addr::new(10, 244, number, 1), format!("pod{number}"));
            let near = End { of: &node, link: &link, address: gateway };
            cable::lay(near, End { of: pod, link: "eth0", address })?;
        }
        let near = End { of: &node, link: "servers", address: Ipv4Addr::new(10, 244, 9, 1) };
        cable::lay(near, End { of: &servers, link: "eth1", address: Ipv4Addr::new(10, 244, 9, 254) })?;
        node.run(|| {
            // Of the namespace of the thread that writes.
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")
                .map_err(|error| format!("could not let the node forward: {error}"))?;
            proxy()
        })?;
        let start = |zones, addresses: &[Ipv4Addr]| {
            let addresses = at_dns_port(addresses);
            servers.run(move || Server::start_at(zones, &addresses)).map_err(|error| format!("no DNS server: {error}"))
        };
        let (dns, technitium) = (start(names::cluster_dns(), &ENDPOINTS)?, start(names::technitium(), &[TECHNITIUM])?);
        Ok(Self { dns, technitium, pods, node, _servers: servers })
    }

    /// Where the pods ask.
    pub(super) fn address() -> SocketAddr {
        SocketAddr::from((CLUSTER_IP, DNS))
    }

    /// What the agent on the node is told.
    pub(super) fn configuration() -> String {
        let (dns, technitium) = (at_dns_port(&ENDPOINTS), at_dns_port(&[TECHNITIUM])[0]);
        let mut yaml = super::configuration(&[CLUSTER_IP, OWN_IP], DNS, &dns, technitium);
        writeln!(yaml, "node: {{ interface: nodens, interception: nftables, lease: 3s, fallback: cluster }}")
            .expect("a String takes everything");
        // The pin that tells the agent's answers from the cluster DNS's.
        yaml.replace("zones:\n", &format!("zones:\n  {NAME}: {{ answer: [{BY_AGENT}] }}\n"))
    }

    /// What is where, in pairs for the screen.
    pub(super) fn plan() -> [(&'static str, String); 4] {
        let [first, second] = PODS;
        [
            ("pods", format!("{first}, {second}")),
            ("node", format!("Nodens {}, asked at {CLUSTER_IP} and {OWN_IP}", env!("CARGO_PKG_VERSION"))),
            ("cluster DNS", format!("{}, .3, .4     hickory-server, behind {CLUSTER_IP}", ENDPOINTS[0])),
            ("Technitium", format!("{TECHNITIUM}            hickory-server, a stand-in")),
        ]
    }

    /// Does `work` inside the first pod.
    pub(super) fn in_a_pod<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.pods[0].run(work)
    }
}

/// Why there are no namespaces, and what helps.
fn refusal(error: &io::Error) -> String {
    if geteuid().is_root() {
        format!("no network namespaces: {}", error.kind())
    } else {
        "it takes root, or: unshare -Ur nodens demo".to_owned()
    }
}

/// Puts into this namespace what kube-proxy has on a node.
fn proxy() -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("could not make a runtime: {error}"))?;
    runtime.block_on(async {
        let mut nft = Nft::open().map_err(|error| format!("no nf_tables: {error}"))?;
        let batch = nft::service(CLUSTER_IP.into(), DNS, &at_dns_port(&ENDPOINTS));
        nft.commit(&batch).await.map_err(|error| error.to_string())
    })
}

fn at_dns_port(addresses: &[Ipv4Addr]) -> Vec<SocketAddr> {
    addresses.iter().map(|address| SocketAddr::from((*address, DNS))).collect()
}
