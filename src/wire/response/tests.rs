//! What is accepted as the response to a query, and what is not.

use super::fixture::*;
use super::*;
use crate::wire::testing::{malformed, malformed_cases};

// === the response itself ===

#[test]
fn response_in_order_is_copied_as_it_is_without_opt() {
    let plain = Reply::to("www.a.test", Type::A).answer("www.a.test", 300, Type::A, &V4).authority(
        "a.test",
        300,
        Type::NS,
        &wire("ns.a.test"),
    );
    let response = plain.clone().opt(0).judged();
    assert_eq!(response.octets()[4..], plain.octets[4..]);
    assert_eq!(response.octets()[..4], [0, 0, 0x80, 0x80]);
    assert_eq!(response.lines(), ["an www.a.test. 300 A 192.0.2.1", "ns a.test. 300 NS ns.a.test."]);
    assert_eq!((response.kind(), response.rcode(), response.min_ttl()), (Kind::Answer, Rcode::NOERROR, Some(300)));
    assert!(response.edns_seen() && !plain.judged().edns_seen());
    let (octets, offsets) = response.clone().into_parts();
    assert_eq!((&octets[..], &offsets[..]), (response.stored().octets(), response.stored().ttl_offsets()));
}

#[test]
fn only_tc_ad_and_rcode_of_the_flags_are_stored() {
    let response = Reply::to("a.test", Type::A).flags(0x057f & !0x000f).answer("a.test", 1, Type::A, &V4).judged();
    assert_eq!(response.octets()[2..4], [0x80, 0xa0]);
    assert!(response.authentic_data());
    assert!(!Reply::to("a.test", Type::A).answer("a.test", 1, Type::A, &V4).judged().authentic_data());
}

// MU01 to MU51: each is judged, none forgotten.
#[test]
fn malformed_responses_are_judged_as_the_list_says() {
    let unfit = [
        ("MU01", Unfit::Short),
        ("MU03", Unfit::WrongId),
        ("MU04", Unfit::WrongId),
        ("MU07", Unfit::WrongQuestion),
        ("MU08", Unfit::WrongQuestion),
        ("MU09", Unfit::WrongQuestion),
        ("MU11", Unfit::NoQuestion),
        ("MU18", Unfit::Overrun),
        ("MU19a", Unfit::BadRdata),
        ("MU20", Unfit::BadRdata),
        ("MU21", Unfit::BadName),
        ("MU22", Unfit::BadName),
        ("MU23", Unfit::BadName),
        ("MU24", Unfit::BadName),
        ("MU43", Unfit::TruncatedOverTcp),
        ("MU45", Unfit::Short),
        ("MU46", Unfit::Short),
        ("MU49", Unfit::Signed),
    ];
    let one = "an a.test. 60 A 192.0.2.1";
    let fit: [(&str, Kind, &[&str]); 9] = [
        ("MU27", Kind::Answer, &[one]),
        ("MU30", Kind::Failure(Rcode::FORMERR), &[]),
        ("MU31a", Kind::Answer, &["an a.test. 2147483647 A 1.2.3.4"]),
        ("MU32", Kind::Answer, &["an a.test. 5 A 1.2.3.4", "an a.test. 5 A 1.2.3.5"]),
        ("MU35", Kind::Answer, &[one]),
        ("MU42", Kind::NoData { negative_ttl: None }, &[]),
        ("MU44", Kind::Answer, &[one]),
        // The records are not to be read by anyone: only that they are relayed untouched counts.
        ("MU50", Kind::Answer, &[]),
        ("MU51", Kind::Answer, &[]),
    ];
    for (id, reason) in unfit {
        assert_eq!(judge_malformed(id), Err(reason), "{id}");
    }
    for (id, kind, lines) in fit {
        let response = judge_malformed(id).unwrap_or_else(|unfit| panic!("{id}: {unfit:?}"));
        assert_eq!(response.kind(), kind, "{id}");
        assert_eq!(response.truncated(), id == "MU42", "{id}");
        if matches!(id, "MU50" | "MU51") {
            assert_eq!(response.octets()[12..], malformed(id)[12..], "{id}");
            assert!(!response.contains_aaaa(), "{id}");
        } else {
            assert_eq!(response.lines(), lines, "{id}");
        }
    }
    let mut judged: Vec<&str> = unfit.iter().map(|case| case.0).chain(fit.iter().map(|case| case.0)).collect();
    let mut listed = malformed_cases("upstream");
    judged.sort_unstable();
    listed.sort_unstable();
    assert_eq!(judged, listed);
}

fn judge_malformed(id: &str) -> Result<Response, Unfit> {
    let octets = malformed(id);
    // The two about parameters come as the answer to another type.
    let qtype = if matches!(id, "MU50" | "MU51") { Type::HTTPS } else { Type::A };
    let over_tcp = matches!(id, "MU43" | "MU45" | "MU46");
    let (transport, octets) = if over_tcp { (Transport::Tcp, &octets[2..]) } else { (Transport::Udp, &octets[..]) };
    Response::parse_for(octets, &Asked { query: &query("a.test", qtype, false), transport, exact_case: false })
}

// P03, P04
#[test]
fn near_misses_are_those_that_may_be_guesses() {
    for id in ["MU04", "MU07", "MU08", "MU09"] {
        assert!(judge_malformed(id).is_err_and(Unfit::is_near_miss), "{id}");
    }
    for id in ["MU01", "MU11", "MU18", "MU22", "MU49"] {
        assert!(!judge_malformed(id).is_err_and(Unfit::is_near_miss), "{id}");
    }
    assert_eq!(Unfit::WrongId.label(), "wrong_id");
}

// P06
#[test]
fn case_of_the_question_counts_only_if_it_was_made_random() {
    let mut query = query("a.test", Type::A, false);
    query[13] = b'A';
    let reply = Reply::to("a.test", Type::A).answer("a.test", 60, Type::A, &V4);
    let asked = Asked { query: &query, transport: Transport::Udp, exact_case: true };
    assert_eq!(Response::parse_for(&reply.octets, &asked), Err(Unfit::WrongCase));
    assert!(Response::parse_for(&reply.octets, &Asked { exact_case: false, ..asked }).is_ok());
    let mut same = reply.octets.clone();
    same[13] = b'A';
    assert!(Response::parse_for(&same, &asked).is_ok());
}

#[test]
fn what_is_no_response_to_one_question_is_unfit() {
    let query = query("a.test", Type::A, false);
    let good = Reply::to("a.test", Type::A).answer("a.test", 60, Type::A, &V4).octets;
    let changed = |at: usize, octet: u8| {
        let mut octets = good.clone();
        octets[at] = octet;
        judge(&octets, &query)
    };
    assert!(changed(0, 0x12).is_ok());
    assert_eq!(changed(2, 0x01), Err(Unfit::NotAResponse));
    assert_eq!(changed(2, 0xa1), Err(Unfit::WrongOpcode));
    assert_eq!(changed(5, 2), Err(Unfit::ManyQuestions));
    assert_eq!(changed(7, 2), Err(Unfit::BadName), "more records counted than there are");
    assert_eq!(judge(&good[..11], &query), Err(Unfit::Short));
    assert_eq!(judge(&good[..20], &query), Err(Unfit::Overrun));
    for cut in 24..good.len() {
        assert!(judge(&good[..cut], &query).is_err_and(|unfit| !unfit.is_near_miss()), "{cut}");
    }
    assert_eq!(judge(&vec![0; 65_536], &query), Err(Unfit::TooLong));
}

#[test]
fn opt_must_be_one_of_the_root_in_the_additional_section() {
    let query = query("a.test", Type::A, false);
    let two = Reply::to("a.test", Type::A).opt(0).opt(0);
    let owned = Reply::to("a.test", Type::A).additional("a.test", 0, Type::OPT, &[]);
    let early = Reply::to("a.test", Type::A).raw(6, &[0], 0, Type::OPT, &[]);
    for reply in [two, owned, early] {
        assert_eq!(judge(&reply.octets, &query), Err(Unfit::BadOpt));
    }
}

// MU30, C32
#[test]
fn failures_are_accepted_without_question_and_keep_no_records() {
    let query = query("a.test", Type::A, false);
    for rcode in [1, 2, 4, 5, 9] {
        let octets = [0x12, 0x34, 0x81, 0x80 | rcode, 0, 0, 0, 0, 0, 0, 0, 0];
        let response = judge(&octets, &query).expect("a failure");
        assert_eq!(response.kind(), Kind::Failure(Rcode(rcode.into())));
        assert_eq!(response.octets()[HEADER..], query[HEADER..HEADER + 12], "the question we asked");
        assert_eq!(response.min_ttl(), None);
    }
    let header_only = |low: u8, transport| {
        let octets = [0x12, 0x34, 0x81, low, 0, 0, 0, 0, 0, 0, 0, 0];
        Response::parse_for(&octets, &Asked { query: &query, transport, exact_case: false })
    };
    assert_eq!(header_only(0x83, Transport::Udp), Err(Unfit::NoQuestion), "NXDOMAIN of what?");
    let refused = Reply::to("a.test", Type::A).rcode(5).authority(".", 9, Type::NS, &wire("ns.victim.test"));
    assert!(refused.judged().lines().is_empty());
    let badvers = Reply::to("a.test", Type::A).opt(1).judged();
    assert_eq!((badvers.rcode(), badvers.kind()), (Rcode::BADVERS, Kind::Failure(Rcode::BADVERS)));
}

// C26, MU42
#[test]
fn truncated_datagram_is_taken_whatever_is_left_of_its_records() {
    let query = query("a.test", Type::A, false);
    let reply = Reply::to("a.test", Type::A).flags(0x0200).answer("a.test", 60, Type::A, &V4).opt(0);
    let whole = judge(&reply.octets, &query).expect("truncated");
    assert!(whole.truncated() && whole.edns_seen() && whole.lines().is_empty());
    let cut = judge(&reply.octets[..30], &query).expect("truncated");
    assert!(cut.truncated() && cut.lines().is_empty());
    let bare = judge(&[0x12, 0x34, 0x83, 0x80, 0, 0, 0, 0, 0, 0, 0, 0], &query).expect("truncated");
    assert!(bare.truncated());
}

// === chains ===

// C17
#[test]
fn chain_of_cnames_is_one_answer() {
    let chain = Reply::to("a.test", Type::A)
        .answer("a.test", 300, Type::CNAME, &wire("b.test"))
        .answer("b.test", 60, Type::CNAME, &wire("c.test"))
        .answer("c.test", 20, Type::A, &V4);
    let response = chain.judged();
    let lines = ["an a.test. 300 CNAME b.test.", "an b.test. 60 CNAME c.test.", "an c.test. 20 A 192.0.2.1"];
    assert_eq!(response.lines(), lines);
    assert_eq!((response.kind(), response.min_ttl()), (Kind::Answer, Some(20)));
    // The CNAME asked for by type is the end of the way.
    let cname = Reply::to("a.test", Type::CNAME)
        .answer("a.test", 300, Type::CNAME, &wire("b.test"))
        .answer("b.test", 60, Type::A, &V4)
        .judged();
    assert_eq!(cname.lines(), ["an a.test. 300 CNAME b.test."]);
    assert_eq!(cname.kind(), Kind::Answer);
}

#[test]
fn chain_is_followed_in_whatever_order_its_records_stand() {
    let response = Reply::to("a.test", Type::A)
        .answer("c.test", 20, Type::A, &V4)
        .answer("b.test", 60, Type::CNAME, &wire("C.test"))
        .answer("a.test", 300, Type::CNAME, &wire("b.test"))
        .judged();
    assert_eq!((response.lines().len(), response.kind()), (3, Kind::Answer));
}

// C18
#[test]
fn nxdomain_at_the_end_of_a_chain_keeps_the_chain() {
    let response = Reply::to("a.test", Type::A)
        .rcode(3)
        .answer("a.test", 300, Type::CNAME, &wire("b.test"))
        .authority("test", 900, Type::SOA, &soa("ns.test", 60))
        .judged();
    assert_eq!(response.kind(), Kind::NxDomain { negative_ttl: Some(60) });
    assert_eq!(response.min_ttl(), Some(60));
    assert_eq!(response.lines()[0], "an a.test. 300 CNAME b.test.");
}

// C19
#[test]
fn chain_without_the_type_is_nodata() {
    let chain = Reply::to("a.test", Type::A).answer("a.test", 30, Type::CNAME, &wire("b.test"));
    let with_soa = chain.clone().authority("b.test", 900, Type::SOA, &soa("ns.test", 60)).judged();
    assert_eq!(with_soa.kind(), Kind::NoData { negative_ttl: Some(60) });
    assert_eq!(with_soa.min_ttl(), Some(30));
    assert_eq!(chain.judged().kind(), Kind::NoData { negative_ttl: None }, "relayed, but for how long is unknown");
}

#[test]
fn chain_of_sixteen_cnames_is_the_longest() {
    let chain = |links: usize| {
        let name = |link: usize| if link == 0 { "a.test".to_owned() } else { format!("n{link}.test") };
        let cname = |reply: Reply, link| reply.answer(&name(link), 60, Type::CNAME, &wire(&name(link + 1)));
        let reply = (0..links).fold(Reply::to("a.test", Type::A), cname);
        reply.answer(&name(links), 60, Type::A, &V4)
    };
    assert_eq!(chain(16).judged().lines().len(), 17);
    assert_eq!(judge(&chain(17).octets, &query("a.test", Type::A, false)), Err(Unfit::ChainTooLong));
}

#[test]
fn circle_of_cnames_ends() {
    let response = Reply::to("a.test", Type::A)
        .answer("a.test", 60, Type::CNAME, &wire("b.test"))
        .answer("b.test", 60, Type::CNAME, &wire("a.test"))
        .judged();
    assert_eq!((response.lines().len(), response.kind()), (2, Kind::NoData { negative_ttl: None }));
}

#[test]
fn dname_stays_beside_the_cname_made_from_it() {
    let response = Reply::to("x.old.test", Type::A)
        .answer("old.test", 60, Type::DNAME, &wire("new.test"))
        .answer("x.old.test", 60, Type::CNAME, &wire("x.new.test"))
        .answer("x.new.test", 60, Type::A, &V4)
        .answer("other.test", 60, Type::DNAME, &wire("evil.test"))
        .answer("x.old.test", 60, Type::DNAME, &wire("evil.test"))
        .judged();
    let lines = ["an old.test. 60 DNAME", "an x.old.test. 60 CNAME x.new.test.", "an x.new.test. 60 A 192.0.2.1"];
    assert_eq!(response.lines().len(), 3);
    for (line, expected) in response.lines().iter().zip(lines) {
        assert!(line.starts_with(expected), "{line}");
    }
}

// === what goes ===

// C37, MU35, MU36
#[test]
fn records_nobody_asked_for_go() {
    let response = Reply::to("www.a.test", Type::A)
        .answer("www.a.test", 60, Type::A, &V4)
        .answer("www.victim.test", 86_400, Type::A, &[6, 6, 6, 6])
        .answer("www.a.test", 60, Type::TXT, b"\x01x")
        .authority("victim.test", 86_400, Type::NS, &wire("ns.evil.test"))
        .authority("a.test", 50, Type::NS, &wire("ns.a.test"))
        .authority("a.test", 50, Type::A, &[6, 6, 6, 6])
        .additional("ns.evil.test", 86_400, Type::A, &[6, 6, 6, 6])
        .additional("ns.a.test", 40, Type::A, &V4)
        .additional("ns.a.test", 40, Type::TXT, b"\x01x")
        .opt(0)
        .judged();
    let lines = ["an www.a.test. 60 A 192.0.2.1", "ns a.test. 50 NS ns.a.test.", "ar ns.a.test. 40 A 192.0.2.1"];
    assert_eq!(response.lines(), lines);
    assert_eq!(response.min_ttl(), Some(40));
}

#[test]
fn records_of_another_class_go() {
    let mut reply = Reply::to("a.test", Type::A).answer("a.test", 60, Type::A, &V4);
    let class = reply.octets.len() + 2 + 3;
    reply = reply.answer("a.test", 60, Type::A, &[3, b'a', b'b', b'c', 0, 1, 2]);
    reply.octets[class] = 3;
    assert_eq!(reply.judged().lines(), ["an a.test. 60 A 192.0.2.1"]);
}

#[test]
fn additional_section_keeps_the_addresses_of_hosts_that_are_named() {
    let reply = Reply::to("_x._tcp.a.test", Type::SRV)
        .answer("_x._tcp.a.test", 60, Type::SRV, &srv(80, "h1.a.test"))
        .answer("_x._tcp.a.test", 60, Type::SRV, &srv(80, "H2.a.test"))
        .additional("h2.a.test", 60, Type::A, &V4)
        .additional("h2.a.test", 60, Type::AAAA, &V6)
        .additional("h3.a.test", 60, Type::A, &V4)
        .judged();
    assert_eq!(reply.lines().len(), 4);
    assert!(reply.contains_aaaa());
    // RFC 9460 section 2.5: `.` is the owner.
    let https = Reply::to("a.test", Type::HTTPS)
        .answer("a.test", 60, Type::HTTPS, &https(".", b""))
        .additional("a.test", 60, Type::A, &V4)
        .additional("b.test", 60, Type::A, &V4)
        .judged();
    assert_eq!((https.lines().len(), https.contains_aaaa()), (2, false));
}

#[test]
fn ipv6_hint_counts_as_aaaa() {
    let reply = |parameters: &[u8]| {
        Reply::to("a.test", Type::HTTPS).answer("a.test", 60, Type::HTTPS, &https(".", parameters)).judged()
    };
    assert!(reply(&alpn_and_hint()).contains_aaaa());
    assert!(!reply(b"\0\x01\0\x03\x02h2").contains_aaaa());
}

// C09
#[test]
fn signatures_and_proofs_come_only_if_the_query_set_do() {
    let reply = Reply::to("a.z.test", Type::A)
        .answer("a.z.test", 60, Type::A, &V4)
        .answer("a.z.test", 60, Type::RRSIG, &rrsig(Type::A, "z.test"))
        .answer("a.z.test", 60, Type::RRSIG, &rrsig(Type::TXT, "z.test"))
        .authority("z.test", 60, Type::NS, &wire("ns.z.test"))
        .authority("z.test", 60, Type::RRSIG, &rrsig(Type::NS, "z.test"))
        .authority("0p9mhaveqvm6t7vb.z.test", 60, Type::NSEC3, &[1, 0, 0, 1, 0, 1, 9, 0, 1, 0x40])
        .authority("0p9mhaveqvm6t7vb.z.test", 60, Type::RRSIG, &rrsig(Type::NSEC3, "z.test"))
        .authority("b.other.test", 60, Type::NSEC, &[&wire("c.test")[..], &[0, 1, 0x40]].concat())
        .additional("ns.z.test", 60, Type::A, &V4)
        .additional("ns.z.test", 60, Type::RRSIG, &rrsig(Type::A, "z.test"));
    let plain = reply.judged();
    assert_eq!(types(&plain), [Type::A, Type::NS, Type::A]);
    assert!(!plain.is_signed());
    let signed = reply.judged_with(true);
    let (a, ns, sig, nsec3) = (Type::A, Type::NS, Type::RRSIG, Type::NSEC3);
    assert_eq!(types(&signed), [a, sig, ns, sig, nsec3, sig, a, sig]);
    assert!(signed.is_signed());
}

// C09, C11: asked for by type, DO or not.
#[test]
fn signatures_asked_for_by_type_are_data() {
    let reply = Reply::to("a.test", Type::RRSIG).answer("a.test", 60, Type::RRSIG, &rrsig(Type::A, "test"));
    assert_eq!((types(&reply.judged()), reply.judged().kind()), (vec![Type::RRSIG], Kind::Answer));
}

#[test]
fn nsec_below_the_zone_proves_a_missing_name() {
    let reply = Reply::to("zz.z.test", Type::A)
        .rcode(3)
        .authority("z.test", 60, Type::SOA, &soa("ns.z.test", 60))
        .authority("z.test", 60, Type::RRSIG, &rrsig(Type::SOA, "z.test"))
        .authority("deep.y.z.test", 60, Type::NSEC, &[&wire("z.test")[..], &[0, 1, 0x40]].concat())
        .authority("deep.y.z.test", 60, Type::RRSIG, &rrsig(Type::NSEC, "z.test"));
    assert_eq!(types(&reply.judged_with(true)).len(), 4);
    assert_eq!(types(&reply.judged()), [Type::SOA]);
}

// C34
#[test]
fn any_keeps_all_types_of_the_name() {
    let response = Reply::to("a.test", Type::ANY)
        .answer("a.test", 60, Type::A, &V4)
        .answer("a.test", 60, Type::MX, &mx("mail.a.test"))
        .answer("b.test", 60, Type::MX, &mx("mail.a.test"))
        .additional("mail.a.test", 60, Type::A, &V4)
        .judged();
    assert_eq!((types(&response), response.kind()), (vec![Type::A, Type::MX, Type::A], Kind::Answer));
}

fn types(response: &Response) -> Vec<Type> {
    let types = response.ttl_offsets().iter().map(|&at| {
        let at = usize::from(at) - 4;
        Type(u16::from_be_bytes([response.octets()[at], response.octets()[at + 1]]))
    });
    types.collect()
}

// === TTLs ===

// C03
#[test]
fn lowest_ttl_of_all_sections_counts() {
    for (answer, authority, additional) in [(300, 10, 20), (10, 300, 20), (20, 300, 10)] {
        let response = Reply::to("a.test", Type::A)
            .answer("a.test", answer, Type::A, &V4)
            .authority("test", authority, Type::NS, &wire("ns.test"))
            .additional("ns.test", additional, Type::A, &V4)
            .judged();
        assert_eq!((response.min_ttl(), response.ttl_offsets().len()), (Some(10), 3));
    }
}

// C06, MU31
#[test]
fn ttl_with_the_top_bit_is_the_largest() {
    for ttl in [0x8000_0000, 0xffff_ffff] {
        let response = Reply::to("a.test", Type::A).answer("a.test", ttl, Type::A, &V4).judged();
        assert_eq!(response.lines(), ["an a.test. 2147483647 A 192.0.2.1"]);
        assert_eq!(response.min_ttl(), Some(0x7fff_ffff));
    }
}

// C08, MU32
#[test]
fn records_of_one_rrset_get_its_lowest_ttl() {
    let response = Reply::to("a.test", Type::ANY)
        .answer("a.test", 300, Type::A, &[192, 0, 2, 1])
        .answer("a.test", 200, Type::MX, &mx("a.test"))
        .answer("A.test", 5, Type::A, &[192, 0, 2, 2])
        .answer("a.test", 400, Type::RRSIG, &rrsig(Type::A, "test"))
        .answer("a.test", 500, Type::RRSIG, &rrsig(Type::MX, "test"))
        .judged();
    let ttls: Vec<u32> = response.ttl_offsets().iter().map(|&at| u32_at(response.octets(), at.into())).collect();
    assert_eq!(ttls, [5, 200, 5, 400, 500]);
}

// C21
#[test]
fn negative_answer_lives_by_the_lower_of_ttl_and_minimum() {
    for (ttl, minimum, shown) in [(300, 60, 60), (60, 300, 60), (0xffff_ffff, 0xffff_ffff, 0x7fff_ffff), (0, 60, 0)] {
        let reply = Reply::to("x.a.test", Type::A).authority("a.test", ttl, Type::SOA, &soa("ns.a.test", minimum));
        let nodata = reply.clone().judged();
        assert_eq!(nodata.kind(), Kind::NoData { negative_ttl: Some(shown) });
        let nxdomain = reply.rcode(3).judged();
        assert_eq!(nxdomain.kind(), Kind::NxDomain { negative_ttl: Some(shown) });
        assert_eq!(nxdomain.min_ttl(), Some(shown));
        assert_eq!(u32_at(nxdomain.octets(), nxdomain.ttl_offsets()[0].into()), shown);
    }
}

// C23, MU39, MU40
#[test]
fn negative_answer_without_soa_has_no_lifetime() {
    let empty = Reply::to("a.test", Type::A);
    assert_eq!(empty.judged().kind(), Kind::NoData { negative_ttl: None });
    assert_eq!(empty.clone().rcode(3).judged().kind(), Kind::NxDomain { negative_ttl: None });
    // The SOA of a zone the name is not in says nothing.
    let foreign = empty.rcode(3).authority("victim.test", 60, Type::SOA, &soa("ns.test", 60)).judged();
    assert_eq!((foreign.kind(), foreign.lines().len()), (Kind::NxDomain { negative_ttl: None }, 0));
}

#[test]
fn soa_asked_for_keeps_its_ttl() {
    let response = Reply::to("a.test", Type::SOA).answer("a.test", 900, Type::SOA, &soa("ns.a.test", 60)).judged();
    assert_eq!((response.kind(), response.min_ttl()), (Kind::Answer, Some(900)));
}

#[test]
fn referral_is_told_from_nodata() {
    let reply = Reply::to("a.b.test", Type::A).authority("b.test", 60, Type::NS, &wire("ns.b.test"));
    assert_eq!(reply.judged().kind(), Kind::Referral);
    let authoritative = reply.clone().flags(0x0400).judged();
    assert_eq!(authoritative.kind(), Kind::NoData { negative_ttl: None });
    let redirected = Reply::to("a.b.test", Type::A).answer("a.b.test", 60, Type::CNAME, &wire("c.b.test")).authority(
        "b.test",
        60,
        Type::NS,
        &wire("ns.b.test"),
    );
    assert_eq!(redirected.judged().kind(), Kind::NoData { negative_ttl: None });
    let with_soa = reply.authority("b.test", 60, Type::SOA, &soa("ns.b.test", 60)).judged();
    assert_eq!(with_soa.kind(), Kind::NoData { negative_ttl: Some(60) });
}

// === written anew ===

// C15: clients look for the name in the letters they sent.
#[test]
fn owner_spelled_out_becomes_the_pointer_to_the_question() {
    let response = Reply::to("a.test", Type::A).raw(6, b"\x01A\x04TEST\0", 60, Type::A, &V4).judged();
    assert_eq!(response.octets()[24..26], [0xc0, 0x0c]);
    assert_eq!(response.lines(), ["an a.test. 60 A 192.0.2.1"]);
}

#[test]
fn opt_before_other_records_goes_as_well() {
    let response = Reply::to("a.test", Type::MX)
        .answer("a.test", 60, Type::MX, &mx("m.a.test"))
        .opt(0)
        .additional("m.a.test", 60, Type::A, &V4)
        .judged();
    assert_eq!(response.lines(), ["an a.test. 60 MX 10 m.a.test.", "ar m.a.test. 60 A 192.0.2.1"]);
}

#[test]
fn name_that_borrows_the_octets_of_a_ttl_is_written_out() {
    // The TTL reads as the label `b` and the root, and ages.
    let reply = Reply::to("a.test", Type::CNAME).raw(6, &[0xc0, 0x0c], 0x0001_6200, Type::CNAME, &[0xc0, 0x1f]);
    assert_eq!(reply.octets[31..34], *b"\x01b\0");
    let response = reply.judged();
    assert_eq!(response.lines(), ["an a.test. 90624 CNAME b."]);
    assert_eq!(response.octets()[36..], *b"\x01b\0");
}

// C36, RFC 3597 section 4
#[test]
fn unknown_types_stay_byte_equal() {
    let looks_like_pointers = [0xc0, 0x0c, 0x01, b'a', 0xc0, 0x0c, 0x3f];
    let kept = Reply::to("a.test", Type(65_280)).answer("a.test", 60, Type(65_280), &looks_like_pointers);
    let rebuilt = kept.clone().raw(6, b"\x01A\x04TEST\0", 60, Type(65_280), &looks_like_pointers);
    for (reply, count) in [(kept, 1), (rebuilt, 2)] {
        let response = reply.judged();
        let rdata = response.octets().windows(7).filter(|octets| *octets == looks_like_pointers);
        assert_eq!((rdata.count(), response.ttl_offsets().len()), (count, count));
        assert_eq!(response.octets().len(), 24 + count * (12 + 7));
    }
}

#[test]
fn names_in_every_known_type_survive_being_written_anew() {
    // `www.a.test` as pointers only: `www`, then the question's name.
    let short = b"\x03www\xc0\x0c";
    let long = wire("www.a.test");
    let lead = |octets: &[u8]| octets.to_vec();
    for (rtype, before, names, behind, compressible) in [
        (Type::NS, lead(&[]), 1, lead(&[]), true),
        (Type::MD, lead(&[]), 1, lead(&[]), true),
        (Type::MF, lead(&[]), 1, lead(&[]), true),
        (Type::MB, lead(&[]), 1, lead(&[]), true),
        (Type::MG, lead(&[]), 1, lead(&[]), true),
        (Type::MR, lead(&[]), 1, lead(&[]), true),
        (Type::PTR, lead(&[]), 1, lead(&[]), true),
        (Type::SOA, lead(&[]), 2, lead(&[7; 20]), true),
        (Type::MINFO, lead(&[]), 2, lead(&[]), true),
        (Type::MX, lead(&[0, 1]), 1, lead(&[]), true),
        (Type::DNAME, lead(&[]), 1, lead(&[]), false),
        (Type::RP, lead(&[]), 2, lead(&[]), false),
        (Type::AFSDB, lead(&[0, 1]), 1, lead(&[]), false),
        (Type::RT, lead(&[0, 1]), 1, lead(&[]), false),
        (Type::KX, lead(&[0, 1]), 1, lead(&[]), false),
        (Type::PX, lead(&[0, 1]), 2, lead(&[]), false),
        (Type::SRV, lead(&[0, 1, 0, 2, 0, 3]), 1, lead(&[]), false),
        (Type::NAPTR, lead(b"\0\x01\0\x02\x01u\x03sip\x00"), 1, lead(&[]), false),
        (Type::SVCB, lead(&[0, 1]), 1, lead(b"\0\x03\0\x02\0\x50"), false),
        (Type::HTTPS, lead(&[0, 1]), 1, lead(b"\0\x03\0\x02\0\x50"), false),
        (Type::RRSIG, lead(&[0; 18]), 1, lead(&[9; 8]), false),
        (Type::NSEC, lead(&[]), 1, lead(&[0, 1, 0x40]), false),
    ] {
        let rdata = |name: &[u8]| [&before[..], &name.repeat(names), &behind].concat();
        // The owner spelled out is what makes it be written anew.
        let reply = Reply::to("a.test", rtype).raw(6, b"\x01A\x04TEST\0", 60, rtype, &rdata(short));
        let response = reply.judged();
        let written = &response.octets()[36..];
        if compressible {
            // The second name is the first.
            let second: &[u8] = if names == 2 { &[0xc0, 0x24] } else { &[] };
            assert_eq!(written, [&before[..], short, second, &behind].concat(), "{rtype}");
        } else {
            assert_eq!(written, rdata(&long), "{rtype}");
        }
        // One octet more or less, and the name does not end where it must.
        for wrong in [[&rdata(short)[..], &[0]].concat(), rdata(short)[..rdata(short).len() - 1].to_vec()] {
            let reply = Reply::to("a.test", rtype).answer("a.test", 60, rtype, &wrong);
            let open_end = matches!(rtype, Type::SVCB | Type::HTTPS | Type::RRSIG | Type::NSEC);
            assert_eq!(judge(&reply.octets, &query("a.test", rtype, false)).is_ok(), open_end, "{rtype}");
        }
    }
}

// C35
#[test]
fn rrset_of_64_kib_is_kept_whole() {
    let address =
        |reply: Reply, n: u16| reply.answer("a.test", 60, Type::A, &[10, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]]);
    let reply = (0..4091).fold(Reply::to("a.test", Type::A), address);
    let response = reply.judged();
    assert_eq!(response.octets()[4..], reply.octets[4..]);
    assert_eq!((response.ttl_offsets().len(), response.octets().len()), (4091, 65_480));
}

// E20, MU25
#[test]
fn thousands_of_owners_are_dropped_or_kept_whole() {
    let junk =
        (0..3000).fold(Reply::to("a.test", Type::A), |reply, n| reply.answer(&format!("{n:x}"), 60, Type::A, &V4));
    let response = junk.answer("a.test", 60, Type::A, &V4).judged();
    assert_eq!(response.lines(), ["an a.test. 60 A 192.0.2.1"]);

    let host = |n: usize| format!("10-0-{n}.pods.a.test");
    let srv = |reply: Reply, n| reply.answer("_x._tcp.a.test", 60, Type::SRV, &srv(80, &host(n)));
    let address = |reply: Reply, n: usize| reply.additional(&host(n), 30, Type::A, &[10, 0, (n >> 8) as u8, n as u8]);
    let named = (0..700).fold(Reply::to("_x._tcp.a.test", Type::SRV), srv);
    let reply = (0..700).fold(named.opt(0), address);
    let response = reply.judged();
    assert_eq!(response.lines().len(), 1400);
    assert!(response.octets().len() < reply.octets.len() * 9 / 10, "names are compressed");
}

#[test]
fn additional_records_that_no_longer_fit_are_left_out() {
    // Targets as pointers: 22 octets a record. Written out they are 50.
    let target = [&srv(80, ".")[..6], b"\x01h\xc0\x0c"].concat();
    let qname = "_service._tcp.namespace.test";
    let one = Reply::to(qname, Type::SRV);
    let fits = (0..1250).fold(one.clone(), |reply, _| reply.answer(qname, 60, Type::SRV, &target));
    let host = format!("h.{qname}");
    let addresses = (0..200).fold(fits, |reply, n| reply.additional(&host, 60, Type::A, &[10, 0, 0, n]));
    // Only an OPT that is not last makes this be written anew.
    let response = addresses.opt(0).additional(&host, 60, Type::A, &V4).judged();
    assert!(response.octets().len() <= MESSAGE_MAX);
    let answers = response.lines().iter().filter(|line| line.starts_with("an")).count();
    assert_eq!(answers, 1250);
    assert!(response.lines().len() < 1451);

    let too_many = (0..1900).fold(one, |reply, _| reply.answer(qname, 60, Type::SRV, &target));
    let too_many = too_many.raw(6, &wire(qname), 60, Type::SRV, &target);
    assert_eq!(judge(&too_many.octets, &query(qname, Type::SRV, false)), Err(Unfit::TooLong));
}
