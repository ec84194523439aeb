//! Messages written into buffers of the caller: answers from stored responses, answers of our own, upstream queries.
//!
//! Nothing here allocates. A reply carries the client's ID and question as sent, RD and CD as sent, RA=1 and AA=0; it has
//! an OPT record if and only if the client sent one; it is never longer than the client allows, but cut between two
//! records with TC=1.
//!
//! ```text
//! stored   header │ question │ record TTL … │ record TTL … │
//!             ▼         ▼            ▼              ▼
//! reply    patched   client's     by rule        by rule      OPT, if asked for
//! ```
//!
//! Read first: RFC 1035 section 4.1, RFC 2181 sections 8 and 9, RFC 6891 section 7, RFC 6840 section 5.8, RFC 8767 section 4.

use std::net::IpAddr;

use super::edns::{OPT_MIN, Opt};
use super::header::{AD, CD, Header, OPCODE, QR, RA, RCODE, RD, TC};
use super::response::Stored;
use super::soa::Soa;
use super::{Asker, Class, Ede, HEADER, Key, NAME_MAX, Name, Rcode, Refusal, Transport, Type};

/// Octets in the longest query we send.
pub const QUERY_MAX: usize = HEADER + NAME_MAX + 4 + OPT_MIN;

/// What becomes of the TTLs of a stored response. Seconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TtlRule {
    /// Less the response's age. What was above 0 stays above 0.
    Age(u32),
    /// As they were stored.
    AsStored,
    /// At most `cap`, never 0 (RFC 8767 section 4); the answer loses AD, since its signatures may have expired.
    Stale {
        /// Upper bound.
        cap: u32,
    },
}

impl TtlRule {
    #[inline]
    fn apply(self, ttl: u32) -> u32 {
        match self {
            Self::Age(seconds) => ttl.saturating_sub(seconds).max(u32::from(ttl > 0)),
            Self::AsStored => ttl,
            Self::Stale { cap } => ttl.min(cap).max(1),
        }
    }
}

/// Writes the reply to `asker` that a stored response makes, and returns its length.
///
/// `stored` must answer the asker's question, so that the questions have the same length.
///
/// `None` if `out` cannot hold header, question and OPT, or if `stored` is no response to such a question.
#[inline]
pub fn patch(stored: Stored<'_>, asker: &Asker<'_>, ttl: TtlRule, ede: Option<Ede>, out: &mut [u8]) -> Option<usize> {
    let mut header = Header::read(stored.octets())?;
    let opt = Opt::reply(asker.edns, header.rcode(), ede);
    let room = asker.limit().min(out.len()).checked_sub(opt.octets().len())?;
    let records_start = HEADER + asker.question.len();
    let (mut end, mut ttl_offsets) = (stored.octets().len(), stored.ttl_offsets());

    let mut flags = QR | RA | header.flags & (RCODE | TC);
    if end > room {
        (end, ttl_offsets) = cut(stored, records_start, room)?;
        header.keep_first(ttl_offsets.len());
        flags |= TC;
    }
    // RFC 6840 section 5.8. A cut answer vouches for nothing.
    let vouch = header.has(AD) && (asker.authentic_data || asker.dnssec_ok());
    if vouch && flags & TC == 0 && !matches!(ttl, TtlRule::Stale { .. }) {
        flags |= AD;
    }
    header.id = asker.id;
    header.flags = flags | echoed(asker);
    header.additionals += u16::from(!opt.octets().is_empty());

    let (message, behind) = out.split_at_mut_checked(end)?;
    message.copy_from_slice(stored.octets().get(..end)?);
    message.get_mut(..HEADER)?.copy_from_slice(&header.octets());
    message.get_mut(HEADER..records_start)?.copy_from_slice(asker.question);
    for &at in ttl_offsets {
        let field: &mut [u8; 4] = message.get_mut(usize::from(at)..)?.first_chunk_mut()?;
        *field = ttl.apply(u32::from_be_bytes(*field)).to_be_bytes();
    }
    behind.get_mut(..opt.octets().len())?.copy_from_slice(opt.octets());
    Some(end + opt.octets().len())
}

/// Finds how much of a response fits into `room`: where the last whole record ends, and the TTLs up to there.
fn cut(stored: Stored<'_>, records_start: usize, room: usize) -> Option<(usize, &[u16])> {
    let mut end = records_start;
    if end > room {
        return None;
    }
    let mut kept = 0;
    for &at in stored.ttl_offsets() {
        // Behind the TTL stand RDLENGTH and RDATA, and there the record ends.
        let [_, _, _, _, high, low] = *stored.octets().get(usize::from(at)..)?.first_chunk()?;
        let record_end = usize::from(at) + 6 + usize::from(u16::from_be_bytes([high, low]));
        if record_end > room {
            break;
        }
        end = record_end;
        kept += 1;
    }
    Some((end, stored.ttl_offsets().get(..kept)?))
}

/// Writes a reply without records, and returns its length.
///
/// A response code above 15 needs an OPT record; a client without one gets SERVFAIL for it. `None` if `out` cannot hold
/// header, question and OPT.
pub fn failure(asker: &Asker<'_>, rcode: Rcode, ede: Option<Ede>, out: &mut [u8]) -> Option<usize> {
    Some(Reply::open(asker, rcode, ede, out)?.close())
}

/// Writes the reply to a query that [`Query::parse`](super::Query::parse) refused, and returns its length.
///
/// The reply has the query's ID and opcode, its question if it is one and legal, and an OPT record if the query's could be
/// read. `None` if the refusal is silent, or `out` cannot hold the reply.
pub fn refuse(octets: &[u8], refusal: &Refusal, transport: Transport, out: &mut [u8]) -> Option<usize> {
    let rcode = refusal.rcode()?;
    let asker = Asker::of_refused(octets, transport)?;
    let mut reply = Reply::open(&asker, rcode, None, out)?;
    reply.header.flags |= Header::read(octets)?.flags & OPCODE;
    Some(reply.close())
}

/// Writes a negative answer of our own, and returns its length.
///
/// `rcode` is NXDOMAIN, or NOERROR for NODATA. The authority section holds an SOA record of the zone `soa_owner`, an
/// uncompressed name, with the lifetime `ttl` in seconds. `None` if `out` cannot hold header, question and OPT.
pub fn negative(
    asker: &Asker<'_>,
    rcode: Rcode,
    soa_owner: &[u8],
    ttl: u32,
    ede: Option<Ede>,
    out: &mut [u8],
) -> Option<usize> {
    let mut reply = Reply::open(asker, rcode, ede, out)?;
    let soa = Soa::new(qname(asker), soa_owner, reply.length, ttl);
    if reply.push(&[soa.octets()]) {
        reply.header.authorities += 1;
    }
    Some(reply.close())
}

/// Writes an answer with those of `addresses` that are of the type asked for, and returns its length.
///
/// Where there are none the answer is NODATA, with the name asked for as the zone. `ttl` in seconds. `None` if `out`
/// cannot hold header, question and OPT.
pub fn addresses(asker: &Asker<'_>, addresses: &[IpAddr], ttl: u32, out: &mut [u8]) -> Option<usize> {
    let mut reply = Reply::open(asker, Rcode::NOERROR, None, out)?;
    for address in addresses {
        match address {
            IpAddr::V4(address) => reply.answer(asker, Type::A, ttl, &address.octets()),
            IpAddr::V6(address) => reply.answer(asker, Type::AAAA, ttl, &address.octets()),
        }
    }
    if reply.is_empty() {
        return negative(asker, Rcode::NOERROR, qname(asker), ttl, None, out);
    }
    Some(reply.close())
}

/// Writes an answer with a PTR record for each of `names`, and returns its length.
///
/// For other types the answer is NODATA, with the name asked for as the zone. `ttl` in seconds. `None` if `out` cannot
/// hold header, question and OPT.
pub fn pointers(asker: &Asker<'_>, names: &[Name], ttl: u32, out: &mut [u8]) -> Option<usize> {
    let mut reply = Reply::open(asker, Rcode::NOERROR, None, out)?;
    for name in names {
        reply.answer(asker, Type::PTR, ttl, name.as_wire());
    }
    if reply.is_empty() {
        return negative(asker, Rcode::NOERROR, qname(asker), ttl, None, out);
    }
    Some(reply.close())
}

/// Writes the query that asks an upstream for the answer to `key`, and returns its length, at most [`QUERY_MAX`].
///
/// RD=1; AD=1, so that one answer serves all askers (RFC 6840 section 5.7); CD and DO from the key. Each letter of QNAME
/// is in upper case where `case` has a bit set (draft-vixie-dnsext-dns0x20). With `edns` there is an OPT record without
/// options; DO cannot be asked for without. `None` if `out` is too short.
pub fn upstream_query(key: &Key, id: u16, case: Option<[u64; 4]>, edns: bool, out: &mut [u8]) -> Option<usize> {
    let opt = if edns { Opt::plain(Rcode::NOERROR, key.dnssec_ok()) } else { Opt::NONE };
    let header = Header {
        id,
        flags: RD | AD | if key.checking_disabled() { CD } else { 0 },
        questions: 1,
        answers: 0,
        authorities: 0,
        additionals: u16::from(edns),
    };
    let mut length = 0;
    for part in
        [&header.octets()[..], key.qname(), &key.qtype().0.to_be_bytes(), &Class::IN.0.to_be_bytes(), opt.octets()]
    {
        out.get_mut(length..length + part.len())?.copy_from_slice(part);
        length += part.len();
    }
    if let Some(bits) = case {
        for (at, octet) in out[HEADER..HEADER + key.qname().len()].iter_mut().enumerate() {
            // Lengths of labels are no letters, so they stay.
            if bits[at / 64] >> (at % 64) & 1 == 1 {
                octet.make_ascii_uppercase();
            }
        }
    }
    Some(length)
}

/// RD and CD of the query, which every reply repeats (RFC 1035 section 4.1.1, RFC 4035 section 3.2.2).
#[inline]
fn echoed(asker: &Asker<'_>) -> u16 {
    (if asker.recursion_desired { RD } else { 0 }) | if asker.checking_disabled { CD } else { 0 }
}

/// QNAME as sent; empty if there is no question.
fn qname<'a>(asker: &Asker<'a>) -> &'a [u8] {
    asker.question.split_last_chunk::<4>().map_or(&[], |(qname, _)| qname)
}

/// A reply of our own, while records are added to it.
struct Reply<'o> {
    out: &'o mut [u8],
    header: Header,
    length: usize,
    /// Octets the message may have without its OPT record.
    room: usize,
    opt: Opt,
}

impl<'o> Reply<'o> {
    /// Opens a reply with the question; `None` if `out` cannot hold it and the OPT record.
    fn open(asker: &Asker<'_>, rcode: Rcode, ede: Option<Ede>, out: &'o mut [u8]) -> Option<Self> {
        // The upper bits of the code have no place without OPT, and the lower ones alone mean something else.
        let rcode = if rcode.high() > 0 && asker.edns.is_none() { Rcode::SERVFAIL } else { rcode };
        let opt = Opt::reply(asker.edns, rcode, ede);
        let room = asker.limit().min(out.len()).checked_sub(opt.octets().len())?;
        let length = HEADER + asker.question.len();
        if length > room {
            return None;
        }
        out.get_mut(HEADER..length)?.copy_from_slice(asker.question);
        let header = Header {
            id: asker.id,
            flags: QR | RA | echoed(asker) | u16::from(rcode.low()),
            questions: u16::from(!asker.question.is_empty()),
            answers: 0,
            authorities: 0,
            additionals: 0,
        };
        Some(Self { out, header, length, room, opt })
    }

    /// Adds a record about the name asked for, if the type asked for includes it.
    fn answer(&mut self, asker: &Asker<'_>, rtype: Type, ttl: u32, rdata: &[u8]) {
        // RFC 1035 section 4.1.4: a pointer to QNAME, which always stands behind the header.
        const QNAME: [u8; 2] = [0xc0, HEADER as u8];

        if asker.qtype() != rtype && asker.qtype() != Type::ANY {
            return;
        }
        let [t0, t1] = rtype.0.to_be_bytes();
        let [c0, c1] = Class::IN.0.to_be_bytes();
        let length = (rdata.len() as u16).to_be_bytes();
        if self.push(&[&QNAME, &[t0, t1, c0, c1], &ttl.to_be_bytes(), &length, rdata]) {
            self.header.answers += 1;
        }
    }

    /// Appends a record given in parts, unless it or one before it does not fit: then the reply is cut, TC=1.
    fn push(&mut self, parts: &[&[u8]]) -> bool {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if self.header.has(TC) || self.length + length > self.room {
            self.header.flags |= TC;
            return false;
        }
        for part in parts {
            self.out[self.length..self.length + part.len()].copy_from_slice(part);
            self.length += part.len();
        }
        true
    }

    /// Whether no record was added, nor left out for want of room.
    fn is_empty(&self) -> bool {
        self.header.answers == 0 && !self.header.has(TC)
    }

    /// Writes header and OPT, and returns the length of the message.
    fn close(mut self) -> usize {
        let opt = self.opt.octets();
        self.header.additionals += u16::from(!opt.is_empty());
        self.out[..HEADER].copy_from_slice(&self.header.octets());
        self.out[self.length..self.length + opt.len()].copy_from_slice(opt);
        self.length + opt.len()
    }
}

#[cfg(test)]
mod tests;
