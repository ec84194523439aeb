//! Hosts whose firewall drops by default: what we let in, `ip filter` must let in too.
//!
//! `accept` in a table of ours does not overrule `drop` in another chain of the same hook. Where `INPUT` or `OUTPUT` of
//! `ip filter` or `ip6 filter` drop by policy, our accepts go to their head, in the form iptables-nft itself uses, so that
//! `iptables-save` shows them. Everybody else's rules stay as they are; no table and no chain is ever made here.

use std::net::IpAddr;

use super::expression::{End, Expressions, Transport, accept, address_is, counter, interface_one_of, port};
use super::found::FoundChain;
use super::ruleset::{Rules, and};
use super::table::{MARK, Rule};
use super::{Batch, Family, Found, FoundRule};

/// The table of the host's own firewall, as iptables names it.
pub(crate) const TABLE: &str = "filter";
/// Its chains that see what is for us and from us.
pub(crate) const CHAINS: [&str; 2] = ["INPUT", "OUTPUT"];

/// The chains of the host's firewall that drop by policy.
pub fn filter_drops(found: &Found) -> Vec<(Family, String)> {
    let dropping = filter_chains(found).filter(|chain| chain.drops);
    dropping.map(|chain| (chain.family, chain.name.clone())).collect()
}

/// Puts our accepts at the head of every chain that drops by policy, and takes them out of those that no longer do. Empty
/// if everything is in place.
pub fn accept_in_filter(found: &Found, rules: &Rules) -> Batch {
    let mut batch = Batch::new();
    for chain in filter_chains(found) {
        let wanted = if chain.drops { accepts(chain, rules) } else { Vec::new() };
        let there: Vec<&FoundRule> = ours(found).filter(|rule| is_in(rule, chain)).collect();
        let as_wanted =
            there.iter().map(|rule| rule.comment.clone()).eq(wanted.iter().map(|rule| Some(rule.comment())));
        if as_wanted {
            continue;
        }
        for rule in there {
            batch.delete_rule(rule.family, &rule.table, &rule.chain, rule.handle);
        }
        // each goes before the one put there last
        for rule in wanted.iter().rev() {
            batch.rule_at_head(chain.family, TABLE, &chain.name, rule);
        }
    }
    batch
}

/// Takes our accepts out again.
pub fn remove_from_filter(found: &Found) -> Batch {
    let mut batch = Batch::new();
    for rule in ours(found) {
        batch.delete_rule(rule.family, &rule.table, &rule.chain, rule.handle);
    }
    batch
}

/// The chains `INPUT` and `OUTPUT` of `ip filter` and `ip6 filter`, where there are such.
fn filter_chains(found: &Found) -> impl Iterator<Item = &FoundChain> {
    found.chains.iter().filter(|chain| {
        [Family::Ip, Family::Ip6].contains(&chain.family)
            && chain.table == TABLE
            && CHAINS.contains(&chain.name.as_str())
    })
}

/// Our rules in other people's tables.
fn ours(found: &Found) -> impl Iterator<Item = &FoundRule> {
    found.rules.iter().filter(|rule| {
        [Family::Ip, Family::Ip6].contains(&rule.family)
            && rule.table == TABLE
            && rule.comment.as_deref().is_some_and(|comment| comment.starts_with(MARK))
    })
}

fn is_in(rule: &FoundRule, chain: &FoundChain) -> bool {
    (rule.family, &rule.table, &rule.chain) == (chain.family, &chain.table, &chain.name)
}

/// What a chain must let through for us.
fn accepts(chain: &FoundChain, rules: &Rules) -> Vec<Rule> {
    let input = chain.name == CHAINS[0];
    let mut all = Vec::new();
    for address in rules.of_family(chain.family == Family::Ip) {
        let accepted = |what: Expressions| and(what, [counter(), accept()]);
        let mut add = |about: &str, end: End, transport: Transport, number: u16| {
            let what = and(address_is(end, address), port(transport, end, number));
            all.push(Rule::new(about, accepted(what)));
        };
        for transport in Transport::BOTH {
            add("queries", End::Destination, transport, rules.port);
        }
        for endpoint in rules.health.iter().filter(|endpoint| endpoint.ip() == address) {
            add("health", End::Destination, Transport::Tcp, endpoint.port());
        }
        if input {
            all.push(Rule::new("replies to the host itself", accepted(from_loopback(address))));
        } else {
            for transport in Transport::BOTH {
                add("replies", End::Source, transport, rules.port);
            }
            for endpoint in rules.health.iter().filter(|endpoint| endpoint.ip() == address) {
                add("health replies", End::Source, Transport::Tcp, endpoint.port());
            }
        }
    }
    all
}

/// `-s address -i lo`.
fn from_loopback(address: IpAddr) -> Expressions {
    and(address_is(End::Source, address), interface_one_of(&["lo".to_owned()]))
}
