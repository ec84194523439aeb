//! What happens to a question before anybody is asked: answered here, refused, or routed.
//!
//! The zone with the longest match on label bounds decides, whatever the letter case. Address pins answer for their
//! whole zone, and their addresses answer for the name (PTR).
//!
//! Read first: RFC 1034 section 4.3.2 step 2 (longest match), RFC 2308 section 2.

use std::collections::HashMap;
use std::net::IpAddr;

use ahash::RandomState;

use crate::plan::{Aaaa, Action, Plan, Prefix, Zone};
use crate::wire::{Ede, Key, Name, Rcode, Type, name};

/// TTL of what is answered from the configuration: short, since the next reload may say otherwise.
pub const LOCAL_TTL: u32 = 60;

/// The zones of a plan, ready to be asked.
pub struct Policy {
    zones: Vec<Zone>,
    by_name: HashMap<Box<[u8]>, usize, RandomState>,
    /// Bit n is set if a zone with n labels exists; saves look-ups that cannot match.
    label_counts: u128,
    /// Names pinned to an address, by its reverse name.
    pointers: HashMap<Box<[u8]>, Vec<Name>, RandomState>,
    aaaa_clients: Vec<Prefix>,
}

/// Where a question belongs, and what is to be done with it.
#[derive(Debug)]
pub struct Verdict<'a> {
    /// Index of its zone in the plan.
    pub zone: usize,
    pub decision: Decision<'a>,
}

/// What is to be done with a question.
#[derive(Debug)]
pub enum Decision<'a> {
    /// Answer here.
    Addresses(&'a [IpAddr]),
    /// There is no such name or data; `zone` owns the SOA.
    Negative {
        rcode: Rcode,
        zone: &'a Name,
        ede: Ede,
    },
    Pointers(&'a [Name]),
    Refused,
    /// Look in the cache, then ask the upstream with the index `upstream`.
    Route {
        zone: &'a Zone,
        upstream: usize,
        aaaa: Aaaa,
    },
}

impl Policy {
    /// Sorts out the zones of `plan`.
    pub fn new(plan: &Plan) -> Self {
        let mut by_name = HashMap::default();
        let mut pointers: HashMap<Box<[u8]>, Vec<Name>, RandomState> = HashMap::default();
        let mut label_counts = 0_u128;
        for (index, zone) in plan.zones.iter().enumerate() {
            by_name.insert(zone.name.as_wire().into(), index);
            label_counts |= 1 << zone.name.labels();
            if let Action::Addresses(addresses) = &zone.action {
                for address in addresses {
                    pointers.entry(name::reverse(*address).as_wire().into()).or_default().push(zone.name.clone());
                }
            }
        }
        Self { zones: plan.zones.clone(), by_name, label_counts, pointers, aaaa_clients: plan.aaaa_clients.clone() }
    }

    /// Decides about the question of `client`.
    pub fn decide(&self, key: &Key, client: IpAddr) -> Verdict<'_> {
        let (index, labels_before) = self.zone(key.qname());
        if !self.pointers.is_empty()
            && let Some(names) = self.pointers.get(key.qname())
        {
            let decision = match key.qtype() {
                Type::PTR | Type::ANY => Decision::Pointers(names),
                _ => Decision::Negative { rcode: Rcode::NOERROR, zone: &names[0], ede: Ede::SYNTHESIZED },
            };
            return Verdict { zone: index, decision };
        }
        let zone = &self.zones[index];
        let decision = match &zone.action {
            Action::Addresses(addresses) => Decision::Addresses(addresses),
            Action::Nodata => Decision::Negative { rcode: Rcode::NOERROR, zone: &zone.name, ede: Ede::FILTERED },
            Action::Nxdomain => Decision::Negative { rcode: Rcode::NXDOMAIN, zone: &zone.name, ede: Ede::FILTERED },
            Action::Refused => Decision::Refused,
            Action::Route(_) if zone.max_labels.is_some_and(|most| labels_before > usize::from(most)) => {
                Decision::Negative { rcode: Rcode::NXDOMAIN, zone: &zone.name, ede: Ede::SYNTHESIZED }
            }
            Action::Route(upstream) => {
                let concerned =
                    self.aaaa_clients.is_empty() || self.aaaa_clients.iter().any(|net| net.contains(client));
                let aaaa = if concerned { zone.aaaa } else { Aaaa::Keep };
                Decision::Route { zone, upstream: *upstream, aaaa }
            }
        };
        Verdict { zone: index, decision }
    }

    /// The index of the zone that `qname` (lower case) lies in, and how many labels stand before the zone's own.
    fn zone(&self, qname: &[u8]) -> (usize, usize) {
        let labels = name::label_count(qname);
        for (before, suffix) in name::suffixes(qname).enumerate() {
            if self.label_counts & (1 << (labels - before)) != 0
                && let Some(index) = self.by_name.get(suffix)
            {
                return (*index, before);
            }
        }
        unreachable!("Plan::new requires the root zone, and every name lies in it")
    }
}

#[cfg(test)]
mod tests;
