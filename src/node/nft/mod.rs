//! `nf_tables` over netlink: the rules that lease us into the path of the node's DNS.
//!
//! The promise: what is written is written in one transaction or not at all; every step is acknowledged by the kernel, and
//! a refusal says which step it was. Only our own tables are touched, and in `ip filter` only rules with our comment. No
//! other program is started, no xtables lock is taken.
//!
//! ```text
//! Rules ─► Ruleset ─► repair(&Found) ─► Batch ─► Nft::commit ─► kernel
//!                         ▲    lease() ───┘          │
//!                       Found ◄──── Nft::observe ◄───┘        Events::changed: somebody else was at it
//! ```
//!
//! Tables of ours: `inet nodens` and `arp nodens` outlive the process; `inet nodens_host` belongs to the socket inside
//! [`Nft`] and goes with it. So the holder of an `Nft` must die, or withdraw, when the listeners die.
//!
//! Read first: nft(8), Linux `include/uapi/linux/netfilter/nf_tables.h`, `nfnetlink.h`.

use std::fmt;
use std::io;

mod attributes;
mod batch;
mod events;
mod expression;
mod fallback;
mod features;
mod filter;
mod found;
mod guard;
#[cfg(test)]
mod kernel_tests;
mod lease;
mod ruleset;
mod service;
mod socket;
mod table;
mod tracked;

pub use batch::Batch;
pub use events::{Change, Events};
pub use features::Feature;
pub use filter::{accept_in_filter, filter_drops, remove_from_filter};
pub use found::{Element, Found, FoundChain, FoundRule, FoundSet, FoundTable};
pub use lease::{Renewal, lease, withdraw};
pub use ruleset::{Rules, Ruleset, remove_everything};
pub use service::service;
pub use socket::Nft;
pub use tracked::Flow;

/// The table that outlives us: pods, replies, fallback, guard.
pub const PODS: &str = "nodens";
/// The table that dies with us: what the host itself sends.
pub const HOST: &str = "nodens_host";
/// The set of IPv4 addresses under lease, in both tables.
pub const LEASED4: &str = "leased4";
/// The set of IPv6 addresses under lease, in both tables.
pub const LEASED6: &str = "leased6";

/// The set of IPv4 connections whose first segment was let through to us, in both tables.
pub const FLOWS4: &str = "flows4";
/// The set of IPv6 connections whose first segment was let through to us, in both tables.
pub const FLOWS6: &str = "flows6";

/// Address family of a table (`NFPROTO_*`).
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4 alone.
    Ip,
    /// ARP.
    Arp,
    /// IPv6 alone.
    Ip6,
}

impl Family {
    /// The kernel's number.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Arp => 3,
            Self::Ip6 => 10,
        }
    }

    /// The family of a kernel's number; `None`: bridge, netdev and others that do not concern us.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        [Self::Inet, Self::Ip, Self::Arp, Self::Ip6].into_iter().find(|family| family.number() == number)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Arp => "arp",
            Self::Ip6 => "ip6",
        })
    }
}

/// What the kernel refused, and why. Nothing of the batch was done, but for `ENOBUFS` and `TimedOut`: there the outcome is
/// unknown, observe.
#[derive(Debug)]
pub struct NftError {
    /// What was being done, such as `add chain inet nodens prerouting`.
    pub step: String,
    /// The kernel's reason.
    pub source: io::Error,
}

impl fmt::Display for NftError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "nftables: {}: {}", self.step, self.source)
    }
}

impl std::error::Error for NftError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
