//! The guard: an address on a link of ours must not open the node's other ports, nor answer to the LAN.
//!
//! Replies first: those to the host's own fallback queries come in over an uplink and are for our address. What comes in
//! over `lo` is from the host itself, and our untracked replies to it have any port. ICMP errors are for untracked packets
//! too, which connection tracking knows nothing of; without them no path MTU is ever found.
//!
//! ARP answers for every address of the host on every link, hence the table for it. Neighbour discovery does not: a
//! solicitation is answered for the addresses of the very link it came in by (RFC 4861 section 7.2.3), and ours are on
//! another.

use std::net::IpAddr;

use super::expression::{
    End, Expressions, Transport, accept, address_one_of, address_within, asks_who_has, counter, drop,
    established_or_related, icmp_types, interface_one_of, jump, port,
};
use super::ruleset::{Rules, and, endpoint_port};
use super::table::{Chain, Hook, Kind, Rule, Table};
use super::{Family, PODS};

const FILTER: i32 = 0;
const GUARDED: &str = "guarded";
const PORTS: &str = "guarded_ports";

/// Destination unreachable, time exceeded, parameter problem.
const ICMP_ERRORS: &[u8] = &[3, 11, 12];
/// Destination unreachable, packet too big, time exceeded, parameter problem.
const ICMPV6_ERRORS: &[u8] = &[1, 2, 3, 4];

/// The guard of our addresses.
pub(crate) fn chains(rules: &Rules) -> Vec<Chain> {
    let to_us = rules.families().map(|(_, addresses)| {
        Rule::new("for our addresses", and(address_one_of(End::Destination, &addresses), [jump(GUARDED)]))
    });
    let to_us = to_us.collect();
    vec![
        Chain::regular(PORTS, ports(rules)),
        Chain::regular(GUARDED, guarded(rules)),
        Chain::base("guard", Kind::Filter, Hook::Input, FILTER, to_us),
    ]
}

fn guarded(rules: &Rules) -> Vec<Rule> {
    let mut all = vec![
        Rule::new("from the host itself", and(interface_one_of(&["lo".to_owned()]), [accept()])),
        Rule::new("replies to what was tracked", and(established_or_related(), [accept()])),
    ];
    for (v4, _) in rules.families() {
        let errors = icmp_types(v4, if v4 { ICMP_ERRORS } else { ICMPV6_ERRORS });
        all.push(Rule::new("errors", and(errors, [accept()])));
    }
    if !rules.uplinks.is_empty() {
        let over_uplink = || interface_one_of(&rules.uplinks);
        for prefix in &rules.allow {
            let allowed = and(over_uplink(), address_within(End::Source, prefix));
            all.push(Rule::new("allowed over an uplink", and(allowed, [jump(PORTS)])));
        }
        all.push(Rule::new("not over an uplink", and(over_uplink(), [counter(), drop()])));
    }
    all.push(Rule::new("served ports", vec![jump(PORTS)]));
    all
}

/// DNS and our own endpoints, and nothing else.
fn ports(rules: &Rules) -> Vec<Rule> {
    let accepted = |what: Expressions| and(what, [accept()]);
    let mut all = Vec::new();
    for transport in Transport::BOTH {
        let dns = port(transport, End::Destination, rules.port);
        all.push(Rule::new(format!("dns {}", transport.word()), accepted(dns)));
    }
    for endpoint in &rules.health {
        all.push(Rule::new("health", accepted(endpoint_port(*endpoint, End::Destination))));
    }
    all.push(Rule::new("no other port", vec![counter(), drop()]));
    all
}

/// Nobody beyond an uplink is told our link-layer address for these addresses; `None`: nothing to keep to ourselves.
pub(crate) fn arp(rules: &Rules) -> Option<Table> {
    let addresses = rules.addresses.iter().filter_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    });
    let dropped: Vec<Rule> = addresses
        .map(|address| {
            let asks = and(interface_one_of(&rules.uplinks), asks_who_has(address));
            Rule::new(format!("who has {address}"), and(asks, [drop()]))
        })
        .collect();
    (!dropped.is_empty() && !rules.uplinks.is_empty()).then(|| Table {
        family: Family::Arp,
        name: PODS,
        owner: false,
        sets: Vec::new(),
        chains: vec![Chain::base("input", Kind::Filter, Hook::Input, FILTER, dropped)],
    })
}
