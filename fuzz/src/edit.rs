//! Taking IPv6 addresses out of an answer takes them all out, and nothing else; and a client can read the result.
//!
//! Shape: one octet of choices (bit 0 DO), the message of a server.

use hickory_proto::rr::RecordType;
use nodens::wire::compose::{self, TtlRule};
use nodens::wire::{Asker, Edns, MESSAGE_MAX, Response, Stored, Transport, Type, edit};

use super::support::{Line, accept, assert_settled, chosen, lines, qtype_of, question_of, split};

/// Seconds that a made-up SOA may live.
const TTL: u32 = 30;

pub fn check(data: &[u8]) {
    let Some(([choice], message)) = split(data) else { return };
    let dnssec_ok = chosen(choice, 0);
    let Some(response) = accept(message, dnssec_ok) else { return };
    let question = question_of(response.octets()).expect("every response has its question");
    without_addresses(&response, question, dnssec_ok);
    if qtype_of(question) == Type::A {
        answer_for_aaaa(&response, question, dnssec_ok);
    }
}

fn without_addresses(response: &Response, question: &[u8], dnssec_ok: bool) {
    let edited = edit::without_aaaa(response.stored());
    let stored = edited.stored();
    // Signatures over addresses go even where the addresses themselves are missing.
    let unsigned = !dnssec_ok && !matches!(qtype_of(question), Type::ANY | Type::RRSIG);
    if unsigned && !response.contains_aaaa() {
        assert_eq!(stored.octets(), response.octets());
    }
    // A copy that was never examined, such as one of a failure, has nothing to examine.
    if !stored.ttl_offsets().is_empty() {
        assert_settled(stored.octets(), stored.ttl_offsets(), dnssec_ok);
    }
    let Some(before) = lines(response.octets()) else { return };
    let after = lines(stored.octets()).expect("hickory could read it before it was edited");
    assert!(after.iter().all(|line| line.rtype != RecordType::AAAA));
    let is_plain = |line: &&Line| {
        !matches!(line.rtype, RecordType::AAAA | RecordType::RRSIG | RecordType::SVCB | RecordType::HTTPS)
    };
    let plain = |lines: &[Line]| -> Vec<Line> { lines.iter().filter(is_plain).cloned().collect() };
    assert_eq!(plain(&after), plain(&before));
    let count = |lines: &[Line], rtype| lines.iter().filter(|line| line.rtype == rtype).count();
    for rtype in [RecordType::SVCB, RecordType::HTTPS] {
        assert_eq!(count(&after, rtype), count(&before, rtype));
    }
    assert_eq!(written(stored, question, Transport::Tcp, dnssec_ok), Some(after));
}

fn answer_for_aaaa(response: &Response, question: &[u8], dnssec_ok: bool) {
    let edited = edit::nodata_for_aaaa(response.stored(), &[0], TTL);
    let stored = edited.stored();
    assert_eq!(rcode(stored.octets()), rcode(response.octets()), "A and AAAA must agree");
    let mut asked = question.to_vec();
    let qtype = asked.len() - 4;
    asked[qtype..qtype + 2].copy_from_slice(&Type::AAAA.0.to_be_bytes());
    let Some(before) = lines(response.octets()) else { return };
    let Some(after) = written(stored, &asked, Transport::Tcp, dnssec_ok) else {
        panic!("hickory could read it before it was edited");
    };
    assert!(after.iter().all(|line| line.section != 0 || !matches!(line.rtype, RecordType::A | RecordType::AAAA)));
    let had_addresses = before.iter().any(|line| line.section == 0 && line.rtype == RecordType::A);
    if had_addresses && rcode(response.octets()) == 0 {
        let soa: Vec<&Line> = after.iter().filter(|line| line.rtype == RecordType::SOA).collect();
        assert_eq!(soa.iter().map(|line| (line.owner.as_str(), line.ttl)).collect::<Vec<_>>(), [(".", TTL)]);
    }
}

fn rcode(message: &[u8]) -> u8 {
    message[3] & 0x0f
}

/// What a client reads of the answer made from `stored`.
fn written(stored: Stored<'_>, question: &[u8], transport: Transport, dnssec_ok: bool) -> Option<Vec<Line>> {
    let asker = Asker {
        id: 0x4711,
        question,
        recursion_desired: true,
        checking_disabled: false,
        authentic_data: true,
        edns: Some(Edns { payload_size: 1232, dnssec_ok, keepalive: false }),
        transport,
    };
    let mut out = vec![0; MESSAGE_MAX];
    let length = compose::patch(stored, &asker, TtlRule::AsStored, None, &mut out).expect("there is room");
    lines(&out[..length])
}
