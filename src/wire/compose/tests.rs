//! What clients and upstreams get, read back by hickory-proto.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::op::{Message, MessageType, OpCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{RData, Record};
use proptest::prelude::*;

use super::super::testing::{malformed, malformed_cases};
use super::super::{Edns, MESSAGE_MAX, Query, UDP_MAX};
use super::*;

const QNAME: &[u8] = b"\x01a\x04test\0";

// C15, E13
#[test]
fn reply_has_the_id_question_and_flags_of_its_asker() {
    let stored = Sample::answers(&[a(300, 1)]);
    for bits in 0_u8..16 {
        let [recursion_desired, checking_disabled, authentic_data, dnssec_ok] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
        let asker = Asker {
            id: 0xbeef,
            question: b"\x01A\x04tEsT\0\0\x01\0\x01",
            recursion_desired,
            checking_disabled,
            authentic_data,
            edns: Some(Edns { payload_size: 1232, dnssec_ok, keepalive: false }),
            transport: Transport::Udp,
        };
        let reply = patched(&stored, &asker, TtlRule::AsStored);
        let flags = Header::read(&reply).expect("a header").flags;
        assert_eq!(&reply[..2], [0xbe, 0xef]);
        assert_eq!(&reply[HEADER..HEADER + asker.question.len()], asker.question);
        let mut expected = QR | RA;
        expected |= if recursion_desired { RD } else { 0 };
        expected |= if checking_disabled { CD } else { 0 };
        // C12: the stored answer has AD.
        expected |= if authentic_data || dnssec_ok { AD } else { 0 };
        assert_eq!(flags, expected, "{asker:?}");
        // E02: one OPT, DO copied, all else zero.
        let edns = read(&reply).edns.expect("the client sent OPT");
        assert_eq!(
            (edns.version(), edns.max_payload(), edns.flags().dnssec_ok, edns.flags().z),
            (0, 1232, dnssec_ok, 0)
        );
        assert!(edns.options().as_ref().is_empty());
    }
}

// C12
#[test]
fn ad_is_never_made_up() {
    let mut stored = Sample::answers(&[a(300, 1)]);
    stored.octets[3] &= !0x20;
    let asker = Asker { authentic_data: true, ..udp(None) };
    assert!(!read(&patched(&stored, &asker, TtlRule::AsStored)).metadata.authentic_data);
}

// E01
#[test]
fn client_without_opt_gets_none() {
    let reply = patch(
        Sample::answers(&[a(300, 1)]).stored(),
        &udp(None),
        TtlRule::Age(1),
        Some(Ede::STALE_ANSWER),
        &mut [0; 512],
    );
    assert_eq!(reply, Some(HEADER + QNAME.len() + 4 + 16));
    let reply = patched(&Sample::answers(&[a(300, 1)]), &udp(None), TtlRule::Age(1));
    assert!(read(&reply).edns.is_none());
}

// C01, C05, C17
#[test]
fn ttls_count_down_and_stay_above_zero() {
    let stored = Sample::answers(&[a(300, 1), a(60, 2), a(1, 3), a(0, 4)]);
    assert_eq!(ttls(&patched(&stored, &udp(None), TtlRule::Age(0))), [300, 60, 1, 0]);
    assert_eq!(ttls(&patched(&stored, &udp(None), TtlRule::Age(7))), [293, 53, 1, 0]);
    assert_eq!(ttls(&patched(&stored, &udp(None), TtlRule::Age(u32::MAX))), [1, 1, 1, 0]);
    assert_eq!(ttls(&patched(&stored, &udp(None), TtlRule::AsStored)), [300, 60, 1, 0]);
}

// S07, S11, S18
#[test]
fn stale_answer_has_short_ttls_no_ad_and_says_so() {
    let stored = Sample::new(&[a(5, 1), a(200, 2)], &[soa(3600)], &[]);
    let mut out = [0; 1232];
    let asker = Asker { authentic_data: true, ..udp(Some(1232)) };
    let length = patch(stored.stored(), &asker, TtlRule::Stale { cap: 30 }, Some(Ede::STALE_ANSWER), &mut out);
    let reply = &out[..length.expect("room")];
    assert_eq!(ttls(reply), [5, 30, 30]);
    let message = read(reply);
    assert!(!message.metadata.authentic_data);
    let edns = message.edns.expect("the client sent OPT");
    assert_eq!(edns.option(EdnsCode::Unknown(15)), Some(&EdnsOption::Unknown(15, vec![0, 3])));
}

#[test]
fn stale_answer_never_shows_zero() {
    let stored = Sample::answers(&[a(0, 1), a(9, 2)]);
    assert_eq!(ttls(&patched(&stored, &udp(None), TtlRule::Stale { cap: 0 })), [1, 1]);
}

// E06
#[test]
fn forty_addresses_for_a_small_client_are_cut_between_records() {
    let records: Vec<_> = (0..40).map(|last| a(300, last)).collect();
    let stored = Sample::answers(&records);
    let asker = Asker { authentic_data: true, ..udp(Some(512)) };
    let reply = patched(&stored, &asker, TtlRule::Age(1));
    let message = read(&reply);
    assert!(message.metadata.truncation);
    assert!(!message.metadata.authentic_data);
    assert!(message.edns.is_some());
    // 12 + 12 of header and question, 16 a record, 11 of OPT.
    assert_eq!(message.answers.len(), (512 - 24 - 11) / 16);
    assert_eq!(reply.len(), 24 + 16 * message.answers.len() + 11);
    assert!(ttls(&reply).iter().all(|ttl| *ttl == 299));
}

// E03, E04
#[test]
fn answer_that_fits_exactly_is_whole_and_one_octet_more_is_cut() {
    for (limit, opt) in [(512, None), (512, Some(512)), (1232, Some(1232)), (1232, Some(4096))] {
        let fixed = HEADER + QNAME.len() + 4 + 12 + if opt.is_some() { OPT_MIN } else { 0 };
        for (length, whole) in [(limit - fixed, true), (limit - fixed + 1, false)] {
            let stored = Sample::answers(&[unknown(300, length)]);
            let reply = patched(&stored, &udp(opt), TtlRule::AsStored);
            let message = read(&reply);
            assert_eq!(message.metadata.truncation, !whole, "{limit} {opt:?}");
            assert_eq!(message.answers.len(), usize::from(whole));
            assert_eq!(message.edns.is_some(), opt.is_some());
            assert!(reply.len() <= limit);
            assert!(!whole || reply.len() == limit);
        }
    }
}

// E03
#[test]
fn tcp_gets_the_whole_answer_whatever_the_payload_size() {
    let stored = Sample::answers(&[unknown(300, 60_000)]);
    let reply = patched(&stored, &Asker { transport: Transport::Tcp, ..udp(Some(512)) }, TtlRule::AsStored);
    let message = read(&reply);
    assert!(!message.metadata.truncation);
    assert_eq!(message.answers.len(), 1);
}

#[test]
fn answer_longer_than_the_buffer_is_cut_to_it() {
    let stored = Sample::answers(&[a(300, 1), a(300, 2)]);
    let mut out = [0; 24 + 16];
    assert_eq!(patch(stored.stored(), &udp(None), TtlRule::AsStored, None, &mut out), Some(40));
    let message = read(&out);
    assert!(message.metadata.truncation);
    assert_eq!(message.answers.len(), 1);
    assert_eq!(patch(stored.stored(), &udp(None), TtlRule::AsStored, None, &mut [0; 23]), None);
}

// E07
#[test]
fn nothing_of_one_clients_options_reaches_the_next() {
    let cookie = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\x01\x01a\x04test\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\0\0\0\x10\0\x0a\0\x08COOKIE!!\0\x03\0\0";
    let stored = Sample::answers(&[a(300, 1)]);
    let query = Query::parse(cookie, Transport::Udp).expect("legal");
    let first = patched(&stored, &query.asker(), TtlRule::AsStored);
    assert!(read(&first).edns.expect("the client sent OPT").options().as_ref().is_empty());
    let second = patched(&stored, &udp(Some(1232)), TtlRule::AsStored);
    assert_eq!(first[2..], second[2..]);
}

// E17
#[test]
fn keepalive_is_answered_where_it_was_asked() {
    let stored = Sample::answers(&[a(300, 1)]);
    let edns = Edns { payload_size: 1232, dnssec_ok: false, keepalive: true };
    let asker = Asker { edns: Some(edns), transport: Transport::Tcp, ..udp(None) };
    let edns = read(&patched(&stored, &asker, TtlRule::AsStored)).edns.expect("the client sent OPT");
    assert_eq!(edns.option(EdnsCode::Keepalive), Some(&EdnsOption::Unknown(11, vec![0, 100])));
}

// E14
#[test]
fn failure_explains_itself_only_to_those_who_speak_edns() {
    for (opt, explained) in [(None, false), (Some(1232), true)] {
        let mut out = [0; 512];
        let length = failure(&udp(opt), Rcode::SERVFAIL, Some(Ede::NO_REACHABLE_AUTHORITY), &mut out).expect("room");
        let message = read(&out[..length]);
        assert_eq!(u16::from(message.metadata.response_code), 2);
        assert_eq!(message.queries.len(), 1);
        let ede = message.edns.as_ref().and_then(|edns| edns.option(EdnsCode::Unknown(15)));
        assert_eq!(ede, explained.then_some(&EdnsOption::Unknown(15, vec![0, 22])));
    }
}

#[test]
fn extended_code_without_opt_is_a_plain_failure() {
    let mut out = [0; 512];
    let length = failure(&udp(None), Rcode::BADVERS, None, &mut out).expect("room");
    assert_eq!(u16::from(read(&out[..length]).metadata.response_code), 2);
}

// E15, section 3 of the acceptance cases
#[test]
fn refusal_repeats_the_id_and_is_never_longer_than_the_query() {
    for id in malformed_cases("client") {
        let octets = malformed(&id);
        let transport = if ["MC43", "MC45", "MC55", "MC57", "MC60"].contains(&id.as_str()) {
            Transport::Tcp
        } else {
            Transport::Udp
        };
        let Err(refusal) = Query::parse(&octets, transport) else { continue };
        let mut out = [0; 512];
        let length = refuse(&octets, &refusal, transport, &mut out);
        let Some(rcode) = refusal.rcode() else {
            assert_eq!(length, None, "{id}");
            continue;
        };
        let reply = &out[..length.expect("room")];
        assert!(reply.len() <= octets.len(), "{id}");
        let message = read(reply);
        assert_eq!(message.metadata.id, 0x1234, "{id}");
        assert_eq!(message.metadata.message_type, MessageType::Response, "{id}");
        assert_eq!(u16::from(message.metadata.response_code), rcode.0, "{id}");
        assert_eq!(message.all_sections().count(), 0, "{id}");
    }
}

// MC21a
#[test]
fn refusal_keeps_the_opcode() {
    let octets = malformed("MC21a");
    let mut out = [0; 512];
    let length = refuse(&octets, &Refusal::Opcode, Transport::Udp, &mut out).expect("room");
    assert_eq!((out[2] & 0x78) >> 3, 1);
    assert_eq!(length, octets.len());
}

// MC31
#[test]
fn other_edns_version_gets_ours() {
    let octets = malformed("MC31");
    let mut out = [0; 512];
    let length = refuse(&octets, &Refusal::Version, Transport::Udp, &mut out).expect("room");
    let message = read(&out[..length]);
    assert_eq!(u16::from(message.metadata.response_code), 16);
    assert_eq!(message.edns.expect("BADVERS needs OPT").version(), 0);
}

// V01, C21
#[test]
fn negative_answer_of_our_own_can_be_kept() {
    for (rcode, zone, name) in [
        (Rcode::NXDOMAIN, &b"\x04test\0"[..], "test."),
        (Rcode::NOERROR, QNAME, "a.test."),
        (Rcode::NOERROR, b"\0", "."),
    ] {
        let mut out = [0; 512];
        let length = negative(&udp(Some(1232)), rcode, zone, 30, Some(Ede::FILTERED), &mut out).expect("room");
        let message = read(&out[..length]);
        assert_eq!(u16::from(message.metadata.response_code), rcode.0);
        let [record] = &message.authorities[..] else { panic!("one record in {message}") };
        let RData::SOA(soa) = &record.data else { panic!("an SOA record in {message}") };
        assert_eq!((record.name.to_ascii(), soa.mname.to_ascii()), (name.to_owned(), name.to_owned()));
        assert_eq!(soa.rname.to_ascii(), "nobody.invalid.");
        assert_eq!((record.ttl, soa.minimum, soa.serial), (30, 30, 1));
        assert!(message.edns.expect("the client sent OPT").option(EdnsCode::Unknown(15)).is_some());
    }
}

#[test]
fn negative_answer_without_room_for_its_zone_is_cut() {
    let mut out = [0; 40];
    let length = negative(&udp(None), Rcode::NXDOMAIN, QNAME, 30, None, &mut out).expect("room");
    let message = read(&out[..length]);
    assert!(message.metadata.truncation);
    assert_eq!(message.all_sections().count(), 0);
}

#[test]
fn pinned_addresses_answer_by_type() {
    let pinned: [IpAddr; 3] =
        [Ipv4Addr::new(192, 0, 2, 1).into(), Ipv6Addr::LOCALHOST.into(), Ipv4Addr::new(192, 0, 2, 2).into()];
    for (qtype, expected) in [(Type::A, vec![0, 2]), (Type::AAAA, vec![1]), (Type::ANY, vec![0, 1, 2])] {
        let mut out = [0; 512];
        let question = question(qtype);
        let length = addresses(&Asker { question: &question, ..udp(None) }, &pinned, 7, &mut out).expect("room");
        let message = read(&out[..length]);
        let read: Vec<_> = message.answers.iter().filter_map(|record| record.data.ip_addr()).collect();
        assert_eq!(read, expected.into_iter().map(|at| pinned[at]).collect::<Vec<_>>(), "{qtype}");
        assert!(message.answers.iter().all(|record| record.ttl == 7 && record.name.to_ascii() == "a.test."));
        assert!(message.authorities.is_empty());
    }
}

#[test]
fn pinned_name_has_no_other_types() {
    let mut out = [0; 512];
    let question = question(Type::TXT);
    let asker = Asker { question: &question, ..udp(None) };
    for length in
        [addresses(&asker, &[Ipv4Addr::LOCALHOST.into()], 7, &mut out), pointers(&asker, &[Name::root()], 7, &mut out)]
    {
        let message = read(&out[..length.expect("room")]);
        assert_eq!((message.answers.len(), message.authorities.len()), (0, 1));
        assert_eq!(u16::from(message.metadata.response_code), 0);
    }
}

#[test]
fn more_addresses_than_fit_are_cut() {
    let pinned: Vec<IpAddr> = (0..100).map(|last| Ipv4Addr::new(192, 0, 2, last).into()).collect();
    let mut out = [0; 1232];
    let length = addresses(&udp(Some(512)), &pinned, 7, &mut out).expect("room");
    let message = read(&out[..length]);
    assert!(message.metadata.truncation && message.edns.is_some());
    assert_eq!(message.answers.len(), (512 - 24 - OPT_MIN) / 16);
    // Not one fits: that is no NODATA.
    let length = addresses(&udp(None), &pinned, 7, &mut out[..30]).expect("room");
    let message = read(&out[..length]);
    assert!(message.metadata.truncation);
    assert_eq!(message.all_sections().count(), 0);
}

#[test]
fn reverse_name_answers_with_its_names() {
    let names: [Name; 2] = ["node.example", "Other.Example"].map(|name| name.parse().expect("legal"));
    let mut out = [0; 512];
    let question = question(Type::PTR);
    let length = pointers(&Asker { question: &question, ..udp(None) }, &names, 7, &mut out).expect("room");
    let read: Vec<_> = read(&out[..length]).answers.iter().map(|record| record.data.to_string()).collect();
    assert_eq!(read, ["node.example.", "other.example."]);
}

// E18, E08, C12
#[test]
fn upstream_is_asked_with_rd_ad_and_a_bare_opt() {
    for (dnssec_ok, cd) in [(false, false), (false, true), (true, false), (true, true)] {
        let key = Key::new(QNAME, Type::AAAA, dnssec_ok, cd).expect("legal");
        let mut out = [0; QUERY_MAX];
        let length = upstream_query(&key, 0x4711, None, true, &mut out).expect("room");
        let message = read(&out[..length]);
        assert_eq!((message.metadata.id, message.metadata.op_code), (0x4711, OpCode::Query));
        assert_eq!(message.metadata.message_type, MessageType::Query);
        assert!(message.metadata.recursion_desired && message.metadata.authentic_data);
        assert_eq!(message.metadata.checking_disabled, cd);
        assert_eq!(message.queries.len(), 1);
        assert_eq!(message.queries[0].to_string(), "a.test. IN AAAA");
        let edns = message.edns.expect("asked for");
        assert_eq!((edns.max_payload(), edns.version(), edns.flags().dnssec_ok), (1232, 0, dnssec_ok));
        assert!(edns.options().as_ref().is_empty());
        // What we ask is what we are asked.
        assert_eq!(Query::parse(&out[..length], Transport::Udp).expect("legal").key(), &key);
    }
}

#[test]
fn upstream_that_knows_no_edns_is_asked_without() {
    let key = Key::new(QNAME, Type::A, true, false).expect("legal");
    let mut out = [0; QUERY_MAX];
    let length = upstream_query(&key, 1, None, false, &mut out).expect("room");
    assert_eq!(length, HEADER + QNAME.len() + 4);
    assert!(read(&out[..length]).edns.is_none());
    assert_eq!(upstream_query(&key, 1, None, false, &mut out[..length - 1]), None);
}

#[test]
fn letters_are_in_upper_case_where_a_bit_is_set() {
    let key = Key::new(b"\x03a-c\x04tes1\0", Type::A, false, false).expect("legal");
    let mut out = [0; QUERY_MAX];
    upstream_query(&key, 1, Some([u64::MAX; 4]), false, &mut out).expect("room");
    assert_eq!(&out[HEADER..HEADER + 10], b"\x03A-C\x04TES1\0");
    upstream_query(&key, 1, Some([0b1000_1010, 0, 0, 0]), false, &mut out).expect("room");
    assert_eq!(&out[HEADER..HEADER + 10], b"\x03A-C\x04teS1\0");

    let mut longest = b"\x01a".repeat(127);
    longest.push(0);
    let key = Key::new(&longest, Type::A, true, true).expect("legal");
    assert_eq!(upstream_query(&key, 1, Some([u64::MAX; 4]), true, &mut out), Some(QUERY_MAX));
    assert_eq!(&out[HEADER + 252..HEADER + 255], b"\x01A\0");
}

proptest! {
    // E04, E06
    #[test]
    fn cut_reply_is_the_longest_whole_prefix(
        answers in records(), authorities in records(), additionals in records(),
        payload_size in 0_u16..2000, edns: bool, tcp: bool, age in 0_u32..400,
    ) {
        let stored = Sample::new(&answers, &authorities, &additionals);
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        let asker = Asker { transport, ..udp(edns.then_some(payload_size)) };
        let reply = patched(&stored, &asker, TtlRule::Age(age));
        let message = read(&reply);

        prop_assert!(reply.len() <= asker.limit());
        prop_assert_eq!(message.edns.is_some(), edns);
        let all: Vec<_> = [answers, authorities, additionals].concat();
        let kept = message.all_sections().count();
        prop_assert_eq!(message.metadata.truncation, kept < all.len());
        prop_assert_eq!(message.metadata.truncation, stored.octets.len() + if edns { OPT_MIN } else { 0 } > asker.limit());
        if let Some(next) = all.get(kept) {
            prop_assert!(reply.len() + next.octets.len() > asker.limit());
        }
        let whole = read(&stored.octets);
        let ages = |record: &Record| record.ttl.saturating_sub(age).max(record.ttl.min(1));
        let expected: Vec<_> = whole.all_sections().take(kept).map(|record| (record.data.clone(), ages(record))).collect();
        let read: Vec<_> = message.all_sections().map(|record| (record.data.clone(), record.ttl)).collect();
        prop_assert_eq!(read, expected);
        // Sections fill up in their order.
        prop_assert!(message.authorities.is_empty() || message.answers.len() == whole.answers.len());
        prop_assert!(message.additionals.is_empty() || message.authorities.len() == whole.authorities.len());
    }

    #[test]
    fn no_stored_octets_and_no_buffer_make_patch_panic(
        octets: Vec<u8>, ttl_offsets in prop::collection::vec(0_u16..200, 0..5), room in 0_usize..600, edns: bool,
    ) {
        let mut out = vec![0; room];
        let asker = udp(edns.then_some(1232));
        let length = patch(Stored::new(&octets, &ttl_offsets), &asker, TtlRule::Age(1), Some(Ede::STALE_ANSWER), &mut out);
        prop_assert!(length.is_none_or(|length| length <= room));
    }

    #[test]
    fn every_refusal_of_any_octets_can_be_read(mut octets in prop::collection::vec(any::<u8>(), 0..100), tcp: bool, plain: bool) {
        // Half of the inputs get a header that leads further in.
        if let (true, Some(header)) = (plain, octets.first_chunk_mut::<HEADER>()) {
            *header = [header[0], header[1], header[2] & 1, header[3], 0, 1, 0, 0, 0, 0, 0, header[11] & 1];
        }
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        let mut out = [0; 512];
        if let Err(refusal) = Query::parse(&octets, transport) {
            let length = refuse(&octets, &refusal, transport, &mut out);
            prop_assert_eq!(length.is_some(), refusal.rcode().is_some());
            if let Some(length) = length {
                // A keepalive is answered with two octets more than it has.
                prop_assert!(length <= octets.len() + 2);
                prop_assert_eq!(&out[..2], &octets[..2]);
                if Header::read(&octets).expect("it got a reply").opcode().0 == 0 {
                    read(&out[..length]);
                }
            }
        }
    }

    #[test]
    fn any_replies_of_our_own_fit_and_can_be_read(
        room in 0_usize..700, edns: bool, payload_size: u16, count in 0_usize..60, ttl: u32,
    ) {
        let asker = udp(edns.then_some(payload_size));
        let pinned = vec![IpAddr::from(Ipv4Addr::LOCALHOST); count];
        let names = vec![Name::root(); count];
        let smallest = HEADER + asker.question.len() + if edns { OPT_MIN } else { 0 };
        let mut out = vec![0; room];
        let limit = room.min(asker.limit());
        for length in [
            failure(&asker, Rcode::SERVFAIL, None, &mut out),
            negative(&asker, Rcode::NXDOMAIN, b"\x05other\0", ttl, None, &mut out),
            addresses(&asker, &pinned, ttl, &mut out),
            pointers(&asker, &names, ttl, &mut out),
        ] {
            prop_assert_eq!(length.is_some(), room >= smallest);
            prop_assert!(length.is_none_or(|length| length <= limit));
        }
        if let Some(length) = addresses(&asker, &pinned, ttl, &mut out) {
            let message = read(&out[..length]);
            prop_assert_eq!(message.edns.is_some(), edns);
            prop_assert!(message.metadata.truncation || message.answers.len() == count);
        }
    }
}

// === helpers ===

/// One record in wire form, its owner a pointer.
#[derive(Clone, Debug)]
struct Sketch {
    octets: Vec<u8>,
}

/// Octets before the TTL of such a record.
const TTL_OFFSET: usize = 6;

/// A record of the name asked for.
fn record(rtype: Type, ttl: u32, rdata: &[u8]) -> Sketch {
    let mut octets = vec![0xc0, HEADER as u8];
    octets.extend_from_slice(&rtype.0.to_be_bytes());
    octets.extend_from_slice(&Class::IN.0.to_be_bytes());
    octets.extend_from_slice(&ttl.to_be_bytes());
    octets.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
    octets.extend_from_slice(rdata);
    Sketch { octets }
}

fn a(ttl: u32, last: u8) -> Sketch {
    record(Type::A, ttl, &[192, 0, 2, last])
}

fn soa(ttl: u32) -> Sketch {
    Sketch { octets: Soa::new(QNAME, QNAME, 0, ttl).octets().to_vec() }
}

/// A record of a type nobody knows.
fn unknown(ttl: u32, length: usize) -> Sketch {
    record(Type(65280), ttl, &vec![0x55; length])
}

fn records() -> impl Strategy<Value = Vec<Sketch>> {
    // Hickory takes a record without RDATA for part of an update.
    prop::collection::vec((0_u32..400, 1_usize..200).prop_map(|(ttl, length)| unknown(ttl, length)), 0..8)
}

/// A stored response about `a.test. A` with AD.
struct Sample {
    octets: Vec<u8>,
    ttl_offsets: Vec<u16>,
}

impl Sample {
    fn answers(answers: &[Sketch]) -> Self {
        Self::new(answers, &[], &[])
    }

    fn new(answers: &[Sketch], authorities: &[Sketch], additionals: &[Sketch]) -> Self {
        let header = Header {
            id: 0,
            flags: QR | RA | AD,
            questions: 1,
            answers: answers.len() as u16,
            authorities: authorities.len() as u16,
            additionals: additionals.len() as u16,
        };
        let mut octets = [&header.octets()[..], &question(Type::A)].concat();
        let mut ttl_offsets = Vec::new();
        for record in answers.iter().chain(authorities).chain(additionals) {
            ttl_offsets.push((octets.len() + TTL_OFFSET) as u16);
            octets.extend_from_slice(&record.octets);
        }
        Self { octets, ttl_offsets }
    }

    fn stored(&self) -> Stored<'_> {
        Stored::new(&self.octets, &self.ttl_offsets)
    }
}

fn question(qtype: Type) -> Vec<u8> {
    [QNAME, &qtype.0.to_be_bytes(), &Class::IN.0.to_be_bytes()].concat()
}

/// Somebody who asks for `a.test. A` over UDP, with OPT if a payload size is given.
fn udp(payload_size: Option<u16>) -> Asker<'static> {
    Asker {
        id: 0x1234,
        question: b"\x01a\x04test\0\0\x01\0\x01",
        recursion_desired: true,
        checking_disabled: false,
        authentic_data: false,
        edns: payload_size.map(|payload_size| Edns { payload_size, dnssec_ok: false, keepalive: false }),
        transport: Transport::Udp,
    }
}

fn patched(stored: &Sample, asker: &Asker<'_>, ttl: TtlRule) -> Vec<u8> {
    let mut out = vec![0; if asker.transport == Transport::Tcp { MESSAGE_MAX } else { UDP_MAX }];
    let length = patch(stored.stored(), asker, ttl, None, &mut out).expect("room");
    out.truncate(length);
    out
}

fn read(octets: &[u8]) -> Message {
    Message::from_vec(octets).expect("what we write can be read")
}

fn ttls(octets: &[u8]) -> Vec<u32> {
    read(octets).all_sections().map(|record| record.ttl).collect()
}
