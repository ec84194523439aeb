//! A server's octets are refused, or leave a message with nothing in it that was not there, fit to be examined again.
//!
//! Shape: one octet of choices (bit 0 DO, bit 1 TCP, bit 2 any case, bit 3 another question), the message.

use nodens::wire::response::Asked;
use nodens::wire::{HEADER, Rcode, Response, Transport};

use super::support::{Line, assert_settled, chosen, lines, query_for, split};

/// `a.test. A IN`, ID 0x1234.
const OTHER: &[u8] = b"\x12\x34\x01\x20\0\x01\0\0\0\0\0\0\x01a\x04test\0\0\x01\0\x01";

pub fn check(data: &[u8]) {
    let Some(([choice], message)) = split(data) else { return };
    let dnssec_ok = chosen(choice, 0);
    let other = || OTHER.to_vec();
    let query = if chosen(choice, 3) { other() } else { query_for(message, dnssec_ok).unwrap_or_else(other) };
    let transport = if chosen(choice, 1) { Transport::Tcp } else { Transport::Udp };
    let asked = Asked { query: &query, transport, exact_case: !chosen(choice, 2) };
    match Response::parse_for(message, &asked) {
        Err(unfit) => assert!(!unfit.label().is_empty()),
        Ok(response) => accepted(message, &query, &response, dnssec_ok && !chosen(choice, 3)),
    }
}

fn accepted(message: &[u8], query: &[u8], response: &Response, dnssec_ok: bool) {
    let octets = response.octets();
    assert_eq!(message[..2], query[..2], "another ID was accepted");
    assert_eq!(octets[..2], [0, 0]);
    assert!(octets[HEADER..].starts_with(&query[HEADER..query.len() - if query == OTHER { 0 } else { 11 }]));

    let count = |at: usize| usize::from(u16::from_be_bytes([octets[at], octets[at + 1]]));
    assert_eq!(count(4), 1);
    assert_eq!(count(6) + count(8) + count(10), response.ttl_offsets().len());
    assert!(response.ttl_offsets().is_sorted_by(|one, next| one < next));
    let ttl = |at: &u16| octets[usize::from(*at)..].first_chunk().copied().map(u32::from_be_bytes).expect("within");
    assert_eq!(response.min_ttl(), response.ttl_offsets().iter().map(ttl).min());
    if response.truncated() || !matches!(response.rcode(), Rcode::NOERROR | Rcode::NXDOMAIN) {
        assert_eq!(response.ttl_offsets().len(), 0);
        return;
    }
    assert_settled(octets, response.ttl_offsets(), dnssec_ok);

    let Some(theirs) = lines(message) else { return };
    let ours = lines(octets).expect("hickory could read it before it was cleaned");
    for kept in &ours {
        let same = |line: &&Line| line.is_like(kept);
        let origin: Vec<&Line> = theirs.iter().filter(same).collect();
        assert!(!origin.is_empty(), "not in what the server sent: {kept:?}\n{theirs:?}");
        assert!(origin.iter().any(|line| kept.ttl <= line.ttl), "lives longer than the server said: {kept:?}");
    }
}
