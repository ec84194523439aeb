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
//! The release build on Linux 6.18, `NODENS_LOAD=full`: 5,000 questions per second in all, UDP and TCP, IPv4 and IPv6, from a
//! pod and from the node itself, counted to the last packet. The machine had two cores and a load average of 12 by other
//! work, the test ran before it (`nice -n -19`); times are worse than on a quiet one, counts are not.
//!
//! | event | lost | time |
//! |---|---|---|
//! | start | 0 in 2 starts | 133 to 151 ms from exec until everything is ours |
//! | SIGTERM | 0 in 2 ends, nor with connections whose question comes late | 1 ms until nothing new is |
//! | 20 restarts one after the other | 0 | |
//! | 100 reloads, every tenth of a wrong file | 0 | |
//! | SIGTERM at 200 moments of a reload | every exit in order | |
//! | SIGKILL 100 times, kube-proxy as iptables, as nftables | 43, 58 each from the pod as from the node | 29, 40 ms until the process is gone (median) |
//!
//! What a SIGKILL loses was sent before the process was gone: questions in its sockets' queues, and those that came while
//! the kernel had not closed them yet. Loss and time are the same thing: 2,500 questions per second and client. The kernel
//! closes last what was opened first; the netlink socket that owns the host's table is, since its end takes some 30 ms
//! ([`plane::Seat`]). The rest of the wait is the inotify of the configuration file, up to 15 ms.
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
