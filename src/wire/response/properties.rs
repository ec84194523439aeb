//! What holds for every response, whoever sent it. A second implementation (hickory-proto) writes and reads.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::svcb::{IpHint, SvcParamKey, SvcParamValue};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, HTTPS, MX, NS, PTR, SOA, SRV, SVCB, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::fixture::{self, ID, judge, query};
use super::*;
use crate::wire::edit;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn arbitrary_octets_are_judged(octets in prop::collection::vec(any::<u8>(), 0..600)) {
        let query = query("a.test", Type::A, true);
        check_whatever_was_accepted(&octets, &query);
        // The same behind a header and question that get it past the first checks.
        let mut reply = fixture::Reply::to("a.test", Type::A).octets;
        reply.extend_from_slice(&octets);
        for (field, count) in [7, 9, 11].into_iter().zip(&octets) {
            reply[field] = count % 8;
        }
        check_whatever_was_accepted(&reply, &query);
    }

    #[test]
    fn damaged_responses_are_judged(
        scene in scene(),
        damage in prop::collection::vec((any::<Index>(), any::<u8>()), 0..6),
        cut in any::<Index>(),
        whole in any::<bool>(),
    ) {
        let mut octets = scene.octets();
        for (at, octet) in damage {
            let at = at.index(octets.len());
            octets[at] = octet;
        }
        if !whole {
            octets.truncate(cut.index(octets.len() + 1));
        }
        check_whatever_was_accepted(&octets, &scene.query());
    }

    #[test]
    fn records_that_belong_to_the_answer_come_through_unchanged(scene in scene()) {
        let response = judge(&scene.octets(), &scene.query()).expect("well-formed");
        prop_assert_eq!(response.lines(), scene.expected());
        let addresses = response.lines().iter().any(|line| line.contains(" AAAA ") || line.contains("ipv6hint"));
        prop_assert_eq!(response.contains_aaaa(), addresses);
    }

    #[test]
    fn taking_out_aaaa_takes_out_nothing_else(scene in scene()) {
        let response = judge(&scene.octets(), &scene.query()).expect("well-formed");
        let (octets, ttl_offsets) = edit::without_aaaa(response.stored()).into_parts();
        let before = response.lines().into_iter().filter(|line| !line.contains(" AAAA "));
        let before: Vec<String> = before.map(|line| line.replace(HINT, "")).collect();
        prop_assert_eq!(fixture::records(&octets, &ttl_offsets), before);
    }
}

/// If `octets` are accepted, the result is well-formed, and examining it again changes nothing.
fn check_whatever_was_accepted(octets: &[u8], query: &[u8]) {
    let Ok(response) = judge(octets, query) else {
        return;
    };
    let mut again = response.octets().to_vec();
    again[..2].copy_from_slice(&ID.to_be_bytes());
    let second = judge(&again, query).expect("what was cleaned is fit");
    assert_eq!((second.octets(), second.ttl_offsets()), (response.octets(), response.ttl_offsets()));
    assert_eq!((second.min_ttl(), second.rcode()), (response.min_ttl(), Rcode(response.rcode().0 & 0x0f)));
    let edited = edit::without_aaaa(response.stored());
    let mut octets = edited.stored().octets().to_vec();
    octets[..2].copy_from_slice(&ID.to_be_bytes());
    assert!(!judge(&octets, query).expect("what was edited is fit").contains_aaaa());
}

// === scenes ===

/// A response in hickory's terms.
#[derive(Clone, Debug)]
struct Scene {
    qtype: RecordType,
    rcode: ResponseCode,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
    edns: bool,
}

const QNAME: &str = "q.a.test.";
const NAMES: [&str; 9] =
    [QNAME, "www.a.test.", "b.test.", "ns.a.test.", "h1.a.test.", "a.test.", "test.", "victim.example.", "."];
/// As hickory prints it.
const HINT: &str = " ipv6hint=2001:db8::1,";

fn scene() -> impl Strategy<Value = Scene> {
    let types = vec![
        RecordType::A,
        RecordType::AAAA,
        RecordType::NS,
        RecordType::MX,
        RecordType::SRV,
        RecordType::TXT,
        RecordType::SOA,
        RecordType::HTTPS,
        RecordType::ANY,
    ];
    let rcodes = vec![ResponseCode::NoError, ResponseCode::NXDomain];
    (
        select(types),
        select(rcodes),
        0..4_usize,
        prop::collection::vec(record(), 0..12),
        prop::collection::vec(record(), 0..6),
        prop::collection::vec(record(), 0..6),
        any::<bool>(),
    )
        .prop_flat_map(|(qtype, rcode, links, mut answers, authorities, additionals, edns)| {
            answers.extend(chain(links));
            Just(answers).prop_shuffle().prop_map(move |answers| Scene {
                qtype,
                rcode,
                answers,
                authorities: authorities.clone(),
                additionals: additionals.clone(),
                edns,
            })
        })
}

/// CNAMEs from QNAME to `www.a.test.`.
fn chain(links: usize) -> impl Iterator<Item = Record> {
    let at = move |link: usize| match link {
        0 => QNAME.to_owned(),
        link if link == links => "www.a.test.".to_owned(),
        link => format!("c{link}.b.test."),
    };
    (0..links).map(move |link| Record::from_rdata(name(&at(link)), 77, RData::CNAME(CNAME(name(&at(link + 1))))))
}

fn record() -> impl Strategy<Value = Record> {
    let ttl = prop_oneof![Just(60_u32), Just(300), 0..=TTL_MAX];
    (select(&NAMES[..]), ttl, rdata()).prop_map(|(owner, ttl, rdata)| Record::from_rdata(name(owner), ttl, rdata))
}

fn rdata() -> impl Strategy<Value = RData> {
    let host = || select(&NAMES[..]).prop_map(name);
    prop_oneof![
        any::<u32>().prop_map(|bits| RData::A(A(Ipv4Addr::from_bits(bits)))),
        any::<u128>().prop_map(|bits| RData::AAAA(AAAA(Ipv6Addr::from_bits(bits)))),
        host().prop_map(|host| RData::NS(NS(host))),
        host().prop_map(|host| RData::PTR(PTR(host))),
        (any::<u16>(), host()).prop_map(|(preference, host)| RData::MX(MX::new(preference, host))),
        (any::<u16>(), host()).prop_map(|(port, host)| RData::SRV(SRV::new(0, 1, port, host))),
        "[a-z]{0,20}".prop_map(|text| RData::TXT(TXT::new(vec![text]))),
        (host(), host(), any::<u32>()).prop_map(|(m, r, minimum)| RData::SOA(SOA::new(m, r, 7, 1, 2, 3, minimum))),
        (host(), any::<bool>()).prop_map(|(host, hint)| {
            let port = (SvcParamKey::Port, SvcParamValue::Port(443));
            let address = AAAA(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
            let hint = hint.then(|| (SvcParamKey::Ipv6Hint, SvcParamValue::Ipv6Hint(IpHint(vec![address]))));
            RData::HTTPS(HTTPS(SVCB::new(1, host, [port].into_iter().chain(hint).collect())))
        }),
    ]
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("a legal name")
}

impl Scene {
    fn octets(&self) -> Vec<u8> {
        let mut message = Message::new(ID, MessageType::Response, OpCode::Query);
        message.metadata.response_code = self.rcode;
        message.add_query(Query::query(name(QNAME), self.qtype));
        message.add_answers(self.answers.clone());
        message.add_authorities(self.authorities.clone());
        message.add_additionals(self.additionals.clone());
        if self.edns {
            message.set_edns(Edns::new());
        }
        message.to_vec().expect("short enough")
    }

    fn query(&self) -> Vec<u8> {
        query(QNAME, Type(self.qtype.into()), false)
    }

    /// What the rules leave, section by section, found the slow way.
    fn expected(&self) -> Vec<String> {
        let (last, links) = self.walk_chain();
        let answered = |record: &Record| {
            record.name == last && (self.qtype == RecordType::ANY || record.record_type() == self.qtype)
        };
        let mut seen_soa = false;
        let answers = self.answers.iter().enumerate();
        let answers = answers.filter(|(index, record)| answered(record) || links.contains(index));
        let mut kept: Vec<(&str, Record)> = answers.map(|(_, record)| ("an", record.clone())).collect();
        for record in self.authorities.iter().filter(|record| record.name.zone_of(&last)) {
            match record.record_type() {
                RecordType::NS => {}
                RecordType::SOA if !seen_soa => seen_soa = true,
                _ => continue,
            }
            kept.push(("ns", record.clone()));
        }
        let named: Vec<Name> = kept.iter().filter_map(|(_, record)| host_named_by(record)).collect();
        for record in self.additionals.iter().filter(|record| named.contains(&record.name)) {
            if matches!(record.record_type(), RecordType::A | RecordType::AAAA) {
                kept.push(("ar", record.clone()));
            }
        }
        if !self.answers.iter().any(answered) {
            for (section, record) in &mut kept {
                if let (&mut "ns", RData::SOA(soa)) = (section, &record.data) {
                    record.ttl = record.ttl.min(soa.minimum);
                }
            }
        }
        let mut lowest = HashMap::new();
        for (_, record) in &kept {
            let ttl = lowest.entry((record.name.clone(), record.record_type())).or_insert(record.ttl);
            *ttl = record.ttl.min(*ttl);
        }
        let line = |(section, record): &(&str, Record)| {
            let ttl = lowest[&(record.name.clone(), record.record_type())];
            format!("{section} {} {ttl} {} {}", record.name, record.record_type(), record.data)
        };
        kept.iter().map(line).collect()
    }

    /// The name the answer must have, and the indices of the CNAMEs that lead there.
    fn walk_chain(&self) -> (Name, Vec<usize>) {
        let (mut last, mut links) = (name(QNAME), Vec::new());
        let found = |last: &Name| self.answers.iter().any(|r| r.name == *last && r.record_type() == self.qtype);
        while self.qtype != RecordType::ANY && !found(&last) {
            let next = self.answers.iter().enumerate().find_map(|(index, record)| match &record.data {
                RData::CNAME(target) if record.name == last => Some((index, target.0.clone())),
                _ => None,
            });
            let Some((index, target)) = next else {
                break;
            };
            links.push(index);
            last = target;
        }
        (last, links)
    }
}

fn host_named_by(record: &Record) -> Option<Name> {
    match &record.data {
        RData::NS(host) => Some(host.0.clone()),
        RData::MX(mx) => Some(mx.exchange.clone()),
        RData::SRV(srv) => Some(srv.target.clone()),
        RData::HTTPS(https) if https.0.target_name.is_root() => Some(record.name.clone()),
        RData::HTTPS(https) => Some(https.0.target_name.clone()),
        _ => None,
    }
}
