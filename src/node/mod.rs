//! The node plane: everything we put on the host, and the permission to be there.
//!
//! ```text
//! Desired, health ─► plane ─┬─► link           the addresses, with a lifetime
//!                           ├─► tables ─► nft  who answers: decided by the kernel, packet by packet
//!                           └─► iptables       where nf_tables is missing
//! Status ◄─────────────────┘
//! ```
//! Nothing else crosses: the plane knows no query, and no query knows the plane. The kernel lends us the traffic as long
//! as a socket is open and a lease is alive; whatever happens to this process, the next packet finds the cluster DNS.
//!
//! # Measured
//!
//! The release build on Linux 6.18, two cores, `NODENS_LOAD=full`: 5,000 questions per second in all, UDP and TCP, IPv4 and
//! IPv6, from a pod and from the node itself, counted to the last packet.
//!
//! | event | lost | time |
//! |---|---|---|
//! | start | 0 in 2 starts | 48 to 55 ms from exec until everything is ours |
//! | SIGTERM | 0 in 2 ends, nor with connections whose question comes late | 11 to 15 ms until nothing new is |
//! | 20 restarts one after the other | 0 | |
//! | 100 reloads, every tenth of a wrong file | 0 | |
//! | SIGTERM at 200 moments of a reload | every exit in order | |
//! | SIGKILL 100 times, kube-proxy as iptables, as nftables | 1.5, 1.7 per death from the pod; 28, 29 from the node itself | 24 ms until the process is gone (median) |
//!
//! What a SIGKILL loses was sent before the process was gone, at 2,500 questions per second and client. A pod's packets find
//! the cluster DNS as soon as the sockets are closed; the node's own when the host's table is gone, some 10 ms later. The
//! kernel closes last what has the lowest number, and takes up to 30 ms over the owner of a table: with the table first, a
//! pod lost 43 to 58 per death. So the plane's sockets lie below the listeners (`run`).
//!
//! Read first: interception.md of the design; nft(8); netlink(7).

pub mod facts;
pub mod iptables;
pub mod link;
pub mod nft;
pub mod plane;
pub mod status;
mod tables;

#[cfg(test)]
mod testing;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::plan::{Interception, Prefix};

/// What shall be on the host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Desired {
    /// Name of the link that carries the addresses.
    pub interface: String,
    /// Where we listen.
    pub addresses: Vec<IpAddr>,
    pub port: u16,
    /// Endpoints for the kubelet on our addresses.
    pub health: Vec<SocketAddr>,
    /// For each address that nobody else answers for: who shall, when we do not. Same family.
    pub fallback: Vec<(IpAddr, Vec<SocketAddr>)>,
    /// Sources that may come from outside the node.
    pub allow: Vec<Prefix>,
    pub lease: Duration,
    pub interception: Interception,
}
