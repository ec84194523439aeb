//! Zones small enough to be written down in Rust, and the answers they give.
//!
//! Answers as an authoritative server does: a chain of aliases is followed inside what we hold, a name that only has
//! names below it exists, and every negative answer carries the SOA that says how long it is good for.
//!
//! Read first: RFC 1034 section 4.3.2, RFC 2308 section 2, RFC 8020 section 2.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, NS, PTR, SOA, SRV};
use hickory_proto::rr::{LowerName, Name, RData, Record, RecordType};

/// Aliases followed in one answer. The zones here have chains of one; the bound is against a loop by mistake.
const MAX_CHAIN: usize = 8;

/// One zone: an apex with its SOA, and what is below it.
pub(super) struct Zone {
    apex: Name,
    soa: Record,
    ttl: u32,
    /// Names that exist only because others are below them are here, with no records.
    records: HashMap<LowerName, Vec<Record>>,
}

/// All zones of one server.
pub(super) struct Zones(Vec<Zone>);

/// What a server says to one question.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) rcode: ResponseCode,
    pub(super) answers: Vec<Record>,
    /// The SOA of a negative answer.
    pub(super) authority: Option<Record>,
}

// === impl Zone ===

impl Zone {
    /// An empty zone whose records live `ttl` seconds and whose negative answers live `negative_ttl` seconds.
    pub(super) fn new(apex: &str, ttl: u32, negative_ttl: u32) -> Self {
        let apex = name(apex, &Name::root());
        let server = name("ns", &apex);
        let soa = SOA::new(server.clone(), name("hostmaster", &apex), 1, 7200, 1800, 86_400, negative_ttl);
        let soa = Record::from_rdata(apex.clone(), ttl, RData::SOA(soa));
        let mut zone = Self { apex, soa: soa.clone(), ttl, records: HashMap::new() };
        zone.insert(soa);
        zone.add("@", RData::NS(NS(server)))
    }

    /// Adds addresses of either family. `host` is relative to the apex unless it ends in a dot; `@` is the apex.
    pub(super) fn addresses<T: Into<IpAddr>>(self, host: &str, addresses: impl IntoIterator<Item = T>) -> Self {
        addresses.into_iter().fold(self, |zone, address| {
            let data = match address.into() {
                IpAddr::V4(address) => RData::A(A(address)),
                IpAddr::V6(address) => RData::AAAA(AAAA(address)),
            };
            zone.add(host, data)
        })
    }

    pub(super) fn alias(self, host: &str, target: &str) -> Self {
        let target = name(target, &self.apex);
        self.add(host, RData::CNAME(CNAME(target)))
    }

    pub(super) fn mail(self, host: &str, preference: u16, exchange: &str) -> Self {
        let exchange = name(exchange, &self.apex);
        self.add(host, RData::MX(MX::new(preference, exchange)))
    }

    /// Adds the PTR for `address`, which must lie in this reverse zone.
    pub(super) fn pointer(self, address: Ipv4Addr, target: &str) -> Self {
        let [a, b, c, d] = address.octets();
        let owner = format!("{d}.{c}.{b}.{a}.in-addr.arpa.");
        let target = name(target, &Name::root());
        self.add(&owner, RData::PTR(PTR(target)))
    }

    pub(super) fn service(self, host: &str, port: u16, target: &str) -> Self {
        let target = name(target, &self.apex);
        self.add(host, RData::SRV(SRV::new(0, 33, port, target)))
    }

    pub(super) fn add(mut self, host: &str, data: RData) -> Self {
        let owner = if host == "@" { self.apex.clone() } else { name(host, &self.apex) };
        self.insert(Record::from_rdata(owner, self.ttl, data));
        self
    }

    fn insert(&mut self, record: Record) {
        assert!(self.apex.zone_of(&record.name), "{} is written down in the zone {}", record.name, self.apex);
        let mut parent = record.name.clone();
        while parent.num_labels() > self.apex.num_labels() {
            parent = parent.base_name();
            self.records.entry(LowerName::new(&parent)).or_default();
        }
        self.records.entry(LowerName::new(&record.name)).or_default().push(record);
    }
}

// === impl Zones ===

impl Zones {
    pub(super) fn new(zones: Vec<Zone>) -> Self {
        Self(zones)
    }

    /// Answers one question of class IN; REFUSED for what is in none of the zones.
    pub(super) fn answer(&self, qname: &LowerName, qtype: RecordType) -> Answer {
        let mut answers = Vec::new();
        let mut current = qname.clone();
        for _ in 0..MAX_CHAIN {
            let Some(zone) = self.closest(&current) else {
                // The end of a chain that leads elsewhere is for the asker to follow.
                let rcode = if answers.is_empty() { ResponseCode::Refused } else { ResponseCode::NoError };
                return Answer { rcode, answers, authority: None };
            };
            let Some(records) = zone.records.get(&current) else {
                return Answer { rcode: ResponseCode::NXDomain, answers, authority: Some(zone.soa.clone()) };
            };
            let before = answers.len();
            answers.extend(records.iter().filter(|it| qtype.is_any() || it.record_type() == qtype).cloned());
            if answers.len() > before {
                return Answer { rcode: ResponseCode::NoError, answers, authority: None };
            }
            let Some((record, target)) = records.iter().find_map(|it| match &it.data {
                RData::CNAME(target) => Some((it.clone(), LowerName::new(&target.0))),
                _ => None,
            }) else {
                return Answer { rcode: ResponseCode::NoError, answers, authority: Some(zone.soa.clone()) };
            };
            answers.push(record);
            current = target;
        }
        Answer { rcode: ResponseCode::ServFail, answers: Vec::new(), authority: None }
    }

    /// The zone with the longest apex at or above `name`.
    fn closest(&self, name: &LowerName) -> Option<&Zone> {
        self.0.iter().filter(|zone| zone.apex.zone_of(name)).max_by_key(|zone| zone.apex.num_labels())
    }
}

/// The name `written` relative to `origin`, or as it is if it ends in a dot.
fn name(written: &str, origin: &Name) -> Name {
    let absolute = if written.ends_with('.') { written.to_owned() } else { format!("{written}.{}", origin.to_ascii()) };
    let absolute = if absolute.len() > 1 { absolute.replace("..", ".") } else { absolute };
    Name::from_ascii(&absolute).expect("names written down in this program are legal")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones() -> Zones {
        Zones::new(vec![
            Zone::new(".", 60, 20),
            Zone::new("lan.", 60, 20)
                .addresses("idrac.rack", [[192, 168, 1, 4]])
                .alias("console", "idrac.rack")
                .alias("away", "elsewhere.test.")
                .alias("loop", "loop"),
            Zone::new("1.168.192.in-addr.arpa.", 60, 20).pointer([192, 168, 1, 4].into(), "idrac.rack.lan."),
        ])
    }

    fn ask(written: &str, qtype: RecordType) -> Answer {
        zones().answer(&LowerName::new(&name(written, &Name::root())), qtype)
    }

    #[test]
    fn addresses_are_found_in_any_letter_case() {
        let answer = ask("IDRAC.Rack.lan.", RecordType::A);
        assert_eq!(answer.rcode, ResponseCode::NoError);
        assert_eq!(answer.answers[0].data, RData::A(A::new(192, 168, 1, 4)));
    }

    #[test]
    fn an_alias_is_followed_to_its_addresses() {
        let answer = ask("console.lan.", RecordType::A);
        let types: Vec<_> = answer.answers.iter().map(Record::record_type).collect();
        assert_eq!(types, [RecordType::CNAME, RecordType::A]);
    }

    #[test]
    fn an_alias_to_a_missing_name_is_nxdomain_with_the_alias() {
        let answer = ask("away.lan.", RecordType::A);
        assert_eq!(answer.rcode, ResponseCode::NXDomain);
        assert_eq!(answer.answers.len(), 1);
        assert_eq!(answer.authority.map(|soa| soa.name), Some(Name::root()));
    }

    #[test]
    fn an_alias_to_itself_ends() {
        assert_eq!(ask("loop.lan.", RecordType::A).rcode, ResponseCode::ServFail);
    }

    #[test]
    fn a_name_with_only_names_below_it_exists() {
        let answer = ask("rack.lan.", RecordType::A);
        assert_eq!(answer.rcode, ResponseCode::NoError);
        assert!(answer.answers.is_empty());
        assert!(answer.authority.is_some());
    }

    #[test]
    fn a_missing_name_is_nxdomain_with_the_soa_of_the_closest_zone() {
        let answer = ask("nobody.lan.", RecordType::A);
        assert_eq!(answer.rcode, ResponseCode::NXDomain);
        assert_eq!(answer.authority.map(|soa| soa.name.to_ascii()), Some("lan.".to_owned()));
    }

    #[test]
    fn pointers_are_found_under_the_reversed_address() {
        let answer = ask("4.1.168.192.in-addr.arpa.", RecordType::PTR);
        assert_eq!(answer.answers.len(), 1);
    }

    #[test]
    fn a_name_outside_every_zone_is_refused() {
        let only_lan = Zones::new(vec![Zone::new("lan.", 60, 20)]);
        let outside = LowerName::new(&name("example.com.", &Name::root()));
        assert_eq!(only_lan.answer(&outside, RecordType::A).rcode, ResponseCode::Refused);
    }
}
