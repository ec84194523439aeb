//! Links and addresses as the kernel shows them.

use std::net::IpAddr;
use std::time::Duration;

use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};

use super::{ALIAS, message};

// === impl Link ===

/// A link as the kernel shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Link {
    pub name: String,
    pub index: u32,
    /// `None` for devices, the loopback among them.
    pub kind: Option<InfoKind>,
    pub loopback: bool,
    pub up: bool,
    /// Whether it is of our making.
    pub ours: bool,
    pub addresses: Vec<Held>,
    pub(super) alias: Option<String>,
}

impl Link {
    pub(super) fn of(message: &LinkMessage) -> Self {
        let mut link = Self {
            name: String::new(),
            index: message.header.index,
            kind: None,
            loopback: message.header.flags.contains(LinkFlags::Loopback),
            up: message.header.flags.contains(LinkFlags::Up),
            ours: false,
            addresses: Vec::new(),
            alias: None,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.iter().find_map(|it| match it {
                        LinkInfo::Kind(kind) => Some(kind.clone()),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        link.ours = link.alias.as_deref() == Some(ALIAS);
        link
    }

    /// Whether an address without a mark, but with our habits, is ours here.
    pub(super) fn may_hold_unmarked(&self) -> bool {
        self.ours || self.loopback
    }
}

// === impl Held ===

/// An address on a link.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Held {
    pub address: IpAddr,
    /// Whether we put it there, in this life or in an earlier one.
    pub ours: bool,
    /// What is left of its lifetime; `None` = for ever.
    pub left: Option<Duration>,
}

impl Held {
    pub(super) fn of(message: &AddressMessage, unmarked: bool) -> Option<Self> {
        let address = message::address_of(message)?;
        Some(Self { address, ours: message::is_ours(message, unmarked), left: message::left_of(message) })
    }

    /// Whether the kernel put it there on its own: IPv6 link-local.
    pub(super) fn is_of_the_kernel(&self) -> bool {
        matches!(self.address, IpAddr::V6(it) if it.is_unicast_link_local())
    }
}
