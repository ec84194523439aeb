//! Answers with records taken out, octet by octet.

use super::*;
use crate::wire::response::fixture::*;

fn lines(edited: &Edited) -> Vec<String> {
    records(&edited.octets, &edited.ttl_offsets)
}

// === without_aaaa ===

// V06
#[test]
fn aaaa_goes_from_every_section_and_the_rest_stays() {
    let mail = Reply::to("a.test", Type::MX)
        .answer("a.test", 60, Type::MX, &mx("mail.a.test"))
        .authority("a.test", 50, Type::NS, &wire("ns.a.test"))
        .additional("mail.a.test", 40, Type::AAAA, &V6)
        .additional("mail.a.test", 30, Type::A, &V4)
        .additional("ns.a.test", 20, Type::AAAA, &V6)
        .judged();
    let edited = without_aaaa(mail.stored());
    let left = ["an a.test. 60 MX 10 mail.a.test.", "ns a.test. 50 NS ns.a.test.", "ar mail.a.test. 30 A 192.0.2.1"];
    assert_eq!(lines(&edited), left);

    let any = Reply::to("a.test", Type::ANY)
        .answer("a.test", 60, Type::AAAA, &V6)
        .answer("a.test", 60, Type::A, &V4)
        .answer("a.test", 60, Type::SRV, &srv(80, "h.a.test"))
        .judged();
    let edited = without_aaaa(any.stored());
    assert_eq!(lines(&edited), ["an a.test. 60 A 192.0.2.1", "an a.test. 60 SRV 1 2 80 h.a.test."]);
}

#[test]
fn message_without_aaaa_is_copied() {
    let reply = Reply::to("a.test", Type::A).flags(0x0020).answer("a.test", 60, Type::A, &V4).judged();
    let edited = without_aaaa(reply.stored());
    assert_eq!((&*edited.octets, &*edited.ttl_offsets), (reply.octets(), reply.ttl_offsets()));
    assert_eq!(edited.into_parts(), reply.into_parts());
}

// V08, RFC 9460
#[test]
fn ipv6_hint_goes_and_the_other_parameters_stay() {
    let reply = Reply::to("a.test", Type::HTTPS)
        .flags(0x0020)
        .answer("a.test", 60, Type::HTTPS, &https("svc.a.test", &alpn_and_hint()))
        .answer("a.test", 60, Type::RRSIG, &rrsig(Type::HTTPS, "test"))
        .judged_with(true);
    let edited = without_aaaa(reply.stored());
    let kept = https("svc.a.test", b"\0\x01\0\x03\x02h2");
    assert_eq!(edited.octets[edited.octets.len() - kept.len()..], kept);
    assert_eq!(lines(&edited).len(), 1, "what was signed is not what is left");
    assert_eq!(edited.octets[3] & 0x20, 0, "nobody vouches for it");
}

// V08, MU50, MU51
#[test]
fn alias_and_broken_parameters_are_relayed_untouched() {
    let alias = [&[0, 0][..], &wire("b.test"), &alpn_and_hint()].concat();
    let short_hint = https(".", &[&b"\0\x06\0\x0f"[..], &V6[..15]].concat());
    let descending = https(".", &[&b"\0\x06\0\x10"[..], &V6, b"\0\x01\0\x03\x02h2"].concat());
    for rdata in [alias, short_hint, descending] {
        let reply = Reply::to("a.test", Type::HTTPS).answer("a.test", 60, Type::HTTPS, &rdata).judged();
        assert!(!reply.contains_aaaa());
        assert_eq!(&*without_aaaa(reply.stored()).octets, reply.octets());
    }
}

#[test]
fn signatures_over_what_is_left_stay() {
    let reply = Reply::to("a.test", Type::ANY)
        .answer("a.test", 60, Type::A, &V4)
        .answer("a.test", 60, Type::RRSIG, &rrsig(Type::A, "test"))
        .answer("a.test", 60, Type::AAAA, &V6)
        .answer("a.test", 60, Type::RRSIG, &rrsig(Type::AAAA, "test"))
        .judged_with(true);
    assert_eq!(lines(&without_aaaa(reply.stored())).len(), 2);
}

// === nodata_for_aaaa ===

// V01
#[test]
fn addresses_become_nodata_that_stubs_can_keep() {
    let stored_a = Reply::to("a.test", Type::A)
        .flags(0x0020)
        .answer("a.test", 60, Type::A, &V4)
        .authority("a.test", 60, Type::NS, &wire("ns.a.test"))
        .additional("ns.a.test", 60, Type::A, &V4)
        .judged();
    let edited = nodata_for_aaaa(stored_a.stored(), &wire("test"), 30);
    assert_eq!(lines(&edited), ["ns test. 30 SOA test. nobody.invalid. 1 3600 1200 604800 30"]);
    assert_eq!(edited.octets[20..24], [0, 28, 0, 1], "the question is for AAAA");
    assert_eq!(edited.octets[2..4], [0x80, 0x80], "NOERROR without AD");
    assert_eq!(edited.octets[6..12], [0, 0, 0, 1, 0, 0]);
}

// V03
#[test]
fn chain_before_the_addresses_stays() {
    let stored_a = Reply::to("a.test", Type::A)
        .answer("a.test", 300, Type::CNAME, &wire("b.test"))
        .answer("b.test", 60, Type::A, &V4)
        .judged();
    let edited = nodata_for_aaaa(stored_a.stored(), &wire("b.test"), 30);
    assert_eq!(
        lines(&edited),
        ["an a.test. 300 CNAME b.test.", "ns b.test. 30 SOA b.test. nobody.invalid. 1 3600 1200 604800 30"]
    );
}

// V02, V15
#[test]
fn negative_answer_for_a_is_the_one_for_aaaa() {
    let negative = Reply::to("a.test", Type::A).authority("test", 60, Type::SOA, &soa("ns.test", 60));
    for reply in [negative.clone(), negative.rcode(3)] {
        let stored_a = reply.judged();
        let edited = nodata_for_aaaa(stored_a.stored(), &wire("victim.test"), 30);
        assert_eq!(lines(&edited), stored_a.lines());
        assert_eq!(edited.octets[..20], stored_a.octets()[..20], "the rcode among others");
        assert_eq!(edited.octets[20..24], [0, 28, 0, 1]);
    }
}

#[test]
fn addresses_go_even_if_an_soa_came_with_them() {
    let stored_a = Reply::to("a.test", Type::A)
        .answer("a.test", 60, Type::A, &V4)
        .authority("test", 60, Type::SOA, &soa("ns.test", 60))
        .judged();
    let edited = nodata_for_aaaa(stored_a.stored(), &wire("a.test"), 30);
    assert_eq!(lines(&edited), ["ns a.test. 30 SOA a.test. nobody.invalid. 1 3600 1200 604800 30"]);
}

// V05, break_dnssec
#[test]
fn nodata_made_here_is_not_signed() {
    let stored_a = Reply::to("a.test", Type::A)
        .flags(0x0020)
        .answer("a.test", 60, Type::A, &V4)
        .answer("a.test", 60, Type::RRSIG, &rrsig(Type::A, "test"))
        .judged_with(true);
    assert!(stored_a.is_signed() && stored_a.authentic_data());
    let edited = nodata_for_aaaa(stored_a.stored(), &wire("test"), 30);
    assert_eq!(lines(&edited), ["ns test. 30 SOA test. nobody.invalid. 1 3600 1200 604800 30"]);
    assert_eq!(edited.octets[3] & 0x20, 0);
}
