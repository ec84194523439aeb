//! Queries and responses for tests, built octet by octet, and read back by a second implementation (hickory-proto).

use hickory_proto::op::Message;

use super::super::{HEADER, Name, Transport, Type};
use super::{Asked, Response, Unfit};

/// The ID of every query here.
pub(in super::super) const ID: u16 = 0x1234;

/// The query as we send it: RD, AD, OPT of 1,232 octets.
pub(in super::super) fn query(qname: &str, qtype: Type, dnssec_ok: bool) -> Vec<u8> {
    let mut octets = vec![0x12, 0x34, 0x01, 0x20, 0, 1, 0, 0, 0, 0, 0, 1];
    octets.extend(question(qname, qtype));
    octets.extend_from_slice(&opt(0, dnssec_ok));
    octets
}

/// Judges `octets` as the response over UDP to `query`.
pub(in super::super) fn judge(octets: &[u8], query: &[u8]) -> Result<Response, Unfit> {
    Response::parse_for(octets, &Asked { query, transport: Transport::Udp, exact_case: false })
}

fn question(qname: &str, qtype: Type) -> Vec<u8> {
    [wire(qname), qtype.0.to_be_bytes().to_vec(), vec![0, 1]].concat()
}

fn opt(extended_rcode: u8, dnssec_ok: bool) -> [u8; 11] {
    [0, 0, 41, 0x04, 0xd0, extended_rcode, 0, if dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]
}

/// The uncompressed octets of a name.
pub(in super::super) fn wire(text: &str) -> Vec<u8> {
    text.parse::<Name>().expect("a legal name").as_wire().to_vec()
}

/// A response in the making. Records are appended in the order of their sections.
#[derive(Clone)]
pub(in super::super) struct Reply {
    qname: Vec<u8>,
    qtype: Type,
    pub(in super::super) octets: Vec<u8>,
}

impl Reply {
    /// NOERROR, RA, one question.
    pub(in super::super) fn to(qname: &str, qtype: Type) -> Self {
        let mut octets = vec![0x12, 0x34, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
        octets.extend(question(qname, qtype));
        Self { qname: wire(qname), qtype, octets }
    }

    pub(in super::super) fn rcode(mut self, rcode: u8) -> Self {
        self.octets[3] = self.octets[3] & 0xf0 | rcode;
        self
    }

    /// Sets bits of the third and fourth octet.
    pub(in super::super) fn flags(mut self, flags: u16) -> Self {
        self.octets[2] |= flags.to_be_bytes()[0];
        self.octets[3] |= flags.to_be_bytes()[1];
        self
    }

    pub(in super::super) fn answer(self, owner: &str, ttl: u32, rtype: Type, rdata: &[u8]) -> Self {
        self.record(6, owner, ttl, rtype, rdata)
    }

    pub(in super::super) fn authority(self, owner: &str, ttl: u32, rtype: Type, rdata: &[u8]) -> Self {
        self.record(8, owner, ttl, rtype, rdata)
    }

    pub(in super::super) fn additional(self, owner: &str, ttl: u32, rtype: Type, rdata: &[u8]) -> Self {
        self.record(10, owner, ttl, rtype, rdata)
    }

    fn record(self, field: usize, owner: &str, ttl: u32, rtype: Type, rdata: &[u8]) -> Self {
        let owner = wire(owner);
        let owner = if owner == self.qname { vec![0xc0, HEADER as u8] } else { owner };
        self.raw(field, &owner, ttl, rtype, rdata)
    }

    /// A record counted in the header's `field`, its owner as given.
    pub(in super::super) fn raw(mut self, field: usize, owner: &[u8], ttl: u32, rtype: Type, rdata: &[u8]) -> Self {
        self.octets.extend_from_slice(owner);
        self.octets.extend_from_slice(&rtype.0.to_be_bytes());
        self.octets.extend_from_slice(&[0, 1]);
        self.octets.extend_from_slice(&ttl.to_be_bytes());
        self.octets.extend_from_slice(&u16::try_from(rdata.len()).expect("short").to_be_bytes());
        self.octets.extend_from_slice(rdata);
        self.count(field)
    }

    pub(in super::super) fn opt(mut self, extended_rcode: u8) -> Self {
        self.octets.extend_from_slice(&opt(extended_rcode, false));
        self.count(10)
    }

    fn count(mut self, field: usize) -> Self {
        let count = u16::from_be_bytes([self.octets[field], self.octets[field + 1]]) + 1;
        self.octets[field..field + 2].copy_from_slice(&count.to_be_bytes());
        self
    }

    /// The response to the question it repeats, asked with DO clear.
    pub(in super::super) fn judged(&self) -> Response {
        self.judged_with(false)
    }

    pub(in super::super) fn judged_with(&self, dnssec_ok: bool) -> Response {
        let mut query = vec![0x12, 0x34, 0x01, 0x20, 0, 1, 0, 0, 0, 0, 0, 1];
        query.extend([&self.qname[..], &self.qtype.0.to_be_bytes(), &[0, 1], &opt(0, dnssec_ok)].concat());
        judge(&self.octets, &query).expect("a response")
    }
}

// === RDATA ===

pub(in super::super) fn soa(mname: &str, minimum: u32) -> Vec<u8> {
    let numbers: Vec<u8> =
        [2_026_112_001_u32, 7200, 1800, 86_400, minimum].iter().flat_map(|n| n.to_be_bytes()).collect();
    [wire(mname), wire("mail.test"), numbers].concat()
}

pub(in super::super) fn srv(port: u16, target: &str) -> Vec<u8> {
    [vec![0, 1, 0, 2], port.to_be_bytes().to_vec(), wire(target)].concat()
}

pub(in super::super) fn mx(exchange: &str) -> Vec<u8> {
    [vec![0, 10], wire(exchange)].concat()
}

pub(in super::super) fn rrsig(covered: Type, signer: &str) -> Vec<u8> {
    let mut rdata = covered.0.to_be_bytes().to_vec();
    rdata.extend_from_slice(&[13, 2, 0, 0, 1, 0x2c]);
    rdata.extend_from_slice(&[0x6a, 0, 0, 0, 0x69, 0, 0, 0, 0x30, 0x39]);
    [rdata, wire(signer), vec![0x5a; 64]].concat()
}

/// An HTTPS record's RDATA: priority 1, parameters as given.
pub(in super::super) fn https(target: &str, parameters: &[u8]) -> Vec<u8> {
    [&[0, 1][..], &wire(target), parameters].concat()
}

/// A parameter list of `alpn=h2` and one IPv6 hint.
pub(in super::super) fn alpn_and_hint() -> Vec<u8> {
    [&b"\0\x01\0\x03\x02h2\0\x06\0\x10"[..], &V6].concat()
}

/// 192.0.2.1.
pub(in super::super) const V4: [u8; 4] = [192, 0, 2, 1];
/// `2001:db8::1`.
pub(in super::super) const V6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

// === reading back ===

/// The records as text, `section owner ttl type rdata`, after checks that hold for every stored message.
pub(in super::super) fn records(octets: &[u8], ttl_offsets: &[u16]) -> Vec<String> {
    let message = Message::from_vec(octets).expect("a stored message is well-formed");
    let sections = [("an", &message.answers), ("ns", &message.authorities), ("ar", &message.additionals)];
    let all: Vec<_> =
        sections.iter().flat_map(|(name, records)| records.iter().map(move |record| (name, record))).collect();
    let ttls: Vec<u32> = ttl_offsets.iter().map(|&at| u32_at(octets, at.into())).collect();
    assert_eq!(ttls, all.iter().map(|(_, record)| record.ttl).collect::<Vec<_>>(), "each record has one offset");
    assert!(ttl_offsets.is_sorted_by(|one, other| one < other), "offsets ascend");
    assert!(message.edns.is_none(), "OPT is not stored");
    assert_eq!(octets[..2], [0, 0], "ID 0");
    assert!(!message.metadata.authoritative, "AA clear");
    let text = |(section, record): &(&&str, &hickory_proto::rr::Record)| {
        format!("{section} {} {} {} {}", record.name, record.ttl, record.record_type(), record.data)
    };
    all.iter().map(text).collect()
}

pub(in super::super) fn u32_at(octets: &[u8], at: usize) -> u32 {
    octets[at..].first_chunk().copied().map(u32::from_be_bytes).expect("within the message")
}

impl Response {
    /// Its records as [`records`] has them.
    pub(in super::super) fn lines(&self) -> Vec<String> {
        records(self.octets(), self.ttl_offsets())
    }
}
