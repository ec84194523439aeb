//! What the kernel's connection tracking knows of our addresses: nothing, while the traffic is ours.
//!
//! Read first: Linux `include/uapi/linux/netfilter/nfnetlink_conntrack.h`.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::attributes::{each, find};

/// `NFNL_SUBSYS_CTNETLINK`, `IPCTNL_MSG_CT_GET`.
pub(super) const GET_TRACKED: u16 = 1 << 8 | 1;
/// There where the kernel tracks connections at all.
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// One tracked flow, as its first packet went.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Flow {
    /// `IPPROTO_*`.
    pub protocol: u8,
    pub from: SocketAddr,
    pub to: SocketAddr,
}

impl Flow {
    /// Reads the attributes of one entry; `None`: not a flow between ports.
    pub(super) fn of(body: &[u8]) -> Option<Self> {
        let tuple = find(body, 1)?;
        let (addresses, ports) = (find(tuple, 1)?, find(tuple, 2)?);
        let port = |kind| Some(u16::from_be_bytes(find(ports, kind)?.try_into().ok()?));
        let address = |v4, v6| {
            each(addresses).find_map(|(kind, value)| match kind {
                kind if kind == v4 => Some(IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?))),
                kind if kind == v6 => Some(IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?))),
                _ => None,
            })
        };
        Some(Self {
            protocol: *find(ports, 1)?.first()?,
            from: SocketAddr::new(address(1, 3)?, port(2)?),
            to: SocketAddr::new(address(2, 4)?, port(3)?),
        })
    }

    /// Whether one of its ends is one of `sockets`.
    pub fn concerns(&self, sockets: &[SocketAddr]) -> bool {
        sockets.contains(&self.from) || sockets.contains(&self.to)
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            6 => "tcp",
            17 => "udp",
            _ => "other",
        };
        write!(f, "{protocol} {} to {}", self.from, self.to)
    }
}

/// What an error of the dump comes to: no flows, where the kernel tracks nothing.
pub(super) fn unless_untracked(error: io::Error) -> io::Result<Vec<Flow>> {
    if Path::new(COUNT).exists() { Err(error) } else { Ok(Vec::new()) }
}
