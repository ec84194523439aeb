//! Who answers for an address nobody but us has, while we do not: the cluster's DNS, by NAT the kernel does alone.
//!
//! Only tracked packets get here, so nothing we have intercepted does. What comes in over an uplink is left to the guard,
//! unless it is allowed. The host's own queries have our address for a source, which leads nowhere outside: they are
//! masqueraded.

use super::expression::{
    End, Transport, accept, address_one_of, address_within, counter, dnat_to_one_of, from_this_host, interface_one_of,
    jump, masquerade, originally_to, port, translated,
};
use super::ruleset::{Rules, and};
use super::table::{Chain, Hook, Kind, Rule};

/// Right before kube-proxy in prerouting (`NF_IP_PRI_NAT_DST - 1`).
const BEFORE_PODS: i32 = -101;
/// Right before kube-proxy in postrouting (`NF_IP_PRI_NAT_SRC - 1`).
const BEFORE_SOURCE: i32 = 99;

const SERVERS: &str = "fallback_servers";

/// The chains; none if there is no address to answer for.
pub(crate) fn chains(rules: &Rules) -> Vec<Chain> {
    if rules.fallback.is_empty() {
        return Vec::new();
    }
    let to_servers = || Rule::new("to cluster DNS", vec![jump(SERVERS)]);
    let mut from_pods = Vec::new();
    if !rules.uplinks.is_empty() {
        for prefix in &rules.allow {
            let allowed = and(interface_one_of(&rules.uplinks), address_within(End::Source, prefix));
            from_pods.push(Rule::new("allowed over an uplink", and(allowed, [jump(SERVERS)])));
        }
        from_pods.push(Rule::new("not over an uplink", and(interface_one_of(&rules.uplinks), [accept()])));
    }
    from_pods.push(to_servers());
    vec![
        Chain::regular(SERVERS, servers(rules)),
        Chain::base("fallback", Kind::Nat, Hook::Prerouting, BEFORE_PODS, from_pods),
        Chain::base("fallback_host", Kind::Nat, Hook::Output, BEFORE_PODS, vec![to_servers()]),
        Chain::base("fallback_source", Kind::Nat, Hook::Postrouting, BEFORE_SOURCE, sources(rules)),
    ]
}

/// One of the servers of each address, by dice.
fn servers(rules: &Rules) -> Vec<Rule> {
    let mut all = Vec::new();
    for (address, servers) in &rules.fallback {
        // the kernel translates an address to one of its own family only
        let servers: Vec<_> = servers.iter().copied().filter(|it| it.is_ipv4() == address.is_ipv4()).collect();
        if servers.is_empty() {
            continue;
        }
        for transport in Transport::BOTH {
            let to = and(address_one_of(End::Destination, &[*address]), port(transport, End::Destination, rules.port));
            let how = and(and(to, [counter()]), dnat_to_one_of(&servers));
            all.push(Rule::new(format!("fallback {} for {address}", transport.word()), how));
        }
    }
    all
}

/// What the host itself sent and the fallback turned away.
fn sources(rules: &Rules) -> Vec<Rule> {
    let own = rules.fallback.iter().map(|(address, _)| {
        let sent = and(and(translated(), originally_to(*address)), from_this_host());
        Rule::new(format!("host to {address}"), and(sent, [masquerade()]))
    });
    own.collect()
}
