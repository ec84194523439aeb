//! The rules as they are to be: two tables that outlive us, one that does not.
//!
//! An untracked packet meets no NAT, so it reaches our socket; a tracked one is kube-proxy's. Whether a packet is left
//! untracked is asked for every datagram and every SYN: is the lease alive, and is a socket bound to that very address
//! and port?
//!
//! TCP goes by connection: the SYN decides, the connection is remembered (`flows4`, `flows6`), and its later segments
//! follow the SYN, whoever has the lease by then. Were each segment asked for the lease instead, a lease that begins would
//! reset the connections kube-proxy has translated, and one that ends would cut those we are serving: under clients that
//! think for 20 ms between connection and question 348 of 3,353 were reset in 30 switches; by connection none of 3,606
//! (`tests/node/harness.rs`: `BY_LEASE`, `BY_FLOW`). Nor could the later segments be asked for the socket: `socket wildcard
//! 0` refuses every connection there, since the handshake's third packet meets a request socket.
//!
//! - Every SYN first forgets what is remembered of its connection: a port used again is decided anew.
//! - Every later segment gives its connection its whole time again ([`FLOWS`]): one in use is never forgotten, and one that
//!   is silent is closed by us long before.
//! - Cost, on Linux 6.18 with a set empty or full: 45 ns for the look-up that every later segment of anybody's connection
//!   needs, 45 ns more for its time if it is ours; 100 ns for a SYN.
//! - A full set remembers no more: new connections are the cluster DNS's until others are forgotten, those remembered go on,
//!   and UDP does not notice. It takes 2,184 new connections per second for half a minute, or somebody's flood of SYNs; the
//!   kernel's memory is what the bound protects (160 octets each).
//! - The sets outlive leases, restarts and repairs ([`Ruleset::repair`]): a withdrawal never empties them. A table that was
//!   deleted or made dormant by others is made anew and knows no connections: those in progress are reset by their next
//!   segment.
//!
//! In the output hook `socket` sees the sender's socket, not ours, so what the host itself sends is caught by a table the
//! kernel removes with our netlink socket; the connections remembered there go with it. So the socket stays open until the
//! last of them has been answered.
//!
//! Read first: the design's interception.md, nft(8).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::expression::{
    Datatype, End, Expressions, Transport, address_in, address_one_of, back, flow_in, forget_flow, jump, later_segment,
    marked, notrack, port, refresh_flow, remember_flow, socket_bound,
};
use super::table::{Chain, Filled, Hook, Kind, Rule, Set, Table};
use super::{Batch, FLOWS4, FLOWS6, Family, Found, HOST, LEASED4, LEASED6, PODS, fallback, guard};
use crate::health::PROBE_MARK;
use crate::plan::Prefix;

/// Before connection tracking (`NF_IP_PRI_RAW`).
const RAW: i32 = -300;
/// How long a connection is remembered after its last segment, and how many are. We close one that has been silent for
/// 10 s, or 15 s after a question (`net::tcp`); twice that, so that no clock of TCP's matters.
const FLOWS: Filled = Filled { timeout: Duration::from_secs(30), size: 65_536 };

/// What the rules are made from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rules {
    /// The addresses we serve on this node; at least one.
    pub addresses: Vec<IpAddr>,
    /// The port DNS is served on.
    pub port: u16,
    /// TCP endpoints of ours on those addresses: health, metrics.
    pub health: Vec<SocketAddr>,
    /// Addresses nobody else answers for, and who does while we do not: DNS servers of the same family. No servers: no
    /// rule, the queries meet no socket.
    pub fallback: Vec<(IpAddr, Vec<SocketAddr>)>,
    /// Who may reach our addresses over an uplink.
    pub allow: Vec<Prefix>,
    /// Names of the interfaces that hold a default route.
    pub uplinks: Vec<String>,
    /// Whether the kernel can look for our socket; without it the lease alone decides.
    pub socket_match: bool,
    /// Whether the kernel knows tables with an owner; without them the lease alone decides for what the host sends.
    pub owner_flag: bool,
}

/// The tables that follow from [`Rules`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ruleset {
    tables: Vec<Table>,
}

/// Every table that is or was ours.
pub(crate) const OURS: [(Family, &str); 3] = [(Family::Inet, PODS), (Family::Inet, HOST), (Family::Arp, PODS)];

impl Ruleset {
    /// The tables for these rules.
    pub fn new(rules: &Rules) -> Self {
        Self { tables: [Some(pods(rules)), Some(host(rules)), guard::arp(rules)].into_iter().flatten().collect() }
    }

    /// The least that makes the host's tables these: nothing if they are, new rules for some chains, new chains, or new
    /// tables. Sets that are as they are to be stay with all they hold, but those of a new table are empty: for its leases
    /// add [`lease`](super::lease()) behind it; the connections it had remembered are cut by their next segment. A table
    /// that another living socket owns is left out, or the kernel would refuse everything; [`Self::differences`] names it.
    pub fn repair(&self, found: &Found) -> Batch {
        let mut batch = Batch::new();
        for table in &self.tables {
            table.repair(found, &mut batch);
        }
        for (family, name) in self.unwanted(found) {
            batch.delete_table(family, name);
        }
        batch
    }

    /// What is not as we made it, in words; empty if everything is.
    pub fn differences(&self, found: &Found) -> Vec<String> {
        let mut all: Vec<String> = self.tables.iter().flat_map(|table| table.differences(found)).collect();
        all.extend(self.unwanted(found).map(|(family, name)| format!("table {family} {name} is not wanted")));
        all
    }

    /// The tables ([`PODS`], [`HOST`]) a lease can be taken in once the repair is done: those that are no other socket's.
    pub fn leasable(&self, found: &Found) -> Vec<&'static str> {
        let free = self.tables.iter().filter(|table| !table.sets.is_empty() && !table.is_anothers(found));
        free.map(|table| table.name).collect()
    }

    /// Tables of ours on the host that these rules do without.
    fn unwanted<'a>(&'a self, found: &'a Found) -> impl Iterator<Item = (Family, &'static str)> + 'a {
        OURS.into_iter().filter(|(family, name)| {
            let wanted = self.tables.iter().any(|table| table.family == *family && table.name == *name);
            !wanted && found.tables.iter().any(|table| table.family == *family && table.name == *name)
        })
    }
}

/// Removes every table of ours; no error if there are none. The rules in `ip filter` are
/// [`remove_from_filter`](super::remove_from_filter)'s.
pub fn remove_everything() -> Batch {
    let mut batch = Batch::new();
    for (family, name) in OURS {
        batch.delete_table(family, name);
    }
    batch
}

impl Rules {
    /// The addresses of one family.
    pub(crate) fn of_family(&self, v4: bool) -> Vec<IpAddr> {
        self.addresses.iter().copied().filter(|address| address.is_ipv4() == v4).collect()
    }

    /// The families we have addresses of (`true`: IPv4), each with the addresses.
    pub(crate) fn families(&self) -> impl Iterator<Item = (bool, Vec<IpAddr>)> + '_ {
        [true, false].into_iter().map(|v4| (v4, self.of_family(v4))).filter(|(_, addresses)| !addresses.is_empty())
    }
}

/// The sets of both families, whether or not there are addresses: a lease must always find them.
fn sets() -> Vec<Set> {
    vec![
        Set { name: LEASED4, key: Datatype::Ipv4, filled: None },
        Set { name: LEASED6, key: Datatype::Ipv6, filled: None },
        flows(true),
        flows(false),
    ]
}

/// The connections whose SYN was let through to us.
pub(crate) fn flows(v4: bool) -> Set {
    let (name, key) = if v4 { (FLOWS4, Datatype::Ipv4Flow) } else { (FLOWS6, Datatype::Ipv6Flow) };
    Set { name, key, filled: Some(FLOWS) }
}

/// The table that outlives us.
fn pods(rules: &Rules) -> Table {
    let mut chains = by_connection(rules, rules.socket_match);
    chains.push(Chain::base("prerouting", Kind::Filter, Hook::Prerouting, RAW, intercept_pods(rules)));
    chains.push(Chain::base("output", Kind::Filter, Hook::Output, RAW, replies(rules)));
    chains.extend(fallback::chains(rules));
    chains.extend(guard::chains(rules));
    Table { family: Family::Inet, name: PODS, owner: false, sets: sets(), chains }
}

/// The table that goes with our socket.
fn host(rules: &Rules) -> Table {
    let mut intercept = Vec::new();
    for (v4, addresses) in rules.families() {
        for transport in Transport::BOTH {
            // Our own probes must reach us before there is a lease: they are what it is given for.
            let ours = and(address_one_of(End::Destination, &addresses), port(transport, End::Destination, rules.port));
            let probe = and(and(marked(PROBE_MARK), ours), [notrack()]);
            intercept.push(Rule::new(format!("probes {}", transport.word()), probe));
        }
        intercept.push(Rule::new("host udp", and(leased_udp(v4, rules.port), [notrack()])));
        intercept.push(tcp_by_connection("host tcp", v4, &addresses, rules.port));
    }
    let mut chains = by_connection(rules, false);
    chains.push(Chain::base("output", Kind::Filter, Hook::Output, RAW, intercept));
    Table { family: Family::Inet, name: HOST, owner: rules.owner_flag, sets: sets(), chains }
}

/// `@leased4`.
fn leased(v4: bool) -> Expressions {
    address_in(End::Destination, v4, if v4 { LEASED4 } else { LEASED6 })
}

/// `ip daddr @leased4 udp dport 53`.
fn leased_udp(v4: bool, number: u16) -> Expressions {
    and(leased(v4), port(Transport::Udp, End::Destination, number))
}

/// The chain for the TCP segments of one family.
fn connections(v4: bool) -> &'static str {
    if v4 { "tcp4" } else { "tcp6" }
}

/// `ip daddr { … } tcp dport 53 jump tcp4`: by address, not by lease, or a connection would lose its segments with it.
fn tcp_by_connection(about: &str, v4: bool, addresses: &[IpAddr], number: u16) -> Rule {
    let ours = and(address_one_of(End::Destination, addresses), port(Transport::Tcp, End::Destination, number));
    Rule::new(about, and(ours, [jump(connections(v4))]))
}

/// The SYN decides, and what follows follows it. Both chains, whether or not there are addresses: a chain more or less
/// would be another table, and nothing remembered.
fn by_connection(rules: &Rules, socket_match: bool) -> Vec<Chain> {
    let families = [true, false].into_iter();
    families
        .map(|v4| {
            let any = !rules.of_family(v4).is_empty();
            let rules = if any { decide_by_syn(v4, socket_match) } else { Vec::new() };
            Chain::regular(connections(v4), rules)
        })
        .collect()
}

fn decide_by_syn(v4: bool, socket_match: bool) -> Vec<Rule> {
    let set = flows(v4).name;
    let mut first = leased(v4);
    if socket_match {
        first = and(first, socket_bound());
    }
    // Untracked first: a connection whose time runs out at this very moment may not find its place again.
    let known = and(and(later_segment(), flow_in(v4, set)), [notrack()]);
    let ours = and(known, refresh_flow(v4, set));
    vec![
        Rule::new("connections of ours", and(ours, [back()])),
        Rule::new("connections of others", and(later_segment(), [back()])),
        Rule::new("a port may be used again", forget_flow(v4, set)),
        Rule::new("new connections", and(and(first, remember_flow(v4, set)), [notrack()])),
    ]
}

/// What pods send us is left untracked while we lease the address and listen.
fn intercept_pods(rules: &Rules) -> Vec<Rule> {
    let mut all = Vec::new();
    for (v4, addresses) in rules.families() {
        let mut udp = leased_udp(v4, rules.port);
        if rules.socket_match {
            udp = and(udp, socket_bound());
        }
        all.push(Rule::new("pods udp", and(udp, [notrack()])));
        all.push(tcp_by_connection("pods tcp", v4, &addresses, rules.port));
    }
    for endpoint in &rules.health {
        all.push(Rule::new("health", and(endpoint_port(*endpoint, End::Destination), [notrack()])));
    }
    all
}

/// What we send is left untracked by its address, lease or none: what was in flight when a lease ended must not leave an
/// entry behind that holds a client on a dead socket. And the health endpoint, both ways.
fn replies(rules: &Rules) -> Vec<Rule> {
    let mut all = Vec::new();
    for (_, addresses) in rules.families() {
        for transport in Transport::BOTH {
            let from = and(address_one_of(End::Source, &addresses), port(transport, End::Source, rules.port));
            all.push(Rule::new(format!("replies {}", transport.word()), and(from, [notrack()])));
        }
    }
    for endpoint in &rules.health {
        all.push(Rule::new("health replies", and(endpoint_port(*endpoint, End::Source), [notrack()])));
        all.push(Rule::new("health from the host", and(endpoint_port(*endpoint, End::Destination), [notrack()])));
    }
    all
}

/// `ip daddr 169.254.20.10 tcp dport 8080`.
pub(crate) fn endpoint_port(endpoint: SocketAddr, end: End) -> Expressions {
    and(address_one_of(end, &[endpoint.ip()]), port(Transport::Tcp, end, endpoint.port()))
}

/// The expressions of a rule, added up.
pub(crate) fn and(
    mut first: Expressions,
    more: impl IntoIterator<Item = super::expression::Expression>,
) -> Expressions {
    first.extend(more);
    first
}
