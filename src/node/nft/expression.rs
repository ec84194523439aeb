//! Expressions: what a rule asks of a packet and what it does with it.
//!
//! Written as nft(8) writes them, dependencies (`meta nfproto`, `meta l4proto`) first, so that `nft list ruleset` shows
//! our rules in its own words. Each match loads register 1 and compares.
//!
//! Read first: Linux `nf_tables.h`, nft(8) "expressions".

use std::net::{IpAddr, SocketAddr};

use super::attributes::Attributes;
use crate::plan::Prefix;

/// The first 16-octet register; a match loads it and uses it up.
const REGISTER: u32 = 1;
/// The register a verdict goes to.
const VERDICT: u32 = 0;
/// The 4 octets behind an IPv4 address in register 1.
const BEHIND_IPV4: u32 = 9;
/// The register behind an IPv6 address in register 1.
const BEHIND_IPV6: u32 = 2;
/// The 4 octets behind an IPv4 address and a port in register 1.
const BEHIND_IPV4_PORT: u32 = 10;
/// The 4 octets behind an IPv6 address and a port in register 1.
const BEHIND_IPV6_PORT: u32 = 13;
/// Octets of an interface name in a register (`IFNAMSIZ`).
const INTERFACE_NAME: usize = 16;

/// Transport protocols we match.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

impl Transport {
    pub(crate) const BOTH: [Self; 2] = [Self::Udp, Self::Tcp];

    fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// Which end of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    Source,
    Destination,
}

/// Type of a set's keys or data, by nft's numbers: the kernel does not care, `nft list` does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Datatype {
    Integer,
    Ipv4,
    Ipv6,
    Interface,
    IcmpType,
    Icmpv6Type,
    /// An IPv4 address and a port, each padded to 4 octets.
    Ipv4Port,
    /// An IPv6 address and a port, padded to 4 octets.
    Ipv6Port,
    /// A client's IPv4 address and port, and the address it calls.
    Ipv4Flow,
    /// A client's IPv6 address and port, and the address it calls.
    Ipv6Flow,
}

impl Datatype {
    /// nft's number and the length in octets.
    pub(crate) fn number_and_length(self) -> (u32, u32) {
        match self {
            Self::Integer => (4, 4),
            Self::Ipv4 => (7, 4),
            Self::Ipv6 => (8, 16),
            Self::Interface => (41, 16),
            Self::IcmpType => (14, 1),
            Self::Icmpv6Type => (29, 1),
            // concatenations: six bits a type; a port is of type 13
            Self::Ipv4Port => (7 * 64 + 13, 8),
            Self::Ipv6Port => (8 * 64 + 13, 20),
            Self::Ipv4Flow => ((7 * 64 + 13) * 64 + 7, 12),
            Self::Ipv6Flow => ((8 * 64 + 13) * 64 + 8, 36),
        }
    }
}

/// A set without a name, bound to the rule that uses it. Nobody can change it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Anonymous {
    pub(crate) key: Datatype,
    /// What a key leads to; `None`: a plain set.
    pub(crate) data: Option<Datatype>,
    pub(crate) elements: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// One expression of a rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Expression {
    pub(crate) name: &'static str,
    pub(crate) data: Attributes,
    /// The nameless set a `lookup` looks into; its name and number are added when the rule is written.
    pub(crate) set: Option<Anonymous>,
}

/// Expressions in order; rules are built by adding up such lists.
pub(crate) type Expressions = Vec<Expression>;

fn plain(name: &'static str, data: Attributes) -> Expression {
    Expression { name, data, set: None }
}

/// `==` and `!=`, by the kernel's numbers.
#[derive(Clone, Copy)]
enum Compare {
    Equal = 0,
    Different = 1,
}

fn compare(how: Compare, value: &[u8]) -> Expression {
    let data = Attributes::new().bytes(1, value);
    plain("cmp", Attributes::new().u32(1, REGISTER).u32(2, how as u32).nest(3, &data))
}

fn equal(value: &[u8]) -> Expression {
    compare(Compare::Equal, value)
}

fn meta(key: u32) -> Expression {
    plain("meta", Attributes::new().u32(2, key).u32(1, REGISTER))
}

/// Octets of the packet, counted from the network (1) or the transport (2) header.
fn payload(base: u32, offset: u32, length: u32) -> Expression {
    payload_to(REGISTER, base, offset, length)
}

fn payload_to(register: u32, base: u32, offset: u32, length: u32) -> Expression {
    plain("payload", Attributes::new().u32(1, register).u32(2, base).u32(3, offset).u32(4, length))
}

fn mask(octets: &[u8]) -> Expression {
    let zero = vec![0; octets.len()];
    let length = u32::try_from(octets.len()).expect("a mask is at most 16 octets");
    plain(
        "bitwise",
        Attributes::new()
            .u32(1, REGISTER)
            .u32(2, REGISTER)
            .u32(3, length)
            .nest(4, &Attributes::new().bytes(1, octets))
            .nest(5, &Attributes::new().bytes(1, &zero)),
    )
}

/// The address as the packet has it.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// An interface name as the kernel compares it.
fn interface_octets(name: &str) -> Vec<u8> {
    let mut octets = name.as_bytes().to_vec();
    octets.resize(INTERFACE_NAME, 0);
    octets
}

/// `meta nfproto`: needed before an address in a table for both families.
fn family(v4: bool) -> Expressions {
    vec![meta(15), equal(&[if v4 { 2 } else { 10 }])]
}

/// Loads an address of the IP header.
fn load_address(end: End, v4: bool) -> Expression {
    load_address_to(REGISTER, end, v4)
}

fn load_address_to(register: u32, end: End, v4: bool) -> Expression {
    match (v4, end) {
        (true, End::Source) => payload_to(register, 1, 12, 4),
        (true, End::Destination) => payload_to(register, 1, 16, 4),
        (false, End::Source) => payload_to(register, 1, 8, 16),
        (false, End::Destination) => payload_to(register, 1, 24, 16),
    }
}

/// `ip saddr . tcp sport . ip daddr`: loads the three one behind the other, each padded to 4 octets.
fn load_flow(v4: bool) -> Expressions {
    let (port, destination) = if v4 { (BEHIND_IPV4, BEHIND_IPV4_PORT) } else { (BEHIND_IPV6, BEHIND_IPV6_PORT) };
    vec![load_address(End::Source, v4), payload_to(port, 2, 0, 2), load_address_to(destination, End::Destination, v4)]
}

/// `ip saddr . tcp sport . ip daddr @name`: the connection is remembered in that set. Behind [`later_segment`].
pub(crate) fn flow_in(v4: bool, set: &str) -> Expressions {
    let mut all = family(v4);
    all.extend(load_flow(v4));
    all.push(plain("lookup", Attributes::new().u32(2, REGISTER).text(1, set)));
    all
}

/// What a rule does to a set with the packet's own key, by the kernel's numbers.
#[derive(Clone, Copy)]
enum Change {
    Add = 0,
    Update = 1,
    Delete = 2,
}

fn change(how: Change, set: &str) -> Expression {
    plain("dynset", Attributes::new().text(1, set).u32(3, how as u32).u32(4, REGISTER))
}

fn change_flow(how: Change, v4: bool, set: &str) -> Expressions {
    let mut all = tcp();
    all.extend(load_flow(v4));
    all.push(change(how, set));
    all
}

/// `add @name { ip saddr . tcp sport . ip daddr }`: the connection is remembered; no match if the set is full. Behind a
/// match of the family.
pub(crate) fn remember_flow(v4: bool, set: &str) -> Expressions {
    change_flow(Change::Add, v4, set)
}

/// `update @name { ip saddr . tcp sport . ip daddr }`: its time begins again. Behind [`flow_in`].
pub(crate) fn refresh_flow(v4: bool, set: &str) -> Expressions {
    let mut all = load_flow(v4);
    all.push(change(Change::Update, set));
    all
}

/// `delete @name { ip saddr . tcp sport . ip daddr }`: whatever is remembered of it is forgotten (Linux 5.4).
pub(crate) fn forget_flow(v4: bool, set: &str) -> Expressions {
    let mut all = family(v4);
    all.extend(change_flow(Change::Delete, v4, set));
    all
}

/// `ip daddr @name`: the address is in a set with a name.
pub(crate) fn address_in(end: End, v4: bool, set: &str) -> Expressions {
    let mut all = family(v4);
    all.push(load_address(end, v4));
    all.push(plain("lookup", Attributes::new().u32(2, REGISTER).text(1, set)));
    all
}

/// `ip saddr { … }`: the address is one of these, which are of one family and at least one.
pub(crate) fn address_one_of(end: End, addresses: &[IpAddr]) -> Expressions {
    let v4 = addresses.iter().all(IpAddr::is_ipv4);
    let mut all = family(v4);
    all.push(load_address(end, v4));
    all.push(one_of(
        if v4 { Datatype::Ipv4 } else { Datatype::Ipv6 },
        addresses.iter().map(|address| octets(*address)).collect(),
    ));
    all
}

/// `ip daddr 169.254.20.10` in a table of that one family.
pub(crate) fn address_is(end: End, address: IpAddr) -> Expressions {
    vec![load_address(end, address.is_ipv4()), equal(&octets(address))]
}

/// `ip saddr 10.0.0.0/8`.
pub(crate) fn address_within(end: End, prefix: &Prefix) -> Expressions {
    let v4 = prefix.address.is_ipv4();
    let address = octets(prefix.address);
    let mut all = family(v4);
    all.push(load_address(end, v4));
    if usize::from(prefix.length) < address.len() * 8 {
        all.push(mask(&prefix_mask(address.len(), prefix.length)));
    }
    all.push(equal(&address));
    all
}

/// `length` ones, then zeros.
fn prefix_mask(octets: usize, length: u8) -> Vec<u8> {
    (0..octets)
        .map(|index| {
            let ones = usize::from(length).saturating_sub(index * 8).min(8);
            !(0xFF_u16 >> ones) as u8
        })
        .collect()
}

/// Register 1 is one of `keys`: a comparison for one, a nameless set for more.
fn one_of(key: Datatype, keys: Vec<Vec<u8>>) -> Expression {
    if let [only] = keys.as_slice() {
        return equal(only);
    }
    let elements = keys.into_iter().map(|key| (key, None)).collect();
    let set = Some(Anonymous { key, data: None, elements });
    Expression { name: "lookup", data: Attributes::new().u32(2, REGISTER), set }
}

/// `iifname { … }`.
pub(crate) fn interface_one_of(names: &[String]) -> Expressions {
    vec![meta(6), one_of(Datatype::Interface, names.iter().map(|name| interface_octets(name)).collect())]
}

/// `meta mark 0x…`.
pub(crate) fn marked(mark: u32) -> Expressions {
    vec![meta(3), equal(&mark.to_ne_bytes())]
}

/// `udp dport 53`.
pub(crate) fn port(transport: Transport, end: End, port: u16) -> Expressions {
    let offset = match end {
        End::Source => 0,
        End::Destination => 2,
    };
    vec![meta(16), equal(&[transport.number()]), payload(2, offset, 2), equal(&port.to_be_bytes())]
}

/// `icmp type { … }` or `icmpv6 type { … }`, at least one.
pub(crate) fn icmp_types(v4: bool, types: &[u8]) -> Expressions {
    let datatype = if v4 { Datatype::IcmpType } else { Datatype::Icmpv6Type };
    vec![
        meta(16),
        equal(&[if v4 { 1 } else { 58 }]),
        payload(2, 0, 1),
        one_of(datatype, types.iter().map(|number| vec![*number]).collect()),
    ]
}

/// `meta l4proto tcp`: needed before anything of a TCP header.
fn tcp() -> Expressions {
    vec![meta(16), equal(&[Transport::Tcp.number()])]
}

/// `tcp flags & (syn | ack) != syn`: any segment but the first of a connection.
pub(crate) fn later_segment() -> Expressions {
    let mut all = tcp();
    all.extend([payload(2, 13, 1), mask(&[0x12]), compare(Compare::Different, &[0x02])]);
    all
}

/// `socket wildcard 0`: a socket is bound to the very address and port the packet is for.
pub(crate) fn socket_bound() -> Expressions {
    vec![plain("socket", Attributes::new().u32(1, 2).u32(2, REGISTER)), equal(&[0])]
}

/// `ct state established,related`.
pub(crate) fn established_or_related() -> Expressions {
    vec![
        plain("ct", Attributes::new().u32(2, 0).u32(1, REGISTER)),
        mask(&0x6_u32.to_ne_bytes()),
        compare(Compare::Different, &[0; 4]),
    ]
}

/// `ct status dnat`.
pub(crate) fn translated() -> Expressions {
    vec![
        plain("ct", Attributes::new().u32(2, 2).u32(1, REGISTER)),
        mask(&0x20_u32.to_ne_bytes()),
        compare(Compare::Different, &[0; 4]),
    ]
}

/// `ct original ip daddr`: where the first packet wanted to go.
pub(crate) fn originally_to(address: IpAddr) -> Expressions {
    let key = if address.is_ipv4() { 20 } else { 22 };
    vec![plain("ct", Attributes::new().u32(2, key).u32(1, REGISTER).u8(3, 0)), equal(&octets(address))]
}

/// `fib saddr type local`: the sender's address is one of the host's.
pub(crate) fn from_this_host() -> Expressions {
    // result: address type (3); flags: source address (1)
    vec![plain("fib", Attributes::new().u32(3, 1).u32(2, 3).u32(1, REGISTER)), equal(&2_u32.to_ne_bytes())]
}

/// `arp operation request arp daddr ip …`.
pub(crate) fn asks_who_has(address: std::net::Ipv4Addr) -> Expressions {
    vec![payload(1, 6, 2), equal(&1_u16.to_be_bytes()), payload(1, 24, 4), equal(&address.octets())]
}

/// `counter`.
pub(crate) fn counter() -> Expression {
    plain("counter", Attributes::new().u64(1, 0).u64(2, 0))
}

/// `notrack`: no connection tracking for this packet, so no NAT either.
pub(crate) fn notrack() -> Expression {
    plain("notrack", Attributes::new())
}

/// `masquerade`.
pub(crate) fn masquerade() -> Expression {
    plain("masq", Attributes::new())
}

fn verdict(code: i32, chain: Option<&str>) -> Expression {
    let mut verdict = Attributes::new().bytes(1, &code.to_be_bytes());
    if let Some(chain) = chain {
        verdict = verdict.text(2, chain);
    }
    let data = Attributes::new().nest(2, &verdict);
    plain("immediate", Attributes::new().u32(1, VERDICT).nest(2, &data))
}

pub(crate) fn accept() -> Expression {
    verdict(1, None)
}

pub(crate) fn drop() -> Expression {
    verdict(0, None)
}

/// `return`: back to the chain that jumped here.
pub(crate) fn back() -> Expression {
    verdict(-5, None)
}

pub(crate) fn jump(chain: &str) -> Expression {
    verdict(-3, Some(chain))
}

/// `dnat to numgen random mod n map { 0 : address . port, … }`: one of the endpoints, which are of one family and at least
/// one.
pub(crate) fn dnat_to_one_of(endpoints: &[SocketAddr]) -> Expressions {
    let v4 = endpoints.iter().all(SocketAddr::is_ipv4);
    let count = u32::try_from(endpoints.len()).expect("endpoints are few");
    let elements = (0_u32..).zip(endpoints).map(|(index, endpoint)| {
        let mut target = octets(endpoint.ip());
        target.extend_from_slice(&endpoint.port().to_be_bytes());
        target.extend_from_slice(&[0, 0]);
        (index.to_ne_bytes().to_vec(), Some(target))
    });
    let map = Anonymous {
        key: Datatype::Integer,
        data: Some(if v4 { Datatype::Ipv4Port } else { Datatype::Ipv6Port }),
        elements: elements.collect(),
    };
    vec![
        // type: random (1)
        plain("numgen", Attributes::new().u32(1, REGISTER).u32(2, count).u32(3, 1).u32(4, 0)),
        Expression { name: "lookup", data: Attributes::new().u32(2, REGISTER).u32(3, REGISTER), set: Some(map) },
        plain(
            "nat",
            Attributes::new()
                .u32(1, 1)
                .u32(2, if v4 { 2 } else { 10 })
                .u32(3, REGISTER)
                .u32(5, if v4 { BEHIND_IPV4 } else { BEHIND_IPV6 }),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::attributes::{find, number};
    use super::*;

    #[test]
    fn prefix_masks_have_as_many_ones_as_the_length_says() {
        assert_eq!(prefix_mask(4, 9), [0xFF, 0x80, 0, 0]);
        assert_eq!(prefix_mask(4, 0), [0; 4]);
        assert_eq!(prefix_mask(4, 31), [0xFF, 0xFF, 0xFF, 0xFE]);
        assert_eq!(prefix_mask(16, 64)[..9], [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0]);
    }

    #[test]
    fn whole_address_needs_no_mask() {
        let prefix = Prefix { address: IpAddr::from([10, 0, 0, 1]), length: 32 };
        assert!(address_within(End::Source, &prefix).iter().all(|expression| expression.name != "bitwise"));
    }

    #[test]
    fn one_value_is_compared_and_more_are_looked_up() {
        assert_eq!(one_of(Datatype::Ipv4, vec![vec![1, 2, 3, 4]]).name, "cmp");
        let many = one_of(Datatype::Ipv4, vec![vec![1, 2, 3, 4], vec![1, 2, 3, 5]]);
        assert_eq!((many.name, many.set.map(|set| set.elements.len())), ("lookup", Some(2)));
    }

    #[test]
    fn endpoints_are_numbered_in_the_byte_order_of_the_host() {
        let endpoints = [SocketAddr::from(([10, 1, 0, 7], 53)), SocketAddr::from(([10, 1, 0, 8], 5353))];
        let all = dnat_to_one_of(&endpoints);
        assert_eq!(find(all[0].data.as_slice(), 2).and_then(number), Some(2));
        let map = all[1].set.as_ref().expect("the lookup has a map");
        assert_eq!(map.elements[1], (1_u32.to_ne_bytes().to_vec(), Some(vec![10, 1, 0, 8, 0x14, 0xE9, 0, 0])));
    }
}
