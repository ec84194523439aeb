//! What is on the host, as far as it concerns us, read from the kernel's dumps.

use std::net::IpAddr;
use std::time::Duration;

use super::Family;
use super::attributes::{each, find, long_number, number, text};
use super::batch::{SET_DYNAMIC, message};

/// Everything in our tables, and the chains `INPUT` and `OUTPUT` of `ip filter` and `ip6 filter`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Found {
    /// The netlink port of the socket that looked: an owned table is ours if it names this port.
    pub port: u32,
    /// Tables of ours.
    pub tables: Vec<FoundTable>,
    /// Chains of ours and of the filter tables.
    pub chains: Vec<FoundChain>,
    /// Rules of those chains, in order within each.
    pub rules: Vec<FoundRule>,
    /// Sets with a name in our tables.
    pub sets: Vec<FoundSet>,
    /// The addresses under lease; what packets put into sets is left out.
    pub elements: Vec<Element>,
}

/// A table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FoundTable {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: String,
    /// The netlink port of the socket that owns it.
    pub owner: Option<u32>,
    /// Somebody switched it off.
    pub dormant: bool,
}

/// A chain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FoundChain {
    /// Family of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// `filter`, `nat`, `route`; empty for a chain that is jumped to.
    pub kind: String,
    /// Hook number (`NF_INET_*`) and priority; `None`: a chain that is jumped to.
    pub hook: Option<(u32, i32)>,
    /// The policy is to drop.
    pub drops: bool,
}

impl FoundChain {
    /// Kind, hook, priority and whether the policy is to accept: what [`Base`](super::table::Base) says.
    pub(crate) fn base_as_made(&self) -> Option<(String, u32, i32, bool)> {
        self.hook.map(|(hook, priority)| (self.kind.clone(), hook, priority, !self.drops))
    }
}

/// A rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FoundRule {
    /// Family of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// The kernel's number for it, unique in the table.
    pub handle: u64,
    /// The comment, where there is one.
    pub comment: Option<String>,
    /// Packets counted, where the rule has a counter.
    pub packets: Option<u64>,
}

/// A set with a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FoundSet {
    /// Family of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// nft's number of the key type: 7 for IPv4, 8 for IPv6 addresses, six bits for each of several.
    pub key: u32,
    /// `NFT_SET_*`.
    pub flags: u32,
    /// Of a set that packets fill: how long an element lives and how many there can be.
    pub filled: Option<(Duration, u32)>,
}

/// An address under lease.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Element {
    /// The table of its set.
    pub table: String,
    /// The address.
    pub address: IpAddr,
    /// The length of the lease.
    pub timeout: Duration,
    /// What is left of it.
    pub expires: Duration,
}

impl Found {
    /// Adds what one message of a dump says: `kind` is its `NFT_MSG_*`, `body` what is behind both headers. What is not
    /// understood is left out.
    pub(crate) fn add(&mut self, kind: u16, family: u8, body: &[u8]) {
        let Some(family) = Family::from_number(family) else { return };
        match kind {
            message::NEW_TABLE => self.tables.extend(table(family, body)),
            message::NEW_CHAIN => self.chains.extend(chain(family, body)),
            message::NEW_RULE => self.rules.extend(rule(family, body)),
            message::NEW_SET => self.sets.extend(set(family, body)),
            message::NEW_ELEMENT => self.add_elements(body),
            _ => {}
        }
    }

    fn add_elements(&mut self, body: &[u8]) {
        let Some(table) = find(body, 1).map(text) else { return };
        let list = find(body, 3).unwrap_or_default();
        let elements = each(list).filter_map(|(_, one)| {
            let millis = |kind| Some(Duration::from_millis(find(one, kind).and_then(long_number)?));
            let address = address(find(find(one, 1)?, 1)?)?;
            Some(Element { table: table.clone(), address, timeout: millis(4)?, expires: millis(5)? })
        });
        self.elements.extend(elements);
    }

    /// Addresses under lease in a table.
    pub fn leased(&self, table: &str) -> Vec<IpAddr> {
        self.elements.iter().filter(|element| element.table == table).map(|element| element.address).collect()
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(octets).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

fn table(family: Family, body: &[u8]) -> Option<FoundTable> {
    let flags = find(body, 2).and_then(number).unwrap_or(0);
    Some(FoundTable {
        family,
        name: find(body, 1).map(text)?,
        owner: find(body, 7).and_then(number),
        dormant: flags & 1 != 0,
    })
}

fn chain(family: Family, body: &[u8]) -> Option<FoundChain> {
    let hook = find(body, 4).and_then(|hook| {
        let priority = find(hook, 2).and_then(number)?;
        Some((find(hook, 1).and_then(number)?, priority.cast_signed()))
    });
    Some(FoundChain {
        family,
        table: find(body, 1).map(text)?,
        name: find(body, 3).map(text)?,
        kind: find(body, 7).map(text).unwrap_or_default(),
        hook,
        drops: find(body, 5).and_then(number) == Some(0),
    })
}

fn rule(family: Family, body: &[u8]) -> Option<FoundRule> {
    Some(FoundRule {
        family,
        table: find(body, 1).map(text)?,
        chain: find(body, 2).map(text)?,
        handle: find(body, 3).and_then(long_number)?,
        comment: find(body, 7).and_then(comment),
        packets: find(body, 4).and_then(packets),
    })
}

/// The comment in a rule's user data: records of type, length, value; type 0 is the comment.
pub(crate) fn comment(mut userdata: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = userdata {
        let value = rest.get(..usize::from(*length))?;
        if *kind == 0 {
            return Some(text(value));
        }
        userdata = &rest[value.len()..];
    }
    None
}

fn packets(expressions: &[u8]) -> Option<u64> {
    let counter = each(expressions).find(|(_, one)| find(one, 1).map(text).as_deref() == Some("counter"))?;
    find(find(counter.1, 2)?, 2).and_then(long_number)
}

fn set(family: Family, body: &[u8]) -> Option<FoundSet> {
    let flags = find(body, 3).and_then(number).unwrap_or(0);
    // nameless sets belong to their rules
    if flags & 1 != 0 {
        return None;
    }
    Some(FoundSet {
        family,
        table: find(body, 1).map(text)?,
        name: find(body, 2).map(text)?,
        key: find(body, 4).and_then(number)?,
        flags,
        filled: (flags & SET_DYNAMIC != 0).then(|| {
            let size = find(body, 9).and_then(|limits| find(limits, 1)).and_then(number);
            (Duration::from_millis(find(body, 11).and_then(long_number).unwrap_or(0)), size.unwrap_or(0))
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_found_behind_other_records_and_never_beyond_the_end() {
        assert_eq!(comment(&[0, 3, b'a', b'b', 0]), Some("ab".to_owned()));
        assert_eq!(comment(&[1, 1, 9, 0, 2, b'c', 0]), Some("c".to_owned()));
        assert_eq!(comment(&[0, 200, b'a']), None);
        assert_eq!(comment(&[1]), None);
        assert_eq!(comment(&[]), None);
    }

    #[test]
    fn messages_cut_short_add_nothing_wrong() {
        let mut found = Found::default();
        for kind in 0..16 {
            for family in [0, 1, 2, 3, 10, 255] {
                found.add(kind, family, &[8, 0, 1]);
                found.add(kind, family, &[]);
            }
        }
        assert_eq!(found, Found::default());
    }
}
