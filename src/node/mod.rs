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
//! Read first: interception.md of the design; nft(8); netlink(7).

pub mod facts;
pub mod iptables;
pub mod link;
pub mod nft;
pub mod plane;
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
