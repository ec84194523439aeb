//! What several properties need: a response accepted from fuzzed octets, and hickory's reading of a message.

use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::{Record, RecordType};
use nodens::wire::compose::QUERY_MAX;
use nodens::wire::response::Asked;
use nodens::wire::{HEADER, Response, Transport, Type, name};

/// Fuzzed octets in two parts: the first `N` choose, the rest is a message.
pub fn split<const N: usize>(data: &[u8]) -> Option<([u8; N], &[u8])> {
    data.split_first_chunk().map(|(choices, message)| (*choices, message))
}

/// Whether bit `bit` of the choices is set.
pub fn chosen(choice: u8, bit: u8) -> bool {
    choice >> bit & 1 == 1
}

/// The query that `message` would be the response to: its ID, its question. DO by choice.
///
/// `None` if it has no question to repeat.
pub fn query_for(message: &[u8], dnssec_ok: bool) -> Option<Vec<u8>> {
    let question = question_of(message)?;
    let mut query = Vec::with_capacity(QUERY_MAX);
    query.extend_from_slice(&message[..2]);
    query.extend_from_slice(&[0x01, 0x20, 0, 1, 0, 0, 0, 0, 0, 1]);
    query.extend_from_slice(question);
    query.extend_from_slice(&[0, 0, 41, 0x04, 0xd0, 0, 0, if dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
    Some(query)
}

/// QNAME, QTYPE and QCLASS, if the name is uncompressed, as it is in our queries.
pub fn question_of(message: &[u8]) -> Option<&[u8]> {
    let behind_header = message.get(HEADER..)?;
    behind_header.get(..name::uncompressed_length(behind_header)? + 4)
}

/// QTYPE of a question.
pub fn qtype_of(question: &[u8]) -> Type {
    let at = question.len() - 4;
    Type(u16::from_be_bytes([question[at], question[at + 1]]))
}

/// The response that `message` is to a query with its own question, if it is fit.
pub fn accept(message: &[u8], dnssec_ok: bool) -> Option<Response> {
    let query = query_for(message, dnssec_ok)?;
    Response::parse_for(message, &Asked { query: &query, transport: Transport::Udp, exact_case: true }).ok()
}

/// What was written is itself a fit response, and examining it changes nothing.
///
/// With signatures it may: one that covers nothing we keep still says which zone answered, and so which denials of
/// existence belong to it. It is gone the second time, and they with it.
pub fn assert_settled(octets: &[u8], ttl_offsets: &[u16], dnssec_ok: bool) {
    let again = accept(octets, dnssec_ok).expect("what we wrote is fit");
    if dnssec_ok {
        assert!(again.ttl_offsets().len() <= ttl_offsets.len());
        return;
    }
    assert_eq!(again.octets(), octets);
    assert_eq!(again.ttl_offsets(), ttl_offsets);
}

// === hickory's reading ===

/// A record as hickory reads it. Letters in lower case: names are compared without case, and what else has letters is
/// compared with itself.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Line {
    pub section: u8,
    pub owner: String,
    pub rtype: RecordType,
    pub data: String,
    pub ttl: u32,
}

impl Line {
    /// Whether the records differ in nothing but the TTL.
    pub fn is_like(&self, other: &Self) -> bool {
        self.section == other.section
            && self.owner == other.owner
            && self.rtype == other.rtype
            && self.data == other.data
    }
}

/// The records of a message without OPT; `None` if hickory cannot read it.
///
/// Types whose RDATA hickory keeps as octets are left out: where a name in it was compressed, the octets differ.
pub fn lines(octets: &[u8]) -> Option<Vec<Line>> {
    let message = Message::from_vec(octets).ok()?;
    let sections = [&message.answers, &message.authorities, &message.additionals];
    let all =
        (0..).zip(sections).flat_map(|(section, records)| records.iter().map(move |record| line(section, record)));
    Some(all.collect())
}

fn line(section: u8, record: &Record) -> Line {
    Line {
        section,
        owner: record.name.to_ascii().to_ascii_lowercase(),
        rtype: record.record_type(),
        data: format!("{:?}", record.data).to_ascii_lowercase(),
        ttl: record.ttl,
    }
}

/// Reads a reply that we wrote with hickory and checks what every reply has.
///
/// # Panics
/// If hickory cannot read it although `readable`, or it is no response.
pub fn read_reply(octets: &[u8], readable: bool) -> Option<Message> {
    match Message::from_vec(octets) {
        Ok(message) => {
            assert_eq!(message.metadata.message_type, MessageType::Response);
            Some(message)
        }
        Err(error) => {
            assert!(!readable, "hickory cannot read what we wrote: {error}: {octets:02x?}");
            None
        }
    }
}
