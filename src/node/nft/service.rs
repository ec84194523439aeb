//! What kube-proxy leaves in the kernel for a Service: for stages without a kube-proxy, such as the demo's.
//!
//! No agent writes this; on a node it is somebody else's.

use std::net::{IpAddr, SocketAddr};

use super::expression::{End, Transport, address_is, dnat_to_one_of, port};
use super::ruleset::and;
use super::table::{Chain, Hook, Kind, Rule, Table};
use super::{Batch, Family};

/// `NF_IP_PRI_NAT_DST`.
const DESTINATION: i32 = -100;

/// A table `ip kube-proxy` that sends UDP and TCP for `address` and `on` to one of `endpoints`, by dice. All are IPv4.
pub fn service(address: IpAddr, on: u16, endpoints: &[SocketAddr]) -> Batch {
    let rules = Transport::BOTH.map(|transport| {
        let to = and(address_is(End::Destination, address), port(transport, End::Destination, on));
        Rule::new(format!("service {} {address}", transport.word()), and(to, dnat_to_one_of(endpoints)))
    });
    let chain = Chain::base("services", Kind::Nat, Hook::Prerouting, DESTINATION, rules.to_vec());
    let table = Table { family: Family::Ip, name: "kube-proxy", owner: false, sets: Vec::new(), chains: vec![chain] };
    let mut batch = Batch::new();
    table.replace(&mut batch);
    batch
}
